"""Population-based training against a slow loop, and what its random parts may do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parallel import keys
from test_trainer import make, raw

from jdqn import evolution, parallel
from jdqn.config import Hyper


@pytest.mark.parametrize(("agents", "fraction", "number"), [(10, 0.2, 2), (10, 0.29, 2), (3, 0.2, 1), (8, 0.5, 4)])
def test_the_worst_copy_the_best(agents, fraction, number):
    rng = np.random.default_rng(agents)
    score = rng.permutation(agents).astype(np.float32)
    seen = set()
    for seed in range(60):
        parents = np.asarray(evolution.exploit(jax.random.key(seed), jnp.asarray(score), fraction))
        for k in range(agents):
            if score[k] >= number:  # not among the worst
                assert parents[k] == k
            else:
                assert score[parents[k]] >= agents - number
                seen.add(int(score[parents[k]]))
    assert seen == set(range(agents - number, agents))  # each of the best is chosen at some time


def test_an_agent_without_a_score_is_the_worst():
    score = jnp.array([0.0, jnp.nan, -5.0, 7.0, 3.0])
    parents = evolution.exploit(jax.random.key(0), score, 0.2)
    assert parents.tolist() == [0, 3, 2, 3, 4]


def test_heirs_have_the_learner_of_their_parents_and_their_own_world():
    trainer, hyper = make()
    population = parallel.over_agents(trainer)
    state, sums = jax.jit(population.start)(keys([0, 1, 2]), hyper)
    state, _ = jax.jit(population.advance)(state, hyper, sums, trainer.num_warm_up, 20)
    parents = jnp.array([0, 2, 2])
    for replay in (False, True):
        heirs = evolution.inherit(state, parents, replay)
        for name in state._fields:
            copied = name == "learner" or (name == "replay" and replay)
            for a, b in zip(jax.tree.leaves(getattr(state, name)), jax.tree.leaves(getattr(heirs, name)), strict=True):
                np.testing.assert_array_equal(raw(a)[np.asarray(parents) if copied else np.arange(3)], raw(b))
    assert not np.array_equal(state.replay.obs[1], state.replay.obs[2])


def test_only_copies_change_and_stay_in_range():
    agents = 400
    parents = jnp.where(jnp.arange(agents) < 200, jnp.arange(agents)[::-1], jnp.arange(agents))
    rng = np.random.default_rng(0)
    hyper = Hyper(
        learning_rate=jnp.asarray(10 ** rng.uniform(-4, -2, agents), jnp.float32),
        discount=jnp.asarray(1 - 10 ** rng.uniform(-3, -1, agents), jnp.float32),
        epsilon_end=jnp.asarray(rng.uniform(0, 0.5, agents), jnp.float32),
        trace_decay=jnp.full(agents, 0.5),
    )
    ranges = dict(learning_rate=(1e-4, 1e-2), discount=(0.9, 0.999), epsilon_end=(0.0, 0.5))
    new = evolution.explore(jax.random.key(0), hyper, parents, ranges)
    inside = {"learning_rate": 0, "discount": 0, "epsilon_end": 0}
    for name, (low, high) in ranges.items():
        value, old = np.asarray(getattr(new, name), np.float64), np.asarray(getattr(hyper, name), np.float64)
        np.testing.assert_array_equal(value[200:], old[200:].astype(np.float32))
        assert (value >= low * (1 - 1e-5)).all()
        assert (value <= high * (1 + 1e-6) + 1e-7).all()
        for k in range(200):
            parent = old[int(parents[k])]
            if name == "learning_rate":
                allowed = [parent * 1.2, parent / 1.2]
            elif name == "discount":
                allowed = [1 - (1 - parent) * 1.2, 1 - (1 - parent) / 1.2]
            else:
                allowed = [parent + 0.05, parent - 0.05]
            clipped = np.clip(allowed, low, high)
            assert np.isclose(value[k], clipped, rtol=1e-4, atol=1e-6).any(), (name, value[k], clipped)
            inside[name] += int(np.isclose(value[k], clipped, rtol=1e-4, atol=1e-6).argmax())
    assert all(60 < ups < 140 for ups in inside.values())  # up as often as down
    assert new.trace_decay is hyper.trace_decay


def test_scales():
    """Equal steps in the logarithm, in the logarithm of what is missing to 1, or plainly where an end has none."""
    for name, low, high, middle in [
        ("learning_rate", 1e-4, 1e-2, 1e-3),
        ("learning_rate", 0.0, 1.0, 0.5),
        ("discount", 0.9, 0.999, 0.99),
        ("discount", 0.9, 1.0, 0.95),
        ("epsilon_end", 0.1, 0.3, 0.2),
    ]:
        to, back = evolution.scale(name, low, high)
        np.testing.assert_allclose(back((to(jnp.float32(low)) + to(jnp.float32(high))) / 2), middle, rtol=1e-4)
