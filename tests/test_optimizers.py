"""Every optimiser by its name against a NumPy loop from its paper, with schedules and clipping around it.

The learner minimises half the squared error of Q(x) = sum of w x, where the weights w are split into arrays of several
shapes: the gradient is -(reward - w x) x, whatever the shapes.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import oracles_family as family
import pytest

from jdqn import heads, learner, networks, optimizers, targets
from jdqn.config import Hyper
from jdqn.types import Row, Sample

SHAPES = {"tall": (6, 3), "wide": (3, 4), "bias": (5,), "cube": (2, 3, 2)}
SIZES = {name: math.prod(shape) for name, shape in SHAPES.items()}
WIDTH = sum(SIZES.values())
UPDATES, EPSILON = 12, 1e-3


def split(x):
    """x [WIDTH] as a dict of arrays of SHAPES."""
    parts, start = {}, 0
    for name, shape in SHAPES.items():
        parts[name] = x[start : start + SIZES[name]].reshape(shape)
        start += SIZES[name]
    return parts


def make(optimizer, schedule="linear"):
    def init(key, obs):
        return split(jax.random.normal(key, (WIDTH,)))

    def apply(params, key, obs, carry, reset):
        weights = jnp.concatenate([params[name].ravel() for name in SHAPES])
        return (obs @ weights)[..., None, None], carry  # one action of size 1

    network = networks.Network(init, apply, lambda batch: (), False)
    return learner.make_learner(
        network, heads.scalar("squared"), targets.greedy(), n=1, target_period=1, optimizer=optimizer, schedule=schedule
    )


def transition(seed):
    """A step that ends the episode: (sample of one, obs [WIDTH], reward)."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=WIDTH) * 10.0 ** rng.uniform(-2, 0, WIDTH)).astype(np.float32)
    obs = np.stack([x, 0 * x])[:, None]
    end = np.array([[True], [False]])
    reward = np.float32(3 * rng.normal())
    rows = Row(obs, np.zeros((2, 1), int), np.array([[reward], [0]], np.float32), end, ~end, ())
    return Sample(rows, np.zeros(1, int), np.ones(1, np.float32)), x.astype(np.float64), float(reward)


def slope(weights, x, reward):
    flat = np.concatenate([weights[name].ravel() for name in SHAPES])
    return split(-(reward - flat @ x) * x)


# Optimisers: (gradients, memory, count from 1) -> (steps to subtract at rate 1, memory)


def sgd(gradients, memory, count):
    return gradients, memory


def adam_one(gradient, memory, count):
    first, second = memory or (np.zeros_like(gradient), np.zeros_like(gradient))
    step, first, second = oracles.adam_step(gradient, first, second, count, 1.0, epsilon=EPSILON)
    return step, (first, second)


def rmsprop_one(gradient, memory, count):
    zero = np.zeros_like(gradient)
    return family.rmsprop_step(gradient, zero if memory is None else memory, 1.0, 0.95, EPSILON, epsilon_in_root=False)


def radam_one(gradient, memory, count, beta1=0.9, beta2=0.999, threshold=5.0):
    """Rectified Adam (Liu et al. 2020, Algorithm 2); its authors' code rectifies from rho 5 on, the paper beyond 4."""
    first, second = memory or (np.zeros_like(gradient), np.zeros_like(gradient))
    step = np.zeros_like(gradient)
    longest = 2 / (1 - beta2) - 1
    rho = longest - 2 * count * beta2**count / (1 - beta2**count)
    for i in np.ndindex(gradient.shape):
        first[i] = beta1 * first[i] + (1 - beta1) * gradient[i]
        second[i] = beta2 * second[i] + (1 - beta2) * gradient[i] ** 2
        mean = first[i] / (1 - beta1**count)
        if rho >= threshold:
            root = math.sqrt(second[i] / (1 - beta2**count))
            rectified = math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
            step[i] = rectified * mean / (root + EPSILON)
        else:
            step[i] = mean
    return step, (first, second)


