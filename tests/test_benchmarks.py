"""The benchmarks run, and say what they measured."""

import json
import re
import sys
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
ONCE = ["--tiny", "--repetitions", "1", "--seconds", "0.001"]


@pytest.fixture(autouse=True)
def _there(monkeypatch):
    """The scripts are found, and gymnax may use its keys as it does."""
    monkeypatch.syspath_prepend(ROOT)
    with jax.debug_key_reuse(False):
        yield


def test_replay(monkeypatch, capsys):
    """Tiny, and as it is where flashbax is not installed."""
    monkeypatch.setitem(sys.modules, "flashbax", None)
    from benchmarks import replay

    records = replay.main(["--tiny", "--repetitions", "5", "--seconds", "0.001"])
    out = capsys.readouterr().out
    assert "flashbax is not installed" in out
    told = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [{name: line[name] for name in record} for line, record in zip(told, records, strict=True)] == records
    assert [r["library"] for r in records] == ["jdqn", "jdqn"]
    assert all(0 < r["min_us"] <= r["median_us"] <= r["max_us"] for r in records)
    nodes = 4 * 85 + 1
    assert [r["state_bytes"] for r in records] == [256 * 26 + 4 * nodes + 4, 256 * 62]


@pytest.mark.nightly
def test_population(capsys):
    """Tiny; both ways make real steps."""
    from benchmarks import population

    records = population.main(["--tiny", "--agents", "2", "--repetitions", "2", "--seconds", "0.01"])
    assert [(r["way"], r["agents"]) for r in records] == [("jdqn", 2), ("one vmap", 2)]
    assert all(r["steps_per_second"] > 0 for r in records)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["way"] for line in lines] == ["jdqn", "one vmap"]


@pytest.mark.nightly
def test_devices():
    from benchmarks import devices

    records = devices.main(ONCE)
    assert [(r["way"], r["devices"]) for r in records[::2]] == [("population", 1), ("data", 1)]
    assert all(r["steps_per_second"] > 0 for r in records)


@pytest.mark.nightly
def test_allreduce():
    """The bytes are those of the networks, whether packed into one array or one by one."""
    from benchmarks import allreduce

    records = allreduce.main(ONCE)
    assert [(r["hosts"], r["arrays"]) for r in records] == [(hosts, n) for hosts in (1, 2) for n in (1, 1, 4, 1, 6)]
    mlp, convolutions = 4 * (4 * 8 + 8 + 8 * 2 + 2), 4 * (9 * 4 * 16 + 16 + 1024 * 8 + 8 + 8 * 3 + 3)
    assert [r["bytes"] for r in records] == 2 * [4, mlp, mlp, convolutions, convolutions]
    assert all(0 < r["microseconds"] <= r["slow"] for r in records)


def test_floor():
    """The products of an update are counted: three times those of a forward pass, and once for the target network."""
    from benchmarks import floor

    (record,) = floor.main([*ONCE, "--rows", "a1"])
    forward = 2 * 128 * (4 * 120 + 120 * 84 + 84 * 2) / 1e6
    backward = 2 * forward - 2 * 128 * 4 * 120 / 1e6  # nothing is asked of the observations
    assert record["flops"] == pytest.approx(2 * forward + backward)
    assert min(record[name] for name in ("floor", "moving", "act", "sample", "update", "whole")) > 0


def test_networks():
    from benchmarks import networks

    (record,) = networks.main(ONCE)
    assert record["flax"] > 0
    assert record["times"] == record["flax"] / record["jdqn"]


def test_checkpoint(tmp_path):
    from benchmarks import checkpoint

    records = checkpoint.main([*ONCE, "--runs", "0", "--where", str(tmp_path)])
    assert len(records) == 7
    assert all(record["seconds"] > 0 for record in records)
    assert not list(tmp_path.iterdir())


@pytest.mark.nightly
def test_checkpoints_in_a_run(tmp_path):
    from benchmarks import checkpoint

    record = checkpoint.main([*ONCE, "--runs", "1", "--where", str(tmp_path)])[-1]
    assert record["with"] > 0 < record["without"]
    assert record["bytes"] > 1000 * 52  # rows of Breakout


def test_stepping():
    """Both libraries make transitions; ours leaves out the ticks that only reset."""
    from benchmarks import stepping

    records = stepping.main(ONCE)
    assert len(records) == 4
    assert all(r["steps_per_second"] > 0 for r in records)
    reset, step = stepping.ours("CartPole-v1", 1)  # pushed to the left, it is over in about ten steps
    state, counts, lasts = reset(jax.random.key(0)), [], []
    for t in range(30):
        lasts.append(bool(state[2][0]))
        state, (count, _, _) = step(jax.random.key(t), state, np.zeros(1, int))
        counts.append(int(count))
    assert 2 <= sum(lasts) <= 4
    assert counts == [not last for last in lasts]


