"""Of several processes one writes: what the others leave in the folder of a run are their parts of checkpoints."""

import importlib
import pkgutil
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from programs import TINY

import jdqn
from jdqn.host import checkpoint, processes
from jdqn.host.checkpoint import Checkpoints
from jdqn.host.folder import METRICS, Table
from jdqn.run import main

pytestmark = pytest.mark.usefixtures("_compiled_once")

PART = r"(part-\d+/)?checkpoint/\d+/arrays/[^/]+\.np[yz]"
RUNS = {
    "one": [*TINY["q_learning"]],
    "sweep in waves": [*TINY["q_learning"], "--learning-rate", ".1", ".5", "--wave", "3"],
    "bred": [
        *TINY["q_learning"], "--sweep", "random", "--samples", "3", "--seeds", "1", "--learning-rate", ".1", ".5",
        "--pbt-every", "500", "--keep-best",
    ],
}  # fmt: skip


@pytest.fixture
def be_second(monkeypatch):
    """A function after which this process is not the first one, whoever asks."""

    def call():
        found = [importlib.import_module(module.name) for module in pkgutil.walk_packages(jdqn.__path__, "jdqn.")]
        asking = [module for module in found if getattr(module, "first", None) is processes.first]
        assert len(asking) > 5
        for module in asking:
            monkeypatch.setattr(module, "first", lambda: False)

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_its_tables_are_no_files(tmp_path, be_second):
    """Neither a new one nor one that goes on, which a shared disk may show late."""
    be_second()
    for rows in (0, 4):
        table = Table(tmp_path / "metrics.csv", METRICS, rows)
        table.add(dict.fromkeys(METRICS, np.zeros(2)))
        assert table.sync()
        table.close()
    assert not any(tmp_path.iterdir())


def test_its_checkpoints_are_arrays_without_a_manifest(tmp_path, be_second):
    """It removes none either: older ones, and what is unfinished, are the first one's to tidy."""
    be_second()
    checkpoints = Checkpoints(tmp_path, keep=1)
    for k in (1, 2):
        checkpoints.save(k, {"small": jnp.full(3, k), "large": jnp.zeros(2**19)}, {})
    checkpoints.close()
    names = {f"{k}/arrays/{name}" for k in (1, 2) for name in ("small-0.npz", "0000-0.npy")}
    assert set(files(tmp_path)) == names
    Checkpoints(tmp_path).tidy()
    assert set(files(tmp_path)) == names


@pytest.mark.parametrize("kind", ["one", *(pytest.param(k, marks=pytest.mark.slow) for k in RUNS if k != "one")])
def test_the_second_process_leaves_its_parts_of_checkpoints(kind, tmp_path, be_second, capsys):
    """No folder, settings, table, figure or result; what is there stays as it is."""
    (tmp_path / "config.json").write_text("of the first, which is seen late")
    before = files(tmp_path)
    be_second()
    assert main([*RUNS[kind], "--out", str(tmp_path)]) == 0
    found = files(tmp_path)
    parts = [name for name in found if re.fullmatch(PART, name)]
    assert len({name.split("/")[0] for name in parts}) == (2 if kind == "sweep in waves" else 1)
    assert {name: content for name, content in found.items() if name not in parts} == before


@pytest.mark.slow
def test_the_second_process_goes_on_without_touching_what_is_there(tmp_path, be_second, monkeypatch):
    """Rows that the checkpoint does not count, and a checkpoint that is unfinished, are the first one's to remove."""
    path = tmp_path / "run"
    assert main([*RUNS["bred"], "--out", str(path)]) == 0
    (path / "result.json").unlink()
    older, newer = Checkpoints(path / "checkpoint").saved()[-2:]
    shutil.rmtree(path / "checkpoint" / str(newer))
    (path / "checkpoint" / "1" / "arrays").mkdir(parents=True)
    (path / "checkpoint" / "1" / "arrays" / "small-1.npz").write_text("half of another one")
    before = files(path)
    assert {"config.json", "metrics.csv", "lineage.csv", "sweep.csv", "curve.png"} < set(before)
    be_second()
    monkeypatch.setattr(checkpoint, "agree", lambda *numbers: [older])  # the first one has looked for it
    assert main(["--resume", str(path)]) == 0
    found = files(path)
    assert set(found) - set(before) == {f"checkpoint/{newer}/arrays/small-0.npz"}
    assert {name: found.get(name) for name in before} == before
