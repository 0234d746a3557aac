"""CartPole-v1 with the tuned dqn row, 100 seeds in one program: the table and the figure of experiments/cartpole/.

    python experiments/cartpole.py

It runs `python -m jdqn.run --env CartPole-v1 --seeds 100 --seed 0 --total-steps 100000`, nothing else, and keeps what
a reader needs of the run folder. The row was tuned on seeds 1000 and up; these are seeds 0 to 99.
"""

import csv
import json
import shutil
import tempfile
from pathlib import Path

from jdqn.run import main

HERE = Path(__file__).with_suffix("")
COMMAND = ["--env", "CartPole-v1", "--seeds", "100", "--seed", "0", "--total-steps", "100000"]
SOLVED = 475.0


def table(result: dict) -> str:
    """A row per simulator: mean, interval, agents at 475 or more, the worst five."""
    lines = ["| simulator | mean | 95 % interval | agents at 475 or more | lowest five |", "|---|---|---|---|---|"]
    for name, place in (("gymnax", "evaluation"), ("Gymnasium", "gymnasium")):
        found = result[place]
        low, high = found["ci95"]
        solved = sum(x >= SOLVED for x in found["per_agent"])
        worst = ", ".join(f"{x:.1f}" for x in sorted(found["per_agent"])[:5])
        lines.append(f"| {name} | {found['mean']:.1f} | {low:.1f} to {high:.1f} | {solved} of 100 | {worst} |")
    return "\n".join(lines) + "\n"


def keep(folder: Path) -> None:
    """Copy the curve and result, and write per_seed.csv and table.md."""
    HERE.mkdir(exist_ok=True)
    result = json.loads((folder / "result.json").read_text())
    for name in ("curve.png", "config.json", "result.json", "metrics.csv"):
        shutil.copy(folder / name, HERE / name)
    with (HERE / "per_seed.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "gymnax", "gymnasium"])
        columns = (result[place]["per_agent"] for place in ("evaluation", "gymnasium"))
        writer.writerows([seed, *values] for seed, values in enumerate(zip(*columns, strict=True)))
    (HERE / "table.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        if status := main([*COMMAND, "--out", f"{where}/run"]):
            raise SystemExit(status)
        keep(Path(where) / "run")
