"""How actions are chosen while training."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .config import Hyper
from .types import Array, Key, PyTree


class SelectFn(Protocol):
    def __call__(self, key: Key, memory: PyTree, values: Array, last: Array, epsilon: Array) -> tuple[Array, PyTree]:
        """Return (action [E] int32, memory) from values [E, A] and the share of random actions [E]."""
        ...


class EpsilonFn(Protocol):
    def __call__(self, ticks: Array, num_envs: int, hyper: Hyper) -> Array:
        """Return the share of random actions [E] after `ticks` environment ticks."""
        ...


class Exploration(NamedTuple):
    """A rule that chooses actions; `memory` is what it keeps per environment, () if nothing.

    Warm-up calls `select` with epsilon 1, so every rule must then be uniformly random.
    """

    init: "InitFn"
    epsilon: EpsilonFn
    select: SelectFn


class InitFn(Protocol):
    def __call__(self, key: Key, num_envs: int) -> PyTree:
        """Return the memory of `num_envs` environments that start an episode."""
        ...


def epsilon_greedy() -> Exploration:
    """A random action with probability epsilon, which falls linearly (Mnih et al. 2015), else the best one."""

    def init(key, num_envs):
        return ()

    def epsilon(ticks, num_envs, hyper):
        progress = jnp.clip(ticks / hyper.epsilon_steps, 0.0, 1.0)
        return jnp.full(num_envs, hyper.epsilon_start + (hyper.epsilon_end - hyper.epsilon_start) * progress)

    def select(key, memory, values, last, epsilon):
        k_explore, k_action = jax.random.split(key)
        explore = jax.random.uniform(k_explore, epsilon.shape) < epsilon
        anything = jax.random.randint(k_action, epsilon.shape, 0, values.shape[-1])
        return jnp.where(explore, anything, values.argmax(-1).astype(anything.dtype)), memory

    return Exploration(init, epsilon, select)
