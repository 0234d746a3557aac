"""The few numbers a run reports about itself."""

import numpy as np


def interval(values, confidence: float = 0.95, resamples: int = 10_000) -> list[float]:
    """[low, high] of the mean of `values` [n] by the percentile bootstrap, always from the same resamples."""
    values = np.asarray(values, np.float64)
    draws = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    tail = 50 * (1 - confidence)
    return [float(x) for x in np.percentile(values[draws].mean(1), [tail, 100 - tail])]


def interquartile_mean(values) -> float:
    """Mean of `values` [n] without the lowest and the highest quarter, rounded down (Agarwal et al. 2021)."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def summary(returns) -> dict:
    """Describe returns [agents, episodes]: the interval is over agents, or over episodes if there is one agent."""
    returns = np.asarray(returns, np.float64)
    found = of_agents(returns.mean(1), returns.shape[1])
    return found if len(returns) > 1 else found | {"ci95": interval(returns[0])}


def of_agents(per_agent, episodes: int) -> dict:
    """Describe the mean returns [agents] of so many episodes each; those that are nan are left out, and None.

    One number has no interval.
    """
    known = [float(x) for x in per_agent if x is not None and np.isfinite(x)]
    return {
        "episodes": episodes,
        "mean": float(np.mean(known)),
        "ci95": interval(known) if len(known) > 1 else None,
        "per_agent": [float(x) if x is not None and np.isfinite(x) else None for x in per_agent],
    }
