"""What an environment is, and how many of them step together."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ..config import ConfigError
from ..types import Array, Key, PyTree


class Step(NamedTuple):
    """What one action led to."""

    obs: Array  # [*obs] the successor, also when the episode ended
    reward: Array  # [] float32
    terminated: Array  # [] bool, the task ended: the successor is worth nothing
    truncated: Array  # [] bool, a time limit: the successor keeps its worth


class ResetFn(Protocol):
    def __call__(self, key: Key) -> tuple[PyTree, Array]:
        """Return (state, obs [*obs]) of a new episode."""
        ...


class StepFn(Protocol):
    def __call__(self, key: Key, state: PyTree, action: Array) -> tuple[PyTree, Step]:
        """Return (state, Step) after `action` [] int32. It need not reset: that is done for it."""
        ...


class Env(NamedTuple):
    """One environment as two pure functions: no batch axis, no resets. This is all a user writes."""

    reset: ResetFn
    step: StepFn
    num_actions: int
    name: str = "custom"


class Tick(NamedTuple):
    """What one tick of E environments led to."""

    obs: Array  # [E, *obs]
    reward: Array  # [E] float32
    terminated: Array  # [E] bool
    last: Array  # [E] bool, obs is final; the next tick resets


class VectorEnv(NamedTuple):
    """E environments that step together and reset themselves on the tick after an episode ends."""

    reset: Callable[[Key], tuple[PyTree, Array]]  # (key) -> (state, obs [E, *obs])
    step: Callable[[Key, PyTree, Array, Array], tuple[PyTree, Tick]]  # (key, state, last [E], action [E])
    num_envs: int


def check_shapes(env: Env) -> None:
    """Refuse an environment whose reset and step do not fit together; nothing is run.

    Raises:
        ConfigError: one sentence that says which rule of docs/add_an_env.md is broken.
    """
    if env.num_actions < 1:
        raise ConfigError(f"{env.name} must have one action or more, got num_actions={env.num_actions}")
    key, action = jax.random.key(0), jax.ShapeDtypeStruct((), jnp.int32)
    state, obs = jax.eval_shape(env.reset, key)
    if not hasattr(obs, "shape"):
        raise ConfigError(f"{env.name} must show one array, and reset shows {jax.tree.structure(obs)}: concatenate it")
    after, step = jax.eval_shape(env.step, key, state, action)
    before, later = jax.tree.structure(state), jax.tree.structure(after)
    if str(before) != str(later):
        raise ConfigError(f"{env.name} must keep the structure of its state, and step changes what reset makes")
    for name, made, found in [
        *(("state", a, b) for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True)),
        ("obs", obs, step.obs),
        ("reward", jax.ShapeDtypeStruct((), jnp.float32), step.reward),
        ("terminated", jax.ShapeDtypeStruct((), jnp.bool), step.terminated),
        ("truncated", jax.ShapeDtypeStruct((), jnp.bool), step.truncated),
    ]:
        wanted, got = (f"{jnp.dtype(x.dtype).name if not _is_key(x) else 'key'}{list(x.shape)}" for x in (made, found))
        if wanted != got:
            raise ConfigError(f"{env.name} must keep {name} at {wanted}, and step gives {got}")


def _is_key(x) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def vectorise(env: Env, num_envs: int) -> VectorEnv:
    """Step `num_envs` copies of `env` together, with next-tick autoreset.

    The tick after a `last` one ignores the action and returns the first observation of the next
    episode with reward 0 (Gymnasium's NEXT_STEP mode, dm_env's LAST step).
    """

    def reset(key):
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def step(key, state, last, action):
        def one(key, state, last, action):
            k_step, k_reset = jax.random.split(key)
            after, result = env.step(k_step, state, action)
            fresh, first = env.reset(k_reset)
            state, obs = jax.tree.map(lambda a, b: jnp.where(last, a, b), (fresh, first), (after, result.obs))
            terminated = result.terminated & ~last
            ended = (result.terminated | result.truncated) & ~last
            return state, Tick(obs, jnp.where(last, 0.0, result.reward), terminated, ended)

        return jax.vmap(one)(jax.random.split(key, num_envs), state, last, action)

    return VectorEnv(reset, step, num_envs)
