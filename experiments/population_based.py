"""Does population-based training beat random search at equal total steps? Kept in experiments/population_based/.

    python experiments/population_based.py [--first-seed 0] [--repetitions 20]

Acrobot, 16 agents of 60,000 steps each, `dqn` with learning rate, discount, final epsilon and target rate drawn over
ranges so wide that most draws are bad. Both searches begin with the same 16 draws, each with a seed of its own. Random
search trains them to the end; population-based training lets the worst fifth copy the best every 6,600 steps. Each then
offers the agent with the best training return in the last tenth of its run, before which the last generation came: all
that is judged is of the agent as it is offered. The offer is judged by 100 greedy episodes that neither has seen.
"""

import argparse
import csv
import json
import shlex
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from jdqn.host.folder import read_metrics
from jdqn.host.statistics import interval
from jdqn.run import main as run

HERE = Path(__file__).with_suffix("")
AGENTS = 16
WORDS = shlex.split(
    "--env Acrobot-v1 --total-steps 60000 --reports 40 --sweep random --samples 16 --learning-rate 1e-5 1e-1 "
    "--discount .8 .9999 --epsilon-end .01 .9 --target-update-rate .01 1 --learning-rate-final-fraction 1 "
    "--epsilon-steps 10000"
)
WAYS = {"random search": [], "population-based": ["--pbt-every", "6600"]}
LATE = 0.9  # of all updates; the last generation comes at 0.894


def search(way: str, seed: int) -> dict[str, float]:
    """The greedy return of the agent that a search offers, and of its whole population."""
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where) / "run"
        if status := run([*WORDS, *WAYS[way], "--seed", str(seed), "--episodes", "100", "--out", str(folder)]):
            raise SystemExit(status)
        evaluation = json.loads((folder / "result.json").read_text())["evaluation"]
        metrics = read_metrics(folder / "metrics.csv")
    scores = np.array(evaluation["per_agent"], float)  # nan where an agent is not finite any more
    offered = int(np.nanargmax(np.where(np.isfinite(scores), judged(metrics), np.nan)))
    found = {"offered": scores[offered], "best": np.nanmax(scores), "mean": np.nanmean(scores)}
    return {name: float(value) for name, value in found.items()} | {"agent": offered}


def judged(metrics: dict[str, np.ndarray]) -> np.ndarray:
    """Mean return [S] of the training episodes that ended late; nan where none did."""
    late = metrics["updates"] > LATE * metrics["updates"][-1]
    episodes = np.where(late, metrics["episodes"], 0)
    total = np.where(episodes > 0, metrics["return"] * episodes, 0).sum(0)
    return np.divide(total, episodes.sum(0), out=np.full(total.shape, np.nan), where=episodes.sum(0) > 0)


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """A dot for each search, pairs joined."""
    figure, grid = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axes, name in zip(grid, ("offered", "mean"), strict=True):
        values = np.array([[one[name] for one in found[way]] for way in WAYS])  # [2, repetitions]
        axes.plot([0, 1], values, "o-", color="tab:blue", alpha=0.3)
        axes.plot([0, 1], values.mean(1), "s-", color="black", linewidth=2)
        axes.set_xticks([0, 1], list(WAYS))
        axes.set_title({"offered": "the agent it offers", "mean": "mean of its 16 agents"}[name])
        axes.set_ylabel("greedy return on Acrobot")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--repetitions", type=int, default=20)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for k in range(options.repetitions):
        for way in WAYS:
            found[way].append(search(way, options.first_seed + AGENTS * k))
            print(k, way, found[way][-1], flush=True)
    HERE.mkdir(exist_ok=True)
    with (HERE / "repetitions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["repetition", "way", "offered", "best", "mean", "agent"])
        for way, each in found.items():
            writer.writerows([k, way, *one.values()] for k, one in enumerate(each))
    lines = ["| search | agent offered | 95 % interval | best of 16 | mean of 16 |", "|---|---|---|---|---|"]
    for way, each in found.items():
        offered = [one["offered"] for one in each]
        low, high = interval(offered)
        best, mean = (np.mean([one[name] for one in each]) for name in ("best", "mean"))
        lines.append(f"| {way} | {np.mean(offered):.1f} | {low:.1f} to {high:.1f} | {best:.1f} | {mean:.1f} |")
    gain = np.array([one["offered"] for one in found["population-based"]]) - [
        one["offered"] for one in found["random search"]
    ]
    low, high = interval(gain)
    lines.append(
        f"\nPairs: population-based training offers {gain.mean():+.1f} ({low:+.1f} to {high:+.1f}), better in "
        f"{(gain > 0).sum()} of {len(gain)}."
    )
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    draw(found, HERE / "repetitions.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
