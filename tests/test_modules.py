"""Layers against loops written from the papers: noisy layers, sampled and proposed fractions, cores, priors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles_family as family
import pytest
from flax import linen as nn

from jdqn import heads, modules, networks, products

T, B, F = 2, 3, 6


def features(seed=0, shape=(T, B, F)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_noisy_layers_have_the_published_moments():
    """Mean and variance over draws, row by row; and every row draws for itself."""
    layer, rows = modules.NoisyDense(4, sigma=0.7, apart=True), 60_000
    x = features()[0, 0]
    params = layer.init(jax.random.key(0), x[None])
    p = {name: np.asarray(value, np.float64) for name, value in params["params"].items()}
    bound = F**-0.5
    assert (np.abs(p["kernel"]) <= bound).all()
    np.testing.assert_allclose(p["kernel_spread"], 0.7 * bound, rtol=1e-6)
    out = layer.apply(params, jnp.broadcast_to(x, (rows, F)), rngs={"noise": jax.random.key(1)})
    mean, variance = family.noisy_dense_moments(
        np.asarray(x, np.float64), p["kernel"], p["bias"], p["kernel_spread"], p["bias_spread"]
    )
    np.testing.assert_allclose(out.mean(0), mean, atol=5 * np.sqrt(variance.max() / rows))
    np.testing.assert_allclose(out.var(0), variance, rtol=0.05)
    np.testing.assert_allclose(layer.apply(params, x[None])[0], mean, rtol=1e-4, atol=1e-5)  # no key, no noise


def test_noise_is_factorised():
    """With the noise that it drew, a row is the paper's formula: one factor per input times one per output."""
    layer, x = modules.NoisyDense(4), features()[0, :1]
    params = layer.init(jax.random.key(0), x)
    p = {name: np.asarray(value, np.float64) for name, value in params["params"].items()}
    out = layer.apply(params, x, rngs={"noise": jax.random.key(1)})
    noise = np.asarray(out - layer.apply(params, x), np.float64)[0]

    def spread_only(name):
        only = {"params": {k: v if k == name else jnp.zeros_like(v) for k, v in params["params"].items()}}
        return np.asarray(layer.apply(only, x, rngs={"noise": jax.random.key(1)}), np.float64)[0]

    f_out = spread_only("bias_spread") / p["bias_spread"]
    f_in = spread_only("kernel_spread") / f_out / p["kernel_spread"][0]  # sum_i x_i f(e_i), whatever the output
    np.testing.assert_allclose(f_in, f_in[0], rtol=1e-3)
    expected = p["kernel_spread"][0] * f_in[0] * f_out + p["bias_spread"] * f_out
    np.testing.assert_allclose(noise, expected, rtol=1e-3, atol=1e-5)


def test_cosines():
    x = np.linspace(-3, 64, 100_001, dtype=np.float32)
    np.testing.assert_allclose(modules.cos_pi(x), np.cos(np.pi * x.astype(np.float64)), atol=2e-7)


@pytest.mark.parametrize("apart", [False, True])
def test_a_batch_shares_its_noise_unless_rows_explore_apart(apart):
    """Rows [T, B] of equal features; the fractions of a row always share its noise."""
    layer, x = modules.NoisyDense(4, apart=apart), jnp.broadcast_to(features()[0, 0], (T, B, 5, F))
    params = layer.init(jax.random.key(0), x)
    out = np.asarray(layer.apply(params, x, rngs={"noise": jax.random.key(1)}))
    np.testing.assert_allclose(out, np.broadcast_to(out[:, :, :1], out.shape), rtol=1e-5, atol=1e-6)
    assert len(np.unique(out[:, :, 0].reshape(-1, 4).round(4), axis=0)) == (T * B if apart else 1)


