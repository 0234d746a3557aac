"""Learning, seen from outside: the tuned CartPole row on seeds that it was not tuned on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdqn


@pytest.mark.slow
def test_cartpole_is_solved_in_100_000_steps():
    """The row that the README advertises: experiments/cartpole.py has the hundred seeds, here are eight of them."""
    env = jdqn.envs.make("CartPole-v1")
    config, hyper = jdqn.preset("dqn", env.name)
    assert config.total_steps == 100_000
    trainer = jdqn.build(config, env)
    keys = jax.vmap(jax.random.key)(jnp.arange(8, dtype=jnp.uint32))
    iterations = jdqn.total_iterations(config)
    states, metrics = jax.jit(jax.vmap(lambda key: jdqn.train(trainer, key, hyper, iterations)))(keys)
    assert (metrics.env_steps.sum(1) <= 100_000).all()
    keys = jax.vmap(jax.random.key)(jnp.arange(100, 108, dtype=jnp.uint32))
    play = jax.jit(jax.vmap(lambda params, key: jdqn.evaluate(env, trainer.policy, params, key).returns.mean()))
    returns = np.asarray(play(states.learner.params, keys))
    assert (returns >= 475).sum() >= 7, returns
