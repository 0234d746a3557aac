"""Exploration: the schedules against the oracles, the choices by their frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import oracles_family as family
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdqn.config import Hyper
from jdqn.exploration import epsilon_greedy, ladder, member, softmax

ENVS, A = 40_000, 5
RULE = epsilon_greedy()
CHI_SQUARE_999 = {3: 16.27, 4: 18.47}  # one honest sample in a thousand is above, by degrees of freedom

share = st.floats(0, 1, width=32)


@settings(deadline=None, max_examples=100)
@given(share, share, st.integers(1, 2**24), st.lists(st.floats(0, 3), min_size=1, max_size=5))
def test_the_schedule_equals_the_oracle(start, end, steps, progress):
    hyper = Hyper(epsilon_start=start, epsilon_end=end, epsilon_steps=float(steps))
    for ticks in [0, steps, *(int(p * steps) for p in progress)]:
        ours = RULE.epsilon(jnp.float32(ticks), 3, hyper)
        assert ours.shape == (3,)
        np.testing.assert_allclose(ours, oracles.epsilon(ticks, start, end, steps), rtol=1e-5, atol=1e-6)


def choose(epsilon, seed):
    """(values [E, A], actions [E]) of many environments at once, each with values of its own."""
    values = np.random.default_rng(seed).normal(size=(ENVS, A)).astype(np.float32)
    memory = RULE.init(jax.random.key(1000 + seed), ENVS)
    last = np.zeros(ENVS, bool)
    action, after = jax.jit(RULE.select)(
        jax.random.key(seed), memory, values[:, None], last, np.broadcast_to(np.float32(epsilon), ENVS), Hyper()
    )
    assert after == memory
    assert (action.shape, action.dtype) == ((ENVS,), jnp.int32)
    return values, np.asarray(action)


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return ((counts - expected) ** 2 / expected).sum()


def test_epsilon_one_is_uniform_whatever_the_values():
    values, action = choose(1.0, 0)
    assert chi_square(np.bincount(action, minlength=A)) < CHI_SQUARE_999[A - 1]
    rank = (values > values[np.arange(ENVS), action, None]).sum(-1)
    assert chi_square(np.bincount(rank, minlength=A)) < CHI_SQUARE_999[A - 1]


def test_epsilon_zero_is_greedy():
    values, action = choose(0.0, 1)
    np.testing.assert_array_equal(action, values.argmax(-1))


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.9])
def test_in_between_the_best_action_has_its_share(epsilon):
    """1 - epsilon + epsilon / A for the best, and the rest is equally likely."""
    values, action = choose(epsilon, 2)
    best = values.argmax(-1)
    expected = 1 - epsilon + epsilon / A
    deviation = (expected * (1 - expected) / ENVS) ** 0.5
    assert abs((action == best).mean() - expected) < 3.3 * deviation
    others = (action - best)[action != best] % A
    assert chi_square(np.bincount(others - 1, minlength=A - 1)) < CHI_SQUARE_999[A - 2]


def test_every_environment_has_an_epsilon_of_its_own():
    values, action = choose(np.arange(ENVS) % 2, 3)
    greedy = action == values.argmax(-1)
    assert greedy[::2].all()
    assert abs(greedy[1::2].mean() - 1 / A) < 0.02


@pytest.mark.parametrize("envs", [1, 2, 8, 256])
def test_the_ladder_equals_the_oracle_and_never_changes(envs):
    hyper = Hyper(ladder_base=0.3, ladder_exponent=5.0)
    for ticks in (0.0, 1e6):
        np.testing.assert_allclose(ladder(ticks, envs, hyper), family.ladder(0.3, 5.0, envs), rtol=1e-5)


def test_softmax_draws_in_proportion():
    rule, values = softmax(), jnp.array([0.0, 0.1, -0.2, 0.05, 0.3])
    hyper = Hyper(softmax_temperature=0.2)
    many = jnp.broadcast_to(values, (ENVS, 1, A))
    action, _ = rule.select(jax.random.key(0), (), many, np.zeros(ENVS, bool), jnp.zeros(ENVS), hyper)
    expected = np.exp(np.asarray(values) / 0.2) / np.exp(np.asarray(values) / 0.2).sum()
    np.testing.assert_allclose(np.bincount(action, minlength=A) / ENVS, expected, atol=0.01)
    anything, _ = rule.select(jax.random.key(1), (), many, np.zeros(ENVS, bool), jnp.ones(ENVS), hyper)
    assert chi_square(np.bincount(anything, minlength=A)) < CHI_SQUARE_999[A - 1]


def test_a_member_is_followed_until_the_episode_ends():
    members = 3
    rule = member(members)
    memory = rule.init(jax.random.key(0), ENVS)
    assert set(np.unique(memory)) == set(range(members))
    values = np.random.default_rng(0).normal(size=(ENVS, members, A)).astype(np.float32)
    last = np.arange(ENVS) % 4 == 0
    action, after = rule.select(jax.random.key(1), memory, values, last, np.zeros(ENVS, np.float32), Hyper())
    np.testing.assert_array_equal(action, values[np.arange(ENVS), np.asarray(memory)].argmax(-1))
    np.testing.assert_array_equal(after[~last], memory[~last])
    table = np.zeros((members, members))
    np.add.at(table, (np.asarray(memory)[last], np.asarray(after)[last]), 1)  # the next one does not know the last one
    np.testing.assert_allclose(table / table.sum(), 1 / members**2, atol=0.015)
