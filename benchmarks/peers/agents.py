"""Train agents of jdqn in one of two ways: python agents.py SETTINGS, a JSON object with way, agents, tiny and seconds.

A turn is a call of about so many seconds in the learning phase, of agents that go on from the turn before.
"""

from turns import settings, take_turns

from benchmarks.population import start

asked = settings()
training, devices, ticks = start(asked["way"], asked["agents"], asked["tiny"])
iterations, _ = training.measure(1, asked["seconds"])


def run():
    training.go(iterations).env_steps.block_until_ready()
    return dict(iterations=iterations, steps=asked["agents"] * iterations * ticks)


take_turns(
    run,
    devices=devices,
    bytes_per_agent=training.bytes // asked["agents"],
    compile_seconds=training.compile_seconds,
)
