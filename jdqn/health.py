"""Is an agent still a number? What is not finite, and where it shows first."""

from typing import Any

import jax
import jax.numpy as jnp

from .trainer import Metrics, State
from .types import Array

# In the order in which one brings the next about.
QUANTITIES = ("observation", "reward", "loss", "gradient", "parameters", "optimiser", "target network")


def non_finite(state: State, sums: Metrics) -> Array:
    """Which of QUANTITIES are nan or infinite in one agent, [7] bool. `sums` may count many iterations.

    A reward shows in the return of its episode, which stays nan or infinite to the end of it, and then in the sums.
    """
    learner = state.learner
    parts: tuple[Any, ...] = (
        state.actor.obs,
        (state.actor.episode_return, sums.return_sum),
        sums.learn.loss,
        sums.learn.grad_norm,
        learner.params,
        learner.optimizer,
        learner.target_params,
    )
    return jnp.stack([~_finite(part) for part in parts])


def _finite(tree: Any) -> Array:
    numbers = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(x).all() for x in numbers], bool).all()
