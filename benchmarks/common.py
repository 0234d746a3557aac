"""What the benchmarks share: flags, clocks, tables, and the machine's name."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jdqn import Hyper, Population, Trainer
from jdqn.host.devices import cores, name_of_device
from jdqn.host.memory import tree_bytes
from jdqn.trainer import State


def flags(name: str, doc: str, seconds: float = 1.0, repetitions: int = 5) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=repetitions, help="timed calls, of which the median counts")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of a timed call")
    parser.add_argument("--tiny", action="store_true", help="small work, to see whether it runs")
    parser.add_argument("--out", type=Path, help="also write what is printed to this file")
    return parser


def seconds(function: Callable, repetitions: int) -> dict[str, float]:
    """Median, least and most wall-clock seconds of `function()` until its result is there, after a first call."""
    times = []
    for _ in range(repetitions + 1):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    times = times[1:]
    return dict(seconds=statistics.median(times), min_seconds=min(times), max_seconds=max(times))


class Training:
    """Agents in their learning phase, compiled."""

    def __init__(self, population: Population, trainer: Trainer, hyper: Hyper, keys: jax.Array):
        state, sums = jax.jit(population.init)(keys, hyper)
        self.bytes = tree_bytes(state)
        self.parameters = sum(x.size for x in jax.tree.leaves(state.learner.params)) // keys.size
        i = jax.ShapeDtypeStruct((), jnp.int32)
        began = time.perf_counter()
        advance = jax.jit(population.advance, donate_argnums=0)
        self._advance = advance.lower(state, hyper, sums, i, i).compile()
        self.compile_seconds = time.perf_counter() - began
        self._carry, self._hyper, self._now = (state, sums), hyper, 0
        self.go(trainer.num_warm_up)
        self._first = self._now

    @property
    def state(self) -> State:
        return self._carry[0]

    @property
    def now(self) -> int:
        """The clock."""
        return self._now

    @property
    def iterations(self) -> int:
        """Iterations so far, after warm-up."""
        return self._now - self._first

    @property
    def transitions(self) -> int:
        """Environment steps so far of all agents, warm-up included; a tick that only resets is none."""
        return int(self._carry[1].env_steps.sum())

    def go(self, iterations: int) -> Any:
        """So many more iterations."""
        start, self._now = self._now, self._now + iterations
        state, sums = self._carry
        self._carry = self._advance(state, self._hyper, sums, jnp.int32(start), jnp.int32(self._now))
        return self._carry[1]

    def measure(self, repetitions: int, target: float) -> tuple[int, dict[str, float]]:
        """(iterations of a call, its seconds); a call takes about `target` seconds."""
        jax.block_until_ready(self.go(5))
        iterations = 50
        if jax.process_count() == 1:  # several processes have to make the same number
            iterations = max(20, round(20 * target / seconds(lambda: self.go(20), 1)["seconds"]))
        return iterations, seconds(lambda: self.go(iterations), repetitions)


def machine() -> dict[str, str | int]:
    """What a table was measured on."""
    return dict(machine=name_of_device(), cores=cores(), jax=jax.__version__, python=platform.python_version())


def table(records: list[dict], columns: dict[str, str]) -> str:
    """Lines of Markdown: `columns` are the names of a record's values and how to write them."""
    lines = [list(columns), ["---"] * len(columns)]
    lines += [
        [format(r[name], how) if r.get(name) is not None else "" for name, how in columns.items()] for r in records
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tell(title: str, records: list[dict], columns: dict[str, str], out: Path | None = None, more: bool = False) -> None:
    """Print a table and a line of JSON for each of its rows; write both to `out` too, at its end if there is `more`."""
    about = machine()
    lines = [json.dumps(record | about) for record in records]
    head = f"{title}\n\n{about['machine']}, {about['cores']} cores, jax {about['jax']}"
    text = f"\n{head}\n\n{table(records, columns)}\n\n" + "\n".join(lines)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a" if more else "w") as file:
            file.write(text + "\n")
