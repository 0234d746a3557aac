"""One agent in several pieces, which train in step: how the pieces find each other.

Data parallelism: each shard has environments, replay and a part of the batch of its own, all have the same network, and
gradients are averaged. A part that has to know the others takes a `Shards` and asks it; `WHOLE`, an agent in one piece,
answers without communication. The axis of shards may come from `vmap`, `shard_map`, `pmap`, or from several of them.
"""

import dataclasses

import jax
from jax.flatten_util import ravel_pytree

from .types import Array, Key, PyTree

AGENTS, DEVICES = "agents", "devices"  # names of axes: inside a device, and over devices


@dataclasses.dataclass(frozen=True)
class Shards:
    """`count` shards along the mapped axes `axes`, the outermost first."""

    count: int = 1
    axes: tuple[str, ...] = ()

    def mean(self, tree: PyTree) -> PyTree:
        """Average over the shards. Inside `shard_map` that is right for gradients only with check_vma=False.

        The tree is sent as one array: where a message takes longer than what is in it, a network of six arrays would
        take six times as long.
        """
        if not self.axes:
            return tree
        flat, restore = ravel_pytree(tree)
        return restore(jax.lax.pmean(flat, self.axes))

    def max(self, x: Array) -> Array:
        """The largest of the shards' values, elementwise."""
        return jax.lax.pmax(x, self.axes) if self.axes else x

    def own(self, x: Array) -> Array:
        """This shard's part [n, ...] of x [count * n, ...]."""
        return x.reshape(self.count, -1, *x.shape[1:])[self._index()] if self.axes else x

    def own_key(self, key: Key) -> Key:
        """A key of this shard's own, from one that all share."""
        return jax.random.fold_in(key, self._index()) if self.axes else key

    def _index(self) -> Array:
        return jax.lax.axis_index(self.axes)


WHOLE = Shards()
