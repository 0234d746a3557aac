"""Environment steps per second under random actions, resets included, beside gymnax as it comes.

    python -m benchmarks.stepping [--tiny] [--repetitions 5] [--seconds 0.5] [--out FILE]

`jdqn` steps E environments as training does, with a reset on the tick after an episode's end. `gymnax` is a `vmap` of
its own `step`, which resets in the same step. Both are a loop whose state is donated, with the same random actions,
drawn before, which keeps the newest observations and adds up rewards and ends. Steps are real transitions: a tick that
only resets is none. They take turns on one thread, and `times` is the rate beside that of gymnax.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jdqn
from jdqn.envs import vectorise
from jdqn.host import devices

from .common import flags, tell

NAMES = ("CartPole-v1", "Breakout-MinAtar")
NUMBERS = (1, 16, 256, 4096)
TABLE = 1 << 16  # random actions, which come again and again
COLUMNS = {
    "env": "", "environments": ",", "library": "", "steps_per_second": ",.0f", "times": ".2f", "spread": "",
    "compile_seconds": ".1f",
}  # fmt: skip


def ours(name: str, number: int) -> tuple[Callable, Callable]:
    """(reset(key) -> state, step(key, state, action) -> (state, (transitions, reward, ends)))."""
    env = vectorise(jdqn.envs.make(name), number)

    def reset(key):
        state, obs = env.reset(key)
        return state, obs, jnp.zeros(number, bool)

    def step(key, state, action):
        env_state, _, last = state
        env_state, tick = env.step(key, env_state, last, action)
        return (env_state, tick.obs, tick.last), ((~last).sum(), tick.reward.sum(), tick.last.sum())

    return reset, step


def theirs(name: str, number: int) -> tuple[Callable, Callable]:
    """The same of gymnax."""
    import gymnax  # which starts JAX

    env, params = gymnax.make(name)

    def strong(new, old):  # gymnax mixes Python numbers into its states, which a scan refuses
        return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), new, old)

    def reset(key):
        obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key, number), params)
        return jax.tree.map(jnp.asarray, (state, obs))

    def step(key, state, action):
        keys = jax.random.split(key, number)
        obs, env_state, reward, ended, cut, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, state[0], action, params)
        return strong((env_state, obs), state), (jnp.int32(number), reward.sum(), (ended | cut).sum())

    return reset, step


class Runner:
    """Environments that step at random, compiled."""

    def __init__(self, reset: Callable, step: Callable, actions: int, number: int):
        root = jax.random.key(0)
        table = jax.random.randint(jax.random.key(2), (TABLE // number, number), 0, actions)

        def run(state, start, ticks):
            def tick(t, carry):
                state, totals = carry
                state, more = step(jax.random.fold_in(root, t), state, table[t % len(table)])
                return state, jax.tree.map(jnp.add, totals, more)

            nothing = jnp.int32(0), jnp.float32(0), jnp.int32(0)
            return jax.lax.fori_loop(start, start + ticks, tick, (state, nothing))

        self.state, self.now = jax.jit(reset)(jax.random.key(1)), 0
        integer = jax.ShapeDtypeStruct((), jnp.int32)
        began = time.perf_counter()
        self.program = jax.jit(run, donate_argnums=0).lower(self.state, integer, integer).compile()
        self.compile_seconds = time.perf_counter() - began

    def rate(self, ticks: int) -> float:
        """Transitions per second over so many ticks."""
        start, count = jax.device_put((jnp.int32(self.now), jnp.int32(ticks)))
        began = time.perf_counter()
        self.state, totals = jax.block_until_ready(self.program(self.state, start, count))
        took = time.perf_counter() - began
        self.now += ticks
        return int(totals[0]) / took


def measure(name: str, number: int, repetitions: int, seconds: float) -> list[dict[str, Any]]:
    """A record for each library."""
    actions = jdqn.envs.make(name).num_actions
    libraries = {"jdqn": ours(name, number), "gymnax": theirs(name, number)}
    runners = {library: Runner(*pair, actions, number) for library, pair in libraries.items()}
    ticks = {}
    for library, runner in runners.items():
        runner.rate(20)
        ticks[library] = max(20, round(seconds * runner.rate(200) / number))
    rates: dict[str, list[float]] = {library: [] for library in runners}
    for _ in range(repetitions):
        for library, runner in runners.items():
            rates[library].append(runner.rate(ticks[library]))
    base = statistics.median(rates["gymnax"])
    return [
        dict(
            env=name,
            environments=number,
            library=library,
            steps_per_second=statistics.median(rates[library]),
            times=statistics.median(rates[library]) / base,
            spread=f"{min(rates[library]):,.0f} to {max(rates[library]):,.0f}",
            compile_seconds=runner.compile_seconds,
        )
        for library, runner in runners.items()
    ]


def main(arguments: list[str] | None = None) -> list[dict]:
    options = flags("stepping", __doc__, 0.5).parse_args(arguments)
    devices.split_cpu(1, 1, convolutions=False)
    records = []
    for name in NAMES:
        for number in (4,) if options.tiny else NUMBERS:
            records += measure(name, number, options.repetitions, options.seconds)
    tell("Environments alone, random actions", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
