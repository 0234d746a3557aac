"""Episodes follow one another as envs/base.py says: the final observation is a tick of its own."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdqn
from jdqn import envs

TICKS, LIMIT = 120, 20


def scripted():
    """The action says how a step ends: 0 not, 1 terminated, 2 truncated, 3 both. obs is the steps so far."""

    def step(key, t, action):
        return t + 1, jdqn.Step(t + 1, 1.0 + action, action % 2 == 1, action >= 2)

    return jdqn.Env(lambda key: (jnp.int32(0), jnp.int32(0)), step, 4)


SCRIPT = """
action  obs reward terminated last
     0    1      1          0    0
     1    2      2          1    1
     1    0      0          0    0  a first observation, whatever the action
     0    1      1          0    0
     2    2      3          0    1  a time limit
     3    0      0          0    0
     3    1      4          1    1  both at once: the task is over
     2    0      0          0    0
     0    1      1          0    0
"""


def test_an_episode_ends_with_a_tick_of_its_own():
    vector = envs.vectorise(scripted(), 2)
    (state, obs), last = vector.reset(jax.random.key(0)), jnp.zeros(2, bool)
    assert obs.tolist() == [0, 0]
    step = jax.jit(vector.step)
    for t, line in enumerate(SCRIPT.strip().splitlines()[1:]):
        action, *expected = map(int, line.split()[:5])
        state, tick = step(jax.random.key(1 + t), state, last, jnp.array([action, 0]))
        last = tick.last
        assert [x[0].item() for x in tick] == expected, line
        assert [x[1].item() for x in tick] == [t + 1, 1, 0, 0]  # its neighbour goes on


def by_hand(step, reset, start, k_step, k_reset, actions):
    """One environment by gymnax's own functions: (first obs, rows of (obs, reward, terminated, last))."""
    first, state = reset(start)
    last, rows = False, []
    for t in range(TICKS):
        if last:
            obs, state = reset(k_reset[t])
            reward, terminated, last = 0.0, False, False
        else:
            obs, state, reward, terminated, _ = step(k_step[t], state, actions[t])
            last = bool(terminated) or int(state.time) == LIMIT
        rows.append([obs, float(reward), bool(terminated), last])
    return first, rows


@pytest.mark.parametrize(("num_envs", "backend"), [(3, "cpu"), (40, "cpu"), (40, "gpu")])
def test_cartpole_equals_a_plain_loop(num_envs, backend, monkeypatch):
    """Also where several batches of resets follow one another, and where all are reset and few are taken."""
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: backend)
        vector = envs.vectorise(envs.make("CartPole-v1", max_steps_in_episode=LIMIT), num_envs)
    actions = np.random.default_rng(0).integers(0, 2, (TICKS, num_envs))
    keys, start = jax.random.split(jax.random.key(0), TICKS), jax.random.key(1)
    fold_in = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))  # as vectorise derives them
    k_step, k_reset = (fold_in(jax.random.clone(keys), k + jnp.arange(num_envs)) for k in (0, num_envs))
    starts = jax.random.split(jax.random.clone(start), num_envs)

    def tick(carry, x):
        state, after = vector.step(x[0], *carry, x[1])
        return (state, after.last), after

    state, first = vector.reset(start)
    scan = jax.jit(lambda *x: jax.lax.scan(tick, *x)[1])
    ours = jax.device_get(scan((state, jnp.zeros(num_envs, bool)), (keys, actions)))
    gym, params = gymnax.make("CartPole-v1")
    step = jax.jit(lambda *x: gym.step_env(*x, params))
    reset = jax.jit(lambda key: gym.reset_env(key, params))
    for e in range(num_envs):
        obs, rows = by_hand(step, reset, starts[e], k_step[:, e], k_reset[:, e], actions[:, e])
        np.testing.assert_allclose(first[e], obs, rtol=1e-6)
        for theirs, mine in zip(zip(*rows, strict=True), ours, strict=True):
            np.testing.assert_allclose(mine[:, e], theirs, rtol=1e-4, atol=1e-5)
    assert ours.terminated.sum() > 3
    assert (ours.last & ~ours.terminated).sum() > 3


def river(**changes):
    """A sound environment but for `changes`."""
    parts = dict(state=jnp.int32(0), obs=jnp.zeros(3), reward=jnp.float32(1), terminated=jnp.bool(False)) | changes

    def step(key, state, action):
        return parts["state"], jdqn.Step(parts["obs"], parts["reward"], parts["terminated"], jnp.bool(False))

    first = parts.get("first", jnp.zeros(3))
    return jdqn.Env(lambda key: (jnp.int32(0), first), step, parts.get("num_actions", 2), "River")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(state=jnp.float32(0)), r"must keep state at int32\[\], and step gives float32\[\]"),
        (dict(state=(jnp.int32(0),)), "must keep the structure of its state"),
        (dict(obs=jnp.zeros(4)), r"must keep obs at float32\[3\], and step gives float32\[4\]"),
        (dict(reward=jnp.ones(1)), r"must keep reward at float32\[\], and step gives float32\[1\]"),
        (dict(terminated=jnp.float32(0)), r"must keep terminated at bool\[\], and step gives float32\[\]"),
        (dict(first={"x": jnp.zeros(3)}), "must show one array"),
        (dict(num_actions=0), "must have one action or more"),
    ],
)
def test_an_environment_that_does_not_fit_together_is_refused(changes, sentence):
    config, _ = jdqn.preset()
    with pytest.raises(jdqn.ConfigError, match=f"^River {sentence}"):
        jdqn.build(config, river(**changes))
    envs.check_shapes(river())
