"""Every flag with every kind of value that cannot work: status 2, what to do about it, and nothing compiles."""

import json
import math
import os
import re
import types
import typing

import jax
import pytest
from test_config import BAD, COUNTS, FLOATS, NAMES, SWITCHES

import jdqn
from jdqn.config import ConfigError, Hyper
from jdqn.host.checks import RANGES
from jdqn.host.options import Options, parse
from jdqn.host.program import Run
from jdqn.host.wanted import plans_of
from jdqn.run import keep_compiled, main
from jdqn.validation import MAY_BE_ZERO

jax.devices()  # before the program splits the CPU otherwise
HUGE = str(10**30)
TOO_LONG = "9" * 5_000  # more digits than Python turns into a number
NO_NUMBER = ("x", "", "1.5.2", "nan?")
HINTS = {name: kind for name, kind in typing.get_type_hints(Options).items() if name not in ("config", "hyper")}


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    """Call main with flags that it has to refuse before it compiles; return what it says, its line breaks taken out."""

    def compile_nothing(run, fresh):
        raise AssertionError("compiled")

    def call(*arguments, out=True, boxed=False):
        with monkeypatch.context() as patch:
            patch.setattr(Run, "compile", compile_nothing)
            try:
                status = main([*map(str, arguments), *(["--out", str(tmp_path / "run")] if out else [])])
            except SystemExit as stop:
                status = stop.code
        said = capsys.readouterr()
        assert status == 2
        assert "Traceback" not in said.err
        assert not (tmp_path / "run").exists()
        if boxed:  # by tyro, with the help of the flag
            assert "--help" in said.err
        else:
            assert re.fullmatch(r"error: [^\n]{20,900}\n", said.err)
        return " ".join(re.sub("[│╭╮╰╯─]", " ", said.err).split())

    return call


def flag(name):
    return f"--{name.replace('_', '-')}"


def numbers(kind):
    """Fields of Options that hold a number of `kind`, or none."""
    return [name for name, hint in HINTS.items() if hint is kind or hint == kind | None]


def test_every_flag_is_looked_at():
    """A new option with a number needs a range, and comes below by itself; one of another kind has to be added."""
    assert set(numbers(int)) == set(RANGES)
    assert set(numbers(float)) == {"checkpoint_every", "pbt_fraction", "pbt_factor"}
    words = {name for name, hint in HINTS.items() if typing.get_origin(hint) is typing.Literal}
    switches = {name for name, hint in HINTS.items() if hint is bool}
    rest = set(HINTS) - set(numbers(int)) - set(numbers(float)) - words - switches
    assert rest == {"env", "env_params", "algo", "devices", "coordinator", "out", "resume", "compilation_cache"}
    assert {type(hint) for hint in HINTS.values()} <= {type, types.UnionType, type(HINTS["sweep"]), types.GenericAlias}


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_of_the_agent(name, refused):
    for value in ["-1", HUGE, "nan", "1e400", TOO_LONG] + ([] if name in MAY_BE_ZERO else ["0"]):
        said = refused(flag(name), value)
        assert name in said or flag(name) in said
    said = refused(flag(name), "1", "-7")  # of several values every one
    assert name in said or flag(name) in said


@pytest.mark.parametrize("name", [*FLOATS, *BAD])
def test_a_number_of_the_agent(name, refused):
    values = BAD.get(name, [float("nan"), float("inf")])
    for value in [*dict.fromkeys(map(str, values)), HUGE * 2, "1e400", "x"]:
        said = refused(flag(name), value)
        assert name in said or flag(name) in said
    assert name in refused(flag(name), getattr(Hyper(), name, 20.0), "nan")


@pytest.mark.parametrize("name", numbers(int))
def test_a_count_of_the_program(name, refused):
    low = RANGES[name][0]
    beside = ["--distributed"] if name in ("num_hosts", "host_index") else []
    for value in [str(low - 1), "-3", "nan", "1e400", "1.5", TOO_LONG] + ([HUGE] if name != "reports" else []):
        assert flag(name) in refused(*beside, flag(name), value)


