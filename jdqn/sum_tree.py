"""A sum tree that samples in proportion to priority, in float32, without drift and without a loop over the batch.

Every inner number is recomputed as the sum of its children whenever one of them changes; it is never adjusted by
a difference. So rounding does not accumulate, however many updates there were, and writing an index twice in one
batch is harmless.

The tree is one array [N], a heap: node i has the children WIDTH * i + 1 .. WIDTH * i + WIDTH, the root comes first and
the leaves last. A level is a round of a `fori_loop`: had it an array of its own, a write to one level need not wait for
the sums read from it before, and XLA would copy it; and rounds that are written out are fused on the CPU, which
computes the upper ones again for each lower one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .types import Array, Key

WIDTH = 4
BELOW = 1 - 2**-23  # times a float32: less, by one or two units in its last place
IN_BOUNDS: Any = dict(mode="promise_in_bounds", wrap_negative_indices=False)  # indices come from the tree or ring

Tree = Array


def init(size: int) -> Tree:
    """Return a tree of `size` leaves of priority zero (and up to WIDTH - 2 more, never written)."""
    return jnp.zeros(1 + WIDTH * max(1, -(-(size - 1) // (WIDTH - 1))))


def leaves(tree: Tree) -> Array:
    """Priorities [size, and up to WIDTH - 2 more that were never written]; all WIDTH of the smallest tree."""
    return tree[_inner(tree) :]


def total(tree: Tree) -> Array:
    """Sum of all priorities []."""
    return tree[0]


def read(tree: Tree, indices: Array) -> Array:
    """Priorities [B] of the leaves `indices` [B]."""
    return tree.at[_inner(tree) + indices].get(**IN_BOUNDS)


@jax.jit  # so that a loop is compiled once, also for who calls outside jit
def write(tree: Tree, indices: Array, priority: Array) -> Tree:
    """Set the priorities [B] of the leaves `indices` [B]; where an index stands twice, the larger value holds.

    Cost: B times the number of levels, whatever the size.
    """
    node = _inner(tree) + indices
    # Clearing and then taking the maximum gives the same bits in whatever order a device writes. The zeros are made
    # from the priorities so that XLA cannot clear before whoever computes them has read the tree: it would copy it.
    tree = tree.at[node].set(0.0 * priority, **IN_BOUNDS).at[node].max(priority, **IN_BOUNDS)
    # Levels of no more than two nodes for each index are summed whole, which is cheaper than picking what changed.
    whole = max(k for k in range(_depth(tree) + 1) if _start(k) <= _inner(tree) and WIDTH**k <= 2 * WIDTH * node.size)

    def up(_, carry):
        tree, node = carry
        node = jax.lax.div(jnp.maximum(node - 1, 0), WIDTH)
        children = [tree.at[WIDTH * node + 1 + k].get(**IN_BOUNDS) for k in range(WIDTH)]
        return tree.at[node].set(functools.reduce(jnp.add, children), **IN_BOUNDS), node

    tree, _ = jax.lax.fori_loop(0, _depth(tree) - whole, up, (tree, node))
    levels = [tree[_start(whole) : _start(whole + 1)]]
    for _ in range(whole):
        levels.insert(0, functools.reduce(jnp.add, list(levels[0].reshape(-1, WIDTH).T)))  # in the order of `sample`
    return jax.lax.dynamic_update_slice(tree, jnp.concatenate(levels[:-1]), (0,)) if whole else tree


@functools.partial(jax.jit, static_argnames="batch_size")
def sample(tree: Tree, key: Key, batch_size: int) -> tuple[Array, Array]:
    """Draw leaves in proportion to priority: (indices [B], probability [B]).

    Stratified (Schaul et al. 2016): the total is cut into `batch_size` equal ranges, and one leaf drawn from each.
    A leaf of priority zero is never drawn, unless all are zero.
    """
    inner = _inner(tree)
    point = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) * (total(tree) / batch_size)
    point = jnp.where(total(tree) > 0, point * BELOW, -1.0)  # all zero: the leftmost leaf, which is never an unused one

    def down(_, carry):
        # point < the sum of the node's children, added up in this order: so the first child whose end lies beyond the
        # point ends later than it begins. Rounding leaves point - begin <= that child, and BELOW makes it less.
        node, point = carry
        first = WIDTH * jnp.minimum(node, inner - 1) + 1
        child, begin, end = jnp.zeros_like(node), jnp.zeros_like(point), jnp.zeros_like(point)
        for k in range(WIDTH - 1):
            end += tree.at[first + k].get(**IN_BOUNDS)
            child += end <= point
            begin = jnp.where(end <= point, end, begin)
        return jnp.where(node < inner, first + child, node), (point - begin) * BELOW

    node = jnp.zeros(batch_size, jnp.int32)
    node, _ = jax.lax.fori_loop(0, _depth(tree), down, (node, point))
    probability = tree.at[node].get(**IN_BOUNDS) / total(tree)
    # A probability is never negative, which XLA does not know: so it reads the tree before anyone can write to these
    # indices. Else the order would be open, and XLA would copy the tree.
    return jnp.where(probability < 0, 0, node - inner), probability


def _inner(tree: Tree) -> int:
    """How many nodes have children."""
    return (tree.size - 1) // WIDTH


def _start(level: int) -> int:
    """The first node of a level."""
    return (WIDTH**level - 1) // (WIDTH - 1)


def _depth(tree: Tree) -> int:
    """Levels from the root to the lowest leaf."""
    return next(k for k in range(40) if _start(k + 1) >= tree.size)