class Readout(nn.Module):
    """A linear output of two actions."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x)[..., None]


def test_fractions_are_embedded_as_published():
    layer, x = modules.ImplicitQuantiles(Readout(), 5), features()
    params = layer.init(jax.random.key(0), x)
    out = layer.apply(params, x, rngs={"fractions": jax.random.key(1)})
    assert out.value.shape == (T, B, 2, 5)
    assert ((out.fraction > 0) & (out.fraction < 1)).all()
    assert len(np.unique(out.fraction)) == out.fraction.size
    np.testing.assert_allclose(out.weight, 0.2)
    p = params["params"]
    cosine, last = p["values"]["Dense_0"], p["last"]["Dense_0"]
    for t, b, n in np.ndindex(T, B, 5):
        phi = family.implicit_embedding(
            float(out.fraction[t, b, n]), np.asarray(cosine["kernel"]), np.asarray(cosine["bias"])
        )
        expected = (np.asarray(x[t, b]) * phi) @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
        np.testing.assert_allclose(out.value[t, b, :, n], expected, rtol=1e-3, atol=1e-4)
    spread = layer.apply(params, x).fraction  # without a key: the midpoints
    np.testing.assert_allclose(spread, np.broadcast_to((np.arange(5) + 0.5) / 5, (T, B, 5)), rtol=1e-6)


def test_proposed_fractions_are_a_partition_and_stay_out_of_the_torso():
    layer, x = modules.ProposedQuantiles(Readout(), 4, rate=1.0), features()
    params = layer.init(jax.random.key(0), x)
    out = layer.apply(params, x)
    p = params["params"]["Dense_0"]
    for t, b in np.ndindex(T, B):
        edges, middles, widths = family.fqf_fractions(np.asarray(x[t, b] @ p["kernel"] + p["bias"], np.float64))
        np.testing.assert_allclose(out.edges[0][t, b], edges, rtol=1e-4)
        np.testing.assert_allclose(out.fraction[t, b], middles, rtol=1e-4)
        np.testing.assert_allclose(out.weight[t, b], widths, rtol=1e-4)

    def edges_of(x, params):
        return (layer.apply(params, x).edges[0] * features(1, (T, B, 3))).sum()

    into_x, into_params = jax.grad(edges_of, (0, 1))(x, params)
    assert not into_x.any()
    assert into_params["params"]["Dense_0"]["kernel"].any()

    def values_of(params):
        return layer.apply(params, x).value.sum()

    assert not jax.grad(values_of)(params)["params"]["Dense_0"]["kernel"].any()  # values do not move the proposal


@pytest.mark.parametrize("apart", [False, True])
def test_middles_and_edges_of_proposed_fractions_see_the_same_noise(apart):
    """With an embedding of zero a value does not depend on its fraction; with two draws of noise it would."""
    last = modules.Plain(0, 2, 1, dense=functools.partial(modules.NoisyDense, apart=apart))
    layer, x = modules.ProposedQuantiles(last, 4), features()
    params = layer.init(jax.random.key(0), x)
    cosine = params["params"]["values"]["Dense_0"]
    cosine.update(kernel=jnp.zeros_like(cosine["kernel"]), bias=jnp.ones_like(cosine["bias"]))
    out = layer.apply(params, x, rngs={"noise": jax.random.key(1)})
    quiet = layer.apply(params, x)
    for values in (out.value, out.edges[1]):
        np.testing.assert_allclose(values, jnp.broadcast_to(out.value[..., :1], values.shape), rtol=1e-5)
    assert (out.value != quiet.value).all()
    np.testing.assert_array_equal(out.fraction, quiet.fraction)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_a_core_forgets_at_a_reset_and_only_there(kind):
    """Unrolled at once or row by row, the same; after a reset, as if nothing had been before."""
    network = networks.q_network("mlp", (4,), 2, heads.scalar(), hidden_sizes=(8, 8), core=kind, core_size=5)
    assert network.recurrent
    obs = features(0, (6, B, 4))
    reset = np.zeros((6, B), bool)
    reset[3, 1] = True
    params = network.init(jax.random.key(0), obs[0, 0])
    whole, end = network.apply(params, None, obs, network.carry(B), reset)
    carry, rows = network.carry(B), []
    for t in range(6):
        out, carry = network.apply(params, None, obs[t : t + 1], carry, reset[t : t + 1])
        rows.append(out[0])
    np.testing.assert_allclose(whole, jnp.stack(rows), rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(carry), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    fresh, _ = network.apply(params, None, obs[3:], network.carry(B), reset[3:])
    np.testing.assert_allclose(whole[3:, 1], fresh[:, 1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(whole[3:, 0], fresh[:, 0], atol=1e-4)


def test_a_prior_is_added_and_never_learns():
    plain = networks.q_network("mlp", (4,), 2, heads.scalar(), hidden_sizes=(8,))
    network = networks.with_prior(plain, 3.0)
    obs, reset = features(0, (T, B, 4)), np.zeros((T, B), bool)
    params = network.init(jax.random.key(0), obs[0, 0])
    out, _ = network.apply(params, None, obs, (), reset)
    learnt, prior = (plain.apply(params[name], None, obs, (), reset)[0] for name in ("learnt", "prior"))
    np.testing.assert_allclose(out, learnt + 3.0 * prior, rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda p: network.apply(p, None, obs, (), reset)[0].sum())(params)
    assert all(x.any() for x in jax.tree.leaves(slope["learnt"]) if x.ndim == 2)
    assert not any(x.any() for x in jax.tree.leaves(slope["prior"]))


def test_a_noisy_network_has_a_prior_without_noise():
    network = networks.with_prior(networks.q_network("mlp", (4,), 2, heads.scalar(), hidden_sizes=(8,), noisy=True))
    obs, reset = features(0, (T, B, 4)), np.zeros((T, B), bool)
    params = network.init(jax.random.key(0), obs[0, 0])
    params["learnt"] = jax.tree.map(jnp.zeros_like, params["learnt"])
    one, two = (network.apply(params, jax.random.key(i), obs, (), reset)[0] for i in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("kind", "shape"), [("nature", (84, 84, 4)), ("impala", (10, 10, 4))])
def test_image_torsos(kind, shape):
    network = networks.q_network(kind, shape, 3, heads.scalar(), hidden_sizes=(32,))
    obs = jnp.zeros((1, 2, *shape), jnp.uint8)
    params = jax.eval_shape(network.init, jax.random.key(0), obs[0, 0])
    out, _ = jax.eval_shape(network.apply, params, jax.random.key(0), obs, (), jnp.zeros((1, 2), bool))
    assert out.shape == (1, 2, 3, 1)
    kernels = [x.shape for x in jax.tree.leaves(params) if len(x.shape) == 4]
    if kind == "nature":  # Mnih et al. 2015, table of the network
        assert sorted(kernels) == sorted([(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64)])
        assert (7 * 7 * 64, 32) in [x.shape for x in jax.tree.leaves(params)]
    else:
        assert len(kernels) == 3 * 5


def test_a_policy_that_sees_frames_forgets_them_with_its_carry():
    """The stack it shows the network: older frames first, zeros where the carry is fresh."""
    seen = []
    inner = networks.Policy(None, lambda batch: (), lambda p, k, obs, c, r: (seen.append(obs) or obs[:, None, :2], c),
                            lambda carry: carry)  # fmt: skip
    policy = networks.see_frames(inner, jnp.zeros((2,)), 3)
    carry, no = policy.carry(1), np.zeros(1, bool)
    frames = [jnp.full((1, 2), float(t + 1)) for t in range(4)]
    for t, frame in enumerate(frames):
        _, carry = policy.members(None, None, frame, carry, no if t < 3 else ~no)
    shown = [np.asarray(x)[0].tolist() for x in seen]
    assert shown == [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2], [1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 4, 4]]
    assert policy.kept(carry) == ()


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((10, 10), (3, 3), 1, "VALID"),
        ((20, 17), (8, 8), 4, "VALID"),
        ((9, 12), (3, 3), 1, "SAME"),
        ((9, 8), (4, 3), 2, "SAME"),
    ],
)
def test_a_convolution_by_patches_is_a_convolution(size, kernel, stride, padding):
    """Value and both gradients against XLA's own."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(3, *size, 2)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(*kernel, 2, 5)), jnp.float32)

    def theirs(x, k):
        return jax.lax.conv_general_dilated(x, k, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def ours(x, k):
        return products.convolve(x, k, (stride, stride), padding)

    np.testing.assert_allclose(ours(images, weights), theirs(images, weights), rtol=1e-4, atol=1e-4)
    gradients = [jax.grad(lambda x, k, f=f: jnp.sin(f(x, k)).sum(), (0, 1))(images, weights) for f in (ours, theirs)]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("columns", [1, 2, products.NARROW, products.NARROW + 1])
def test_a_product_has_the_gradients_of_a_product(columns):
    """However its gradient is computed: narrow kernels have a rule of their own on a CPU."""
    x, kernel = features(0, (4, 5, F)), features(1, (F, columns))
    weights = features(2, (4, 5, columns))

    def gradients(function):
        return jax.grad(lambda x, kernel: (weights * jnp.sin(function(x, kernel))).sum(), (0, 1))(x, kernel)

    for ours, theirs in zip(gradients(products.times), gradients(jnp.matmul), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
