"""Where training segments come from.

A replay is four pure functions. `rollouts`, how many were ever added, comes from the trainer's
clock and is not kept in the state: under vmap over agents it stays one shared integer, so a write
stays a slice.
"""

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from . import sum_tree
from .config import Hyper
from .shards import WHOLE, Shards
from .types import Array, Key, PyTree, Row, Sample


class InitFn(Protocol):
    def __call__(self, row: Row) -> PyTree:
        """Return an empty replay for rows like `row` [E, ...]."""
        ...


class AddFn(Protocol):
    def __call__(self, state: PyTree, rollout: Row, rollouts: Array, hyper: Hyper) -> PyTree:
        """Store `rollout` [T, E, ...], the one after `rollouts` others."""
        ...


class SampleFn(Protocol):
    def __call__(self, key: Key, state: PyTree, rollouts: Array, update: Array, hyper: Hyper) -> Sample:
        """Draw B segments of L rows from what `rollouts` rollouts left. At least L rows must be there.

        `key` is the same for all updates of an iteration; `update` counts them from 0.
        """
        ...


class UpdateFn(Protocol):
    def __call__(self, state: PyTree, indices: Array, error: Array, hyper: Hyper) -> PyTree:
        """Tell the replay the errors [B] of the segments `indices` [B] it gave."""
        ...


class Replay(NamedTuple):
    init: InitFn
    add: AddFn
    sample: SampleFn
    update: UpdateFn


def _write_along(axis: int):
    """Make write(buffer, rows, start): put `rows` at `start` along `axis`, in place where XLA can.

    `vmap` of a dynamic_update_slice is a scatter, which copies the whole buffer at every step. With one
    clock for all agents the start is shared, so the batched write is again a slice, one axis further.
    """

    @jax.custom_batching.custom_vmap
    def write(buffer, rows, start):
        return jax.lax.dynamic_update_slice_in_dim(buffer, rows, start, axis, allow_negative_indices=False)

    @write.def_vmap
    def batched(size, in_batched, buffer, rows, start):
        buffer_batched, rows_batched, start_batched = in_batched
        if start_batched:
            raise ValueError("the clock was batched: vmap over agents with in_axes=None for the iteration i")
        buffer = buffer if buffer_batched else jnp.broadcast_to(buffer, (size, *buffer.shape))
        rows = rows if rows_batched else jnp.broadcast_to(rows, (size, *rows.shape))
        return _write_along(axis + 1)(buffer, rows, start), True

    return write


_write = _write_along(0)


def _segments(rows: Row, indices: Array, length: int, num_envs: int) -> Row:
    """Segments [L, B, ...] of the ring `rows` [slots * T * E, ...] that start at its rows `indices` [B]."""
    size = rows.last.size
    row = indices + num_envs * jnp.arange(length, dtype=jnp.int32)[:, None]
    row = jnp.where(row < size, row, row - size)
    return jax.tree.map(lambda d: d.at[row].get(**sum_tree.IN_BOUNDS), rows)


