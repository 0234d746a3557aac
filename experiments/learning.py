"""How well every algorithm learns: a table and a figure for each task, in experiments/learning/.

    python experiments/learning.py TASK [ALGORITHM ...]     # train: all rows of a task, or some of them
    python experiments/learning.py --report                 # tables, figures and docs/algorithms.md from what is there

A row is one call of `python -m jdqn.run` with seeds 0 to 19 and the settings of its preset. What is kept of it:
TASK/ALGORITHM.json (the command, every setting, versions, the revision of jdqn, each seed's score) and
TASK/ALGORITHM.csv (the curves). Presets were tuned on seeds 1000 and up. A JSON that names orbax among its versions is
older than f78108a, which changed the order of random draws: the same algorithm, but its command now draws others.
"""

import argparse
import csv
import dataclasses
import json
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from jdqn import ALGORITHMS
from jdqn.host.folder import read_metrics
from jdqn.host.plots import learning_curves
from jdqn.host.statistics import interval
from jdqn.run import main

HERE = Path(__file__).with_suffix("")
CARDS = Path(__file__).parent.parent / "docs" / "algorithms.md"
FAMILY = [name for name in ALGORITHMS if name != "q_learning"]  # which needs one-hot states

MINATAR = {"dqn": "--total-steps 2000000", "rainbow": "--total-steps 500000", "pqn": "--total-steps 5000000"}
PUBLISHED = {
    "Breakout": "Published for it: PPO 28 after 10M steps (gymnax-blines). For the original, with sticky actions and "
    "without a limit: DQN 10.0 after 5M (Young and Tian 2019), the best of Revisiting Rainbow 14.4 after 10M.",
    "Asterix": "Published for it: PQN 70 to 72 (Gallici et al. 2024) and PPO 15 (gymnax-blines), both after 10M steps. "
    "For the original, with sticky actions and without a limit: DQN 16.8 after 5M (Young and Tian 2019), the best of "
    "Revisiting Rainbow 55 after 10M. Three-step returns are slow here: `python -m jdqn.run --env Asterix-MinAtar "
    "--algo nstep --total-steps 250000 --seeds 5 --seed 1000` reaches 1.6 (1.3 to 2.0), and with `--algo dqn` 10.6 "
    "(7.8 to 13.2). A likely reason: optimism explores, and the values of dqn (q in metrics.csv) are 7 by then, "
    "those of nstep 1.2.",
}  # docs/paper_differences.md says which of them are read off figures


@dataclasses.dataclass(frozen=True)
class Task:
    """A column of the table: what is trained, for how long, and what would be good."""

    title: str
    flags: str
    algorithms: list[str]
    goal: str
    seeds: int = 20
    but: dict[str, str] = dataclasses.field(default_factory=dict)  # flags of single algorithms
    note: str = ""  # what a reader has to know beside the numbers

    def command(self, algorithm: str) -> list[str]:
        more = self.but.get(algorithm, "")
        return shlex.split(f"{self.flags} --algo {algorithm} --seeds {self.seeds} --seed 0 {more}")


TASKS = {
    "cartpole": Task(
        "CartPole", "--env CartPole-v1 --total-steps 200000", FAMILY, "450 or more",
        but=dict.fromkeys(("pqn", "pqn_rnn"), "--total-steps 500000") | {"btr": "--total-steps 100000"},
    ),
    "acrobot": Task(
        "Acrobot", "--env Acrobot-v1", FAMILY,
        "-85 or more at 500,000 steps; ours are 100,000, of apex and btr 200,000, of the two PQN 500,000",
    ),
    "catch": Task("Catch", "--env Catch-bsuite", FAMILY, "0.95 or more"),
    "memory": Task(
        "MemoryChain 10", "--env MemoryChain-bsuite --env-params memory_length=10",
        ["dqn", "rainbow", "pqn", "r2d2", "pqn_rnn"], "0.95 or more with a memory, near 0 without",
    ),
    "deep_sea_10": Task(
        "DeepSea 10", "--env DeepSea-bsuite --env-params size=10", ["dqn", "bootstrapped"],
        "0.99 for bootstrapped",
        note="Random actions take the one path to the treasure in one of 1,024 episodes, and 100,000 steps are 10,000 "
        "episodes: dqn happens on it with most seeds. In DeepSea 20 that is one of a million.",
    ),
    "deep_sea_20": Task(
        "DeepSea 20", "--env DeepSea-bsuite --env-params size=20", ["dqn", "bootstrapped"],
        "0.99 for bootstrapped, 0 for dqn",
    ),
    "mountain_car": Task(
        "MountainCar", "--env MountainCar-v0", ["dqn", "double", "munchausen"], "-110 or more for some row"
    ),
    **{
        game.lower(): Task(
            f"MinAtar {game}", f"--env {game}-MinAtar", list(MINATAR), "what an hour or so of one core gives",
            seeds=5, but=MINATAR,
            note="Rows differ in steps: dqn has four times those of rainbow. "
            "gymnax's variant: no sticky actions, the actions that the game uses, at most 1,000 steps an episode. "
            + PUBLISHED[game],
        )
        for game in ("Breakout", "Asterix")
    },
    "frozen_lake": Task("FrozenLake", "--env FrozenLake-misc", ["q_learning"], "0.74, the optimum"),
}  # fmt: skip


