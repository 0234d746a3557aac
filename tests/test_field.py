"""The errors of the field: each a faulty formula as it was published, beside ours and an oracle on the same data.

A test shows three things: the data is such that the mistake matters, the faulty formula falls for it, ours does not.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import oracles_family as family
import pytest
from programs import ticks_of
from test_learner import BATCH, STATES, make, random_sample, table_of
from test_replay import stamped
from test_targets import random_rows
from test_trainer import LENGTH, counter

import jdqn
from jdqn import heads, networks, parallel, replay, sum_tree, targets
from jdqn.config import Hyper
from jdqn.shards import AGENTS, WHOLE, Shards

DISCOUNT = 0.9


def rows_of(seed, length=40, batch=6, end_share=0.25):
    """(reward, terminated, last) with both kinds of ends."""
    reward, terminated, last = random_rows(seed, length, batch, end_share)
    assert terminated.any()
    assert (last[1:] & ~terminated[:-1]).any()
    return reward, terminated, last


def n_step(rows, n):
    """Ours and the oracle's, each as a dict of arrays."""
    ours = targets.n_step(*map(jnp.asarray, rows), DISCOUNT, n)
    return {k: np.asarray(v) for k, v in ours._asdict().items()}, oracles.n_step_returns(*rows, DISCOUNT, n)


def goals(returns, values):
    """R + discount V(bootstrap row) at valid rows, for state values [L, B]."""
    goal = returns["reward"] + returns["discount"] * np.take_along_axis(values, returns["bootstrap"], 0)
    return goal[returns["valid"]]


def state_values(rows, seed=1):
    return np.random.default_rng(seed).normal(size=rows[0].shape)


def differ(a, b, share=0.05):
    """More than a share of the numbers differ by more than rounding."""
    return (np.abs(np.asarray(a) - np.asarray(b)) > 1e-2).mean() > share


# (a) Seeds


ITERATIONS, ROLLOUT, ENVS = 8, 2, 4


@functools.cache
def tiny():
    config, hyper = jdqn.preset(
        "dqn", "", total_steps=10_000, num_envs=ENVS, rollout_length=ROLLOUT, batch_size=8, hidden_sizes=(8,),
        replay_size=ITERATIONS * ROLLOUT * ENVS, warm_up_steps=ITERATIONS * ROLLOUT * ENVS,
    )  # fmt: skip
    return jdqn.build(config, counter()), hyper


@jax.jit
def warmed_up(key):
    """State of an agent that has only collected; its ring is full and has not wrapped around."""
    trainer, hyper = tiny()
    return jdqn.train(trainer, key, hyper, ITERATIONS)[0]


@pytest.mark.slow
def test_seeds_share_nothing():
    """A seed overwritten by a constant inside the vmapped function: agents that share network and exploration."""

    def keys_of(seeds):
        return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))

    def parts(state):
        return [*jax.tree.leaves(state.learner.params), state.replay.action, state.replay.obs]

    agents = jax.jit(jax.vmap(warmed_up))
    ours, faulty = parts(agents(keys_of([0, 1, 2]))), parts(agents(keys_of([42, 42, 42])))
    alone = parts(warmed_up(jax.random.key(2)))
    for x, y, z in zip(ours, faulty, alone, strict=True):
        if x.ndim > 2:  # biases start at zero
            assert all((x[i] != x[j]).any() for i in range(3) for j in range(i))
        assert (y == y[:1]).all()
        np.testing.assert_allclose(x[2], z, rtol=1e-6)


# (b), (g), (h), (j) Returns and ends


@pytest.mark.parametrize("n", [1, 3])
def test_a_time_limit_is_no_death(n):
    """done = terminated or truncated, and no bootstrap after it."""
    rows = rows_of(0)
    ours, oracle = n_step(rows, n)
    values = state_values(rows)
    faulty = oracle | {"discount": np.where(oracle["ended"], 0.0, oracle["discount"])}
    np.testing.assert_allclose(goals(ours, values), goals(oracle, values), rtol=1e-4, atol=1e-5)
    assert differ(goals(faulty, values), goals(oracle, values))


@pytest.mark.parametrize("mistake", ["gamma", "gamma^n in shortened windows"])
def test_the_bootstrap_is_discounted_by_the_steps_taken(mistake):
    """gamma for gamma^n, or gamma^n where a time limit cut the window after k < n steps."""
    rows, n = rows_of(1), 4
    ours, oracle = n_step(rows, n)
    values = state_values(rows)
    factor = DISCOUNT if mistake == "gamma" else DISCOUNT**n
    faulty = oracle | {"discount": np.where(oracle["discount"] > 0, factor, 0.0)}
    np.testing.assert_allclose(goals(ours, values), goals(oracle, values), rtol=1e-4, atol=1e-5)
    assert differ(goals(faulty, values), goals(oracle, values))
    steps = np.round(np.log(ours["discount"][ours["discount"] > 0]) / np.log(DISCOUNT)).astype(int)
    assert set(steps) == {0, 1, 2, 3, 4}  # 0 at last rows, which are not learnt from


