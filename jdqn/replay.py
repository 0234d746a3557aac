"""Where training segments come from.

A replay is four pure functions. `rollouts`, how many were ever added, comes from the trainer's
clock and is not kept in the state: under vmap over agents it stays one shared integer, so a write
stays a slice.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .config import Hyper
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
    def __call__(self, key: Key, state: PyTree, rollouts: Array, hyper: Hyper) -> Sample:
        """Draw B segments of L rows from what `rollouts` rollouts left. At least L rows must be there."""
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
        return jax.lax.dynamic_update_slice_in_dim(buffer, rows, start, axis)

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


def uniform(slots: int, rollout_length: int, batch_size: int, segment_length: int) -> Replay:
    """A ring of `slots` rollouts; every stored segment of consecutive rows is equally likely.

    The state is a `Row` of [slots * T, E, ...]: each observation is stored once. A segment may start
    at a last row, which the learner gives no weight, and may span two episodes, which returns stop at.
    """
    capacity = slots * rollout_length

    def init(row):
        return jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), row)

    def add(state, rollout, rollouts, hyper):
        start = rollouts % slots * rollout_length
        return jax.tree.map(lambda d, r: _write(d, r, start), state, rollout)

    def sample(key, state, rollouts, hyper):
        k_row, k_env = jax.random.split(key)
        num_envs = state.reward.shape[1]
        oldest = jnp.where(rollouts > slots, rollouts % slots, 0) * rollout_length
        starts = jnp.minimum(rollouts, slots) * rollout_length - segment_length + 1
        start = oldest + jax.random.randint(k_row, (batch_size,), 0, starts)
        env = jax.random.randint(k_env, (batch_size,), 0, num_envs)
        row = (start + jnp.arange(segment_length)[:, None]) % capacity
        rows = jax.tree.map(lambda d: d[row, env], state)
        return Sample(rows, row[0] * num_envs + env, jnp.ones(batch_size))

    def update(state, indices, error, hyper):
        return state

    return Replay(init, add, sample, update)
