"""Heads against loops written from the papers, and against rlax where it has the function."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import oracles_family as family
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from jdqn import heads
from jdqn.types import Atoms

BATCH, ACTIONS, LOW, HIGH = 6, 3, -2.0, 3.0


def random_atoms(seed, size, spread=3.0):
    rng = np.random.default_rng(seed)
    weight = rng.random((BATCH, size)) + 1e-3
    weight /= weight.sum(-1, keepdims=True)
    return Atoms(*(jnp.asarray(x, jnp.float32) for x in (rng.normal(scale=spread, size=(BATCH, size)), weight)))


def outputs(seed, size):
    rng = np.random.default_rng(seed + 1)
    return jnp.asarray(rng.normal(size=(BATCH, ACTIONS, size)), jnp.float32), rng.integers(0, ACTIONS, BATCH)


@pytest.mark.parametrize("loss", ["huber", "squared"])
@pytest.mark.parametrize("value_rescaling", [False, True])
def test_scalar(loss, value_rescaling):
    head, target = heads.scalar(loss, value_rescaling), random_atoms(0, 4, spread=20.0)
    out, action = outputs(0, 1)
    losses, errors = head.loss(out, action, target)
    atoms = head.atoms(out)
    for b in range(BATCH):
        goal = (np.asarray(target.value[b], np.float64) * np.asarray(target.weight[b])).sum()
        goal = family.value_rescale(goal) if value_rescaling else goal
        error = goal - float(out[b, action[b], 0])
        np.testing.assert_allclose(errors[b], abs(error), rtol=1e-4, atol=1e-5)
        expected = oracles.huber(error) if loss == "huber" else 0.5 * error**2
        np.testing.assert_allclose(losses[b], expected, rtol=1e-3, atol=1e-5)
        for a in range(ACTIONS):
            said = float(out[b, a, 0])
            expected = family.value_unscale(said) if value_rescaling else said
            np.testing.assert_allclose(atoms.mean()[b, a], expected, rtol=1e-5, atol=1e-6)


def test_rescaling_equals_rlax():
    """rlax in float64: its inverse is the textbook form, which loses its digits near zero in float32."""
    size = np.concatenate([[0.0], np.logspace(-4, 4, 200)]).astype(np.float32)
    x = np.concatenate([-size, size])
    with jax.enable_x64(True):
        there, back = (np.asarray(f(x.astype(np.float64))) for f in rlax.SIGNED_HYPERBOLIC_PAIR)
    np.testing.assert_allclose(heads.rescale(jnp.asarray(x)), there, rtol=1e-5)
    np.testing.assert_allclose(heads.unscale(jnp.asarray(x)), back, rtol=1e-5)


@settings(deadline=None, max_examples=200)
@given(st.floats(-1e4, 1e4, width=32))
def test_rescaling_keeps_its_digits(x):
    """Near zero too, where the textbook inverse loses four in a hundred in float32."""
    np.testing.assert_allclose(heads.rescale(jnp.float32(x)), family.value_rescale(x), rtol=1e-5, atol=1e-30)
    y = family.value_rescale(x)
    np.testing.assert_allclose(
        heads.unscale(jnp.float32(y)), family.value_unscale(np.float32(y)), rtol=1e-5, atol=1e-30
    )


@pytest.mark.parametrize("size", [2, 11, 51])
@pytest.mark.parametrize("kind", ["categorical", "hl_gauss"])
def test_bins(kind, size):
    head, target = getattr(heads, kind)(LOW, HIGH, size), random_atoms(size, 7)
    out, action = outputs(size, size)
    losses, errors = head.loss(out, action, target)
    support = np.linspace(LOW, HIGH, size)
    for b in range(BATCH):
        value, weight = np.asarray(target.value[b], np.float64), np.asarray(target.weight[b], np.float64)
        if kind == "categorical":
            goal = family.categorical_projection(value, weight, LOW, HIGH, size)
        else:
            goal = family.hl_gauss_target((value * weight).sum(), LOW, HIGH, size, 0.75)
        logits = np.asarray(out[b, action[b]], np.float64)
        np.testing.assert_allclose(losses[b], family.cross_entropy(goal, logits), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(errors[b], family.kl_divergence(goal, logits), rtol=1e-3, atol=1e-4)
        probability = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(head.atoms(out).mean()[b, action[b]], support @ probability, rtol=1e-4, atol=1e-5)


def test_an_atom_on_the_support_keeps_its_mass():
    """The published off-by-one of C51: where floor and ceil agree, nothing may be lost."""
    support = jnp.linspace(LOW, HIGH, 51)
    out = jnp.zeros((51, 1, 51))
    target = Atoms(support[:, None], jnp.ones((51, 1)))
    sharp = out.at[jnp.arange(51), 0, jnp.arange(51)].set(100.0)
    losses, _ = heads.categorical(LOW, HIGH).loss(sharp, jnp.zeros(51, jnp.int32), target)
    np.testing.assert_allclose(losses, 0.0, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Rlax")
def test_c51_equals_rlax():
    head, size = heads.categorical(LOW, HIGH, 21), 21
    out, action = outputs(3, size)
    nxt, _ = outputs(4, size)
    support = jnp.linspace(LOW, HIGH, size)
    reward, discount = np.random.default_rng(5).normal(size=(2, BATCH)).astype(np.float32)
    best = head.atoms(nxt).mean().argmax(-1)
    atoms = jax.tree.map(lambda x: heads.pick(x, best), head.atoms(nxt))
    target = Atoms(reward[:, None] + discount[:, None] * atoms.value, atoms.weight)
    ours, _ = head.loss(out, action, target)
    over = jax.vmap(rlax.categorical_q_learning, (None, 0, 0, 0, 0, None, 0))
    theirs = over(support, out, action, reward, discount, support, nxt)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "targets"), [(1, 1), (5, 5), (8, 3)])
def test_quantiles(size, targets):
    head, target = heads.quantile(size), random_atoms(size, targets)
    out, action = outputs(size, size)
    losses, errors = head.loss(out, action, target)
    fraction = (np.arange(size) + 0.5) / size
    for b in range(BATCH):
        value = np.asarray(out[b, action[b]], np.float64)
        goal, weight = np.asarray(target.value[b], np.float64), np.asarray(target.weight[b], np.float64)
        expected = family.quantile_huber_loss(value, fraction, goal, weight, 1.0)
        np.testing.assert_allclose(losses[b], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(errors[b], abs((goal * weight).sum() - value.mean()), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head.atoms(out).mean(), out.mean(-1), rtol=1e-5, atol=1e-6)


def test_qrdqn_equals_rlax():
    """rlax too sums over the predicted quantiles and averages over the target's, as the paper does."""
    size = 9
    head, (out, action), (nxt, _) = heads.quantile(size), outputs(0, size), outputs(1, size)
    reward, discount = np.random.default_rng(2).normal(size=(2, BATCH)).astype(np.float32)
    best = head.atoms(nxt).mean().argmax(-1)
    target = Atoms(reward[:, None] + discount[:, None] * heads.pick(nxt, best), jnp.full((BATCH, size), 1 / size))
    ours, _ = head.loss(out, action, target)
    fraction = jnp.broadcast_to((jnp.arange(size) + 0.5) / size, (BATCH, size))
    transposed = out.swapaxes(-1, -2), nxt.swapaxes(-1, -2)
    over = jax.vmap(rlax.quantile_q_learning, (0, 0, 0, 0, 0, 0, 0, None))
    theirs = over(transposed[0], fraction, action, reward, discount, transposed[1], transposed[1], 1.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


QUANTILE_HEADS = ["quantile", "implicit_quantile", "parameterised_quantile"]


def quantile_head(kind, kappa, size=5):
    """(head, its network output as a function of values [B, A, size], fractions [B, size]), as `Config.head` names it.

    Fractions are midpoints (QR-DQN), any (IQN), or proposed, between edges that have a loss of their own (FQF).
    """
    rng = np.random.default_rng(7)
    if kind == "quantile":
        return heads.quantile(size, kappa), lambda value: value, np.tile((np.arange(size) + 0.5) / size, (BATCH, 1))
    if kind == "implicit_quantile":
        fraction, weight, edges = rng.random((BATCH, size)), np.full((BATCH, size), 1 / size), ()
    else:
        proposed = [family.fqf_fractions(logits) for logits in rng.normal(size=(BATCH, size))]
        edge, fraction, weight = (jnp.asarray(x, jnp.float32) for x in map(np.stack, zip(*proposed, strict=True)))
        edges = edge, jnp.asarray(rng.normal(size=(BATCH, ACTIONS, size - 1)), jnp.float32)
    fraction, weight = (jnp.asarray(x, jnp.float32) for x in (fraction, weight))
    return heads.implicit_quantile(kappa), lambda value: heads.Quantiles(value, fraction, weight, edges), fraction


@pytest.mark.parametrize("kappa", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", QUANTILE_HEADS)
def test_quantile_gradients_equal_differences_of_the_published_loss(kind, kappa):
    """The gradient is written out by hand in heads.py; here the loop's own, by central differences in float64."""
    head, network_output, fraction = quantile_head(kind, kappa)
    (value, action), target = outputs(6, 5), random_atoms(8, 7, spread=2.0)

    def loss(value):
        losses, _ = head.loss(network_output(value), action, target)
        return losses.sum(), losses

    slope, losses = jax.jit(jax.grad(loss, has_aux=True))(value)
    expected, step, beyond = np.zeros(value.shape), 1e-5, []
    for b in range(BATCH):
        goal, weight = np.asarray(target.value[b], np.float64), np.asarray(target.weight[b], np.float64)
        mine = np.asarray(value[b, action[b]], np.float64)
        beyond.append(np.abs(goal - mine[:, None]) > kappa)
        if kind != "parameterised_quantile":  # to whose loss that of the edges is added
            published = family.quantile_huber_loss(mine, fraction[b], goal, weight, kappa)
            np.testing.assert_allclose(losses[b], published, rtol=1e-4, atol=1e-5)
        for i, at in enumerate(step * np.eye(mine.size)):
            above, below = (
                family.quantile_huber_loss(x, fraction[b], goal, weight, kappa) for x in (mine + at, mine - at)
            )
            expected[b, action[b], i] = (above - below) / (2 * step)
    assert 0.1 < np.mean(beyond) < 0.9  # errors of both kinds
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "kappa"), list(zip(QUANTILE_HEADS, [1.0, 0.5, 2.0], strict=True)))
def test_quantile_gradients_equal_rlax(kind, kappa):
    """rlax has equal weights alone, and does not divide by kappa: nor does QR-DQN, but IQN and FQF do."""
    head, network_output, fraction = quantile_head(kind, kappa)
    (value, action), goal = outputs(6, 5), random_atoms(8, 7, spread=2.0).value
    target = Atoms(goal, jnp.full(goal.shape, 1 / goal.shape[-1]))

    def theirs(value):
        over = jax.vmap(lambda *row: rlax.quantile_regression_loss(*row, huber_param=kappa))
        return over(heads.pick(value, action), fraction, goal).sum() / kappa

    ours = jax.jit(jax.grad(lambda value: head.loss(network_output(value), action, target)[0].sum()))(value)
    np.testing.assert_allclose(ours, jax.jit(jax.grad(theirs))(value), rtol=1e-4, atol=1e-6)


