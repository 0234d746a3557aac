"""How actions are chosen while training."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .config import Hyper
from .types import Array, Key, PyTree


class SelectFn(Protocol):
    def __call__(
        self, key: Key, memory: PyTree, values: Array, last: Array, epsilon: Array, hyper: Hyper
    ) -> tuple[Array, PyTree]:
        """Return (action [E] int32, memory) from values [E, K, A] of K members and the share of random actions [E].

        `last` [E] marks environments whose tick resets: the action is ignored and the next one begins an episode.
        """
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


def explore(key: Key, greedy: Array, num_actions: int, epsilon: Array) -> Array:
    """Actions `greedy` [E], or any of `num_actions` with probability epsilon [E]."""
    whether, which = jax.random.uniform(key, (2, *epsilon.shape))  # in [0, 1)
    anything = (num_actions * which).astype(jnp.int32)
    return jnp.where(whether < epsilon, anything, greedy.astype(jnp.int32))


def schedule(ticks: Array, num_envs: int, hyper: Hyper) -> Array:
    """Epsilon [E] that falls linearly, the same for all environments (Mnih et al. 2015)."""
    progress = jnp.clip(ticks / hyper.epsilon_steps, 0.0, 1.0)
    return jnp.full(num_envs, hyper.epsilon_start + (hyper.epsilon_end - hyper.epsilon_start) * progress)


def ladder(ticks: Array, num_envs: int, hyper: Hyper) -> Array:
    """Epsilon [E] that never changes, base^(1 + exponent i / (E - 1)) in environment i (Ape-X, Horgan et al. 2018)."""
    return hyper.ladder_base ** (1 + hyper.ladder_exponent * jnp.arange(num_envs) / max(num_envs - 1, 1))


def epsilon_greedy(epsilon: EpsilonFn = schedule) -> Exploration:
    """A random action with probability epsilon, else the best one."""

    def select(key, memory, values, last, epsilon, hyper):
        return explore(key, values.mean(1).argmax(-1), values.shape[-1], epsilon), memory

    return Exploration(lambda key, num_envs: (), epsilon, select)


def softmax() -> Exploration:
    """An action drawn from softmax(values / temperature), on top of epsilon."""

    def select(key, memory, values, last, epsilon, hyper):
        k_draw, k_explore = jax.random.split(key)
        drawn = jax.random.categorical(k_draw, values.mean(1) / hyper.softmax_temperature)
        return explore(k_explore, drawn, values.shape[-1], epsilon), memory

    return Exploration(lambda key, num_envs: (), schedule, select)


def member(members: int) -> Exploration:
    """Every environment follows one member of the ensemble for an episode (Osband et al. 2016), on top of epsilon."""

    def init(key, num_envs):
        return jax.random.randint(key, (num_envs,), 0, members)

    def select(key, memory, values, last, epsilon, hyper):
        k_member, k_explore = jax.random.split(key)
        followed = jnp.take_along_axis(values, memory[:, None, None], 1)[:, 0]
        action = explore(k_explore, followed.argmax(-1), values.shape[-1], epsilon)
        return action, jnp.where(last, init(k_member, last.shape[0]), memory)

    return Exploration(init, schedule, select)