@pytest.mark.parametrize("name", ["checkpoint_every", "pbt_fraction", "pbt_factor"])
def test_a_number_of_the_program(name, refused):
    for value in ("0", "-1", "nan", "inf", "1e400", "-inf", "x", ""):
        assert flag(name) in refused(flag(name), value)


@pytest.mark.parametrize(
    "name", [*NAMES, *(name for name in HINTS if typing.get_origin(HINTS[name]) is typing.Literal)]
)
def test_a_choice(name, refused):
    for value in ("nothing", "", "0"):
        said = refused(flag(name), value, boxed=True)
        assert flag(name) in said
        assert "Expected one of" in said


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_takes_no_value(name, refused):
    assert "Unrecognized options: maybe" in refused(flag(name), "maybe", boxed=True)


NO_NUMBERS = {
    "--batch-size nan": "error: --batch-size takes whole numbers, got nan",
    "--batch_size=nan": "error: --batch-size takes whole numbers, got nan",
    "--batch-size 32 6.5": "error: --batch-size takes whole numbers, got 6.5",
    "--batch-size=32 6.5": "error: --batch-size takes whole numbers, got 6.5",
    "--updates 1e6": "error: --updates takes whole numbers, got 1e6: write 1000000",
    "--updates -1e6": "error: --updates takes whole numbers, got -1e6: write -1000000",
    "--learning-rate 1e-3,1e-4": "error: --learning-rate takes numbers, got 1e-3,1e-4: put spaces between them",
    "--learning-rate a,b": "error: --learning-rate takes numbers, got a,b",
    "--total-steps 1,000,000": "error: --total-steps takes whole numbers, got 1,000,000: write 1000000",
    "--seeds inf": "error: --seeds takes a whole number, got inf",
    "--seeds -inf": "error: --seeds takes a whole number, got -inf",
    "--seeds=": "error: --seeds takes a whole number, got ''",
    "--seeds": "error: --seeds needs a value",
    "--distributed --num-hosts 1e30": "error: --num-hosts takes a whole number, got 1e30",
    "--learning-rate x": "error: --learning-rate takes numbers, got x",
    "--learning-rate -1 1e-3 x --double": "error: --learning-rate takes numbers, got x",
    "--checkpoint-every 5m": "error: --checkpoint-every takes a number, got 5m",
    "--discount --double": "error: --discount needs a value, or several to sweep over",
    "--total-steps": "error: --total-steps needs a value, or several to sweep over",
}


@pytest.mark.parametrize("arguments", NO_NUMBERS)
def test_words_that_are_no_numbers(arguments, refused):
    assert refused(*arguments.split()) == NO_NUMBERS[arguments]


def test_numbers_in_every_way_to_write_them():
    options = parse(
        ["--batch_size", "3_2", "64", "--discount=.9", "0.99", "-.5", "--seeds=2", "--learning-rate", "1E-3"]
    )
    assert (options.config.batch_size, options.hyper.discount) == ((32, 64), (0.9, 0.99, -0.5))
    assert (options.seeds, options.hyper.learning_rate) == (2, (1e-3,))


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "", "99999", "9" * 5_000, "nan", "²"])
def test_devices(value, refused):
    assert "--devices must be all or a number from 1 to 1024" in refused("--devices", value)


def test_names_of_other_trainers(refused):
    assert refused("--lr", "1e-3") == "error: --lr is called --learning-rate here"
    assert refused("--buffer_size=3") == "error: --buffer-size is called --replay-size here"


NEAR = {
    "--learning-rat 1": "--learning-rate",
    "--batchsize 3": "--batch-size",
    "--totalsteps 3": "--total-steps",
    "--sed 3": "--seed",
    "--checkpoint-evry 3": "--checkpoint-every",
    "--env CartPole": "did you mean CartPole-v1",
    "--env breakout": "did you mean Breakout-MinAtar",
    "--env=": "choose one of CartPole-v1",
    "--algo ranbow": "choose rainbow",
    "--algo=": "choose q_learning",
    "--env-params max_step=3": "has no parameter max_step: choose from max_steps_in_episode",
    "--env-params name=x": "has no parameter name: choose from",
}


