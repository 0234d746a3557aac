"""Agents and devices: a population is its agents, wherever they lie, and nothing passes between them."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_trainer import counter, make, raw

import jdqn
from jdqn import parallel
from jdqn.host import devices
from jdqn.shards import Shards

ITERATIONS = 40
COLLECTIVES = (
    r" (all-reduce|all-gather|all-to-all|ragged-all-to-all|reduce-scatter|collective-permute|collective-broadcast|send|"
    r"recv)(-start)?\("
)


def keys(seeds):
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def agent(tree, k):
    return [np.asarray(raw(x))[k] for x in jax.tree.leaves(tree)]


def runner(population, trainer, iterations=ITERATIONS):
    """Return train(seeds, hyper) -> (state, sums), compiled once for a size."""
    init, advance = jax.jit(population.init), jax.jit(population.advance, donate_argnums=0)

    def train(seeds, hyper):
        state, sums = init(keys(seeds), hyper)
        for first, stop in [(0, iterations // 2), (iterations // 2, iterations)]:
            state, sums = advance(state, hyper, sums, first, stop)
        return state, sums

    return train


def spread(population, devices):
    return parallel.over_devices(population, parallel.device_mesh(devices)) if devices else population


@pytest.mark.parametrize("number", [2, *(pytest.param(n, marks=pytest.mark.nightly) for n in (0, 4))])
def test_an_agent_has_the_bits_that_it_has_alone(number):
    """Seeds and learning rates differ; one agent at a time, on one device or several."""
    trainer, hyper = make()
    seeds, rates = [3, 3, 4, 5], np.array([1e-3, 1e-2, 1e-3, 1e-2], np.float32)
    population = spread(parallel.over_agents(trainer, 1), number)
    together, sums = runner(population, trainer)(seeds, hyper._replace(learning_rate=rates))
    alone = runner(parallel.over_agents(trainer, 1), trainer)
    for k, (seed, rate) in enumerate(zip(seeds, rates, strict=True)):
        state, metrics = alone([seed], hyper._replace(learning_rate=rate))
        for a, b in zip(agent((state, metrics), 0), agent((together, sums), k), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(agent(together.learner, 0)[0], agent(together.learner, 1)[0])


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        ("dqn", "CartPole-v1"),
        *(pytest.param(name, "Catch-bsuite", marks=pytest.mark.nightly) for name in ("btr", "r2d2")),
    ],
)
def test_what_the_program_compiles_in_haste_begins_with_the_same_bits(algorithm, env):
    env = jdqn.envs.make(env)
    config, hyper = jdqn.preset(algorithm, env.name)
    population = parallel.over_agents(jdqn.build(config, env))
    with_care, in_haste = (
        jax.jit(population.init, compiler_options=options)(keys([3]), hyper)
        for options in ({}, devices.options_to_run_once())
    )
    for a, b in zip(agent(with_care, 0), agent(in_haste, 0), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.nightly
def test_64_agents_are_64_agents_after_a_thousand_updates():
    """Bit for bit with one agent at a time; under vmap the same actions in the same worlds, to the rounding."""
    trainer, hyper = make()
    iterations = trainer.num_warm_up + 500  # of two updates
    seeds = range(64)
    alone = runner(parallel.over_agents(trainer, 1), trainer, iterations)
    in_turns, _ = runner(spread(parallel.over_agents(trainer, 1), 4), trainer, iterations)(seeds, hyper)
    side_by_side, _ = runner(parallel.over_agents(trainer, 64), trainer, iterations)(seeds, hyper)
    for seed in (0, 17, 63):
        state, _ = alone([seed], hyper)
        for a, b, c in zip(agent(state, 0), agent(in_turns, seed), agent(side_by_side, seed), strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_allclose(a, c, rtol=2e-3, atol=2e-3)


@pytest.mark.nightly
def test_groups_go_one_after_another():
    """A size that does not divide the population becomes one that does."""
    trainer, hyper = make()
    whole, sums = runner(parallel.over_agents(trainer, 6), trainer)(range(6), hyper)
    groups, again = runner(parallel.over_agents(trainer, 4), trainer)(range(6), hyper)
    for k in range(6):
        for a, b in zip(agent((whole, sums), k), agent((groups, again), k), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jaxpr = str(jax.make_jaxpr(parallel.over_agents(trainer, 4).advance)(groups, hyper, again, 1, 2))
    rows = groups.replay.obs.shape[1:]
    for size in (3, 4):  # groups of three, whose replays are taken out together
        assert (f"f32[{','.join(map(str, (size, *rows)))}]" in jaxpr) == (size == 3)


def compiled(population, agents, hyper):
    state, sums = jax.eval_shape(lambda k: population.init(k, hyper), jax.eval_shape(keys, jnp.arange(agents)))
    i = jax.ShapeDtypeStruct((), jnp.int32)
    program = jax.jit(population.advance, donate_argnums=0).lower(state, hyper, sums, i, i).compile()
    return program, sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state, sums)))


@pytest.mark.parametrize("at_once", [1, pytest.param(64, marks=pytest.mark.nightly)])
def test_a_population_takes_the_memory_of_its_agents(at_once):
    """Within 5 %, all that the program allocates included, for agents of half a megabyte."""
    trainer, hyper = make(replay_size=32_768)
    program, state_bytes = compiled(parallel.over_agents(trainer, at_once), 64, hyper)
    _, bytes_alone = compiled(parallel.over_agents(trainer, 1), 1, hyper)
    assert abs(state_bytes - 64 * bytes_alone) <= 64  # a key is counted as one number here
    assert state_bytes > 64 * 500_000
    memory = program.memory_analysis()
    assert memory.alias_size_in_bytes > 0.999 * state_bytes  # the state is updated in place
    assert memory.temp_size_in_bytes < 0.05 * state_bytes


def test_agents_on_devices_send_nothing():
    trainer, hyper = make()
    program, _ = compiled(spread(parallel.over_agents(trainer), 4), 8, hyper)
    assert not re.search(COLLECTIVES, program.as_text())


@pytest.mark.parametrize("args", [(jnp.ones(4),), (jnp.ones(4), jnp.ones((4, 2)))])
@pytest.mark.parametrize(
    ("send", "name"),
    [
        (lambda x: jax.lax.pmean(x, parallel.DEVICES), "all-reduce"),
        (lambda x: jax.lax.all_gather(x, parallel.DEVICES, tiled=True), "all-gather"),
        (lambda x: jax.lax.ppermute(x, parallel.DEVICES, [(0, 1)]), "collective-permute"),
    ],
)
def test_what_is_sent_would_be_seen(send, name, args):
    """One array, and several as a tuple, of which XLA makes one message."""
    call = parallel.on_devices(parallel.device_mesh(4))(lambda *x: send(x))
    found = re.search(COLLECTIVES, jax.jit(call).lower(*args).compile().as_text())
    assert found
    assert found[1] == name


def messages(text):
    """(loops around it, its kind, bytes of each of its arrays) of every message of a compiled program."""
    computations = dict(re.findall(r"^(?:ENTRY )?%([\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    (entry,) = re.findall(r"^ENTRY %([\w.\-]+)", text, re.MULTILINE)

    def bytes_of(arrays):
        for bits, shape in re.findall(r"[a-z]+(\d*)\[([\d,]*)\]", arrays):
            yield int(bits or 8) // 8 * math.prod(int(size) for size in shape.split(",") if size)

    def look(name, loops):
        for line in computations[name].splitlines():
            if found := re.search(COLLECTIVES, line):
                yield loops, found[1], tuple(bytes_of(line[: found.start()].split(" = ")[1]))
            for how, names in re.findall(r"(\w+)=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)", line):
                for inner in names.replace("%", "").split(", "):
                    if inner in computations:
                        yield from look(inner, loops + (how == "body"))

    return list(look(entry, 0))


ONE, ALL = (4,), (51 * 4,)  # bytes of a number, and of all gradients in one array


@pytest.mark.parametrize(
    ("algorithm", "of_an_iteration", "of_an_update"),
    [("dqn", [], [ONE, ALL]), ("per", [ONE], [ONE, ONE, ALL])],
)
def test_shards_on_devices_send_gradients(algorithm, of_an_iteration, of_an_update):
    """How many rows are valid, then all gradients in one array, of 2 x 8 + 8 + 8 x 3 + 3 parameters.

    With priorities also the largest weight of each batch, and the highest priority, which new rows get.
    """
    sizes = dict(num_envs=4, batch_size=8, hidden_sizes=(8,), replay_size=64, warm_up_steps=24)
    config, hyper = jdqn.preset(algorithm, "", **sizes)
    trainer = jdqn.build(config, counter(), Shards(4, (parallel.DEVICES, parallel.AGENTS)))
    program, _ = compiled(spread(parallel.over_shards(trainer), 4), 4, hyper)
    text = program.as_text()
    found = messages(text)
    assert len(found) == len(re.findall(COLLECTIVES, text))
    assert {kind for _, kind, _ in found} == {"all-reduce"}
    by_depth = [sorted(sizes for loops, _, sizes in found if loops == depth) for depth in range(4)]
    assert by_depth == [[], of_an_iteration, of_an_update, []]


def test_a_trainer_runs_under_pmap():
    """The predecessor of shard_map, an agent a device; the clock is broadcast."""
    trainer, hyper = make()

    def run(key):
        return jdqn.train(trainer, key, hyper, ITERATIONS)

    together, metrics = jax.pmap(run)(keys([0, 1]))
    for k in range(2):
        state, mine = jax.jit(run)(jax.random.key(k))
        for a, b in zip(agent((together, metrics), k), map(raw, jax.tree.leaves((state, mine))), strict=True):
            np.testing.assert_array_equal(a, b)
