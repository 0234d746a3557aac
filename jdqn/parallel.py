"""Many agents in one program: the whole trainer under `vmap`, on one clock."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .config import Hyper
from .learner import LearnMetrics
from .trainer import Metrics, State, Trainer
from .types import Array, Key


class Population(NamedTuple):
    """A trainer over agents. Keys, State and Metrics gain a leading axis [S]; the clock does not."""

    start: Callable[[Key, Hyper], tuple[State, Metrics]]  # (keys [S], hyper) -> after warm-up
    advance: Callable[[State, Hyper, Metrics, Array, Array], tuple[State, Metrics]]
    # (state, hyper, sums so far, first iteration, iteration to stop before) -> (state, sums)


def over_agents(trainer: Trainer) -> Population:
    """Train every agent of a population at once.

    Fields of Hyper that are arrays [S] differ between agents, numbers are shared. Metrics come summed
    over iterations: adding one iteration after another gives the same sums however the iterations are
    cut into calls, which is what lets a resumed run equal an uninterrupted one.
    """

    def axes(hyper):
        return jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, hyper)

    def iterate(function, state, hyper, sums, start, stop):
        over = jax.vmap(function, (0, axes(hyper), None))

        def iteration(i, carry):
            state, sums = carry
            state, metrics = over(state, hyper, i)
            return state, jax.tree.map(jnp.add, sums, metrics)

        return jax.lax.fori_loop(start, stop, iteration, (state, sums))

    def start(keys, hyper):
        state = jax.vmap(trainer.init, (0, axes(hyper)))(keys, hyper)
        return iterate(trainer.warm_up, state, hyper, zero_metrics(keys.shape[0]), 0, trainer.num_warm_up)

    def advance(state, hyper, sums, start, stop):
        return iterate(trainer.step, state, hyper, sums, start, stop)

    return Population(start, advance)


def zero_metrics(agents: int) -> Metrics:
    """Sums over no iterations, [S] each."""
    zero, none = jnp.zeros(agents), jnp.zeros(agents, jnp.int32)
    return Metrics(none, none, zero, none, zero, LearnMetrics(zero, zero, zero))
