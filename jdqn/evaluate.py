"""Greedy episodes, as a pure function."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .envs import Env
from .networks import Policy
from .types import Array, Key, PyTree


class Evaluation(NamedTuple):
    returns: Array  # [episodes] undiscounted
    lengths: Array  # [episodes] int32
    finished: Array  # [episodes] bool, False where max_steps cut the episode


def evaluate(
    env: Env, policy: Policy, params: PyTree, key: Key, *, episodes: int = 100, max_steps: int = 10_000
) -> Evaluation:
    """Play `episodes` greedy episodes, side by side, each from its own reset to its own end.

    Every environment plays exactly one episode, so short episodes are not counted more often.

    Raises:
        ValueError: fewer than one episode or step.
    """
    if episodes < 1 or max_steps < 1:
        raise ValueError(f"episodes and max_steps must be at least 1, got {episodes} and {max_steps}")

    def alive(carry):
        _, _, _, result, t = carry
        return ~result.finished.all() & (t < max_steps)

    def tick(carry):
        env_state, obs, hidden, result, t = carry
        k_env = jax.random.fold_in(key, t)
        values, hidden = policy.values(params, None, obs, hidden, jnp.zeros(episodes, bool))
        env_state, after = jax.vmap(env.step)(jax.random.split(k_env, episodes), env_state, values.argmax(-1))
        playing = ~result.finished
        result = Evaluation(
            result.returns + jnp.where(playing, after.reward, 0.0),
            result.lengths + playing,
            result.finished | after.terminated | after.truncated,
        )
        return env_state, after.obs, hidden, result, t + 1

    env_state, obs = jax.vmap(env.reset)(jax.random.split(jax.random.fold_in(key, max_steps), episodes))
    result = Evaluation(jnp.zeros(episodes), jnp.zeros(episodes, jnp.int32), jnp.zeros(episodes, bool))
    return jax.lax.while_loop(alive, tick, (env_state, obs, policy.carry(episodes), result, 0))[3]
