"""Settings and command lines at random: each works or is refused in one sentence, and nothing else ever happens.

A few with every commit, always the same ones; 2,000 of each with `pytest -m nightly tests/test_fuzz.py -s`.
"""

import collections
import contextlib
import dataclasses
import io
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jdqn
from jdqn import Config, ConfigError, Hyper, envs, run
from jdqn.host.options import Options
from jdqn.host.program import Run
from jdqn.shards import AGENTS, Shards
from jdqn.validation import FRACTIONS, POSITIVE, validate_hyper

ALWAYS = settings(
    max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
NIGHTLY = settings(ALWAYS, max_examples=2_000)
NIGHTS = [ALWAYS, pytest.param(NIGHTLY, marks=pytest.mark.nightly)]

# What fits together more often than not ...
SENSIBLE: dict[str, list] = dict(
    total_steps=[500, 2_000, 1_999], num_envs=[1, 2, 3, 4, 8], rollout_length=[1, 2, 5, 8], updates=[1, 2, 7],
    batch_size=[1, 2, 4, 16], frame_stack=[1, 1, 1, 2, 4], replay_size=[100, 500, 1_000], warm_up_steps=[0, 1, 50, 200],
    hidden_sizes=[(), (8,), (16, 8), (4, 4, 4)], core_size=[1, 5, 16], ensemble=[1, 1, 1, 2, 5], atoms=[1, 2, 5, 51],
    acting_atoms=[1, 3, 32], value_min=[-10.0, 0.0, -1], value_max=[10.0, 1.0, 300], n_step=[1, 1, 2, 5],
    unroll_length=[1, 1, 2, 8], burn_in=[0, 0, 0, 3], target_period=[1, 10, 250],
)  # fmt: skip
PLAIN = {name: values[-1] for name, values in SENSIBLE.items()} | dict(
    frame_stack=1, warm_up_steps=50, hidden_sizes=(8,), ensemble=1, n_step=1, unroll_length=1, burn_in=0, num_envs=4,
    rollout_length=2, updates=2, batch_size=4,
)  # fmt: skip
# ... and what anybody might put in its place.
ODD = [None, True, "3", "", (), (3,), 3j, object(), [1], np.zeros(2), "nan", 10**5000, b"1"]
COUNTS = [
    -1, 0, 1, 2, 3, 9, 64, 99, 100, 101, 999, 1_000, 1_001, 10_000, 10_001, 2**16, 10**6, 10**9, 2**30, 2**31 - 1,
    2**31, 2**63, 10**30, 1.0, 2.5, float("nan"), np.int32(4), np.int64(7), np.int32(2**30), np.uint8(200),
]  # fmt: skip
NUMBERS = [
    -1e39, -3.4e38, -1.0, -1e-3, 0.0, -0.0, 1e-45, 1e-39, 1.2e-38, 1e-8, 0.3, 1.0, 1.0000001, 2.0, 1e8, 3.4e38, 1e39,
    1e308, float("inf"), -float("inf"), float("nan"), 0, 1, 7, 2**31, 10**30, 10**400, np.float32(0.5), np.float16(1),
]  # fmt: skip
SIZES = [(0,), (-1,), (2**31 - 1,), (2**31,), (10**6, 10**6), (1,) * 100, (1,) * 101, (8.0,), [8], (True,), (8, "8")]


def sensible(field) -> st.SearchStrategy:
    values = SENSIBLE.get(field.name) or {bool: [False, False, True]}.get(field.type) or typing.get_args(field.type)
    return st.sampled_from(values)


def wild(field) -> st.SearchStrategy:
    """Any value for a field of Config: of its type and far out, or of another."""
    if typing.get_origin(field.type) is typing.Literal:
        return st.sampled_from([*typing.get_args(field.type), "other", *ODD])
    return st.sampled_from({int: COUNTS, float: NUMBERS, bool: [False, True, 0, 1]}.get(field.type, SIZES) + ODD)


def hyper_value(name: str) -> st.SearchStrategy:
    if name in FRACTIONS:
        return st.floats(0, 1)
    return st.floats(1e-30, 1e30) if name in POSITIVE else st.just(getattr(Hyper(), name))


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


@st.composite
def agents(draw) -> tuple[dict, dict]:
    """Settings of Config and of Hyper: up to ten that are not the plain ones, and up to two that are wild."""
    chosen = dict(PLAIN)
    for name in draw(st.lists(st.sampled_from(list(FIELDS)), max_size=10)):
        chosen[name] = draw(sensible(FIELDS[name]))
    for name in draw(st.lists(st.sampled_from(list(FIELDS)), max_size=2)) if draw(st.booleans()) else []:
        chosen[name] = draw(wild(FIELDS[name]))
    hyper = {name: draw(hyper_value(name)) for name in draw(st.lists(st.sampled_from(Hyper._fields), max_size=3))}
    if draw(st.integers(0, 9)) == 0:
        hyper[draw(st.sampled_from(Hyper._fields))] = draw(
            st.sampled_from(NUMBERS + [x for x in ODD if not isinstance(x, np.ndarray)])
        )
    return chosen, hyper


def walk(shape: tuple[int, ...], dtype, one_hot: bool = False) -> jdqn.Env:
    """Five states, shown as `shape` and `dtype`."""

    def see(x):
        return jax.nn.one_hot(x, 5, dtype=bool) if one_hot else jnp.full(shape, x).astype(dtype)

    def step(key, x, action):
        x = (x + action) % 5
        return x, jdqn.Step(see(x), x.astype(jnp.float32), x == 4, jax.random.bernoulli(key, 0.1))

    return jdqn.Env(lambda key: (jnp.int32(0), see(jnp.int32(0))), step, num_actions=3, name="walk")


WORLDS = {
    "one_hot": walk((5,), bool, one_hot=True),
    "vector": walk((4,), jnp.float32),
    "number": walk((), jnp.int32),
    "plane": walk((6, 7), jnp.float16),
    "image": walk((10, 10, 3), bool),
    "atari": walk((36, 40, 1), jnp.uint8),
    "tiny": walk((2, 2, 1), jnp.float32),
    "block": walk((2, 3, 2, 2), jnp.int8),
}


def kinds(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def built(chosen: dict, hyper: dict, world: str, pieces: int) -> bool:
    """Build and trace an agent, or a shard of one in `pieces`; False if that is refused."""
    try:
        config, numbers = Config(**chosen), Hyper(**hyper)
        validate_hyper(numbers)
        trainer = jdqn.build(config, WORLDS[world], Shards(pieces, (AGENTS,)) if pieces > 1 else jdqn.Shards())
    except ConfigError as error:
        refusal = str(error)
    else:
        trace(trainer, numbers, pieces)
        return True
    assert re.fullmatch(r"[^\n]{15,600}", refusal)
    return False


def trace(trainer: jdqn.Trainer, numbers: Hyper, pieces: int) -> None:
    keys, i = jax.random.split(jax.random.key(0), pieces), jnp.int32(0)

    def of_shards(function):
        return jax.vmap(function, axis_name=AGENTS)

    state = jax.eval_shape(of_shards(lambda key: trainer.init(key, numbers)), keys)
    after, _ = jax.eval_shape(of_shards(lambda state: trainer.step(state, numbers, i)), state)
    assert kinds(after) == kinds(state)


@pytest.mark.parametrize("examples", NIGHTS)
def test_settings_work_or_are_refused(examples):
    """`build` refuses, or what it builds can be traced; which is all that is done to it here."""
    count = collections.Counter()

    @examples
    @given(agents(), st.sampled_from(list(WORLDS)), st.sampled_from([1, 1, 1, 1, 2, 3]))
    def fuzz(settings, world, pieces):
        count[built(*settings, world, pieces)] += 1

    fuzz()
    print(f"{count[True]} built, {count[False]} refused")
    assert min(count.values()) > 0.1 * count.total()


@pytest.mark.parametrize(("changes", "world"), [(dict(frame_stack=2), "number")])
def test_what_was_found(changes, world):
    """Settings that build refused with something else than a sentence, or built and could not trace."""
    assert built(PLAIN | changes, {}, world, 1)


KINDS = {
    name: hint
    for kind in (Options, Config, Hyper)
    for name, hint in typing.get_type_hints(kind).items()
    if name not in ("config", "hyper")
}
FLAGS = {f"--{name.replace('_', '-')}" for name in KINDS}
OWN = dict(
    env=["CartPole-v1", "DeepSea-bsuite", "FrozenLake-misc"], algo=list(jdqn.ALGORITHMS), seeds=[1, 2],
    env_params=["max_steps_in_episode=7"], devices=["all", 1, 2], out=["/tmp/nothing-is-written-here"],
    compilation_cache=["none"], resume=["/no/such/folder"], pbt_fraction=[0.3], pbt_factor=[1.5],
)  # fmt: skip
WORDS = [
    "1", "2", "3", "10", "1000", "0", "-1", "1e400", "-inf", "nan", "1e-3", "0.5", "1_000", "0x10", "1.5", "²",
    str(2**31), str(2**31 - 1), str(10**30), "9" * 5000, "", " ", "-", "--", "---", "=", "a=b", "a=", "size=5", "x",
    "True", "true", "None", "64,64", "64,", ",", "(1,", "[1]", "~", "~nobody-at-all/x", ".", "/", "/dev/null", "a\nb",
    "zero\0byte", "\U0001f600", "\udcff", "x" * 300, "all", "none", "uniform", "prioritised", "last_rollout", "adam",
    "random", "gru", "data", "keep",
    *jdqn.ALGORITHMS, "CartPole-v1", "FrozenLake-misc", "DeepSea-bsuite", "Breakout-MinAtar", "Pendulum-v1", "cartpole",
    "max_steps_in_episode=3", "max_steps_in_episode=1e999", "randomize_actions=False", "gravity={}",
]  # fmt: skip
UNKNOWN = [
    "--learning",
    "--no-double",
    "--No-Double",
    "--config.num-envs",
    "--hyper",
    "-s",
    "--seeds--",
    "--=1",
    "--seed=",
    "-h",
]


@st.composite
def command_lines(draw) -> list[str]:
    """Flags of the program with values, mostly their own or another's; some unknown, some twice."""
    words = ["--env", draw(st.sampled_from(["CartPole-v1", "DeepSea-bsuite"]))] if draw(st.booleans()) else []
    odd = draw(st.booleans())
    for _ in range(draw(st.integers(0, 4))):
        flag = draw(st.sampled_from(sorted(FLAGS)))
        name = flag[2:].replace("-", "_")
        own = OWN.get(name) or SENSIBLE.get(name) or typing.get_args(KINDS[name]) or [getattr(Hyper(), name, 1)]
        values = draw(st.lists(st.sampled_from(list(map(str, own))), min_size=1, max_size=1)) * (
            KINDS[name] is not bool
        )
        if odd and draw(st.booleans()):
            flag = draw(st.sampled_from([flag, *UNKNOWN]))
            values = draw(st.lists(st.sampled_from(WORDS), max_size=3))
        words += [f"{flag}={values[0]}", *values[1:]] if values and draw(st.booleans()) else [flag, *values]
    return words


def status_of(words: list[str]) -> tuple[int, str]:
    """(exit status, what is said on stderr) of the program, which stops before it compiles or writes."""

    def look(console, session, options, split):
        plan = session.plans[0]
        env = envs.make(plan.env, **plan.env_params)
        if plan.agents <= 4 and session.devices in (None, 1):
            Run(plan, env, 1).require_memory()

    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        patch.setattr(run, "train", look)
        patch.setattr(run, "keep_compiled", lambda where: None)
        patch.setattr(run, "meet", lambda *_: None)
        try:
            return run.main(words), said.getvalue()
        except SystemExit as stop:
            return stop.code, said.getvalue()


@pytest.mark.parametrize("examples", NIGHTS)
def test_command_lines_work_or_are_refused(examples):
    count = collections.Counter()

    @examples
    @given(command_lines())
    def fuzz(words):
        status, said = status_of(words)
        assert status in (0, 2)
        if status == 0:  # all the same, there may be something that should be known
            assert re.fullmatch(r"(warning: [^\n]{15,900}\n)*", said)
        else:
            assert re.fullmatch(r"error: [^\n]{15,900}\n", said) or "--help" in said
        count[status] += 1

    fuzz()
    print(f"{count[0]} accepted, {count[2]} refused")
    assert min(count.values()) > 0.1 * count.total()