@pytest.mark.parametrize("arguments", NEAR)
def test_an_unknown_name_is_told_its_nearest(arguments, refused):
    assert NEAR[arguments] in refused(*arguments.split(), boxed=NEAR[arguments].startswith("--"))


ENV_PARAMS = {
    "DeepSea-bsuite size=0": "needs a whole number from 1 to 1000 for size, got 0",
    "DeepSea-bsuite size=-4": "for size, got -4",
    "DeepSea-bsuite size=1000000000": "needs a whole number from 1 to 1000 for size",
    "DeepSea-bsuite size=2.5": "for size, got 2.5",
    "DeepSea-bsuite size=big": "for size, got 'big'",
    "DeepSea-bsuite size='8'": "for size, got '8'",
    "DeepSea-bsuite size=[8]": "for size, got [8]",
    "DeepSea-bsuite size=True": "for size, got True",
    "DeepSea-bsuite size=8 size=9": "takes each name once",
    "DeepSea-bsuite randomize_actions=no": "needs True or False for randomize_actions, got 'no'",
    "DeepSea-bsuite =8": "takes name=value",
    "DeepSea-bsuite size=": "takes name=value",
    "DeepSea-bsuite size:8": "takes name=value",
    "CartPole-v1 max_steps_in_episode=0": "needs a whole number from 1 to 2147483647",
    f"CartPole-v1 max_steps_in_episode={HUGE}": "needs a whole number from 1 to 2147483647",
    f"CartPole-v1 max_steps_in_episode={TOO_LONG}": "needs a whole number from 1 to 2147483647",
    "CartPole-v1 max_steps_in_episode=1e400": "got inf",
    "CartPole-v1 max_steps_in_episode=nan": "got 'nan'",
    "CartPole-v1 gravity=1e400": "needs a finite number of 32 bits for gravity, got inf",
    "CartPole-v1 gravity=1e39": "needs a finite number of 32 bits for gravity",
    "CartPole-v1 gravity={[]:1}": "needs a finite number of 32 bits for gravity, got '{[]:1}'",
    "CartPole-v1 gravity=" + "(" * 500: "needs a finite number of 32 bits for gravity",
    "CartPole-v1 length=9+9j": "needs a finite number of 32 bits for length",
    "FrozenLake-misc map_name=9x9": "cannot be made with map_name=9x9",
    "FrozenLake-misc map_name=None": "needs a word for map_name",
    "Acrobot-v1 available_torque=[1,2]": "needs numbers of shape (3,) for available_torque",
    "Acrobot-v1 available_torque=[1,2,1e999]": "needs numbers of shape (3,)",
}


@pytest.mark.parametrize("arguments", ENV_PARAMS, ids=range(len(ENV_PARAMS)))
def test_parameters_of_an_environment(arguments, refused):
    name, *told = arguments.split()
    assert ENV_PARAMS[arguments] in refused("--env", name, "--env-params", *told)


