"""Every algorithm learns the values of the exam in probes.py, which are known exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest

import jdqn
from jdqn.types import Atoms

# Sizes, lengths and rates that fit the exam; head, target, replay, network and exploration are the row's own.
SMALL = dict(
    hidden_sizes=(32, 32), core_size=32, acting_atoms=8, discount=probes.DISCOUNT, value_min=-2.5, value_max=2.5,
    total_steps=40_000, warm_up_steps=4_000, epsilon_steps=20_000.0, learning_rate=3e-3,
    learning_rate_final_fraction=0.0, num_envs=16, rollout_length=2, batch_size=32, replay_size=40_000,
    target_period=10,
)  # fmt: skip
PQN = dict(
    num_envs=32, rollout_length=8, batch_size=8, updates=8, warm_up_steps=0, target_period=1, epsilon_steps=30_000.0,
    total_steps=60_000,
)  # fmt: skip
OVERRIDES = {
    "q_learning": dict(
        num_envs=1, rollout_length=1, batch_size=1, replay_size=2, warm_up_steps=0, target_period=1, learning_rate=0.3,
        epsilon_steps=40_000.0,
    ),
    "r2d2": dict(batch_size=16, burn_in=2, unroll_length=4),
    # Of 32 features, products of two ReLUs, so few may live that a fraction cannot be learnt.
    **{name: dict(updates=3, hidden_sizes=(64, 64)) for name in ("iqn", "fqf", "miqn", "btr")},
    **{name: dict(updates=2) for name in ("hl_gauss", "noisy", "rainbow")},
    "pqn": PQN,
    "pqn_rnn": PQN,
}  # fmt: skip


def exam_preset(algorithm):
    return jdqn.preset(algorithm, "", **SMALL | OVERRIDES.get(algorithm, {}))


def effort(config):
    """Options for XLA: most programs here take longer to compile than to run, those that sample do not."""
    return {"xla_backend_optimization_level": 2 if config.noisy or "quantile" in config.head else 0}


def deviation(atoms):
    """Standard deviation [...] of the return."""
    centred = atoms.value - (atoms.value * atoms.weight).sum(-1, keepdims=True)
    return jnp.sqrt((centred**2 * atoms.weight).sum(-1))


def learn_and_sit(trainer, hyper, iterations, key):
    """Learnt means [T, B, A] along probes.PATHS and learnt deviations, which a policy gives if mean() gives them."""
    state, _ = jdqn.train(trainer, key, hyper, iterations)
    sit = functools.partial(probes.sit, trainer, state.learner.params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Atoms, "mean", deviation)
        deviations = sit()
    return sit(), deviations


def exact(config, hyper):
    """Q [A] of every state: what `config` should learn."""
    bonus = (hyper.munchausen_scale, hyper.munchausen_temperature, hyper.munchausen_floor)
    answers = probes.answers(*bonus) if config.target == "munchausen" else probes.answers()
    # Without memory both cues look alike when the question comes: either answer is right half of the time.
    return answers if config.core != "none" else answers | {name: np.zeros(2) for name in probes.AFTER_A_CUE}


def tolerance(config, name):
    """How far the learnt value may be from the exact one, about twice the worst of six seeds."""
    if name in ("toss", "coin") or (config.core == "none" and name in probes.AFTER_A_CUE):
        return 0.4  # a sample of coins: 1 is won or lost
    if name in (*probes.LOCKED, *probes.AFTER_A_CUE):
        return 0.25 if config.n_step == 1 else 0.5  # n-step returns hold the failures of those who explored
    return 0.25 if name == "limit" else 0.12  # where errors feed on themselves


def widths(config):
    """Standard deviation of the return that `config` should see, by state.

    C51 sees all of it. HL-Gauss sees a reward as it falls, and of the next state the mean, smoothed by 3/4 of a bin of
    0.1. An expected value sees none. The quantile Huber loss pulls quantiles together: those of a coin of +-1 are at
    (2 f - 1) / max(f, 1 - f), and pulled once more a step before, unless n-step returns reach across it.
    """
    before, coin, smoothing = {
        "scalar": (0.0, 0.0, 0.0),
        "categorical": (probes.DISCOUNT, 1.0, 0.0),
        "hl_gauss": (0.075, 1.0, 0.075),
    }.get(config.head, (0.344 if config.n_step == 1 else 0.499, 0.674, 0.0))
    return {"one": smoothing, "toss": before, "coin": coin}


def mistakes(config, hyper, means, deviations):
    """What is wrong with the answers: (state, what was learnt, what is exact)."""
    means, deviations, wrong = probes.by_name(means), probes.by_name(deviations), []
    for name, answer in exact(config, hyper).items():
        q = means[name]
        near = abs(q.max() - answer.max()) < tolerance(config, name)
        if name in ("choice", "left", "right"):  # the worse action too, which is tried less
            near &= abs(q.min() - answer.min()) < 0.5
        if not near or (np.ptp(answer) > 0.1 and q.argmax() != answer.argmax()):
            wrong.append((name, q, answer))
    for name, width in widths(config).items():
        spread = deviations[name][means[name].argmax()]
        if not abs(spread - width) < 0.2:
            wrong.append((name, "deviation", spread, width))
    return wrong


def test_the_answers_by_hand():
    """One step, many steps, a time limit, a termination in its place, a coin, a lock, a cue; Munchausen's soft values.

    Where two actions do the same, Munchausen pays bonus x temperature x log 1/2 now and temperature x log 2 at the next
    state; an action that is clearly worse loses the whole bonus.
    """
    d, q = probes.DISCOUNT, probes.answers()
    best = {
        "one": 1, "far_0": d**3, "far_1": d**2, "far_2": d, "far_3": 1, "choice": 1, "left": 1, "right": 1,
        "limit": 0.3 / (1 - d), "mortal": 0.3 / (1 - d / 2), "toss": 0, "coin": 0, "lock_0": d**3, "lock_3": 1,
        "red": d**3, "blue_3": 1,
    }  # fmt: skip
    for name, value in best.items():
        np.testing.assert_allclose(q[name].max(), value, atol=1e-9, err_msg=name)
    assert [q[f"lock_{i}"].argmax() for i in range(len(probes.LOCK))] == list(probes.LOCK)
    soft, entropy = probes.answers(0.9, 0.03), 0.03 * np.log(2)
    np.testing.assert_allclose(soft["one"], 1 - 0.9 * entropy, atol=1e-9)
    np.testing.assert_allclose(soft["limit"], (0.3 - 0.9 * entropy + d * entropy) / (1 - d), atol=1e-9)
    np.testing.assert_allclose(soft["left"], [1, -1 - 0.9], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", jdqn.ALGORITHMS)
def test_every_algorithm_passes_the_exam(algorithm):
    """Values, greedy choices and the spread of a coin; who has no memory is at chance where the cue is long ago."""
    config, hyper = exam_preset(algorithm)
    trainer = jdqn.build(config, probes.exam())
    run = functools.partial(learn_and_sit, trainer, hyper, jdqn.total_iterations(config))
    means, deviations = jax.jit(run, compiler_options=effort(config))(jax.random.key(0))
    assert not mistakes(config, hyper, np.asarray(means), np.asarray(deviations))
