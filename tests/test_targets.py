"""n-step returns and greedy targets against slow loops written from the definitions."""

import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdqn import heads, targets


def random_rows(seed, length, batch, end_share):
    """Rows with random ends: terminations and time limits alike."""
    rng = np.random.default_rng(seed)
    last = np.zeros((length, batch), bool)
    last[0] = rng.random(batch) < 0.1
    terminated = np.zeros((length, batch), bool)
    for t in range(length - 1):
        ends = (rng.random(batch) < end_share) & ~last[t]
        terminated[t] = ends & (rng.random(batch) < 0.5)
        last[t + 1] = ends
    return rng.normal(size=(length, batch)).astype(np.float32), terminated, last


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 5), st.sampled_from([0.0, 0.2, 0.6]))
def test_n_step_equals_the_loop(seed, n, extra, end_share):
    reward, terminated, last = random_rows(seed, n + 1 + extra, 5, end_share)
    ours = targets.n_step(*map(jnp.asarray, (reward, terminated, last)), 0.9, n)
    theirs = oracles.n_step_returns(reward, terminated, last, 0.9, n)
    for name, value in ours._asdict().items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("double", [False, True])
def test_greedy_equals_the_loop(double):
    reward, terminated, last = random_rows(3, 40, 5, 0.2)
    returns = targets.n_step(*map(jnp.asarray, (reward, terminated, last)), 0.9, 3)
    online, target = np.random.default_rng(0).normal(size=(2, *returns.valid.shape, 4)).astype(np.float32)
    outputs = targets.Outputs(None, None, jnp.asarray(online)[..., None], jnp.asarray(target)[..., None])
    ours = targets.greedy(double)(heads.scalar(), None, outputs, None, returns).mean()
    theirs = oracles.greedy_targets(oracles.n_step_returns(reward, terminated, last, 0.9, 3), online, target, double)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
