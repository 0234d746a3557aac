"""check_env: plays an environment at random for a while, and says which rule of docs/add_an_env.md it breaks."""

from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..config import ConfigError
from ..types import Array, Key, PyTree
from .base import Env, vectorise
from .shapes import check_shapes, guarded, is_key, leaves

SEEDS = 32  # resets that are compared with each other
NOT_FINITE = ("", "NaN", "infinity")


class EnvReport(NamedTuple):
    """What was seen of an environment that keeps the rules."""

    steps: int  # transitions played, of all copies
    episodes: int  # that ended meanwhile
    remarks: tuple[str, ...]  # what no rule forbids and yet may not be meant, a sentence each


class Play(NamedTuple):
    """What a random play left to look at."""

    reward: Array  # [T, E]
    last: Array  # [T, E] an episode ended
    broken: dict[str, Array]  # name -> [T, E] which of NOT_FINITE a part of state, obs or reward was
    moved: Array  # [T, E] the observation is another than before


def check_env(
    env: Env, key: Key | None = None, *, deterministic_reset: bool = False, num_envs: int = 8, ticks: int = 512
) -> EnvReport:
    """Play `num_envs` copies of `env` at random for `ticks` ticks, and refuse it if it breaks a rule.

    It refuses what `build` refuses without running anything (`check_shapes`), and beside that NaN and infinity, keys
    that are used twice, a reset that ignores its key, and results that change when the same call is made again.

    Args:
        key: of the play; `jax.random.key(0)` if not given.
        deterministic_reset: every episode is meant to begin alike.

    Raises:
        ConfigError: one sentence that says which rule of docs/add_an_env.md is broken; an error of the environment's
            own is its cause.
    """
    for name, number in (("num_envs", num_envs), ("ticks", ticks)):
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
            raise ConfigError(f"check_env's {name} must be a whole number of at least 1, got {number!r}")
    if key is not None and not (is_key(key) and key.shape == ()):
        raise ConfigError(f"check_env's key must be a random key like jax.random.key(0), got {key!r}")
    with jax.debug_key_reuse(False):  # it takes a key that a state holds for a used one, under vmap
        check_shapes(env)
        k_pure, k_reset, k_play = jax.random.split(jax.random.key(0) if key is None else key, 3)
        _check_pure(env, k_pure)
        _check_keys(env)
        _check_resets(env, k_reset, deterministic_reset)
        play = guarded(
            env, "step", lambda: jax.device_get(jax.jit(_play, static_argnums=(0, 2, 3))(env, k_play, num_envs, ticks))
        )
    _check_play(env, play)
    return _report(env, play)


def _check_keys(env: Env) -> None:
    """Refuse a key that two draws share."""
    key, other = jax.random.split(jax.random.key(0))
    with jax.debug_key_reuse(True):
        guarded(env, "reset", lambda: jax.jit(lambda key: env.reset(key)).lower(key))
        state, _ = jax.eval_shape(env.reset, key)
        guarded(env, "step", lambda: jax.jit(lambda *x: env.step(*x)).lower(other, state, jnp.int32(0)))


def _check_pure(env: Env, key: Key) -> None:
    """Refuse functions whose answer depends on more than their arguments: on NumPy's randomness, an object, the time.

    They are called without jit, which would keep what they said at first. What only runs when it is traced cannot be
    compared, and passes.
    """
    with jax.disable_jit():
        for action in range(min(int(env.num_actions), 3)):
            k_reset, k_step = jax.random.split(jax.random.fold_in(key, action))
            state = _twice(env, "reset", k_reset)
            if state is None:
                return
            _twice(env, "step", k_step, jax.tree.map(jnp.asarray, state[0]), jnp.int32(action))


def _twice(env: Env, name: str, *arguments: Any) -> Any:
    """What reset or step (`name`) returns, both times; None if it fails.

    Raises:
        ConfigError: it returns something else the second time.
    """
    try:
        one, other = (getattr(env, name)(*arguments) for _ in range(2))
        same = jax.tree.map(_equal, one, other)
    except Exception:
        return None
    if not all(jax.tree.leaves(same)):
        raise ConfigError(
            f"{env.name}'s {name} must be pure, and gives two results for the same arguments: draw with its key, not "
            "with NumPy or random, and keep what changes in the state"
        )
    return one