SETTINGS = {
    "--total-steps 10000 --warm-up-steps 10000": "raise total_steps or lower warm_up_steps",
    "--total-steps 100": "raise total_steps or lower warm_up_steps",
    "--batch-size 16001": "batch_size=16001 is more than the 16000 rows",
    "--replay-size 64": "a segment needs 11: raise replay_size to at least 88",
    "--n-step 1000 --replay-size 4000": "raise replay_size to at least 8008",
    "--frame-stack 100 --replay-size 400": "raise replay_size to at least",
    "--replay prioritised --replay-size 96": "raise replay_size to at least",
    "--algo pqn --target greedy --rollout-length 1 --n-step 2": "fewer than the 2 that overlap: raise rollout_length",
    "--algo pqn --n-step 2": "target=lambda_returns needs n_step=1, got 2",
    "--algo pqn --batch-size 5": "batch_size=5 must divide num_envs=32",
    "--replay-size 2147483647": "32 bits cannot count",
    "--replay-size 1000000 --num-envs 1000000 --rollout-length 3000 --total-steps 2147483647": "warm-up takes",
    "--num-envs 100000 --rollout-length 30000 --warm-up-steps 0 --algo pqn --batch-size 100000": "32 bits cannot count",
    "--updates 1000000": "gradient steps in a run: lower updates or total_steps",
    "--batch-size 3000000 --replay-size 3000000 --n-step 1000 --warm-up-steps 9000": "in a batch: lower batch_size",
    "--parallel data --devices 3": "num_envs=8 does not divide into 3 equal shards: choose a multiple of 3, or fewer",
    "--parallel data --devices 4 --batch-size 66": "batch_size=66 does not divide into 4 equal shards",
    "--parallel data --devices 5": "--devices 5: there are 4 cpu device(s)",
    "--parallel data --seeds 2": "--parallel data trains one agent: leave --seeds at 1",
    "--parallel data --discount 0.9 0.99": "--parallel data trains one agent",
    "--devices 5 --seeds 5": "--devices 5: there are 4 cpu device(s)",
    "--seed 4294967296": "--seed must be from 0 to",
    "--seed 4294967295 --seeds 2": "--seed must be from 0 to 2^32 - seeds",
    "--seeds 1048577": "--seeds must be from 1 to 1048576",
    "--sweep random": "--sweep random has nothing to draw",
    "--sweep random --learning-rate -1 1": "learning_rate must be",
    "--sweep random --learning-rate 0 nan": "learning_rate must be",
    "--sweep random --discount 0.9 inf": "discount must be",
    "--sweep random --seeds 2000 --samples 2000 --discount .9 .99": "this makes 4,000,000 agents, and 1,048,576 are",
    "--total-steps 10000 20000": "--total-steps takes one value",
    "--pbt-every 1000": "--pbt-every needs something to perturb",
    "--hidden-sizes 64,x": "--hidden-sizes takes widths like 64 64",
    f"--hidden-sizes {TOO_LONG}": "--hidden-sizes takes widths like",
    "--hidden-sizes 64 0": "hidden_sizes must be a tuple",
    "--discount": "--discount needs a value",
    "--reports 10000000 --total-steps 2000000000 --num-envs 1 --rollout-length 1 --updates 1": "--reports must be no",
    "--distributed --coordinator here": "--coordinator is the address HOST:PORT of the first host, like 10.0.0.1:1234",
    "--distributed --coordinator :12": "--coordinator is the address HOST:PORT",
    "--distributed --coordinator here:99999": "--coordinator is the address HOST:PORT",
    "--parallel data --wave 4": "--wave is for several agents, and --parallel data trains one: leave it out",
    "--parallel data --at-once 4": "--at-once is for several agents",
    "--debug --parallel data --devices 2": "leave --debug out, or start a run without --parallel data",
    "--debug --seeds 2 --at-once 2": "leave --debug out, or start a run without --at-once 2",
    "--coordinator here:1": "--coordinator belongs to a run on several hosts: add --distributed",
    "--num-hosts 2": "--num-hosts belongs to a run on several hosts",
    "--distributed --num-hosts 2 --host-index 2": "of 2 hosts it is at most 1, got 2",
    "--network tabular": "network=tabular needs a one-hot state",
    "--network nature": "needs images [height, width, channels]",
    "--env Pendulum-v1": "continuous actions",
}  # fmt: skip


@pytest.mark.parametrize("arguments", SETTINGS, ids=range(len(SETTINGS)))
def test_settings_that_do_not_go_together(arguments, refused):
    assert SETTINGS[arguments] in refused(*arguments.split())


def test_grids_that_are_too_large(refused):
    values = [str(k / 2000) for k in range(1, 2001)]
    assert "this makes 4,000,000 agents" in refused("--discount", *values, "--trace-decay", *values)
    sizes = map(str, range(1, 1102))
    assert "this makes 1,101 programs to compile" in refused("--core-size", *sizes)
    few = ["--total-steps", "2000000000", "--num-envs", "1", "--rollout-length", "1", "--updates", "1"]
    assert "no more than 1000000 generations" in refused(*few, "--pbt-every", "1", "--discount", ".9", ".99")


