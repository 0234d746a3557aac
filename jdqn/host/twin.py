"""The same agents in real Gymnasium: the check that what was learnt is the task and not our simulator."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..networks import Policy
from ..types import PyTree

TWINS = {
    "CartPole-v1": "CartPole-v1",
    "Acrobot-v1": "Acrobot-v1",
    "MountainCar-v0": "MountainCar-v0",
    "FrozenLake-misc": "FrozenLake-v1",
}
TOGETHER = 1024  # environments at once, each of which takes about 165 KiB


def play(name: str, policy: Policy, params: PyTree, seeds: np.ndarray, episodes: int = 100) -> np.ndarray | None:
    """Returns [S, episodes] of greedy episodes of every agent in the Gymnasium twin of `name`, None if it has none.

    Agents play side by side, `params` [S, ...], in batches of no more than TOGETHER environments; every episode has a
    seed of its own, made from `seeds` [S] and its number.
    """
    if name not in TWINS:
        return None
    import gymnasium

    agents = jax.tree.leaves(params)[0].shape[0]
    wide = min(episodes, TOGETHER)  # of an agent
    deep = min(agents, TOGETHER // wide)  # agents that play them
    envs = [gymnasium.make(TWINS[name], disable_env_checker=True) for _ in range(deep * wide)]
    space = envs[0].observation_space
    encode = _one_hot(int(space.n)) if isinstance(space, gymnasium.spaces.Discrete) else np.float32

    @jax.jit
    def act(params, obs, hidden):
        values, hidden = jax.vmap(policy.values, (0, None, 0, 0, None))(
            params, None, obs, hidden, jnp.zeros(obs.shape[1], bool)
        )
        return values.argmax(-1), hidden

    own = np.array([np.random.SeedSequence(int(seed)).generate_state(episodes) for seed in seeds])
    returns = np.zeros((agents, episodes))
    for first in range(0, agents, deep):
        some = slice(first, first + deep)
        theirs = jax.tree.map(lambda x, some=some: x[some], params)
        for e in range(0, episodes, wide):
            part = some, slice(e, e + wide)
            hidden = jax.vmap(lambda _, n=own[part].shape[1]: policy.carry(n))(own[part])
            returns[part] = _play(envs, encode, functools.partial(act, theirs), hidden, own[part])
    for env in envs:
        env.close()
    return returns


def _play(envs: list, encode: Callable, act: Callable, hidden: PyTree, seeds: np.ndarray) -> np.ndarray:
    """Returns [S, episodes] of one episode of each seed [S, episodes], in as many of `envs`, side by side."""
    obs = [env.reset(seed=seed)[0] for env, seed in zip(envs, seeds.ravel().tolist(), strict=False)]
    returns, playing = np.zeros(seeds.size), np.ones(seeds.size, bool)
    while playing.any():
        batch = np.stack([encode(o) for o in obs]).reshape(*seeds.shape, *np.shape(encode(obs[0])))
        action, hidden = act(batch, hidden)
        action = np.asarray(action).reshape(-1)
        for e in np.flatnonzero(playing):
            obs[e], reward, terminated, truncated, _ = envs[e].step(int(action[e]))
            returns[e] += reward
            playing[e] = not (terminated or truncated)
    return returns.reshape(seeds.shape)


def _one_hot(states: int):
    return lambda state: np.arange(states) == state
