"""A run that is stopped and resumed equals one that never was, bit for bit, wherever and however it stopped."""

import itertools
import json
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from programs import SECONDS, TINY, result, rows, without

import jdqn
from jdqn import ALGORITHMS, ConfigError, envs
from jdqn.host import manifest, training
from jdqn.host.checkpoint import Checkpoints
from jdqn.host.plan import Plan
from jdqn.host.program import Run
from jdqn.host.signals import CheckpointClock
from jdqn.run import main

pytestmark = pytest.mark.usefixtures("_compiled_once")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Folder of the run `algo` that nobody stopped."""
    folders = {}

    def run(algo):
        if algo not in folders:
            folders[algo] = tmp_path_factory.mktemp(algo) / "run"
            assert main([*TINY[algo], "--out", str(folders[algo])]) == 0
        return folders[algo]

    return run


@pytest.fixture
def stop_at(monkeypatch):
    """Send ourselves a signal when the run reaches an iteration; until then it goes one iteration at a time."""
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def escaped(signum, frame):
        raise AssertionError("the program did not take the signal")

    def stop(iteration, signum, arguments):
        due, begin = CheckpointClock.due, Run.begin

        def ask(clock, now):
            if now == iteration:
                signal.raise_signal(signum)
            return due(clock, now)

        def start(run, *rest):
            if iteration == 0:
                signal.raise_signal(signum)
            return begin(run, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(training, "LAUNCH_SECONDS", 0.0)
            patch.setattr(CheckpointClock, "due", ask)
            patch.setattr(Run, "begin", start)
            for s in handlers:
                signal.signal(s, escaped)
            status = main([str(a) for a in arguments])
            assert all(signal.getsignal(s) is escaped for s in handlers)  # what was there is put back
        return status

    yield stop
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def newest(folder):
    """(state, sums, host) of the newest checkpoint of a run, keys as their raw words."""
    plan = Plan.from_json(json.loads((folder / "config.json").read_text()))
    checkpoints = Checkpoints(folder / "checkpoint")
    state, sums, hyper, progress = Run(plan, envs.make(plan.env)).restore(checkpoints)
    checkpoints.close()
    return state._replace(key=jax.random.key_data(state.key)), (sums, hyper), progress.to_json()


def assert_same(ours, theirs):
    """Every file of two finished runs is equal but for seconds."""
    assert [without(["seconds"], row) for row in rows(ours)] == [without(["seconds"], row) for row in rows(theirs)]
    assert without(SECONDS, result(ours)) == without(SECONDS, result(theirs))
    assert (ours / "curve.png").exists()
    (ours_state, ours_sums, ours_host), (state, sums, host) = newest(ours), newest(theirs)
    jax.tree.map(np.testing.assert_array_equal, (ours_state, ours_sums), (state, sums))
    assert without(["seconds"], ours_host) == without(["seconds"], host)


STOPS = {
    "dqn": ("dqn", [(80, signal.SIGINT)]),  # in the middle of a report
    "at_a_report": ("dqn", [(75, signal.SIGTERM)]),
    "while_warming_up": ("dqn", [(0, signal.SIGINT)]),
    "twice": ("q_learning", [(600, signal.SIGTERM), (1234, signal.SIGINT)]),
    "last": ("q_learning", [(2000, signal.SIGTERM)]),
}


@pytest.mark.parametrize(
    "case", [case if case == "dqn" else pytest.param(case, marks=pytest.mark.slow) for case in STOPS]
)
def test_a_stopped_run_goes_on_as_if_it_had_not(case, uninterrupted, stop_at, tmp_path, capsys):
    algo, stops = STOPS[case]
    reference, path = uninterrupted(algo), tmp_path / "run"
    arguments = [*TINY[algo], "--out", path]
    for iteration, signum in stops:
        assert stop_at(iteration, signum, arguments) == 128 + signum
        assert f"go on with python -m jdqn.run --resume {path}\n" in capsys.readouterr().out
        assert not (path / "result.json").exists()
        _, (sums, _), host = newest(path)
        assert host["iteration"] == (iteration or 63)  # the warm-up ends at 63
        assert len(rows(path)) == 2 * host["reports"]
        partial = case not in ("at_a_report", "while_warming_up", "last")
        assert (np.asarray(sums.env_steps) > 0).all() == partial
        arguments = ["--resume", path]
    assert main([str(a) for a in arguments]) == 0
    assert_same(path, reference)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_last_checkpoint_is_taken(signum, uninterrupted, monkeypatch, tmp_path):
    """Of several parts the next one would be trained instead; all that is left here is to evaluate."""
    path, save, signals = tmp_path / "run", Checkpoints.save, [signum]

    def signalled(checkpoints, iteration, *rest):
        save(checkpoints, iteration, *rest)
        if iteration == 2000 and signals:
            signal.raise_signal(signals.pop())

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", signalled)
        assert main([*TINY["q_learning"], "--out", str(path)]) == 128 + signum
    assert not (path / "result.json").exists()
    assert main(["--resume", str(path)]) == 0
    assert without(SECONDS, result(path)) == without(SECONDS, result(uninterrupted("q_learning")))


DAMAGES = {
    "no run": lambda content: content["host"].pop("run"),
    "no device": lambda content: content["host"]["run"].pop("device"),
    "more progress": lambda content: content["host"]["progress"].update(more=1),
    "less progress": lambda content: content["host"]["progress"].pop("reports"),
    "other arrays": lambda content: content["arrays"].update(something="float32[3]"),
}


@pytest.fixture
def stopped(stop_at, tmp_path):
    path = tmp_path / "run"
    assert stop_at(1200, signal.SIGTERM, [*TINY["q_learning"], "--out", path]) == 128 + signal.SIGTERM
    return path


def never(*arguments):
    raise AssertionError("it compiles, or trains")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_of_another_version_is_refused_before_compiling(damage, stopped, monkeypatch, capsys):
    folder = max((stopped / "checkpoint").iterdir(), key=lambda x: int(x.name))
    content = manifest.read(folder)
    DAMAGES[damage](content)
    shutil.rmtree(stopped / "checkpoint")
    folder.mkdir(parents=True)
    content["files"] = {}
    checksum = manifest._of_content(content)
    (folder / manifest.NAME).write_text(json.dumps({"checksum": checksum, "content": content}))
    monkeypatch.setattr(Run, "compile", never)
    capsys.readouterr()
    assert main(["--resume", str(stopped)]) == 2
    said = capsys.readouterr().err
    assert "was written by jdqn" in said
    assert "go on with the version that wrote it" in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "holds 0 of the"), (b"\xff\xfe", "holds 1 of the"), ("folder", "cannot be read (Is a directory)"),
        ("cut", "damaged in line"),
        ((1, b"agent"), "line 1"), ((2, b"0x"), "line 2"), ((2, b"1,2"), "line 2"), ((2, b"\xff"), "line 2"),
    ],
)  # fmt: skip
def test_metrics_that_are_damaged_are_refused_before_compiling(content, reason, stopped, monkeypatch, capsys):
    path = stopped / "metrics.csv"
    lines = path.read_bytes().split(b"\n")
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content == "cut":  # in the last cell of the last row that counts
        newest = max((stopped / "checkpoint").iterdir(), key=lambda x: int(x.name))
        counted = 1 + 2 * manifest.read(newest)["host"]["progress"]["reports"]
        path.write_bytes(b"\n".join(lines[:counted])[:-1])
    elif isinstance(content, tuple):
        number, cell = content
        lines[number - 1] = cell + lines[number - 1][1:]
        path.write_bytes(b"\n".join(lines))
    elif content:
        path.write_bytes(content)
    monkeypatch.setattr(Run, "compile", never)
    capsys.readouterr()
    assert main(["--resume", str(stopped)]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert "resumed" in said


def test_rows_after_the_checkpoint_are_written_again(uninterrupted, stop_at, tmp_path, capsys):
    """As after a crash: more rows than the checkpoint counts, and half a row. Fewer rows are refused."""
    path = tmp_path / "run"
    stop_at(80, signal.SIGTERM, [*TINY["dqn"], "--out", path])
    written = (path / "metrics.csv").read_text()
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    (copy / "metrics.csv").write_text("".join(written.splitlines(keepends=True)[:-1]))
    capsys.readouterr()
    assert main(["--resume", str(copy)]) == 2
    assert "it cannot be resumed" in capsys.readouterr().err
    (path / "metrics.csv").write_text(written + "".join(written.splitlines(keepends=True)[-2:]) + "0,3,12")
    assert main(["--resume", str(path)]) == 0
    assert_same(path, uninterrupted("dqn"))


def test_a_run_without_a_checkpoint_is_refused_before_it_compiles(uninterrupted, tmp_path, capsys, monkeypatch):
    shutil.copy(uninterrupted("q_learning") / "config.json", tmp_path)
    monkeypatch.setattr(Run, "compile", None)
    assert main(["--resume", str(tmp_path)]) == 2
    assert "holds no checkpoint yet: start the run again with --overwrite" in capsys.readouterr().err


def test_what_is_loaded_is_what_the_run_has_learnt(uninterrupted, tmp_path):
    """A damaged checkpoint is warned of, and settings that are not the run's are refused."""
    path = tmp_path / "run"
    shutil.copytree(uninterrupted("q_learning"), path)
    older, newest = sorted(int(x.name) for x in (path / "checkpoint").iterdir())
    assert jdqn.load(path).iteration == newest == 2000
    damaged = path / "checkpoint" / str(newest) / "manifest.json"
    damaged.write_text("{}")
    with pytest.warns(UserWarning, match=rf"{damaged} is damaged: .* {older}$") as warned:
        assert jdqn.load(path).iteration == older
    assert warned[0].filename == __file__
    content = json.loads((path / "config.json").read_text())
    content["hyper"]["discount"] = 0.5
    (path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"was made with discount=0.99, and config.json says 0.5"):
        jdqn.load(path)


