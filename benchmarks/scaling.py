"""What an iteration costs when something is doubled, and what an update costs in a larger replay.

    python -m benchmarks.scaling [--only WORDS] [--tiny] [--repetitions 5] [--seconds 0.5] [--out FILE]

One agent on one thread, of CartPole and of MinAtar Breakout, whose environments, batch, width, or replay grow while the
rest stays. `growth` is the time beside that of the row before, per doubling: more than 2 would be waste, and more than
4 for the width, whose matrices have four times the weights. For the replay, of which every row is written before the
clock starts, it is the time beside that of the smallest, which should stay below 1.25. An iteration is one tick of all
environments and `updates` gradient steps.
"""

import json
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp

import jdqn
from jdqn import parallel
from jdqn.host import devices

from .common import Training, flags, tell

BASE = dict(
    num_envs=16, rollout_length=1, updates=1, batch_size=128, hidden_sizes=(128, 128), replay_size=10_000, n_step=1,
    warm_up_steps=10_000, total_steps=100_000_000,
)  # fmt: skip
SMALL = dict(num_envs=4, batch_size=8, hidden_sizes=(8, 8), replay_size=256, warm_up_steps=256)
VALUES = {
    "environments": (1, 4, 16, 64, 256, 1024, 4096),
    "batch": (32, 64, 128, 256, 512, 1024),
    "width": (32, 64, 128, 256, 512, 1024),
    "replay": (10_000, 100_000, 1_000_000),
    "replay, prioritised": (10_000, 100_000, 1_000_000),
}
TINY = {"environments": (2, 4), "batch": (8, 16), "width": (8, 16), "replay": (256, 512)}
COLUMNS = {
    "env": "", "what": "", "value": ",", "microseconds": ",.0f", "spread": "", "growth": ".2f", "limit": "", "kept": "",
}  # fmt: skip


def settings_of(what: str, value: int, base: dict) -> dict:
    """The settings of a row; a replay is filled, and read by many updates."""
    if what.startswith("replay"):
        kind = "prioritised" if "prioritised" in what else "uniform"
        return base | dict(replay=kind, replay_size=value, warm_up_steps=value, updates=16)
    return (
        base
        | {
            "environments": dict(num_envs=value, replay_size=max(base["replay_size"], 8 * value)),
            "batch": dict(batch_size=value),
            "width": dict(hidden_sizes=(value, value)),
        }[what]
    )


def measure(name: str, what: str, value: int, base: dict, repetitions: int, seconds: float) -> dict[str, Any]:
    """A record; of a replay the time is that of one update with its share of the iteration."""
    config, hyper = jdqn.preset("dqn", "", **settings_of(what, value, base))
    trainer = jdqn.build(config, jdqn.envs.make(name))
    training = Training(parallel.over_agents(trainer), trainer, hyper, jax.vmap(jax.random.key)(jnp.zeros(1, int)))
    iterations, took = training.measure(repetitions, seconds)
    per = 1e6 / iterations / (trainer.updates if what.startswith("replay") else 1)
    record = dict(
        env=name,
        what=what,
        value=value,
        microseconds=per * took["seconds"],
        spread=f"{per * took['min_seconds']:,.0f} to {per * took['max_seconds']:,.0f}",
    )
    print(json.dumps(record), file=sys.stderr, flush=True)
    return record


def judged(records: list[dict]) -> list[dict]:
    """Records of one row of VALUES, with what each costs beside another."""
    for before, record in zip([None, *records], records, strict=False):
        replay = record["what"].startswith("replay")
        most = 1.25 if replay else 4 if record["what"] == "width" else 2
        record["limit"] = f"{most}" if replay else f"{most} per doubling"
        if before is None:
            continue
        if replay:
            record["growth"] = record["microseconds"] / records[0]["microseconds"]
        else:
            doublings = math.log2(record["value"] / before["value"])
            record["growth"] = (record["microseconds"] / before["microseconds"]) ** (1 / doublings)
        record["kept"] = "yes" if record["growth"] < most else "no"
    return records


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("scaling", __doc__, 0.5)
    parser.add_argument("--only", default="", help="what is doubled, of " + ", ".join(VALUES))
    options = parser.parse_args(arguments)
    devices.split_cpu(1, 1, convolutions=False)
    values, base = (TINY, BASE | SMALL) if options.tiny else (VALUES, BASE)
    records = []
    for name in ("CartPole-v1",) if options.tiny else ("CartPole-v1", "Breakout-MinAtar"):
        for what, some in values.items():
            if options.only in what:
                found = [measure(name, what, x, base, options.repetitions, options.seconds) for x in some]
                records += judged(found)
    tell("Doubling", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
