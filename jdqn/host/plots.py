"""Pictures of a run, or of several side by side."""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ..evolution import OF_THE_REST, scale
from .folder import text, whole
from .statistics import interval


def learning_curves(panels: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Draw return against steps, a panel per title: every agent thin, their mean and its 95 % interval thick.

    `panels` holds columns env_steps and return, [reports, agents] each, as `read_metrics` gives them.
    """
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (8, 5) if len(panels) == 1 else (4 * columns, 3 * rows)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for axes, (title, metrics) in zip(grid.flat, panels.items(), strict=False):
        _curve(axes, metrics["env_steps"], _fill(metrics["return"]), legend=len(panels) == 1)
        axes.set_title(title)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes in grid[-1]:
        axes.set_xlabel("environment steps per agent")
    for axes in grid[:, 0]:
        axes.set_ylabel("return of training episodes")
    with whole(path) as part:
        figure.savefig(part, dpi=120 if len(panels) == 1 else 80)
    plt.close(figure)


def _curve(axes, steps: np.ndarray, returns: np.ndarray, legend: bool) -> None:
    axes.plot(steps, returns, color="tab:blue", alpha=max(0.2, 1 / (1 + returns.shape[1])), linewidth=0.8)
    axes.grid(alpha=0.3)
    told = ~np.isnan(returns).any(1)
    if not told.any():
        return
    x, mean = steps[told].mean(1), returns[told].mean(1)
    label = "mean of episodes that ended"
    if returns.shape[1] > 1:
        low, high = np.transpose([interval(row, resamples=1000) for row in returns[told]])
        axes.fill_between(x, low, high, color="tab:blue", alpha=0.3, linewidth=0)
        label = f"mean of {returns.shape[1]} agents, 95 % interval"
    axes.plot(x, mean, color="tab:blue", linewidth=2, label=label)
    if legend:
        axes.legend(loc="best", frameon=False)


def swept(rows: list[dict], name: str, path: Path) -> None:
    """Draw the return of every agent of a sweep against its value of `name`, with mean and 95 % interval per value.

    Where most values have a single agent, as after a random sweep or in a population that changed its settings, there
    are only the agents: a line through them would be no mean. A setting that is searched by its distance from 1, as the
    discount is, is drawn by that.
    """
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    rows = [row for row in rows if row["return"] is not None]
    values = list(dict.fromkeys(row[name] for row in rows))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    values = sorted(values) if numbers else values
    of_the_rest = numbers and scale(name.removeprefix("final_"), values[0], values[-1]) is OF_THE_REST
    places = [1 - x for x in values] if of_the_rest else values if numbers else list(range(len(values)))
    groups = [[row["return"] for row in rows if row[name] == value] for value in values]
    for place, group in zip(places, groups, strict=True):
        axes.plot([place] * len(group), group, "o", color="tab:blue", alpha=0.35, markersize=4)
    if 2 * sum(len(group) > 1 for group in groups) > len(groups):
        none = [np.nan, np.nan]  # one agent has no interval
        low, high = np.transpose([interval(group, resamples=1000) if len(group) > 1 else none for group in groups])
        means = [np.mean(group) for group in groups]
        if numbers:
            axes.fill_between(places, low, high, color="tab:blue", alpha=0.2, linewidth=0)
        else:  # there is nothing between them
            axes.vlines(places, low, high, color="tab:blue", alpha=0.3, linewidth=6)
        axes.plot(places, means, color="tab:blue", linewidth=2, marker="s", linestyle="-" if numbers else "none")
    if not numbers:
        axes.set_xticks(places, [text(value) for value in values])
    elif len(values) > 1:
        above = [x for x in places if x > 0]
        if min(places) >= 0 and max(places) > 5 * min(above):
            axes.set_xscale("log") if len(above) == len(places) else axes.set_xscale("symlog", linthresh=min(above))
        if of_the_rest:
            axes.invert_xaxis()
    axes.set_xlabel(f"1 - {name}" if of_the_rest else name)
    axes.set_ylabel("greedy return, an agent a dot")
    axes.grid(alpha=0.3)
    with whole(path) as part:
        figure.savefig(part, dpi=110)
    plt.close(figure)


def _fill(returns: np.ndarray) -> np.ndarray:
    """Where no episode ended between two reports, what was last known still holds."""
    filled = returns.copy()
    for t in range(1, len(filled)):
        filled[t] = np.where(np.isnan(filled[t]), filled[t - 1], filled[t])
    return filled
