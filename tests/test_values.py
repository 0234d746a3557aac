"""Learnt values where the true ones are known: through time limits, and against dynamic programming."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import jdqn

STATES, DISCOUNT = 6, 0.9


def ring(limit, terminal, final_reward):
    """A walk around six states, whatever the action. Each step pays 1, the one that ends the episode `final_reward`.

    Episodes end after `limit` steps, by a termination or by a time limit. What a time limit cuts off goes on: the
    observation is the position alone, and the walk starts anywhere, so every position is met at every age.
    """

    def reset(key):
        position = jax.random.randint(key, (), 0, STATES)
        return (position, jnp.zeros((), jnp.int32)), jax.nn.one_hot(position, STATES, dtype=bool)

    def step(key, state, action):
        position, t = (state[0] + 1) % STATES, state[1] + 1
        end = t == limit
        reward = jnp.where(end, final_reward, 1.0)
        obs = jax.nn.one_hot(position, STATES, dtype=bool)
        return (position, t), jdqn.Step(obs, reward, end & terminal, end & (not terminal))

    return jdqn.Env(reset, step, num_actions=2)


def timed(limit, terminal, reward, final_reward):
    """The same walk with the step count as the observation: the state at which it ends is one of its own."""

    def reset(key):
        return jnp.zeros((), jnp.int32), jax.nn.one_hot(0, limit + 1, dtype=bool)

    def step(key, t, action):
        end = t + 1 == limit
        obs = jax.nn.one_hot(t + 1, limit + 1, dtype=bool)
        return t + 1, jdqn.Step(obs, jnp.where(end, final_reward, reward), end & terminal, end & (not terminal))

    return jdqn.Env(reset, step, num_actions=2)


def learnt_values(env, n, **overrides):
    """max_a Q(s, a) of every one-hot state, by a table and plain gradient steps on a falling rate."""
    settings = dict(
        total_steps=40_000, num_envs=8, rollout_length=2, updates=2, batch_size=32, replay_size=2_000, target_period=1,
        warm_up_steps=500, n_step=n, discount=DISCOUNT, learning_rate=20.0, epsilon_end=1.0,
    )  # fmt: skip
    config, hyper = jdqn.preset("q_learning", "", **settings | overrides)
    trainer = jdqn.build(config, env)
    iterations = jdqn.total_iterations(config)
    state, _ = jax.jit(lambda key: jdqn.train(trainer, key, hyper, iterations))(jax.random.key(0))
    return np.asarray(jax.tree.leaves(state.learner.params)[0]).max(-1)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_a_time_limit_takes_nothing_away(n):
    """Reward 1 for ever is worth 1 / (1 - discount) = 10 in every state, though every episode is cut after 5 steps."""
    values = learnt_values(ring(5, terminal=False, final_reward=1.0), n)
    np.testing.assert_allclose(values, 10.0, rtol=1e-3)


@pytest.mark.parametrize(("n", "terminal"), [(1, True), (3, True), (1, False), (3, False)])
def test_the_last_step_pays_and_ends(n, terminal):
    """A final reward of 5: after a termination nothing follows it, after a time limit the final observation's value."""
    limit = 6
    values = learnt_values(timed(limit, terminal, 1.0, 5.0), n)
    # Nobody acts at the final observation, so it is never learnt and keeps the table's initial value, zero.
    assert values[limit] == 0
    truth = oracles.chain_values(limit, terminal, 1.0, 5.0, DISCOUNT, final_value=0.0)
    np.testing.assert_allclose(values[:limit], truth, rtol=1e-3)


def test_a_time_limit_that_pays_bootstraps_after_paying():
    """Every fifth step pays 3. The observation hides the age and all ages are met: V = mean reward + discount V."""
    env = ring(5, terminal=False, final_reward=3.0)._replace(num_actions=1)  # no maximum over noise, so no bias
    values = learnt_values(env, 1, learning_rate=3.0, replay_size=20_000)
    np.testing.assert_allclose(values, (4 * 1.0 + 3.0) / 5 / (1 - DISCOUNT), rtol=0.03)


@pytest.mark.slow
def test_a_network_learns_the_same_values():
    """The dqn row with an MLP and Adam finds the ring's 10 through its time limits."""
    config, hyper = jdqn.preset(
        "dqn", "", total_steps=60_000, hidden_sizes=(32,), replay_size=2_000, batch_size=32, target_period=20, n_step=2,
        discount=DISCOUNT, learning_rate=3e-3, learning_rate_final_fraction=0.0, warm_up_steps=500,
    )  # fmt: skip
    env = ring(5, terminal=False, final_reward=1.0)
    trainer = jdqn.build(config, env)
    state, _ = jax.jit(lambda key: jdqn.train(trainer, key, hyper, 7_500))(jax.random.key(0))
    values, _ = trainer.policy.values(
        state.learner.params, jax.random.key(1), jnp.eye(STATES), (), jnp.zeros(STATES, bool)
    )
    np.testing.assert_allclose(values, 10.0, rtol=0.02)


@pytest.mark.slow
def test_q_learning_solves_frozen_lake():
    """The q_learning row as it stands, eight seeds: the greedy policy's exact value within 1 % of the optimum."""
    transition, reward, terminal = oracles.frozen_lake()
    config, hyper = jdqn.preset("q_learning", "FrozenLake-misc")
    best, _ = oracles.value_iteration(transition, reward, terminal, hyper.discount)
    trainer = jdqn.build(config, jdqn.envs.make("FrozenLake-misc"))
    keys = jax.vmap(jax.random.key)(jnp.arange(8, dtype=jnp.uint32))
    iterations = jdqn.total_iterations(config)
    state, _ = jax.jit(jax.vmap(lambda key: jdqn.train(trainer, key, hyper, iterations)))(keys)
    tables = np.asarray(jax.tree.leaves(state.learner.params)[0])
    assert tables.shape == (8, 16, 4)
    for table in tables:
        value = oracles.policy_value(transition, reward, terminal, hyper.discount, table.argmax(-1))
        assert value[0] >= 0.99 * best[0]
        np.testing.assert_allclose(table.max(-1)[0], best[0], atol=0.05)
