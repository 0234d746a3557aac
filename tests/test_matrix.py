"""Any combination that makes sense builds and traces; one that does not is refused, and all of those are listed here.

The pairwise cover runs with every commit, the whole matrix with `pytest -m matrix`.
"""

import itertools

import jax
import jax.numpy as jnp
import pytest

import jdqn

AXES = {
    "head": [
        "scalar",
        "rescaled",
        "categorical",
        "hl_gauss",
        "quantile",
        "implicit_quantile",
        "parameterised_quantile",
    ],
    "target": ["greedy", "double", "munchausen", "lambda_returns"],
    "replay": ["uniform", "prioritised", "last_rollout"],
    "body": ["mlp", "dueling", "noisy", "gru", "lstm", "ensemble", "tabular"],
    "segment": ["transition", "n_step", "unroll"],
    "frames": ["one", "stack"],
    "exploration": ["epsilon_greedy", "ladder", "softmax", "member"],
}

# Pairs that are refused, whatever the rest; (axis, value) twice.
REFUSED = {
    frozenset({("target", "lambda_returns"), ("segment", "n_step")}),
    frozenset({("replay", "last_rollout"), ("segment", "unroll")}),
    frozenset({("body", "tabular"), ("head", "implicit_quantile")}),
    frozenset({("body", "tabular"), ("head", "parameterised_quantile")}),
    frozenset({("body", "tabular"), ("frames", "stack")}),
    frozenset({("body", "ensemble"), ("head", "implicit_quantile")}),
    frozenset({("body", "ensemble"), ("head", "parameterised_quantile")}),
    *(frozenset({("exploration", "member"), ("body", body)}) for body in AXES["body"] if body != "ensemble"),
}


def settings(case: dict) -> dict:
    """The settings that a case stands for, on tiny shapes."""
    chosen = dict(
        total_steps=2_000, num_envs=4, rollout_length=6, updates=2, batch_size=2, replay_size=600, warm_up_steps=60,
        hidden_sizes=(8, 8), core_size=4, atoms=5, acting_atoms=3, value_min=-1.0, value_max=1.0,
        replay=case["replay"], exploration=case["exploration"], frame_stack=3 if case["frames"] == "stack" else 1,
    )  # fmt: skip
    chosen |= {"rescaled": dict(value_rescaling=True)}.get(case["head"], dict(head=case["head"]))
    chosen |= {"double": dict(double=True)}.get(case["target"], dict(target=case["target"]))
    chosen |= {
        "mlp": {}, "dueling": dict(dueling=True), "noisy": dict(noisy=True), "gru": dict(core="gru"),
        "lstm": dict(core="lstm"), "ensemble": dict(ensemble=3), "tabular": dict(network="tabular"),
    }[case["body"]]  # fmt: skip
    chosen |= {"transition": {}, "n_step": dict(n_step=3), "unroll": dict(unroll_length=4)}[case["segment"]]
    if case["segment"] == "unroll" and case["body"] in ("gru", "lstm"):
        chosen |= dict(burn_in=2)
    return chosen


def refused(case: dict) -> bool:
    pairs = {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}
    alone = case["target"] == "lambda_returns" and case["segment"] == "transition" and case["replay"] != "last_rollout"
    return alone or bool(pairs & REFUSED)


def walk() -> jdqn.Env:
    """A one-hot walk of five states."""

    def see(x):
        return jax.nn.one_hot(x, 5, dtype=bool)

    def step(key, x, action):
        x = (x + action) % 5
        return x, jdqn.Step(see(x), x.astype(jnp.float32), x == 4, jax.random.bernoulli(key, 0.1))

    return jdqn.Env(lambda key: (jnp.int32(0), see(0)), step, num_actions=3)


def check(case: dict) -> None:
    """A case is refused in a sentence, or its state keeps structure, shapes and dtypes through a step."""
    if refused(case):
        with pytest.raises(jdqn.ConfigError) as error:
            jdqn.build(jdqn.preset("dqn", **settings(case))[0], walk())
        assert len(str(error.value)) > 40
        return
    config, hyper = jdqn.preset("dqn", **settings(case))
    trainer = jdqn.build(config, walk())
    before = jax.eval_shape(trainer.init, jax.random.key(0), hyper)
    after, metrics = jax.eval_shape(trainer.step, before, hyper, jax.ShapeDtypeStruct((), jnp.int32))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), before)
    assert all(x.shape == () for x in jax.tree.leaves(metrics))


