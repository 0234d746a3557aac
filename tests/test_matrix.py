"""Any combination that makes sense builds and traces; one that does not is refused, and all of those are listed here.

The pairwise cover of all axes runs with every commit. `pytest -m matrix --dist load` takes every combination of the
axes in STRUCTURE, about an hour on two cores; to each the other axes bring values drawn at random, the same ones every
time, so that any three values that may meet do meet.
"""

import itertools
import random
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

import jdqn


def named(field: str, *values: str) -> dict[str, dict]:
    return {value: {field: value} for value in values}


# What each value of an axis sets; the first one is plain.
AXES: dict[str, dict[str, dict]] = {
    "ensemble": {"single": {}, "ensemble": dict(ensemble=3)},
    "core": {"feed_forward": {}} | named("core", "gru", "lstm"),
    "network": {"layers": {}} | named("network", "tabular"),
    "head": {"scalar": {}, "rescaled": dict(value_rescaling=True)}
    | named("head", "categorical", "hl_gauss", "quantile", "implicit_quantile", "parameterised_quantile"),
    "last": {"one_stream": {}, "dueling": dict(dueling=True), "noisy": dict(noisy=True)}
    | {"dueling_noisy": dict(dueling=True, noisy=True)},
    "target": named("target", "greedy", "munchausen", "lambda_returns"),
    "double": {"max": {}, "double": dict(double=True)},
    "replay": named("replay", "uniform", "prioritised", "last_rollout"),
    "segment": {"transition": {}, "n_step": dict(n_step=3), "unroll": dict(unroll_length=4)}
    | {"n_step_unroll": dict(n_step=3, unroll_length=4)},
    "exploration": named("exploration", "epsilon_greedy", "ladder", "softmax", "member"),
    "burn_in": {"cold": {}, "burn_in": dict(burn_in=2)},
    "torso": {"mlp": {}} | named("image_network", "minatar", "nature", "impala"),
    "frames": {"one": {}, "stack": dict(frame_stack=3)},
    "norm": {"bare": {}, "layer_norm": dict(layer_norm=True)},
    "loss": named("loss", "squared", "huber"),
    "bootstrap": {"target_network": {}, "itself": dict(target_period=0)},
}
# Every combination of these is taken, but of ladder, which is epsilon_greedy with other numbers.
STRUCTURE = {
    axis: [value for value in AXES[axis] if value != "ladder"]
    for axis in itertools.takewhile(lambda axis: axis != "burn_in", AXES)
}
OFTEN = {"torso": [12, 2, 1, 1]}  # how often a value is drawn for the rest: convolutions take long to trace
PLAIN = {axis: next(iter(values)) for axis, values in AXES.items()}
CHOOSES = "implicit_quantile", "parameterised_quantile"  # the heads that choose their fractions

