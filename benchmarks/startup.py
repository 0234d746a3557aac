"""How long a process takes to import, to trace and compile, and to make its first update.

    python -m benchmarks.startup [--tiny] [--repetitions 5] [--out FILE]

Every line is a process of its own, timed from its start. `import` ends where the import ends, `first update` with the
first gradient step of a CartPole agent after its warm-up, and the lines between are its parts. `import jdqn` alone
reads nothing: what it offers comes when it is used, with jax, flax and optax, and gymnax with the first environment.
`cold` has an empty folder for compiled programs, `cached` the folder that a process before it left.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .common import flags, tell

COLUMNS = {"what": "", "cache": "", "seconds": ".2f", "spread": ""}
IMPORTS = ("import jax", "import jdqn", "import jdqn; jdqn.build")
SCRIPT = Path(__file__).parent / "first_update.py"


def import_seconds(what: str) -> float:
    """From the start of a process until it has done `what`."""
    script = f"import sys, time; {what}; print(time.time() - float(sys.argv[1]))"
    return float(last_line([sys.executable, "-c", script], os.environ))


def last_line(command: list[str], environment) -> str:
    """What a process prints last; it is told when it was started."""
    out = subprocess.run([*command, repr(time.time())], check=True, capture_output=True, text=True, env=environment)
    return out.stdout.splitlines()[-1]


def parts(cache: Path) -> dict[str, float]:
    """Seconds of each part of a process that makes its first update, and of all."""
    environment = os.environ | dict(
        JAX_COMPILATION_CACHE_DIR=str(cache),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )
    ends = json.loads(last_line([sys.executable, str(SCRIPT)], environment))
    begins = [0.0, *ends.values()]
    return {name: end - begin for (name, end), begin in zip(ends.items(), begins, strict=False)} | {
        "all, to the first update": ends["first update"]
    }


def record(what: str, cache: str, times: list[float]) -> dict:
    spread = f"{min(times):.2f} to {max(times):.2f}"
    return dict(what=what, cache=cache, seconds=statistics.median(times), spread=spread)


def main(arguments: list[str] | None = None) -> list[dict]:
    options = flags("startup", __doc__).parse_args(arguments)
    repetitions = 1 if options.tiny else options.repetitions
    imports: dict[str, list[float]] = {what: [] for what in IMPORTS}
    cold, cached = [], []
    for what in imports:
        import_seconds(what)  # from the disk, the first time
    for _ in range(repetitions):
        for what, times in imports.items():
            times.append(import_seconds(what))
        with tempfile.TemporaryDirectory() as folder:
            cold.append(parts(Path(folder)))
            cached.append(parts(Path(folder)))
    records = [record(what, "-", times) for what, times in imports.items()]
    for cache, found in (("cold", cold), ("cached", cached)):
        records += [record(name, cache, [one[name] for one in found]) for name in found[0]]
    tell("From the start of a process", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