def train(name: str, algorithm: str) -> None:
    """Train one row and keep what a reader needs of its run folder."""
    task, trained_by = TASKS[name], revision()
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where) / "run"
        if status := main([*task.command(algorithm), "--reports", "50", "--out", str(folder)]):
            raise SystemExit(status)
        result, config = (json.loads((folder / file).read_text()) for file in ("result.json", "config.json"))
        metrics = read_metrics(folder / "metrics.csv")
    here = HERE / name
    here.mkdir(parents=True, exist_ok=True)
    command = f"python -m jdqn.run {shlex.join(task.command(algorithm))}"
    content = {"command": command, "revision": trained_by, "result": result, **config}
    (here / f"{algorithm}.json").write_text(json.dumps(content, indent=1) + "\n")
    with (here / f"{algorithm}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "env_steps", "return"])
        columns = (metrics[name].ravel().tolist() for name in ("seed", "env_steps", "return"))
        for values in zip(*columns, strict=True):
            writer.writerow([f"{value:.9g}" if np.isfinite(value) else "" for value in values])


def revision() -> str:
    """The commit that trains, with -dirty behind it if the program is not as committed."""

    def git(*words: str) -> str:
        program = HERE.parent.parent / "jdqn"
        return subprocess.run(["git", *words], cwd=program, check=True, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if git("status", "--porcelain", ".") else "")


def scores(name: str) -> dict[str, dict]:
    """What is there of a task: the JSON of each algorithm, in the order of the presets."""
    found = {path.stem: json.loads(path.read_text()) for path in (HERE / name).glob("*.json")}
    return {algorithm: found[algorithm] for algorithm in ALGORITHMS if algorithm in found}


def curves(name: str, algorithm: str) -> dict[str, np.ndarray]:
    with (HERE / name / f"{algorithm}.csv").open() as file:
        rows = list(csv.DictReader(file))
    agents = len({row["seed"] for row in rows})
    return {key: np.array([float(row[key] or "nan") for row in rows]).reshape(-1, agents) for key in rows[0]}


def table(name: str) -> str:
    """A row per algorithm: mean, interval, interquartile mean, worst seeds, the same in Gymnasium, cost."""
    heading = ["algorithm", "mean", "95 % interval", "IQM", "lowest three", "in Gymnasium", "steps", "updates"]
    lines = [heading, ["---"] * len(heading)]
    for algorithm, found in scores(name).items():
        result = found["result"]
        ours, twin = result["evaluation"], result["gymnasium"]
        each = sorted(ours["per_agent"])
        low, high = interval(ours["per_agent"])  # in the order of the cards: the resamples are always the same
        middle = each[len(each) // 4 : len(each) - len(each) // 4]
        lines.append(
            [
                algorithm, number(ours["mean"]), f"{number(low)} to {number(high)}", number(np.mean(middle)),
                ", ".join(map(number, each[:3])), number(twin["mean"]) if twin else "-",
                f"{found['config']['total_steps']:,}", f"{result['updates']:,}",
            ]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(x: float) -> str:
    return f"{x:.2f}" if abs(x) < 10 else f"{x:.1f}"


def report() -> None:
    """Write table.md and curves.png of each task, and docs/algorithms.md between its marks."""
    ready = {name: found for name in TASKS if (found := scores(name))}
    for name, found in ready.items():
        task = TASKS[name]
        text = f"{task.title}: greedy return of the final policy, {task.seeds} seeds, 100 episodes each. "
        text += f"Goal: {task.goal}.\n\n{table(name)}\n" + (f"\n{task.note}\n" if task.note else "")
        (HERE / name / "table.md").write_text(text)
        learning_curves({algorithm: curves(name, algorithm) for algorithm in found}, HERE / name / "curves.png")
    cards = CARDS.read_text()
    lines = [["algorithm", *(TASKS[name].title for name in ready)], ["---"] * (len(ready) + 1)]
    for algorithm in ALGORITHMS:
        line = [f"`{algorithm}`"]
        for found in ready.values():
            line.append(with_interval(found[algorithm]) if algorithm in found else "")
        lines.append(line)
    results = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    cards = between(cards, "results", f"\n{results}\n")
    for algorithm in ALGORITHMS:
        told = [
            f"{TASKS[name].title} {with_interval(found[algorithm])}"
            for name, found in ready.items() if algorithm in found
        ]  # fmt: skip
        cards = between(cards, f"measured {algorithm}", "; ".join(told) + "." if told else "")
    CARDS.write_text(cards)


def with_interval(found: dict) -> str:
    each = found["result"]["evaluation"]["per_agent"]
    return f"{number(np.mean(each))} ({' to '.join(map(number, interval(each)))})"


def between(text: str, mark: str, content: str) -> str:
    """Put `content` between <!-- mark --> and the closing mark."""
    pattern = rf"(<!-- {mark} -->).*?(<!-- /{mark.split()[0]} -->)"
    if not re.search(pattern, text, re.DOTALL):
        raise SystemExit(f"{CARDS} has no place for {mark}")
    return re.sub(pattern, lambda found: f"{found[1]}{content}{found[2]}", text, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=TASKS)
    parser.add_argument("algorithm", nargs="*")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.task:
        for algorithm in options.algorithm or TASKS[options.task].algorithms:
            train(options.task, algorithm)
    if options.report:
        report()
