"""Two processes on this machine are one run: the same numbers, files written once, and no waiting for the dead."""

import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from programs import SECONDS, TINY, result, rows, subprocess_of, without

from jdqn.run import main

pytestmark = pytest.mark.usefixtures("_compiled_once")

KINDS = {"population": [], "data": ["--seeds", "1", "--parallel", "data"]}
LONG = ["--reports", "40", "--checkpoint-every", "1", "--total-steps"]
STEPS = {"population": "400000", "data": "40000"}  # the latter sends something with every update


def start(hosts, arguments, more=(), devices="2") -> list[subprocess.Popen]:
    """Hosts of one device each; all but the first one have `more` flags. One alone has so many devices."""
    if hosts == 1:
        return [subprocess_of([*arguments, "--devices", devices])]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    meet = ["--distributed", "--coordinator", address, "--num-hosts", str(hosts), "--devices", "1"]
    return [subprocess_of([*arguments, *meet, "--host-index", str(k), *(more if k else ())]) for k in range(hosts)]


def two(arguments, more=()) -> list[subprocess.Popen]:
    return start(2, arguments, more)


def finish(children) -> list[tuple[int, str, str]]:
    """(status, stdout, stderr) of each; none may take for ever."""
    outputs = [child.communicate(timeout=240) for child in children]
    return [(child.returncode, *output) for child, output in zip(children, outputs, strict=True)]


def alone(kind, path, more=()):
    """The same run in this process, on two devices."""
    assert main([*TINY["dqn"], *KINDS[kind], *more, "--devices", "2", "--out", str(path)]) == 0
    return path


def assert_same(ours, theirs):
    assert [without(["seconds"], row) for row in rows(ours)] == [without(["seconds"], row) for row in rows(theirs)]
    assert without(SECONDS, result(ours)) == without(SECONDS, result(theirs))


@pytest.mark.parametrize("kind", [pytest.param("population", marks=pytest.mark.slow), "data"])
def test_two_hosts_are_one_run(kind, tmp_path):
    (first, printed, _), (second, silent, _) = finish(two([*TINY["dqn"], *KINDS[kind], "--out", tmp_path / "run"]))
    assert (first, second) == (0, 0)
    assert "2 device(s)" in printed
    assert "greedy" not in silent  # one of them speaks
    assert_same(tmp_path / "run", alone(kind, tmp_path / "alone"))


def wait_for(path, pattern):
    until = time.monotonic() + 200
    while time.monotonic() < until and not list(path.glob(pattern)):
        time.sleep(0.05)


@pytest.mark.nightly
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_on_some_hosts_and_resumed_on_others(kind, before, after, tmp_path):
    """A signal to any stops all at the same iteration; the pieces of the checkpoint are put together, or cut.

    Two agents on three hosts are three, one of whom is a copy; two shards stay two, and the third host is refused.
    """
    path, devices = tmp_path / "run", "1" if kind == "population" else "2"  # one piece of both agents, but two shards
    children = start(before, [*TINY["dqn"], *KINDS[kind], *LONG, STEPS[kind], "--out", path], devices=devices)
    wait_for(path, "metrics.csv")
    time.sleep(1 if before > 1 else 0.1)  # nothing is sent there, and it is soon at the end
    children[-1].send_signal(signal.SIGTERM)
    for status, _, _ in finish(children):
        assert status == 128 + signal.SIGTERM
    assert not (path / "result.json").exists()
    found = finish(start(after, ["--resume", path], devices=devices))
    if (kind, after) == ("data", 3):
        assert [status for status, _, _ in found] == [2] * 3
        assert "2 shards do not divide over" in found[0][2]
        found = finish(start(2, ["--resume", path]))
    assert [status for status, _, _ in found] == [0] * len(found), found
    assert_same(path, alone(kind, tmp_path / "alone", [*LONG, STEPS[kind]]))


@pytest.mark.parametrize(
    ("kind", "victim"),
    [
        pytest.param("population", 1, marks=pytest.mark.slow),
        *(pytest.param(*case, marks=pytest.mark.nightly) for case in (("data", 1), ("population", 0))),
    ],
)
def test_a_lost_host_is_an_error_and_no_hang(kind, victim, tmp_path):
    """The other one says so and ends; both start again from the last checkpoint."""
    path, long = tmp_path / "run", [*TINY["dqn"], *KINDS[kind], *LONG, STEPS[kind]]
    children = two([*long, "--out", path])
    wait_for(path, "checkpoint/*/manifest.json")
    children[victim].kill()
    began = time.monotonic()
    found = finish(children)
    assert time.monotonic() - began < 90
    status, _, said = found[1 - victim]
    assert status != 0
    # Without the first host JAX ends the others by itself, sometimes before they notice.
    assert re.search("another host was lost" if victim else "another host was lost|JAX distributed service", said), said
    assert f"--resume {path}" in found[1 - victim][1] + said
    for status, _, _ in finish(two(["--resume", path])):
        assert status == 0
    assert_same(path, alone(kind, tmp_path / "alone", [*LONG, STEPS[kind]]))


def test_hosts_that_cannot_meet():
    child = subprocess_of(["--distributed"])
    _, said = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "--distributed could not join the other hosts (coordinator_address should be defined" in said
    assert "give --coordinator HOST:PORT, --num-hosts and --host-index" in said
    assert said.count("\n") == 1


def test_a_host_that_waits_in_vain_says_so():
    """And does not leave it to JAX, which ends the process with the trace of its stack."""
    program = """
from jdqn.host import processes
processes.JOIN_SECONDS = 1
processes.meet("127.0.0.1:9", 2, 1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "error: --distributed waited 1 seconds for the other hosts at 127.0.0.1:9: start the same" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--learning-rate 0.5", "--seeds 3", "--wave 1", "--optimizer adam sgd"])
def test_hosts_with_other_flags_are_refused(words, tmp_path):
    """They would train a mixture of both, or wait for arrays that never come."""
    children = two([*TINY["q_learning"], "--out", tmp_path / "run"], words.split())
    (first, _, said), (second, _, silent) = finish(children)
    assert (first, second) == (2, 2), said
    assert "error: the hosts of this run have different flags" in said
    assert silent == ""
    assert not (tmp_path / "run").exists()


def test_what_one_host_refuses_all_refuse(tmp_path):
    """At once, and all with its sentence or without a word: here the first one finds the folder taken."""
    (tmp_path / "note.txt").write_text("mine")
    began = time.monotonic()
    (first, _, said), (second, _, silent) = finish(two([*TINY["q_learning"], "--out", tmp_path]))
    assert (first, second) == (2, 2)
    assert "is not empty: choose another folder" in said
    assert silent == ""
    assert time.monotonic() - began < 60


@pytest.mark.nightly
def test_a_population_breeds_on_two_hosts(tmp_path):
    arguments = [
        *TINY["dqn"], "--seeds", "4", "--pbt-every", "300", "--learning-rate", "1e-4", "1e-2", "--sweep", "random",
        "--samples", "4", "--seeds", "1",
    ]  # fmt: skip
    for status, _, said in finish(two([*arguments, "--out", tmp_path / "two"])):
        assert status == 0, said
    assert main([*arguments, "--devices", "2", "--out", str(tmp_path / "one")]) == 0
    assert (tmp_path / "two" / "lineage.csv").read_text() == (tmp_path / "one" / "lineage.csv").read_text()
    assert_same(tmp_path / "two", tmp_path / "one")
