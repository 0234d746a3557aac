"""Many agents, many devices: the whole trainer along a leading axis, on one clock.

A `Population` is two functions. `over_agents` makes one of a trainer, `over_shards` one of a trainer whose agent is in
several pieces (shards.py), and `over_devices` spreads either over a mesh and returns a population again.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from .config import Hyper
from .keys import from_words, to_words
from .learner import LearnMetrics
from .shards import AGENTS, DEVICES
from .trainer import Metrics, State, Trainer
from .types import Array, Key, PyTree


class Population(NamedTuple):
    """A trainer over agents. Keys, State and Metrics gain a leading axis [S]; the clock does not.

    Fields of Hyper that are arrays [S] differ between agents, numbers are shared. Metrics come summed over iterations:
    adding one iteration after another gives the same sums however the iterations are cut into calls, which is what
    lets a resumed run equal an uninterrupted one.
    """

    init: Callable[[Key, Hyper], tuple[State, Metrics]]  # (keys [S], hyper) -> fresh agents, sums over nothing
    advance: Callable[[State, Hyper, Metrics, Array, Array], tuple[State, Metrics]]
    # (state, hyper, sums so far, first iteration, iteration to stop before) -> (state, sums)


def over_agents(trainer: Trainer, at_once: int | None = None) -> Population:
    """Train every agent of a population, independent of the others.

    Args:
        at_once: see `each`.
    """

    def init(keys, hyper):
        return each(trainer.init, at_once)(keys, per_agent(hyper, keys.size)), zero_metrics((keys.size,))

    def advance(state, hyper, sums, first, stop):
        agents = state.key.size

        def one(state, sums, hyper):
            return _iterate(trainer, state, hyper, sums, first, stop)

        return _replace_each(one, group_size(at_once, agents))((state, sums), per_agent(hyper, agents))

    return Population(init, advance)


def over_shards(trainer: Trainer) -> Population:
    """Train one agent whose shards make up the leading axis. Build the trainer with `Shards` along the axis AGENTS."""

    def init(keys, hyper):
        over = jax.vmap(trainer.init, axis_name=AGENTS)
        return over(keys, per_agent(hyper, keys.size)), zero_metrics((keys.size,))

    def advance(state, hyper, sums, first, stop):
        over = jax.vmap(functools.partial(_iterate, trainer), (0, 0, 0, None, None), axis_name=AGENTS)
        return over(state, per_agent(hyper, state.key.size), sums, first, stop)

    return Population(init, advance)


def over_devices(population: Population, mesh: Mesh) -> Population:
    """Share the leading axis out over the devices of `mesh`, which must divide it."""
    over = on_devices(mesh)

    def init(keys, hyper):
        return over(population.init)(keys, per_agent(hyper, keys.size))

    def advance(state, hyper, sums, first, stop):
        hyper = per_agent(hyper, state.key.size)
        return over(population.advance, shared=2)(state, hyper, sums, first, stop)

    return Population(init, advance)


def device_mesh(devices: int | None = None) -> Mesh:
    """The first `devices` devices, of all hosts, in a row; all of them by default."""
    found = jax.devices()[:devices]
    return Mesh(np.array(found), (DEVICES,), axis_types=(AxisType.Auto,))


def sharded(mesh: Mesh) -> NamedSharding:
    """How arrays [S, ...] lie on the devices of `mesh`: each holds some agents."""
    return NamedSharding(mesh, PartitionSpec(DEVICES))


def on_devices(mesh: Mesh) -> Callable[..., Callable]:
    """Return over(function, shared=0): every device of `mesh` calls `function` with its part of the leading axis.

    The last `shared` arguments are given to all devices whole. Nothing is sent unless the function itself does.
    """

    def over(function, shared=0):
        def call(*args):
            specs = [PartitionSpec(DEVICES)] * (len(args) - shared) + [PartitionSpec()] * shared
            return jax.shard_map(
                function, mesh=mesh, in_specs=tuple(specs), out_specs=PartitionSpec(DEVICES), check_vma=False
            )(*args)

        return call

    return over


def each(function: Callable, at_once: int | None = None) -> Callable:
    """Return a function that calls `function` for every agent: all arguments and results gain an axis [S].

    Args:
        at_once: agents that go side by side, under `vmap`; then come the next ones. Where it does not divide S, the
            next smaller number that does. The default is all of them, and 1 on a CPU: a batch of agents saves nothing
            there, while one agent at a time has its replay in the cache, and computes what it computes alone.
    """

    def over(*args):
        size = group_size(at_once, jax.tree.leaves(args)[0].shape[0])
        return jax.lax.map(lambda x: function(*x), args, batch_size=None if size == 1 else size)

    return over


def per_agent(hyper: Hyper, agents: int) -> Hyper:
    """Every field an array [S]."""
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (agents,)), hyper)


def zero_metrics(shape: tuple[int, ...] = ()) -> Metrics:
    """Sums over no iterations."""
    zero, none = jnp.zeros(shape), jnp.zeros(shape, jnp.int32)
    return Metrics(none, none, zero, none, zero, LearnMetrics(zero, zero, zero))


def _iterate(trainer: Trainer, state: State, hyper: Hyper, sums: Metrics, first: Array, stop: Array):
    """Population.advance of a single agent."""

    def iteration(i, carry):
        state, sums = carry
        state, metrics = trainer.step(state, hyper, i)
        return state, jax.tree.map(jnp.add, sums, metrics)

    return jax.lax.fori_loop(first, stop, iteration, (state, sums))


def group_size(at_once: int | None, agents: int) -> int:
    """How many of a device's `agents` go side by side: see `each`."""
    most = at_once or (1 if jax.default_backend() == "cpu" else agents)
    return next(size for size in range(min(most, agents), 0, -1) if agents % size == 0)


def _replace_each(function: Callable, size: int) -> Callable:
    """Return a function (changed, *read) that puts function(*changed, *read) of each agent in the place of `changed`.

    All are pytrees [S, ...]. Groups of `size` agents take turns, and the memory of `changed` is used again.
    """
    over = _only(function) if size == 1 else jax.vmap(function)

    def run(changed: PyTree, *read: PyTree) -> Any:
        agents = jax.tree.leaves(changed)[0].shape[0]
        if agents == size:
            return over(*changed, *read)

        def pick(first, tree):
            part = functools.partial(jax.lax.dynamic_slice_in_dim, allow_negative_indices=False)
            return jax.tree.map(lambda x: part(x, first, size), tree)

        def put(first, new, old):
            return jax.lax.dynamic_update_slice_in_dim(old, new, first, 0, allow_negative_indices=False)

        # To JAX's key checker a slice of keys has used up all of them, so the loop carries words.
        def group(k, words):
            new = over(*from_words(pick(k * size, words), changed), *pick(k * size, read))
            return jax.tree.map(lambda n, o: put(k * size, n, o), to_words(new), words)

        return from_words(jax.lax.fori_loop(0, agents // size, group, to_words(changed)), changed)

    return run


def _only(function: Callable) -> Callable:
    """`function` of an agent that is a group of its own: `vmap` without a batch, whose bits may be others."""

    def over(*trees: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x[None], function(*jax.tree.map(lambda x: x.squeeze(0), trees)))

    return over
