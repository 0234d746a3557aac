"""Where an iteration goes, beside the least that its matrix products can take.

    python -m benchmarks.floor [--rows a1 b1 ...] [--repetitions 5] [--seconds 1] [--tiny] [--out FILE]

The rows are those of benchmarks/rows.py, one agent on one thread. `flops` are millions of floating-point operations in
the matrix products of an iteration's updates, counted in the compiled program, and `floor` their time at the fastest
rate that this machine reached on square matrices. `bytes` are what the updates read and write at least (parameters,
gradients, moments and the sample), which the measured bandwidth moves in `moving`. `act` is an iteration of warm-up,
which only steps, acts and stores; `sample` and `update` are those alone. Times are microseconds an iteration, and
`times` is the whole beside the floor.
"""

import importlib
import math
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

import jdqn
from jdqn import parallel
from jdqn.host import devices
from jdqn.host.memory import tree_bytes

from .common import Training, flags, seconds, tell
from .rows import rows

ARRAY = r"(%[\w.-]+) = f32\[([\d,]*)\]"
PRODUCT = r"(%[\w.-]+) = \S+ dot\((%[\w.-]+), %[\w.-]+\), lhs_contracting_dims=\{(\d+)\}"
ROWS = ("a1", "b1", "c", "d", "e")
COLUMNS = {
    "row": "", "updates": "", "flops": ",.1f", "floor": ",.0f", "bytes": ",.0f", "moving": ",.1f", "act": ",.0f",
    "sample": ",.0f", "update": ",.0f", "whole": ",.0f", "spread": "", "times": ".2f",
}  # fmt: skip


def operations(program: str) -> int:
    """Floating-point operations of the matrix products in the text of a compiled program without loops."""
    shapes = {name: [int(n) for n in sizes.split(",") if n] for name, sizes in re.findall(ARRAY, program)}
    total = 0
    for out, left, axis in re.findall(PRODUCT, program):
        total += 2 * math.prod(shapes[out]) * shapes[left][int(axis)]
    return total


def looped(function: Callable, carry: Any, options) -> float:
    """Microseconds of carry = function(i, carry), in place."""
    run = jax.jit(lambda carry, n: jax.lax.fori_loop(0, n, function, carry), donate_argnums=0)
    kept = [jax.tree.map(jnp.copy, carry)]

    def go(count):
        kept[0] = run(kept[0], jnp.int32(count))
        return kept[0]

    count = max(3, round(20 * options.seconds / seconds(lambda: go(20), 1)["seconds"]))
    return 1e6 * seconds(lambda: go(count), options.repetitions)["seconds"] / count


def matrix_rate(options) -> float:
    """Millions of operations a microsecond, of square matrices, at best."""
    rates = []
    for size in (32,) if options.tiny else (128, 256, 512):
        x = jax.random.normal(jax.random.key(0), (size, size)) / size
        rates.append(2e-6 * size**3 / looped(lambda i, y, x=x: x @ y, x, options))
    return max(rates)


def bandwidth(options) -> float:
    """Bytes a microsecond, read and written, of an array that no cache holds."""
    x = jnp.zeros(2**16 if options.tiny else 2**26)
    return 2 * x.nbytes / looped(lambda i, y: y + 1, x, options)


def measure(name: str, rate: float, bytes_rate: float, options) -> dict[str, Any]:
    row = rows(options.tiny)[name]
    config, hyper = jdqn.preset(row.algorithm, "", **row.ours)
    parts: dict[str, Any] = {}
    module = importlib.import_module("jdqn.build")
    make = module.make_trainer

    def keep(env, policy, exploration, replay, learner, **settings):
        parts.update(replay=replay, learner=learner)
        return make(env, policy, exploration, replay, learner, **settings)

    with mock.patch.object(module, "make_trainer", keep):
        trainer = jdqn.build(config, jdqn.envs.make(row.env))
    population, keys = parallel.over_agents(trainer), jax.vmap(jax.random.key)(jnp.zeros(1, int))
    training = Training(population, trainer, hyper, keys)
    iterations, took = training.measure(options.repetitions, options.seconds)
    state, now, key = jax.tree.map(lambda x: x[0], training.state), training.now, jax.random.key(0)
    learner, replay = parts["learner"], parts["replay"]

    def act(i, state):  # the clock stands in warm-up
        return trainer.step(state, hyper, jnp.minimum(i, 0))[0]

    def sample(i, kept):
        drawn = replay.sample(jax.random.fold_in(key, i), state.replay, now, i % trainer.updates, hyper)
        return jax.tree.map(lambda old, new: (old + new).astype(old.dtype), kept, drawn)

    def update(i, learning):
        return learner.update(jax.random.fold_in(key, i), learning, batch, i, jnp.float32(0), hyper)[0]

    batch = replay.sample(key, state.replay, now, 0, hyper)
    program = jax.jit(update).lower(jnp.int32(0), state.learner).compile().as_text()
    flops = trainer.updates * operations(program) / 1e6
    learnt = tree_bytes((state.learner.params, state.learner.optimizer))
    moved = trainer.updates * (2 * learnt + tree_bytes(state.learner.params) + tree_bytes(batch))
    warm = looped(act, state, options) if config.warm_up_steps else None  # without it every iteration learns
    whole = 1e6 * took["seconds"] / iterations
    return dict(
        row=name,
        updates=trainer.updates,
        flops=flops,
        floor=flops / rate,
        bytes=moved,
        moving=moved / bytes_rate,
        act=warm,
        sample=trainer.updates * looped(sample, batch, options),
        update=trainer.updates * looped(update, state.learner, options),
        whole=whole,
        spread=" to ".join(f"{1e6 * took[name] / iterations:,.0f}" for name in ("min_seconds", "max_seconds")),
        times=whole * rate / flops,
    )


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("floor", __doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    options = parser.parse_args(arguments)
    devices.split_cpu(1, 1, convolutions=False)
    rate, bytes_rate = matrix_rate(options), bandwidth(options)
    records = [measure(name, rate, bytes_rate, options) for name in options.rows]
    title = f"One thread: {rate:,.3f} million operations and {bytes_rate:,.0f} bytes a microsecond"
    tell(title, records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
