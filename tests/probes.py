"""An exam with known answers: small questions, one drawn at each reset, as one table and one environment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jdqn

DISCOUNT = 0.8


class Node(NamedTuple):
    """A state of the exam."""

    seen: str  # what the observation says: hidden things, such as a cue of long ago, look alike
    pays: tuple[float, float]  # for either action
    then: tuple[str, str]  # the next state, or "" where the episode ends: the observation stays what it is
    coin: float = 0.0  # so much is won or lost on top, either with probability 1/2
    stops: float = 0.0  # probability that the episode stops where it is
    limit: bool = False  # such a stop is a time limit and no termination


def _alike(seen, pays, then, **more):
    """A state whose two actions do the same."""
    return Node(seen, (pays, pays), (then, then), **more)


LOCK = (1, 0, 0, 1)  # the only sequence that opens it
NODES = {
    "one": _alike("one", 1.0, ""),
    "far_0": _alike("far_0", 0.0, "far_1"),
    "far_1": _alike("far_1", 0.0, "far_2"),
    "far_2": _alike("far_2", 0.0, "far_3"),
    "far_3": _alike("far_3", 1.0, ""),
    "choice": Node("choice", (0.0, 1.0), ("", "")),
    "left": Node("left", (1.0, -1.0), ("", "")),
    "right": Node("right", (-1.0, 1.0), ("", "")),
    "limit": _alike("limit", 0.3, "limit", stops=0.5, limit=True),
    "mortal": _alike("mortal", 0.3, "mortal", stops=0.5),
    "toss": _alike("toss", 0.0, "coin"),
    "coin": _alike("coin", 0.0, "", coin=1.0),
    **{
        f"lock_{i}": Node(
            f"lock_{i}",
            tuple((1.0 if i + 1 == len(LOCK) else 0.0) if a == key else 0.05 for a in (0, 1)),
            tuple((f"lock_{i + 1}" if i + 1 < len(LOCK) else "") if a == key else "" for a in (0, 1)),
        )
        for i, key in enumerate(LOCK)
    },
    **{
        name: node
        for cue, pays in (("red", (1.0, -1.0)), ("blue", (-1.0, 1.0)))
        for name, node in {
            cue: _alike(cue, 0.0, f"{cue}_1"),
            f"{cue}_1": _alike("wait", 0.0, f"{cue}_2"),
            f"{cue}_2": _alike("wait", 0.0, f"{cue}_3"),
            f"{cue}_3": Node("ask", pays, ("", "")),
        }.items()
    },
}
NAMES = tuple(NODES)
SEEN = tuple(dict.fromkeys(node.seen for node in NODES.values()))
LOCKED = tuple(name for name in NAMES if name.startswith("lock"))
AFTER_A_CUE = tuple(name for name in NAMES if name.startswith(("red", "blue")))
STARTS = ("one", "far_0", "choice", "left", "right", "limit", "mortal", "toss", "lock_0", "lock_0", "red", "blue")
# A way to every state from a start, as a recurrent network needs one.
PATHS = (
    ("one",), ("far_0", "far_1", "far_2", "far_3"), ("choice",), ("left",), ("right",), ("limit", "limit"), ("mortal",),
    ("toss", "coin"), ("lock_0", "lock_1", "lock_2", "lock_3"), ("red", "red_1", "red_2", "red_3"),
    ("blue", "blue_1", "blue_2", "blue_3"),
)  # fmt: skip


def exam() -> jdqn.Env:
    """The environment: `NODES` from a random one of `STARTS`, shown as one-hot vectors."""
    nodes = NODES.values()
    pays = jnp.array([node.pays for node in nodes])
    ends = jnp.array([[not name for name in node.then] for node in nodes])
    then = jnp.array([[NAMES.index(name or start) for name in node.then] for start, node in NODES.items()])
    coin, stops = jnp.array([node.coin for node in nodes]), jnp.array([node.stops for node in nodes])
    limit = jnp.array([node.limit for node in nodes])
    seen = jnp.array([SEEN.index(node.seen) for node in nodes])
    starts = jnp.array([NAMES.index(name) for name in STARTS])

    def observe(state):
        return jax.nn.one_hot(seen[state], len(SEEN), dtype=bool)

    def reset(key):
        state = jax.random.choice(key, starts)
        return state, observe(state)

    def step(key, state, action):
        k_coin, k_stop = jax.random.split(key)
        reward = pays[state, action] + coin[state] * jax.random.rademacher(k_coin, (), float)
        over = ends[state, action] | (jax.random.uniform(k_stop) < stops[state])
        after = then[state, action]
        return after, jdqn.Step(observe(after), reward, over & ~limit[state], over & limit[state])

    return jdqn.Env(reset, step, num_actions=2, name="exam")


def answers(bonus: float = 0.0, temperature: float = 0.0, floor: float = -1.0) -> dict[str, np.ndarray]:
    """Q [A] of every state by dynamic programming, Munchausen's where bonus and temperature are not zero."""
    q = {name: np.zeros(2) for name in NODES}

    def log_policy(q):
        return (q - q.max()) / temperature - np.log(np.exp((q - q.max()) / temperature).sum())

    def value(q):
        return q.max() if not temperature else (np.exp(log_policy(q)) * (q - temperature * log_policy(q))).sum()

    def back_up(name, node):
        new = np.array(node.pays)
        for action, then in enumerate(node.then):
            if then:
                goes_on = 1.0 if node.limit else 1.0 - node.stops
                new[action] += DISCOUNT * goes_on * value(q[then])
        return new + (bonus * np.clip(temperature * log_policy(q[name]), floor, 0.0) if bonus else 0.0)

    for _ in range(500):
        q = {name: back_up(name, node) for name, node in NODES.items()}
    return q


def sit(trainer: jdqn.Trainer, params) -> jax.Array:
    """Greedy values [T, B, A] along each of `PATHS`; what comes after a path's end is void."""
    length = max(map(len, PATHS))
    index = np.array([[SEEN.index(NODES[path[min(t, len(path) - 1)]].seen) for path in PATHS] for t in range(length)])
    obs = jax.nn.one_hot(index, len(SEEN), dtype=bool)

    def tick(carry, obs):
        values, carry = trainer.policy.values(params, None, obs, carry, jnp.zeros(len(PATHS), bool))
        return carry, values

    return jax.lax.scan(tick, trainer.policy.carry(len(PATHS)), obs)[1]


def by_name(table: np.ndarray) -> dict[str, np.ndarray]:
    """What `sit` gave, by the state's name."""
    return {name: table[t, b] for b, path in enumerate(PATHS) for t, name in enumerate(path)}
