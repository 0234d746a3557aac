"""The rooms of the host: statistics, the Gymnasium twin, metrics.csv, checkpoints, signals."""

import errno
import os
import signal

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdqn import ConfigError
from jdqn.host import devices, session, statistics, twin
from jdqn.host.checkpoint import Checkpoints
from jdqn.host.folder import METRICS, RunFolder, Table, read_metrics
from jdqn.host.memory import human
from jdqn.host.options import parse
from jdqn.host.signals import Signals
from jdqn.networks import Policy


def test_interval_of_a_coin():
    """Means of ten fair throws are binomial, so the percentiles are known."""
    coin = [0.0, 1.0] * 5
    assert statistics.interval(coin) == pytest.approx([0.2, 0.8])
    assert statistics.interval(coin, confidence=0.5) == pytest.approx([0.4, 0.6])


def test_interval_equals_the_loop():
    values = np.random.default_rng(1).exponential(10.0, 30)
    rng = np.random.default_rng(2)
    means = sorted(np.mean([values[rng.integers(30)] for _ in values]) for _ in range(4000))
    np.testing.assert_allclose(statistics.interval(values), [means[100], means[-101]], rtol=0.03)
    assert statistics.interval(values) == statistics.interval(values)


def test_summary_of_one_agent_and_of_many():
    assert statistics.interval([3.0]) == [3.0, 3.0]
    one, many = [[1.0, 2.0, 6.0]], [[1.0, 3.0], [5.0, 7.0], [0.0, 0.0]]
    interval = statistics.interval(one[0])
    assert statistics.summary(one) == {"episodes": 3, "mean": 3.0, "ci95": interval, "per_agent": [3.0]}
    found = statistics.summary(many)
    assert found["per_agent"] == [2, 6, 0]
    assert found["ci95"] == statistics.interval([2.0, 6.0, 0.0])
    assert (found["episodes"], found["mean"]) == (2, pytest.approx(8 / 3))


def play_slowly(name, action, seed, episodes):
    """Returns [episodes] of the rule action(obs, t) in Gymnasium, one episode after the other."""
    env, returns = gymnasium.make(name), []
    for own in np.random.SeedSequence(seed).generate_state(episodes).tolist():
        obs, _ = env.reset(seed=own)
        total, t, over = 0.0, 0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(action(obs, t))
            total, t, over = total + reward, t + 1, terminated or truncated
        returns.append(total)
    return returns


