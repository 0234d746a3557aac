"""Networks against forward passes written out in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jdqn import heads, networks
from jdqn.config import ConfigError

T, B, A, SIZE = 2, 3, 4, 5
SCALAR = heads.scalar()
WIDE = SCALAR._replace(size=SIZE)  # stands for any head with several numbers per action
VECTOR, IMAGE = (6,), (7, 5, 2)
KEY = jax.random.key(0)


def make(kind, obs_shape, head=SCALAR, **options):
    """(network, parameters at random, biases and scales too)."""
    network = networks.q_network(kind, obs_shape, A, head, **options)
    params = jax.eval_shape(network.init, KEY, jnp.zeros(obs_shape))
    rng = np.random.default_rng(0)
    return network, jax.tree.map(lambda p: np.float32(0.5 * rng.normal(size=p.shape)), params)


def forward(network, params, obs):
    """Without a key: none of these networks samples."""
    out, carry = jax.jit(network.apply)(params, None, obs, (), np.zeros(obs.shape[:2], bool))
    assert carry == ()
    return out


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def layers(params, *path):
    """The parameters under `path`, as a function from a layer's name and a leaf's to the array."""
    return lambda layer, leaf="kernel": functools.reduce(dict.get, [*path, layer, leaf], params["params"])


def dense(at, x):
    return x @ at("Dense_0") + at("Dense_0", "bias")


def relu(x):
    return x * (x > 0)


def normalise(at, x, layer="LayerNorm_0"):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * at(layer, "scale") + at(layer, "bias")


def convolve(at, x, layer="Conv_0", stride=1, border=0):
    """A convolution, a pixel at a time, of images within a border of zeros."""
    kernel = at(layer)
    high, wide, _, filters = kernel.shape
    x = np.pad(x, [(0, 0), (0, 0), (border, border), (border, border), (0, 0)])
    height, width = (x.shape[2] - high) // stride + 1, (x.shape[3] - wide) // stride + 1
    out = np.zeros((*x.shape[:2], height, width, filters))
    for i, j in np.ndindex(height, width):
        window = x[:, :, i * stride : i * stride + high, j * stride : j * stride + wide]
        out[:, :, i, j] = np.einsum("tbhwc,hwcf->tbf", window, kernel)
    return out + at(layer, "bias")


def max_pool(x):
    """The largest of 3 x 3, every two pixels, as TensorFlow pads to the "SAME" size: ceil(n / 2) windows.

    They reach beyond the image by one pixel at its end, and where n is odd by one at its start as well.
    """
    height, width = x.shape[2:4]
    out = np.zeros((*x.shape[:2], -(-height // 2), -(-width // 2), x.shape[-1]))
    for i, j in np.ndindex(out.shape[2:4]):
        top, left = 2 * i - height % 2, 2 * j - width % 2
        out[:, :, i, j] = x[:, :, max(top, 0) : top + 3, max(left, 0) : left + 3].max((2, 3))
    return out


def minatar_by_hand(at, x, norm):
    return relu(norm(at, convolve(at, x), "LayerNorm_0"))


def nature_by_hand(at, x, norm):
    """Mnih et al. 2015: 32 filters of 8 x 8 with stride 4, 64 of 4 x 4 with stride 2, 64 of 3 x 3."""
    for i, (filters, size, stride) in enumerate([(32, 8, 4), (64, 4, 2), (64, 3, 1)]):
        x = convolve(at, x, f"Conv_{i}", stride)
        assert (at(f"Conv_{i}").shape[:2], x.shape[-1]) == ((size, size), filters)
        x = relu(norm(at, x, f"LayerNorm_{i}"))
    return x


def impala_by_hand(at, x, norm):
    """Espeholt et al. 2018, figure 3, on the right; LayerNorm, which is not theirs, behind all of it."""
    names = (f"Conv_{i}" for i in range(15))

    def convolved(x, filters):
        x = convolve(at, x, next(names), border=1)
        assert x.shape[-1] == filters
        return x

    for filters in (16, 32, 32):
        x = max_pool(convolved(x, filters))
        for _ in range(2):
            inner = convolved(relu(x), filters)
            x = x + convolved(relu(inner), filters)
    return norm(at, relu(x).reshape(T, B, -1), "LayerNorm_0")


BY_HAND = {
    "minatar": (minatar_by_hand, IMAGE),
    "nature": (nature_by_hand, (44, 36, 2)),  # 44 x 36, 10 x 8, 4 x 3, 2 x 1
    "impala": (impala_by_hand, (9, 6, 2)),  # 9 x 6, 5 x 3, 3 x 2, 2 x 1
}


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("hidden_sizes", [(), (8,), (8, 9), (8, 9, 10)])
@pytest.mark.parametrize(("kind", "obs_shape"), [("mlp", VECTOR), ("mlp", IMAGE), ("minatar", IMAGE), ("mlp", ())])
def test_shapes(kind, obs_shape, hidden_sizes, dueling, layer_norm):
    network = networks.q_network(
        kind, obs_shape, A, WIDE, hidden_sizes=hidden_sizes, dueling=dueling, layer_norm=layer_norm
    )
    params = jax.eval_shape(network.init, KEY, jnp.zeros(obs_shape))
    out, _ = jax.eval_shape(network.apply, params, KEY, jnp.zeros((T, B, *obs_shape)), (), jnp.zeros((T, B), bool))
    assert (out.shape, out.dtype) == ((T, B, A, SIZE), jnp.float32)
    assert (network.carry(B), network.recurrent) == ((), False)
    names = " ".join(jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))
    assert ("Conv" in names) == (kind == "minatar")
    assert ("LayerNorm" in names) == (layer_norm and (kind == "minatar" or hidden_sizes != ()))
    widths = sorted(x.shape[1] for x in jax.tree.leaves(params) if x.ndim == 2)
    assert widths == sorted([*hidden_sizes, A * SIZE, *[*hidden_sizes[-1:], SIZE] * dueling])  # a stream more to duel


def test_auto_takes_the_convolution_for_images_alone():
    for obs_shape, convolves in [((), False), ((4,), False), ((10, 5), False), ((10, 10, 4), True), ((3, 3, 1), True)]:
        _, params = make("auto", obs_shape)
        assert ("Conv_0" in params["params"].get("torso", {})) == convolves, obs_shape
    for images, side, convolutions in [("auto", 35, 1), ("auto", 36, 3), ("impala", 10, 15), ("nature", 40, 3)]:
        params = make("auto", (side, side, 2), images=images)[1]
        names = {path[2].key for path, _ in jax.tree_util.tree_leaves_with_path(params) if "Conv" in str(path)}
        assert len(names) == convolutions, images


@pytest.mark.parametrize(
    ("kind", "needs", "shapes"),
    [
        ("minatar", "images .*: choose mlp", [(), (4,), (10, 10), (2, 3, 1), (3, 2, 1), (9, 9, 1, 1)]),
        ("tabular", "a one-hot state .*: choose auto", [(), (4, 4), (10, 10, 4)]),
    ],
)
def test_observations_that_do_not_suit_are_refused(kind, needs, shapes):
    for obs_shape in shapes:
        with pytest.raises(ConfigError, match=f"network={kind} needs {needs}"):
            networks.q_network(kind, obs_shape, A, SCALAR)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("kind", BY_HAND)
def test_image_networks_equal_numpy(kind, layer_norm):
    """From the bytes of an image, which count from 0 to 1, to the numbers of every action."""
    by_hand, obs_shape = BY_HAND[kind]
    network, params = make(kind, obs_shape, WIDE, hidden_sizes=(8, 9), layer_norm=layer_norm)
    params = jax.tree.map(lambda p: 3 * p / np.float32(np.prod(p.shape[:-1])) ** 0.5, params)  # of size 1 all the way
    obs = np.random.default_rng(1).integers(0, 256, (T, B, *obs_shape), np.uint8)
    torso, dense_torso, last = (layers(params, *path) for path in [["torso"], ["torso", "MLP_0"], ["last", "Stream_0"]])
    hidden = layers(params, "last", "Stream_0", "MLP_0")

    def norm(at, x, layer="LayerNorm_0"):
        return normalise(at, x, layer) if layer_norm else x

    x = by_hand(torso, obs / 255.0, norm).reshape(T, B, -1)
    x = relu(norm(dense_torso, dense(dense_torso, x)))
    x = relu(norm(hidden, dense(hidden, x)))
    expected = dense(last, x).reshape(T, B, A, SIZE)
    np.testing.assert_allclose(forward(network, params, obs), expected, rtol=1e-4, atol=1e-4)


def streams_by_hand(params, x):
    """(value [..., size], advantage [..., A, size]) of a dueling last layer on features x."""
    both = []
    for stream in ("Stream_0", "Stream_1"):
        hidden = relu(dense(layers(params, "last", stream, "MLP_0"), x))
        both.append(dense(layers(params, "last", stream), hidden))
    value, advantage = sorted(both, key=lambda out: out.shape[-1])
    return value, advantage.reshape(*x.shape[:-1], A, -1)


def test_dueling_is_value_plus_advantage_less_its_mean():
    network, params = make("mlp", VECTOR, WIDE, dueling=True, hidden_sizes=(8, 9))
    obs = normal(T, B, *VECTOR)
    value, advantage = streams_by_hand(params, relu(dense(layers(params, "torso"), obs)))
    out = forward(network, params, obs)
    for i in range(SIZE):
        expected = oracles.dueling(value[..., i : i + 1], advantage[..., i])
        np.testing.assert_allclose(out[..., i], expected, rtol=1e-4, atol=1e-5)


def test_dueling_scales_the_gradient_into_the_torso_alone():
    """Beside the same sum without the scaling: the torso's gradient is 1 / sqrt 2 of it, the streams' is all of it."""
    network, params = make("mlp", VECTOR, dueling=True, hidden_sizes=(8, 9))
    obs, slope = normal(T, B, *VECTOR), normal(T, B, A, 1, seed=2)

    def unscaled(params):
        value, advantage = streams_by_hand(params, relu(dense(layers(params, "torso"), obs)))
        return value[..., None, :] + advantage - advantage.mean(-2, keepdims=True)

    def gradient(f):
        return jax.jit(jax.grad(lambda params: (slope * f(params)).sum()))(params)

    ours, theirs = gradient(lambda params: forward(network, params, obs)), gradient(unscaled)
    for part, scale in [("torso", 0.5**0.5), ("last", 1.0)]:
        for a, b in zip(jax.tree.leaves(ours["params"][part]), jax.tree.leaves(theirs["params"][part]), strict=True):
            assert np.abs(b).max() > 0.1
            np.testing.assert_allclose(a, scale * b, rtol=1e-4, atol=1e-5)


def test_a_table_starts_at_zero_and_looks_up_the_state():
    network = networks.q_network("tabular", VECTOR, A, WIDE)
    params = network.init(jax.random.key(1), np.zeros(6, bool))
    assert not jax.tree.leaves(params)[0].any()
    filled = normal(6, A, SIZE)
    states = np.array([[0, 5, 2], [3, 3, 1]])
    out = forward(network, jax.tree.map(lambda t: filled.reshape(t.shape), params), np.eye(6, dtype=bool)[states])
    np.testing.assert_array_equal(out, filled[states])


@pytest.mark.parametrize(("kind", "obs_shape"), [("mlp", VECTOR), ("minatar", IMAGE), ("tabular", VECTOR)])
def test_whole_numbers_and_bools_mean_the_same_as_floats(kind, obs_shape):
    network, params = make(kind, obs_shape, hidden_sizes=(8,))
    obs = np.random.default_rng(0).integers(0, 2, (T, B, *obs_shape))
    expected = forward(network, params, obs.astype(np.float32))
    for dtype in (bool, np.int32):
        np.testing.assert_array_equal(forward(network, params, obs.astype(dtype)), expected)
    bright = forward(network, params, (255 * obs).astype(np.uint8))  # the bytes of an image count from 0 to 1
    np.testing.assert_allclose(bright, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "obs_shape"), [("mlp", VECTOR), ("minatar", IMAGE), ("tabular", VECTOR)])
def test_a_row_of_a_batch_equals_the_row_alone(kind, obs_shape):
    network, params = make(kind, obs_shape, hidden_sizes=(8, 9), dueling=True, layer_norm=True)
    obs = normal(T, B, *obs_shape)
    out = forward(network, params, obs)
    for t in range(T):
        for b in range(B):
            alone = forward(network, params, obs[t : t + 1, b : b + 1])
            np.testing.assert_allclose(out[t, b], alone[0, 0], rtol=1e-4, atol=1e-5)


def test_a_policy_reads_one_tick_through_the_head():
    network, params = make("mlp", VECTOR, hidden_sizes=(8,))
    policy = networks.make_policy(network, SCALAR)
    obs = normal(B, *VECTOR)
    values, carry = policy.values(params, None, obs, policy.carry(B), jnp.zeros(B, bool))
    assert carry == ()
    np.testing.assert_allclose(values, forward(network, params, obs[None])[0, ..., 0], rtol=1e-5, atol=1e-6)


def reads_in_pieces(policy, params, key, obs):
    carry, reset = policy.carry(len(obs)), jnp.zeros(len(obs), bool)
    return " scan[" in str(jax.make_jaxpr(policy.values)(params, key, obs, carry, reset))


@pytest.mark.parametrize(("core", "ensemble"), [("lstm", 1), ("none", 2)])
def test_a_policy_sees_many_images_in_pieces_as_if_together(core, ensemble, monkeypatch):
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setattr(networks, "MOST_IMAGES", 4)
    network = networks.q_network("minatar", IMAGE, A, SCALAR, hidden_sizes=(8,), core=core, core_size=5)
    policy = networks.make_policy(network, SCALAR, ensemble)
    keys, obs = jax.random.split(jax.random.key(3), ensemble), normal(11, *IMAGE)  # two pieces of four, and three more
    params = jax.vmap(lambda key: network.init(key, obs[0]))(keys) if ensemble > 1 else network.init(keys[0], obs[0])
    rng = np.random.default_rng(2)
    carry = jax.tree.map(lambda c: rng.normal(size=c.shape).astype(c.dtype), policy.carry(11))
    reset = rng.random(11) < 0.5
    pieces = jax.jit(policy.values)(params, None, obs, carry, reset)
    monkeypatch.setattr(networks, "MOST_IMAGES", 11)
    together = jax.jit(lambda *rows: policy.values(params, None, *rows))(obs, carry, reset)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), pieces, together)


def test_pieces_are_for_images_and_never_share_what_is_sampled(monkeypatch):
    monkeypatch.setenv("NPROC", "1")

    def policy_of(kind, obs_shape, **options):
        network, params = make(kind, obs_shape, hidden_sizes=(8,), **options)
        return networks.make_policy(network, SCALAR), params

    policy, params = policy_of("minatar", IMAGE)
    assert reads_in_pieces(policy, params, KEY, normal(networks.MOST_IMAGES + 1, *IMAGE))
    assert not reads_in_pieces(policy, params, KEY, normal(networks.MOST_IMAGES, *IMAGE))
    assert not reads_in_pieces(*policy_of("mlp", VECTOR), KEY, normal(1000, *VECTOR))
    policy, params = policy_of("minatar", IMAGE, noisy=True)
    assert not reads_in_pieces(policy, params, KEY, normal(1000, *IMAGE))
    assert reads_in_pieces(policy, params, None, normal(1000, *IMAGE))  # evaluation has no noise
    monkeypatch.setenv("NPROC", "2")
    for devices in (1, 2):  # a single one has all cores
        monkeypatch.setattr(jax, "local_device_count", lambda devices=devices: devices)
        assert reads_in_pieces(policy, params, None, normal(1000 + devices, *IMAGE)) == (devices == 2)
