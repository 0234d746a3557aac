"""Nothing lost: killed at any moment, bits flipped, disks full, numbers that are none."""

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import SECONDS, TINY, result, rows, subprocess_of, without

import jdqn
from jdqn.config import ConfigError
from jdqn.host import arrays, debug, devices, manifest, session
from jdqn.host.checkpoint import Checkpoints
from jdqn.host.folder import RunFolder
from jdqn.host.health import begin_again
from jdqn.host.options import parse
from jdqn.host.plan import Plan
from jdqn.host.program import Run
from jdqn.host.wanted import plans_of
from jdqn.presets import ALGORITHMS
from jdqn.run import main

pytestmark = pytest.mark.usefixtures("_compiled_once")

# A few seconds of training with a checkpoint nearly always on its way, alone, as a population, and in shards.
OFTEN = ["--checkpoint-every", "0.01", "--reports", "50"]
KINDS = {
    "one": [*TINY["dqn"], *OFTEN, "--seeds", "1", "--total-steps", "60000", "--replay-size", "50000"],  # 1.2 MiB
    "population": [*TINY["dqn"], *OFTEN, "--seeds", "3", "--devices", "2", "--total-steps", "40000"],
    "data": [*TINY["dqn"], *OFTEN, "--seeds", "1", "--parallel", "data", "--devices", "2", "--total-steps", "20000"],
    "bred": [
        *TINY["dqn"], *OFTEN, "--sweep", "random", "--samples", "4", "--seeds", "1", "--learning-rate", "1e-4", "1e-2",
        "--pbt-every", "1000", "--total-steps", "20000",
    ],
    "recurrent": [
        "--algo", "r2d2", "--num-envs=8", "--hidden-sizes", "16", "16", "--core-size", "8", "--total-steps", "20000",
        "--reports", "50", "--episodes", "3", *OFTEN[:2],
    ],
}  # fmt: skip


def assert_same(ours: Path, theirs: Path) -> None:
    """But for seconds; copies that fill up devices, behind the agents, do not count."""
    assert [without(["seconds"], row) for row in rows(ours)] == [without(["seconds"], row) for row in rows(theirs)]
    assert without(SECONDS, result(ours)) == without(SECONDS, result(theirs))
    shards = json.loads((ours / "config.json").read_text())["shards"]
    agents = result(ours)["agents"] if shards == 1 else None
    assert last_state(ours, agents) == last_state(theirs, agents)
    lineage = "lineage.csv"
    assert (ours / lineage).exists() == (theirs / lineage).exists()
    if (ours / lineage).exists():
        assert (ours / lineage).read_text() == (theirs / lineage).read_text()


def last_state(folder: Path, agents: int | None) -> list[bytes]:
    """Every array of the newest checkpoint: parameters, optimiser, replay, environments, keys."""
    checkpoints = Checkpoints(folder / "checkpoint")
    path = folder / "checkpoint" / str(checkpoints.newest())
    checkpoints.close()
    reader, found = arrays.Reader(path / "arrays"), []
    for number, text in enumerate(manifest.read(path)["arrays"].values()):
        dtype, shape = text.rstrip("]").split("[")
        shape = tuple(int(size) for size in shape.split(",") if size)
        key = dtype.startswith("key")
        like = jax.ShapeDtypeStruct((*shape, 2) if key else shape, "uint32" if key else dtype)
        found.append(reader.read(number, like)[:agents].tobytes())
    return found


class Killer:
    """Kills the program with -9 again and again, at random moments of its training and, now and then, of its start."""

    def __init__(self, seed: int):
        self.random, self.kills = random.Random(seed), 0

    def run(self, arguments: list[str], path: Path, most: int) -> None:
        """Start, kill, resume, until `most` were killed or the run ended; then let it end."""
        begun = False
        for _ in range(most):
            child = subprocess_of(["--resume", path] if begun else [*arguments, "--overwrite", "--out", path])
            if self.random.random() < 0.85:
                for line in child.stdout:  # it has started when it says so
                    if line.startswith("compiled"):
                        break
                time.sleep(self.random.uniform(0.0, 2.0))
            else:
                time.sleep(self.random.uniform(0.0, 6.0))
            ended = child.poll()
            child.send_signal(signal.SIGKILL)
            _, said = child.communicate()
            assert ended in (None, 0), said
            if ended == 0:
                return
            self.kills += 1
            begun = any(path.glob("checkpoint/*/manifest.json"))
        child = subprocess_of(["--resume", path] if begun else [*arguments, "--overwrite", "--out", path])
        _, said = child.communicate()
        assert child.returncode == 0, said


