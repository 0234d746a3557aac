"""The same agents in real Gymnasium: the check that what was learnt is the task and not our simulator."""

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


def play(name: str, policy: Policy, params: PyTree, seeds: np.ndarray, episodes: int = 100) -> np.ndarray | None:
    """Returns [S, episodes] of greedy episodes of every agent in the Gymnasium twin of `name`, None if it has none.

    All agents play side by side, `params` [S, ...]; every episode has a seed of its own, made from `seeds` [S] and its
    number.
    """
    if name not in TWINS:
        return None
    import gymnasium

    agents = jax.tree.leaves(params)[0].shape[0]
    envs = [gymnasium.make(TWINS[name], disable_env_checker=True) for _ in range(agents * episodes)]
    space = envs[0].observation_space
    encode = _one_hot(int(space.n)) if isinstance(space, gymnasium.spaces.Discrete) else np.float32

    @jax.jit
    def act(params, obs, hidden):
        values, hidden = jax.vmap(policy.values, (0, None, 0, 0, None))(
            params, None, obs, hidden, jnp.zeros(episodes, bool)
        )
        return values.argmax(-1), hidden

    own = [int(x) for seed in seeds for x in np.random.SeedSequence(int(seed)).generate_state(episodes)]
    obs = [env.reset(seed=one)[0] for one, env in zip(own, envs, strict=True)]
    hidden = jax.vmap(lambda _: policy.carry(episodes))(jnp.arange(agents))
    returns, playing, t = np.zeros(len(envs)), np.ones(len(envs), bool), 0
    while playing.any():
        batch = np.stack([encode(o) for o in obs]).reshape(agents, episodes, *np.shape(encode(obs[0])))
        action, hidden = act(params, batch, hidden)
        action = np.asarray(action).reshape(-1)
        for e in np.flatnonzero(playing):
            obs[e], reward, terminated, truncated, _ = envs[e].step(int(action[e]))
            returns[e] += reward
            playing[e] = not (terminated or truncated)
        t += 1
    for env in envs:
        env.close()
    return returns.reshape(agents, episodes)


def _one_hot(states: int):
    return lambda state: np.arange(states) == state
