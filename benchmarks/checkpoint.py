"""What safety costs: writing, verifying and reading a checkpoint, beside what NumPy needs for the same bytes.

    python -m benchmarks.checkpoint [--gib 1] [--repetitions 5] [--runs 3] [--where FOLDER] [--tiny] [--out FILE]

The training thread stands still while it copies the state; the rest happens behind its back. A checkpoint is written
when every byte is on disk, synced and vouched for; the rate is in GB/s. NumPy's `save` is given the same array, and a
sync: to a new file, as a checkpoint's are, and over one that is there, which takes half the time and would change what
somebody may be reading. Caches and neighbours make these numbers noisy: they are medians, with extremes.

Then whole runs of the program, with a checkpoint every six seconds and with none but those of each tenth, in turns;
`a_minute` is what one a minute would cost, a tenth of the difference, as a share of the run.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import flags, tell
from jdqn.host import manifest
from jdqn.host.checkpoint import Checkpoints

COLUMNS = {"what": "", "seconds": ".3f", "least": ".3f", "most": ".3f", "rate": ".2f"}
RUNS = {"replay": "", "bytes": ",", "without": ".1f", "with": ".1f", "checkpoints": "", "a_minute": ".3%"}
OFTEN = 6  # seconds between checkpoints: ten times a minute
FLAGS = ["--env", "Breakout-MinAtar", "--total-steps", "150000", "--reports", "10", "--episodes", "1"]
TINY = [*FLAGS[:3], "3000", "--warm-up-steps", "500", *FLAGS[4:]]


def state(size: int) -> dict:
    """A replay of frames of so many bytes, and the small arrays of an agent."""
    rows = size >> 20
    frames = np.random.default_rng(0).integers(0, 256, (1, rows, 1 << 20), np.uint8)
    small = {f"layer{k}": jnp.ones((128, 128)) for k in range(12)}
    return {"frames": jnp.asarray(frames), "key": jax.random.key(0), **small}


def measure(size: int, where: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of each part, a value per repeat; the first checkpoint, which asks for its memory, is left out."""
    tree, found = state(size), {name: [] for name in ("held", "written", "removed", "chosen", "read", "new", "over")}
    checkpoints = Checkpoints(where / "checkpoint", keep=1)
    for k in range(repeats + 1):
        os.sync()
        began = time.perf_counter()
        checkpoints.save(k, tree, {})
        held = time.perf_counter() - began
        while not (where / "checkpoint" / str(k) / manifest.NAME).exists():
            time.sleep(0.001)
        written = time.perf_counter() - began
        checkpoints.wait()  # until the one before is removed
        if k:
            found["held"].append(held)
            found["written"].append(written)
            found["removed"].append(time.perf_counter() - began)
    checkpoints.close()
    like, device = jax.eval_shape(lambda: tree), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    raw, path = np.asarray(tree["frames"]), where / "frames.npy"
    for _ in range(repeats):
        checkpoints = Checkpoints(where / "checkpoint")
        began = time.perf_counter()
        checkpoints.newest()
        found["chosen"].append(time.perf_counter() - began)
        jax.block_until_ready(checkpoints.restore(like, device))
        found["read"].append(time.perf_counter() - began)
        checkpoints.close()
        path.unlink(missing_ok=True)
        for name, mode in (("new", "wb"), ("over", "r+b")):
            os.sync()
            began = time.perf_counter()
            with path.open(mode, buffering=0) as file:
                np.save(file, raw)
                os.fsync(file.fileno())
            found[name].append(time.perf_counter() - began)
    return found


def run(words: list[str], every: float, where: Path) -> tuple[float, int, int]:
    """(seconds of a run after compiling, checkpoints by the clock, bytes of the last one)."""
    folder = where / "run"
    command = [sys.executable, "-m", "jdqn.run", *words, "--overwrite", "--checkpoint-every", str(every)]
    subprocess.run([*command, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    seconds = json.loads((folder / "result.json").read_text())["run_seconds"]
    newest = max((folder / "checkpoint").iterdir(), key=lambda x: int(x.name))
    return seconds, int(seconds / every), sum(x.stat().st_size for x in newest.rglob("*") if x.is_file())


def compare(rows: int, where: Path, repeats: int, tiny: bool) -> dict:
    """Runs with a replay of so many rows, with checkpoints and without, in turns."""
    words, pairs = [*(TINY if tiny else FLAGS), "--replay-size", str(rows)], []
    for _ in range(repeats):
        without, _, _ = run(words, 1e6, where)
        seconds, checkpoints, size = run(words, OFTEN, where)
        pairs.append((without, seconds))
    cost = statistics.median(often / without - 1 for without, often in pairs)
    without, often = (statistics.median(x) for x in zip(*pairs, strict=True))
    return {
        "replay": rows, "bytes": size, "without": without, "with": often, "checkpoints": checkpoints,
        "a_minute": cost * OFTEN / 60,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("checkpoint", __doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the replay")
    parser.add_argument("--runs", type=int, default=3, help="pairs of whole runs; 0 leaves them out")
    parser.add_argument("--where", type=Path, help="a folder on the disk that is measured")
    options = parser.parse_args(arguments)
    size = 2**21 if options.tiny else int(options.gib * 2**30)
    where = Path(tempfile.mkdtemp(dir=options.where))
    try:
        found = measure(size, where, options.repetitions)
        sizes = [1000] if options.tiny else [10**6, 10**7]
        runs = [compare(rows, where, options.runs, options.tiny) for rows in sizes if options.runs]
    finally:
        shutil.rmtree(where)
    names = {
        "held": "the training thread stands still",
        "written": "written, synced and vouched for",
        "removed": "the same, and the one before removed",
        "chosen": "found whole, every byte checked",
        "read": "found whole and read",
        "new": "NumPy writes and syncs a new file",
        "over": "NumPy writes and syncs over a file",
    }
    records = [
        dict(
            what=names[name], seconds=statistics.median(x), least=min(x), most=max(x),
            rate=size / 1e9 / statistics.median(x),
        )
        for name, x in found.items()
    ]  # fmt: skip
    tell(f"checkpoints of {size:,} bytes", records, COLUMNS, options.out)
    if runs:
        tell(f"runs with a checkpoint every {OFTEN} seconds", runs, RUNS, options.out, more=True)
    return records + runs


if __name__ == "__main__":
    main()
