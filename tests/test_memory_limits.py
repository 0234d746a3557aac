"""The program where memory is short: agents in waves of as many as fit, or a refusal; and agents side by side."""

import json
import re

import numpy as np
import pytest
from programs import TINY, result, rows, without

from jdqn import envs, parallel
from jdqn.host.plan import Plan
from jdqn.host.program import Run
from jdqn.run import main

pytestmark = pytest.mark.usefixtures("_compiled_once")

AGENTS = ["--seeds", "5", "--devices", "1"]
BRED = ["--pbt-every", "300", "--sweep", "random", "--samples", "5", "--seeds", "1", "--learning-rate", "1e-4", "1e-2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder of five agents that had room, bytes of one of them)."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert main([*TINY["dqn"], *AGENTS, "--out", str(path)]) == 0
    plan = Plan.from_json(json.loads((path / "config.json").read_text()))
    return path, Run(plan, envs.make(plan.env)).agent_bytes


@pytest.fixture
def leave(monkeypatch):
    def call(free):
        monkeypatch.setattr("jdqn.host.memory.available_bytes", lambda: int(free))

    return call


@pytest.mark.slow
def test_as_many_as_fit_are_trained_together(whole, leave, tmp_path, capsys):
    """Room for two with their copies and as much again makes three waves, which leave what one run leaves."""
    enough, size = whole
    leave(2.5 * 3 * size)
    assert main([*TINY["dqn"], *AGENTS, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert [f"part {k} of 3: {n} agent(s)" in printed for k, n in ((1, 2), (2, 2), (3, 1))] == [True] * 3
    parts = json.loads((tmp_path / "run" / "parts.json").read_text())["plans"]
    assert [part["seeds"] for part in parts] == [[3, 4], [5, 6], [7]]
    one, two = result(enough), result(tmp_path / "run")
    for name in ("agents", "env_steps", "evaluation", "gymnasium", "non_finite"):
        assert one[name] == two[name]
    one, two = ([without(["seconds"], row) for row in rows(path)] for path in (enough, tmp_path / "run"))
    assert one == two


@pytest.mark.slow
def test_what_not_even_one_agent_has_room_for_is_refused(whole, leave, tmp_path, capsys):
    """Before the compilation what is to be kept, after it also what is to be computed with; nothing is touched."""
    enough, size = whole
    before = {path: path.read_bytes() for path in enough.rglob("*") if path.is_file()}
    again = [*TINY["dqn"], *AGENTS, "--overwrite", "--out", str(enough)]
    says = (
        r"error: training 1 agent\(s\)( .*,)? and saving them needs ([\d,]+) bytes \(.*\) and ([\d,]+) \(.*\) are "
        "free: lower replay_size, batch_size, atoms or the network's sizes, or the number of agents or --wave\n"
    )

    def refusal(free):
        leave(free)
        assert main(again) == 2
        found = re.fullmatch(says, capsys.readouterr().err)
        assert int(found[3].replace(",", "")) == free
        return found[1], int(found[2].replace(",", ""))

    assert refusal(2 * size - 1) == (None, 2 * size)
    computing = " with batches and gradients,"
    words, needed = refusal(2 * size)
    assert words == computing
    assert needed > 2 * size
    assert refusal(needed - 1) == (computing, needed)
    assert {path: path.read_bytes() for path in enough.rglob("*") if path.is_file()} == before
    leave(needed)
    assert main([*TINY["dqn"], *AGENTS, "--out", str(tmp_path / "run")]) == 0
    assert result(tmp_path / "run")["evaluation"] == result(enough)["evaluation"]


@pytest.mark.slow
def test_a_population_that_does_not_fit_cannot_breed(whole, leave, tmp_path, capsys):
    leave(2.5 * 3 * whole[1])
    assert main([*TINY["dqn"], "--devices", "1", *BRED, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "--pbt-every compares all agents, and 5 do not fit into memory or --wave together (2 do)" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_agents_side_by_side_do_what_they_do_in_turns(tmp_path, monkeypatch):
    """Products of another shape round otherwise, which shows in no choice of so few steps."""
    sizes, of = [], parallel.group_size
    monkeypatch.setattr(parallel, "group_size", lambda *asked: sizes.append(of(*asked)) or sizes[-1])
    words = [*TINY["dqn"], "--seeds", "4", "--devices", "1"]
    for name, more, expected in (("turns", [], {1}), ("batches", ["--at-once", "2"], {2})):
        sizes.clear()
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
        assert set(sizes) == expected
    turns, batches = tmp_path / "turns", tmp_path / "batches"
    assert result(turns)["evaluation"] == result(batches)["evaluation"]
    one, two = ([without(["seconds"], row) for row in rows(path)] for path in (turns, batches))
    assert len(one) == len(two) == 4 * 6
    for a, b in zip(one, two, strict=True):
        for name in a:
            np.testing.assert_allclose(float(b[name] or "nan"), float(a[name] or "nan"), rtol=1e-3, err_msg=name)
