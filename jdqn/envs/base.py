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