def test_training(tmp_path):
    """Steps are counted as the trainer counts them, and both tables are in the file."""
    from benchmarks import training

    records = training.main([*ONCE, "--out", str(tmp_path / "training.txt")])
    assert [(r["environments"], r["updates_per_step"]) for r in records] == [(8, 2 / 16), (4, 2 / 8)]
    ticks = [r["updates_per_second"] / r["updates_per_step"] for r in records]
    assert all(0.8 * t < r["steps_per_second"] < t for t, r in zip(ticks, records, strict=True))  # episodes are short
    assert len((tmp_path / "training.txt").read_text().split("\n| env |")) == 3


def test_scaling():
    from benchmarks import scaling

    records = scaling.main([*ONCE, "--only", "environments"])
    assert [r["value"] for r in records] == [2, 4]
    assert records[1]["growth"] == records[1]["microseconds"] / records[0]["microseconds"]
    assert records[1]["kept"] == ("yes" if records[1]["growth"] < 2 else "no")
    four = [dict(what="batch", value=1, microseconds=1.0), dict(what="batch", value=4, microseconds=9.0)]
    assert scaling.judged(four)[1] == four[1] | dict(growth=3.0, kept="no")
    replay = [dict(what="replay", value=k, microseconds=1.0 + k / 10) for k in (0, 2, 4)]
    assert [r.get("kept") for r in scaling.judged(replay)] == [None, "yes", "no"]


@pytest.mark.nightly
def test_startup():
    """The parts of a process add up."""
    from benchmarks import startup

    records = {(r["what"], r["cache"]): r["seconds"] for r in startup.main(ONCE)}
    for cache in ("cold", "cached"):
        every = {what: x for (what, which), x in records.items() if which == cache}
        assert every.pop("all, to the first update") == pytest.approx(sum(every.values()))
    assert records["compile", "cached"] < records["compile", "cold"]


def test_versus_says_what_is_missing(tmp_path, capsys):
    """Without PureJaxRL's checkout jdqn stands alone, with the updates that PureJaxRL would make."""
    from benchmarks import versus

    theirs, on_one_thread, ours = versus.main([*ONCE, "--rows", "a1", "--out", str(tmp_path)])
    assert on_one_thread["library"] == "PureJaxRL, NPROC=1"
    assert theirs["note"] == on_one_thread["note"] == "not run: give --purejaxrl CHECKOUT"
    assert (ours["ticks"], ours["updates"], ours["parameters"]) == (11_000, 100, 10_934)
    assert 10_000 < ours["transitions"] < 11_000
    assert ours["times"] == 1.0
    assert theirs["note"] in (tmp_path / "versus-a1.txt").read_text()
    assert "Unequal: jdqn resets" in capsys.readouterr().out


def test_a_driver_that_falls_leaves_its_last_words(monkeypatch, tmp_path):
    from benchmarks import versus

    (tmp_path / "benchmarks" / "peers").mkdir(parents=True)
    (tmp_path / "benchmarks" / "peers" / "falls.py").write_text("raise SystemExit('no such thing')")
    monkeypatch.setattr(versus, "ROOT", tmp_path)
    with pytest.raises(versus.Missing, match="not run: no such thing"):
        versus.Driver(sys.executable, "falls", {}, {})


def test_rows_are_equal_work():
    """What both sides' settings say of batches, updates and steps."""
    import jdqn
    from benchmarks import rows

    for name, row in rows.rows(tiny=False).items():
        config, _ = jdqn.preset(row.algorithm, "", **row.ours)
        iterations = jdqn.total_iterations(config)
        for library, (_, asked) in row.libraries.items():
            theirs = asked["settings"]
            steps = theirs.get("TOTAL_TIMESTEPS") or theirs.get("total_timesteps") or asked["steps"]
            assert steps == config.total_steps == iterations * config.num_envs * config.rollout_length, name
            batch = theirs.get("BUFFER_BATCH_SIZE") or theirs.get("batch_size")
            if library.startswith("PureJaxQL"):
                batch = theirs["NUM_ENVS"] * theirs["NUM_STEPS"] // theirs["NUM_MINIBATCHES"]
                assert config.updates == theirs["NUM_MINIBATCHES"] * theirs["NUM_EPOCHS"]
                assert batch == config.batch_size * config.rollout_length
            else:
                assert batch == config.batch_size
                assert config.num_envs == asked.get("num_envs", theirs.get("NUM_ENVS") or theirs.get("num_envs"))