# Values that are refused, whatever the rest: what the sentence says, and on each axis the values it is said of.
REFUSED: dict[frozenset, str] = {
    frozenset(zip(axes, values, strict=True)): sentence
    for sentence, axes, *said_of in [
        ("no streams to duel, no layers to make noisy", ("network", "last"), ["tabular"], list(AXES["last"])[1:]),
        ("to normalise or to put a core behind: switch", ("network", "norm"), ["tabular"], ["layer_norm"]),
        ("to put a core behind: switch dueling, noisy", ("network", "core"), ["tabular"], ["gru", "lstm"]),
        ("head={head} reads features, and a tabular network has none", ("network", "head"), ["tabular"], CHOOSES),
        ("needs one one-hot state, not a stack of 3", ("network", "frames"), ["tabular"], ["stack"]),
        ("needs a one-hot state, bool [states]", ("network", "torso"), ["tabular"], list(AXES["torso"])[1:]),
        ("loss=huber belongs to head=scalar, got head={head}", ("loss", "head"), ["huber"], list(AXES["head"])[2:]),
        ("double belongs to target=greedy, got target={target}", ("double", "target"), ["double"],
         ["munchausen", "lambda_returns"]),
        ("target=lambda_returns needs n_step=1, got 3", ("target", "segment"), ["lambda_returns"],
         ["n_step", "n_step_unroll"]),
        ("runs along a segment, and one learnt row is none", ("target", "segment", "replay"), ["lambda_returns"],
         ["transition"], ["uniform", "prioritised"]),
        ("burn_in=2 warms up a recurrent carry, and there is none", ("burn_in", "core"), ["burn_in"], ["feed_forward"]),
        ("learns from every row, so burn_in must be 0, got 2", ("replay", "burn_in"), ["last_rollout"], ["burn_in"]),
        ("whole rollout, so unroll_length must be left at 1, got 4", ("replay", "segment"), ["last_rollout"],
         ["unroll", "n_step_unroll"]),
        ("exploration=member follows a member of an ensemble", ("exploration", "ensemble"), ["member"], ["single"]),
        ("an ensemble of recurrent networks is not supported", ("ensemble", "core"), ["ensemble"], ["gru", "lstm"]),
        ("chooses its own fractions, got head={head}", ("ensemble", "head"), ["ensemble"], CHOOSES),
    ]
    for values in itertools.product(*said_of)
}  # fmt: skip
# And those that follow: a value needs one of another axis that its partner refuses.
FOLLOWS = {
    frozenset(pair)
    for needs, refuse in [
        (("exploration", "member"), [("core", "gru"), ("core", "lstm"), *(("head", head) for head in CHOOSES)]),
        (("burn_in", "burn_in"), [("ensemble", "ensemble"), ("exploration", "member"), ("network", "tabular")]),
    ]
    for pair in itertools.product([needs], refuse)
}


def settings(case: dict) -> dict:
    """The settings that a case stands for, on tiny shapes."""
    chosen = dict(
        total_steps=2_000, num_envs=4, rollout_length=6, updates=2, batch_size=2, replay_size=600, warm_up_steps=60,
        hidden_sizes=(8, 8), core_size=4, atoms=5, acting_atoms=3, value_min=-1.0, value_max=1.0,
    )  # fmt: skip
    for axis, value in case.items():
        chosen |= AXES[axis][value]
    return chosen


def reasons(case: dict, refused: dict = REFUSED) -> list[str]:
    """What may be said to refuse a case, or the part of one; nothing if it is allowed."""
    values = set(case.items())
    return [sentence.format(**case) for part, sentence in refused.items() if part <= values]


def walk(torso: str = "mlp") -> jdqn.Env:
    """A walk of five states, shown one-hot or as an image that `torso` reads."""
    images = {"minatar": ((4, 5, 2), bool), "nature": ((36, 37, 1), jnp.uint8), "impala": ((3, 2, 1), jnp.float32)}

    def see(x):
        if torso == "mlp":
            return jax.nn.one_hot(x, 5, dtype=bool)
        shape, dtype = images[torso]
        return jnp.full(shape, x, dtype)

    def step(key, x, action):
        x = (x + action) % 5
        return x, jdqn.Step(see(x), x.astype(jnp.float32), x == 4, jax.random.bernoulli(key, 0.1))

    return jdqn.Env(lambda key: (jnp.int32(0), see(jnp.int32(0))), step, num_actions=3)


def check(case: dict) -> None:
    """A case is refused for a reason of its own, or its state keeps structure, shapes and dtypes through a step."""
    said = reasons(case)
    if said:
        with pytest.raises(jdqn.ConfigError) as error:
            jdqn.build(jdqn.preset("dqn", **settings(case))[0], walk(case["torso"]))
        assert any(sentence in str(error.value) for sentence in said)
        return
    config, hyper = jdqn.preset("dqn", **settings(case))
    trainer = jdqn.build(config, walk(case["torso"]))
    before = jax.eval_shape(trainer.init, jax.random.key(0), hyper)
    after, metrics = jax.eval_shape(trainer.step, before, hyper, jax.ShapeDtypeStruct((), jnp.int32))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), before)
    assert all(x.shape == () for x in jax.tree.leaves(metrics))


def pairwise() -> list[dict]:
    """Few allowed cases in which every pair of values that may meet does meet (a greedy cover)."""
    missing = every_pair() - REFUSED.keys() - FOLLOWS
    cases = []
    for pair in sorted(missing, key=sorted):
        if pair in missing:
            case = complete(dict(sorted(pair)), missing)
            if case is not None:
                cases.append(case)
                missing -= pairs_of(case)
    return cases