def uniform(slots: int, rollout_length: int, batch_size: int, segment_length: int) -> Replay:
    """A ring of `slots` rollouts; every stored segment of consecutive rows is equally likely.

    The state is a `Row` of [slots * T * E, ...], in that order: each observation is stored once. A segment may start
    at a last row, which the learner gives no weight, and may span two episodes, which returns stop at. One flat axis,
    because an index a field and axis costs a CPU more than the reading, and because XLA copies a whole ring for an axis
    of one environment.
    """
    capacity = slots * rollout_length

    def init(row):
        return jax.tree.map(lambda x: jnp.zeros((capacity * x.shape[0], *x.shape[1:]), x.dtype), row)

    def add(state, rollout, rollouts, hyper):
        start = rollouts % slots * rollout.last.size
        return jax.tree.map(lambda d, r: _write(d, r.reshape(-1, *r.shape[2:]), start), state, rollout)

    def sample(key, state, rollouts, update, hyper):
        size = state.last.size
        num_envs = size // capacity
        oldest = jnp.where(rollouts > slots, rollouts % slots, 0) * (size // slots)
        starts = (jnp.minimum(rollouts, slots) * rollout_length - segment_length + 1) * num_envs
        # Half the work of randint, which draws twice: of a million segments some come up .02 % more often than others.
        drawn = jax.random.bits(jax.random.fold_in(key, update), (batch_size,)) % starts.astype(jnp.uint32)
        indices = oldest + drawn.astype(jnp.int32)
        indices = jnp.where(indices < size, indices, indices - size)
        return Sample(_segments(state, indices, segment_length, num_envs), indices, jnp.ones(batch_size))

    def update(state, indices, error, hyper):
        return state

    return Replay(init, add, sample, update)


class Prioritised(NamedTuple):
    """State of prioritised replay."""

    rows: Row  # [slots * T * E, ...]
    tree: sum_tree.Tree  # priority ^ exponent of the segment that starts at each row, flat [slots * T * E]
    highest: Array  # [] the largest such number so far


def prioritised(
    slots: int, rollout_length: int, batch_size: int, segment_length: int, lead: int = 0, shards: Shards = WHOLE
) -> Replay:
    """A ring whose segments are drawn in proportion to priority ^ exponent (Schaul et al. 2016).

    A segment gets the highest priority so far when its rows are complete, then whatever `update` says. One that cannot
    be learnt from has none: it is cut by the ring's write head, or its single learnt row is a last row.

    Args:
        lead: rows at a segment's start that are not learnt from, where exactly one row is; -1 where several are, and
            the learner's weights alone decide.
        shards: of one agent, each with a ring and priorities of its own and an equal part of every batch (Ape-X's
            distributed replay). Each row then counts in the gradient as it would in one buffer of all rows.

    Weights are (N P)^-beta over their maximum in the batch, so N cancels; beta rises linearly to its final value. In
    one buffer with the sum of priorities Z, a row of priority p then counts P weight = (p / Z)^(1 - beta). A shard with
    the sum Z_s draws it with p / Z_s, so its weight is (p / Z_s)^-beta Z_s^(1 - beta), and the maximum that of all.
    The ring must keep a rollout more than a segment.
    """
    ring = uniform(slots, rollout_length, batch_size, segment_length)
    capacity, behind = slots * rollout_length, segment_length - 1

    def init(row):
        return Prioritised(ring.init(row), sum_tree.init(capacity * row.reward.shape[0]), jnp.ones(()))

    def add(state, rollout, rollouts, hyper):
        rows = ring.add(state.rows, rollout, rollouts, hyper)
        num_envs = rollout.reward.shape[1]
        newest = (rollouts + 1) * rollout_length  # ticks stored so far, ever
        ticks = newest - rollout_length - behind + jnp.arange(rollout_length + behind)[:, None]
        complete = (ticks >= 0) & (ticks < newest - behind)
        indices, learnt = (x % capacity * num_envs + jnp.arange(num_envs) for x in (ticks, ticks + lead))  # [ticks, E]
        void = rows.last[learnt] if lead >= 0 else jnp.zeros(indices.shape, bool)
        highest = shards.max(state.highest)
        priority = jnp.where(complete & ~void, highest, 0.0)
        if behind > rollout_length:  # those between are incomplete, and void since their own rollout came
            priority, indices = (jnp.concatenate([x[:rollout_length], x[behind:]]) for x in (priority, indices))
        tree = sum_tree.write(state.tree, indices.reshape(-1), priority.reshape(-1))
        return Prioritised(rows, tree, highest)

    def sample(key, state, rollouts, update, hyper):
        num_envs = state.rows.last.size // capacity
        indices, probability = sum_tree.sample(state.tree, jax.random.fold_in(key, update), batch_size)
        ticks = rollouts * float(rollout_length * num_envs * shards.count)
        progress = jnp.clip(ticks / hyper.importance_steps, 0.0, 1.0)
        beta = hyper.importance_exponent + progress * (hyper.importance_final_exponent - hyper.importance_exponent)
        weight = probability**-beta * (sum_tree.total(state.tree) ** (1 - beta) if shards.count > 1 else 1.0)
        return Sample(
            _segments(state.rows, indices, segment_length, num_envs), indices, weight / shards.max(weight.max())
        )

    def update(state, indices, error, hyper):
        priority = (error + 1e-6) ** hyper.priority_exponent
        tree = sum_tree.write(state.tree, indices, priority)
        return Prioritised(state.rows, tree, jnp.maximum(state.highest, priority.max()))

    return Replay(init, add, sample, update)


def last_rollout(rollout_length: int, batch_size: int, num_envs: int, segment_length: int) -> Replay:
    """The newest rollout, and as many rows before it as make up a segment (PQN, Gallici et al. 2024).

    The newest rows, which nothing follows yet, only bootstrap; they are learnt from when the next rollout is there. A
    sample is the whole time of `batch_size` environments: num_envs / batch_size updates go once through all of them
    in a random order, then a new order begins.
    """
    parts = num_envs // batch_size

    def init(row):
        empty = jax.tree.map(lambda x: jnp.zeros((segment_length, *x.shape), x.dtype), row)
        return empty._replace(last=jnp.ones_like(empty.last))  # nothing to learn from

    def add(state, rollout, rollouts, hyper):
        return jax.tree.map(lambda old, new: jnp.concatenate([old[rollout_length:], new]), state, rollout)

    def sample(key, state, rollouts, update, hyper):
        order = jax.random.permutation(jax.random.fold_in(key, update // parts), num_envs).reshape(parts, batch_size)
        env = order[update % parts]
        return Sample(jax.tree.map(lambda d: d[:, env], state), env, jnp.ones(batch_size))

    def update(state, indices, error, hyper):
        return state

    return Replay(init, add, sample, update)


def packed(replay: Replay, shape: tuple[int, ...]) -> Replay:
    """Let `replay` keep observations of bools, each of `shape`, as bits, 32 a word; samples have them whole."""
    size, place = math.prod(shape), jnp.arange(32, dtype=jnp.uint32)

    def pack(row):
        bits = row.obs.reshape(*row.last.shape, size).astype(jnp.uint32)
        bits = jnp.pad(bits, [(0, 0)] * row.last.ndim + [(0, -size % 32)])
        return row._replace(obs=(bits.reshape(*row.last.shape, -1, 32) << place).sum(-1, dtype=jnp.uint32))

    def init(row):
        return replay.init(pack(row))

    def add(state, rollout, rollouts, hyper):
        return replay.add(state, pack(rollout), rollouts, hyper)

    def sample(key, state, rollouts, update, hyper):
        drawn = replay.sample(key, state, rollouts, update, hyper)
        leading = drawn.rows.last.shape
        # The barrier keeps apart what XLA would make one loop of, which looks for each bit's word anew.
        words = jax.lax.optimization_barrier(drawn.rows.obs)
        bits = (words[..., None] >> place & 1).reshape(*leading, -1)[..., :size]
        return drawn._replace(rows=drawn.rows._replace(obs=bits.reshape(*leading, *shape).astype(bool)))

    return replay._replace(init=init, add=add, sample=sample)


def stacked(replay: Replay, frames: int) -> Replay:
    """Turn single stored frames into stacks, newest last; `replay` draws frames - 1 more rows before.

    A stack never reaches across an episode's beginning: what would lie before it is zero, as when acting.
    """

    def sample(key, state, rollouts, update, hyper):
        drawn = replay.sample(key, state, rollouts, update, hyper)
        rows = drawn.rows
        length = rows.last.shape[0] - frames + 1
        frames_of, same = [], jnp.ones((length, *rows.last.shape[1:]), bool)  # [L, B] still in the episode
        for start in range(frames - 1, -1, -1):
            frame = rows.obs[start : start + length]
            frames_of.append(jnp.where(jnp.expand_dims(same, range(2, frame.ndim)), frame, jnp.zeros_like(frame)))
            if start:
                same &= ~rows.last[start - 1 : start - 1 + length]
        rows = jax.tree.map(lambda x: x[frames - 1 :], rows)
        return drawn._replace(rows=rows._replace(obs=join_frames(frames_of[::-1], 2)))

    return replay._replace(sample=sample)


def join_frames(frames: list[Array], leading: int) -> Array:
    """Join frames along their last axis, or a new one if they are planes or numbers; they have `leading` batch axes."""
    return jnp.stack(frames, -1) if frames[0].ndim - leading in (0, 2) else jnp.concatenate(frames, -1)
