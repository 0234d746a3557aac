"""Settings: what is refused and how, the arithmetic of the clock, and how a preset is put together."""

import dataclasses
import math
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jdqn
from jdqn import config as rules
from jdqn import presets
from jdqn.config import Config, ConfigError, Hyper
from jdqn.validation import COMBINATIONS, FRACTIONS, MAY_BE_ZERO, POSITIVE, validate_config, validate_hyper

COUNTS = [field.name for field in dataclasses.fields(Config) if field.type is int]
SWITCHES = [field.name for field in dataclasses.fields(Config) if field.type is bool]
NAMES = [field.name for field in dataclasses.fields(Config) if typing.get_origin(field.type) is typing.Literal]
NO_NUMBER = [float("nan"), float("inf"), -float("inf")]
BAD = {field: [0.0, -1e-3, 1e39, 1e-39, *NO_NUMBER] for field in POSITIVE}  # two are 0 and infinite in float32
BAD |= {field: [-1e-3, 1.001, *NO_NUMBER] for field in FRACTIONS}
BAD |= {key: [0.0, 1e-39, -0.001, 1.001, *NO_NUMBER] for key in ["target_update_rate", "bootstrap_probability"]}
BAD |= {key: [-0.001, 1e39, *NO_NUMBER] for key in ["munchausen_scale", "ladder_exponent"]}
BAD["munchausen_floor"] = [1e-3, -1e39, *NO_NUMBER]
FLOATS = [field.name for field in dataclasses.fields(Config) if field.type is float]


def test_every_field_is_looked_at():
    assert set(BAD) == set(Hyper._fields)
    assert {*COUNTS, *NAMES, *SWITCHES, *FLOATS, "hidden_sizes"} == {field.name for field in dataclasses.fields(Config)}
    validate_config(Config())
    validate_hyper(Hyper())


@pytest.mark.parametrize("value", [-1, 0, 2**31, 10**30, 2.5, 1e4, *NO_NUMBER, "8", True, None, (8,), 8j])
def test_a_count_must_be_a_whole_number_above_zero(value):
    """Not a float that happens to be whole either: the clock would then count in floats."""
    for field in COUNTS:
        if value != 0 or isinstance(value, bool) or field not in MAY_BE_ZERO:
            with pytest.raises(ConfigError, match=rf"^{field} must be .*got {re.escape(str(value))}"):
                validate_config(dataclasses.replace(Config(), **{field: value}))


def test_counts_that_are_fine():
    validate_config(Config(warm_up_steps=0, num_envs=np.int64(4), batch_size=np.int32(8), hidden_sizes=()))


@pytest.mark.parametrize("field", SWITCHES)
def test_a_switch_must_be_on_or_off(field):
    for value in (0, 1, "no", None):
        with pytest.raises(ConfigError, match=rf"^{field} must be True or False, got {value}"):
            validate_config(dataclasses.replace(Config(), **{field: value}))


@pytest.mark.parametrize("value", [(0,), (64, -1), (64, 2.5), (float("nan"),), (float("inf"),), 64])
def test_hidden_sizes_must_be_a_tuple_of_whole_numbers(value):
    with pytest.raises(ConfigError, match=rf"^hidden_sizes must be .*got {re.escape(str(value))}"):
        validate_config(Config(hidden_sizes=value))


@pytest.mark.parametrize("field", NAMES)
def test_a_name_must_be_one_of_those_there_are(field):
    """Not taken for the default, as an unheard-of replay would be."""
    *_, name = typing.get_args(next(f.type for f in dataclasses.fields(Config) if f.name == field))
    with pytest.raises(ConfigError, match=rf"^{field} must be .*{name}.*got {name}x$"):
        validate_config(dataclasses.replace(Config(), **{field: name + "x"}))


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_a_hyper_parameter_out_of_range_is_refused(field, value):
    for several in (value, np.array([getattr(Hyper(), field), value])):
        with pytest.raises(ConfigError, match=rf"^{field} must be .*got {re.escape(f'{value:g}')}$"):
            validate_hyper(Hyper()._replace(**{field: several}))