@pytest.mark.parametrize(
    ("arguments", "least"),
    [
        (["--replay-size", "1000000000"], 26e9),  # rows of 26 bytes
        (["--hidden-sizes", "1000000", "1000000"], 16e12),  # parameters, the target's, and two moments
        (["--seeds", "100000"], 100_000 * 416_000),
        (["--ensemble", "1000000"], 4 * 4 * 4_610 * 1e6),
        (["--core", "lstm", "--core-size", "1000000000"], 4e18),
    ],
    ids=["replay", "network", "agents", "ensemble", "core"],
)  # fmt: skip
def test_what_does_not_fit_into_memory_is_told_in_bytes(arguments, least, refused, monkeypatch):
    monkeypatch.setattr("jdqn.host.memory.available_bytes", lambda: 2**33)
    said = refused(*arguments, "--devices", "1", "--wave", "1048576")
    numbers = r"needs ([\d,]+) bytes \([\d.]+ [KMGT]iB\) and 8,589,934,592 \(8.0 GiB\) are free: lower"
    assert int(re.search(numbers, said)[1].replace(",", "")) >= least


def test_output_folders(refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("")
    cases = {
        "file": "is a file: choose another folder",
        "file/below": "cannot be made",
        "full": "is not empty",
        "x" * 300: "cannot be a folder ([Errno 36] File name too long",
        "zero\0byte": "cannot be a folder",
    }
    for name, sentence in cases.items():
        assert sentence in refused("--out", tmp_path / name, out=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "is not a folder that can be written to" in refused("--out", tmp_path / "full" / "new", out=False)
    assert (tmp_path / "full" / "precious").exists()


def test_folders_to_resume(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("missing", "empty", "file", "file/below"):
        assert "holds no run" in refused("--resume", tmp_path / name, out=False)
    for name in ("x" * 300, "zero\0byte"):
        assert "--resume" in refused("--resume", tmp_path / name, out=False)


SLOW = "--num-envs 1 --rollout-length 1 --updates 1 --total-steps 9000"
SEARCH = f"{SLOW} --discount .9 .99 --sweep random --samples 2 --pbt-every 1000"


def saved(folder, words):
    """A run folder as far as its config.json; return what that holds."""
    (plan,) = plans_of(parse(words.split()))
    content = plan.to_json()
    (folder / "config.json").write_text(json.dumps(content))
    return content


@pytest.mark.parametrize(
    ("words", "changes", "sentence"),
    [
        (SLOW, "--total-steps", "--total-steps needs a value"),
        (SLOW, "--total-steps 9000 10000", "--total-steps takes one value"),
        (SLOW, "--total-steps 900", "raise total_steps or lower warm_up_steps"),
        (SLOW, "--total-steps 2000000000 --reports 1000000000", "--reports must be no more than 1000000"),
        (SLOW, "--reports 0", "--reports must be at least 1"),
        (SLOW, "--keep x", "--keep takes a whole number"),
        (SEARCH, "--total-steps 2000000000", "no more than 1000000 generations"),
        (
            SEARCH,
            "--total-steps 1900",
            "--total-steps 1900 leaves no generation of population-based training: raise it above 2000",
        ),
    ],
)
def test_what_changes_on_resuming_is_checked_as_at_the_start(words, changes, sentence, refused, tmp_path, monkeypatch):
    saved(tmp_path, words)
    monkeypatch.setattr(Run, "__init__", None)  # where a billion reports would be listed
    assert sentence in refused("--resume", tmp_path, *changes.split(), out=False)


DAMAGES = {
    "seeds": ([], [-1], [2**32], 5, ["x"], [1.5], "12"),
    "reports": (-5, 0, "x", None, 1.5, True),
    "episodes": (0, 10**9, [3]),
    "checkpoint_every": ("abc", 0, -1, math.inf, math.nan, 10**400),
    "at_once": (-3, "all"),
    "keep": ("x", 0),
    "keep_best": (1, "yes"),
    "non_finite": ("droq", 3, ["drop"]),
    "debug": ("no",),
    "env": (5, None),
    "env_params": ([], "size=3"),
    "shards": (0, 3, "x", -1),
    "config": ([], "x", {}),
    "config.batch_size": ("x", 0, 1.5, [32]),
    "config.network": ("mlq", 0),
    "config.double": (1,),
    "config.hidden_sizes": (5, [0], ["x"], "64"),
    "config.value_min": ("x", math.nan),
    "hyper": ([], 3),
    "hyper.learning_rate": ("x", None, [], ["x", "y"], -1, math.inf, [[0.1], [0.2]], {}),
    "hyper.discount": (2, [0.9, 0.99, 0.9], True),
    "evolution": (5, [], {}),
    "evolution.every": (0, -4, "x"),
    "evolution.fraction": (0.9, "x"),
    "evolution.factor": (1.0, "x"),
    "evolution.replay": (0,),
    "evolution.ranges": ([], {}, {"discount": [0.9]}, {"discount": [0.99, 0.9]}, {"x": [0, 1]}, {"discount": [0, 2]}),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_config_is_refused_by_file_and_field(name, refused, tmp_path):
    content = saved(tmp_path, SEARCH)
    *section, field = name.split(".")
    for value in DAMAGES[name]:
        damaged = json.loads(json.dumps(content))
        (damaged[section[0]] if section else damaged)[field] = value
        (tmp_path / "config.json").write_text(json.dumps(damaged))
        said = refused("--resume", tmp_path, out=False)
        with pytest.raises(ConfigError) as error:
            jdqn.load(tmp_path)
        assert re.search(rf"\b({field}|lacks the setting|evolution|discount)\b", said)
        assert said.startswith(f"error: {tmp_path / 'config.json'}: ")
        assert str(error.value) in said


def test_a_config_that_cannot_be_read(refused, tmp_path):
    path = tmp_path / "config.json"
    content = saved(tmp_path, SLOW)
    texts = (
        "",
        "{",
        "[]",
        "5",
        "null",
        '"x"',
        "{}",
        '{"versions": 3}',
        "[" * 100_000,
        "\x00",
        '{"plans": []}',
        '{"plans": 3}',
    )
    for text in (*texts, path.read_bytes()[:-9], b"\xff\xfe", json.dumps(content | {"versions": {"jdqn": 1}})):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert str(path) in refused("--resume", tmp_path, out=False)
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            jdqn.load(tmp_path)
    path.unlink()
    path.mkdir()
    assert f"{path} is damaged, or not a run's" in refused("--resume", tmp_path, out=False)
    with pytest.raises(ConfigError, match="is damaged, or not a run's"):
        jdqn.load(tmp_path)


def test_folders_to_load(tmp_path):
    for name in ("missing", "x" * 300, "zero\0byte"):
        with pytest.raises(ConfigError) as error:
            jdqn.load(tmp_path / name)
        assert "holds no run" in str(error.value) or "cannot be a folder" in str(error.value)
        assert "--resume" not in str(error.value)


def test_where_compiled_programs_cannot_be_kept(refused, tmp_path):
    (tmp_path / "file").write_text("")
    for where in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        "",
        "~nobody-has-this-name/x",
        "zero\0byte",
        "x" * 300,
        "/proc/x",
        "/proc",
    ):
        assert "--compilation-cache " in refused("--compilation-cache", where)


def test_what_lies_at_the_ends_of_a_range_works():
    for arguments in (
        ["--seed", "4294967295"],
        ["--seeds", "1048576"],
        ["--reports", "10_000_000_000_000", "--checkpoint-every", "1e-9", "--episodes", "1000000"],
        ["--batch-size", "16000"],
        ["--pbt-every", "50000", "--pbt-fraction", "0.5", "--discount", "0", "1"],
        ["--learning-rate", "3.4e38", "2e-38", "--learning-rate-final-fraction", "0"],
        ["--env-params", "max_steps_in_episode=1", "gravity=-9.8"],
        ["--distributed", "--num-hosts", "2", "--host-index", "1"],
    ):
        assert plans_of(parse(arguments))


def test_without_a_home_to_write_to_nothing_is_kept(monkeypatch):
    """Nobody asked for the cache: a container without one runs all the same."""
    monkeypatch.setenv("HOME", "/proc/self")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(jax.config, "update", lambda name, value: pytest.fail(name))
    assert parse([]).compilation_cache == Options.compilation_cache
    keep_compiled(Options.compilation_cache)
