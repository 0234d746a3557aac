"""A gradient of each network, with our products and with flax's own, in turns.

    python -m benchmarks.networks [--repetitions 5] [--seconds 1] [--tiny] [--out FILE]

`rows` are [T, B] with T = 1, as a learner gives them. Times are microseconds, the forward pass included; `times` is the
median of paired turns.
"""

from collections.abc import Callable
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdqn import heads, modules, networks, products
from jdqn.host import devices

from .common import flags, seconds, tell

NETWORKS = {
    "CartPole, 120-84 MLP": ("mlp", (4,), (120, 84), 128),
    "MinAtar, 16 filters and 128 units": ("minatar", (10, 10, 4), (128,), 32),
    "MinAtar, 16 filters and 128 units, batch 512": ("minatar", (10, 10, 4), (128,), 512),
    "Nature": ("nature", (84, 84, 4), (512,), 32),
    "IMPALA": ("impala", (84, 84, 4), (256,), 16),
}
COLUMNS = {
    "network": "", "rows": "", "flax": ",.0f", "flax_spread": "", "jdqn": ",.0f", "jdqn_spread": "", "times": ".1f",
}  # fmt: skip


def turn(kind: str, shape: tuple[int, ...], sizes: tuple[int, ...], rows: int, options) -> Callable[[], float]:
    """A function that times gradient steps of mean(out^2), in microseconds a step."""
    network = networks.q_network(kind, shape, 4, heads.scalar(), hidden_sizes=sizes)
    obs = jax.random.uniform(jax.random.key(0), (1, rows, *shape))
    params = network.init(jax.random.key(1), obs[0, 0])

    def loss(params):
        return (network.apply(params, None, obs, (), jnp.zeros((1, rows), bool))[0] ** 2).mean()

    def step(_, params):
        return jax.tree.map(lambda p, g: p - 1e-6 * g, params, jax.grad(loss)(params))

    run = jax.jit(lambda params, n: jax.lax.fori_loop(0, n, step, params))
    count = max(3, round(options.seconds / (seconds(lambda: run(params, 3), 1)["seconds"] / 3)))
    return lambda: 1e6 * seconds(lambda: run(params, count), 1)["seconds"] / count


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("networks", __doc__)
    parser.add_argument("--only", default="", help="networks whose name holds these words")
    options = parser.parse_args(arguments)
    devices.split_cpu(1, 1, convolutions=False)
    records = []
    for name, network in NETWORKS.items():
        if options.only not in name or (options.tiny and "CartPole" not in name):
            continue
        with mock.patch.object(products, "times", jnp.matmul), mock.patch.object(modules, "Conv", nn.Conv):
            turns = dict(flax=turn(*network, options))
        turns["jdqn"] = turn(*network, options)
        times = np.array([[go() for go in turns.values()] for _ in range(options.repetitions)])  # [turns, 2]
        records.append(dict(network=name, rows=network[-1], times=float(np.median(times[:, 0] / times[:, 1]))))
        for library, found in zip(turns, times.T, strict=True):
            records[-1] |= {
                library: float(np.median(found)),
                f"{library}_spread": f"{found.min():,.0f} to {found.max():,.0f}",
            }
    tell("A gradient", records, COLUMNS, options.out)
    return records


if __name__ == "__main__":
    main()