NOT_NUMBERS = [
    "1e-3",
    "fast",
    None,
    True,
    1j,
    (),
    [[0.1], [0.1, 0.2]],
    np.array([]),
    ["1", 2],
    [0.5],
    (0.5,),
    -(10**5000),
]
NOT_NUMBERS += [10**400, 2**31, np.array([2**31])]  # a float may be larger, a whole number has 32 bits


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=range(len(NOT_NUMBERS)))
def test_a_hyper_parameter_must_be_a_number(value):
    for field in Hyper._fields:
        with pytest.raises(ConfigError, match=rf"^{field} must be ") as error:
            validate_hyper(Hyper()._replace(**{field: value}))
        assert len(str(error.value)) < 350


def test_whole_numbers_are_numbers():
    validate_hyper(Hyper(learning_rate_steps=10**9, epsilon_steps=np.int32(3), max_gradient_norm=np.array([1, 2.5])))


def test_a_number_of_thousands_of_digits_is_refused():
    """Python does not even write it out."""
    for field in (*COUNTS, *FLOATS):
        with pytest.raises(ConfigError, match=rf"^{field} must be .* a number of thousands of digits$"):
            validate_config(dataclasses.replace(Config(), **{field: 10**5000}))
    with pytest.raises(ConfigError, match=r"^total_steps must be .*, got 1000000"):  # schedules follow it, as a float
        jdqn.preset("dqn", total_steps=10**400)


