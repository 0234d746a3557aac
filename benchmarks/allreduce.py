"""How long what shards of one agent send takes by itself.

    python -m benchmarks.allreduce [--repetitions 3] [--seconds 2] [--tiny] [--out FILE]

At each update shards add up how many rows are valid (`count`, a number), then their gradients: those of CartPole's
120-84 MLP, and of the network of MinAtar Breakout (16 filters and 128 units). Here they are sent alone, by a compiled
loop of 20 all-reduces: on two devices of one process, and in a process for each over 127.0.0.1, where `hosts` is 2.
Gradients are packed into one array; `one by one` sends the network's arrays as they are, and gives XLA all of them at
once. On an accelerator there are as many devices as it has, in one process.

The two ways take turns. `microseconds` are those of one all-reduce, the median of all calls of the loop; `spread` are
the least and the most of the medians of a turn, and a call in ten took more than `slow`.
"""

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdqn import heads, networks, parallel
from jdqn.host import devices
from jdqn.host.processes import agree, meet, place
from jdqn.shards import DEVICES, Shards

from .common import flags, tell
from .devices import Row

LOOP = 20
NETWORKS = {"CartPole, 120-84 MLP": ((4,), 2, (120, 84)), "Breakout": ((10, 10, 4), 3, (128,))}
COLUMNS = {
    "what": "", "arrays": "", "bytes": ",", "devices": "", "hosts": "", "microseconds": ",.0f", "spread": "",
    "slow": ",.0f",
}  # fmt: skip


class Averaged(NamedTuple):
    """What shards average."""

    shapes: list[tuple[int, ...]]  # of its float32 arrays
    packed: bool = True  # into one array, as the program does


def averages(tiny: bool) -> dict[str, Averaged]:
    found = {"count": Averaged([()])}
    for name, (shape, actions, sizes) in NETWORKS.items():
        network = networks.q_network("auto", shape, actions, heads.scalar(), hidden_sizes=(8,) if tiny else sizes)
        params = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
        shapes = [x.shape for x in jax.tree.leaves(params)]
        found |= {name: Averaged(shapes), f"{name}, one by one": Averaged(shapes, packed=False)}
    return found


def start(number: int, tiny: bool, seconds: float, host: tuple[str, int, int] | None = None) -> Callable[[], dict]:
    """Return turn(): microseconds of an all-reduce in every call, of each of `averages`.

    `host` is (address, how many, which) where each of `number` devices is that of another process. Only before JAX has
    started.
    """
    devices.split_cpu(1 if host else number, number, convolutions=False)
    if host:
        meet(*host)
    mesh, shards = parallel.device_mesh(number), Shards(number, (DEVICES,))

    def compiled(mean):
        def loop(tree):
            return jax.lax.fori_loop(0, LOOP, lambda _, tree: mean(tree), tree)

        return jax.jit(parallel.on_devices(mesh)(loop), donate_argnums=0)

    ways = {True: compiled(shards.mean), False: compiled(lambda tree: jax.lax.pmean(tree, DEVICES))}
    asked = averages(tiny)

    def timed(name, tree):
        reduce = ways[asked[name].packed]
        began = time.perf_counter()
        tree = jax.block_until_ready(reduce(tree))
        return time.perf_counter() - began, tree

    trees = {}
    for name, (shapes, _) in asked.items():
        tree = place([jnp.ones((number, *shape)) for shape in shapes], parallel.sharded(mesh))
        for _ in range(3):
            _, tree = timed(name, tree)
        trees[name] = tree

    def turn():
        found = {}
        for name in trees:
            _, trees[name] = timed(name, trees[name])
            times, began = [], time.perf_counter()
            while not times or agree(time.perf_counter() - began)[0] < seconds:  # all processes make as many calls
                for _ in range(10):
                    took, trees[name] = timed(name, trees[name])
                    times.append(1e6 * took / LOOP)
            found[name] = times
        return found

    return turn


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = flags("allreduce", __doc__, 2.0, repetitions=3)
    options = parser.parse_args(arguments)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # nothing runs here, and others need the memory
    cpu = jax.default_backend() == "cpu"
    number = 2 if cpu else jax.device_count()
    with contextlib.ExitStack() as stack:
        rows = []
        for hosts in (1, number) if cpu else (1,):
            asked = dict(number=number, tiny=options.tiny, seconds=options.seconds)
            rows.append(Row("allreduce", hosts, asked))
            stack.callback(rows[-1].close)
        turns = [[row.turn() for row in rows] for _ in range(options.repetitions)]
    records = []
    for k, row in enumerate(rows):
        for name, (shapes, packed) in averages(options.tiny).items():
            each = [turn[k][name] for turn in turns]
            every, middles = sorted(x for times in each for x in times), [statistics.median(times) for times in each]
            records.append(
                dict(
                    what=name,
                    arrays=1 if packed else len(shapes),
                    bytes=4 * sum(map(math.prod, shapes)),
                    devices=number,
                    hosts=row.hosts,
                    microseconds=statistics.median(every),
                    spread=f"{min(middles):,.0f} to {max(middles):,.0f}",
                    slow=every[9 * len(every) // 10],
                    calls=len(every),
                )
            )
    tell("All-reduces alone", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
