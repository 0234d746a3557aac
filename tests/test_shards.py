"""One agent in several pieces learns what it would learn in one: the same gradient, the same draws, the same clock."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_learner import random_sample
from test_parallel import agent, keys
from test_recurrent import ACTIONS, OBS, SIZE, random_segments
from test_trainer import counter, make

import jdqn
from jdqn import exploration, heads, learner, networks, parallel, replay, sum_tree, targets
from jdqn.config import Hyper
from jdqn.shards import AGENTS, DEVICES, WHOLE, Shards
from jdqn.types import Row

HEADS = {
    "scalar": lambda: heads.scalar("squared"),
    "categorical": lambda: heads.categorical(-5, 5, 11),
    "quantile": lambda: heads.quantile(7),
}
PLACES = {"one device": (AGENTS,), "devices": (DEVICES,), "both": (DEVICES, AGENTS)}
FEWER = [*(pytest.param(place, marks=pytest.mark.nightly) for place in ("one device", "devices")), "both"]


def over(function, axes, args, shared=()):
    """Call function(*args, *shared) for every shard of args [4, ...], along the axes named."""
    if axes == (AGENTS,):
        return jax.jit(jax.vmap(lambda *x: function(*x, *shared), axis_name=AGENTS))(*args)
    call = jax.vmap(lambda *x: function(*x, *shared), axis_name=AGENTS if AGENTS in axes else None)
    return jax.jit(parallel.on_devices(parallel.device_mesh(2 if AGENTS in axes else 4))(call))(*args)


def require_the_gradient_of_the_whole(place, samples, network, head, n, burn_in=0, of_the_whole=None):
    """To 1e-5, before any optimiser can hide a factor: a step at rate 1 from random parameters of both networks.

    `network` is made for shards; `of_the_whole` is the one that sees the whole batch, if that is another.
    """
    length = samples[0].rows.last.shape[0]
    valid = [int((~s.rows.last[burn_in : length - n]).sum()) for s in samples]
    assert len(set(valid)) > 1
    joined = jax.tree.map(lambda *x: jnp.concatenate(x, 0 if x[0].ndim == 1 else 1), *samples)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *samples)
    hyper = Hyper(learning_rate=1.0, max_gradient_norm=1e9)

    def rule_of(shards, network):
        return learner.make_learner(
            network, head, targets.greedy(), n=n, target_period=100, optimizer="sgd", burn_in=burn_in, shards=shards
        )

    def learner_of(shards, network):
        update = rule_of(shards, network).update
        return lambda sample, state: update(jax.random.key(1), state, sample, jnp.int32(1), jnp.float32(0), hyper)

    shards = Shards(4, PLACES[place])
    alone, part = of_the_whole or network(WHOLE), network(shards)
    obs = jnp.zeros(samples[0].rows.obs.shape[2:])
    shapes = jax.eval_shape(lambda: rule_of(WHOLE, alone).init(jax.random.key(0), obs, hyper))
    rng = np.random.default_rng(5)
    state = jax.tree.map(lambda p: jnp.asarray(0.6 * rng.normal(size=p.shape), p.dtype), shapes)
    whole, error, metrics = jax.jit(learner_of(WHOLE, alone))(joined, state)
    found, errors, several = over(learner_of(shards, part), PLACES[place], (stacked,), (state,))
    for before, a, b in zip(*map(jax.tree.leaves, (state.params, whole.params, found.params)), strict=True):
        gradient = before - a  # the rate is 1
        assert np.abs(gradient).max() > 1e-2
        for k in range(4):
            np.testing.assert_allclose(before - b[k], gradient, atol=1e-5)
            np.testing.assert_array_equal(b[k], b[0])
    np.testing.assert_allclose(np.ravel(errors), error, rtol=1e-5, atol=1e-6)
    for a, b in zip(metrics, several, strict=True):
        np.testing.assert_allclose(np.mean(b), a, rtol=1e-5)
    np.testing.assert_allclose(several.grad_norm, np.full(4, metrics.grad_norm), rtol=1e-5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("head", HEADS)
def test_the_gradient_is_that_of_the_whole_batch(head, place):
    """With unequal numbers of valid rows and with weights."""
    samples, made = [random_sample(seed, 5) for seed in range(4)], HEADS[head]()
    network = networks.q_network("mlp", (5,), 3, made, hidden_sizes=(8,))
    require_the_gradient_of_the_whole(place, samples, lambda shards: network, made, n=2)


@pytest.mark.parametrize("place", FEWER)
@pytest.mark.parametrize(("core", "burn_in"), [("gru", 3), ("lstm", 2)])
def test_the_gradient_of_a_recurrent_network_is_that_of_the_whole_batch(core, burn_in, place):
    """From stored carries, through a burn-in and over ends of episodes; only the learnt rows are counted."""
    head, n = heads.scalar("squared"), 2
    samples = [random_segments(core, burn_in + 4 + n, seed) for seed in range(4)]
    samples = [s._replace(rows=s.rows._replace(reward=20 * s.rows.reward)) for s in samples]  # for gradients to be seen
    network = networks.q_network("mlp", (OBS,), ACTIONS, head, hidden_sizes=(5,), core=core, core_size=SIZE)
    require_the_gradient_of_the_whole(place, samples, lambda shards: network, head, n, burn_in)


@pytest.mark.parametrize("place", FEWER)
def test_the_gradient_of_implicit_quantiles_is_that_of_the_whole_batch(place):
    """Every row of a batch has fractions of its own, and a shard draws its own: the whole is given the same ones."""
    head = heads.implicit_quantile()
    network = networks.q_network("mlp", (5,), 3, head, hidden_sizes=(8, 8), fractions="sampled", samples=4)

    def of_shards(shards):
        def apply(params, key, *rows):
            return network.apply(params, shards.own_key(key), *rows)

        return network._replace(apply=apply)

    def of_all(params, key, obs, carry, reset):
        parts = zip(jnp.split(obs, 4, 1), jnp.split(reset, 4, 1), strict=True)
        outs = [
            network.apply(params, jax.random.fold_in(key, k), obs, carry, reset)[0]
            for k, (obs, reset) in enumerate(parts)
        ]
        return jax.tree.map(lambda *x: jnp.concatenate(x, 1), *outs), carry

    samples = [random_sample(seed, 5) for seed in range(4)]
    whole = network._replace(apply=of_all)
    require_the_gradient_of_the_whole(place, samples, of_shards, head, n=2, of_the_whole=whole)


def test_a_batch_without_a_valid_row_teaches_nothing():
    sample = random_sample(0, 3)
    rows = sample.rows._replace(last=np.ones_like(sample.rows.last))
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 4), sample._replace(rows=rows))
    network = networks.q_network("mlp", (5,), 3, heads.scalar(), hidden_sizes=(8,))
    rule = learner.make_learner(
        network, heads.scalar(), targets.greedy(), n=1, target_period=9, optimizer="sgd", shards=Shards(4, (AGENTS,))
    )
    state = rule.init(jax.random.key(0), jnp.zeros(5), Hyper())

    def update(sample):
        return rule.update(jax.random.key(1), state, sample, jnp.int32(1), jnp.float32(0), Hyper())

    found, _, _ = over(update, (AGENTS,), (stacked,))
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(found.params), strict=True):
        np.testing.assert_array_equal(np.broadcast_to(a, b.shape), b)


def run(algorithm, axes, devices, iterations=30, **settings):
    """Four shards, `devices` devices."""
    sizes = dict(total_steps=10_000, num_envs=8, rollout_length=4, updates=2, batch_size=8, hidden_sizes=(8,))
    sizes |= dict(replay_size=256, warm_up_steps=64) | settings
    config, hyper = jdqn.preset(algorithm, "", **sizes)
    trainer = jdqn.build(config, counter(), Shards(4, axes))
    population = parallel.over_shards(trainer)
    if devices:
        population = parallel.over_devices(population, parallel.device_mesh(devices))
    state, sums = jax.jit(population.init)(keys([7] * 4), hyper)
    advance = jax.jit(population.advance, donate_argnums=0)
    return config, advance(state, hyper, sums, 0, iterations)


FAMILY = ["dqn", "pqn", "r2d2", "bootstrapped", "rainbow", "iqn"]


@pytest.mark.parametrize("algorithm", ["per", *(pytest.param(name, marks=pytest.mark.nightly) for name in FAMILY)])
def test_shards_stay_together_and_see_different_worlds(algorithm):
    """One network, four replays; the same wherever the shards lie."""
    more = dict(r2d2=dict(burn_in=2, unroll_length=4, n_step=2), pqn=dict(warm_up_steps=0), rainbow=dict(n_step=2))
    settings = more.get(algorithm, {})
    _, (state, sums) = run(algorithm, (AGENTS,), 0, **settings)
    for x in jax.tree.leaves(state.learner):
        for k in range(1, 4):
            np.testing.assert_array_equal(x[k], x[0])
    rows = state.replay.rows if isinstance(state.replay, replay.Prioritised) else state.replay
    assert len({x.tobytes() for x in np.asarray(rows.obs)}) == 4
    for devices in (4, 2):
        _, (other, again) = run(algorithm, (DEVICES, AGENTS), devices, **settings)
        for k in range(4):
            for a, b in zip(agent((state, sums), k), agent((other, again), k), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_shards_run_under_pmap():
    trainer, hyper = make_sharded()

    def train(key):
        return jdqn.train(trainer, key, hyper, 20)

    state, metrics = jax.pmap(train, axis_name=DEVICES)(keys([0] * 4))
    mapped, _ = jax.vmap(train, axis_name=DEVICES)(keys([0] * 4))
    for k in range(4):
        for a, b in zip(agent(state, k), agent(mapped, k), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(agent(state.learner, k)[0], agent(state.learner, 0)[0])
    assert int(metrics.env_steps.sum()) > 0


def make_sharded():
    config, hyper = jdqn.preset(
        "dqn", "", total_steps=10_000, num_envs=4, batch_size=8, hidden_sizes=(8,), replay_size=64, warm_up_steps=24
    )
    return jdqn.build(config, counter(), Shards(4, (DEVICES,))), hyper


def test_the_clock_is_the_whole_agents():
    """Warm-up, ticks, ring and the schedules are those of the agent in one piece."""
    trainer, hyper = make()
    config, _ = jdqn.preset(
        "dqn", "", total_steps=10_000, num_envs=4, rollout_length=2, updates=2, batch_size=8, hidden_sizes=(8,),
        replay_size=64, warm_up_steps=24, target_period=3,
    )  # fmt: skip
    part = jdqn.build(config, counter(), Shards(2, (AGENTS,)))
    assert (part.ticks, part.num_warm_up, part.updates) == (trainer.ticks, trainer.num_warm_up, trainer.updates)
    state, sums = jax.jit(parallel.over_shards(part).init)(keys([0, 0]), hyper)
    state, sums = jax.jit(parallel.over_shards(part).advance)(state, hyper, sums, 0, 20)
    whole, alone = jax.jit(parallel.over_agents(trainer).init)(keys([0]), hyper)
    whole, alone = jax.jit(parallel.over_agents(trainer).advance)(whole, hyper, alone, 0, 20)
    np.testing.assert_allclose(sums.epsilon, np.broadcast_to(alone.epsilon, 2), rtol=1e-6)
    assert int(sums.env_steps.sum()) == int(alone.env_steps[0])
    assert state.replay.reward.size == whole.replay.reward.size


def test_the_ladder_is_cut_and_not_repeated():
    shards = Shards(4, (AGENTS,))
    whole = exploration.ladder(0.0, 8, Hyper())
    parts = jax.vmap(lambda _: shards.own(exploration.ladder(0.0, 8, Hyper())), axis_name=AGENTS)(jnp.arange(4))
    np.testing.assert_array_equal(parts.ravel(), whole)


FULLY = Hyper(importance_exponent=1.0, importance_final_exponent=1.0, priority_exponent=1.0)


def filled(part, error, num_envs):
    """A full ring of 16 rows whose segments have the priorities error [15 * E]."""
    no = jnp.zeros((1, num_envs), bool)
    rows = Row(jnp.zeros((1, num_envs, 1)), jnp.zeros((1, num_envs), jnp.int32), jnp.zeros((1, num_envs)), no, no, ())
    state = part.init(jax.tree.map(lambda x: x[0], rows))
    for i in range(16):
        state = part.add(state, rows, jnp.int32(i), FULLY)
    return part.update(state, jnp.arange(error.size), error, FULLY)


@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_distributed_replay_stands_for_one_big_buffer(beta):
    """Four shards draw in proportion to priority, each from its own rows; one buffer holds the rows of all.

    How often a row is drawn differs, since every shard has an equal share of the batch. But the weights know: times how
    often a row is drawn, they are in every batch what they are in one buffer, up to the batch's largest.
    """
    slots, batch, rounds = 16, 8, 8000
    hyper = FULLY._replace(importance_exponent=beta, importance_final_exponent=beta)
    error = np.random.default_rng(0).uniform(0.2, 3.0, (4, slots - 1)).astype(np.float32)
    error[0] *= 5  # the shards' totals differ

    # One buffer, as Schaul et al. have it: what a row counts, in expectation, before the largest weight is one.
    probability = np.ravel(error / error.sum()).astype(np.float64)
    counts = probability * (probability.size * probability) ** -beta

    def draw(part, state, key):
        keys = jax.random.split(key, rounds)
        return jax.lax.map(lambda k: part.sample(k, state, jnp.int32(slots), 0, hyper)._replace(rows=()), keys)

    def check(index, weight, probability):
        """From draws [rounds, n] of rows that are drawn with `probability`."""
        size = weight * (probability / counts)[index]
        np.testing.assert_allclose(size, np.broadcast_to(size[:, :1], size.shape), rtol=1e-3)
        np.testing.assert_allclose(weight.max(1), 1.0, rtol=1e-6)
        share = np.bincount(index.ravel(), minlength=len(probability)) / index.size
        np.testing.assert_allclose(share, probability, atol=0.01)

    part = replay.prioritised(slots, 1, batch, 2, shards=Shards(4, (AGENTS,)))
    run = jax.vmap(lambda error, key: draw(part, filled(part, error, 1), key), axis_name=AGENTS)
    sample = jax.device_get(jax.jit(run)(error, jax.random.split(jax.random.key(0), 4)))
    assert sample.indices.max() < slots - 1  # the newest row is never drawn
    index = sample.indices + (slots - 1) * np.arange(4)[:, None, None]
    index, weight = (x.swapaxes(0, 1).reshape(rounds, -1) for x in (index, sample.weight))
    check(index, weight, np.ravel(error / error.sum(1, keepdims=True) / 4))

    big = replay.prioritised(slots, 1, 4 * batch, 2)
    sample = jax.device_get(jax.jit(lambda key: draw(big, filled(big, error.T.ravel(), 4), key))(jax.random.key(1)))
    tick, shard = np.divmod(sample.indices, 4)
    check(shard * (slots - 1) + tick, sample.weight, probability)


def test_new_rows_get_the_highest_priority_of_all_shards():
    part = replay.prioritised(16, 1, 2, 2, shards=Shards(2, (AGENTS,)))

    def run(error):
        state = filled(part, error, 1)
        rows = jax.tree.map(lambda x: x[:1, None], state.rows)
        return sum_tree.leaves(part.add(state, rows, jnp.int32(16), FULLY).tree)[:16]

    error = jnp.full((2, 15), 0.1).at[0, 3].set(5.0).at[1, 3].set(2.0)
    leaves = jax.jit(jax.vmap(run, axis_name=AGENTS))(error)
    np.testing.assert_allclose(leaves[:, 3], [5.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(leaves[:, 15], 5.0, rtol=1e-5)  # complete now


@pytest.mark.parametrize("field", ["num_envs", "batch_size"])
def test_what_does_not_divide_is_refused(field):
    sizes = dict(num_envs=8, batch_size=8, hidden_sizes=(8,)) | {field: 6}
    config, _ = jdqn.preset("dqn", "", **sizes)
    with pytest.raises(jdqn.ConfigError, match=f"{field}=6 does not divide into 4 equal shards"):
        jdqn.build(config, counter(), Shards(4, (AGENTS,)))