def every_pair() -> set[frozenset]:
    return {frozenset({(a, x), (b, y)}) for a, b in itertools.combinations(AXES, 2) for x in AXES[a] for y in AXES[b]}


def pairs_of(case: dict) -> set[frozenset]:
    return {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}


def complete(case: dict, missing: set = frozenset(), refused: dict = REFUSED) -> dict | None:
    """Add a value of each other axis, the one that meets most missing pairs first; None if no case is allowed."""
    if reasons(case, refused):
        return None
    axis = next((axis for axis in AXES if axis not in case), None)
    if axis is None:
        return {axis: case[axis] for axis in AXES}

    def gain(value):
        return sum(frozenset({(axis, value), met}) in missing for met in case.items())

    tried = (complete(case | {axis: value}, missing, refused) for value in sorted(AXES[axis], key=gain, reverse=True))
    return next((found for found in tried if found is not None), None)


def every_structure(**fixed: str) -> Iterator[dict]:
    """Every combination in STRUCTURE, each with values of the other axes that add no reason to refuse it."""
    for values in itertools.product(*([fixed[axis]] if axis in fixed else STRUCTURE[axis] for axis in STRUCTURE)):
        case, draw = dict(zip(STRUCTURE, values, strict=True)), random.Random("-".join(values))
        if case["exploration"] == "epsilon_greedy":
            case["exploration"] = draw.choice(["epsilon_greedy", "ladder"])
        whole, said = case, len(reasons(case))
        while len(whole) < len(AXES) or len(reasons(whole)) > said:
            whole = case | {a: draw.choices(list(AXES[a]), OFTEN.get(a))[0] for a in AXES if a not in case}
        yield whole


def name_of(case: dict) -> str:
    """The values that are not plain."""
    return "-".join(value for axis, value in case.items() if value != PLAIN[axis]) or "plain"


PAIRS = pairwise()


def test_the_cover_is_one():
    """Every pair of values meets in a case, but for those that are refused with each other or with all others."""
    met = set().union(*map(pairs_of, PAIRS))
    assert every_pair() - met == {part for part in REFUSED if len(part) == 2} | FOLLOWS
    assert not any(complete(dict(pair)) for pair in FOLLOWS)


@pytest.mark.parametrize("case", PAIRS, ids=name_of)
def test_pairs(case):
    assert not reasons(case)
    check(case)


@pytest.mark.parametrize("part", sorted(REFUSED, key=sorted), ids=lambda part: name_of(dict(sorted(part))))
def test_refusals(part):
    """In a case that nothing else refuses, so that it must be said."""
    case = complete(dict(part), refused={other: said for other, said in REFUSED.items() if other != part})
    assert len(reasons(case)) == 1
    check(case)


@pytest.mark.matrix
def test_any_three_meet():
    met = set()
    for case in every_structure():
        if not reasons(case):
            met.update(itertools.combinations(((axis, case[axis]) for axis in AXES), 3))
    for axes in itertools.combinations(AXES, 3):
        for values in itertools.product(*(AXES[axis] for axis in axes)):
            three = tuple(zip(axes, values, strict=True))
            assert three in met or complete(dict(three)) is None, three


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.parametrize("head", AXES["head"])
@pytest.mark.parametrize("last", AXES["last"])
def test_everything(head, last):
    """All structures with one head on one last layer."""
    for case in every_structure(head=head, last=last):
        try:
            check(case)
        except Exception as error:
            raise AssertionError(name_of(case)) from error


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in PAIRS if case["torso"] == "mlp"][1::2], ids=name_of)
def test_some_of_them_run(case):
    """And what traces also runs: finite parameters after forty iterations, without convolutions that take a minute."""
    config, hyper = jdqn.preset("dqn", **settings(case))
    trainer = jdqn.build(config, walk())
    state, metrics = jax.jit(lambda key: jdqn.train(trainer, key, hyper, 40))(jax.random.key(0))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.learner.params))
    assert jnp.isfinite(metrics.learn.loss[trainer.num_warm_up :]).all()
