"""What a person sees of a run: a few lines, and a bar on a terminal."""

import contextlib
import sys
from typing import Any, TextIO

import jax
import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..config import Config
from ..presets import ALGORITHMS, defaults
from .devices import name_of_device
from .folder import RunFolder, text
from .memory import human, tree_bytes
from .program import Run
from .sweep import are_waves


class Lossy:
    """A stream of text that may lose some: a log lies on a full disk, or the reader of a pipe is gone."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def screen(stderr: bool = False) -> Console:
    """Prints lines as they are; where they cannot be written, whoever prints goes on."""
    stream: Any = Lossy(sys.stderr if stderr else sys.stdout)
    return Console(file=stream, highlight=False, soft_wrap=True, markup=False)


def list_algorithms(console: Console, env: str) -> None:
    """A table of what each algorithm picks on an environment, or with "" where none has a say."""
    table = Table("algorithm", "head", "target", "replay", "network", "exploration", "n", box=None, pad_edge=False)
    for name in ALGORITHMS:
        config, hyper = defaults(name, env)
        target = config.target + ", double" * config.double
        by_noise = config.noisy and config.exploration == "epsilon_greedy" and hyper.epsilon_start == 0
        exploration = "noise" if by_noise else config.exploration
        replay = f"{config.replay}, {config.unroll_length} rows" if config.unroll_length > 1 else config.replay
        table.add_row(name, config.head, target, replay, _network(config), exploration, str(config.n_step))
    console.width = max(console.width, 132)  # a pipe has no width to respect
    console.print(table)


def _network(config: Config) -> str:
    """What is special about a network, or its torso."""
    special = [name for name in ("dueling", "noisy", "layer_norm") if getattr(config, name)]
    special += [config.image_network] * (config.image_network != "auto")
    special += [config.core] * (config.core != "none") + [f"ensemble of {config.ensemble}"] * (config.ensemble > 1)
    return ", ".join(special) or config.network


def describe(console: Console, runs: list[Run]) -> None:
    """Say what is about to happen, and its size."""
    run, device = max(runs, key=lambda run: tree_bytes(run.shapes)), jax.devices()[0]
    plan, agents = run.plan, sum(run.plan.agents for run in runs)
    waves = are_waves([run.plan for run in runs])
    kind = f"waves, up to {max(run.plan.agents for run in runs)} agents in memory together" if waves else "parts"
    parts = f" in {len(runs)} {kind}" if len(runs) > 1 else ""
    pieces = f" in {plan.shards} shards" if plan.shards > 1 else ""
    console.print(
        f"{plan.algo} on {plan.task}: {agents} agent(s){pieces} x {plan.config.total_steps:,} steps{parts}, "
        f"seed {plan.seeds[0]}"
    )
    console.print(
        f"{run.devices} device(s) {device.platform} ({name_of_device()}), "
        f"{'' if waves else 'the largest part: '}{run.parameters:,} parameters per agent, "
        f"replay {run.replay_bytes:,} bytes ({human(run.replay_bytes)}), {human(run.agent_bytes)} per agent in all"
    )


class ProgressBar:
    """A bar with steps, steps/s, return and time left on a terminal; nothing elsewhere."""

    def __init__(self, console: Console, run: Run):
        self.run = run
        self.progress = Progress(
            TextColumn("{task.completed:,.0f} steps"), BarColumn(), TextColumn("{task.fields[rate]:,.0f} steps/s"),
            TextColumn("return {task.fields[value]:.1f}"), TimeElapsedColumn(), TimeRemainingColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.progress.add_task("", total=run.total * run.trainer.ticks, rate=0.0, value=float("nan"))

    def __enter__(self):
        self.progress.__enter__()
        return self.show

    def show(self, progress, columns) -> None:
        known = columns["return"][np.isfinite(columns["return"])]
        self.progress.update(
            self.task,
            completed=progress.iteration * self.run.trainer.ticks,
            rate=progress.env_steps.sum() / progress.seconds,
            value=known.mean() if len(known) else float("nan"),
        )

    def __exit__(self, *exception) -> None:
        self.progress.__exit__(*exception)


def show_ranking(console: Console, ranking: list[dict], most: int = 20) -> None:
    """The best settings of a sweep."""
    names = list(ranking[0]["setting"])
    sick = any(found["non_finite"] for found in ranking)
    counts = ["agents", "non-finite"] if sick else ["agents"]
    several = any(found["agents"] > 1 for found in ranking)  # one agent has no interval, and is its own mean
    means = ["mean", "95 %", "interquartile mean"] if several else ["return"]
    table = Table("", *names, *counts, *means, box=None, pad_edge=False)
    for k, found in enumerate(ranking[:most], 1):
        values = [_short(value) for value in found["setting"].values()]
        agents = [str(found["agents"]), str(found["non_finite"])][: len(counts)]
        scores = [_number(found["mean"]), _interval(found["ci95"]), _number(found["interquartile_mean"])]
        table.add_row(str(k), *values, *agents, *scores[: len(means)])
    # Rows longer than the screen are wrapped by a terminal, which is better than numbers cut off.
    wide = Measurement.get(console, console.options.update(max_width=10_000), table)
    console.width = max(console.width, wide.maximum)
    console.print(table)
    if len(ranking) > most:
        console.print(f"and {len(ranking) - most} more in result.json")


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"


def conclude(console: Console, result: dict, folder: RunFolder, split: dict) -> None:
    """The last lines: how good, how fast, where it is."""
    for place in ("evaluation", "gymnasium"):
        if found := result[place]:
            name = "greedy" if place == "evaluation" else "greedy in Gymnasium"
            interval = f"95 % {_interval(found['ci95'])}"
            whose = ", first in the ranking" if "agents" in found and "ranking" in result else ""
            console.print(
                f"{name}{whose}: {found['mean']:.2f} ({interval}) over {found['episodes']} episodes per agent"
            )
    steps = result["env_steps_per_second"] * result["run_seconds"]
    console.print(f"{steps:,.0f} steps, {result['env_steps_per_second']:,.0f} steps/s")
    console.print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in split.items()))
    console.print(f"results in {folder.path}")
