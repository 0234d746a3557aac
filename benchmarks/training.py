"""Environment steps and updates per second of whole training, after warm-up.

    python -m benchmarks.training [--tiny] [--repetitions 5] [--seconds 1] [--out FILE]

Every preset but `q_learning`, which wants one-hot states, on CartPole and MinAtar Breakout as the presets have it; then
DQN's preset there with 1 to 4,096 environments, and with 1 or 8 updates an iteration, which are `updates_per_step`. An
iteration steps every environment `rollout` times. One agent on one thread. Steps are real transitions: a tick that only
resets is none. Compilation is apart, the warm-up is not timed.
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp

import jdqn
from jdqn import parallel
from jdqn.host import devices

from .common import Training, flags, tell

NAMES = ("CartPole-v1", "Breakout-MinAtar")
NUMBERS = (1, 4, 16, 64, 256, 1024, 4096)
COLUMNS = {
    "env": "", "preset": "", "environments": ",", "rollout": "", "updates": "", "updates_per_step": ".4g",
    "batch_size": "", "steps_per_second": ",.0f", "updates_per_second": ",.0f", "spread": "", "compile_seconds": ".1f",
}  # fmt: skip
SMALL = dict(hidden_sizes=(8,), core_size=8, atoms=4, replay_size=512, warm_up_steps=64)


def measure(name: str, algorithm: str, settings: dict, repetitions: int, seconds: float) -> dict[str, Any]:
    """A record; a call takes about `seconds`."""
    config, hyper = jdqn.preset(algorithm, name, **settings)
    trainer = jdqn.build(config, jdqn.envs.make(name))
    training = Training(parallel.over_agents(trainer), trainer, hyper, jax.vmap(jax.random.key)(jnp.zeros(1, int)))
    before = training.transitions
    iterations, took = training.measure(repetitions, seconds)
    share = (training.transitions - before) / (training.iterations * trainer.ticks)  # of ticks that are transitions
    steps = share * iterations * trainer.ticks
    record = dict(
        env=name,
        preset=algorithm,
        environments=config.num_envs,
        rollout=config.rollout_length,
        updates=trainer.updates,
        updates_per_step=trainer.updates / trainer.ticks,
        batch_size=config.batch_size,
        steps_per_second=steps / took["seconds"],
        updates_per_second=iterations * trainer.updates / took["seconds"],
        spread=f"{steps / took['max_seconds']:,.0f} to {steps / took['min_seconds']:,.0f}",
        compile_seconds=training.compile_seconds,
    )
    print(json.dumps(record), file=sys.stderr, flush=True)
    return record


def works(tiny: bool) -> tuple[list[tuple], list[tuple]]:
    """(presets as they are, DQN over environments and updates): an environment's name, an algorithm, settings."""
    presets = [(name, algorithm, {}) for name in NAMES for algorithm in jdqn.ALGORITHMS if algorithm != "q_learning"]
    numbers = [
        (name, "dqn", dict(num_envs=number, rollout_length=1, updates=updates, replay_size=max(50_000, 4 * number)))
        for name in NAMES
        for updates in (1, 8)
        for number in NUMBERS
    ]
    if tiny:
        return [(*NAMES[:1], "dqn", SMALL)], [(*NAMES[:1], "dqn", SMALL | dict(num_envs=4, updates=2))]
    return presets, numbers


def main(arguments: list[str] | None = None) -> list[dict]:
    options = flags("training", __doc__).parse_args(arguments)
    devices.split_cpu(1, 1, convolutions=False)
    titles = ("Presets as they are", "DQN, environments and updates")
    found = []
    for k, (title, some) in enumerate(zip(titles, works(options.tiny), strict=True)):
        records = [measure(*work, options.repetitions, options.seconds) for work in some]
        tell(title, records, COLUMNS, options.out, more=k > 0)
        found += records
    return found


if __name__ == "__main__":
    main()
