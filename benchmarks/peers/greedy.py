"""Greedy CartPole episodes of an MLP in Gymnasium, and the clock of a race to a mean return of 475.

Every library is judged by this same NumPy code, which the environments of all of them can run.
"""

import time
from collections.abc import Callable

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

EPISODES = 100
GOAL = 475.0


def mean_return(layers: list[tuple[np.ndarray, np.ndarray]], seed: int) -> float:
    """Mean return of EPISODES greedy episodes of a ReLU network; layers are (kernel [F, G], bias [G])."""
    env = CartPoleVectorEnv(EPISODES)
    obs, _ = env.reset(seed=seed)
    returns, playing = np.zeros(EPISODES), np.ones(EPISODES, bool)
    while playing.any():
        x = obs
        for k, (kernel, bias) in enumerate(layers):
            x = x @ kernel + bias
            x = np.maximum(x, 0) if k < len(layers) - 1 else x
        obs, reward, terminated, truncated, _ = env.step(x.argmax(-1))
        returns += reward * playing
        playing &= ~(terminated | truncated)
    return float(returns.mean())


class Race:
    """The seconds since the process started, less those spent on judging."""

    def __init__(self, seed: int, started: float, answer: Callable[[dict], None]):
        self.seed, self.started, self.answer = seed, started, answer
        self.checks, self.judging, self.best = 0, 0.0, 0.0

    def over(self, layers: list[tuple[np.ndarray, np.ndarray]], steps: int) -> bool:
        """Judge a policy after so many steps; answer and return True if it is good enough."""
        now = time.time()
        self.checks += 1
        score = mean_return(layers, 1000 * self.seed + self.checks)
        self.best = max(self.best, score)
        if score >= GOAL:
            again = mean_return(layers, 1000 * self.seed)
            self.tell(now - self.started - self.judging, steps, True, score, again)
            return True
        self.judging += time.time() - now
        return False

    def lost(self, steps: int) -> None:
        """Answer that training ended before."""
        self.tell(time.time() - self.started - self.judging, steps, False, self.best, None)

    def tell(self, seconds: float, steps: int, reached: bool, score: float, again: float | None) -> None:
        self.answer(dict(seconds=seconds, steps=steps, reached=reached, score=score, again=again))


def layer(params: dict) -> tuple[np.ndarray, np.ndarray]:
    """A Dense layer of flax."""
    return np.asarray(params["kernel"]), np.asarray(params["bias"])


def torch_layers(network) -> list[tuple[np.ndarray, np.ndarray]]:
    """The linear layers of a PyTorch network, in order."""
    linear = [x for x in network.modules() if type(x).__name__ == "Linear"]
    return [(x.weight.detach().numpy().T.copy(), x.bias.detach().numpy().copy()) for x in linear]
