"""What several devices, and several processes, do to a population and to one agent in shards.

    python -m benchmarks.devices [--repetitions 5] [--seconds 2] [--hosts] [--tiny] [--out FILE]

A CPU is split into a device for each core. `population` shares 32 agents out and sends nothing; `data` is one agent
whose environments, replay and batch are divided, with an all-reduce of gradients at every update, beside the same agent
in one piece. The work is CartPole with a 120-84 MLP, and MinAtar Breakout for an agent whose batch is worth dividing.
`--hosts` measures `data` once more with a process for each device, over 127.0.0.1. `sent` are the bytes of gradients
that each device would send per update in a ring, computed. A device of a CPU has one thread, so that two are two cores;
the program leaves convolutions on one device as many threads as there are cores.
"""

import argparse
import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp

import jdqn
from jdqn import parallel
from jdqn.host import devices
from jdqn.host.processes import meet, place
from jdqn.shards import AGENTS, DEVICES, Shards

from .common import Training, flags, tell
from .population import SETTINGS, TINY

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


def measure(work: str, way: str, number: int, repetitions: int, target: float, tiny: bool = False) -> dict:
    """A record; a call takes about `target` seconds."""
    name, settings = WORKS[work]
    config, hyper = jdqn.preset("dqn", "", **(settings | (TINY if tiny else {}) | dict(num_envs=settings["num_envs"])))
    agents = 1 if way == "data" else 32 if not tiny else 2
    axes = (DEVICES, AGENTS) if number > 1 else (AGENTS,)
    shards = Shards(number, axes) if way == "data" and number > 1 else Shards()
    trainer = jdqn.build(config, jdqn.envs.make(name), shards)
    made = parallel.over_shards(trainer) if shards.count > 1 else parallel.over_agents(trainer)
    size = shards.count if shards.count > 1 else agents
    seeds = jnp.zeros(size, jnp.uint32) if shards.count > 1 else jnp.arange(size, dtype=jnp.uint32)
    keys = jax.vmap(jax.random.key)(seeds)
    if number > 1:
        mesh = parallel.device_mesh(number)
        made, keys = parallel.over_devices(made, mesh), place(keys, parallel.sharded(mesh))
    training = Training(made, trainer, hyper, keys)
    iterations, took = training.measure(repetitions, target)
    ticks = agents * iterations * trainer.ticks
    return dict(
        work=work,
        way=way,
        devices=number,
        hosts=jax.process_count(),
        agents=agents,
        batch_size=config.batch_size,
        steps_per_second=ticks / took["seconds"],
        microseconds_per_update=1e6 * took["seconds"] / iterations / trainer.updates / agents,
        sent=sent_per_update(training.parameters, number) if shards.count > 1 else 0,
        spread=f"{ticks / took['max_seconds']:,.0f} to {ticks / took['min_seconds']:,.0f}",
    )


def as_hosts(number: int, repetitions: int, target: float, work: str, tiny: bool) -> dict:
    """The record of `data` with one process for each of `number` devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.devices", "--repetitions", str(repetitions), "--seconds", str(target)]
    command += ["--work", work, *(["--tiny"] if tiny else [])]
    children = [
        subprocess.Popen(
            [*command, "--host", address, str(number), str(k)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        for k in range(number)
    ]
    first, *_ = [child.communicate()[0] for child in children]
    return json.loads(next(line for line in first.splitlines() if line.startswith("{")))


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("devices", __doc__, 2.0)
    parser.add_argument("--hosts", action="store_true", help="also with a process for each device")
    parser.add_argument("--work", choices=WORKS, default="CartPole", help=argparse.SUPPRESS)
    parser.add_argument("--host", nargs=3, metavar=("ADDRESS", "HOSTS", "INDEX"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.host:
        address, hosts, index = options.host
        devices.split_cpu(1, 1, convolutions=False)
        meet(address, int(hosts), int(index))
        number = jax.device_count()
        record = measure(options.work, "data", number, options.repetitions, options.seconds, options.tiny)
        print(json.dumps(record))
        return []
    devices.split_cpu(None, devices.cores(), convolutions=False)
    numbers = [1 << k for k in range(jax.device_count().bit_length())]
    records: list[dict] = []
    for work in WORKS if not options.tiny else ["CartPole"]:
        for way in ("population", "data"):
            first = len(records)
            for number in numbers if not options.tiny else numbers[:2]:
                if work != "CartPole" and way == "population":
                    continue
                records.append(measure(work, way, number, options.repetitions, options.seconds, options.tiny))
            if options.hosts and way == "data":
                records.append(as_hosts(numbers[-1], options.repetitions, options.seconds, work, options.tiny))
            for record in records[first:]:
                record["times"] = record["steps_per_second"] / records[first]["steps_per_second"]
    tell("Devices", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