def test_returns_stop_at_a_time_limit():
    """n rewards, cut by terminations alone: after a time limit they go on into the next episode (R2D2's included)."""
    rows, n = rows_of(2), 3
    reward, terminated, last = rows
    ours, oracle = n_step(rows, n)
    faulty, alive = np.zeros(ours["reward"].shape), np.ones(ours["reward"].shape)
    for k in range(n):
        faulty += DISCOUNT**k * alive * reward[k : k + len(faulty)]
        alive = alive * ~terminated[k : k + len(faulty)]
    valid = oracle["valid"]
    np.testing.assert_allclose(ours["reward"][valid], oracle["reward"][valid], rtol=1e-4, atol=1e-5)
    assert differ(faulty[valid], oracle["reward"][valid])
    whole = np.array([[not last[t + 1 : t + n, b].any() for b in range(6)] for t in range(len(faulty))])
    np.testing.assert_allclose(faulty[valid & whole], oracle["reward"][valid & whole], rtol=1e-4, atol=1e-5)


def test_a_time_limit_bootstraps_from_the_final_observation():
    """Environments that reset on the spot return the next episode's first observation; here both are rows."""
    rows = ticks_of(warmed_up(jax.random.key(5)).replay, ENVS)
    ours, oracle = n_step((rows.reward, rows.terminated, rows.last), 2)
    np.testing.assert_array_equal(ours["bootstrap"], oracle["bootstrap"])
    cut = 0
    for t, e in zip(*np.nonzero(ours["valid"] & ours["ended"] & (ours["discount"] > 0)), strict=True):
        episode, step = rows.obs[t, e]
        final = rows.obs[ours["bootstrap"][t, e], e]
        assert final.tolist() == [episode, LENGTH]
        assert ours["bootstrap"][t, e] - t == LENGTH - step
        faulty = rows.obs[min(ours["bootstrap"][t, e] + 1, len(rows.obs) - 1), e]
        cut += faulty[0] != episode
    assert cut > 0


# (c) Q(lambda)


def test_lambda_returns_are_not_shifted():
    """Row t mixes its return with V(s_{t+1}). Rejax carries back V(s_{t+2}) instead, into every row but the last.

    PureJaxQL's script for gymnax begins its scan with V(s_T) where the last row but one wants V(s_{T-1}); the decay
    takes the mistake to the rows before. Two simpler shifts stand beside them.
    """
    reward, terminated, last = rows_of(3, 13)
    decay, values = 0.7, np.random.default_rng(0).normal(size=(13, 6, 3)).astype(np.float32)
    best = values.max(-1)
    returns = targets.n_step(*map(jnp.asarray, (reward, terminated, last)), DISCOUNT, 1)
    outputs = targets.Outputs(None, None, None, jnp.asarray(values)[1:, ..., None])
    ours = targets.lambda_returns()(heads.scalar(), Hyper(trace_decay=decay), outputs, None, returns).mean()
    valid = ~last[:-1]

    def published(next_value, reward=reward[:-1]):
        return family.q_lambda_targets(reward, terminated[:-1], last, next_value, DISCOUNT, decay)[valid]

    following = best[1:]
    oracle = published(following)
    np.testing.assert_allclose(np.asarray(ours)[valid], oracle, rtol=1e-4, atol=1e-5)
    rejax, pure = following.copy(), following.copy()
    rejax[:-1] = following[1:]
    pure[-2] = following[-1]
    assert differ(published(rejax), oracle, 0.3)
    assert differ(published(pure), oracle, 0.1)
    assert differ(published(best[:-1]), oracle, 0.3)  # the value of the row itself
    assert differ(published(following, reward[1:]), oracle, 0.3)


# (d) Clipping