def test_a_sentence_is_one_line_whatever_it_quotes():
    with pytest.raises(ConfigError) as error:
        jdqn.preset("two\nlines\n")
    assert str(error.value).startswith("unknown algorithm two lines : choose ")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(n_step=1001), "n_step must be a whole number from 1 to 1000, got 1001"),
        (dict(frame_stack=101), "frame_stack must be a whole number from 1 to 100"),
        (dict(atoms=10**9), "^atoms must be a whole number from 1 to 10000"),
        (dict(acting_atoms=10_001), "^acting_atoms must be a whole number from 1 to 10000, got 10001"),
        (dict(hidden_sizes=(1,) * 101), "hidden_sizes must be a tuple of up to 100 whole numbers"),
        (dict(batch_size=513, replay_size=512), "batch_size=513 is more than the 512 rows that .*raise replay_size or"),
        (
            dict(replay_size=2**31 - 1, num_envs=2**20, total_steps=2**30),
            "cannot count 2,149,.* rows of replay .*: lower replay_size, num_",
        ),
        (dict(replay="prioritised", replay_size=2**31 // 4 * 3), "cannot count 2,147,.* rows of replay"),
        (dict(batch_size=2**30, replay_size=2**30 + 1), "cannot count 2,147,483,648 rows in a batch: lower batch_size"),
        (dict(total_steps=2**31 - 1, num_envs=2**10), "cannot count 2,147,483,648 ticks in a run: lower total_steps"),
        (dict(updates=2**16), "cannot count 4,087,808,000 gradient steps .*: lower updates or"),
        (dict(rollout_length=2**30, num_envs=4, warm_up_steps=0, total_steps=2**31 - 1), "warm-up takes"),
    ],
)
def test_what_32_bits_or_a_program_cannot_hold(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        validate_config(Config(**settings))


def test_a_clock_of_numpys_numbers_does_not_overflow():
    assert rules.ticks_per_iteration(Config(num_envs=np.int32(2**16), rollout_length=np.int32(2**16))) == 2**32


def test_the_ends_of_a_range_belong_to_it():
    for end in (0.0, 1.0):
        validate_hyper(Hyper(discount=end, learning_rate_final_fraction=end, epsilon_start=end, epsilon_end=1.0 - end))
    validate_hyper(Hyper(target_update_rate=1.0, learning_rate=np.array([1e-4, 1e-3])))


HEADS = typing.get_args(rules.HeadName)
SUPPORTED, CHOOSING = ("categorical", "hl_gauss"), ("implicit_quantile", "parameterised_quantile")
OTHERS = [head for head in HEADS if head not in SUPPORTED]
LAST = dict(replay="last_rollout", rollout_length=8, batch_size=8)
NO_RANGE = [(10.0, 10.0), (11.0, 10.0)]
# (low, high, atoms, what keeps them apart): more than float32 has, neighbours that are equal, steps that are zero
NOT_APART = [
    (-3.4e38, 3.4e38, 51, dict(value_max=0.0)),
    (1e4, 1e4 + 1, 300, dict(atoms=200)),
    (1e9, 1e9 + 1, 51, dict(value_max=1e9 + 25_000)),
    (0.0, 1e-44, 51, dict(value_max=1e-30)),
]
# What does not go together, what is said of it, and changes that make it right: those that are advised, and others.
TOGETHER: list[tuple[dict, str, list[dict]]] = [
    *(
        (
            dict(network="tabular") | extra,
            "a tabular network has no streams to duel, no layers to make noisy, to normalise or to put a core behind: "
            "switch dueling, noisy, layer_norm and core off, or choose network=mlp",
            [dict(network="mlp"), {name: getattr(Config(), name) for name in extra}],
        )
        for extra in (dict(dueling=True), dict(noisy=True), dict(layer_norm=True), dict(core="gru"), dict(core="lstm"))
    ),
    *(
        (
            dict(network="tabular", head=head),
            f"head={head} reads features, and a tabular network has none: choose head=quantile or network=mlp",
            [dict(head="quantile"), dict(network="mlp")],
        )
        for head in CHOOSING
    ),
    (
        dict(network="tabular", frame_stack=2),
        "a tabular network needs one one-hot state, not a stack of 2: choose frame_stack=1",
        [dict(frame_stack=1), dict(network="mlp")],
    ),
    *(
        (
            dict(value_rescaling=True, head=head),
            f"value_rescaling belongs to head=scalar, got head={head}: switch it off",
            [dict(value_rescaling=False), dict(head="scalar")],
        )
        for head in HEADS[1:]
    ),
    *(
        (
            dict(loss="huber", head=head),
            f"loss=huber belongs to head=scalar, got head={head}: choose loss=squared",
            [dict(loss="squared"), dict(head="scalar")],
        )
        for head in HEADS[1:]
    ),
    *(
        (
            dict(head=head, value_min=low, value_max=high),
            f"value_min must be below value_max, got {low} and {high}",
            [dict(value_min=-10.0), dict(value_max=12.0), *(dict(head=other) for other in OTHERS)],
        )
        for head in SUPPORTED
        for low, high in NO_RANGE
    ),
    *(
        (
            dict(head=head, atoms=1),
            f"head={head} needs two atoms or more, got atoms=1",
            [dict(atoms=2), *(dict(head=other) for other in ("scalar", "quantile", "implicit_quantile"))],
        )
        for head in (*SUPPORTED, "parameterised_quantile")
    ),
    *(
        (
            dict(head=head, value_min=low, value_max=high, atoms=atoms),
            f"{atoms} atoms from value_min={low} to value_max={high} are not apart in float32: choose fewer, or ",
            [apart, *(dict(head=other) for other in OTHERS)],
        )
        for head in SUPPORTED
        for low, high, atoms, apart in NOT_APART
    ),
    *(
        (
            dict(double=True, target=target, unroll_length=4),
            f"double belongs to target=greedy, got target={target}: switch it off",
            [dict(double=False), dict(target="greedy")],
        )
        for target in ("munchausen", "lambda_returns")
    ),
    *(
        (
            dict(target="lambda_returns", n_step=2) | segments,
            "target=lambda_returns needs n_step=1, got 2",
            [dict(n_step=1), dict(target="greedy"), dict(target="munchausen")],
        )
        for segments in (dict(unroll_length=4), LAST)
    ),
    *(
        (
            dict(target="lambda_returns", replay=replay),
            "target=lambda_returns runs along a segment, and one learnt row is none: raise unroll_length",
            [dict(unroll_length=2), dict(target="greedy"), dict(target="munchausen"), LAST],
        )
        for replay in ("uniform", "prioritised")
    ),
    (
        dict(burn_in=2),
        "burn_in=2 warms up a recurrent carry, and there is none: choose core=gru or lstm, or burn_in=0",
        [dict(core="gru"), dict(core="lstm"), dict(burn_in=0)],
    ),
    (
        dict(burn_in=2, core="gru") | LAST,
        "replay=last_rollout learns from every row, so burn_in must be 0, got 2",
        [dict(burn_in=0), dict(replay="uniform"), dict(replay="prioritised")],
    ),
    (
        dict(unroll_length=4) | LAST,
        "replay=last_rollout learns from the whole rollout, so unroll_length must be left at 1, got 4",
        [dict(unroll_length=1), dict(replay="uniform"), dict(replay="prioritised")],
    ),
    *(
        (
            LAST | dict(batch_size=size),
            f"replay=last_rollout shares out the environments, so batch_size={size} must divide num_envs=8",
            [dict(batch_size=4), dict(num_envs=2 * size), dict(replay="uniform"), dict(replay="prioritised")],
        )
        for size in (3, 16)
    ),
    (
        dict(exploration="member"),
        "exploration=member follows a member of an ensemble: raise ensemble",
        [dict(ensemble=2), dict(exploration="softmax")],
    ),
    (
        dict(exploration="ladder", num_envs=1),
        "exploration=ladder gives each environment its own epsilon, and there is one: raise num_envs",
        [dict(num_envs=2), dict(exploration="epsilon_greedy")],
    ),
    *(
        (
            dict(ensemble=2, core=core),
            "an ensemble of recurrent networks is not supported: choose core=none or ensemble=1",
            [dict(core="none"), dict(ensemble=1)],
        )
        for core in ("gru", "lstm")
    ),
    *(
        (
            dict(ensemble=2, head=head),
            f"a prior cannot be added to a head that chooses its own fractions, got head={head}: choose head=quantile",
            [dict(head="quantile"), dict(ensemble=1)],
        )
        for head in CHOOSING
    ),
    (
        LAST | dict(n_step=9),
        "replay=last_rollout keeps 8 new rows at a time, fewer than the 9 that overlap: raise rollout_length",
        [dict(rollout_length=9), dict(n_step=8), dict(replay="uniform")],
    ),
    (
        LAST | dict(n_step=5, frame_stack=5),
        "replay=last_rollout keeps 8 new rows at a time, fewer than the 9 that overlap: raise rollout_length",
        [dict(rollout_length=9), dict(n_step=4), dict(frame_stack=4)],
    ),
    (
        dict(replay="prioritised", replay_size=32, rollout_length=4, batch_size=8),
        "replay_size=32 keeps 4 rows of each of the 8 environments, and a segment needs 6: raise replay_size to at "
        "least 48",
        [dict(replay_size=48), dict(replay="uniform")],
    ),
]


def refusal(settings: dict) -> str:
    """What is said of them; nothing if they are fine."""
    try:
        validate_config(Config(**settings))
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("settings", "sentence", "mended"), TOGETHER, ids=range(len(TOGETHER)))
def test_what_does_not_go_together(settings, sentence, mended):
    """And for no other reason: once that is mended there is none."""
    assert sentence in refusal(settings)
    assert [refusal(settings | change) for change in mended] == [""] * len(mended)


