"""The few records that flow between the parts, and the legend of the shape letters.

T rollout length, E environments, L segment length, U learnt rows of a segment, B batch, A actions,
N atoms, S seeds (agents). Time is always the first axis, then environments or batch.
"""

from typing import Any, NamedTuple, TypeAlias

import jax

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array  # a typed key, from jax.random.key
PyTree: TypeAlias = Any


class Row(NamedTuple):
    """One tick of one environment: [T, E, ...] in a rollout, [L, B, ...] in a sample.

    The successor of row t is row t + 1, always: the final observation of an episode is a row of its
    own (`last`), and the environment resets on the tick after it. So no successor is stored, and a
    time limit bootstraps from the observation that was really there.
    """

    obs: Array  # [..., *obs]
    action: Array  # [...] int32; void in a last row
    reward: Array  # [...] float32, what the action earned; 0 in a last row
    terminated: Array  # [...] bool, the action ended the task, so the successor is worth nothing
    last: Array  # [...] bool, obs is the episode's final one, by termination or by a time limit
    carry: PyTree  # [..., *hidden] recurrent state before obs; () for a feed-forward network


class Sample(NamedTuple):
    """A batch of segments drawn from replay."""

    rows: Row  # [L, B, ...] consecutive in time
    indices: Array  # [B] int32, where each came from, to send priorities back
    weight: Array  # [B] importance-sampling weight, 1 where sampling is uniform


class Atoms(NamedTuple):
    """A return distribution as weighted points: what every head produces and learns from.

    An expected return is one atom of weight 1; a categorical head has fixed values and learnt
    weights; a quantile head has learnt values and equal weights. Bellman operators act on values,
    the next policy on weights, so a target rule never sees which head is in use.
    """

    value: Array  # [..., N] in units of return
    weight: Array  # [..., N] non-negative, sums to 1 over N

    def mean(self) -> Array:
        """Expected return [...]."""
        return (self.value * self.weight).sum(-1)
