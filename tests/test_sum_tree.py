"""The sum tree: exact sums, exact frequencies, no drift, nothing drawn that has no priority."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles_family as family
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jdqn
from jdqn import sum_tree

SIZES = [1, 7, 8, 9, 64, 100, 513, 5000]


def check_sums(tree, leaves):
    """Every inner number is the float32 sum of its children, and the leaves are what was written."""
    nodes, kept = np.asarray(tree), np.asarray(sum_tree.leaves(tree))
    np.testing.assert_array_equal(kept[: len(leaves)], leaves)
    assert not kept[len(leaves) :].any()
    inner = nodes.size - kept.size
    sums = nodes[1:].astype(np.float64).reshape(inner, sum_tree.WIDTH).sum(-1)
    np.testing.assert_allclose(nodes[:inner], sums, rtol=1e-6)
    assert len(leaves) <= kept.size <= max(len(leaves) + sum_tree.WIDTH - 2, sum_tree.WIDTH)


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
    lowest = tree.size - sum_tree._start(sum_tree._depth(tree))  # a heap's last leaves are its leftmost
    indices, probability = sum_tree.sample(tree, jax.random.key(seed), batch)
    counts = np.bincount(indices, minlength=size)
    order = np.roll(np.arange(sum_tree.leaves(tree).size), lowest)
    order = order[order < size]
    least, most = family.stratified_counts_bounds(priority[order].tolist(), batch)
    assert (counts[order] >= least).all()
    assert (counts[order] <= most).all()
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


@pytest.mark.parametrize("size", SIZES)
def test_an_empty_tree_gives_leaves_that_exist(size):
    indices, _ = sum_tree.sample(sum_tree.init(size), jax.random.key(0), 16)
    assert ((indices >= 0) & (indices < size)).all()


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
    check_sums(tree, np.asarray(sum_tree.leaves(tree))[:size])
    quiet = sum_tree.write(tree, jnp.arange(size), jnp.full(size, 1e-6))
    np.testing.assert_allclose(sum_tree.total(quiet), 1e-3, rtol=1e-5)  # a difference of sums would have left ~0.1


@pytest.mark.nightly
def test_a_hundred_million_updates():
    """The sums are those of the leaves, in float32, after any number of writes."""
    size, batch, rounds = 1_000_000, 1024, 98_000  # 10^8 priorities over nine orders of magnitude

    @jax.jit
    def soak(tree, key):
        def write(i, tree):
            k_index, k_priority = jax.random.split(jax.random.fold_in(key, i))
            indices = jax.random.randint(k_index, (batch,), 0, size)
            priority = 10.0 ** jax.random.uniform(k_priority, (batch,), minval=-6.0, maxval=3.0)
            return sum_tree.write(tree, indices, priority)

        return jax.lax.fori_loop(0, rounds, write, tree)

    tree = soak(sum_tree.init(size), jax.random.key(0))
    exact = np.sum(np.asarray(sum_tree.leaves(tree)), dtype=np.float64)
    assert abs(float(sum_tree.total(tree)) / exact - 1) < 1e-6


@pytest.mark.parametrize(("agents", "size"), [(1, 4**9), (3, 300_000)])
def test_the_compiled_program_never_copies_the_tree(agents, size):
    """Training writes twice, samples, and writes again: in place, for one agent and for several."""
    config, hyper = jdqn.preset("per", "CartPole-v1", total_steps=10 * size, replay_size=size)
    trainer = jdqn.build(config, jdqn.envs.make("CartPole-v1"))

    def run(states):
        step = jax.vmap(lambda state, i: trainer.step(state, hyper, i)[0], (0, None))
        return jax.lax.fori_loop(0, 10, lambda i, states: step(states, i), states)

    states = jax.eval_shape(
        lambda: jax.vmap(trainer.init, (0, None))(jax.random.split(jax.random.key(0), agents), hyper)
    )
    assert states.replay.tree.size >= agents * size
    program = jax.jit(run, donate_argnums=0).lower(states).compile()
    assert program.memory_analysis().temp_size_in_bytes < 0.2 * agents * size * 4
