"""What an environment is, and how many of them step together."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

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


FEW = 16  # environments; to look for the ones to reset takes a CPU longer than to reset so many


def vectorise(env: Env, num_envs: int) -> VectorEnv:
    """Step `num_envs` copies of `env` together, with next-tick autoreset.

    The tick after a `last` one ignores the action and returns the first observation of the next
    episode with reward 0 (Gymnasium's NEXT_STEP mode, dm_env's LAST step).
    """
    on_cpu = _if_needed if num_envs <= FEW else _where_needed
    renew = (on_cpu if jax.default_backend() == "cpu" else _everywhere)(env, num_envs)

    def reset(key):
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def step(key, state, last, action):
        # Numbers below E make the keys of steps, those from E on the keys of resets: nothing is derived in vain.
        keys = jax.vmap(lambda e: jax.random.fold_in(key, e))(jnp.arange(num_envs))
        after, result = jax.vmap(env.step)(keys, state, action)
        state, obs = renew(key, last, (after, result.obs))
        ended = (result.terminated | result.truncated) & ~last
        return state, Tick(obs, jnp.where(last, 0.0, result.reward), result.terminated & ~last, ended)

    return VectorEnv(reset, step, num_envs)


def _everywhere(env: Env, num_envs: int):
    """Reset all environments and keep what is needed: what an accelerator does for nothing, and without a loop."""

    def renew(key, last, after):
        fresh = jax.vmap(lambda e: env.reset(jax.random.fold_in(key, num_envs + e)))(jnp.arange(num_envs))
        return jax.tree.map(lambda a, b: jnp.where(jnp.expand_dims(last, range(1, a.ndim)), a, b), fresh, after)

    return renew


def _if_needed(env: Env, num_envs: int):
    """Reset all of a few environments, if any needs it."""
    everywhere = _everywhere(env, num_envs)

    def renew(key, last, after):
        def once(carry):
            return jnp.zeros_like(last), everywhere(key, last, carry[1])

        return jax.lax.while_loop(lambda carry: carry[0].any(), once, (last, after))[1]

    return renew


def _where_needed(env: Env, num_envs: int):
    """Reset those environments that need it, a sixteenth at a time: it saves a CPU most of a tick."""
    batch = -(-num_envs // 16)

    def renew(key, last, after):
        needy = jnp.cumsum(last)  # the r-th environment to reset, from 1, is where this reaches r

        def some(carry):
            done, tree = carry
            wanted = jnp.minimum(done + 1 + jnp.arange(batch), needy[-1])  # the last one several times, all alike
            index = jnp.searchsorted(needy, wanted, method="scan_unrolled")
            fresh = jax.vmap(lambda e: env.reset(jax.random.fold_in(key, num_envs + e)))(index)
            return done + batch, jax.tree.map(lambda a, b: b.at[index].set(a, mode="promise_in_bounds"), fresh, tree)

        return jax.lax.while_loop(lambda carry: carry[0] < needy[-1], some, (0, after))[1]

    return renew
