"""Who draws noise and fractions of its own, and who shares them: the wiring of `build`, a learner's four outputs."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_targets import random_rows

import jdqn
from jdqn import envs, learner, networks
from jdqn.targets import n_step
from jdqn.types import Row

ROWS = 6


@pytest.fixture
def given(monkeypatch):
    """A function from an algorithm to (the learner's network, the policy's, parameters, one observation)."""
    module, found = importlib.import_module("jdqn.build"), {}

    def spy(name, function):
        def call(network, *args, **options):
            found[name] = network
            return function(network, *args, **options)

        return call

    monkeypatch.setattr(module, "make_learner", spy("learning", learner.make_learner))
    monkeypatch.setattr(module.networks, "make_policy", spy("acting", networks.make_policy))

    def of(algorithm, **settings):
        config, hyper = jdqn.preset(algorithm, "CartPole-v1", hidden_sizes=(16, 16), **settings)
        trainer = jdqn.build(config, envs.make("CartPole-v1"))
        params = trainer.init(jax.random.key(0), hyper).learner.params
        return found["learning"], found["acting"], trainer.policy, params

    return of


def spread(values):
    """The largest difference between rows [ROWS, ...]."""
    return float(np.ptp(np.asarray(values), axis=0).max())


def test_environments_that_act_together_draw_apart_and_a_batch_draws_once(given):
    """Noise while acting is each environment's own; the learner's batch shares one draw (Fortunato et al. 2018)."""
    learning, _, policy, params = given("noisy")
    alike, reset = jnp.ones((ROWS, 4)), jnp.zeros(ROWS, bool)
    explored, _ = policy.values(params, jax.random.key(3), alike, policy.carry(ROWS), reset)
    assert spread(explored) > 1e-3
    assert spread(policy.values(params, None, alike, policy.carry(ROWS), reset)[0]) == 0
    assert spread(learning.apply(params, jax.random.key(3), alike[None], (), reset[None])[0][0]) == 0
    again, _ = policy.values(params, jax.random.key(4), alike, policy.carry(ROWS), reset)
    assert np.abs(np.asarray(again) - np.asarray(explored)).min() > 0  # a new draw for every tick


def test_acting_has_fractions_of_its_own_number(given):
    """IQN learns with `atoms` fractions and acts with `acting_atoms` (Dabney et al. 2018); each row draws its own."""
    learning, acting, _, params = given("iqn", atoms=5, acting_atoms=11)
    alike, reset = jnp.ones((1, ROWS, 4)), jnp.zeros((1, ROWS), bool)
    for network, fractions in ((learning, 5), (acting, 11)):
        out, _ = jax.eval_shape(network.apply, params, jax.random.key(3), alike, (), reset)
        assert fractions in {size for x in jax.tree.leaves(out) for size in x.shape[2:]}
        assert spread(jax.tree.leaves(network.apply(params, jax.random.key(3), alike, (), reset)[0])[0][0]) > 1e-4


def drawn(network_calls):
    """A network whose output is its noise, [T, B, 1] standard normal, and that notes the keys it was given."""

    def apply(params, key, obs, carry, reset):
        network_calls.append(params)
        return jax.random.normal(key, (*obs.shape[:2], 1)), carry

    return networks.Network(lambda key, obs: (), apply, lambda batch: (), False)


def segments(length, n):
    reward, terminated, last = map(jnp.asarray, random_rows(0, length, 4, 0.2))
    rows = Row(jnp.zeros((length, 4, 2)), jnp.zeros((length, 4), int), reward, terminated, last, ())
    return rows, n_step(reward, terminated, last, 0.9, n)


def test_the_four_outputs_of_single_rows_are_drawn_apart():
    """online(s), online(s'), target(s) and target(s') each have noise of their own (Fortunato et al. 2018, eq. 17)."""
    rows, returns = segments(3, 2)
    calls = []
    outputs = learner.row_outputs(drawn(calls))("online", "target", jax.random.key(3), rows, returns)
    assert sorted(calls) == ["online", "online", "target", "target"]
    noises = np.stack([np.asarray(x) for x in outputs]).reshape(4, -1)
    assert len(np.unique(noises)) == noises.size


def test_rows_of_a_segment_share_a_draw_in_each_network():
    """A row has one output in a network, learnt or bootstrapped from; the two networks draw apart."""
    rows, returns = segments(7, 2)
    calls = []
    outputs = learner.segment_outputs(drawn(calls), 0)("online", "target", jax.random.key(3), rows, returns)
    assert sorted(calls) == ["online", "target"]
    learnt, batch = returns.valid.shape
    later = np.asarray(returns.bootstrap)
    for t in range(learnt):
        for b in range(batch):
            if later[t, b] < learnt:
                assert outputs.next_online[t, b] == outputs.now_online[later[t, b], b]
                assert outputs.next_target[t, b] == outputs.now_target[later[t, b], b]
    assert (later < learnt).any()
    assert not np.intersect1d(outputs.now_online, outputs.now_target).size