def _equal(one: Any, other: Any) -> bool:
    one, other = np.asarray(_plain(one)), np.asarray(_plain(other))
    return np.allclose(one, other, equal_nan=True)


def _plain(x: Any) -> Any:
    return jax.random.key_data(x) if isinstance(x, jax.Array) and is_key(x) else x


def _check_resets(env: Env, key: Key, deterministic: bool) -> None:
    """Refuse first states and observations that are not finite, or the same whatever the key."""
    state, obs = guarded(env, "reset", lambda: jax.jit(jax.vmap(env.reset))(jax.random.split(key, SEEDS)))
    alike, parts = True, [*(("state" + path, x) for path, x in leaves(state)), ("obs", obs)]
    for name, x in parts:
        if code := int(_not_finite(x).max()):
            raise ConfigError(
                f"{env.name} must give finite numbers, and reset gives {NOT_FINITE[code]} in {name}: guard what it "
                "divides by, roots and logarithms"
            )
        same = bool((_plain(x) == _plain(x)[:1]).all())
        if same and is_key(x):
            raise ConfigError(
                f"{env.name}'s reset must use its key, and puts the same key into {name} whatever it is given: put one "
                "there that jax.random.split makes of its own"
            )
        alike &= same
    if alike and not deterministic:
        raise ConfigError(
            f"{env.name}'s reset must use its key, and {SEEDS} keys give the same state and obs: draw with it, or say "
            "check_env(env, deterministic_reset=True) if every episode is meant to begin alike"
        )


def _not_finite(x: Array) -> Array:
    """x [E, ...] -> [E] which of NOT_FINITE is in it."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.zeros(x.shape[:1], jnp.int32)
    nan, infinite = (f(x).reshape(x.shape[0], -1).any(1) for f in (jnp.isnan, jnp.isinf))
    return jnp.where(nan, 1, jnp.where(infinite, 2, 0))


def _play(env: Env, key: Key, num_envs: int, ticks: int) -> Play:
    """Random actions for `ticks` ticks."""
    vector = vectorise(env, num_envs)
    k_reset, k_play = jax.random.split(key)

    def tick(carry: PyTree, t: Array):
        state, obs, last = carry
        k_action, k_step = jax.random.split(jax.random.fold_in(k_play, t))
        action = jax.random.randint(k_action, (num_envs,), 0, env.num_actions)
        state, after = vector.step(k_step, state, last, action)
        parts = [*(("state" + path, x) for path, x in leaves(state)), ("obs", after.obs), ("reward", after.reward)]
        moved = (after.obs != obs).reshape(num_envs, -1).any(1)
        broken = {name: _not_finite(x) for name, x in parts if jnp.issubdtype(x.dtype, jnp.inexact)}
        return (state, after.obs, after.last), Play(after.reward, after.last, broken, moved)

    return jax.lax.scan(tick, (*vector.reset(k_reset), jnp.zeros(num_envs, bool)), jnp.arange(ticks))[1]


def _check_play(env: Env, play: Play) -> None:
    """Refuse what was not finite, and name what was so first: a state before what is computed of it."""
    broken = [(*np.argwhere(codes)[0], name) for name, codes in play.broken.items() if codes.any()]
    if broken:
        tick, copy, name = min(broken, key=lambda place: (place[0], place[2] in ("obs", "reward")))
        what = NOT_FINITE[play.broken[name][tick, copy]]
        raise ConfigError(
            f"{env.name} must give finite numbers, and step gives {what} in {name} "
            f"at tick {tick + 1} of a random play: guard what it divides by, roots and logarithms"
        )


def _report(env: Env, play: Play) -> EnvReport:
    ticks, copies = play.last.shape
    episodes = int(play.last.sum())
    remarks = []
    if not episodes:
        remarks.append(
            f"no episode of {env.name} ended within {ticks} steps: where one may never end, set truncated at a limit"
        )
    if not play.reward.any():
        remarks.append(f"{env.name} paid nothing but zeros in {ticks} steps of {copies} random plays")
    if not play.moved.any():
        remarks.append(f"{env.name} shows the same observation at every step")
    return EnvReport(ticks * copies - int(play.last[:-1].sum()), episodes, tuple(remarks))