def test_every_combination_has_a_row():
    """So that none can be dropped, or added, unnoticed."""
    met = {next((told for rule, told in COMBINATIONS if rule(Config(**row))), None) for row, *_ in TOGETHER}
    assert met >= {told for _, told in COMBINATIONS}


counts = st.fixed_dictionaries(
    dict(
        total_steps=st.integers(1, 20_000), num_envs=st.integers(1, 64), rollout_length=st.integers(1, 32),
        warm_up_steps=st.integers(0, 5_000), replay_size=st.integers(1, 5_000), n_step=st.integers(1, 50),
    )
)  # fmt: skip


@given(counts)
def test_the_clock_takes_the_fewest_whole_iterations(numbers):
    config = Config(**numbers)
    envs, length = config.num_envs, config.rollout_length
    ticks, segment = rules.ticks_per_iteration(config), rules.segment_length(config)
    assert ticks == envs * length
    assert segment == config.n_step + 1  # the learnt row and as many successors

    def fewest(count, enough):
        assert enough(count)
        assert not enough(count - 1)

    fewest(rules.total_iterations(config), lambda k: k * ticks >= config.total_steps)
    fewest(rules.replay_slots(config), lambda k: k * ticks >= config.replay_size)
    fewest(rules.warm_up_iterations(config), lambda k: k * ticks >= config.warm_up_steps and k * length >= segment)