def pairwise() -> list[dict]:
    """Few allowed cases in which every pair of values that may meet does meet (a greedy cover)."""
    missing = {
        frozenset({(a, x), (b, y)}) for a, b in itertools.combinations(AXES, 2) for x in AXES[a] for y in AXES[b]
    } - REFUSED
    cases = []
    for pair in sorted(missing, key=sorted):
        if pair in missing:
            case = complete(dict(sorted(pair)), missing)
            if case is not None:
                cases.append(case)
                missing -= {frozenset(met) for met in itertools.combinations(case.items(), 2)}
    return cases


def complete(case: dict, missing: set) -> dict | None:
    """Add a value of each other axis, the one that meets most missing pairs first; None if no case is allowed."""
    axis = next((axis for axis in AXES if axis not in case), None)
    if axis is None:
        return None if refused(case) else {axis: case[axis] for axis in AXES}

    def gain(value):
        return sum(frozenset({(axis, value), met}) in missing for met in case.items())

    for value in sorted(AXES[axis], key=gain, reverse=True):
        longer = case | {axis: value}
        if not any(frozenset(pair) in REFUSED for pair in itertools.combinations(longer.items(), 2)):
            found = complete(longer, missing)
            if found is not None:
                return found
    return None


def name_of(case: dict) -> str:
    return "-".join(case[axis] for axis in AXES)


PAIRS = pairwise()


def test_the_cover_is_one():
    """Every pair of values meets in a case, but for those that are refused with each other or with all others."""
    met = {frozenset(pair) for case in PAIRS for pair in itertools.combinations(case.items(), 2)}
    every = {frozenset(pair) for a, b in itertools.combinations(AXES, 2) for pair in
             itertools.product(((a, x) for x in AXES[a]), ((b, y) for y in AXES[b]))}  # fmt: skip
    member = {frozenset({("exploration", "member"), ("head", head)}) for head in AXES["head"] if "_quantile" in head}
    assert every - met == REFUSED | member


@pytest.mark.parametrize("case", PAIRS, ids=name_of)
def test_pairs(case):
    assert not refused(case)
    check(case)


@pytest.mark.parametrize("pair", sorted(map(sorted, REFUSED)), ids=lambda pair: "-".join(value for _, value in pair))
def test_refusals(pair):
    plain = {axis: values[0] for axis, values in AXES.items()}
    if dict(pair).get("target") == "lambda_returns":
        plain["replay"] = "last_rollout"
    assert refused(plain | dict(pair))
    check(plain | dict(pair))


def test_lambda_returns_need_a_segment():
    case = {axis: values[0] for axis, values in AXES.items()} | {"target": "lambda_returns"}
    assert refused(case)
    check(case)


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.parametrize("head", AXES["head"])
@pytest.mark.parametrize("body", AXES["body"])
def test_everything(head, body):
    """All cases of one head on one body."""
    rest = [axis for axis in AXES if axis not in ("head", "body")]
    for values in itertools.product(*(AXES[axis] for axis in rest)):
        case = dict(zip(rest, values, strict=True)) | {"head": head, "body": body}
        try:
            check({axis: case[axis] for axis in AXES})
        except Exception as error:
            raise AssertionError(name_of(case)) from error


@pytest.mark.slow
@pytest.mark.parametrize("case", PAIRS[::6], ids=name_of)
def test_some_of_them_run(case):
    """And what traces also runs: finite parameters after forty iterations."""
    config, hyper = jdqn.preset("dqn", **settings(case))
    trainer = jdqn.build(config, walk())
    state, metrics = jax.jit(lambda key: jdqn.train(trainer, key, hyper, 40))(jax.random.key(0))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.learner.params))
    assert jnp.isfinite(metrics.learn.loss[trainer.num_warm_up :]).all()