def muon_one(gradient, momentum, count, beta=0.95):
    """Muon (Jordan et al. 2024): five steps of Newton-Schulz on Nesterov's momentum, matrices [in, out].

    Scaled by sqrt(max(1, out / in)) as in the authors' code. Whatever is no matrix takes Adam.
    """
    if gradient.ndim != 2:
        return adam_one(gradient, momentum, count)
    momentum = np.zeros_like(gradient) if momentum is None else momentum
    momentum = beta * momentum + (1 - beta) * gradient
    x = beta * momentum + (1 - beta) * gradient
    x = x / math.sqrt((x**2).sum())
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    inputs, outputs = gradient.shape
    return math.sqrt(max(1.0, outputs / inputs)) * x, momentum


def each(one):
    """An optimiser that treats every array by itself."""

    def optimise(gradients, memory, count):
        results = {name: one(gradients[name], (memory or {}).get(name), count) for name in SHAPES}
        return {name: r[0] for name, r in results.items()}, {name: r[1] for name, r in results.items()}

    return optimise


OPTIMIZERS = {
    "sgd": sgd, "adam": each(adam_one), "rmsprop": each(rmsprop_one), "radam": each(radam_one), "muon": each(muon_one),
}  # fmt: skip


def linear(progress):
    return progress


def cosine(progress):
    """Half a period of a cosine, from 0 to 1 (Loshchilov and Hutter 2017, SGDR, eq. 5)."""
    return (1 - math.cos(math.pi * progress)) / 2


def both(optimizer, clip, rate=0.02):
    """After each of UPDATES updates: (our parameters, the loop's)."""
    ours = make(optimizer)
    hyper = Hyper(learning_rate=rate, max_gradient_norm=clip, optimizer_epsilon=EPSILON)
    state = ours.init(jax.random.key(0), jnp.zeros(WIDTH), hyper)
    weights, memory = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params), None
    update = jax.jit(ours.update)
    for count in range(1, UPDATES + 1):
        sample, x, reward = transition(count)
        state, _, metrics = update(jax.random.key(count), state, sample, count, 0.0, hyper)
        gradients = slope(weights, x, reward)
        norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
        np.testing.assert_allclose(metrics.grad_norm, norm, rtol=1e-3)
        clipped = dict(
            zip(SHAPES, oracles.clip_by_global_norm([gradients[name] for name in SHAPES], clip), strict=True)
        )
        steps, memory = OPTIMIZERS[optimizer](clipped, memory, count)
        weights = {name: weights[name] - rate * steps[name] for name in SHAPES}
        yield state.params, weights


@pytest.mark.parametrize("clip", [0.5, 1e6])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimisers_equal_the_loop(optimizer, clip):
    """Twelve updates on a vector, two matrices and a cube, clipped by their global norm first or not at all."""
    for count, (ours, theirs) in enumerate(both(optimizer, clip), 1):
        for name in SHAPES:
            np.testing.assert_allclose(
                ours[name], theirs[name], rtol=2e-3, atol=2e-4, err_msg=f"{name} after update {count}"
            )


def test_radam_is_plain_momentum_at_first():
    """The variance is called tractable from update 6 on; until then the step does not know the second moment."""
    gradient, memory = np.full(3, 0.25), None
    steps = []
    for count in range(1, 9):
        step, memory = radam_one(gradient, memory, count)
        steps.append(step[0])
    np.testing.assert_allclose(steps[:5], 0.25)
    assert (np.array(steps[5:]) < 0.25).all()
    transformation = optimizers.OPTIMIZERS["radam"](Hyper(optimizer_epsilon=EPSILON))
    state = transformation.init(jnp.zeros(3))
    for step in steps:
        ours, state = transformation.update(jnp.full(3, 0.25), state)
        np.testing.assert_allclose(ours, step, rtol=0.02)  # 1 - 0.999^6 in float32 costs a per cent of the first