def test_max_gradient_norm_is_of_all_gradients_together():
    """Clipping element by element, or array by array, turns the gradient; by the global norm it is only shorter."""
    ours, clip = make(optimizer="sgd"), 0.1
    hyper = Hyper(learning_rate=1.0, max_gradient_norm=1e6)
    state = ours.init(jax.random.key(0), jnp.zeros(STATES), hyper)
    sample = jax.tree.map(jnp.asarray, random_sample(0, 2))
    update = jax.jit(lambda hyper: ours.update(jax.random.key(1), state, sample, 1, 0.0, hyper)[0])
    whole, clipped = (-table_of(update(hyper._replace(max_gradient_norm=c)).params) for c in (1e6, clip))
    assert np.linalg.norm(whole) > clip
    (oracle,) = oracles.clip_by_global_norm([whole], clip)
    np.testing.assert_allclose(clipped, oracle, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(clipped), clip, rtol=1e-4)
    assert not np.allclose(np.clip(whole, -clip, clip), oracle, atol=1e-2)


# (e) The replay buffer and branches


def branched(jaxpr, size):
    """Names of the primitives in `jaxpr`, at any depth, that choose between arrays of `size` numbers or more."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("select_n", "cond"):
            found += [equation.primitive.name for v in equation.outvars if v.aval.size >= size]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found += branched(inner, size)
    return found


RING = dict(replay_size=2**16, num_envs=4, batch_size=8, hidden_sizes=(8,))
LAYOUTS = {  # (algorithm, settings, whether observations are bits, which replay packs)
    "uniform": ("dqn", RING, False),
    "prioritised": ("per", RING, False),
    "packed": ("dqn", RING, True),
    "stacked": ("dqn", RING | dict(frame_stack=3), False),
    "packed and stacked": ("per", RING | dict(frame_stack=3), True),
    # Read whole, it has to be much larger than what is learnt from together.
    "last_rollout": ("pqn", dict(rollout_length=256, num_envs=64, batch_size=2, hidden_sizes=(8,)), False),
}


def laid_out(layout, shards=WHOLE):
    """(trainer, hyper, rows that its replay holds, of all shards) of the layout of that name."""
    algorithm, settings, bits = LAYOUTS[layout]
    config, hyper = jdqn.preset(algorithm, "", **settings)
    env = counter()
    if bits:
        env = env._replace(
            reset=lambda key: (lambda state, obs: (state, obs > 1))(*counter().reset(key)),
            step=lambda *x: (lambda state, step: (state, step._replace(obs=step.obs > 1)))(*counter().step(*x)),
        )
    trainer = jdqn.build(config, env, shards)
    capacity = (256 + 1) * 64 if layout == "last_rollout" else config.replay_size
    return trainer, hyper, capacity


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_branch_holds_the_replay(layout):
    """Under vmap a cond on learning copies every agent's buffer; the checker sees it in steps that have one."""
    agents = 2
    trainer, hyper, capacity = laid_out(layout)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), agents))
    state = jax.eval_shape(jax.vmap(lambda key: trainer.init(key, hyper)), keys)
    rows = state.replay.rows if isinstance(state.replay, replay.Prioritised) else state.replay
    assert rows.last.size == agents * capacity
    assert rows.obs.dtype == (jnp.uint32 if "packed" in layout else jnp.float32)

    def faulty(state, i):
        return jax.lax.cond(i > 10, lambda: trainer.step(state, hyper, i)[0], lambda: state)

    def selected(state, i):
        ready = state.actor.episode_length[0] > 10  # by a flag of the agent's own
        after = trainer.step(state, hyper, i)[0]
        kept = jax.tree.map(lambda new, old: jnp.where(ready, new, old), after.replay, state.replay)
        return after._replace(replay=kept)

    def own_flag(state, i):
        return jax.lax.cond(i + state.actor.episode_length[0] > 10, lambda: faulty(state, i), lambda: state)

    def found_in(step):
        def run(state):  # nested, so that the checker has to look inside
            return jax.lax.fori_loop(20, 22, lambda i, s: jax.vmap(step, (0, None))(s, i), state)

        closed = jax.make_jaxpr(run)(state)
        return set(branched(closed.jaxpr, agents * capacity))

    assert found_in(lambda state, i: trainer.step(state, hyper, i)[0]) == set()
    assert found_in(faulty) == {"cond"}
    assert found_in(selected) == {"select_n"}
    if layout != "last_rollout":  # which is written whole, wherever the clock stands
        with pytest.raises(ValueError, match="clock was batched"):  # a cond that becomes one is refused besides
            found_in(own_flag)


