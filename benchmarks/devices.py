"""What several devices, and several processes, do to a population and to one agent in shards.

    python -m benchmarks.devices [--repetitions 5] [--seconds 2] [--hosts] [--tiny] [--out FILE]

`population` shares 32 agents out and sends nothing; `data` is one agent whose environments, replay and batch are
divided, with an all-reduce of gradients at every update, beside the same agent in one piece. The work is CartPole with
a 120-84 MLP, and MinAtar Breakout for an agent whose batch is worth dividing. `--hosts` measures `data` once more with
a process for each device of a CPU, over 127.0.0.1.

Every row is a process of its own (or several), with the devices and threads that the program makes of a CPU: a device
for each core, small products on one thread, convolutions on as many threads as there are cores. The rows of a work and
way take turns, steps are environment ticks, and `times` is how much faster a row is than the first of them, the median
of all turns. `sent` are the bytes of gradients that each device would send per update in a ring, computed.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

import jdqn
from jdqn import parallel
from jdqn.host import devices
from jdqn.host.processes import meet, place
from jdqn.shards import AGENTS, DEVICES, Shards

from .common import Training, flags, tell
from .population import SETTINGS, TINY
from .versus import Driver

COLUMNS = {
    "work": "", "way": "", "devices": "", "hosts": "", "agents": "", "batch_size": "", "steps_per_second": ",.0f",
    "times": ".2f", "microseconds_per_update": ".0f", "sent": ",.0f", "spread": "",
}  # fmt: skip
BREAKOUT = dict(
    total_steps=1_000_000, num_envs=64, rollout_length=1, updates=1, batch_size=512, hidden_sizes=(128,),
    replay_size=50_000, warm_up_steps=5_000, target_period=250,
)  # fmt: skip
WORKS = {
    "CartPole": ("CartPole-v1", SETTINGS | dict(num_envs=16)),
    "Breakout, batch 512": ("Breakout-MinAtar", BREAKOUT),
}


def sent_per_update(parameters: int, number: int) -> float:
    """Bytes that a device sends to average float32 gradients over `number` devices in a ring: reduce, then gather."""
    return 2 * (number - 1) / number * 4 * parameters


def start(
    work: str, way: str, number: int, tiny: bool, host: tuple[str, int, int] | None = None
) -> tuple[Training, int, dict[str, Any]]:
    """(agents after their warm-up on `number` devices, environment ticks of an iteration of all, what they are).

    `host` is (address, how many, which) where each device is that of another process. Only before JAX has started.
    """
    name, settings = WORKS[work]
    devices.split_cpu(1 if host else number, number, devices.convolves(name, "auto"))
    if host:
        meet(*host)
    config, hyper = jdqn.preset("dqn", "", **(settings | (TINY if tiny else {}) | dict(num_envs=settings["num_envs"])))
    agents = 1 if way == "data" else 32 if not tiny else 2
    axes = (DEVICES, AGENTS) if number > 1 else (AGENTS,)
    shards = Shards(number, axes) if way == "data" and number > 1 else Shards()
    trainer = jdqn.build(config, jdqn.envs.make(name), shards)
    made = parallel.over_shards(trainer) if shards.count > 1 else parallel.over_agents(trainer)
    seeds = jnp.zeros(number, jnp.uint32) if shards.count > 1 else jnp.arange(agents, dtype=jnp.uint32)
    keys = jax.vmap(jax.random.key)(seeds)
    if number > 1:
        mesh = parallel.device_mesh(number)
        made, keys = parallel.over_devices(made, mesh), place(keys, parallel.sharded(mesh))
    training = Training(made, trainer, hyper, keys)
    sent = sent_per_update(training.parameters, number) if shards.count > 1 else 0
    about = dict(agents=agents, batch_size=config.batch_size, updates=agents * trainer.updates, sent=sent)
    return training, agents * trainer.ticks, about


class Row:
    """The driver `name` in a process, or in one for each device if there are several `hosts`."""

    def __init__(self, name: str, hosts: int, asked: dict[str, Any]):
        self.hosts, self._pool = hosts, ThreadPoolExecutor(hosts)  # processes wait for each other
        address = _free_address()
        each = [asked | (dict(host=(address, hosts, k)) if hosts > 1 else {}) for k in range(hosts)]
        self._drivers = list(self._pool.map(lambda asked: Driver(sys.executable, name, asked), each))
        self.about = self._drivers[0].about

    def turn(self) -> dict[str, Any]:
        first, *_ = self._pool.map(Driver.turn, self._drivers)
        return first

    def close(self) -> None:
        list(self._pool.map(Driver.close, self._drivers))
        self._pool.shutdown()


def _free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def compare(work: str, way: str, numbers: list[int], options: argparse.Namespace) -> list[dict]:
    """A record for each number of devices, and one for processes; they take turns."""
    kinds = [(number, 1) for number in numbers]
    if options.hosts and way == "data":
        kinds.append((numbers[-1], numbers[-1]))
    with contextlib.ExitStack() as stack:
        rows = []
        for number, hosts in kinds:
            asked = dict(of="devices", work=work, way=way, number=number, tiny=options.tiny, seconds=options.seconds)
            rows.append(Row("agents", hosts, asked))
            stack.callback(rows[-1].close)
        turns = [[row.turn() for row in rows] for _ in range(options.repetitions)]
    rates = [[found["steps"] / found["seconds"] for found in turn] for turn in turns]
    records = []
    for k, ((number, hosts), row) in enumerate(zip(kinds, rows, strict=True)):
        mine, updates = [rate[k] for rate in rates], row.about.pop("updates")
        took = statistics.median(turn[k]["seconds"] / turn[k]["iterations"] for turn in turns)
        records.append(
            dict(work=work, way=way, devices=number, hosts=hosts)
            | row.about
            | dict(
                steps_per_second=statistics.median(mine),
                times=statistics.median(rate[k] / rate[0] for rate in rates),
                microseconds_per_update=1e6 * took / updates,
                spread=f"{min(mine):,.0f} to {max(mine):,.0f}",
            )
        )
        print(json.dumps(records[-1]), file=sys.stderr, flush=True)
    return records


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("devices", __doc__, 2.0)
    parser.add_argument("--hosts", action="store_true", help="also with a process for each device")
    options = parser.parse_args(arguments)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # nothing runs here, and others need the memory
    there = jax.device_count() if jax.default_backend() != "cpu" else devices.cores()
    numbers = [1 << k for k in range(there.bit_length())]
    works = [("CartPole", "population"), ("CartPole", "data"), ("Breakout, batch 512", "data")]
    if options.tiny:
        numbers, works = numbers[:2], works[:2]
    records = [record for work, way in works for record in compare(work, way, numbers, options)]
    tell("Devices", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
