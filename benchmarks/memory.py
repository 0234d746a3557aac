"""The resident memory of the program while it trains: python -m jdqn.run, looked at every second.

    python -m benchmarks.memory [--minutes 60] [--checkpoint-every 60] [--tiny] [--out FILE] [-- FLAGS OF THE PROGRAM]

Without flags of your own it trains one CartPole agent, for as long as it is looked at. The first tenth of the time is
left out: compilation, warm-up and the first checkpoints ask for memory. `first` and `last` are means over the second
tenth and over the last, `growth` is the one over the other; sizes are MiB.
"""

import contextlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from .common import flags, tell

COLUMNS = {
    "minutes": ".1f", "looks": "", "checkpoint_every": ".0f", "first": ",.1f", "last": ",.1f", "least": ",.1f",
    "most": ",.1f", "growth": ".4f",
}  # fmt: skip
FLAGS = ["--env", "CartPole-v1", "--total-steps", str(10**9), "--replay-size", "100000"]


def watch(command: list[str], seconds: float, every: float) -> list[float]:
    """Resident MiB of a process and its children, once in `every` of so many seconds; then it is ended."""
    found, process = [], subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        ends, root = time.monotonic() + seconds, psutil.Process(process.pid)
        while time.monotonic() < ends:
            if process.poll() is not None:
                raise SystemExit(f"the program ended early, with status {process.returncode}: {' '.join(command)}")
            found.append(0.0)
            for one in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):  # a child that has just ended
                    found[-1] += one.memory_info().rss / 2**20
            time.sleep(every)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    return found


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("memory", __doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--checkpoint-every", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("program", nargs="*", help="flags of the program, after --")
    options = parser.parse_args(arguments)
    minutes = 0.2 if options.tiny else options.minutes
    with tempfile.TemporaryDirectory() as where:
        command = [sys.executable, "-m", "jdqn.run", *(options.program or FLAGS), "--out", str(Path(where) / "run")]
        command += ["--checkpoint-every", str(options.checkpoint_every)]
        every = 0.1 if options.tiny else 1.0
        found = watch(command, 60 * minutes, every)
    part = max(1, len(found) // 10)
    found = found[part:]
    first, last = statistics.fmean(found[:part]), statistics.fmean(found[-part:])
    record = dict(
        minutes=minutes, looks=len(found), checkpoint_every=options.checkpoint_every, first=first, last=last,
        least=min(found), most=max(found), growth=last / first,
    )  # fmt: skip
    tell(f"Memory: {' '.join(options.program or FLAGS)}", [record], COLUMNS, options.out)
    return [record]


if __name__ == "__main__":
    main()