def test_implicit_quantiles_weigh_and_score_their_own_fractions():
    rng = np.random.default_rng(0)
    head, target = heads.implicit_quantile(), random_atoms(1, 5)
    value, action = outputs(2, 4)
    fraction = rng.random((BATCH, 4)).astype(np.float32)
    weight = rng.random((BATCH, 4)).astype(np.float32)
    weight /= weight.sum(-1, keepdims=True)
    out = heads.Quantiles(value, jnp.asarray(fraction), jnp.asarray(weight))
    losses, errors = head.loss(out, action, target)
    for b in range(BATCH):
        goal = np.asarray(target.value[b], np.float64), np.asarray(target.weight[b], np.float64)
        mine = np.asarray(value[b, action[b]], np.float64)
        expected = family.quantile_huber_loss(mine, fraction[b], *goal, 1.0)
        np.testing.assert_allclose(losses[b], expected, rtol=1e-4, atol=1e-5)
        error = (goal[0] * goal[1]).sum() - (mine * weight[b]).sum()
        np.testing.assert_allclose(errors[b], abs(error), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(head.atoms(out).mean()[b, action[b]], (mine * weight[b]).sum(), rtol=1e-4, atol=1e-5)


def test_proposed_edges_follow_the_wasserstein_gradient():
    """d loss / d edge is FQF's Proposition 1, and values learn from the quantile loss alone."""
    head, size = heads.implicit_quantile(), 5
    value, action = outputs(3, size)
    at_edge, _ = outputs(4, size - 1)
    target = random_atoms(5, size)
    edge, middle, width = (
        jnp.asarray([x] * BATCH, jnp.float32) for x in family.fqf_fractions(np.array([0.1, 0.5, -0.3, 0.0, 0.2]))
    )

    def loss(edge, value, edges=True):
        return head.loss(heads.Quantiles(value, middle, width, (edge, at_edge) if edges else ()), action, target)[
            0
        ].sum()

    slope, with_edges = jax.grad(loss, (0, 1))(edge, value)
    without = jax.grad(lambda v: loss(edge, v, edges=False))(value)
    np.testing.assert_allclose(with_edges, without, rtol=1e-5, atol=1e-6)
    for b in range(BATCH):
        expected = family.fqf_fraction_gradient(value[b, action[b]], at_edge[b, action[b]])
        np.testing.assert_allclose(slope[b], expected, rtol=1e-4, atol=1e-5)
