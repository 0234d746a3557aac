"""Agent-steps per second against the number of agents, in two ways.

    python -m benchmarks.population [--agents 1 2 4 ... 1024] [--repetitions 5] [--seconds 2] [--tiny] [--out FILE]

The work is CartPole with PureJaxRL's hyper-parameters: 10 environments, batch 128, a 120-84 MLP, one update per ten
steps, a replay of 10,000. `jdqn` is what the program does: agents shared out over the devices, and on a CPU one after
another on each, which has a device for every core; a single agent has one device with one thread. `one vmap` is the
same population as one batch on one device, as JAX starts by default, with a thread for every core. Both take turns
with one agent of `jdqn`, each in a process of its own, and ratios are those of a turn: a shared machine is not as fast
at any time. Steps are environment ticks.
"""

import argparse
import contextlib
import json
import statistics
import sys
from typing import Any

import jax
import jax.numpy as jnp

import jdqn
from jdqn import parallel
from jdqn.host import devices

from .common import Training, flags, tell
from .versus import Driver

SETTINGS = dict(
    total_steps=500_000, num_envs=10, rollout_length=1, updates=1, batch_size=128, hidden_sizes=(120, 84),
    replay_size=10_000, warm_up_steps=10_000, learning_rate=2.5e-4, target_period=50, epsilon_steps=250_000.0,
)  # fmt: skip
WAYS = ("jdqn", "one vmap")
TINY = SETTINGS | dict(replay_size=400, warm_up_steps=200, hidden_sizes=(8,))
COLUMNS = {
    "way": "", "agents": ",", "devices": "", "steps_per_second": ",.0f", "times_one_agent": ".2f",
    "times_one_vmap": ".2f", "spread": "", "microseconds_per_agent_iteration": ".0f", "bytes_per_agent": ",",
    "compile_seconds": ".1f",
}  # fmt: skip


def start(way: str, agents: int, tiny: bool) -> tuple[Training, int, dict[str, Any]]:
    """(agents after their warm-up, environment ticks of an iteration of all, what they are).

    Only before JAX has started, for how a CPU is divided has to be said until then.
    """
    if way == "jdqn":
        devices.split_cpu(None, agents, convolutions=False)
    config, hyper = jdqn.preset("dqn", "", **(TINY if tiny else SETTINGS))
    trainer = jdqn.build(config, jdqn.envs.make("CartPole-v1"))
    number = devices.choose(None, agents, divides=True) if way == "jdqn" else 1
    population, keys = parallel.over_agents(trainer, None if way == "jdqn" else agents), jnp.arange(agents)
    keys = jax.vmap(jax.random.key)(keys)
    if number > 1:
        mesh = parallel.device_mesh(number)
        population, keys = parallel.over_devices(population, mesh), jax.device_put(keys, parallel.sharded(mesh))
    training = Training(population, trainer, hyper, keys)
    return training, agents * trainer.ticks, dict(devices=number, bytes_per_agent=training.bytes // agents)


def compare(agents: int, options: argparse.Namespace) -> list[dict]:
    """A record for each way, beside one agent of the program and in turns with it."""
    drivers: dict[tuple[str, int], Driver] = {}
    with contextlib.ExitStack() as stack:
        for way, number in dict.fromkeys([("jdqn", 1), *((way, agents) for way in WAYS)]):
            asked = dict(of="population", way=way, agents=number, tiny=options.tiny, seconds=options.seconds)
            drivers[way, number] = Driver(sys.executable, "agents", asked)
            stack.callback(drivers[way, number].close)
        turns = [{work: driver.turn() for work, driver in drivers.items()} for _ in range(options.repetitions)]
    rates = [{work: found["steps"] / found["seconds"] for work, found in turn.items()} for turn in turns]
    records = []
    for way in WAYS:
        mine = [rate[way, agents] for rate in rates]
        records.append(
            dict(way=way, agents=agents)
            | drivers[way, agents].about
            | dict(
                steps_per_second=statistics.median(mine),
                spread=f"{min(mine):,.0f} to {max(mine):,.0f}",
                times_one_agent=statistics.median(rate[way, agents] / rate["jdqn", 1] for rate in rates),
                times_one_vmap=statistics.median(rate[way, agents] / rate["one vmap", agents] for rate in rates),
                microseconds_per_agent_iteration=statistics.median(
                    1e6 * turn[way, agents]["seconds"] / turn[way, agents]["iterations"] / agents for turn in turns
                ),
            )
        )
        print(json.dumps(records[-1]), file=sys.stderr, flush=True)
    return records


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("population", __doc__, 2.0)
    parser.add_argument("--agents", type=int, nargs="+", default=[2**k for k in range(11)])
    options = parser.parse_args(arguments)
    records = [record for agents in options.agents for record in compare(agents, options)]
    tell("Agents, CartPole, PureJaxRL's hyper-parameters", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
