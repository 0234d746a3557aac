"""Replay of jdqn beside flashbax 0.1.3: one process, the same rows, the same batch, in turns.

    python -m benchmarks.replay [--tiny] [--repetitions 7] [--seconds 0.3] [--only WORDS] [--out FILE]

A round adds one row of each of E environments, then draws B transitions; prioritised replay also computes the
importance weights and sends new priorities back. The loop stands inside jit with its state donated, as in training, so
nothing is dispatched in it; the batch is part of its state, so all of it is really read. The ring is full before the
clock starts: a ring that is nearly empty fits into the processor's cache, and both libraries look twice as fast.

jdqn draws segments of two rows. flashbax's natural ways to the same transitions are: `flat`, which also stores each
observation once and draws two consecutive rows, and `item`, which stores whole transitions (uniform only here).
`flat, ordered` makes the new priorities depend on the drawn probabilities. Without that they do not, as no TD error
does, and XLA copies flashbax's whole sum tree at every update; with it flashbax shows its best.

Times are microseconds a round.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdqn import replay
from jdqn.config import Hyper
from jdqn.host import devices
from jdqn.types import Row

from .common import flags, tell

COLUMNS = {
    "work": "", "library": "", "median_us": ".1f", "spread": "", "times_jdqn": ".2f", "compile_seconds": ".1f",
    "state_bytes": ",",
}  # fmt: skip
HYPER = Hyper(importance_steps=1e9)
ROLLOUTS = 8  # different ones that are added in turn
OBSERVATIONS = {"CartPole": ((4,), jnp.float32), "MinAtar": ((10, 10, 4), jnp.bool_), "Atari": ((84, 84), jnp.uint8)}


class Work(NamedTuple):
    """What a round does."""

    kind: str  # prioritised or uniform
    rows: str  # whose observations
    capacity: int
    num_envs: int
    batch_size: int

    def __str__(self):
        update = " + update priorities" if self.kind == "prioritised" else ""
        return (
            f"{self.kind}, {self.rows}, {self.capacity:,} rows: add {self.num_envs} + sample {self.batch_size}{update}"
        )


WORKS = [
    Work("prioritised", "CartPole", 2**20, 16, 128),
    Work("prioritised", "CartPole", 2**20, 1024, 1024),
    Work("uniform", "CartPole", 2**20, 16, 128),
    Work("uniform", "MinAtar", 2**20, 16, 128),
    Work("uniform", "Atari", 100_000, 16, 128),
]
TINY = [Work("prioritised", "CartPole", 256, 4, 8), Work("uniform", "MinAtar", 256, 4, 8)]


class Candidate(NamedTuple):
    """A library at a piece of work; rows are [E, ...]."""

    init: Callable[[Row], Any]  # row -> state
    add: Callable[[Any, Row, Any], Any]  # state, rows, round -> state
    learn: Callable[[Any, Any, Any], tuple[Any, Any]]  # state, key, round -> state, batch


def ours(work: Work) -> Candidate:
    make = {"prioritised": replay.prioritised, "uniform": replay.uniform}[work.kind]
    memory = make(work.capacity // work.num_envs, 1, work.batch_size, 2)
    shape, dtype = OBSERVATIONS[work.rows]
    if dtype == jnp.bool_:  # as jdqn.build does
        memory = replay.packed(memory, shape)

    def add(state, row, i):
        return memory.add(state, jax.tree.map(lambda x: x[None], row), i, HYPER)

    def learn(state, key, i):
        sample = memory.sample(key, state, i + 1, 0, HYPER)
        return memory.update(state, sample.indices, sample.rows.reward[0], HYPER), sample

    return Candidate(memory.init, add, learn)


def theirs(flashbax, work: Work, way: str) -> Candidate:
    sizes = dict(max_length=work.capacity, min_length=work.batch_size, sample_batch_size=work.batch_size)
    if way == "item":
        buffer = flashbax.make_item_buffer(**sizes, add_batches=True)
    elif work.kind == "uniform":
        buffer = flashbax.make_flat_buffer(**sizes, add_batch_size=work.num_envs)
    else:
        buffer = flashbax.make_prioritised_flat_buffer(
            **sizes,
            add_batch_size=work.num_envs,
            priority_exponent=HYPER.priority_exponent,
            device=jax.default_backend(),
        )

    def stored(row):
        fields = {name: x for name, x in row._asdict().items() if name != "carry"}
        return fields | {"next_obs": row.obs} if way == "item" else fields

    def init(row):
        return buffer.init(jax.tree.map(lambda x: x[0], stored(row)))

    def add(state, row, i):
        return buffer.add(state, stored(row))

    def learn(state, key, i):
        sample = buffer.sample(state, key)
        if work.kind == "uniform":
            return state, sample
        weight = sample.probabilities**-HYPER.importance_exponent
        error = sample.experience.first["reward"] + 1e-6
        if way == "flat, ordered":
            error = error + 0.0 * sample.probabilities
        return buffer.set_priorities(state, sample.indices, error), (sample, weight / weight.max())

    return Candidate(init, add, learn)


def candidates(work: Work) -> dict[str, Candidate]:
    """jdqn, and the ways of flashbax where it is installed."""
    found = {"jdqn": ours(work)}
    try:
        import flashbax
    except ImportError:
        return found
    ways = {"uniform": ("flat", "item"), "prioritised": ("flat", "flat, ordered")}[work.kind]
    return found | {f"flashbax {way}": theirs(flashbax, work, way) for way in ways}


def rollouts(work: Work) -> Row:
    """Random rows [ROLLOUTS, E, ...] in which no episode ends."""
    shape, dtype = OBSERVATIONS[work.rows]
    k_obs, k_reward = jax.random.split(jax.random.key(0))
    lead = (ROLLOUTS, work.num_envs)
    obs = (256 * jax.random.uniform(k_obs, (*lead, *shape))).astype(dtype)
    no = jnp.zeros(lead, bool)
    return Row(obs, jnp.zeros(lead, jnp.int32), jax.random.exponential(k_reward, lead), no, no, ())


class Runner:
    """A candidate, compiled, with a full ring."""

    def __init__(self, candidate: Candidate, work: Work):
        key, self.rows = jax.random.key(1), rollouts(work)
        slots = work.capacity // work.num_envs

        def pick(rows, i):
            return jax.tree.map(lambda x: x[i % ROLLOUTS], rows)

        def fill(state, rows):
            return jax.lax.fori_loop(0, slots, lambda i, s: candidate.add(s, pick(rows, i), i), state)

        def run(state, batch, rows, start, rounds):
            def one(i, carry):
                state, batch = carry
                state = candidate.add(state, pick(rows, i), i)
                # Updates are a loop of their own, as in the trainer, or XLA fuses the drawing with the ring's write.
                return jax.lax.fori_loop(
                    0,
                    1 + (i < 0),
                    lambda u, c: candidate.learn(c[0], jax.random.fold_in(key, i + u), i),
                    (state, batch),
                )

            return jax.lax.fori_loop(start, start + rounds, one, (state, batch))

        row = jax.tree.map(lambda x: x[0], self.rows)
        state = jax.jit(candidate.init)(row)
        self.bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        state = jax.block_until_ready(jax.jit(fill, donate_argnums=0)(state, self.rows))
        batch = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda s: candidate.learn(s, key, slots)[1], state)
        )
        began = time.perf_counter()
        integer = jax.ShapeDtypeStruct((), jnp.int32)
        lowered = jax.jit(run, donate_argnums=(0, 1)).lower(state, batch, self.rows, integer, integer)
        self.program = lowered.compile()
        self.compile_seconds = time.perf_counter() - began
        self.carry, self.done = (state, batch), slots

    def seconds(self, rounds: int) -> float:
        """Run so many rounds: seconds a round."""
        start, count = jax.device_put((jnp.int32(self.done), jnp.int32(rounds)))
        began = time.perf_counter()
        self.carry = jax.block_until_ready(self.program(*self.carry, self.rows, start, count))
        self.done += rounds
        return (time.perf_counter() - began) / rounds


def measure(work: Work, repetitions: int, seconds: float) -> list[dict]:
    """A record for each library; they take turns."""
    runners = {name: Runner(candidate, work) for name, candidate in candidates(work).items()}
    times: dict[str, list[float]] = {name: [] for name in runners}
    rounds = {}
    for name, runner in runners.items():
        runner.seconds(10)  # the first call pays for more than its rounds
        rounds[name] = max(1, round(seconds / runner.seconds(20)))
    for _ in range(repetitions):
        for name, runner in runners.items():
            times[name].append(1e6 * runner.seconds(rounds[name]))
    base = statistics.median(times["jdqn"])
    return [
        dict(
            work=str(work),
            library=name,
            device=jax.devices()[0].device_kind,
            median_us=statistics.median(times[name]),
            min_us=min(times[name]),
            max_us=max(times[name]),
            spread=f"{min(times[name]):.1f} to {max(times[name]):.1f}",
            times_jdqn=statistics.median(times[name]) / base,
            compile_seconds=runner.compile_seconds,
            state_bytes=runner.bytes,
        )
        for name, runner in runners.items()
    ]


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = flags("replay", __doc__, 0.3, 7)
    parser.add_argument("--only", default="", help="works whose name holds these words")
    options = parser.parse_args(arguments)
    devices.split_cpu(1, 1, convolutions=False)
    works = [work for work in (TINY if options.tiny else WORKS) if options.only in str(work)]
    records = []
    for work in works:
        records += measure(work, options.repetitions, options.seconds)
    tell("Replay", records, COLUMNS, options.out)
    if not any(r["library"] != "jdqn" for r in records):
        print("\nflashbax is not installed, so jdqn stands alone: pip install --no-deps flashbax==0.1.3 adds it.")
    return records


if __name__ == "__main__":
    main()
