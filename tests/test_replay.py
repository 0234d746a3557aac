"""The replay, with stamped rows: every row says which environment, tick and episode it came from."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jdqn
from jdqn import parallel, replay, sum_tree, targets
from jdqn.types import Row


def stamped(rng, ticks, envs, end_share=0.3):
    """Rows [ticks, envs] whose obs is (environment, tick, episode); episodes end at random."""
    last = np.zeros((ticks, envs), bool)
    terminated = np.zeros((ticks, envs), bool)
    for t in range(1, ticks):
        last[t] = (rng.random(envs) < end_share) & ~last[t - 1]
        terminated[t - 1] = last[t] & (rng.random(envs) < 0.5)
    episode = np.cumsum(np.vstack([np.zeros((1, envs), bool), last[:-1]]), 0)
    env, tick = np.meshgrid(np.arange(envs), np.arange(ticks))
    obs = np.stack([env, tick, episode], -1).astype(np.int32)
    reward = np.where(last, 0, rng.normal(size=(ticks, envs))).astype(np.float32)
    return Row(obs, tick.astype(np.int32), reward, terminated, last, ())


def filled(memory, rows, rollout_length, rollouts, hyper=None):
    """`memory` after the first `rollouts` rollouts of `rows`."""
    state = memory.init(jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), rows))
    for k in range(rollouts):
        part = jax.tree.map(lambda x, k=k: jnp.asarray(x[k * rollout_length : (k + 1) * rollout_length]), rows)
        state = memory.add(state, part, k, hyper)
    return state


shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 16))


@settings(deadline=None, max_examples=20)
@given(shapes, st.integers(0, 2**31 - 1))
def test_segments_are_what_was_stored(shape, seed):
    """Segments are consecutive rows of one environment that are still held, whatever wrapped around."""
    slots, rollout_length, envs, length, rollouts = shape
    capacity = slots * rollout_length
    length = min(length, capacity, rollouts * rollout_length)
    rng = np.random.default_rng(seed)
    rows = stamped(rng, rollouts * rollout_length, envs)
    memory = replay.uniform(slots, rollout_length, 64, length)
    state = filled(memory, rows, rollout_length, rollouts)
    sample = jax.tree.map(np.asarray, memory.sample(jax.random.key(seed), state, rollouts, 0, None))

    env, tick = sample.rows.obs[..., 0], sample.rows.obs[..., 1]
    starts = set(oracles.uniform_segments(rollouts * rollout_length, capacity, length))
    assert set(tick[0]) <= starts
    assert (env == env[0]).all()
    assert (tick == tick[0] + np.arange(length)[:, None]).all()
    for name in ("obs", "action", "reward", "terminated", "last"):  # every field comes from that very row
        np.testing.assert_array_equal(getattr(sample.rows, name), getattr(rows, name)[tick, env], err_msg=name)
    assert (sample.weight == 1).all()


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
@pytest.mark.parametrize("shape", [(), (1,), (31,), (32,), (5, 13), (10, 10, 4)])
def test_bits_come_back_as_they_were(kind, shape):
    """A replay that packs observations gives what one that does not would, from a word for every 32 of them."""
    slots, rollout_length, envs, length, rollouts = 6, 2, 3, 3, 11
    rng = np.random.default_rng(0)
    images = rng.random((rollouts * rollout_length, envs, *shape)) < 0.5
    rows = stamped(rng, rollouts * rollout_length, envs)._replace(obs=images)
    plain = getattr(replay, kind)(slots, rollout_length, 64, length)
    packed = replay.packed(plain, shape)
    for one, other in ((plain, packed), (replay.stacked(plain, 2), replay.stacked(packed, 2))):
        samples = []
        for memory in (one, other):
            state = filled(memory, rows, rollout_length, rollouts, jdqn.Hyper())
            samples.append(memory.sample(jax.random.key(1), state, rollouts, 0, jdqn.Hyper()))
        assert samples[1].rows.obs.dtype == bool
        jax.tree.map(np.testing.assert_array_equal, *samples)
    stored = state.rows if kind == "prioritised" else state
    assert stored.obs.nbytes == slots * rollout_length * envs * 4 * math.ceil(math.prod(shape) / 32)


@pytest.mark.parametrize("rollouts", [3, 5, 23])
@pytest.mark.parametrize("rollout_length", [1, 3])
def test_every_start_is_equally_likely(rollouts, rollout_length):
    slots, envs, length, draws = 7, 3, 3, 40_000
    rows = stamped(np.random.default_rng(0), rollouts * rollout_length, envs)
    memory = replay.uniform(slots, rollout_length, draws, length)
    state = filled(memory, rows, rollout_length, rollouts)
    sample = memory.sample(jax.random.key(1), state, rollouts, 0, None)
    found, counts = np.unique(np.asarray(sample.rows.obs[0, :, :2]), axis=0, return_counts=True)
    starts = oracles.uniform_segments(rollouts * rollout_length, slots * rollout_length, length)
    assert {tuple(x) for x in found} == {(e, s) for e in range(envs) for s in starts}
    expected = draws / len(counts)
    chi_square, freedom = ((counts - expected) ** 2 / expected).sum(), len(counts) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 4
    assert len(np.unique(np.asarray(sample.indices))) == len(counts)  # an index names one segment


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("rollout_length", [1, 2, 5])
def test_no_return_joins_two_episodes(n, rollout_length):
    """Rewards and the bootstrap row of a sampled transition come from its own episode, in order."""
    slots, envs, rollouts = 6, 4, 29
    rows = stamped(np.random.default_rng(n), rollouts * rollout_length, envs)
    memory = replay.uniform(max(slots, n + 1), rollout_length, 512, n + 1)
    state = filled(memory, rows, rollout_length, rollouts)
    sample = memory.sample(jax.random.key(n), state, rollouts, 0, None).rows
    returns = targets.n_step(sample.reward, sample.terminated, sample.last, 0.9, n)
    reward, bootstrap, valid = (np.asarray(x)[0] for x in (returns.reward, returns.bootstrap, returns.valid))
    obs = np.asarray(sample.obs)
    assert valid.any()
    assert not valid.all()
    for b in np.flatnonzero(valid):
        env, tick, episode = obs[0, b]
        successor = obs[bootstrap[b], b]
        assert successor[0] == env
        assert successor[2] == episode
        steps = successor[1] - tick
        assert 1 <= steps <= n
        assert steps == n or rows.last[successor[1], env]
        truth = sum(0.9**k * rows.reward[tick + k, env] for k in range(steps))
        np.testing.assert_allclose(reward[b], truth, rtol=1e-5, atol=1e-6)


def test_each_observation_is_stored_once():
    """Bytes of replay: rows x (obs + action + reward + two flags), no successor; 400 bools are 13 words of 32 bits."""
    for name, bytes_of_obs in {"CartPole-v1": 16, "Breakout-MinAtar": 52, "FourRooms-misc": 16}.items():
        env = jdqn.envs.make(name)
        config, hyper = jdqn.preset("dqn", "", replay_size=4_096, num_envs=8, rollout_length=4)
        state = jax.eval_shape(functools.partial(jdqn.build(config, env).init, hyper=hyper), jax.random.key(0))
        stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.replay))
        assert stored == 4_096 * (bytes_of_obs + 4 + 4 + 1 + 1)


@pytest.mark.parametrize("algorithm", ["dqn", "per"])
@pytest.mark.parametrize(
    ("agents", "num_envs", "updates"), [(1, 4, 1), (1, 1, 1), pytest.param(3, 4, 2, marks=pytest.mark.slow)]
)
def test_the_compiled_program_never_copies_the_replay(algorithm, agents, num_envs, updates):
    """Ring and tree are written in place: the program's scratch memory does not grow with them, also under vmap."""
    env = jdqn.envs.make("CartPole-v1")
    config, hyper = jdqn.preset(
        algorithm, "", replay_size=2**20, num_envs=num_envs, updates=updates, hidden_sizes=(16,)
    )
    population = parallel.over_agents(jdqn.build(config, env), agents)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), agents))
    state, sums = jax.eval_shape(lambda k: population.init(k, hyper), keys)
    i = jax.ShapeDtypeStruct((), jnp.int32)
    program = jax.jit(population.advance, donate_argnums=0).lower(state, hyper, sums, i, i).compile()
    replay_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.replay))
    tree_bytes = {"dqn": 0, "per": 4 * (sum_tree.init(2**20).size + 1)}[algorithm]
    assert replay_bytes == agents * (2**20 * 26 + tree_bytes)
    assert program.memory_analysis().temp_size_in_bytes < 0.02 * replay_bytes


def test_a_batched_write_equals_one_write_per_agent():
    rng = np.random.default_rng(0)
    buffers = jnp.asarray(rng.normal(size=(3, 8, 2, 5)), jnp.float32)
    rollouts = jnp.asarray(rng.normal(size=(3, 2, 2, 5)), jnp.float32)
    one = jnp.stack([replay._write(b, r, 4) for b, r in zip(buffers, rollouts, strict=True)])
    np.testing.assert_array_equal(jax.vmap(replay._write, (0, 0, None))(buffers, rollouts, 4), one)
    np.testing.assert_array_equal(one, buffers.at[:, 4:6].set(rollouts))
    shared = jax.vmap(replay._write, (None, 0, None))(buffers[0], rollouts, 4)
    np.testing.assert_array_equal(shared, jnp.stack([replay._write(buffers[0], r, 4) for r in rollouts]))
    with pytest.raises(ValueError, match="clock was batched"):
        jax.vmap(replay._write)(buffers, rollouts, jnp.arange(3))
