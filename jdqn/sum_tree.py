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
SAFE = "promise_in_bounds"  # indices come from the tree itself or from replay's ring
SMALL = 512  # levels up to this size are summed whole: cheaper than picking the sums that changed

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
    block, child = indices // WIDTH, indices % WIDTH
    # Clearing and then taking the maximum gives the same bits in whatever order a device writes. The zeros are made
    # from the priorities so that XLA cannot clear before whoever computes them has read the tree: it would copy it.
    levels = [leaves.at[block, child].set(0.0 * priority, mode=SAFE).at[block, child].max(priority, mode=SAFE)]
    for level in above:
        below = levels[-1]
        if level.size <= SMALL:
            sums = jnp.pad(below.sum(-1), (0, level.size - below.shape[0]))
            levels.append(sums.reshape(level.shape))
        else:
            sums = below.at[block].get(mode=SAFE).sum(-1)
            block, child = block // WIDTH, block % WIDTH
            levels.append(level.at[block, child].set(sums, mode=SAFE))
    return tuple(levels)


def read(tree: Tree, indices: Array) -> Array:
    """Priorities [B] of the leaves `indices` [B]."""
    return tree[0].at[indices // WIDTH, indices % WIDTH].get(mode=SAFE)


def sample(tree: Tree, key: Key, batch_size: int) -> tuple[Array, Array]:
    """Draw leaves in proportion to priority: (indices [B], probability [B]).

    Stratified (Schaul et al. 2016): the total is cut into `batch_size` equal ranges, and one leaf drawn from each.
    A leaf of priority zero is never drawn, unless all are zero.
    """
    whole = total(tree)
    point = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size * whole
    index, place = jnp.zeros(batch_size, jnp.int32), jnp.arange(WIDTH)
    for level in reversed(tree):
        children = level.at[index].get(mode=SAFE)  # [B, WIDTH]
        end = jax.lax.associative_scan(jnp.add, children, axis=-1)
        # The first child that ends beyond the point. Rounding may leave a sliver to a child of priority zero, or
        # beyond them all: neither may be chosen.
        found = jnp.where((end > point[:, None]) & (children > 0), place, WIDTH).min(-1)
        child = jnp.minimum(found, jnp.where(children > 0, place, 0).max(-1))
        point = point - jnp.where(place < child[:, None], end, 0.0).max(-1)
        index = index * WIDTH + child
    return index, read(tree, index) / whole
