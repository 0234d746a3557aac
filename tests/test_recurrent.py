"""R2D2 (Kapturowski et al. 2019) against a loop in NumPy: burn-in, carries across episodes, targets, priorities.

Everything below the first line of tests is float64 and one segment at a time; cells are written from their papers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles_family as family
import pytest
from programs import ticks_of
from test_targets import random_rows

import jdqn
from jdqn import heads, learner, networks, replay, targets
from jdqn.config import Hyper
from jdqn.types import Row, Sample

OBS, ACTIONS, HIDDEN, SIZE, BATCH, UNROLL = 3, 2, 5, 4, 6, 4
DISCOUNT, MAX_FRACTION = 0.9, 0.9


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(layer, x):
    return x @ layer["kernel"] + layer.get("bias", 0.0)


def gru(p, h, x):
    """Cho et al. 2014, with the reset gate after the product and its bias (flax, PyTorch) -> (output, state)."""
    r, z = (sigmoid(dense(p["i" + gate], x) + dense(p["h" + gate], h)) for gate in "rz")
    h = (1 - z) * np.tanh(dense(p["in"], x) + r * dense(p["hn"], h)) + z * h
    return h, h


def lstm(p, state, x):
    """Hochreiter and Schmidhuber 1997 with forget gate (Gers et al. 2000) -> (output, (cell, output))."""
    cell, h = state
    i, f, g, o = (dense(p["i" + gate], x) + dense(p["h" + gate], h) for gate in "ifgo")
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(cell)
    return h, (cell, h)


CELLS = {"gru": (gru, "GRUCell_0"), "lstm": (lstm, "OptimizedLSTMCell_0")}


def unroll(kind, params, obs, last, state, fresh=False):
    """(values [L, A], the state before each row and after the last one); `fresh`: an episode begins at row 0."""
    cell, name = CELLS[kind]
    values, states = [], []
    for t in range(len(obs)):
        if last[t - 1] if t else fresh:
            state = jax.tree.map(np.zeros_like, state)
        states.append(state)
        x, state = cell(params["core"][name], state, obs[t].ravel())
        stream = params["last"]["Stream_0"]
        values.append(dense(stream["Dense_0"], np.maximum(dense(stream["MLP_0"]["Dense_0"], x), 0)))
    return np.array(values), [*states, state]


def goals_of(online, target, reward, terminated, last, n):
    """h(R + discount^k h^-1(Q_target of the online network's best action)) [U], nan at last rows."""
    goals = np.full(len(reward) - n, np.nan)
    for t in range(len(goals)):
        if last[t]:
            continue
        total, k, dead = 0.0, 0, False
        while k < n and not last[t + k]:
            total += DISCOUNT**k * float(reward[t + k])
            dead = dead or terminated[t + k]
            k += 1
        best = 0
        for action in range(ACTIONS):
            if online[t + k, action] > online[t + k, best]:
                best = action
        future = 0.0 if dead else DISCOUNT**k * family.value_unscale(target[t + k, best])
        goals[t] = family.value_rescale(total + future)
    return goals


def r2d2(kind, params, target_params, sample, burn_in, n, through=False):
    """Loss as a function of parameters, and the absolute errors [U, B], nan at last rows; `through`: the burn-in too.

    What the paper does not differentiate is computed once, from `params`: the carry after the burn-in and the targets.
    """
    rows, segments = jax.tree.map(lambda x: np.asarray(x, np.float64), sample.rows), []
    for b in range(BATCH):
        obs, last, stored = rows.obs[:, b], rows.last[:, b] > 0, jax.tree.map(lambda c, b=b: c[0, b], rows.carry)
        online, states = unroll(kind, params, obs, last, stored)
        target, _ = unroll(kind, target_params, obs, last, stored)
        rest = slice(burn_in, None)
        goals = goals_of(online[rest], target[rest], rows.reward[rest, b], rows.terminated[rest, b] > 0, last[rest], n)
        segments.append((obs, last, stored, states[burn_in], goals))
    count = sum(int(np.isfinite(goals).sum()) for *_, goals in segments)

    def errors_of(params):
        errors = []
        for b, (obs, last, stored, warm, goals) in enumerate(segments):
            if through:
                values = unroll(kind, params, obs, last, stored)[0][burn_in:]
            else:
                fresh = burn_in > 0 and last[burn_in - 1]
                values, _ = unroll(kind, params, obs[burn_in:], last[burn_in:], warm, fresh)
            said = [values[t, sample.rows.action[burn_in + t, b]] for t in range(len(goals))]
            errors.append(goals - np.array(said))
        return np.array(errors).T

    def loss(params):
        errors, total = errors_of(params), 0.0
        for t, b in zip(*np.nonzero(np.isfinite(errors)), strict=True):
            total += float(sample.weight[b]) * 0.5 * errors[t, b] ** 2 / count
        return total

    return loss, np.abs(errors_of(params))


def gradient(loss, params, step=1e-6):
    """Central differences, a number at a time."""
    leaves, structure = jax.tree.flatten(params)
    slopes = [np.zeros_like(leaf) for leaf in leaves]
    for leaf, slope in zip(leaves, slopes, strict=True):
        for i in np.ndindex(leaf.shape):
            kept = leaf[i]
            leaf[i] = kept + step
            above = loss(jax.tree.unflatten(structure, leaves))
            leaf[i] = kept - step
            slope[i] = (above - loss(jax.tree.unflatten(structure, leaves))) / (2 * step)
            leaf[i] = kept
    return jax.tree.unflatten(structure, slopes)


# Tests


def make(kind, burn_in, n):
    """A learner whose step is the gradient itself, and random parameters of both networks."""
    head = heads.scalar("squared", value_rescaling=True)
    network = networks.q_network("mlp", (OBS,), ACTIONS, head, hidden_sizes=(HIDDEN,), core=kind, core_size=SIZE)
    ours = learner.make_learner(
        network, head, targets.greedy(double=True), n=n, target_period=1000, optimizer="sgd", burn_in=burn_in
    )
    hyper = Hyper(learning_rate=1.0, max_gradient_norm=1e6, discount=DISCOUNT, sequence_max_fraction=MAX_FRACTION)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros(OBS), hyper)
    rng = np.random.default_rng(7)
    return ours, hyper, jax.tree.map(lambda p: jnp.asarray(0.8 * rng.normal(size=p.shape), jnp.float32), shapes)


def random_segments(kind, length, seed):
    """Segments with ends of both kinds anywhere, in row 1 of the first two for sure; the stored state is no zero."""
    rng = np.random.default_rng(seed)
    reward, terminated, last = random_rows(seed, length, BATCH, 0.3)
    last[:3, :2] = [[False] * 2, [True] * 2, [False] * 2]
    terminated[:2, :2] = [[True, False], [False, False]]
    obs = rng.normal(size=(length, BATCH, OBS)).astype(np.float32)
    action = rng.integers(0, ACTIONS, (length, BATCH))
    carry = rng.normal(size=(1 if kind == "gru" else 2, length, BATCH, SIZE)).astype(np.float32)
    carry = carry[0] if kind == "gru" else tuple(carry)
    weight = rng.random(BATCH).astype(np.float32)
    return Sample(Row(obs, action, 3 * reward, terminated, last, carry), np.arange(BATCH), weight)


def doubles(tree):
    return jax.tree.map(lambda x: np.array(x, np.float64), tree["params"])


@pytest.mark.parametrize(("kind", "burn_in", "n"), [("gru", 4, 3), ("lstm", 3, 1), ("gru", 0, 3)])
def test_an_update_equals_the_loop(kind, burn_in, n):
    """Loss, priorities and gradient; ends fall into the burn-in, the learnt rows and those that only bootstrap."""
    ours, hyper, state = make(kind, burn_in, n)
    sample = random_segments(kind, burn_in + UNROLL + n, 10 * burn_in + n)
    assert sample.rows.last[burn_in:-n].any()
    assert not burn_in or sample.rows.last[: burn_in - 1].any()
    params, target_params = doubles(state.params), doubles(state.target_params)
    loss, errors = r2d2(kind, params, target_params, sample, burn_in, n)
    after, priority, metrics = jax.jit(ours.update)(jax.random.key(1), state, sample, 1, 0.0, hyper)
    np.testing.assert_allclose(metrics.loss, loss(params), rtol=1e-4)
    expected = []
    for b in range(BATCH):
        magnitudes = [e for e in errors[:, b] if np.isfinite(e)]
        mean = sum(magnitudes) / max(len(magnitudes), 1)
        expected.append(0.9 * max(magnitudes, default=0.0) + 0.1 * mean)
    np.testing.assert_allclose(priority, expected, rtol=1e-4, atol=1e-5)
    slope = jax.tree.map(lambda before, after: np.asarray(before - after), state.params, after.params)["params"]
    for a, b in zip(*map(jax.tree.leaves, (slope, gradient(loss, params))), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)


def test_no_gradient_passes_through_the_burn_in():
    """The loss depends on the burn-in's rows and on the stored carry, the gradient does not run through either."""
    kind, burn_in, n = "gru", 3, 2
    ours, hyper, state = make(kind, burn_in, n)
    sample = random_segments(kind, burn_in + UNROLL + n, 0)
    sample = sample._replace(rows=sample.rows._replace(last=np.zeros_like(sample.rows.last)))

    @jax.jit
    def loss_of(obs, carry):
        rows = sample.rows._replace(obs=obs, carry=carry)
        return ours.update(jax.random.key(1), state, sample._replace(rows=rows), 1, 0.0, hyper)[2].loss

    obs, carry = jax.grad(loss_of, (0, 1))(sample.rows.obs, sample.rows.carry)
    assert not obs[:burn_in].any()
    assert not any(x.any() for x in jax.tree.leaves(carry))
    assert (np.abs(obs[burn_in : burn_in + UNROLL]).max((1, 2)) > 0).all()
    base = loss_of(sample.rows.obs, sample.rows.carry)
    moved = sample.rows.obs + 0.5 * (np.arange(len(sample.rows.obs)) == 0)[:, None, None].astype(np.float32)
    assert loss_of(moved, sample.rows.carry) != base
    assert loss_of(sample.rows.obs, jax.tree.map(lambda c: 0 * c, sample.rows.carry)) != base
    later = jax.tree.map(lambda c: np.concatenate([c[:1], 0 * c[1:]]), sample.rows.carry)
    assert loss_of(sample.rows.obs, later) == base  # of the stored states only the first is read

    params = doubles(state.params)
    stopped, through = (
        gradient(r2d2(kind, params, doubles(state.target_params), sample, burn_in, n, x)[0], params) for x in (0, 1)
    )
    far = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (stopped["core"], through["core"])), strict=True)]
    assert max(far) > 1e-2  # so the test above sees the difference