@pytest.mark.parametrize("company", ["one at a time", "two at a time", "shards"])
@pytest.mark.parametrize("layout", ["uniform", "prioritised", "packed and stacked", "last_rollout"])
def test_no_branch_holds_the_replay_of_a_population(layout, company):
    """What the program runs: agents in turns or side by side, or one agent in shards."""
    count = 2
    trainer, hyper, capacity = laid_out(layout, Shards(count, (AGENTS,)) if company == "shards" else WHOLE)

    def faulty(state, hyper, i):
        return jax.lax.cond(i > 10, lambda: trainer.step(state, hyper, i), lambda: trainer.step(state, hyper, i + 1))

    def found_in(trainer):
        at_once = 1 if company == "one at a time" else count
        population = parallel.over_shards(trainer) if company == "shards" else parallel.over_agents(trainer, at_once)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count))
        state, sums = jax.eval_shape(lambda keys: population.init(keys, hyper), keys)
        closed = jax.make_jaxpr(lambda state, sums: population.advance(state, hyper, sums, 20, 22))(state, sums)
        return set(branched(closed.jaxpr, capacity))

    assert found_in(trainer) == set()
    assert found_in(trainer._replace(step=faulty)) == {"cond"}


# (f) Binary observations


def test_binary_observations_are_not_divided_by_255():
    env = jdqn.envs.make("Breakout-MinAtar")
    obs = jax.jit(env.reset)(jax.random.key(0))[1]
    assert obs.dtype == bool
    network = networks.q_network("minatar", obs.shape, 3, heads.scalar(), hidden_sizes=(8,))
    shapes, rng = jax.eval_shape(network.init, jax.random.key(0), obs), np.random.default_rng(0)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), shapes)
    forward = jax.jit(lambda x: network.apply(params, None, x[None, None], (), jnp.zeros((1, 1), bool))[0])
    ones = forward(obs.astype(jnp.float32))
    np.testing.assert_array_equal(forward(obs), ones)
    assert not np.allclose(forward(obs / 255), ones, rtol=0.1)
    np.testing.assert_allclose(forward(255 * obs.astype(jnp.uint8)), ones, rtol=1e-4, atol=1e-4)  # bytes are


# (i) Terminal transitions


def test_every_transition_is_stored_drawable_and_learnt_from():
    """Stamped rows: each with its own successor, the one that terminates included. Loops that store (obs, next obs)
    after the reset, or drop what ends, never learn from it."""
    stored = warmed_up(jax.random.key(5)).replay
    rows = ticks_of(stored, ENVS)
    memory = replay.uniform(ITERATIONS, ROLLOUT, 2_000, 2)
    drawn = memory.sample(jax.random.key(0), stored, ITERATIONS, 0, None).rows
    episode, step = np.asarray(drawn.obs).transpose(2, 0, 1).astype(int)  # [2 rows, draws] each
    real = {tuple(map(int, rows.obs[t, e])) for t, e in np.ndindex(len(rows.obs) - 1, ENVS) if not rows.last[t, e]}
    valid = np.asarray(targets.n_step(drawn.reward, drawn.terminated, drawn.last, DISCOUNT, 1).valid)[0]
    found = set(zip(episode[0][valid], step[0][valid], strict=True))
    assert found == real
    assert (episode[1] == episode[0])[valid].all()
    assert (step[1] == step[0] + 1)[valid].all()
    terminal = valid & np.asarray(drawn.terminated[0])
    assert terminal.any()
    assert (step[0][terminal] == LENGTH - 1).all()
    dropped = valid & ~np.asarray(drawn.last[1])  # the faulty loop: a transition into a final observation is no more
    assert set(zip(episode[0][dropped], step[0][dropped], strict=True)) < found

    ours = make(optimizer="sgd")  # and the learner's error at each is that of its own reward
    hyper, table = Hyper(discount=0.0), np.zeros((2_000, STATES), np.float32)
    learning = ours.init(jax.random.key(0), jnp.zeros(STATES), hyper)
    seen = drawn._replace(obs=jnp.asarray(np.stack([table, table])), action=jnp.zeros((2, 2_000), jnp.int32))
    sample = replay.Sample(seen, jnp.arange(2_000), jnp.ones(2_000))
    error = ours.update(jax.random.key(0), learning, sample, 1, 0.0, hyper)[1]
    np.testing.assert_allclose(error, np.where(valid, step[0] + 1, 0))


# (k) Distributions


