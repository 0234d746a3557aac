"""Agent-steps per second against the number of agents, in two ways.

    python -m benchmarks.population [--agents 1 2 4 ... 1024] [--repetitions 5] [--seconds 2] [--tiny] [--out FILE]

The work is CartPole with PureJaxRL's hyper-parameters: 10 environments, batch 128, a 120-84 MLP, one update per ten
steps, a replay of 10,000. `jdqn` is what the program does: agents shared out over the devices, and on a CPU one after
another on each, which has a device for every core. `one vmap` is the same population as one batch on one device.
Steps are environment ticks.
"""

import json
import sys

import jax
import jax.numpy as jnp

import jdqn
from jdqn import parallel
from jdqn.host import devices

from .common import Training, flags, tell

SETTINGS = dict(
    total_steps=500_000, num_envs=10, rollout_length=1, updates=1, batch_size=128, hidden_sizes=(120, 84),
    replay_size=10_000, warm_up_steps=10_000, learning_rate=2.5e-4, target_period=50, epsilon_steps=250_000.0,
)  # fmt: skip
TINY = SETTINGS | dict(replay_size=400, warm_up_steps=200, hidden_sizes=(8,))
COLUMNS = {
    "way": "", "agents": ",", "devices": "", "steps_per_second": ",.0f", "times_one_agent": ".2f", "spread": "",
    "microseconds_per_agent_iteration": ".0f", "bytes_per_agent": ",", "compile_seconds": ".1f",
}  # fmt: skip


def make(settings: dict) -> tuple[jdqn.Trainer, jdqn.Hyper]:
    config, hyper = jdqn.preset("dqn", "", **settings)
    return jdqn.build(config, jdqn.envs.make("CartPole-v1")), hyper


def population(trainer: jdqn.Trainer, way: str, agents: int) -> tuple[jdqn.Population, int]:
    """(population, devices it runs on)."""
    if way == "one vmap":
        return parallel.over_agents(trainer, agents), 1
    number = devices.choose(None, agents, divides=True)
    made = parallel.over_agents(trainer)
    return (parallel.over_devices(made, parallel.device_mesh(number)) if number > 1 else made), number


def measure(trainer, hyper, way: str, agents: int, repetitions: int, target: float) -> dict:
    """A record of the learning phase; a call takes about `target` seconds."""
    made, number = population(trainer, way, agents)
    keys = jax.vmap(jax.random.key)(jnp.arange(agents))
    if number > 1:
        keys = jax.device_put(keys, parallel.sharded(parallel.device_mesh(number)))
    training = Training(made, trainer, hyper, keys)
    iterations, took = training.measure(repetitions, target)
    rate = agents * iterations * trainer.ticks / took["seconds"]
    low, high = (agents * iterations * trainer.ticks / took[name] for name in ("max_seconds", "min_seconds"))
    return dict(
        way=way,
        agents=agents,
        devices=number,
        steps_per_second=rate,
        spread=f"{low:,.0f} to {high:,.0f}",
        microseconds_per_agent_iteration=1e6 * took["seconds"] / iterations / agents,
        bytes_per_agent=training.bytes // agents,
        compile_seconds=training.compile_seconds,
    )


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("population", __doc__, 2.0)
    parser.add_argument("--agents", type=int, nargs="+", default=[2**k for k in range(11)])
    options = parser.parse_args(arguments)
    devices.split_cpu(None, devices.cores(), convolutions=False)
    trainer, hyper = make(TINY if options.tiny else SETTINGS)
    records = []
    for agents in options.agents:
        for way in ("jdqn", "one vmap"):
            records.append(measure(trainer, hyper, way, agents, options.repetitions, options.seconds))
            one = next(r for r in records if r["way"] == "jdqn")["steps_per_second"]
            records[-1]["times_one_agent"] = records[-1]["steps_per_second"] / one
            print(json.dumps(records[-1]), file=sys.stderr, flush=True)
    tell("Agents, CartPole, PureJaxRL's hyper-parameters", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
