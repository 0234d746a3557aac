"""The command line: what it knows, what it refuses and how, before anything compiles."""

import dataclasses
import inspect
import re

import pytest
from programs import TINY, subprocess_of

import jdqn
from jdqn import Config, Hyper, envs
from jdqn.host.options import Options, parse
from jdqn.host.program import Run
from jdqn.host.wanted import plans_of
from jdqn.run import main

pytestmark = pytest.mark.usefixtures("_compiled_once")


@pytest.fixture
def refusal(capsys, monkeypatch):
    """Call main with settings that it has to refuse before it compiles; return what it says."""

    def compile_nothing(run, fresh):
        raise AssertionError("compiled")

    def call(arguments):
        with monkeypatch.context() as patch:
            patch.setattr(Run, "compile", compile_nothing)
            try:
                status = main([str(a) for a in arguments])
            except SystemExit as stop:
                status = stop.code
        assert status == 2
        return capsys.readouterr().err

    return call


REFUSED = {
    "environment": ("--env CartPole-v2", "did you mean CartPole-v1"),
    "algorithm": ("--algo duelling", "choose dueling"),
    "env_params": ("--env DeepSea-bsuite --env-params size", "takes name=value"),
    "env_param": ("--env DeepSea-bsuite --env-params depth=3", "has no parameter depth: choose from size"),
    "continuous": ("--env Pendulum-v1", "continuous actions"),
    "seeds": ("--seeds 0", "--seeds must be"),
    "seed": ("--seed 4294967295 --seeds 2", "--seed must be"),
    "num_envs": ("--num-envs 0", "num_envs must be"),
    "discount": ("--discount 2", "discount must be"),
    "nan": ("--learning-rate nan", "learning_rate must be"),
    "reports": ("--reports 0", "--reports must be"),
    "checkpoint_every": ("--checkpoint-every 0", "--checkpoint-every must be"),
    "warm_up": ("--total-steps 2000 --warm-up-steps 5000", "raise total_steps or lower warm_up_steps"),
    "memory": ("--replay-size 2000000000 --seeds 64 --devices 1", "104,000,"),  # 2 x 2e9 x 26 bytes and the little rest
    "parameters": ("--hidden-sizes 1000000 1000000", "32,000,2"),
    "filled": ("--out {tmp}/filled", "is not empty"),
    "no_run": ("--out {tmp}/filled --overwrite", "holds no run"),
    "not_ours": ("--out {tmp}/not_ours --overwrite", "holds no run"),
    "file": ("--out {tmp}/filled/file", "is a file"),
    "below_a_file": ("--out {tmp}/filled/file/run", "cannot be made"),
    "missing": ("--resume {tmp}/missing", "holds no run"),
    "other_flag": ("--resume {tmp}/not_ours --seed 1", "cannot change"),
    "other_flag_first": ("--overwrite --resume={tmp}/not_ours", "cannot change"),
    "unreadable": ("--resume {tmp}/not_ours", "config.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_sentence(case, tmp_path, refusal):
    for name in ("filled/file", "not_ours/config.json", "not_ours/precious"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    arguments, message = REFUSED[case]
    out = [] if "{tmp}" in arguments else ["--out", tmp_path / "run"]
    said = refusal([*arguments.format(tmp=tmp_path).split(), *out])
    assert re.fullmatch(r"error: [^\n]+\n", said)
    assert message in said
    assert (tmp_path / "not_ours" / "precious").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"), [("--num-env 3", "--num-envs"), ("--loss x", "--loss"), ("--env", "--env")]
)
def test_flags_that_cannot_be_read(arguments, hint, refusal):
    said = refusal(arguments.split())
    assert hint in said
    assert "python -m jdqn.run --help" in said


def test_a_refusal_has_no_traceback():
    child = subprocess_of(["--env", "CartPole"])
    out, err = child.communicate()
    assert (child.returncode, out, len(err.splitlines())) == (2, "", 1)


def test_settings_go_together():
    """The warm-up is compared with the run that was asked for, whose length the learning rate follows."""
    (plan,) = plans_of(parse(["--total-steps", "5_00", "--warm-up-steps", "100"]))
    assert (plan.config.total_steps, plan.config.warm_up_steps) == (500, 100)
    assert plan.hyper.learning_rate_steps == 500


def test_there_are_no_more_reports_than_iterations():
    (plan,) = plans_of(parse([*TINY["q_learning"], "--reports", "10_000_000_000_000"]))
    run = Run(plan, envs.make("FrozenLake-misc"))
    assert run.report_ends.tolist() == list(range(2, 2001))


def test_help_lists_every_setting(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "600")  # no wrapping
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    settings = [
        found for kind in (Options, Config, Hyper)
        for found in re.findall(r'^    (\w+): .*\n    """(.+)"""', inspect.getsource(kind), re.M)
    ]  # fmt: skip
    assert {name for name, _ in settings} >= {field.name for field in dataclasses.fields(Config)} | set(Hyper._fields)
    for name, meaning in settings:
        assert f"--{name.replace('_', '-')} " in text.replace(",", " ")
        assert f"{meaning} (default: " in text


def test_the_program_hides_nothing_of_the_library():
    """Importing the module jdqn.run binds that name in the package, over a function if it had one."""
    assert [name for name in jdqn.__all__ if inspect.ismodule(getattr(jdqn, name))] == ["envs"]


def test_the_list_has_a_row_for_each_algorithm(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["--list"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["algorithm", "head", "target", "replay", "network", "exploration", "n"]
    table = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert list(table) == list(jdqn.ALGORITHMS)
    assert table["rainbow"] == "categorical greedy, double prioritised dueling, noisy noise 3"
    assert table["dqn"] == "scalar greedy uniform auto epsilon_greedy 1"
    assert table["bootstrapped"] == "scalar greedy uniform ensemble of 10 member 1"
    assert table["btr"].endswith("noise 3")
    assert table["r2d2"].endswith("ladder 5")


def test_the_list_of_an_environment_is_what_is_picked_there(capsys):
    assert main(["--list", "--env", "CartPole-v1"]) == 0
    picked = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert [picked[name] for name in ("dqn", "nstep", "apex")] == ["10", "3", "10"]
    assert main(["--list", "--env", "CartPol"]) == 2
    assert "unknown environment CartPol: did you mean CartPole-v1" in capsys.readouterr().err