def test_every_atom_of_a_quantile_target_is_discounted():
    """r + z, or r + gamma z with n rewards in r, for r + gamma^k z."""
    rows, n, atoms = rows_of(4), 3, 5
    returns = targets.n_step(*map(jnp.asarray, rows), DISCOUNT, n)
    _, oracle = n_step(rows, n)
    online, target = np.random.default_rng(0).normal(size=(2, *returns.valid.shape, 3, atoms)).astype(np.float32)
    head = heads.quantile(atoms)
    outputs = targets.Outputs(None, None, jnp.asarray(online), jnp.asarray(target))
    ours = targets.greedy(double=True)(head, None, outputs, None, returns)
    expected, none, one = (np.zeros(ours.value.shape) for _ in range(3))
    for t, b in np.ndindex(*oracle["valid"].shape):
        z = target[t, b, online[t, b].mean(-1).argmax()]
        for j in range(atoms):
            expected[t, b, j] = oracle["reward"][t, b] + oracle["discount"][t, b] * z[j]
            none[t, b, j] = oracle["reward"][t, b] + (oracle["discount"][t, b] > 0) * z[j]
            one[t, b, j] = oracle["reward"][t, b] + (oracle["discount"][t, b] > 0) * DISCOUNT * z[j]
    valid = oracle["valid"]
    np.testing.assert_allclose(ours.value[valid], expected[valid], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.weight, 1 / atoms)
    assert differ(none[valid], expected[valid], 0.2)
    assert differ(one[valid], expected[valid], 0.2)
    now = np.random.default_rng(1).normal(size=(BATCH, 3, atoms)).astype(np.float32)  # and the loss reads them so
    loss, _ = head.loss(jnp.asarray(now), jnp.zeros(BATCH, int), jax.tree.map(lambda x: x[0], ours))
    fraction, weights = (np.arange(atoms) + 0.5) / atoms, np.full(atoms, 1 / atoms)
    for b in range(BATCH):
        theirs = family.quantile_huber_loss(now[b, 0], fraction, expected[0, b], weights, 1.0)
        np.testing.assert_allclose(loss[b], theirs, rtol=1e-4)


# (l) The sum tree


def test_a_sum_tree_does_not_drift():
    """Sums kept by differences in float32: after large and tiny priorities in turn the root is wrong, or negative."""
    size, rounds, batch = 64, 400, 8
    rng = np.random.default_rng(0)
    indices = np.stack([rng.choice(size, batch, replace=False) for _ in range(rounds)])
    priority = (10.0 ** rng.uniform(-6, 6, (rounds, batch))).astype(np.float32)
    indices[-size // batch :] = np.arange(size).reshape(-1, batch)  # at the end every leaf is small
    priority[-size // batch :] = 1e-4
    leaves, root = np.zeros(size, np.float32), np.float32(0)
    for where, values in zip(indices, priority, strict=True):
        for i, value in zip(where, values, strict=True):
            root, leaves[i] = np.float32(root + np.float32(value - leaves[i])), value
    truth = leaves.sum(dtype=np.float64)
    assert abs(root - truth) > truth
    xs = jnp.asarray(indices), jnp.asarray(priority)
    tree = jax.lax.scan(lambda tree, x: (sum_tree.write(tree, *x), None), sum_tree.init(size), xs)[0]
    np.testing.assert_allclose(sum_tree.total(tree), truth, rtol=1e-6)
    np.testing.assert_array_equal(sum_tree.leaves(tree)[:size], leaves)
    _, probability = sum_tree.sample(tree, jax.random.key(0), 32)
    np.testing.assert_allclose(probability, 1 / size, rtol=1e-5)


# (m) The cost of sampling


def cost(sample, state):
    """(floating-point operations, bytes of scratch memory) of the compiled program."""
    program = jax.jit(sample).lower(jax.eval_shape(lambda: jax.random.key(0)), state).compile()
    analysis = program.cost_analysis()
    return analysis["flops"], program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
def test_sampling_does_not_cost_more_from_a_larger_replay(kind):
    """2^12 and 2^18 rows: equal but for the levels of the tree. A cumulative sum over all priorities is not."""
    row = jax.tree.map(lambda x: jnp.asarray(x[0]), stamped(np.random.default_rng(0), 2, 1))
    ours, faulty = [], []
    for slots in (2**12, 2**18):
        memory = getattr(replay, kind)(slots, 1, 32, 2)
        state = jax.eval_shape(memory.init, row)

        def draw(key, state, memory=memory, slots=slots):
            return memory.sample(key, state, slots, 0, Hyper())

        def choice(key, priority):
            ends = jnp.cumsum(priority)
            return jnp.searchsorted(ends, ends[-1] * jax.random.uniform(key, (32,)))

        ours.append(cost(draw, state))
        faulty.append(cost(choice, jax.ShapeDtypeStruct((slots,), jnp.float32)))
    levels = 1.1 * 9 / 6  # of four children each
    assert ours[1][0] <= levels * ours[0][0] + 100
    assert ours[1][1] <= levels * ours[0][1] + 4_096
    assert faulty[1][0] > 30 * faulty[0][0]