def saves(monkeypatch, arguments):
    """Iterations of the checkpoints that a run asks for."""
    asked = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, iteration, *rest: asked.append(iteration))
    assert main([str(a) for a in arguments]) == 0
    return sorted(set(asked))


@pytest.mark.parametrize("reports", [5, 100])
def test_there_are_ten_checkpoints(reports, tmp_path, monkeypatch):
    found = saves(monkeypatch, [*TINY["q_learning"], "--reports", reports, "--out", tmp_path / "run"])
    tenths = {10 * iteration // 2000 for iteration in found}
    assert tenths >= set(range(1, 11))
    assert len(found) <= 12
    assert found[-1] == 2000


def test_checkpoints_come_after_so_many_seconds(monkeypatch):
    clock = itertools.count().__next__  # a second for each look
    now = {"now": 0.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["now"])
    checkpoints = CheckpointClock(30.0, 0, 1000)
    asked = []
    for iteration in range(1, 300):
        now["now"] = float(clock())
        if checkpoints.due(iteration):
            checkpoints.saved()
            asked.append(iteration)
    assert asked == [31, 61, 91, 100, 130, 160, 190, 200, 230, 260, 290]


def test_every_launch_may_be_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LAUNCH_SECONDS", 0.0)
    found = saves(monkeypatch, [*TINY["dqn"], "--checkpoint-every", "1e-9", "--out", tmp_path / "run"])
    assert found == list(range(64, 126))


SMALL = ["--hidden-sizes", "16", "16", "--total-steps", "2000", "--reports", "5", "--episodes", "2", "--seed", "3"]


@pytest.mark.nightly
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_goes_on_as_if_it_had_not_stopped(algo, stop_at, tmp_path):
    arguments = ["--algo", algo, *SMALL]
    if algo == "q_learning":
        arguments = TINY["q_learning"]
    if algo not in ("pqn", "pqn_rnn", "q_learning"):
        arguments += ["--warm-up-steps", "500", "--replay-size", "1200"]
    reference, path = tmp_path / "reference", tmp_path / "run"
    assert main([*arguments, "--out", str(reference)]) == 0
    plan = Plan.from_json(json.loads((reference / "config.json").read_text()))
    run = Run(plan, envs.make(plan.env))
    middle = (run.trainer.num_warm_up + run.total) // 2
    assert stop_at(middle, signal.SIGTERM, [*arguments, "--out", path]) == 128 + signal.SIGTERM
    assert newest(path)[2]["iteration"] == middle
    assert main(["--resume", str(path)]) == 0
    assert_same(path, reference)
