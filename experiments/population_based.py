"""Does population-based training beat random search at equal total steps? Kept in population_based/seeds_FIRST/.

    python experiments/population_based.py [--first-seed 0] [--repetitions 20]
    python experiments/population_based.py --report     # table and figure again, from what is kept

Acrobot, 8 agents of 100,000 steps each, `dqn` with learning rate, discount and target rate drawn over ranges so wide
that most draws are bad. Both searches begin with the same 8 draws, each with a seed of its own. Random search trains
them to the end; in population-based training, every 10,000 steps, the worst two copy one of the best two and double or
halve the learning rate and the target rate that they inherit, and what their discount is short of 1. Each search then
offers the agent that its ranking puts first, by 100 greedy episodes each. The offer is judged by 100 episodes in
Gymnasium, which neither search has seen. Tuned on seeds 1000 and up.
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

from jdqn.host.statistics import interval
from jdqn.run import main as run

HERE = Path(__file__).with_suffix("")
AGENTS = 8
WORDS = shlex.split(
    f"--env Acrobot-v1 --total-steps 100000 --reports 40 --sweep random --samples {AGENTS} --learning-rate 1e-6 1 "
    "--discount .5 .9999 --target-update-rate .01 1 --learning-rate-final-fraction 1 --epsilon-steps 10000"
)
WAYS = {"random search": [], "population-based": shlex.split("--pbt-every 10000 --pbt-fraction .25 --pbt-factor 2")}
KEPT = ("offered", "best", "mean")


def search(way: str, seed: int) -> dict[str, float]:
    """The return in Gymnasium of the agent that a search offers, and the greedy returns of its whole population."""
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where) / "run"
        if status := run([*WORDS, *WAYS[way], "--seed", str(seed), "--episodes", "100", "--out", str(folder)]):
            raise SystemExit(status)
        result = json.loads((folder / "result.json").read_text())
    scores = np.array(result["evaluation"]["per_agent"], float)  # nan where an agent is not finite any more
    return {"offered": result["gymnasium"]["mean"], "best": float(np.nanmax(scores)), "mean": float(np.nanmean(scores))}


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """A dot for each search, pairs joined."""
    figure, grid = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axes, name in zip(grid, ("offered", "mean"), strict=True):
        values = np.array([[one[name] for one in found[way]] for way in WAYS])  # [2, repetitions]
        axes.plot([0, 1], values, "o-", color="tab:blue", alpha=0.3)
        axes.plot([0, 1], values.mean(1), "s-", color="black", linewidth=2)
        axes.set_xticks([0, 1], list(WAYS))
        axes.set_title({"offered": "the agent it offers", "mean": f"mean of its {AGENTS} agents"}[name])
        axes.set_ylabel("greedy return on Acrobot")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--report", action="store_true", help="only table and figure of what is kept")
    options = parser.parse_args()
    kept = HERE / f"seeds_{options.first_seed}"
    if options.report:
        return report(kept)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for k in range(options.repetitions):
        for way in WAYS:
            found[way].append(search(way, options.first_seed + AGENTS * k))
            print(k, way, found[way][-1], flush=True)
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "repetitions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["repetition", "way", *KEPT])
        for way, each in found.items():
            writer.writerows([k, way, *one.values()] for k, one in enumerate(each))
    report(kept)


def report(kept: Path) -> None:
    """Table and figure of what is kept there."""
    with (kept / "repetitions.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {way: [{k: float(row[k]) for k in KEPT} for row in rows if row["way"] == way] for way in WAYS}
    lines = [
        f"| search | agent offered | 95 % interval | best of {AGENTS} | mean of {AGENTS} |",
        "|---|---|---|---|---|",
    ]
    for way, each in found.items():
        offered = [one["offered"] for one in each]
        low, high = interval(offered)
        best, mean = (np.mean([one[name] for one in each]) for name in ("best", "mean"))
        lines.append(f"| {way} | {np.mean(offered):.1f} | {low:.1f} to {high:.1f} | {best:.1f} | {mean:.1f} |")
    lines.append("\nGains of population-based training over random search, in pairs that begin alike:\n")
    for name, what in (("offered", "the agent offered"), ("mean", f"the mean of {AGENTS}")):
        values = np.array([[one[name] for one in found[way]] for way in WAYS])  # [2, repetitions]
        gain = values[1] - values[0]
        low, high = interval(gain)
        better, worse = (gain > 0).sum(), (gain < 0).sum()
        lines.append(f"- {what}: {gain.mean():+.1f} ({low:+.1f} to {high:+.1f}), better in {better}, worse in {worse}")
    (kept / "table.md").write_text("\n".join(lines) + "\n")
    draw(found, kept / "repetitions.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