def noise():
    """Observations of pure noise; episodes end at random, by a termination or a time limit."""

    def step(key, state, action):
        k_obs, k_end = jax.random.split(key)
        terminated, truncated = jax.random.bernoulli(k_end, 0.12, (2,))
        return state, jdqn.Step(jax.random.normal(k_obs, (OBS,)), jnp.float32(1), terminated, truncated)

    return jdqn.Env(lambda key: (jnp.int32(0), jax.random.normal(key, (OBS,))), step, ACTIONS)


@functools.cache
def warmed_up(kind, rollout_length):
    config, hyper = jdqn.preset(
        "r2d2", "", core=kind, core_size=SIZE, hidden_sizes=(HIDDEN,), dueling=False, num_envs=4,
        rollout_length=rollout_length, replay_size=400, warm_up_steps=160, burn_in=2, unroll_length=3, n_step=2,
    )  # fmt: skip
    trainer = jdqn.build(config, noise())

    @jax.jit
    def run(key):
        warm_up = jax.lax.scan(
            lambda s, i: trainer.step(s, hyper, i), trainer.init(key, hyper), jnp.arange(trainer.num_warm_up)
        )
        return warm_up[0]

    return trainer, hyper, run(jax.random.key(0))


@pytest.mark.parametrize(("kind", "rollout_length"), [("lstm", 4), pytest.param("gru", 1, marks=pytest.mark.slow)])
def test_the_stored_carry_is_that_of_the_unrolled_episode(kind, rollout_length):
    """With every row replay holds the state before it, unrolled from its episode's first row; the actor goes on so."""
    trainer, _, state = warmed_up(kind, rollout_length)
    ticks = trainer.num_warm_up * rollout_length
    rows = jax.tree.map(lambda x: x[:ticks], ticks_of(state.replay.rows, 4))
    params = doubles(state.learner.params)
    assert rows.last.sum() > 10
    assert (rows.last[1:] & ~rows.terminated[:-1]).any()
    for e in range(4):
        start = jax.tree.map(lambda c: np.zeros(SIZE), trainer.policy.carry(1))
        _, states = unroll(kind, params, rows.obs[:, e].astype(np.float64), rows.last[:, e], start)
        after = jax.tree.map(lambda c: np.zeros_like(c), states[-1]) if rows.last[-1, e] else states[-1]
        for t in range(ticks):
            stored = jax.tree.map(lambda c, t=t, e=e: c[t, e], rows.carry)
            for a, b in zip(*map(jax.tree.leaves, (stored, states[t])), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(*map(jax.tree.leaves, (state.actor.carry, after)), strict=True):
            np.testing.assert_allclose(a[e], b, rtol=1e-4, atol=1e-5)


def test_the_first_values_of_a_segment_are_those_of_acting():
    """A segment drawn from replay, unrolled by the learner's network, says what the actor said there: nothing is stale
    while parameters stand still."""
    trainer, hyper, state = warmed_up("lstm", 4)
    config, _ = jdqn.preset("r2d2", "", batch_size=64)
    memory = replay.prioritised(25, 4, config.batch_size, 7, -1)
    sample = memory.sample(jax.random.key(3), state.replay, trainer.num_warm_up, 0, hyper)
    rows, params = jax.tree.map(np.asarray, sample.rows), doubles(state.learner.params)
    assert rows.last[1:].any()
    for b in range(config.batch_size):
        start = jax.tree.map(lambda c, b=b: c[0, b].astype(np.float64), rows.carry)
        _, states = unroll("lstm", params, rows.obs[:, b].astype(np.float64), rows.last[:, b], start)
        for t in range(7):
            for a, b_ in zip(jax.tree.leaves(rows.carry), jax.tree.leaves(states[t]), strict=True):
                np.testing.assert_allclose(a[t, b], b_, rtol=1e-4, atol=1e-5)
