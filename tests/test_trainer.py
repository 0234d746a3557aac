"""The loop on an environment that can be counted by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import ticks_of

import jdqn

LENGTH, ENVS, ROLLOUT, SLOTS = 3, 4, 2, 8


def counter(length=LENGTH):
    """Episodes of `length` steps that pay 1, 2, ...; obs is (episode's name, step). Odd names end by a time limit."""

    def reset(key):
        name = jax.random.randint(key, (), 0, 1000)
        return (name, jnp.zeros((), jnp.int32)), jnp.stack([name, 0]).astype(jnp.float32)

    def step(key, state, action):
        name, t = state[0], state[1] + 1
        obs = jnp.stack([name, t]).astype(jnp.float32)
        end, odd = t == length, name % 2 == 1
        return (name, t), jdqn.Step(obs, t.astype(jnp.float32), end & ~odd, end & odd)

    return jdqn.Env(reset, step, num_actions=3)


def make(**overrides):
    settings = dict(
        total_steps=10_000, num_envs=ENVS, rollout_length=ROLLOUT, updates=2, batch_size=8, hidden_sizes=(8,),
        replay_size=SLOTS * ENVS * ROLLOUT, warm_up_steps=24, target_period=3,
    )  # fmt: skip
    config, hyper = jdqn.preset("dqn", "", **settings | overrides)
    return jdqn.build(config, counter()), hyper


@functools.cache
def trained(iterations=40):
    trainer, hyper = make()
    run = jax.jit(lambda key: jdqn.train(trainer, key, hyper, iterations))
    return trainer, jax.block_until_ready(run(jax.random.key(0)))


def test_steps_and_episodes_are_real_ones():
    """An episode of three steps takes four ticks: one tick in four resets, and is counted nowhere."""
    trainer, (_, metrics) = trained()
    ticks = 40 * ROLLOUT
    resets = ticks // (LENGTH + 1)
    assert int(metrics.env_steps.sum()) == ENVS * (ticks - resets)
    assert int(metrics.episodes.sum()) == ENVS * ((ticks + 1) // (LENGTH + 1))
    assert float(metrics.return_sum.sum()) == 6 * int(metrics.episodes.sum())  # 1 + 2 + 3
    assert int(metrics.length_sum.sum()) == LENGTH * int(metrics.episodes.sum())
    assert trainer.num_warm_up == 3
    warm = np.arange(40) < 3
    np.testing.assert_array_equal(np.asarray(metrics.learn.loss) == 0, warm)
    assert (np.asarray(metrics.epsilon)[warm] == 1).all()


def test_rows_in_replay_are_what_the_environments_did():
    """The ring holds the newest rollouts, in order; every episode is 0, 1, 2, 3 with its flags where they belong."""
    _, (state, _) = trained()
    rows = jax.tree.map(lambda x: np.roll(x, -(40 % SLOTS) * ROLLOUT, 0), ticks_of(state.replay, ENVS))
    name, t = rows.obs[..., 0], rows.obs[..., 1]
    np.testing.assert_array_equal(rows.last, t == LENGTH)
    np.testing.assert_array_equal(t[1:], (t[:-1] + 1) % (LENGTH + 1))
    np.testing.assert_array_equal(name[1:][t[1:] > 0], name[:-1][t[1:] > 0])
    np.testing.assert_array_equal(rows.reward, np.where(rows.last, 0, t + 1))
    np.testing.assert_array_equal(rows.terminated, (t == LENGTH - 1) & (name % 2 == 0))
    following = np.asarray(state.actor.obs)  # what the next row will hold
    np.testing.assert_array_equal(following[:, 1], (t[-1] + 1) % (LENGTH + 1))
    assert len(np.unique(name)) > 10
    assert set(np.unique(rows.action)) == {0, 1, 2}


def test_warm_up_explores_whatever_epsilon_says():
    trainer, hyper = make(warm_up_steps=SLOTS * ENVS * ROLLOUT, epsilon_start=0.0, epsilon_end=0.0)
    state, _ = jax.jit(lambda key: jdqn.train(trainer, key, hyper, trainer.num_warm_up))(jax.random.key(0))
    counts = np.bincount(np.asarray(state.replay.action).ravel(), minlength=3)
    assert counts.min() > 10


@pytest.mark.slow
def test_the_learner_sees_the_newest_rows_and_the_target_lags():
    trainer, hyper = make(updates=1, target_period=5)
    state = trainer.init(jax.random.key(0), hyper)
    step = jax.jit(lambda state, i: trainer.step(state, hyper, i))
    for i in range(trainer.num_warm_up):
        state, _ = step(state, i)
    start = kept = state.learner.params
    for count in range(1, 11):
        state, _ = step(state, trainer.num_warm_up + count - 1)
        frozen = jax.tree.leaves(state.learner.target_params)
        kept = state.learner.params if count % 5 == 0 else kept
        for a, b in zip(frozen, jax.tree.leaves(kept), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(frozen[1], jax.tree.leaves(start)[1])


@pytest.mark.parametrize("cut", [4, pytest.param(21, marks=pytest.mark.slow)])
def test_a_run_in_two_parts_equals_one(cut):
    trainer, (whole, metrics) = trained()
    _, hyper = make()
    state, first = jax.jit(lambda key: jdqn.train(trainer, key, hyper, cut))(jax.random.key(0))
    state, second = jax.jit(lambda s, start: jdqn.advance(trainer, s, hyper, start, 40 - cut))(state, cut)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(raw(a), raw(b))
    for a, b, c in zip(*map(jax.tree.leaves, (metrics, first, second)), strict=True):
        np.testing.assert_array_equal(a, np.concatenate([b, c]))


def raw(x):
    return jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
