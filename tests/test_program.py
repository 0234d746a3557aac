"""The program from its command line to its folder: what it writes, what it prints, what it refuses."""

import contextlib
import dataclasses
import importlib.metadata
import inspect
import io
import json
import re
import shutil
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from programs import TINY, compiled_once, result, rows, subprocess_of
from rich.console import Console

from jdqn import Config, Hyper, envs, preset
from jdqn.host import folder as run_folder
from jdqn.host import statistics, twin
from jdqn.host.console import ProgressBar
from jdqn.host.program import Plan, Run
from jdqn.networks import Policy
from jdqn.run import Options, main, plan_from_json

RESULT = "env algo agents env_steps updates compile_seconds run_seconds env_steps_per_second evaluation gymnasium"


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with compiled_once(tmp_path_factory.getbasetemp() / "compiled"):
        yield


@pytest.fixture(scope="module", params=TINY)
def finished(request, tmp_path_factory):
    """A finished run: (folder, what was printed). Its name looks like the markup of the console."""
    path = tmp_path_factory.mktemp(request.param) / "run[bold]"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*TINY[request.param], "--out", str(path)]) == 0
    return path, printed.getvalue()


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


def test_the_folder_is_whole(finished):
    path, _ = finished
    assert {p.name for p in path.iterdir()} == {"config.json", "metrics.csv", "curve.png", "checkpoint", "result.json"}
    picture = matplotlib.image.imread(path / "curve.png")
    assert picture.shape[:2] == (600, 960)
    assert picture[..., :3].std() > 0.01  # something is drawn
    plan = plan_from_json(json.loads((path / "config.json").read_text()))
    config, hyper = preset(plan.algo, plan.env, total_steps=2000)
    config = dataclasses.replace(config, hidden_sizes=(16, 16)) if plan.algo == "dqn" else config
    assert plan == Plan(plan.env, plan.algo, 3, 2, 5, 3, 300.0, config, hyper)


def test_config_json_says_everything(finished):
    content = json.loads((finished[0] / "config.json").read_text())
    assert set(content["config"]) == {field.name for field in dataclasses.fields(Config)}
    assert set(content["hyper"]) == set(Hyper._fields)
    assert content["versions"]["jax"] == jax.__version__
    assert content["versions"]["orbax-checkpoint"] == importlib.metadata.version("orbax-checkpoint")
    assert content["device"] == {"platform": "cpu", "kind": "cpu", "count": jax.device_count()}


def test_metrics_are_one_row_per_agent_and_report(finished):
    path, _ = finished
    table = rows(path)
    assert tuple(table[0]) == run_folder.COLUMNS
    assert [(row["agent"], row["seed"]) for row in table] == [("0", "3"), ("1", "4")] * 6
    plan = plan_from_json(json.loads((path / "config.json").read_text()))
    columns = run_folder.read_metrics(path / "metrics.csv")
    assert (columns["updates"][0] == 0).all()  # the row of the warm-up
    run = Run(plan, envs.make(plan.env))
    ticks = (run.trainer.num_warm_up + columns["updates"] / plan.config.updates) * run.trainer.ticks
    assert (ticks[-1] == 2000).all()
    assert (np.diff(columns["env_steps"], axis=0) > 0).all()
    resets = ticks - columns["env_steps"]  # a tick after each end of an episode; the very last may be to come
    pending = columns["episodes"].cumsum(0) - resets
    assert (pending >= 0).all()
    assert (pending <= plan.config.num_envs).all()
    assert np.isfinite(columns["loss"][1:]).all()
    assert np.isnan(columns["loss"][0]).all()
    assert (columns["epsilon"][0] == 1).all()
    assert (np.diff(columns["epsilon"], axis=0) < 0).all()
    if plan.env == "CartPole-v1":  # a reward of one per step
        np.testing.assert_array_equal(columns["return"], columns["length"])


def test_the_result_agrees_with_itself_and_with_the_metrics(finished):
    path, _ = finished
    found, last = result(path), rows(path)[-2:]
    assert list(found) == RESULT.split()
    assert found["agents"] == 2
    steps = [int(row["env_steps"]) for row in last]
    assert abs(found["env_steps"] - np.mean(steps)) <= 0.5
    assert [int(row["updates"]) for row in last] == [found["updates"]] * 2
    assert float(last[0]["seconds"]) == pytest.approx(found["run_seconds"], abs=1e-3)
    assert found["env_steps_per_second"] == pytest.approx(sum(steps) / found["run_seconds"])
    for place in ("evaluation", "gymnasium"):  # both environments here have a twin
        content = found[place]
        assert list(content) == ["episodes", "mean", "ci95", "per_agent"]
        assert (content["episodes"], len(content["per_agent"])) == (3, 2)
        assert content["mean"] == pytest.approx(np.mean(content["per_agent"]))
        assert content["ci95"] == pytest.approx([min(content["per_agent"]), max(content["per_agent"])])


