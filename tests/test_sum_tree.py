"""The sum tree: exact sums, exact frequencies, no drift, nothing drawn that has no priority."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles_family as family
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdqn import sum_tree

SIZES = [1, 7, 8, 9, 64, 100, 513, 5000]


def check_sums(tree, leaves):
    """Every inner number is the float32 sum of its children, and the leaves are what was written."""
    flat = np.asarray(tree[0]).ravel()
    np.testing.assert_array_equal(flat[: len(leaves)], leaves)
    assert not flat[len(leaves) :].any()
    for below, above in itertools.pairwise(tree):
        sums = np.zeros(above.size, np.float32)
        sums[: below.shape[0]] = np.asarray(below, np.float64).sum(-1)
        np.testing.assert_allclose(np.asarray(above).ravel(), sums, rtol=1e-6)
    assert tree[-1].shape == (1, sum_tree.WIDTH)


@pytest.mark.parametrize("size", SIZES)
def test_writes_reach_the_root(size):
    rng = np.random.default_rng(size)
    tree, leaves = sum_tree.init(size), np.zeros(size, np.float32)
    write = jax.jit(sum_tree.write)
    for _ in range(5):
        indices = rng.integers(0, size, 16)
        priority = rng.random(16).astype(np.float32)
        tree = write(tree, jnp.asarray(indices), jnp.asarray(priority))
        for i in set(indices.tolist()):
            leaves[i] = priority[indices == i].max()  # an index that stands twice: the larger holds
        check_sums(tree, leaves)
        np.testing.assert_array_equal(sum_tree.read(tree, jnp.asarray(indices)), leaves[indices])
    np.testing.assert_allclose(sum_tree.total(tree), leaves.sum(dtype=np.float64), rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(SIZES), st.integers(0, 2**31 - 1))
def test_draws_are_in_the_strata_of_the_cumulative_sum(size, seed):
    """Whole-number priorities are summed exactly, so each leaf is drawn as often as stratified sampling allows."""
    rng = np.random.default_rng(seed)
    priority = rng.integers(0, 4, size) * (rng.random(size) < 0.7)
    priority[rng.integers(size)] = 3
    tree = sum_tree.write(sum_tree.init(size), jnp.arange(size), jnp.asarray(priority, jnp.float32))
    batch = 64
    indices, probability = sum_tree.sample(tree, jax.random.key(seed), batch)
    counts = np.bincount(indices, minlength=size)
    least, most = family.stratified_counts_bounds(priority.tolist(), batch)
    assert (counts >= least).all()
    assert (counts <= most).all()
    np.testing.assert_allclose(probability, priority[np.asarray(indices)] / priority.sum(), rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_what_has_no_priority_is_never_drawn(scale):
    """Twelve orders of magnitude, most leaves empty: rounding leaves slivers, and nobody falls into them."""
    rng = np.random.default_rng(0)
    size = 4096
    priority = (10.0 ** rng.uniform(-6, 6, size) * scale * (rng.random(size) < 0.3)).astype(np.float32)
    tree = sum_tree.write(sum_tree.init(size), jnp.arange(size), jnp.asarray(priority))
    draw = jax.jit(lambda key: sum_tree.sample(tree, key, 100_000)[0])
    for seed in range(5):
        indices = np.asarray(draw(jax.random.key(seed)))
        assert (priority[indices] > 0).all()
        assert (indices < size).all()


def test_frequencies_follow_priorities():
    priority = np.array([0.0, 1.0, 2.0, 0.5, 0.0, 4.0, 1.5, 1.0, 0.25], np.float32)
    tree = sum_tree.write(sum_tree.init(9), jnp.arange(9), jnp.asarray(priority))
    draws = jax.vmap(lambda key: sum_tree.sample(tree, key, 4)[0])(jax.random.split(jax.random.key(0), 20_000))
    share = np.bincount(np.asarray(draws).ravel(), minlength=9) / draws.size
    np.testing.assert_allclose(share, priority / priority.sum(), atol=4e-3)


def test_it_does_not_drift():
    """A million writes in float32, large and tiny in turn: the root is the sum of the leaves as on the first day."""
    size = 1000

    def body(i, tree):
        k_index, k_value, k_scale = jax.random.split(jax.random.fold_in(jax.random.key(0), i), 3)
        indices = jax.random.randint(k_index, (100,), 0, size)
        value = jax.random.uniform(k_value, (100,)) * 10.0 ** jax.random.uniform(k_scale, (100,), minval=-6, maxval=6)
        return sum_tree.write(tree, indices, value)

    tree = jax.jit(lambda tree: jax.lax.fori_loop(0, 10_000, body, tree))(sum_tree.init(size))
    check_sums(tree, np.asarray(tree[0]).ravel()[:size])
    quiet = sum_tree.write(tree, jnp.arange(size), jnp.full(size, 1e-6))
    np.testing.assert_allclose(sum_tree.total(quiet), 1e-3, rtol=1e-5)  # a difference of sums would have left ~0.1


@pytest.mark.parametrize("agents", [1, 3])
def test_the_compiled_program_never_copies_the_tree(agents):
    """Write, sample, write again: in place, for one agent and for several."""
    size = 2**18

    def step(i, tree):
        k_sample, k_value = jax.random.split(jax.random.fold_in(jax.random.key(0), i))
        tree = sum_tree.write(tree, i + jnp.arange(8), jnp.ones(8))
        indices, probability = sum_tree.sample(tree, k_sample, 32)
        return sum_tree.write(tree, indices, probability + jax.random.uniform(k_value, (32,)))

    def run(trees):
        return jax.lax.fori_loop(0, 10, lambda i, t: jax.vmap(step, (None, 0))(i, t), trees)

    trees = jax.eval_shape(lambda: jax.vmap(lambda _: sum_tree.init(size))(jnp.arange(agents)))
    program = jax.jit(run, donate_argnums=0).lower(trees).compile()
    assert program.memory_analysis().temp_size_in_bytes < 0.2 * agents * size * 4
