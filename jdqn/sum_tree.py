"""A sum tree that samples in proportion to priority, in float32, without drift and without a loop over the batch.

Every inner number is recomputed as the sum of its children whenever one of them changes; it is never adjusted by
a difference. So rounding does not accumulate, however many updates there were, and writing an index twice in one
batch is harmless. A node has `WIDTH` children: a wide tree has few levels, and a level is one gather, which is
what an update costs.
"""

import jax
import jax.numpy as jnp

from .types import Array, Key

WIDTH = 8

Tree = tuple[Array, ...]  # from the leaves up: [ceil(size / WIDTH), WIDTH], ..., [1, WIDTH]


def init(size: int) -> Tree:
    """Return a tree of `size` leaves of priority zero."""
    levels: list[Array] = []
    blocks = size
    while not levels or blocks > 1:
        blocks = -(-blocks // WIDTH)
        levels.append(jnp.zeros((blocks, WIDTH)))
    return tuple(levels)


def total(tree: Tree) -> Array:
    """Sum of all priorities []."""
    return tree[-1].sum()


def write(tree: Tree, indices: Array, priority: Array) -> Tree:
    """Set the priorities [B] of the leaves `indices` [B]; where an index stands twice, the larger value holds.

    Cost: B times the number of levels, whatever the size.
    """
    leaves, *above = tree
    block, child = jnp.divmod(indices, WIDTH)
    # Clearing and then taking the maximum gives the same bits in whatever order a device writes. The zeros are made
    # from the priorities so that XLA cannot clear before whoever computes them has read the tree: it would copy it.
    leaves = leaves.at[block, child].set(0.0 * priority).at[block, child].max(priority)
    levels = [leaves]
    for level in above:
        sums = levels[-1][block].sum(-1)
        block, child = jnp.divmod(block, WIDTH)
        levels.append(level.at[block, child].set(sums))
    return tuple(levels)


def read(tree: Tree, indices: Array) -> Array:
    """Priorities [B] of the leaves `indices` [B]."""
    return tree[0][jnp.divmod(indices, WIDTH)]


def sample(tree: Tree, key: Key, batch_size: int) -> tuple[Array, Array]:
    """Draw leaves in proportion to priority: (indices [B], probability [B]).

    Stratified (Schaul et al. 2016): the total is cut into `batch_size` equal ranges, and one leaf drawn from each.
    A leaf of priority zero is never drawn, unless all are zero.
    """
    whole = total(tree)
    point = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size * whole
    index, place = jnp.zeros(batch_size, jnp.int32), jnp.arange(WIDTH)
    for level in reversed(tree):
        children = level[index]  # [B, WIDTH]
        end = jax.lax.associative_scan(jnp.add, children, axis=-1)
        # The first child that ends beyond the point. Rounding may leave a sliver to a child of priority zero, or
        # beyond them all: neither may be chosen.
        found = jnp.where((end > point[:, None]) & (children > 0), place, WIDTH).min(-1)
        child = jnp.minimum(found, jnp.where(children > 0, place, 0).max(-1))
        point = point - jnp.where(place < child[:, None], end, 0.0).max(-1)
        index = index * WIDTH + child
    return index, read(tree, index) / whole
