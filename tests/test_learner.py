"""One gradient step against NumPy: a linear Q-network whose gradient is written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import oracles_family as family
import pytest
from test_targets import random_rows

from jdqn import heads, learner, networks, targets
from jdqn.config import Hyper
from jdqn.types import Row, Sample

STATES, ACTIONS, BATCH = 5, 3, 6


def random_sample(seed, length):
    rng = np.random.default_rng(seed)
    reward, terminated, last = random_rows(seed, length, BATCH, 0.3)
    obs = rng.normal(size=(length, BATCH, STATES)).astype(np.float32)
    action = rng.integers(0, ACTIONS, (length, BATCH))
    weight = rng.random(BATCH).astype(np.float32)
    return Sample(Row(obs, action, reward, terminated, last, ()), np.arange(BATCH), weight)


def gradient_by_hand(table, target_table, sample, discount, n, loss, double):
    """d/d table of the weighted mean loss over valid rows, for Q(s, a) = s @ table[:, a]."""
    rows = sample.rows
    returns = oracles.n_step_returns(rows.reward, rows.terminated, rows.last, discount, n)
    learnt = len(rows.reward) - n
    successor = np.zeros((learnt, BATCH, STATES))
    for t in range(learnt):
        for b in range(BATCH):
            successor[t, b] = rows.obs[returns["bootstrap"][t, b], b]
    goal = oracles.greedy_targets(returns, successor @ table, successor @ target_table, double)
    gradient, total, errors = np.zeros_like(table), 0.0, np.zeros((learnt, BATCH))
    count = returns["valid"].sum()
    for t in range(learnt):
        for b in range(BATCH):
            if returns["valid"][t, b]:
                error = goal[t, b] - rows.obs[t, b] @ table[:, rows.action[t, b]]
                slope = np.clip(error, -1, 1) if loss == "huber" else error
                share = sample.weight[b] / count
                gradient[:, rows.action[t, b]] -= share * slope * rows.obs[t, b]
                total += share * (oracles.huber(error) if loss == "huber" else 0.5 * error**2)
                errors[t, b] = abs(error)
    priority = [family.sequence_priority(errors[:, b], returns["valid"][:, b], 0.8) for b in range(BATCH)]
    return gradient, total, priority, goal[returns["valid"]].mean()


def make(n=1, target_period=3, optimizer="adam", loss="squared", double=False):
    network = networks.q_network("tabular", (STATES,), ACTIONS, heads.scalar())
    return learner.make_learner(
        network, heads.scalar(loss), targets.greedy(double), n=n, target_period=target_period, optimizer=optimizer
    )


def table_of(params):
    return np.asarray(jax.tree.leaves(params)[0], np.float64)


@pytest.mark.parametrize("clip", [0.05, 1e6])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("n", "loss", "double"), [(1, "huber", False), (3, "squared", True), (2, "huber", True)])
@pytest.mark.parametrize("period", [3, 0])
def test_updates_equal_the_loop(n, loss, double, optimizer, clip, period):
    """Seven updates: gradient, clipping, optimiser, falling learning rate, target copies, errors, metrics.

    Without a target network the table itself says what the next state is worth.
    """
    ours = make(n, period, optimizer, loss, double)
    hyper = Hyper(
        learning_rate=0.1, learning_rate_final_fraction=0.2, learning_rate_steps=50.0, max_gradient_norm=clip,
        discount=0.9, target_update_rate=0.7, optimizer_epsilon=1e-3,
        sequence_max_fraction=0.8,
    )  # fmt: skip
    state = ours.init(jax.random.key(0), jnp.zeros(STATES), hyper)
    start = np.random.default_rng(9).normal(size=(STATES, ACTIONS)).astype(np.float32)
    state = state._replace(params=jax.tree.map(lambda _: jnp.asarray(start), state.params))
    table, target_table = start.astype(np.float64), np.zeros((STATES, ACTIONS))
    first, second = np.zeros_like(table), np.zeros_like(table)
    update = jax.jit(ours.update)
    for count in range(1, 8):
        sample, ticks = random_sample(count, n + 3), 10.0 * count
        state, error, metrics = update(jax.random.key(count), state, sample, count, ticks, hyper)
        frozen = target_table if period else table
        gradient, loss_value, errors, goal = gradient_by_hand(table, frozen, sample, 0.9, n, loss, double)
        rate = 0.1 * (1 + (0.2 - 1) * min(ticks / 50.0, 1))
        (clipped,) = oracles.clip_by_global_norm([gradient], clip)
        step = rate * clipped
        if optimizer == "adam":
            step, first, second = oracles.adam_step(clipped, first, second, count, rate, epsilon=1e-3)
        table = table - step
        np.testing.assert_allclose(table_of(state.params), table, rtol=2e-4, atol=2e-5)
        if period == 0:
            assert state.target_params == ()
        elif count % 3 == 0:
            target_table = oracles.target_network(table, target_table, 0.7)
        if period:
            np.testing.assert_allclose(table_of(state.target_params), target_table, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(error, errors, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(metrics.loss, loss_value, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(metrics.grad_norm, np.linalg.norm(gradient), rtol=1e-3)
        np.testing.assert_allclose(metrics.q, goal, rtol=1e-3, atol=1e-4)


def test_a_batch_of_last_rows_teaches_nothing():
    """A last row's action and reward are void: without a valid row parameters stay, and nothing is nan."""
    ours = make(optimizer="sgd")
    state = ours.init(jax.random.key(0), jnp.zeros(STATES), Hyper())
    sample = random_sample(0, 2)
    nothing = sample._replace(rows=sample.rows._replace(last=np.ones((2, BATCH), bool)))
    after, error, metrics = ours.update(jax.random.key(1), state, nothing, 1, 0.0, Hyper(learning_rate=1.0))
    np.testing.assert_array_equal(table_of(after.params), table_of(state.params))
    assert (np.asarray(error) == 0).all()
    assert all(float(x) == 0 for x in metrics)


def test_what_a_last_row_holds_does_not_matter():
    """Scrambling the void fields of last rows changes no parameter."""
    ours, hyper = make(n=2), Hyper()
    state = ours.init(jax.random.key(0), jnp.zeros(STATES), hyper)
    sample = random_sample(5, 6)
    last = sample.rows.last
    assert last.any()
    scrambled = sample.rows._replace(
        reward=np.where(last, 1e3, sample.rows.reward).astype(np.float32),
        action=np.where(last, (sample.rows.action + 1) % ACTIONS, sample.rows.action),
        terminated=np.where(last, True, sample.rows.terminated),
    )
    one = ours.update(jax.random.key(1), state, sample, 1, 0.0, hyper)[0]
    two = ours.update(jax.random.key(1), state, sample._replace(rows=scrambled), 1, 0.0, hyper)[0]
    np.testing.assert_array_equal(table_of(one.params), table_of(two.params))
