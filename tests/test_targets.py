"""n-step returns and greedy targets against slow loops written from the definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import oracles_family as family
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from jdqn import heads, targets
from jdqn.config import Hyper


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


def transitions(seed, size=200, actions=4):
    """Single transitions, some of them terminal, as one-step returns of two rows."""
    rng = np.random.default_rng(seed)
    terminated = np.zeros((2, size), bool)
    terminated[0] = rng.random(size) < 0.3
    last = np.zeros((2, size), bool)
    last[1] = terminated[0] | (rng.random(size) < 0.2)  # some are time limits
    reward = rng.normal(size=(2, size)).astype(np.float32)
    now, online, target = rng.normal(size=(3, size, actions)).astype(np.float32)
    action = rng.integers(0, actions, size)
    return reward, terminated, last, action, now, online, target


@pytest.mark.parametrize("double", [False, True])
def test_td_errors_equal_rlax(double):
    reward, terminated, last, action, now, online, target = transitions(0)
    returns = targets.n_step(*map(jnp.asarray, (reward, terminated, last)), 0.97, 1)
    outputs = targets.Outputs(None, None, jnp.asarray(online)[None, ..., None], jnp.asarray(target)[None, ..., None])
    goal = targets.greedy(double)(heads.scalar(), None, outputs, None, returns)
    loss, error = heads.scalar("huber").loss(jnp.asarray(now)[None, ..., None], jnp.asarray(action)[None], goal)
    discount = 0.97 * ~terminated[0]
    if double:
        theirs = jax.vmap(rlax.double_q_learning)(now, action, reward[0], discount, target, online)
    else:
        theirs = jax.vmap(rlax.q_learning)(now, action, reward[0], discount, target)
    np.testing.assert_allclose(error[0], np.abs(theirs), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(loss[0], rlax.huber_loss(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Rlax")
def test_double_c51_equals_rlax():
    """The target rule and the head together: the online network chooses, the target network's atoms are projected."""
    reward, terminated, last, action, *_ = transitions(1)
    head, support = heads.categorical(-2.0, 2.0, 11), jnp.linspace(-2.0, 2.0, 11)
    now, online, target = np.random.default_rng(2).normal(size=(3, 200, 4, 11)).astype(np.float32)
    returns = targets.n_step(*map(jnp.asarray, (reward, terminated, last)), 0.97, 1)
    outputs = targets.Outputs(None, None, jnp.asarray(online)[None], jnp.asarray(target)[None])
    goal = targets.greedy(double=True)(head, None, outputs, None, returns)
    loss, _ = head.loss(jnp.asarray(now)[None], jnp.asarray(action)[None], goal)
    over = jax.jit(jax.vmap(rlax.categorical_double_q_learning, (None, 0, 0, 0, 0, None, 0, 0)))
    discount, chooser = np.float32(0.97) * ~terminated[0], jax.nn.softmax(online) @ support
    theirs = over(support, now, action, reward[0], discount, support, target, chooser)
    np.testing.assert_allclose(loss[0], theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_rescaled_n_step_errors_equal_rlax(double):
    """R2D2's: h of what the rewards and h^-1 of the bootstrap value come to; rlax in float64, as its h^-1 needs.

    Two episodes of eight steps, of which the first is terminated and the second meets a time limit.
    """
    rng, steps, n, head = np.random.default_rng(4), 8, 3, heads.scalar(value_rescaling=True)
    reward = rng.normal(scale=5.0, size=(steps + n + 1, 2)).astype(np.float32)
    now, online, target = rng.normal(scale=3.0, size=(3, steps + n + 1, 2, 4)).astype(np.float32)
    action = rng.integers(0, 4, (steps + n + 1, 2))
    terminated, last = np.zeros((2, steps + n + 1, 2), bool)
    terminated[steps - 1, 0], last[steps] = True, True
    returns = targets.n_step(*map(jnp.asarray, (reward, terminated, last)), 0.9, n)
    at = np.asarray(returns.bootstrap)[..., None]
    outputs = targets.Outputs(None, None, *(jnp.take_along_axis(x, at, 0)[..., None] for x in (online, target)))
    goal = targets.greedy(double)(head, None, outputs, None, returns)
    _, error = head.loss(jnp.asarray(now)[: steps + 1, ..., None], jnp.asarray(action)[: steps + 1], goal)
    best = (online if double else target).argmax(-1)
    whole = functools.partial(rlax.transformed_n_step_q_learning, n=n, tx_pair=rlax.SIGNED_HYPERBOLIC_PAIR)
    now, target, reward, discount = (np.float64(x) for x in (now, target, reward, 0.9 * ~terminated))
    here, following = slice(steps), slice(1, steps + 1)
    with jax.enable_x64(True):
        theirs = jax.jit(jax.vmap(whole, 1, 1))(
            now[here], action[here], target[following], best[following], reward[here], discount[here]
        )
    np.testing.assert_allclose(error[:steps], np.abs(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_n_step_equals_rlax(n):
    """Inside one episode, terminated or not; rlax shortens windows at the end of its sequence as well."""
    rng = np.random.default_rng(n)
    length = 12
    reward, values = rng.normal(size=(2, length + n)).astype(np.float32)
    terminated = np.zeros((length + n, 1), bool)
    last = np.zeros((length + n, 1), bool)
    terminated[7], last[8] = True, True
    ours = targets.n_step(jnp.asarray(reward)[:, None], jnp.asarray(terminated), jnp.asarray(last), 0.9, n)
    goal = ours.reward[:, 0] + ours.discount[:, 0] * values[np.asarray(ours.bootstrap)[:, 0]]
    discounts = 0.9 * ~terminated[:8, 0]
    theirs = rlax.n_step_bootstrapped_returns(reward[:8], jnp.asarray(discounts, jnp.float32), values[1:9], n)
    np.testing.assert_allclose(goal[:8], theirs, rtol=1e-5, atol=1e-5)


def distributional(head, seed, shape=(37, 5), actions=3):
    """Two random network outputs of `head` [U, B, A, size]."""
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.normal(size=(*shape, actions, head.size)), jnp.float32) for _ in range(2))


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize(
    "head",
    [heads.scalar(), heads.quantile(4), heads.categorical(-2.0, 2.0, 5)],
    ids=["scalar", "quantile", "categorical"],
)
def test_munchausen_equals_the_loop(head, mixture):
    reward, terminated, last = random_rows(3, 40, 5, 0.2)
    returns = targets.n_step(*map(jnp.asarray, (reward, terminated, last)), 0.9, 3)
    now, following = distributional(head, 1)
    action = np.random.default_rng(2).integers(0, 3, returns.valid.shape)
    hyper = Hyper(munchausen_scale=0.8, munchausen_temperature=0.3, munchausen_floor=-0.5)
    ours = targets.munchausen(mixture)(head, hyper, targets.Outputs(None, now, None, following), action, returns)
    q_now, atoms = np.asarray(head.atoms(now).mean(), np.float64), head.atoms(following)
    for t, b in np.ndindex(*returns.valid.shape):
        value, weight = family.munchausen_target(
            float(returns.reward[t, b]), float(returns.discount[t, b]), action[t, b], q_now[t, b],
            np.asarray(atoms.value[t, b]), np.asarray(atoms.weight[t, b]), 0.8, 0.3, -0.5, mixture or not head.aligned,
        )  # fmt: skip
        np.testing.assert_allclose(ours.value[t, b], value, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ours.weight[t, b], weight, rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.65, 1.0]), st.sampled_from([0.0, 0.2, 0.6]))