@pytest.mark.parametrize("together", [twin.TOGETHER, 10, 4, 1])  # 10: two agents and one, 4: an agent in two parts
def test_the_twin_equals_the_loop(together, monkeypatch):
    """Linear rules that also look at the parity of their memory: the first agent always goes left."""
    made, make = [], gymnasium.make
    monkeypatch.setattr(twin, "TOGETHER", together)
    monkeypatch.setattr(gymnasium, "make", lambda *a, **more: made.append(make(*a, **more)) or made[-1])
    weights = np.array([[-1.0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0.5, 0.1], [0, 0.1, 0.2, 2, 0.7, -0.1]], np.float32)

    def values(params, key, obs, carry, reset):
        right = params[0] + obs @ params[1:5] + params[5] * (-1.0) ** carry
        return jnp.stack([jnp.zeros_like(right), right], -1), carry + 1

    policy = Policy(values, lambda batch: jnp.zeros(batch), None, None)
    seeds = 2**32 - 3 + np.arange(3)
    ours = twin.play("CartPole-v1", policy, jnp.asarray(weights), seeds, 5)
    assert len(made) == min(together, 15)
    theirs = [
        play_slowly("CartPole-v1", lambda obs, t, w=w: int(w[0] + obs @ w[1:5] + w[5] * (-1) ** t > 0), seed, 5)
        for w, seed in zip(weights, seeds.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(ours, theirs)
    assert (ours[0] < 12).all()  # pushed over
    assert ours[1:].mean() > 30


def test_the_twin_of_frozen_lake_sees_one_hot_states():
    """A table that walks the lake, and one that only goes up."""
    tables = np.zeros((2, 16, 4), np.float32)
    walk = [0, 3, 3, 3, 0, 0, 0, 0, 3, 1, 0, 0, 0, 2, 1, 0]  # the optimum of the slippery 4 x 4 map
    tables[0, np.arange(16), walk] = 1
    tables[1, :, 3] = 1
    policy = Policy(
        lambda params, key, obs, carry, reset: (obs.astype(float) @ params, carry), lambda batch: (), None, None
    )
    ours = twin.play("FrozenLake-misc", policy, jnp.asarray(tables), np.array([7, 8]), 20)
    theirs = [
        play_slowly("FrozenLake-v1", lambda s, t, table=table: int(table[s].argmax()), seed, 20)
        for seed, table in zip((7, 8), tables, strict=True)
    ]
    np.testing.assert_array_equal(ours, theirs)
    assert ours[0].mean() > 0.4
    assert ours[1].mean() == 0


def test_no_twin():
    assert twin.play("Catch-bsuite", None, None, np.array([0])) is None


def report(value):
    return {name: np.array([value, value + 1]) for name in METRICS} | {"agent": np.arange(2)}


def test_metrics_after_a_checkpoint_are_cut(tmp_path):
    path = tmp_path / "metrics.csv"
    for kept, values in ((0, (1, 2.5, 3)), (2, (np.inf, 5))):  # two reports are kept, the third is written again
        file = Table(path, METRICS, 2 * kept)
        for value in values:
            file.add(report(value))
        file.close()
    assert path.read_text().count("\n") == 1 + 4 * 2
    np.testing.assert_array_equal(read_metrics(path)["loss"], [[1, 2], [2.5, 3.5], [np.nan, np.nan], [5, 6]])
    file = Table(path, METRICS, 8)
    file.close()
    whole = path.read_text()
    with pytest.raises(ConfigError, match="9 of the 11 lines"):
        Table(path, METRICS, 10)
    assert path.read_text() == whole
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be resumed"):
        Table(path, METRICS, 8)


def test_rows_that_the_disk_loses_while_syncing_are_written_again(tmp_path, monkeypatch):
    """Some say only then that there is no room, and only once; another error is not taken for that."""
    path, said, errors = tmp_path / "metrics.csv", [], [None, errno.ENOSPC, errno.ENOSPC, None, errno.EIO]

    def fsync(file):
        if number := errors.pop(0):
            os.ftruncate(file, len(whole) + 5)  # the disk has the sync before, and a piece
            raise OSError(number, os.strerror(number))

    file = Table(path, METRICS, 0, warn=said.append)
    monkeypatch.setattr(os, "fsync", fsync)
    file.add(report(1))
    assert file.sync()
    whole = path.read_bytes()
    file.add(report(2))
    assert not file.sync()
    file.add(report(3))
    assert not file.sync()
    assert len(said) == 1
    assert file.sync()
    assert path.read_bytes().startswith(whole)
    np.testing.assert_array_equal(read_metrics(path)["loss"], [[1, 2], [2, 3], [3, 4]])
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    errors.append(None)
    file.close()


def test_metrics_hold_a_float32_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)
    file = Table(tmp_path / "metrics.csv", METRICS, 0)
    for pair in values:
        file.add(report(0) | {"loss": pair})
    file.close()
    np.testing.assert_array_equal(read_metrics(tmp_path / "metrics.csv")["loss"].astype(np.float32), values)


def tree(offset):
    return {
        "keys": jax.random.split(jax.random.key(offset), 3),
        "other": (jax.random.key(offset, impl="rbg"), ()),
        "bool": jnp.arange(4) % 2 == offset % 2,
        "uint8": jnp.arange(6, dtype=jnp.uint8).reshape(2, 3) + offset,
        "int32": jnp.int32(-offset),
        "float32": jnp.asarray([offset + 0.1, jnp.nan, -jnp.inf]),
    }


def test_checkpoints_give_back_what_they_got(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for k in range(1, 5):
        checkpoints.save(k, tree(k), {"reports": k, "seconds": 0.1})
    checkpoints.save(4, tree(9), {"reports": 9})  # one that is there is left alone
    checkpoints.close()
    assert {p.name for p in tmp_path.iterdir()} == {"3", "4"}
    checkpoints = Checkpoints(tmp_path)
    state, host = checkpoints.restore(jax.eval_shape(lambda: tree(0))), checkpoints.host()
    checkpoints.close()
    assert host == {"reports": 4, "seconds": 0.1}
    assert jax.tree.structure(state) == jax.tree.structure(tree(4))
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(tree(4)), strict=True):
        assert ours.dtype == theirs.dtype
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        np.testing.assert_array_equal(ours, theirs)


def test_a_checkpoint_is_not_touched_by_later_donated_steps(tmp_path):
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    state = step(jnp.zeros(4_000_000))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": state}, {})
    for _ in range(20):
        state = step(state)
    state.block_until_ready()
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore({"x": jax.ShapeDtypeStruct(state.shape, state.dtype)})
    checkpoints.close()
    np.testing.assert_array_equal(restored["x"], 1.0)


def test_large_arrays_come_back_too(tmp_path):
    """They have files of their own, whose checksums are taken of the memory; the largest are copied in parts."""
    large = {
        "one agent": jnp.arange(2**24 + 3, dtype=jnp.uint8)[None],
        "flags": jnp.arange(2**20) % 3 == 0,
        "numbers": jnp.linspace(0.0, 1.0, 2**20).reshape(2, -1),
    }
    for k in (1, 2):  # the second copy is into the memory of the first
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(k, large, {})
        checkpoints.save(k + 10, jax.tree.map(jnp.flip, large), {})
        checkpoints.close()
    assert len(list((tmp_path / "12" / "arrays").glob("*.npy"))) == 3
    found = Checkpoints(tmp_path).restore(jax.eval_shape(lambda: large))
    for name, x in large.items():
        np.testing.assert_array_equal(found[name], jnp.flip(x))


def test_a_folder_without_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(ConfigError, match="holds no checkpoint yet"):
        checkpoints.restore({})
    checkpoints.close()


def test_human_sizes():
    assert [human(x) for x in (0, 1023, 1536, 3 * 2**30, 5 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 GiB",
        "5.0 TiB",
    ]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_let_through(signum):
    through = []
    before = signal.signal(signum, lambda *_: through.append(signum))
    try:
        with Signals() as signals:
            assert signals.received is None
            signal.raise_signal(signum)
            assert (signals.received, through) == (signum, [])
            signal.raise_signal(signum)
            assert through == [signum]
        with Signals():
            pass
        signal.raise_signal(signum)
        assert through == [signum] * 2
    finally:
        signal.signal(signum, before)


def test_only_convolutions_get_several_threads(monkeypatch):
    """Of what XLA reads when JAX starts; whoever has decided already is heard."""
    jax.devices()  # they stay as they are
    for env, network, wide in (
        ("CartPole-v1", "auto", False), ("Breakout-MinAtar", "auto", True), ("Breakout-MinAtar", "mlp", False),
        ("Custom", "impala", True), ("FrozenLake-misc", "tabular", False),
    ):  # fmt: skip
        monkeypatch.delenv("NPROC", raising=False)
        devices.split_cpu(1, 1, devices.convolves(env, network))
        assert os.environ.get("NPROC") == (None if wide else "1")
    monkeypatch.setenv("NPROC", "3")
    devices.split_cpu(1, 1, convolutions=False)
    assert os.environ["NPROC"] == "3"


def test_hosts_know_before_they_meet_whether_they_look_at_images(tmp_path):
    """For JAX starts when they meet, and with it the threads; what is refused of the options comes later."""
    for words, wide in (
        ("--env CartPole-v1", False), ("--env Breakout-MinAtar", True), ("--env Breakout-MinAtar --network mlp", False),
        ("--env CartPole-v1 --pbt-every 1000", True), (f"--resume {tmp_path / 'nothing'}", True),
    ):  # fmt: skip
        assert session.will_convolve(parse(words.split())) == wide
    for env in ("CartPole-v1", "Breakout-MinAtar"):
        folder = RunFolder(tmp_path / env)
        folder.path.mkdir()
        (plan,) = session.plans_of(parse(["--env", env]))
        folder.write_json(folder.config, plan.to_json())
        assert session.will_convolve(parse(["--resume", str(folder.path)])) == (env != "CartPole-v1")