@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0, np.nan])
def test_clip_and_radam_are_optax_s_without_its_nan(scale):
    hyper = Hyper(optimizer_epsilon=EPSILON)
    rng, gradients = np.random.default_rng(0), []
    for _ in range(9):
        gradients.append(split(np.float32(scale * rng.normal(size=WIDTH))))
    for ours, theirs in (
        (optimizers.clip(1.0), optax.clip_by_global_norm(1.0)),
        (optimizers.OPTIMIZERS["radam"](hyper), optax.scale_by_radam(eps=hyper.optimizer_epsilon)),
    ):
        states = ours.init(gradients[0]), theirs.init(gradients[0])
        assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])  # of checkpoints
        with jax.debug_nans(not np.isnan(scale)):
            for gradient in gradients:
                step, mine = ours.update(gradient, states[0])
                with jax.debug_nans(False):
                    expected, other = theirs.update(gradient, states[1])
                jax.tree.map(np.testing.assert_array_equal, (step, mine), (expected, other))
                with jax.debug_nans(False):  # one program each, as they are used
                    jitted = [
                        jax.jit(one.update)(gradient, state) for one, state in zip((ours, theirs), states, strict=True)
                    ]
                jax.tree.map(np.testing.assert_array_equal, *jitted)
                states = mine, other


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules(schedule):
    """Plain gradient steps move by the rate: from the start to its final fraction, then constant."""
    ours, shape = make("sgd", schedule), {"linear": linear, "cosine": cosine}[schedule]
    hyper = Hyper(learning_rate=0.3, learning_rate_final_fraction=0.1, learning_rate_steps=80.0, max_gradient_norm=1e6)
    state = ours.init(jax.random.key(0), jnp.zeros(WIDTH), hyper)
    sample, x, reward = transition(0)
    gradients = slope(jax.tree.map(lambda p: np.asarray(p, np.float64), state.params), x, reward)
    largest = int(np.abs(gradients["tall"]).argmax())
    update = jax.jit(ours.update)
    for ticks in (0, 8, 20, 40, 79, 80, 500):
        after = update(jax.random.key(1), state, sample, 1, jnp.float32(ticks), hyper)[0]
        moved = np.asarray(state.params["tall"] - after.params["tall"]).ravel()[largest]
        rate = 0.3 * (1 - 0.9 * shape(min(ticks / 80, 1)))
        np.testing.assert_allclose(moved / gradients["tall"].ravel()[largest], rate, rtol=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_hyper_is_traced(optimizer):
    """Another learning rate, clip or epsilon never compiles again, and the step is in proportion to the rate."""
    ours = make(optimizer)
    hyper = Hyper(learning_rate=0.1, max_gradient_norm=0.5, optimizer_epsilon=EPSILON)
    state = ours.init(jax.random.key(0), jnp.zeros(WIDTH), hyper)
    sample = jax.tree.map(jnp.asarray, transition(3)[0])

    traces = []

    @jax.jit
    def step(hyper):
        traces.append(1)
        after = ours.update(jax.random.key(1), state, sample, 1, 0.0, hyper)[0]
        return jax.tree.map(lambda a, b: a - b, state.params, after.params)

    one = step(hyper)
    for factor in (0.25, 3.0):
        other = step(hyper._replace(learning_rate=0.1 * factor))
        for name in SHAPES:
            np.testing.assert_allclose(other[name], factor * np.asarray(one[name]), rtol=1e-3, atol=1e-5)
    knows_epsilon = optimizer != "sgd"
    wider = step(hyper._replace(optimizer_epsilon=10.0))
    if optimizer == "radam":  # not in its first five updates
        knows_epsilon = False
    assert np.allclose(wider["bias"], one["bias"], rtol=1e-3) != knows_epsilon
    assert len(traces) == step._cache_size() == 1
