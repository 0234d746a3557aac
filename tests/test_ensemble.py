"""Bootstrapped DQN (Osband et al. 2016) with random priors (2018): members learn apart, act in turns, vote together."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_targets import random_rows

import jdqn
from jdqn import heads, learner, networks, targets
from jdqn.config import Hyper
from jdqn.types import Row, Sample

OBS, ACTIONS, HIDDEN, MEMBERS, BATCH, SCALE = 3, 4, 5, 3, 6, 3.0


def dense(layer, x):
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def one_layer(params, x):
    stream = params["params"]["last"]["Stream_0"]
    return dense(stream["Dense_0"], np.maximum(dense(stream["MLP_0"]["Dense_0"], x), 0))


def member_values(params, k, x):
    """Member k: what it learnt plus three times its prior (Osband et al. 2018) -> [..., A]."""
    mine = jax.tree.map(lambda p: p[k], params)
    return one_layer(mine["learnt"], x) + SCALE * one_layer(mine["prior"], x)


def single(optimizer="adam"):
    head = heads.scalar("squared")
    network = networks.with_prior(networks.q_network("mlp", (OBS,), ACTIONS, head, hidden_sizes=(HIDDEN,)))
    return learner.make_learner(network, head, targets.greedy(True), n=2, target_period=2, optimizer=optimizer)


def random_sample(seed, length=4):
    rng = np.random.default_rng(seed)
    reward, terminated, last = random_rows(seed, length, BATCH, 0.3)
    obs = rng.normal(size=(length, BATCH, OBS)).astype(np.float32)
    action = rng.integers(0, ACTIONS, (length, BATCH))
    return Sample(Row(obs, action, reward, terminated, last, ()), np.arange(BATCH), rng.random(BATCH).astype("f4"))


@pytest.mark.slow
def test_where_all_hear_everything_an_ensemble_is_separate_learners():
    """Four updates and two target copies: parameters, targets, optimiser, and the error that replay is told."""
    one, hyper = single(), Hyper(learning_rate=0.05, bootstrap_probability=1.0)
    many = learner.ensemble(one, MEMBERS)
    state = jax.jit(many.init)(jax.random.key(0), jnp.zeros(OBS), hyper)
    apart = [jax.tree.map(lambda x, k=k: x[k], state) for k in range(MEMBERS)]
    first = jax.tree.map(np.asarray, state)
    kernels = [x for x in jax.tree.leaves(state.params) if x.ndim == 3]  # [K, in, out]
    assert len(kernels) == 4
    assert all(not np.allclose(x[i], x[j]) for x in kernels for i in range(MEMBERS) for j in range(i))
    update, update_one = jax.jit(many.update), jax.jit(one.update)
    for count in range(1, 5):
        sample = random_sample(count)
        state, error, metrics = update(jax.random.key(count), state, sample, count, 0.0, hyper)
        results = [update_one(jax.random.key(99 + count), s, sample, count, 0.0, hyper) for s in apart]
        apart = [result[0] for result in results]
        np.testing.assert_allclose(error, np.mean([result[1] for result in results], 0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics.loss, np.mean([result[2].loss for result in results]), rtol=1e-4)
        for k, other in enumerate(apart):
            for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
                np.testing.assert_allclose(a[k], b, rtol=1e-4, atol=1e-5)
    for name in ("params", "target_params"):  # priors stand still to the bit, and what is learnt does not
        before, after = getattr(first, name), getattr(state, name)
        for a, b in zip(jax.tree.leaves(before["prior"]), jax.tree.leaves(after["prior"]), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(jax.tree.leaves(before["learnt"]), jax.tree.leaves(after["learnt"]), strict=True):
            assert all(not np.array_equal(a[k], b[k]) for k in range(MEMBERS))


SEGMENTS = 3_000  # a multiple of BATCH


@functools.cache
def hearing():
    """(indices [N, B], keys [N], p, updates) -> [N, K, B] bool: does the member learn from that segment?

    The members are plain tables and the segments of a batch stand in states of their own: an entry moves if heard.
    """
    head = heads.scalar("squared")
    network = networks.q_network("tabular", (BATCH,), 1, head)
    one = learner.make_learner(network, head, targets.greedy(), n=1, target_period=1, optimizer="sgd")
    many, hyper = learner.ensemble(one, MEMBERS), Hyper(learning_rate=1.0, max_gradient_norm=1e6)
    state = many.init(jax.random.key(0), jnp.zeros(BATCH, bool), hyper)
    obs = jnp.eye(BATCH, dtype=bool)[None].repeat(2, 0)
    last = jnp.array([[False] * BATCH, [True] * BATCH])
    rows = Row(obs, jnp.zeros((2, BATCH), int), jnp.ones((2, BATCH)), ~last, last, ())

    def moved(indices, key, p, updates):
        sample = Sample(rows, indices, jnp.ones(BATCH))
        after = many.update(key, state, sample, updates, 0.0, hyper._replace(bootstrap_probability=p))[0]
        return jax.tree.leaves(after.params)[0].reshape(MEMBERS, BATCH) != 0

    return jax.jit(jax.vmap(moved, (0, 0, None, None)))


def heard(indices, p, key=0, updates=1):
    """[K, N] bool for segments `indices` [N], B at a time."""
    keys = jax.random.split(jax.random.key(key), len(indices) // BATCH)
    masks = hearing()(jnp.asarray(indices).reshape(-1, BATCH), keys, p, updates)
    return np.asarray(masks).swapaxes(0, 1).reshape(MEMBERS, -1)


def test_masks_have_their_frequency_and_never_change():
    p = 0.3
    mask = heard(np.arange(SEGMENTS), p)
    deviation = (p * (1 - p) / SEGMENTS) ** 0.5
    np.testing.assert_allclose(mask.mean(1), p, atol=4 * deviation)
    both = [(mask[i] & mask[j]).mean() for i in range(MEMBERS) for j in range(i)]  # members hear independently
    np.testing.assert_allclose(both, p**2, atol=4 * (p**2 * (1 - p**2) / SEGMENTS) ** 0.5)
    following = (mask[:, 1:] & mask[:, :-1]).mean(1)  # and so do neighbouring segments
    np.testing.assert_allclose(following, p**2, atol=4 * (p**2 * (1 - p**2) / SEGMENTS) ** 0.5)

    shuffled = np.random.default_rng(0).permutation(SEGMENTS)  # drawn again: elsewhere, with another key, later
    again = heard(shuffled, p, key=1, updates=7)
    np.testing.assert_array_equal(again, mask[:, shuffled])
    assert heard(np.arange(SEGMENTS), 1.0).all()


def contextual(score):
    """One step per episode: the observation is noise, and the reward is what `score` makes of it and the action."""

    def reset(key):
        obs = jax.random.normal(key, (OBS,))
        return obs, obs

    def step(key, obs, action):
        after = jax.random.normal(key, (OBS,))
        end = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.25)
        return after, jdqn.Step(after, jnp.asarray(score(obs, action), jnp.float32), end, ~end & (after[0] > 1))

    return jdqn.Env(reset, step, ACTIONS)


ENVS, TICKS = 16, 60


@functools.cache
def rolled():
    """(actors before every iteration, params before it, actions in it) of an agent that learns and never explores."""
    config, hyper = jdqn.preset(
        "bootstrapped", "", ensemble=MEMBERS, hidden_sizes=(HIDDEN,), num_envs=ENVS, rollout_length=1, batch_size=4,
        replay_size=ENVS * 100, warm_up_steps=2 * ENVS,
    )  # fmt: skip
    trainer = jdqn.build(config, contextual(lambda obs, action: obs[0]))

    @jax.jit
    def run(key):
        state = trainer.init(key, hyper)
        state = jax.lax.scan(lambda s, i: trainer.step(s, hyper, i), state, jnp.arange(trainer.num_warm_up))[0]

        def step(state, i):
            after, _ = trainer.step(state, hyper, i)
            return after, (state.actor, state.learner.params, after.replay.action.reshape(-1, ENVS)[i])

        return jax.lax.scan(step, state, trainer.num_warm_up + jnp.arange(TICKS))

    return jax.tree.map(np.asarray, run(jax.random.key(0))[1])


@pytest.mark.slow
def test_a_member_acts_for_an_episode_and_the_next_is_drawn_evenly():
    actor, params, action = rolled()
    follows, last = actor.memory, actor.last
    np.testing.assert_array_equal(follows[1:][~last[:-1]], follows[:-1][~last[:-1]])
    table = np.zeros((MEMBERS, MEMBERS))
    np.add.at(table, (follows[:-1][last[:-1]], follows[1:][last[:-1]]), 1)  # the old one and the new one
    assert table.sum() > 100
    expected = table.sum(1, keepdims=True) * np.full(MEMBERS, 1 / MEMBERS)
    assert ((table - expected) ** 2 / expected).sum() < 22.5  # chi-square, 6 degrees of freedom, one in a thousand
    for t in range(TICKS):
        now = jax.tree.map(lambda p, t=t: p[t], params)
        values = np.stack([member_values(now, k, actor.obs[t].astype(np.float64)) for k in range(MEMBERS)])  # [K, E, A]
        for e in range(ENVS):
            mine = values[follows[t, e], e]
            assert last[t, e] or mine[action[t, e]] > mine.max() - 1e-4
    everyone = values.argmax(-1)
    assert (everyone != everyone[0]).any()


@pytest.mark.slow
def test_priors_stand_still_while_an_agent_trains():
    params = rolled()[1]
    assert all((x == x[:1]).all() for x in jax.tree.leaves(params["prior"]))
    assert all((x[0] != x[-1]).any(tuple(range(1, x[0].ndim))).all() for x in jax.tree.leaves(params["learnt"]))


def test_greedy_evaluation_goes_by_the_mean_of_the_members():
    """An environment pays 1 for the action of the highest mean value, computed in NumPy, and nothing for others."""
    head = heads.scalar()
    network = networks.with_prior(networks.q_network("mlp", (OBS,), ACTIONS, head, hidden_sizes=(HIDDEN,)))
    params = jax.eval_shape(jax.vmap(lambda k: network.init(k, jnp.zeros(OBS))), jax.random.split(jax.random.key(0), 3))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)

    def score(obs, action):
        values = np.stack([member_values(params, k, np.asarray(obs, np.float64)) for k in range(MEMBERS)])
        return np.float32(values.mean(0).argmax() == action)

    def paid(obs, action):
        return jax.pure_callback(score, jax.ShapeDtypeStruct((), jnp.float32), obs, action, vmap_method="sequential")

    env = contextual(paid)
    once = env._replace(step=lambda key, obs, action: (lambda s, x: (s, x._replace(terminated=jnp.bool_(True))))(
        *env.step(key, obs, action)))  # fmt: skip
    policy = networks.make_policy(network, head, MEMBERS)
    result = jdqn.evaluate(once, policy, params, jax.random.key(1), episodes=200, max_steps=3)
    assert result.finished.all()
    np.testing.assert_array_equal(result.returns, 1.0)
    obs = rng.normal(size=(200, OBS))
    votes = np.stack([member_values(params, k, obs) for k in range(MEMBERS)])
    assert (votes.mean(0).argmax(-1) != votes[0].argmax(-1)).mean() > 0.2
    values, _ = policy.values(params, None, jnp.asarray(obs, jnp.float32), (), jnp.zeros(200, bool))
    np.testing.assert_allclose(values, votes.mean(0), rtol=1e-3, atol=1e-4)
