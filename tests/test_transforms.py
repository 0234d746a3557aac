"""The trainer under jit and vmap: traced once, agents independent, sweeps without a second compilation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_trainer import make, raw

import jdqn
from jdqn import parallel

ITERATIONS = 60


def leaves(tree):
    return [np.asarray(raw(x)) for x in jax.tree.leaves(tree)]


def keys(seeds):
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def test_a_whole_run_is_traced_once_and_a_sweep_never_compiles_again():
    trainer, hyper = make()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def train(key, hyper):
        return jdqn.train(trainer, key, hyper, 20)

    results = []
    for seed, rate, discount in [(0, 1e-3, 0.99), (1, 1e-3, 0.99), (0, 1e-2, 0.99), (0, 1e-3, 0.5)]:
        state, _ = train(jax.random.key(seed), hyper._replace(learning_rate=rate, discount=discount))
        results.append(np.concatenate([x.ravel() for x in leaves(state.learner.params)]))
    assert train._cache_size() == 1
    for other in results[1:]:  # and every value changed the outcome
        assert not np.allclose(results[0], other)


def test_agent_i_of_a_batch_equals_agent_i_alone():
    trainer, hyper = make()
    together, metrics = jax.jit(jax.vmap(lambda key: jdqn.train(trainer, key, hyper, ITERATIONS)))(keys([0, 1, 2, 3]))
    alone = jax.jit(lambda key: jdqn.train(trainer, key, hyper, ITERATIONS))
    for agent in range(4):
        state, mine = alone(jax.random.key(agent))
        for a, b in zip(leaves(state.replay), leaves(together.replay), strict=True):
            np.testing.assert_array_equal(a, b[agent])  # the same actions in the same worlds, to the bit
        for a, b in zip(leaves(state.learner), leaves(together.learner), strict=True):
            np.testing.assert_allclose(a, b[agent], rtol=1e-4, atol=1e-5)
        for a, b in zip(leaves(mine), leaves(metrics), strict=True):
            np.testing.assert_allclose(a, b[agent], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_agents_differ_in_everything_random():
    trainer, hyper = make()
    state, _ = jax.jit(jax.vmap(lambda key: jdqn.train(trainer, key, hyper, 20)))(keys([0, 1]))
    for part in (state.actor.obs, state.replay.obs, state.replay.action, *jax.tree.leaves(state.learner.params)):
        assert not np.array_equal(part[0], part[1])
    fresh = jax.vmap(lambda key: trainer.init(key, hyper))(keys([0, 1]))
    kernels = [x for x in jax.tree.leaves(fresh.learner.params) if x.ndim == 3]
    assert kernels
    assert all(not np.array_equal(x[0], x[1]) for x in kernels)


@pytest.mark.slow
def test_a_population_equals_its_agents_with_their_own_hyper():
    """over_agents on arrays of Hyper: seeds x learning rates, advanced in unequal pieces on one clock."""
    trainer, hyper = make()
    rates = np.array([1e-3, 1e-2, 1e-3], np.float32)
    swept = hyper._replace(learning_rate=rates)
    population = parallel.over_agents(trainer)
    state, sums = jax.jit(population.init)(keys([5, 5, 6]), swept)
    advance = jax.jit(population.advance, donate_argnums=0)
    for start, stop in [(0, 10), (10, 11), (11, ITERATIONS)]:
        state, sums = advance(state, swept, sums, start, stop)
    assert advance._cache_size() == 1
    for agent, (seed, rate) in enumerate(zip([5, 5, 6], rates, strict=True)):
        mine, metrics = jax.jit(lambda key, h: jdqn.train(trainer, key, h, ITERATIONS))(
            jax.random.key(seed), hyper._replace(learning_rate=rate)
        )
        for a, b in zip(leaves(mine.learner.params), leaves(state.learner.params), strict=True):
            np.testing.assert_allclose(a, b[agent], rtol=1e-4, atol=1e-5)
        assert int(metrics.env_steps.sum()) == int(sums.env_steps[agent])
        assert int(metrics.episodes.sum()) == int(sums.episodes[agent])


def test_a_batched_clock_is_refused():
    """One clock for all agents is what keeps a replay write a slice: vmapping over it is an error."""
    trainer, hyper = make()
    state = jax.vmap(lambda key: trainer.init(key, hyper))(keys([0, 1]))
    with pytest.raises(ValueError, match="in_axes=None"):
        jax.vmap(lambda s, i: trainer.step(s, hyper, i))(state, jnp.arange(2))


@pytest.mark.slow
def test_the_trainer_holds_no_global_state():
    """Equal keys give equal bits, in another jit and after other runs."""
    trainer, hyper = make()
    one = jax.jit(lambda key: jdqn.train(trainer, key, hyper, 20))(jax.random.key(3))
    again, _ = make()
    two = jax.jit(lambda key: jdqn.train(again, key, hyper, 20))(jax.random.key(3))
    for a, b in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
