"""Prioritised replay, the last rollout and frame stacks, with stamped rows."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import oracles_family as family
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_replay import filled, stamped

from jdqn import replay, sum_tree
from jdqn.config import Hyper

HYPER = Hyper(importance_steps=1e3)

shapes = st.tuples(st.integers(2, 6), st.integers(1, 4), st.integers(1, 3), st.integers(2, 6), st.integers(1, 16))


@settings(deadline=None, max_examples=25)
@given(shapes, st.sampled_from(["start", "lead", "several"]), st.integers(0, 2**31 - 1))
def test_the_tree_holds_exactly_the_segments_that_can_be_learnt_from(shape, kind, seed):
    """After every rollout: priority where a whole segment is held and its learnt row is no last row, none elsewhere."""
    slots, rollout_length, envs, length, rollouts = shape
    slots = max(slots, -(-(rollout_length + length) // rollout_length))
    capacity = slots * rollout_length
    lead = {"start": 0, "lead": length - 2, "several": -1}[kind]
    rows = stamped(np.random.default_rng(seed), rollouts * rollout_length, envs)
    memory = replay.prioritised(slots, rollout_length, 8, length, lead)
    state = filled(memory, rows, rollout_length, rollouts, HYPER)
    leaves = np.asarray(sum_tree.leaves(state.tree))[: capacity * envs].reshape(capacity, envs)
    expected = np.zeros((capacity, envs))
    for start in oracles.uniform_segments(rollouts * rollout_length, capacity, length):
        expected[start % capacity] = 1.0 if lead < 0 else ~rows.last[start + lead]
    np.testing.assert_array_equal(leaves, expected)


def test_segments_weights_and_updates():
    """Drawn rows are those that were stored; weights and new priorities are the paper's."""
    slots, rollout_length, envs, length, rollouts, batch = 6, 2, 3, 3, 15, 32
    hyper = Hyper(priority_exponent=0.7, importance_exponent=0.4, importance_final_exponent=0.9, importance_steps=400.0)
    rows = stamped(np.random.default_rng(0), rollouts * rollout_length, envs)
    memory = replay.prioritised(slots, rollout_length, batch, length)
    state = filled(memory, rows, rollout_length, rollouts, hyper)
    rng = np.random.default_rng(1)
    for update in range(4):
        before = np.asarray(sum_tree.leaves(state.tree))
        sample = memory.sample(jax.random.key(3), state, rollouts, update, hyper)
        env, tick = np.moveaxis(np.asarray(sample.rows.obs[..., :2]), -1, 0)
        assert (env == env[0]).all()
        assert (tick == tick[0] + np.arange(length)[:, None]).all()
        assert not np.asarray(sample.rows.last[0]).any()
        np.testing.assert_array_equal(sample.indices, tick[0] % (slots * rollout_length) * envs + env[0])
        probability = family.per_probabilities(before.tolist(), 1.0)
        beta = family.importance_exponent(rollouts * rollout_length * envs, 0.4, 0.9, 400.0)
        drawn = [probability[i] for i in np.asarray(sample.indices)]
        weight = family.per_weights(drawn, slots * rollout_length * envs, beta)
        np.testing.assert_allclose(sample.weight, weight, rtol=1e-4)

        error = rng.exponential(size=batch).astype(np.float32)
        state = memory.update(state, sample.indices, jnp.asarray(error), hyper)
        after = np.asarray(sum_tree.leaves(state.tree))
        expected = before.copy()
        for i in set(np.asarray(sample.indices).tolist()):
            expected[i] = family.per_priority(error[np.asarray(sample.indices) == i].max(), 0.7)
        np.testing.assert_allclose(after, expected, rtol=1e-5)
        assert float(state.highest) >= after.max() - 1e-6


def test_new_segments_get_the_highest_priority_so_far():
    rows = stamped(np.random.default_rng(0), 12, 2, end_share=0.0)
    memory = replay.prioritised(8, 1, 4, 2)
    state = filled(memory, rows, 1, 5, HYPER)
    state = memory.update(state, jnp.array([0, 3]), jnp.array([9.0, 0.1]), HYPER)
    state = memory.update(state, jnp.array([0, 1]), jnp.array([0.2, 0.3]), HYPER)  # the 9 itself is gone
    state = memory.add(state, jax.tree.map(lambda x: jnp.asarray(x[5:6]), rows), 5, HYPER)
    newest = sum_tree.read(state.tree, jnp.array([4 * 2, 4 * 2 + 1]))  # row 4 is complete now that row 5 is there
    np.testing.assert_allclose(newest, family.per_priority(9.0, 0.6), rtol=1e-5)