def test_lambda_returns_equal_the_loop(seed, decay, end_share):
    """Q(lambda) as an explicit sum forward in time, with terminations and time limits inside the rollout."""
    length, batch = 12, 4
    reward, terminated, last = random_rows(seed, length, batch, end_share)
    returns = targets.n_step(*map(jnp.asarray, (reward, terminated, last)), 0.9, 1)
    rng = np.random.default_rng(seed)
    following = jnp.asarray(rng.normal(size=(length - 1, batch, 3, 1)), jnp.float32)
    outputs = targets.Outputs(None, None, None, following)
    ours = targets.lambda_returns()(heads.scalar(), Hyper(trace_decay=decay), outputs, None, returns).mean()
    best = np.asarray(following)[..., 0].max(-1)
    theirs = family.q_lambda_targets(reward[:-1], terminated[:-1], last, best, 0.9, decay)
    valid = ~last[:-1]
    np.testing.assert_allclose(np.asarray(ours)[valid], theirs[valid], rtol=1e-4, atol=1e-5)


def test_lambda_returns_equal_rlax():
    """Within one episode that goes on, rlax's Peng's Q(lambda)."""
    rng = np.random.default_rng(0)
    reward = rng.normal(size=(9, 1)).astype(np.float32)
    nothing = jnp.zeros((9, 1), bool)
    returns = targets.n_step(jnp.asarray(reward), nothing, nothing, 0.9, 1)
    following = jnp.asarray(rng.normal(size=(8, 1, 3, 1)), jnp.float32)
    outputs = targets.Outputs(None, None, None, following)
    ours = targets.lambda_returns()(heads.scalar(), Hyper(trace_decay=0.7), outputs, None, returns).mean()
    best = following[:, 0, :, 0].max(-1)
    theirs = rlax.lambda_returns(reward[:8, 0], jnp.full(8, 0.9), best, 0.7)
    np.testing.assert_allclose(ours[:, 0], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("limits", [False, True])
def test_lambda_errors_equal_rlax(limits):
    """With ends inside the rollout. rlax has no time limits: there lambda is 0, as in Watkins' Q(lambda).

    The void rows take part in rlax's recursion, but nothing flows out of them: discount or lambda is 0 before.
    """
    reward, terminated, last = random_rows(11, 40, 5, 0.2)
    if not limits:
        last[1:] = terminated[:-1]
    assert terminated.any()
    assert (last[1:] & ~terminated[:-1]).any() == limits
    returns = targets.n_step(*map(jnp.asarray, (reward, terminated, last)), 0.9, 1)
    now, following = np.random.default_rng(5).normal(size=(2, 39, 5, 3)).astype(np.float32)
    action = np.random.default_rng(6).integers(0, 3, (39, 5))
    outputs = targets.Outputs(None, None, None, jnp.asarray(following)[..., None])
    goal = targets.lambda_returns()(heads.scalar(), Hyper(trace_decay=0.7), outputs, None, returns)
    _, error = heads.scalar().loss(jnp.asarray(now)[..., None], jnp.asarray(action), goal)
    discount = np.float32(0.9) * ~terminated[:-1]
    decay = np.float32(0.7) * ~last[1:] if limits else 0.7
    over = jax.jit(jax.vmap(rlax.q_lambda, (1, 1, 1, 1, 1, 1 if limits else None), 1))
    theirs = over(now, action, reward[:-1], discount, following, decay)
    valid = ~last[:-1]
    np.testing.assert_allclose(error[valid], np.abs(theirs)[valid], rtol=1e-4, atol=1e-5)
