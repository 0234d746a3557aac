"""Train agents of jdqn as a benchmark starts them: python agents.py SETTINGS, a JSON object.

`of` names the benchmark, whose `start` is given the rest but `seconds`. A turn is a call of about so many seconds in
the learning phase, of agents that go on from the turn before.
"""

from turns import settings, take_turns

from benchmarks import devices, population

asked = settings()
seconds = asked.pop("seconds")
start = dict(devices=devices, population=population)[asked.pop("of")].start
training, ticks, about = start(**asked)
iterations, _ = training.measure(1, seconds)


def run():
    training.go(iterations).env_steps.block_until_ready()
    return dict(iterations=iterations, steps=iterations * ticks)


take_turns(run, **about, compile_seconds=training.compile_seconds)