def test_greedy_episodes_are_those_of_gymnasium(monkeypatch):
    """The judge of the race against a plain loop over Gymnasium's environment; its clock leaves the judging out."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "peers")
    import greedy

    kernel = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.3]])
    layers = [(kernel, np.zeros(2))]
    env, returns = gymnasium.make("CartPole-v1"), []
    for seed in range(100):
        obs, done, total = env.reset(seed=seed)[0], False, 0.0
        while not done:
            obs, reward, terminated, truncated, _ = env.step(int((obs @ kernel).argmax()))
            total, done = total + reward, terminated or truncated
        returns.append(total)
    assert greedy.mean_return(layers, 0) == pytest.approx(np.mean(returns), abs=4 * np.std(returns) / 10)
    left = [(np.zeros((4, 2)), np.array([1.0, 0.0]))]
    assert 8 < greedy.mean_return(left, 0) < 11
    told: list[dict] = []
    race = greedy.Race(0, 0.0, told.append)
    assert not race.over(left, 100)
    monkeypatch.setattr(greedy, "mean_return", lambda layers, seed: 480.0)
    assert race.over(left, 200)
    assert (told[0]["steps"], told[0]["reached"], told[0]["again"], race.judging > 0) == (200, True, 480.0, True)


@pytest.mark.nightly
def test_race(monkeypatch, capsys):
    """Ours wins, also where it finds its programs compiled; who is missing stops nobody."""
    from benchmarks import race, versus

    def python_of(library, *_):
        if library != "jdqn":
            raise versus.Missing("not run: here")
        return sys.executable

    monkeypatch.setattr(race, "python_of", python_of)
    versus.main(["--tiny", "--rows", "f"])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [r["reached"] for r in records[:2]] == ["1 of 1", "1 of 1"]
    assert records[1]["steps"] == records[0]["steps"]
    assert {r["note"] for r in records[2:]} == {"not run: here"}


def test_report(tmp_path):
    """Of made-up results: what was printed is in the document, figures stand beside it, what is missing is left out."""
    from benchmarks import report
    from benchmarks.common import tell

    results, columns = tmp_path / "results", {"env": "", "environments": "", "updates": "", "steps_per_second": ".0f"}
    presets = [dict(env="E", environments=8, updates=2, steps_per_second=5.0)]
    many = [
        dict(env=env, environments=n, updates=u, steps_per_second=n / u) for env in "EF" for n in (1, 4) for u in (1, 8)
    ]
    tell("Presets", presets, columns, results / "training.txt")
    tell("Many", many, columns, results / "training.txt", more=True)
    for name, times in (("a", 2.0), ("b", None)):
        record = dict(row=name, library="Other", times=times, note="" if times else "not run: give --other CHECKOUT")
        versus = dict(row="", library="", times=".2f", note="")
        tell(f"Row {name}\n\nUnequal: much.", [record], versus, results / f"versus-{name}.txt")
    out = report.main(["--results", str(results), "--out", str(tmp_path / "benchmarks.md")])
    text = out.read_text()
    assert re.findall(r"^#+ .*", text, re.M) == [
        "# Benchmarks", "## Beside other libraries", "### Row a", "### Row b", "## Training", "### Presets", "### Many",
    ]  # fmt: skip
    assert "| a | Other | 2.00 |  |" in text
    assert "| b | Other |  | not run: give --other CHECKOUT |" in text
    assert "Unequal: much." in text
    assert '{"' not in text
    assert [section.title for section in report.read(results / "training.txt")] == ["Presets", "Many"]
    figures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert figures == ["results/versus.png", "results/training.png"]
    assert all((tmp_path / figure).stat().st_size > 5_000 for figure in figures)


def test_the_committed_report_is_that_of_the_results(tmp_path):
    """docs/benchmarks.md is what the script makes of benchmarks/results/."""
    from benchmarks import report

    text = report.document(ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks.md", tmp_path)
    assert (ROOT / "docs" / "benchmarks.md").read_text() == text


@pytest.mark.nightly
def test_accelerator():
    """Every work runs, a tiny bit of it."""
    from benchmarks import accelerator

    found = accelerator.main(["--tiny", "--repetitions", "1"])
    assert [record["work"] for record in found] == ["breakout", "breakout-heavy", "cartpole"]
    assert all(record["seconds"] > 0 for record in found)
    assert [record["updates"] for record in found] == [256, 1000, 100]


def test_memory():
    """A process is looked at until it is stopped; one that ends by itself is not a measurement."""
    from benchmarks import memory

    ready = memory.watch([sys.executable, "-c", "import time; x = bytearray(2**26); time.sleep(60)"], 1.5, 0.1)
    assert 64 < ready[-1] < 128
    with pytest.raises(SystemExit, match="status 3"):
        memory.watch([sys.executable, "-c", "raise SystemExit(3)"], 60, 0.1)


@pytest.mark.nightly
def test_memory_of_the_program():
    from benchmarks import memory

    (record,) = memory.main(["--tiny"])
    assert 60 < record["looks"] < 120
    assert 0 < record["least"] < record["most"]  # on a busy machine it may still be starting
    assert 200 < record["most"] < 2000  # JAX alone takes 200
