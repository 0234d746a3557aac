"""Population-based training (Jaderberg et al. 2017), as pure functions between two stretches of training.

Every so often the worst agents take over network and optimiser of the best ones, and change their hyper-parameters a
little. `exploit` says who copies whom, `inherit` copies, `explore` changes the numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .config import Hyper
from .trainer import State
from .types import Array, Key


class Scale(NamedTuple):
    """Where equal steps are equally far apart: draw and perturb there."""

    to: Callable[[Any], Any]
    back: Callable[[Any], Any]


LINEAR = Scale(lambda x: x, lambda x: x)
LOGARITHMIC = Scale(jnp.log, jnp.exp)
OF_THE_REST = Scale(lambda x: jnp.log1p(-x), lambda x: -jnp.expm1(x))  # 0.9, 0.99, 0.999 lie equally far apart
SCALES: dict[str, Scale] = dict.fromkeys(
    (
        "learning_rate", "learning_rate_steps", "optimizer_epsilon", "max_gradient_norm", "target_update_rate",
        "epsilon_steps", "softmax_temperature", "importance_steps", "munchausen_temperature",
    ),
    LOGARITHMIC,
) | {"discount": OF_THE_REST, "trace_decay": OF_THE_REST}  # fmt: skip


def scale(name: str, low: float, high: float) -> Scale:
    """How the field `name` of Hyper is searched from low to high: linearly where an end has no logarithm."""
    found = SCALES.get(name, LINEAR)
    reaches = high < 1 if found is OF_THE_REST else low > 0
    return found if reaches else LINEAR


def exploit(key: Key, score: Array, fraction: float = 0.2) -> Array:
    """Truncation selection: parents [S] of the agents with scores [S].

    The worst `fraction` each copy one drawn from the best `fraction`; the others are their own parents. A score that
    is nan is the worst.
    """
    agents = score.shape[0]
    number = max(1, int(agents * fraction))
    order = jnp.argsort(jnp.where(jnp.isnan(score), -jnp.inf, score))
    best = jax.random.choice(key, order[agents - number :], (number,))
    return jnp.arange(agents).at[order[:number]].set(best)


def inherit(state: State, parents: Array, replay: bool = False) -> State:
    """Agents [S] with the networks and optimisers of their parents [S]; with `replay`, with their replays too.

    Environments, random keys and, by default, replays stay their own.
    """

    def take(tree):
        return jax.tree.map(lambda x: x[parents], tree)

    state = state._replace(learner=take(state.learner))
    return state._replace(replay=take(state.replay)) if replay else state


def explore(
    key: Key, hyper: Hyper, parents: Array, ranges: dict[str, tuple[float, float]], factor: float = 1.2
) -> Hyper:
    """Hyper of the parents; agents that copied another multiply each field of `ranges` by `factor` or its inverse.

    Fields of `hyper` that are in `ranges` are [S], and stay within. The discount and the trace decay change by their
    distance from 1. A field that is searched linearly moves by a tenth of its range. The paper multiplies by 1.2 or
    0.8.
    """
    copied = parents != jnp.arange(parents.shape[0])
    fields: dict[str, Any] = {}
    for k, (name, (low, high)) in enumerate(ranges.items()):
        to, back = scale(name, low, high)
        ends = jnp.sort(jnp.stack([to(jnp.float32(low)), to(jnp.float32(high))]))
        step = (ends[1] - ends[0]) / 10 if to is LINEAR.to else jnp.log(factor)
        sign = jax.random.rademacher(jax.random.fold_in(key, k), parents.shape, jnp.float32)
        value = getattr(hyper, name)[parents]
        moved = back(jnp.clip(to(value) + sign * step, ends[0], ends[1]))
        fields[name] = jnp.where(copied, moved, value)
    return hyper._replace(**fields)