@settings(max_examples=300)
@given(counts)
def test_a_run_must_learn_and_its_memory_hold_a_segment(numbers):
    config = Config(**numbers, batch_size=1)
    learns = rules.total_iterations(config) > rules.warm_up_iterations(config)
    holds = rules.replay_slots(config) * config.rollout_length >= rules.segment_length(config)
    if learns and holds:
        validate_config(config)
    elif not learns:
        with pytest.raises(ConfigError, match=rf"warm-up takes .*{config.total_steps} .*raise total_steps or lower"):
            validate_config(config)
    else:
        with pytest.raises(ConfigError, match=rf"^replay_size={config.replay_size} keeps .*raise replay_size") as error:
            validate_config(config)
        advice = int(re.search(r"at least (\d+)", str(error.value))[1])
        validate_config(dataclasses.replace(config, replay_size=advice))


def test_a_preset_is_defaults_then_environment_then_algorithm_then_overrides(monkeypatch):
    by = [dict.fromkeys(["batch_size", "updates", "n_step"][i:], 11 + i) for i in range(3)]
    rates = [dict.fromkeys(["discount", "epsilon_end", "epsilon_start"][i:], (1 + i) / 10) for i in range(3)]
    monkeypatch.setitem(presets.ENVIRONMENTS, "here", by[0] | rates[0])
    monkeypatch.setitem(presets.ALGORITHMS, "this", by[1] | rates[1])
    config, hyper = jdqn.preset("this", "here", **by[2], **rates[2])
    assert (config.batch_size, config.updates, config.n_step) == (11, 12, 13)
    assert (hyper.discount, hyper.epsilon_end, hyper.epsilon_start) == (0.1, 0.2, 0.3)
    assert (config.num_envs, hyper.learning_rate) == (Config().num_envs, Hyper().learning_rate)
    assert jdqn.preset("dqn", "nowhere") == jdqn.preset() == jdqn.preset("dqn")


def test_the_learning_rate_falls_over_the_run():
    assert jdqn.preset("dqn", total_steps=12_345)[1].learning_rate_steps == 12_345.0
    assert jdqn.preset("dqn", "CartPole-v1")[1].learning_rate_steps == 100_000.0
    assert jdqn.preset("dqn", total_steps=12_345, learning_rate_steps=7.0)[1].learning_rate_steps == 7.0


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (dict(warm_up_steps=2_000), "or lower warm_up_steps"),
        (dict(warm_up_steps=0, n_step=300), "or lower num_envs, n_step, unroll_length, burn_in or fr"),
        (dict(warm_up_steps=10, rollout_length=2_000), "or lower rollout_length or num_envs"),
        (dict(warm_up_steps=0, num_envs=1_024), "or lower num_envs, n_step, unroll_length, burn_in or "),
    ],
)
def test_a_warm_up_that_is_too_long_says_what_makes_it_so(settings, advice):
    with pytest.raises(ConfigError, match=f"^warm-up takes .* of the 2000 to learn in: raise total_steps {advice}"):
        validate_config(Config(total_steps=2_000, replay_size=10_000, **settings))


def test_names_of_other_trainers_are_told_ours():
    fields = {field.name for field in dataclasses.fields(Config)} | set(Hyper._fields)
    for theirs, ours in presets.ELSEWHERE.items():
        assert ours in fields
        assert theirs not in fields
        with pytest.raises(ConfigError, match=f"^{theirs} is called {ours} here$"):
            jdqn.preset("dqn", **{theirs: 1})
    with pytest.raises(ConfigError, match=r"^unknown setting gama: did you mean discount or"):
        jdqn.preset("dqn", gama=0.9)


