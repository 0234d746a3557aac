"""Whole populations on an accelerator: python -m jdqn.run, timed from its first step to its last.

    python -m benchmarks.accelerator [--works breakout ...] [--repetitions 3] [--tiny] [--out FILE]

- `breakout`: MinAtar Breakout, 64 agents of 1M steps each, a replay of 100,000, batches of 32, an update every 4 steps.
- `breakout-heavy`: 50 agents with an update of 100 transitions for every step, the budget of Rejax's
  benchmark/breakout_1m.yaml, but in ten environments where it has one. 739 s an agent are published for its 50 agents
  on an A100 (1,223 s for one alone).
- `cartpole`: 2,048 agents of 500,000 steps with PureJaxRL's hyper-parameters (an update of 128 every 10 steps).

Agents that do not fit into memory together follow in waves. `seconds` are wall clock of all agents, warm-up included,
compilation and evaluation apart; `an_agent` is their share. On a CPU these works take hours and days: `--tiny`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from .common import flags, tell

COLUMNS = {
    "work": "", "agents": ",", "steps": ",", "updates": ",", "batch_size": "", "seconds": ".1f", "an_agent": ".3f",
    "least": ".1f", "most": ".1f", "steps_per_second": ",.0f", "compile_seconds": ".1f",
}  # fmt: skip
BREAKOUT = dict(env="Breakout-MinAtar", total_steps=1_000_000, replay_size=100_000, warm_up_steps=20_000)
WORKS = {
    "breakout": BREAKOUT | dict(seeds=64, num_envs=64, rollout_length=1, updates=16, batch_size=32),
    "breakout-heavy": BREAKOUT | dict(seeds=50, num_envs=10, rollout_length=1, updates=10, batch_size=100),
    "cartpole": dict(
        env="CartPole-v1", seeds=2_048, total_steps=500_000, num_envs=10, rollout_length=1, updates=1, batch_size=128,
        hidden_sizes=(120, 84), replay_size=10_000, warm_up_steps=10_000, learning_rate=2.5e-4, target_period=50,
        epsilon_steps=250_000.0,
    ),
}  # fmt: skip
TINY = dict(seeds=2, total_steps=2_000, replay_size=1_000, warm_up_steps=1_000)


def words(settings: dict) -> list[str]:
    """Settings as flags of the program."""
    found = ["--reports", "10", "--episodes", "1", "--checkpoint-every", "1000000"]
    for name, value in settings.items():
        found += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return found


def measure(work: str, repetitions: int, tiny: bool) -> dict:
    """A record: the program runs so many times, and compiles in the first of them for all."""
    settings = WORKS[work] | (TINY if tiny else {})
    results = []
    with tempfile.TemporaryDirectory() as where:
        out = Path(where) / "run"
        command = [sys.executable, "-m", "jdqn.run", *words(settings), "--out", str(out), "--overwrite"]
        cache = os.environ | dict(JAX_COMPILATION_CACHE_DIR=str(Path(where) / "cache"))
        for _ in range(repetitions):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=cache)
            results.append(json.loads((out / "result.json").read_text()))
    seconds = [result["run_seconds"] for result in results]
    updates = results[0]["updates"]  # one for each wave
    median = statistics.median(seconds)
    return dict(
        work=work,
        agents=settings["seeds"],
        steps=settings["total_steps"],
        updates=updates[0] if isinstance(updates, list) else updates,
        batch_size=settings["batch_size"],
        seconds=median,
        an_agent=median / settings["seeds"],
        least=min(seconds),
        most=max(seconds),
        steps_per_second=statistics.median(result["env_steps_per_second"] for result in results),
        compile_seconds=results[0]["compile_seconds"],
    )


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("accelerator", __doc__, repetitions=3)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    options = parser.parse_args(arguments)
    records = [measure(work, options.repetitions, options.tiny) for work in options.works]
    tell("Whole populations", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