@pytest.mark.parametrize("length", [5, 7])
def test_every_row_of_a_rollout_is_learnt_from_once(length):
    """Segments of successive rollouts overlap by what bootstraps: the learnt rows follow on one another."""
    rollout_length, envs, batch = 4, 6, 2
    rows = stamped(np.random.default_rng(0), 6 * rollout_length, envs)
    memory = replay.last_rollout(rollout_length, batch, envs, length)
    seen = []
    for rollouts in range(1, 6):
        state = filled(memory, rows, rollout_length, rollouts, HYPER)
        order = []
        for update in range(2 * envs // batch):  # two epochs
            sample = jax.tree.map(np.asarray, memory.sample(jax.random.key(rollouts), state, rollouts, update, None))
            assert sample.rows.obs.shape[:2] == (length, batch)
            order.append(sample.indices)
            ticks = np.arange(rollouts * rollout_length - length, rollouts * rollout_length)
            for k, tick in enumerate(ticks):
                if tick < 0:
                    assert sample.rows.last[k].all()  # nothing is learnt from rows that never were
                else:
                    assert (sample.rows.obs[k, :, 1] == tick).all()
                    np.testing.assert_array_equal(sample.rows.obs[k, :, 0], sample.indices)
        one, two = np.split(np.concatenate(order), 2)
        assert sorted(one) == sorted(two) == list(range(envs))
        seen.append((tuple(one), tuple(two)))
        assert tuple(one) != tuple(two)
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("kind", ["uniform", "prioritised", "last_rollout"])
@pytest.mark.parametrize("shape", [(3,), (4, 4), (4, 4, 2)])
def test_stacks_equal_the_naive_layout(kind, shape):
    """Every sampled stack is what a replay that stored whole stacks would have given."""
    frames, length, slots, rollout_length, envs, rollouts = 4, 3, 12, 3, 3, 17
    rng = np.random.default_rng(0)
    rows = stamped(rng, rollouts * rollout_length, envs)
    images = rng.integers(1, 255, (rollouts * rollout_length, envs, *shape)).astype(np.uint8)
    images[..., 0] = rows.obs[..., 1].reshape(rows.obs.shape[:2] + (1,) * (len(shape) - 1))  # stamped with their tick
    drawn_length = length + frames - 1
    inner = {
        "uniform": lambda: replay.uniform(slots, rollout_length, 128, drawn_length),
        "prioritised": lambda: replay.prioritised(slots, rollout_length, 128, drawn_length, frames - 1),
        "last_rollout": lambda: replay.last_rollout(rollout_length, envs, envs, drawn_length),
    }[kind]()
    memory = replay.stacked(inner, frames)
    state = filled(memory, rows._replace(obs=images), rollout_length, rollouts, HYPER)
    sample = jax.tree.map(np.asarray, memory.sample(jax.random.key(1), state, rollouts, 0, HYPER))
    naive = {}
    for e in range(envs):
        stacks = family.frame_stacks(images[:, e], rows.last[:, e], frames)
        axis = -1
        join = np.stack if len(shape) == 2 else np.concatenate
        naive[e] = [join(list(s), axis) for s in stacks]
    ticks, number = sample.rows.action, sample.rows.obs.shape[1]  # `stamped` puts the tick into the action
    assert sample.rows.obs.shape[:2] == (length, number)
    assert sample.rows.obs.dtype == np.uint8
    ends = 0
    for b in range(number):
        env = int(sample.indices[b]) if kind == "last_rollout" else int(sample.indices[b]) % envs
        for t in range(length):
            np.testing.assert_array_equal(sample.rows.obs[t, b], naive[env][ticks[t, b]])
            ends += int(rows.last[ticks[t, b], env])
    assert ends > 0


def test_a_million_atari_frames_take_seven_gigabytes():
    memory = replay.stacked(replay.uniform(1_000_000 // 8, 1, 32, 5), 4)
    row = jax.eval_shape(
        lambda: jax.tree.map(
            lambda d: jnp.zeros((8, *d.shape), d.dtype),
            stamped(np.random.default_rng(0), 1, 1)._replace(
                obs=jnp.zeros((84, 84), jnp.uint8), action=jnp.int32(0), reward=jnp.float32(0),
                terminated=jnp.bool_(False), last=jnp.bool_(False),
            ),
        )
    )  # fmt: skip
    state = jax.eval_shape(memory.init, row)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert size == 1_000_000 * (84 * 84 + 4 + 4 + 1 + 1)
    assert 7.0e9 < size < 7.1e9