def test_what_is_printed(finished):
    path, printed = finished
    lines = printed.splitlines()
    assert "2 agent(s) x 2,000 steps, seed 3" in lines[0]
    # Rows of 4 float32 or 16 bools, then action, reward, terminated, last; 8 000 of them or 2; two agents.
    wanted = 2 * 8000 * (16 + 4 + 4 + 1 + 1) if result(path)["algo"] == "dqn" else 2 * 2 * (16 + 4 + 4 + 1 + 1)
    assert f"replay {wanted:,} bytes" in lines[1]
    split = r"import [\d.]+ s, (build [\d.]+ s, )?compile [\d.]+ s, run [\d.]+ s, evaluate [\d.]+ s, write [\d.]+ s"
    assert re.fullmatch(split, lines[-2])
    assert lines[-1] == f"results in {path}"
    assert not re.search("[\r\x1b]", printed)


def test_a_subprocess_is_quiet(tmp_path):
    """No bar, no escape codes, nothing on stderr, where the output is no terminal."""
    child = subprocess_of([*TINY["dqn"], "--out", tmp_path / "run"])
    out, err = child.communicate()
    assert (child.returncode, err) == (0, "")
    assert not re.search("[\r\x1b]", out)
    assert 7 <= len(out.splitlines()) <= 9
    assert (tmp_path / "run" / "result.json").exists()


def test_a_terminal_gets_a_bar():
    run = SimpleNamespace(total=10, trainer=SimpleNamespace(ticks=16))
    progress = SimpleNamespace(iteration=5, env_steps=np.array([30, 30]), seconds=0.5)
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with ProgressBar(console, run) as show:
            show(progress, {"return": np.array([np.nan, 7.0])})
        text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", console.file.getvalue())
        assert ("80 steps" in text and "120 steps/s" in text and "return 7.0" in text) == terminal
        assert terminal or not text.strip()


REFUSED = {
    "environment": ("--env CartPole-v2", "did you mean CartPole-v1"),
    "algorithm": ("--algo duelling", "choose dueling"),
    "continuous": ("--env Pendulum-v1", "continuous actions"),
    "seeds": ("--seeds 0", "--seeds must be"),
    "seed": ("--seed 4294967295 --seeds 2", "--seed must be"),
    "num_envs": ("--num-envs 0", "num_envs must be"),
    "discount": ("--discount 2", "discount must be"),
    "nan": ("--learning-rate nan", "learning_rate must be"),
    "reports": ("--reports 0", "--reports must be"),
    "checkpoint_every": ("--checkpoint-every 0", "--checkpoint-every must be"),
    "warm_up": ("--total-steps 2000 --warm-up-steps 5000", "raise total_steps or lower warm_up_steps"),
    "memory": ("--replay-size 2000000000 --seeds 64", "3,328,000,"),  # 64 x 2e9 x 26 bytes
    "parameters": ("--hidden-sizes 1000000 1000000", "16,000,128,"),
    "filled": ("--out {tmp}/filled", "is not empty"),
    "no_run": ("--out {tmp}/filled --overwrite", "holds no run"),
    "not_ours": ("--out {tmp}/not_ours --overwrite", "holds no run"),
    "file": ("--out {tmp}/filled/file", "is a file"),
    "below_a_file": ("--out {tmp}/filled/file/run", "cannot be made"),
    "missing": ("--resume {tmp}/missing", "holds no run"),
    "other_flag": ("--resume {tmp}/not_ours --seed 1", "takes no other flag"),
    "other_flag_first": ("--overwrite --resume={tmp}/not_ours", "takes no other flag"),
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
    ("arguments", "hint"), [("--num-env 3", "--num-envs"), ("--discount x", "--discount"), ("--env", "--env")]
)
def test_flags_that_cannot_be_read(arguments, hint, refusal):
    said = refusal(arguments.split())
    assert hint in said
    assert "python -m jdqn.run --help" in said


def test_a_refusal_has_no_traceback():
    child = subprocess_of(["--env", "CartPole"])
    out, err = child.communicate()
    assert (child.returncode, out, len(err.splitlines())) == (2, "", 1)
