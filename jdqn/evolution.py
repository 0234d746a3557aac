"""Population-based training (Jaderberg et al. 2017), as pure functions between two stretches of training.

Every so often the worst agents take over network and optimiser of the best ones, and change their hyper-parameters a
little. `exploit` says who copies whom, `inherit` copies, `explore` changes the numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .config import Hyper
from .trainer import State
from .types import Array, Key


class Scale(NamedTuple):
    """Where equal steps are equally far apart: draw and perturb there.

    Both functions take a number and whose functions to use, jax.numpy's or numpy's.
    """

    to: Callable[[Any, Any], Any]
    back: Callable[[Any, Any], Any]


LINEAR = Scale(lambda x, xp: x, lambda x, xp: x)
LOGARITHMIC = Scale(lambda x, xp: xp.log(x), lambda x, xp: xp.exp(x))
OF_THE_REST = Scale(lambda x, xp: xp.log1p(-x), lambda x, xp: -xp.expm1(x))  # 0.9, 0.99, 0.999: equally far apart
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
    reaches = np.float32(high) < 1 if found is OF_THE_REST else np.float32(low) > 0  # as it is trained with
    return found if reaches else LINEAR


def exploit(key: Key, score: Array, fraction: float = 0.2) -> Array:
    """Truncation selection: parents [S] of the agents with scores [S].

    Of the agents with a finite score, the worst `fraction` each copy one drawn from the best `fraction`, unless it has
    no higher score; equals are ranked at random. The others are their own parents. An agent whose score is nan was not
    judged: it copies nobody, and nobody copies it. One whose score is -inf is lost, and copies one of the best besides.
    """
    agents = score.shape[0]
    k_equals, k_parent = jax.random.split(key)
    lost, judged = jnp.isneginf(score), jnp.isfinite(score)
    score = jnp.where(lost | judged, score, jnp.nan)
    share = jnp.array([min(max(1, int(n * fraction)), n // 2) for n in range(agents + 1)])
    number = share[judged.sum()]
    order = jnp.lexsort((jax.random.permutation(k_equals, agents), jnp.where(judged, -score, jnp.inf)))  # best first
    rank = jnp.argsort(order)
    copies = lost | (judged & (rank >= judged.sum() - number))
    best = order[jax.random.randint(k_parent, (agents,), 0, jnp.maximum(number, 1))]
    return jnp.where(copies & (score[best] > score), best, jnp.arange(agents))


def inherit(
    state: State, parents: Array, replay: bool = False, lost: Array | None = None, axis: str | None = None
) -> State:
    """Agents [S] with the networks and optimisers of their parents [S]; with `replay`, with their replays too.

    Environments, random keys and, by default, replays stay their own. Who is copied has to be its own parent.

    Args:
        lost: agents [S] that copy everything but random keys, since what is not finite may have got everywhere.
        axis: the mapped axis that shares out the agents, if there is one. `parents` and `lost` are those of all.

    Heirs follow one another, in place, so that a single agent is in memory a second time, and is sent.
    """
    heirs = parents != jnp.arange(parents.shape[0])
    learnt, rest = ("learner", "replay") if replay else ("learner",), ("actor",) if replay else ("actor", "replay")
    state = _copy(state, learnt, parents, heirs, axis)
    return state if lost is None else _copy(state, rest, parents, heirs & lost, axis)


def _copy(state: State, names: tuple[str, ...], parents: Array, heirs: Array, axis: str | None) -> State:
    """`state`, in whose fields `names` the agents with heirs [S] have what their parents [S] have."""
    here = state.key.shape[0]
    first = 0 if axis is None else here * jax.lax.axis_index(axis)
    heir = jnp.argsort(~heirs)

    def find(x, agent):
        """(where the agent is, if it is here; what is there)."""
        own = jnp.clip(agent - first, 0, here - 1)
        return own, jax.lax.dynamic_index_in_dim(x, own, keepdims=False)

    def copy(x, agent, parent):
        (source, value), (own, old) = find(x, parent), find(x, agent)
        if axis is not None:
            value = jnp.where(first + own == agent, _from_where(first + source == parent, value, axis), old)
        return jax.lax.dynamic_update_index_in_dim(x, value, own, 0)

    def one(k, tree):
        return jax.tree.map(lambda x: copy(x, heir[k], parents[heir[k]]), tree)

    copied = jax.lax.fori_loop(0, heirs.sum(), one, {name: getattr(state, name) for name in names})
    return state._replace(**copied)


def _from_where(there: Array, x: Array, axis: str) -> Array:
    """The x of the one place along `axis` that is `there`, bit for bit."""
    bits = x.astype(jnp.uint8) if x.dtype == bool else jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")
    bits = jax.lax.psum(jnp.where(there, bits, jnp.zeros_like(bits)), axis)
    return bits.astype(bool) if x.dtype == bool else jax.lax.bitcast_convert_type(bits, x.dtype)


def explore(
    key: Key, hyper: Hyper, parents: Array, ranges: dict[str, tuple[float, float]], factor: float = 1.2
) -> Hyper:
    """Hyper of the parents; agents that copied another multiply fields of `ranges` by `factor` or its inverse.

    Fields of `hyper` that are [S] are inherited; those that are in `ranges` have to be, and stay within. The discount
    and the trace decay change by their distance from 1. A field that is searched linearly moves by a tenth of its
    range. The paper multiplies by 1.2 or 0.8.
    """
    copied = parents != jnp.arange(parents.shape[0])
    inherited: list[Any] = [jnp.asarray(x)[parents] if jnp.ndim(x) else x for x in hyper]
    hyper = Hyper(*inherited)
    fields: dict[str, Any] = {}
    for k, (name, (low, high)) in enumerate(ranges.items()):
        to, back = scale(name, low, high)
        ends = jnp.sort(jnp.stack([to(jnp.float32(low), jnp), to(jnp.float32(high), jnp)]))
        step = (ends[1] - ends[0]) / 10 if to is LINEAR.to else jnp.log(factor)
        sign = jax.random.rademacher(jax.random.fold_in(key, k), parents.shape, jnp.float32)
        value = getattr(hyper, name)
        moved = back(jnp.clip(to(value, jnp) + sign * step, ends[0], ends[1]), jnp)
        fields[name] = jnp.where(copied, moved, value)
    return hyper._replace(**fields)
