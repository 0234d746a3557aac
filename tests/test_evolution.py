"""Population-based training against a slow loop, and what its random parts may do."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parallel import agent, keys
from test_trainer import make, raw

from jdqn import evolution, parallel
from jdqn.config import Hyper
from jdqn.host.folder import RunFolder
from jdqn.host.generations import Generations
from jdqn.host.options import parse
from jdqn.host.progress import Progress
from jdqn.host.wanted import plans_of

WORDS = "--sweep random --learning-rate 1e-4 1e-3"


def warmed(trainer, seeds, hyper):
    """Agents after warm-up."""
    population = parallel.over_agents(trainer)
    state, sums = population.init(keys(seeds), hyper)
    return jax.jit(population.advance)(state, hyper, sums, 0, trainer.num_warm_up)[0]


@pytest.mark.parametrize(("agents", "fraction", "number"), [(10, 0.2, 2), (10, 0.29, 2), (3, 0.2, 1), (8, 0.5, 4)])
def test_the_worst_copy_the_best(agents, fraction, number):
    rng = np.random.default_rng(agents)
    score = rng.permutation(agents).astype(np.float32)
    seen = set()
    for seed in range(60):
        parents = np.asarray(evolution.exploit(jax.random.key(seed), jnp.asarray(score), fraction))
        for k in range(agents):
            if score[k] >= number:  # not among the worst
                assert parents[k] == k
            else:
                assert score[parents[k]] >= agents - number
                seen.add(int(score[parents[k]]))
    assert seen == set(range(agents - number, agents))  # each of the best is chosen at some time


NAN, LOST = np.nan, -np.inf


def parents_of(score, fraction=0.2, seeds=40):
    """Parents [seeds, S], of the compiled function."""
    exploit = jax.jit(lambda key: evolution.exploit(key, jnp.array(score), fraction))
    return np.stack([exploit(jax.random.key(seed)) for seed in range(seeds)])


@pytest.mark.parametrize(
    ("score", "fraction", "parents"),
    [
        ([0.0, NAN, -5.0, 7.0, 3.0], 0.2, [0, 1, 3, 3, 4]),  # no episode ended: perhaps it is the best
        ([NAN, 1.0, NAN, 2.0], 0.5, [0, 3, 2, 3]),
        ([NAN, 1.0, NAN], 0.5, [0, 1, 2]),  # nobody to compare with
        ([NAN, NAN], 0.5, [0, 1]),
        ([LOST, 4.0, 5.0, NAN], 0.2, [2, 2, 2, 3]),
        ([LOST, 4.0, LOST], 0.2, [1, 1, 1]),
        ([LOST, NAN, LOST], 0.2, [0, 1, 2]),  # until somebody is judged
        ([LOST, np.inf], 0.2, [0, 1]),  # infinite is no score
        ([2.0, 2.0, 2.0, 2.0], 0.5, [0, 1, 2, 3]),  # nobody is better
        ([1.0, 1.0, 1.0, 3.0], 0.5, None),
    ],
)
def test_who_was_not_judged_and_who_is_lost(score, fraction, parents):
    found = parents_of(score, fraction)
    for k in range(len(score)):
        for parent in set(found[:, k]) - {k}:
            assert np.isfinite(score[parent])
            assert score[parent] > score[k]
    if parents:
        np.testing.assert_array_equal(found, np.broadcast_to(parents, found.shape))


def test_equals_take_turns():
    """Which of the equally bad is replaced, and which of the equally good is copied, is drawn."""
    found = parents_of([1.0, 1.0, 1.0, 5.0, 5.0, 5.0], 0.2, seeds=120)
    copies = found != np.arange(6)
    assert (copies.sum(1) == 1).all()
    assert all(20 < n < 60 for n in copies[:, :3].sum(0))
    assert all(20 < n < 60 for n in np.bincount(found[copies], minlength=6)[3:])


def test_heirs_have_the_learner_of_their_parents_and_their_own_world():
    trainer, hyper = make()
    population = parallel.over_agents(trainer)
    state, sums = population.init(keys([0, 1, 2]), hyper)
    state, _ = jax.jit(population.advance)(state, hyper, sums, 0, 20)
    parents = jnp.array([0, 2, 2])
    for replay in (False, True):
        heirs = evolution.inherit(state, parents, replay)
        for name in state._fields:
            copied = name == "learner" or (name == "replay" and replay)
            for a, b in zip(jax.tree.leaves(getattr(state, name)), jax.tree.leaves(getattr(heirs, name)), strict=True):
                np.testing.assert_array_equal(raw(a)[np.asarray(parents) if copied else np.arange(3)], raw(b))
    assert not np.array_equal(state.replay.obs[1], state.replay.obs[2])


def test_the_lost_copy_everything_but_their_random_numbers():
    """What is not finite may stand in replay, in priorities, in the environments."""
    trainer, hyper = make(replay="prioritised")
    state = warmed(trainer, [0, 1, 2], hyper)
    parents, lost = jnp.array([2, 2, 2]), jnp.array([True, False, False])
    for replay in (False, True):
        heirs = evolution.inherit(state, parents, replay, lost)
        for name in state._fields:
            source = {"key": [0, 1, 2], "learner": [2, 2, 2], "replay": [2, 2 if replay else 1, 2]}.get(name, [2, 1, 2])
            for a, b in zip(jax.tree.leaves(getattr(state, name)), jax.tree.leaves(getattr(heirs, name)), strict=True):
                np.testing.assert_array_equal(raw(a)[np.array(source)], raw(b))


@contextlib.contextmanager
def bred(plan, size, path, progress, mesh):
    generations = Generations(plan, size, RunFolder(path), progress, mesh)
    yield generations
    generations.lineage.close()


@pytest.mark.parametrize("replay", ["keep", "copy"])
def test_a_generation_stays_on_its_devices(replay, tmp_path):
    """Six agents and two copies of them on four devices: each keeps its two, and has the bits of one device."""
    (plan,) = plans_of(parse(f"{WORDS} --samples 6 --pbt-every 2000 --pbt-factor 1.5 --pbt-replay {replay}".split()))
    trainer, hyper = make(replay="prioritised")
    hyper = parallel.per_agent(hyper, 8)._replace(learning_rate=jnp.linspace(1e-4, 1e-3, 8))
    mesh, found = parallel.device_mesh(4), {}
    place = parallel.sharded(mesh)
    whole = warmed(trainer, [*range(6), 0, 1], hyper)
    for devices in (None, mesh):
        state, numbers = jax.tree.map(jnp.copy, (whole, hyper))
        if devices:
            state, numbers = jax.device_put((state, numbers), place)
        progress = Progress.of(6, 10)
        progress.returns, progress.episodes = np.array([5.0, 1, 0, 9, 4, 3]), np.array([1, 1, 0, 1, 1, 1])
        progress.sick = [{"agent": 4, "done": "dropped"}]
        with bred(plan, 8, tmp_path, progress, devices) as generations:
            found[devices] = generations.next(state, numbers, progress)
        assert progress.dropped == []
    for x in jax.tree.leaves(found[mesh]):
        assert x.sharding.is_equivalent_to(place, x.ndim)
        assert len({shard.device for shard in x.addressable_shards}) == 4
    for a, b in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_array_equal(raw(a), raw(b))
    state, numbers = found[None]
    for k, parent in enumerate([0, 3, 2, 3, 3, 5, 6, 7]):
        for a, b in zip(agent(whole.learner, parent), agent(state.learner, k), strict=True):
            np.testing.assert_array_equal(a, b)
        moved = float(numbers.learning_rate[k]) / float(hyper.learning_rate[parent])
        assert np.isclose(moved, [1] if parent == k else [1.5, 1 / 1.5], rtol=1e-5).any()
        world = 3 if k == 4 else k  # the lost one's may not be finite
        for a, b in zip(agent(whole.actor, world), agent(state.actor, k), strict=True):
            np.testing.assert_array_equal(a, b)
    assert (tmp_path / "lineage.csv").read_text().splitlines()[3] == f"1,0,2,2,,{float(hyper.learning_rate[2]):.9g}"


def test_a_generation_needs_no_copy_of_the_population(tmp_path):
    """Agents travel one at a time: 16 on one device, and four on each of four."""
    (plan,) = plans_of(parse(f"{WORDS} --pbt-every 2000 --pbt-replay copy".split()))
    trainer, hyper = make(replay_size=2**16)
    mesh = parallel.device_mesh(4)
    seeds = jax.eval_shape(keys, np.arange(16))
    state, _ = jax.eval_shape(lambda k: parallel.over_agents(trainer).init(k, hyper), seeds)
    one = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) // 16
    for devices, place in ((None, None), (mesh, parallel.sharded(mesh))):
        placed = jax.tree.map(lambda x, place=place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
        with bred(plan, 16, tmp_path, Progress.of(16, 10), devices) as generations:
            program = generations._inherit.lower(placed, np.arange(16, dtype=np.int32), np.zeros(16, bool)).compile()
        memory = program.memory_analysis()
        assert memory.temp_size_in_bytes < (3 if devices else 1.1) * one
        assert memory.alias_size_in_bytes > 0.99 * memory.output_size_in_bytes  # in place


def test_generations_and_agents_share_no_random_number(tmp_path):
    """`split` and `fold_in` of one key give the same keys: an agent's are split from its seed's."""
    (plan,) = plans_of(parse(f"{WORDS} --pbt-every 2000".split()))
    with bred(plan, 16, tmp_path, Progress.of(16, 10), None) as generations:
        words = {tuple(raw(generations._key(g)).tolist()) for g in range(5)}
    own = jax.random.split(jax.random.key(plan.seeds[0]), 4)
    inner = jax.vmap(lambda key: jax.random.split(key, 4))(jax.random.clone(own))
    assert not words & {tuple(x.tolist()) for x in np.concatenate([raw(own), raw(inner.reshape(-1))])}


@pytest.mark.parametrize("factor", [1.2, 2.0])
def test_only_copies_change_and_stay_in_range(factor):
    agents = 400
    parents = jnp.where(jnp.arange(agents) < 200, jnp.arange(agents)[::-1], jnp.arange(agents))
    rng = np.random.default_rng(0)
    hyper = Hyper(
        learning_rate=jnp.asarray(10 ** rng.uniform(-4, -2, agents), jnp.float32),
        discount=jnp.asarray(1 - 10 ** rng.uniform(-3, -1, agents), jnp.float32),
        epsilon_end=jnp.asarray(rng.uniform(0, 0.5, agents), jnp.float32),
        priority_exponent=0.6,
    )
    ranges = dict(learning_rate=(1e-4, 1e-2), discount=(0.9, 0.999), epsilon_end=(0.0, 0.5))
    hyper = hyper._replace(trace_decay=jnp.asarray(rng.uniform(size=agents), jnp.float32))
    new = evolution.explore(jax.random.key(0), hyper, parents, ranges, factor)
    inside = {"learning_rate": 0, "discount": 0, "epsilon_end": 0}
    for name, (low, high) in ranges.items():
        value, old = np.asarray(getattr(new, name), np.float64), np.asarray(getattr(hyper, name), np.float64)
        np.testing.assert_array_equal(value[200:], old[200:].astype(np.float32))
        assert (value >= low * (1 - 1e-5)).all()
        assert (value <= high * (1 + 1e-6) + 1e-7).all()
        for k in range(200):
            parent = old[int(parents[k])]
            if name == "learning_rate":
                allowed = [parent * factor, parent / factor]
            elif name == "discount":
                allowed = [1 - (1 - parent) * factor, 1 - (1 - parent) / factor]
            else:
                allowed = [parent + 0.05, parent - 0.05]
            clipped = np.clip(allowed, low, high)
            assert np.isclose(value[k], clipped, rtol=1e-4, atol=1e-6).any(), (name, value[k], clipped)
            inside[name] += int(np.isclose(value[k], clipped, rtol=1e-4, atol=1e-6).argmax())
    assert all(60 < ups < 140 for ups in inside.values())  # up as often as down
    np.testing.assert_array_equal(new.trace_decay, hyper.trace_decay[parents])  # inherited, and not perturbed
    assert new.priority_exponent == 0.6


def test_scales():
    """Equal steps in the logarithm, in the logarithm of what is missing to 1, or plainly where an end has none."""
    for name, low, high, middle in [
        ("learning_rate", 1e-4, 1e-2, 1e-3),
        ("learning_rate", 0.0, 1.0, 0.5),
        ("discount", 0.9, 0.999, 0.99),
        ("discount", 0.9, 1.0, 0.95),
        ("discount", 0.9, 0.99999999, 0.95),  # 1 in 32 bits
        ("epsilon_end", 0.1, 0.3, 0.2),
    ]:
        to, back = evolution.scale(name, low, high)
        for xp in (jnp, np):
            found = back((to(xp.float32(low), xp) + to(xp.float32(high), xp)) / 2, xp)
            np.testing.assert_allclose(found, middle, rtol=1e-4)
