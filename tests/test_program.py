"""The program from its command line to its folder: what it writes, what it prints, what it refuses."""

import contextlib
import dataclasses
import importlib.metadata
import io
import json
import re
import shutil
from types import SimpleNamespace

import jax
import matplotlib.image
import numpy as np
import pytest
from programs import DQN, TINY, result, rows, subprocess_of
from rich.console import Console

from jdqn import Config, Hyper, envs, preset
from jdqn.host import folder as run_folder
from jdqn.host import training
from jdqn.host.console import ProgressBar
from jdqn.host.devices import arithmetic
from jdqn.host.memory import tree_bytes
from jdqn.host.plan import Plan
from jdqn.host.program import Run
from jdqn.run import main

RESULT = (
    "env algo agents env_steps updates compile_seconds run_seconds env_steps_per_second evaluation non_finite "
    "best_checkpoint gymnasium"
)

pytestmark = pytest.mark.usefixtures("_compiled_once")


@pytest.fixture(scope="module", params=["dqn", pytest.param("q_learning", marks=pytest.mark.slow)])
def finished(request, tmp_path_factory):
    """A finished run: (folder, what was printed). Its name looks like the markup of the console."""
    path = tmp_path_factory.mktemp(request.param) / "run[bold]"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*TINY[request.param], "--out", str(path)]) == 0
    return path, printed.getvalue()


def test_the_folder_is_whole(finished):
    path, _ = finished
    there = {"config.json", "metrics.csv", "curve.png", "checkpoint", "result.json", "sweep.csv"}
    assert {p.name for p in path.iterdir()} == there
    lines = (path / "sweep.csv").read_text().splitlines()
    assert (lines[0], len(lines)) == ("agent,part,agent_of_part,seed,return", 3)
    picture = matplotlib.image.imread(path / "curve.png")
    assert picture.shape[:2] == (600, 960)
    assert (picture[..., 2] - picture[..., 0] > 0.2).sum() > 1000  # lines in blue
    plan = Plan.from_json(json.loads((path / "config.json").read_text()))
    settings = DQN | {"hidden_sizes": (16, 16)} if plan.algo == "dqn" else {}
    config, hyper = preset(plan.algo, plan.env, total_steps=2000, **settings)
    assert plan == Plan(plan.env, {}, plan.algo, (3, 4), 5, 3, 300.0, config, hyper)


def test_config_json_says_everything(finished):
    content = json.loads((finished[0] / "config.json").read_text())
    assert set(content["config"]) == {field.name for field in dataclasses.fields(Config)}
    assert set(content["hyper"]) == set(Hyper._fields)
    assert content["versions"]["jax"] == jax.__version__
    assert content["versions"]["gymnax"] == importlib.metadata.version("gymnax")
    assert content["device"] == {"platform": "cpu", "kind": arithmetic(), "count": jax.device_count()}


def test_metrics_are_one_row_per_agent_and_report(finished):
    path, _ = finished
    table = rows(path)
    assert tuple(table[0]) == run_folder.METRICS
    assert [(row["agent"], row["seed"]) for row in table] == [("0", "3"), ("1", "4")] * 6
    plan = Plan.from_json(json.loads((path / "config.json").read_text()))
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
    # Rows of 4 float32 or 16 bits in a word, then action, reward, terminated, last; 800 of them or 2; two agents.
    wanted = 2 * (800 * 26 if result(path)["algo"] == "dqn" else 2 * 14)
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


def test_overwriting_replaces_the_run(finished, tmp_path):
    path, copy = finished[0], tmp_path / "run"
    shutil.copytree(path, copy)
    (copy / "result.json").write_text("{}")
    (copy / "left.txt").write_text("by the old run")
    kind = result(path)["algo"]
    assert main([*TINY[kind], "--out", str(copy), "--overwrite"]) == 0
    assert not (copy / "left.txt").exists()
    assert rows(copy)[-1]["env_steps"] == rows(path)[-1]["env_steps"]
    assert result(copy)["evaluation"] == result(path)["evaluation"]


def test_a_finished_run_is_not_resumed(finished, capsys, monkeypatch):
    monkeypatch.setattr(Run, "compile", None)
    assert main(["--resume", str(finished[0])]) == 0
    assert f"{finished[0]} is finished: see {finished[0]}/result.json" in capsys.readouterr().out


@pytest.mark.slow
def test_an_environment_without_a_twin(tmp_path):
    """Compiled programs are kept where the flag says, or nowhere."""
    tiny = ["--env=Catch-bsuite", "--total-steps=1500", "--hidden-sizes=8", "--reports=2", "--episodes=3"]
    tiny += ["--overwrite", "--out", tmp_path / "run"]
    nowhere = {"HOME": str(tmp_path / "home"), "JAX_COMPILATION_CACHE_DIR": None}
    for cache in ("none", tmp_path / "compiled"):
        child = subprocess_of([*tiny, "--compilation-cache", cache], **nowhere)
        child.communicate()
        assert child.returncode == 0
    assert result(tmp_path / "run")["gymnasium"] is None
    assert any((tmp_path / "compiled").iterdir())
    assert not (tmp_path / "home" / ".cache" / "jdqn").exists()


@pytest.mark.parametrize(
    ("agents", "devices", "more", "copied"),
    [
        (4, 2, {}, True),
        (4, 1, dict(at_once=2), True),
        (4, 2, dict(at_once=2), False),  # all at once
        (2, 2, {}, False),  # one on each device
        (1, 1, {}, False),
        (1, 2, dict(shards=2), False),
    ],
)
def test_agents_that_take_turns_are_copied(agents, devices, more, copied):
    config, hyper = preset("dqn", "CartPole-v1")
    plan = Plan("CartPole-v1", {}, "dqn", tuple(range(agents)), 5, 3, 300.0, config, hyper, **more)
    run = Run(plan, envs.make(plan.env), devices)
    assert run.copied_bytes == (tree_bytes(run.shapes) if copied else 0)


def test_launches_are_ten_times_as_long_as_what_they_copy(finished, tmp_path, monkeypatch):
    assert [training.launch_seconds(copied) for copied in (0, 10**8, 6 * 10**8, 10**12)] == [1, 1, 2, 10]
    monkeypatch.setattr(Run, "copied_bytes", 123)
    monkeypatch.setattr(training, "launch_seconds", {123: 1e-9}.__getitem__)
    calls, advance = [], Run.advance
    monkeypatch.setattr(Run, "advance", lambda run, *rest: calls.append(int(rest[-1])) or advance(run, *rest))
    algo = json.loads((finished[0] / "config.json").read_text())["algo"]
    assert main([*TINY[algo], "--out", str(tmp_path / "run")]) == 0
    assert np.diff(calls).max() == 1