def test_what_is_no_name_or_config_is_refused():
    env = jdqn.envs.make("Catch-bsuite")
    with pytest.raises(ConfigError, match=r"^environment is a name, like env.name, got Env$"):
        jdqn.preset("dqn", env)
    with pytest.raises(ConfigError, match=r"^build takes a Config, the first of the two that preset gives, got tuple$"):
        jdqn.build(jdqn.preset("dqn"), env)
    with pytest.raises(ValueError, match=r"^episodes and max_steps must be at least 1, got 0 and 10000$"):
        jdqn.evaluate(env, None, None, jax.random.key(0), episodes=0)


def test_unknown_names_are_refused_with_advice():
    with pytest.raises(ConfigError, match=r"^unknown algorithm dual: choose .*dueling"):
        jdqn.preset("dual")
    with pytest.raises(ConfigError, match=rf"^unknown algorithm \?: choose {' or '.join(jdqn.ALGORITHMS)}$"):
        jdqn.preset("?")
    with pytest.raises(ConfigError, match=r"^unknown setting learning_rat: did you mean learning_rate"):
        jdqn.preset("dqn", learning_rat=1e-3)
    with pytest.raises(ConfigError, match=r"^unknown setting batchsize: did you mean batch_size"):
        jdqn.preset("dqn", batchsize=3)
    with pytest.raises(ConfigError, match=r"^unknown setting qqq$"):
        jdqn.preset("dqn", qqq=3)


@pytest.mark.parametrize("value", [*NO_NUMBER, 1e39, 10**400, "1", True, None])
def test_a_range_must_be_finite(value):
    for field in FLOATS:
        with pytest.raises(
            ConfigError, match=rf"^{field} must be a finite number of 32 bits, got {re.escape(str(value)[:200])}"
        ):
            validate_config(dataclasses.replace(Config(), **{field: value}))


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("Breakout-MinAtar", "FrozenLake-misc")]


@pytest.mark.parametrize("name", ["CartPole-v1", *SLOW])
def test_every_algorithm_builds(name):
    env = jdqn.envs.make(name)
    for algorithm in jdqn.ALGORITHMS.keys() - {"q_learning"} | ({"q_learning"} if "Lake" in name else set()):
        config, hyper = jdqn.preset(algorithm, name)
        trainer = jdqn.build(config, env)
        state = jax.eval_shape(trainer.init, jax.random.key(0), hyper)
        obs = jax.eval_shape(env.reset, jax.random.key(1))[1]
        assert trainer.num_warm_up == rules.warm_up_iterations(config)
        assert (trainer.ticks, trainer.updates) == (rules.ticks_per_iteration(config), config.updates)
        rows = rules.replay_slots(config) * config.rollout_length
        if config.replay == "last_rollout":
            rows = rules.segment_length(config)
        stored = state.replay.rows if config.replay == "prioritised" else state.replay
        flat = (rows, config.num_envs) if config.replay == "last_rollout" else (rows * config.num_envs,)
        bits = obs.dtype == bool and config.replay != "last_rollout"
        assert stored.obs.shape == (*flat, *((math.ceil(obs.size / 32),) if bits else obs.shape))
        assert stored.obs.dtype == (jnp.uint32 if bits else obs.dtype)


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar", "Catch-bsuite"])
def test_q_learning_is_for_discrete_observations(name):
    with pytest.raises(
        ConfigError, match=rf"^network=tabular needs a one-hot state, .* and {name} shows \w+\[.*q_learning"
    ):
        jdqn.build(jdqn.preset("q_learning", name)[0], jdqn.envs.make(name))


def test_a_preset_is_checked():
    with pytest.raises(ConfigError, match="num_envs must be"):
        jdqn.preset("dqn", num_envs=0)
    with pytest.raises(ConfigError, match="discount must be"):
        jdqn.preset("dqn", discount=2.0)


def test_build_checks_what_no_preset_did():
    with pytest.raises(ConfigError, match="num_envs must be"):
        jdqn.build(Config(num_envs=0), jdqn.envs.make("CartPole-v1"))
