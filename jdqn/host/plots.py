"""Pictures of a run."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from .statistics import interval


def learning_curve(metrics: dict[str, np.ndarray], title: str, path: Path) -> None:
    """Draw return against steps: every agent thin, their mean and its 95 % interval thick."""
    steps, returns = metrics["env_steps"], _fill(metrics["return"])
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    axes.plot(steps, returns, color="tab:blue", alpha=max(0.08, 1 / (1 + returns.shape[1])), linewidth=0.8)
    told = ~np.isnan(returns).any(1)
    if told.any():
        x, mean = steps[told].mean(1), returns[told].mean(1)
        label = "mean of episodes that ended"
        if returns.shape[1] > 1:
            low, high = np.transpose([interval(row, resamples=1000) for row in returns[told]])
            axes.fill_between(x, low, high, color="tab:blue", alpha=0.3, linewidth=0)
            label = f"mean of {returns.shape[1]} agents, 95 % interval"
        axes.plot(x, mean, color="tab:blue", linewidth=2, label=label)
        axes.legend(loc="best", frameon=False)
    axes.set(title=title, xlabel="environment steps per agent", ylabel="return of training episodes")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _fill(returns: np.ndarray) -> np.ndarray:
    """Where no episode ended between two reports, what was last known still holds."""
    filled = returns.copy()
    for t in range(1, len(filled)):
        filled[t] = np.where(np.isnan(filled[t]), filled[t - 1], filled[t])
    return filled
