"""What a person sees of a run: a few lines, and a bar on a terminal."""

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..config import Config
from ..presets import ALGORITHMS, defaults
from .folder import RunFolder
from .memory import human
from .program import Run


def list_algorithms(console: Console) -> None:
    """A table of what each algorithm picks, where no environment has a say."""
    table = Table("algorithm", "head", "target", "replay", "network", "exploration", "n", box=None, pad_edge=False)
    for name in ALGORITHMS:
        config, hyper = defaults(name, "")
        target = "double" if config.double else config.target
        explores = hyper.epsilon_start > 0 or config.exploration == "ladder"
        exploration = config.exploration if explores or config.exploration == "member" else "noise"
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


def describe(console: Console, run: Run) -> None:
    """Say what is about to happen, and its size."""
    plan, device = run.plan, jax.devices()[0]
    console.print(
        f"{plan.algo} on {plan.task}: {plan.seeds} agent(s) x {plan.config.total_steps:,} steps, seed {plan.seed}"
    )
    console.print(
        f"device {device.platform} ({device.device_kind}), {run.parameters:,} parameters per agent, "
        f"replay {run.replay_bytes:,} bytes ({human(run.replay_bytes)})"
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


def conclude(console: Console, result: dict, steps: int, folder: RunFolder, split: dict) -> None:
    """The last lines: how good, how fast, where it is."""
    for place in ("evaluation", "gymnasium"):
        if found := result[place]:
            low, high = found["ci95"]
            name = "greedy" if place == "evaluation" else "greedy in Gymnasium"
            interval = f"95 % {low:.2f} to {high:.2f}"
            console.print(f"{name}: {found['mean']:.2f} ({interval}) over {found['episodes']} episodes per agent")
    console.print(f"{steps:,} steps, {result['env_steps_per_second']:,.0f} steps/s")
    console.print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in split.items()))
    console.print(f"results in {folder.path}")
