"""The benchmarks run, and say what they measured."""

import json
import sys
from pathlib import Path

import pytest


def test_replay(monkeypatch, capsys):
    """Tiny, and as it is where flashbax is not installed."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    monkeypatch.setitem(sys.modules, "flashbax", None)
    from benchmarks import replay

    records = replay.main(["--tiny", "--repetitions", "5", "--seconds", "0.001"])
    out = capsys.readouterr().out
    assert "flashbax is not installed" in out
    assert [json.loads(line) for line in out.splitlines() if line.startswith("{")] == records
    assert [r["library"] for r in records] == ["jdqn", "jdqn"]
    assert all(0 < r["min_us"] <= r["median_us"] <= r["max_us"] for r in records)
    nodes = 4 * 85 + 1
    assert [r["state_bytes"] for r in records] == [256 * 26 + 4 * nodes + 4, 256 * 410]


@pytest.mark.nightly
def test_population(monkeypatch, capsys):
    """Tiny; both ways make real steps."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    from benchmarks import population

    records = population.main(["--tiny", "--agents", "2", "--repetitions", "2", "--seconds", "0.01"])
    assert [(r["way"], r["agents"]) for r in records] == [("jdqn", 2), ("one vmap", 2)]
    assert all(r["steps_per_second"] > 0 for r in records)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["way"] for line in lines] == ["jdqn", "one vmap"]


def test_networks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    from benchmarks import networks

    (record,) = networks.main(["--only", "CartPole", "--repetitions", "1", "--seconds", "0.001"])
    assert record["flax"] > 0
    assert record["times"] == record["flax"] / record["jdqn"]
