"""jdqn beside other libraries at the same work, in one run, each in an environment of its own.

    python -m benchmarks.versus --all [--purejaxrl CHECKOUT] [--purejaxql CHECKOUT] [--cleanrl CHECKOUT] [--out FOLDER]
    python -m benchmarks.versus --rows a1 b32 [--tiny] [--repetitions 5] [--environments FOLDER]

All libraries of a row are compiled first, then they take turns; a turn is a whole run of fresh agents, warm-up
included. Rejax, Stable-Baselines3 and flashbax are installed from the package registry, the others are checkouts.
Libraries in JAX run on the same JAX; `NPROC=1` is the same library with one thread instead of one for each core, as
jdqn gives a single agent of small products. `updates` are gradient steps of each agent, counted by the library, and
`ticks` its environment steps. `times` is how much longer the library takes than jdqn, for the same number of
transitions: the median of all turns, each beside the turn of jdqn that follows, for a shared machine is not as fast at
any time.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import race
from .common import flags, tell
from .environments import ROOT, Missing, python_of
from .rows import Row, rows

CHECKOUTS = {"PureJaxRL": "purejaxrl", "PureJaxQL": "purejaxql", "CleanRL": "cleanrl"}
COLUMNS = {
    "row": "", "library": "", "agents": "", "ticks": ",", "updates": ",", "parameters": ",", "seconds": ".2f",
    "spread": "", "steps_per_second": ",.0f", "times": ".2f", "compile_seconds": ".1f", "note": "",
}  # fmt: skip
PARTS = {"f": "race", "g": "stepping", "h": "replay"}


class Driver:
    """A library in a process of its own, ready to run; `variables` are added to its environment."""

    def __init__(self, python: str, name: str, asked: dict[str, Any], variables: dict[str, str] | None = None):
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / "peers" / f"{name}.py"), json.dumps(asked)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env=environment() | (variables or {}),
        )  # fmt: skip
        try:
            self.about = self._answer()
        except Missing:
            self.close()
            raise

    def turn(self) -> dict[str, Any]:
        """Let it run once."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.errors.close()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        raise Missing(f"not run: {(self.errors.read().strip() or 'it said nothing').splitlines()[-1][:200]}")


def environment() -> dict[str, str]:
    """Nothing is found compiled, PyTorch has one thread, and our code is found without being installed.

    On a GPU nobody reserves the memory that those need who take turns with them.
    """
    rest = {name: x for name, x in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return rest | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", XLA_PYTHON_CLIENT_PREALLOCATE="false")


def checkout_of(library: str, options: argparse.Namespace) -> dict[str, str]:
    """What a driver is told of its checkout.

    Raises:
        Missing: it needs one, and none was given.
    """
    if library not in CHECKOUTS:
        return {}
    flag = CHECKOUTS[library]
    where = getattr(options, flag)
    if where is None:
        raise Missing(f"not run: give --{flag} CHECKOUT")
    return dict(checkout=str(where.resolve()))


def compare(name: str, row: Row, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A record for each library of a row, jdqn last."""
    ours = ("ours", dict(env=row.env, algorithm=row.algorithm, settings=row.ours))
    drivers: dict[str, Driver] = {}
    records: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        for library, (driver, asked) in {**row.libraries, "jdqn": ours}.items():
            records[library] = dict(row=name, library=library, agents=row.agents)
            with missed(records[library]):
                of, *variables = library.split(", ")
                asked = asked | dict(agents=row.agents) | checkout_of(of, options)
                python = python_of(of, options.environments, options.torch)
                drivers[library] = Driver(python, driver, asked, dict(text.split("=") for text in variables))
                stack.callback(drivers[library].close)
        turns: dict[str, list[dict]] = {library: [] for library in drivers}
        for _ in range(options.repetitions):
            for library, driver in drivers.items():
                if "note" not in records[library]:
                    with missed(records[library]):
                        turns[library].append(driver.turn())
    for library, found in turns.items():
        if found:
            records[library] |= summary(found, row.agents) | drivers[library].about
    each = {library: [turn["seconds"] / turn["transitions"] for turn in found] for library, found in turns.items()}
    for library, mine in each.items():
        if beside := [other / base for other, base in zip(mine, each.get("jdqn", []), strict=False)]:
            records[library] |= dict(times=statistics.median(beside), times_each=beside)
    return list(records.values())


@contextlib.contextmanager
def missed(record: dict[str, Any]):
    """A library that cannot run leaves a note and stops nobody."""
    try:
        yield
    except (Missing, BrokenPipeError) as error:
        record["note"] = str(error) or "not run: it ended"


def summary(turns: list[dict[str, Any]], agents: int) -> dict[str, Any]:
    times = [turn["seconds"] for turn in turns]
    middle = statistics.median(times)
    return turns[-1] | dict(
        seconds=middle,
        spread=f"{min(times):.2f} to {max(times):.2f}",
        steps_per_second=agents * turns[-1]["transitions"] / middle,
        repetitions=len(times),
    )


def part(name: str, options: argparse.Namespace, out: Path | None) -> None:
    """Another benchmark, as a row of this one."""
    if name == "f":
        tell("A greedy mean of 475 on CartPole", race.run(options, checkout_of, environment()), race.COLUMNS, out)
        return
    library = {"g": "jdqn", "h": "flashbax"}[name]
    try:
        python = python_of(library, options.environments, options.torch)
    except Missing as error:
        print(f"{PARTS[name]}: {error}")
        return
    command = [python, "-m", f"benchmarks.{PARTS[name]}", *(["--tiny", "--seconds", "0.01"] if options.tiny else [])]
    command += ["--out", str(out)] if out else []
    if status := subprocess.run(command, cwd=ROOT).returncode:
        print(f"{PARTS[name]}: not run: it ended with status {status}")


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("versus", __doc__)
    parser.add_argument("--rows", nargs="+", default=[], choices=[*rows(False), *PARTS], help="which ones; see rows.py")
    parser.add_argument("--all", action="store_true", help="every row")
    for library, flag in CHECKOUTS.items():
        parser.add_argument(f"--{flag}", type=Path, metavar="CHECKOUT", help=f"where {library} was cloned to")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "jdqn-versus"
    parser.add_argument(
        "--environments", type=Path, default=cache, help="where their environments are, or will be made"
    )
    parser.add_argument("--torch", default="torch", help="what pip installs for PyTorch: torch==2.13.0+cpu, say")
    options = parser.parse_args(arguments)
    if not options.rows and not options.all:
        parser.error("choose --rows, or --all")
    options.environments = options.environments.resolve()
    found = []
    for name in [*rows(False), *PARTS] if options.all else options.rows:
        file = f"versus-{name}" if name in rows(False) else PARTS[name]
        out = options.out.resolve() / f"{file}.txt" if options.out else None
        if name in PARTS:
            part(name, options, out)
            continue
        row = rows(options.tiny)[name]
        records = compare(name, row, options)
        tell(f"{row.title}, {row.agents} agent(s)\n\nUnequal: {row.unequal}.", records, COLUMNS, out)
        sys.stdout.flush()
        found += records
    return found


if __name__ == "__main__":
    main()
