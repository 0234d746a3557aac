"""What the benchmarks share: clocks, tables, and the machine's name."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax


def seconds(function: Callable, repetitions: int) -> dict[str, float]:
    """Median, least and most wall-clock seconds of `function()` until its result is there, after a first call."""
    times = []
    for _ in range(repetitions + 1):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return summary(times[1:])


def summary(times: list[float]) -> dict[str, float]:
    return dict(seconds=statistics.median(times), min_seconds=min(times), max_seconds=max(times))


def machine() -> dict[str, str | int]:
    """What a table was measured on."""
    device = jax.devices()[0]
    name = device.device_kind
    if device.platform == "cpu":
        source = Path("/proc/cpuinfo")
        lines = source.read_text().splitlines() if source.exists() else []
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "cpu")
    return dict(machine=name, cores=os.cpu_count() or 1, jax=jax.__version__, python=platform.python_version())


def table(records: list[dict], columns: dict[str, str]) -> str:
    """Lines of Markdown: `columns` are the names of a record's values and how to write them."""
    lines = [list(columns), ["---"] * len(columns)]
    lines += [
        [format(r[name], how) if r.get(name) is not None else "" for name, how in columns.items()] for r in records
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tell(title: str, records: list[dict], columns: dict[str, str]) -> None:
    """Print a table and a line of JSON for each of its rows."""
    about = machine()
    print(f"\n{title}\n\n{about['machine']}, {about['cores']} cores, jax {about['jax']}\n")
    print(table(records, columns) + "\n")
    for record in records:
        print(json.dumps(record | about))