def killed(kinds, kills: int, where: Path, seed: int) -> int:
    """Kill runs of these kinds until so many kills are reached; each that ends is compared. Return the runs."""
    killer, references, runs = Killer(seed), {}, 0
    while killer.kills < kills:
        kind = kinds[runs % len(kinds)]
        if kind not in references:
            references[kind] = where / f"reference-{kind}"
            child = subprocess_of([*KINDS[kind], "--out", references[kind]])
            _, said = child.communicate()
            assert child.returncode == 0, said
        path = where / f"run-{runs}"
        killer.run(KINDS[kind], path, min(6, kills - killer.kills))
        assert_same(path, references[kind])
        shutil.rmtree(path)
        runs += 1
        print(f"{killer.kills} kills, {runs} runs, all equal", flush=True)
    return runs


@pytest.mark.slow
def test_a_dozen_kills(tmp_path):
    assert killed(["one", "population"], 12, tmp_path, seed=0) >= 2


@pytest.mark.nightly
def test_two_hundred_kills(tmp_path):
    assert killed(list(KINDS), 200, tmp_path, seed=1) >= 30


def tree(offset: float) -> dict:
    return {
        "keys": jax.random.split(jax.random.key(7), 3),
        "x": jnp.arange(300_000.0) + offset,
        "b": jnp.ones(50, bool),
    }


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints, of iterations 1 and 2."""
    checkpoints = Checkpoints(tmp_path)
    for k in (1, 2):
        checkpoints.save(k, tree(k), {"seconds": 1.5e-5 * k, "reports": k})
    checkpoints.close()
    return tmp_path


def loaded(path: Path) -> tuple[int, dict, dict]:
    checkpoints = Checkpoints(path, warn=lambda sentence: None)
    try:
        state = checkpoints.restore(jax.eval_shape(lambda: tree(0)))
        return checkpoints.newest(), checkpoints.host(), state
    finally:
        checkpoints.close()


def flips(saved: Path, number: int, seed: int) -> dict[str, int]:
    """Flip one random bit of the newest checkpoint, so many times; count what came of it."""
    generator, folder = np.random.default_rng(seed), saved / "2"
    files = sorted(x for x in folder.rglob("*") if x.is_file() and x.stat().st_size)
    sizes = np.array([x.stat().st_size for x in files])
    truth, counts = manifest.verified(folder), {"detected": 0, "harmless": 0}
    for k in range(number):
        # Half of them anywhere, half with every file as likely, however small.
        file = generator.choice(len(files), p=sizes / sizes.sum() if k % 2 else None)
        content = files[file].read_bytes()
        bit = int(generator.integers(8 * len(content)))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        files[file].write_bytes(flipped)
        try:
            assert manifest.verified(folder) == truth
            counts["harmless"] += 1
        except manifest.Damaged:
            counts["detected"] += 1
        files[file].write_bytes(content)
    assert manifest.verified(folder) == truth
    return counts


def test_a_flipped_bit_is_seen(saved):
    counts = flips(saved, 1000, seed=0)
    assert counts["detected"] >= 990
    assert counts["harmless"] <= 5  # the e of a number in the manifest, written E


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "manifest", "unfinished"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, harm):
    files = sorted((x for x in (saved / "2").rglob("*") if x.is_file()), key=lambda x: x.stat().st_size)
    largest, warned = files[-1], []
    if harm == "flip":
        content = bytearray(largest.read_bytes())
        content[-9] ^= 4
        largest.write_bytes(content)
    elif harm == "truncate":
        os.truncate(largest, largest.stat().st_size - 1)
    elif harm == "remove":
        largest.unlink()
    elif harm == "manifest":
        (saved / "2" / manifest.NAME).write_text("{}")
    else:
        (saved / "2" / manifest.NAME).unlink()
    checkpoints = Checkpoints(saved, warn=warned.append)
    assert checkpoints.newest() == 1
    assert checkpoints.host() == {"seconds": 1.5e-5, "reports": 1}
    np.testing.assert_array_equal(checkpoints.restore(jax.eval_shape(lambda: tree(0)))["x"], tree(1)["x"])
    checkpoints.tidy()
    assert {x.name for x in saved.iterdir()} == {"1"}
    checkpoints.save(2, tree(5), {"seconds": 0.0, "reports": 2})  # and is written again
    checkpoints.close()
    assert loaded(saved)[0] == 2
    np.testing.assert_array_equal(loaded(saved)[2]["x"], tree(5)["x"])
    if harm == "unfinished":
        assert not warned  # as after a kill: nobody needs to know
    else:
        assert len(warned) == 1
        assert "going on from the checkpoint before it, 1" in warned[0]


def test_no_whole_checkpoint_is_a_sentence(saved):
    for k in ("1", "2"):
        (saved / k / manifest.NAME).write_text("[]")
    with pytest.raises(ConfigError, match=r"2/manifest.json is damaged, and no older checkpoint is whole: start"):
        loaded(saved)


def test_a_checkpoint_of_other_arrays_is_refused_by_name(saved):
    checkpoints = Checkpoints(saved)
    like = jax.eval_shape(lambda: tree(0) | {"x": jnp.zeros(4)})
    with pytest.raises(
        ConfigError, match=r"jdqn \S+ and holds x as float32\[300000\], where jdqn \S+ keeps float32\[4\]"
    ):
        checkpoints.restore(like)
    checkpoints.close()


def test_how_many_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for k in range(1, 9):
        checkpoints.save(k, tree(k), {}, best=k in (2, 4))
        checkpoints.wait()
    checkpoints.close()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["4", "6", "7", "8"]


def room(child: subprocess.Popen, size: int) -> None:
    """Let a running program make no file longer than `size` bytes: to it, that is a full disk."""
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def until_it_is_full(arguments, path: Path) -> tuple[subprocess.Popen, str]:
    """A run whose disk is full after its first checkpoint, when it has said so."""
    child = subprocess_of([*arguments, "--out", path])
    until = time.monotonic() + 240
    while time.monotonic() < until and not any(path.glob("checkpoint/*/manifest.json")):
        time.sleep(0.01)
    room(child, 0)
    said = ""
    for line in child.stderr:
        said += line
        if "could not be written" in line:
            break
    return child, said


def finish(child: subprocess.Popen, said: str) -> tuple[int, str]:
    """(status, all that it said to stderr)."""
    _, rest = child.communicate()
    assert "Traceback" not in said + rest
    return child.returncode, said + rest


LONG = [*KINDS["one"], "--total-steps", "400000", "--compilation-cache", "none"]


@pytest.mark.slow
def test_a_full_disk_is_waited_for(tmp_path):
    reference, path = tmp_path / "reference", tmp_path / "run"
    assert main([*LONG, "--out", str(reference)]) == 0
    child, said = until_it_is_full(LONG, path)
    time.sleep(0.5)
    room(child, resource.RLIM_INFINITY)
    status, said = finish(child, said)
    assert status == 0, said
    assert_same(path, reference)


@pytest.mark.slow
@pytest.mark.parametrize("log", ["/dev/full", "pipe"])
def test_a_log_that_cannot_be_written_ends_nothing(log, tmp_path):
    """It may lie on the full disk too, or its reader may be gone."""
    command = [sys.executable, "-m", "jdqn.run", *TINY["q_learning"], "--out", str(tmp_path / "run")]
    if log == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(log, os.O_WRONLY)
    try:
        done = subprocess.run(command, stdout=writer, stderr=writer, timeout=200)
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.nightly
def test_a_disk_that_stays_full_is_a_sentence_and_the_run_can_go_on(tmp_path):
    reference, path = tmp_path / "reference", tmp_path / "run"
    assert main([*LONG, "--out", str(reference)]) == 0
    status, said = finish(*until_it_is_full(LONG, path))
    assert status == 1
    assert "make room and go on with python -m jdqn.run --resume" in said
    assert main(["--resume", str(path)]) == 0
    assert_same(path, reference)


SICK = [*TINY["dqn"], "--seeds", "1", "--learning-rate", "1e-3", "1e30", "--devices", "1"]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """metrics.csv of the agent that stays well, trained alone."""
    path = tmp_path_factory.mktemp("healthy") / "run"
    assert main([*TINY["dqn"], "--seeds", "1", "--learning-rate", "1e-3", "--out", str(path)]) == 0
    return [without(["seconds", "agent"], row) for row in rows(path)]


def of_agent(path: Path, agent: int) -> list[dict]:
    return [without(["seconds", "agent"], row) for row in rows(path) if row["agent"] == str(agent)]


@pytest.mark.slow
def test_a_sick_agent_is_named_and_left_out(tmp_path, capsys, healthy):
    path = tmp_path / "run"
    assert main([*SICK, "--out", str(path)]) == 0
    said = capsys.readouterr().err
    assert "warning: agent 1 (seed 3) is dropped: " in said
    assert all(word in said for word in ("loss", "parameters", "not finite by step 1,"))
    assert said.count("dropped") == 1
    found = result(path)
    assert found["evaluation"]["per_agent"][1] is None
    assert found["evaluation"]["mean"] == found["evaluation"]["per_agent"][0]
    assert [one["agent"] for one in found["non_finite"]] == [1]
    assert of_agent(path, 0) == healthy
    json.loads((path / "result.json").read_text(), parse_constant=pytest.fail)  # strict JSON


def test_an_agent_that_begins_again_has_a_key_of_its_own():
    """None that the agent which died was made of, and another one each time."""
    (plan,) = plans_of(parse(["--seeds", "2"]))

    def keys():  # new ones: a key is used once
        return jax.vmap(jax.random.key)(jnp.arange(2))

    def numbers(keys):
        return [tuple(x) for x in jax.random.key_data(keys).tolist()]

    used, sick = numbers(jax.random.split(keys()[1], 64)), []
    for steps in (1000, 2000, 3000):
        sick.append({"agent": 1, "env_steps": steps, "done": "restarted"})
        well, other = numbers(begin_again(keys(), sick, plan))
        assert well == numbers(keys())[0]
        used.append(other)
    assert len(set(used)) == 64 + 3


@pytest.mark.slow
def test_a_sick_agent_begins_again_three_times(tmp_path, capsys, healthy):
    path = tmp_path / "run"
    assert main([*SICK, "--non-finite", "restart", "--out", str(path)]) == 0
    said = capsys.readouterr().err
    assert [said.count("restarted"), said.count("dropped")] == [3, 1]
    assert [one["done"] for one in result(path)["non_finite"]] == ["restarted"] * 3 + ["dropped"]
    assert of_agent(path, 0) == healthy


@pytest.mark.slow
def test_a_sick_agent_stops_all(tmp_path, capsys):
    path = tmp_path / "run"
    assert main([*SICK, "--non-finite", "stop", "--out", str(path)]) == 1
    said = capsys.readouterr().err
    assert "error: agent 1 is not finite any more: lower learning_rate" in said
    assert not (path / "result.json").exists()
    assert main([*TINY["dqn"], "--learning-rate", "1e30", "--out", str(tmp_path / "all")]) == 1
    assert "error: no agent is finite any more" in capsys.readouterr().err


@pytest.mark.slow
def test_debug_points_to_the_line(tmp_path, capsys):
    assert main([*TINY["dqn"], "--learning-rate", "1e30", "--debug", "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "error: --debug found nan generated by primitive" in said
    assert re.search(r"jdqn/(products|modules|networks|heads|targets|learner)\.py:\d+", said)  # not what is healthy


OFF_POLICY = dict(num_envs=4, total_steps=300, warm_up_steps=100, replay_size=200, batch_size=8, hidden_sizes=16)
ON_POLICY = dict(num_envs=4, total_steps=640, rollout_length=8, updates=4, batch_size=2, hidden_sizes=16)
SHORT: dict[str, dict] = {
    "q_learning": dict(env="FrozenLake-misc", total_steps=300),
    "pqn": ON_POLICY,
    "pqn_rnn": ON_POLICY | dict(core_size=8),
    "r2d2": OFF_POLICY | dict(warm_up_steps=200, replay_size=400, batch_size=4, core_size=8),
}
EVERY_COMMIT = ("c51", "pqn")


@pytest.mark.parametrize(
    "algo", [pytest.param(x, marks=pytest.mark.slow if x in EVERY_COMMIT else pytest.mark.nightly) for x in ALGORITHMS]
)
def test_debug_finds_nothing_in_a_healthy_run(algo, tmp_path):
    """No nan comes up that is dropped later: --debug would stop there."""
    flags = dict(algo=algo, **SHORT.get(algo, OFF_POLICY), reports=2, episodes=2, out=tmp_path / "run")
    assert main([*(f"--{name}={value}" for name, value in flags.items()), "--debug"]) == 0
    jax.clear_caches()  # a checked program takes up to a gigabyte; nineteen in one process took all of 23


def test_debug_names_who_called_what_jax_traces_by_itself():
    def train(x):
        return jax.lax.fori_loop(0, 2, lambda i, x: jax.scipy.special.xlogy(x, x), x)  # 0 * -inf inside

    error, _ = jax.jit(debug.checked(jax.jit(train)))(0.0)
    assert re.fullmatch(r" at \S*test_reliability.py:\d+ \(.*train.*\)", debug.place_of(error.get_exception()))


@pytest.mark.slow
def test_the_best_is_kept(tmp_path, capsys):
    path = tmp_path / "run"
    assert main([*TINY["dqn"], "--keep", "1", "--keep-best", "--out", str(path)]) == 0
    best = result(path)["best_checkpoint"]
    kept = {int(x.name) for x in (path / "checkpoint").iterdir()}
    assert kept == {best["iteration"], 125}
    assert best["mean"] >= result(path)["evaluation"]["mean"]
    trained = jdqn.load(path, best=True)
    assert trained.iteration == best["iteration"]
    keys = [jax.random.fold_in(jax.random.key(seed), 2**31 - 1) for seed in (3, 4)]  # those of the program
    returns = []
    for k, key in enumerate(keys):
        params = jax.tree.map(lambda x, k=k: x[k], trained.params)
        returns.append(jdqn.evaluate(trained.env, trained.trainer.policy, params, key, episodes=3).returns)
    assert np.mean(returns) == pytest.approx(best["mean"])
    assert jdqn.load(path).iteration == 125


@pytest.mark.slow
def test_what_may_change_on_resuming(tmp_path, capsys):
    path = tmp_path / "run"
    assert main([*TINY["dqn"], "--out", str(path)]) == 0
    before = rows(path)
    assert main(["--resume", str(path), "--seeds", "3"]) == 2
    said = capsys.readouterr().err
    assert "--seeds cannot change: leave it out" in said
    assert "--total-steps, --reports" in said
    assert main(["--resume", str(path), "--total-steps", "1500"]) == 2
    assert "has been trained for 2,000 steps: raise --total-steps above that" in capsys.readouterr().err
    assert main(["--resume", str(path), "--total-steps", "4000", "--reports", "8", "--episodes", "2"]) == 0
    assert "let the learning rate fall to 0 by step 2,000" in capsys.readouterr().err  # as its schedule had it
    after = rows(path)
    assert after[: len(before)] == before
    assert {row["agent"]: int(row["updates"]) for row in after}["0"] == 2 * (250 - 63)
    assert result(path)["evaluation"]["episodes"] == 2
    config = json.loads((path / "config.json").read_text())
    assert (config["config"]["total_steps"], config["reports"]) == (4000, 8)
    assert config["hyper"]["learning_rate_steps"] == 2000  # schedules stay as they were


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_refused(tmp_path, capsys):
    path, other = tmp_path / "run", tmp_path / "other"
    assert main([*TINY["dqn"], "--out", str(path)]) == 0
    assert main([*TINY["dqn"], "--discount", "0.9", "--out", str(other)]) == 0
    (path / "result.json").unlink()
    shutil.rmtree(path / "checkpoint")
    shutil.copytree(other / "checkpoint", path / "checkpoint")
    capsys.readouterr()
    assert main(["--resume", str(path)]) == 2
    assert "was made with discount=0.9, and config.json says 0.99" in capsys.readouterr().err
    config = json.loads((path / "config.json").read_text())
    config["config"]["new_setting"] = 1
    (path / "config.json").write_text(json.dumps(config))
    assert main(["--resume", str(path)]) == 2
    assert "has the setting new_setting, and this is jdqn" in capsys.readouterr().err


def test_shards_find_their_devices_again(tmp_path, monkeypatch):
    """On fewer cores than before too: sums over another number of devices could round otherwise."""
    config, hyper = jdqn.preset("dqn", "CartPole-v1", total_steps=2000, warm_up_steps=1000)
    folder, asked = RunFolder(tmp_path / "run"), []
    folder.path.mkdir()
    plan = Plan("CartPole-v1", {}, "dqn", (0,), 5, 3, 300.0, config, hyper, shards=4)
    folder.write_json(folder.config, plan.to_json())
    monkeypatch.setattr(devices, "cores", lambda: 1)
    monkeypatch.setattr(devices, "split_cpu", lambda number, *rest: asked.append(number))
    for words in ([], ["--devices", "2"]):
        arguments = ["--resume", str(folder.path), *words]
        session.resume(parse(arguments), arguments)
    assert asked == [4, 2]


def test_another_processor_may_round_otherwise(monkeypatch):
    config, hyper = jdqn.preset("dqn", "CartPole-v1", total_steps=2000, warm_up_steps=1000)
    plan = Plan("CartPole-v1", {}, "dqn", (0,), 5, 3, 300.0, config, hyper)
    run = Run(plan, jdqn.envs.make("CartPole-v1"))
    there = run.identity["device"]
    assert run.elsewhere(there) == ""
    assert "the same numbers" in run.elsewhere(there | {"count": 2})
    monkeypatch.setenv("NPROC", "1")
    assert devices.arithmetic().endswith(f"threads {jax.local_device_count()}")  # one for each device at least
    monkeypatch.setenv("NPROC", "77")
    assert devices.arithmetic().endswith("threads 77")
    assert f"({devices.arithmetic()}) with numbers that may round otherwise" in run.elsewhere(there)
    monkeypatch.undo()
    name, _ = devices.processor()
    monkeypatch.setattr(devices, "processor", lambda: (name, "fma"))
    assert "may round otherwise" in run.elsewhere(there)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["population", pytest.param("data", marks=pytest.mark.nightly)])
def test_another_number_of_devices(kind, tmp_path, capsys):
    """A population goes on with the same bits, for its products are small; sums over shards may be rounded otherwise.

    Fewer devices are fewer threads, and the program cannot know which products are so large that threads share them.
    """
    reference, path = tmp_path / "reference", tmp_path / "run"
    short = [*KINDS[kind], "--total-steps", "4000"]
    assert main([*short, "--out", str(reference)]) == 0
    child = subprocess_of([*short, "--total-steps", "4000", "--out", path])
    _, said = child.communicate()
    assert child.returncode == 0, said
    # Back to the checkpoint before the last, as if it had been killed there.
    (path / "result.json").unlink()
    newest = max((path / "checkpoint").iterdir(), key=lambda x: int(x.name))
    shutil.rmtree(newest)
    capsys.readouterr()
    assert main(["--resume", str(path), "--devices", "1"]) == 0
    said = capsys.readouterr().out
    here = devices.arithmetic()
    there = re.sub(r"threads \d+", "threads 2", here)
    assert f"written on 2 cpu device(s) ({there}), going on on 1 cpu device(s) ({here})" in said
    assert "with numbers that may round otherwise" in said
    if kind == "population":
        assert_same(path, reference)
    else:
        assert result(path)["updates"] == result(reference)["updates"]


def test_a_second_interrupt_leaves_at_once(tmp_path):
    child = subprocess_of([*KINDS["one"], "--total-steps", "100000000", "--out", tmp_path / "run"])
    until = time.monotonic() + 120
    while time.monotonic() < until and not any(tmp_path.glob("run/checkpoint/*/manifest.json")):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGINT)
    os.kill(child.pid, signal.SIGINT)
    began = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGINT
    assert time.monotonic() - began < 10
