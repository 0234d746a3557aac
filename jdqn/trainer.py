"""The whole algorithm: act, remember, learn. Read this first.

One iteration steps E environments T times, stores the rows, then makes `updates` gradient steps. The first
`num_warm_up` iterations act at random and make none.
Every algorithm of the family is this loop with other parts: an environment, a network, a value head,
a target rule and a replay. Nothing here knows which.

There is one clock: the iteration number i, which comes from `scan`. Ring position, epsilon, learning
rate, target period and random keys all derive from it, and State holds no counter.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .config import Hyper
from .envs import VectorEnv
from .exploration import Exploration
from .learner import Learner, LearnerState, LearnMetrics
from .networks import Policy
from .replay import Replay
from .shards import WHOLE, Shards
from .types import Array, Key, PyTree, Row


class Actor(NamedTuple):
    """Where the environments stand."""

    env_state: PyTree  # [E, ...]
    obs: Array  # [E, *obs]
    last: Array  # [E] bool, obs is final: the next tick resets
    carry: PyTree  # [E, *hidden] recurrent state before obs
    memory: PyTree  # [E, ...] what the exploration rule remembers
    episode_return: Array  # [E] of the running episode
    episode_length: Array  # [E] int32


class State(NamedTuple):
    """Everything that changes while an agent trains. A checkpoint is this and the clock."""

    key: Key  # never changes: iteration i uses fold_in(key, i)
    actor: Actor
    learner: LearnerState
    replay: PyTree


class Metrics(NamedTuple):
    """What one iteration did. Sums, so that any number of iterations can be added up."""

    env_steps: Array  # [] int32, real transitions: a tick that resets is none
    episodes: Array  # [] int32, episodes that ended
    return_sum: Array  # [] over those
    length_sum: Array  # [] int32, over those
    epsilon: Array  # [] mean over environments
    learn: LearnMetrics  # [] means over the updates; 0 in warm-up, which has none


class InitFn(Protocol):
    def __call__(self, key: Key, hyper: Hyper) -> State:
        """Return a fresh agent."""
        ...


class StepFn(Protocol):
    def __call__(self, state: State, hyper: Hyper, i: Array) -> tuple[State, Metrics]:
        """Return (state, metrics) after iteration i."""
        ...


class Trainer(NamedTuple):
    """Pure functions of one agent: `vmap` them over keys and Hyper for many."""

    init: InitFn
    step: StepFn  # act, remember, learn
    num_warm_up: int  # iterations at the start that act at random and do not learn
    policy: Policy
    ticks: int  # environment ticks in one iteration, E x T, of all shards
    updates: int  # gradient steps in one iteration past warm-up


def make_trainer(
    env: VectorEnv,
    policy: Policy,
    exploration: Exploration,
    replay: Replay,
    learner: Learner,
    *,
    rollout_length: int,
    updates: int,
    num_warm_up: int,
    shards: Shards = WHOLE,
) -> Trainer:
    """Join the parts. Units: `rollout_length` ticks per environment, `updates` gradient steps, iterations.

    Of an agent in several shards, `env` and the other parts are those of one shard; the clock is the whole agent's.
    """
    num_envs = env.num_envs
    ticks = shards.count * num_envs * rollout_length

    def collect(key, actor, params, epsilon, hyper):
        """Act for one rollout: (actor, rows [T, E, ...], ended [T, E], returns [T, E], lengths [T, E])."""

        def tick(actor, t):
            k_network, k_select, k_env = jax.random.split(jax.random.fold_in(key, t), 3)
            no_reset = jnp.zeros(num_envs, bool)  # the carry is cleared below, on leaving a last row
            values, carry = policy.members(params, k_network, actor.obs, actor.carry, no_reset)
            action, memory = exploration.select(k_select, actor.memory, values, actor.last, epsilon, hyper)
            env_state, after = env.step(k_env, actor.env_state, actor.last, action)
            row = Row(actor.obs, action, after.reward, after.terminated, actor.last, policy.kept(actor.carry))
            carry = jax.tree.map(lambda c: jnp.where(_like(actor.last, c), jnp.zeros_like(c), c), carry)
            total = actor.episode_return + after.reward
            length = actor.episode_length + ~actor.last
            actor = Actor(
                env_state, after.obs, after.last, carry, memory,
                jnp.where(after.last, 0, total), jnp.where(after.last, 0, length),
            )  # fmt: skip
            return actor, (row, after.last, total, length)

        actor, (rows, ended, returns, lengths) = jax.lax.scan(tick, actor, jnp.arange(rollout_length))
        return actor, rows, (ended, returns, lengths)

    def init(key, hyper):
        k_env, k_network, k_memory, k_run = jax.random.split(key, 4)
        k_env, k_memory, k_run = map(shards.own_key, (k_env, k_memory, k_run))  # but one network for all
        env_state, obs = env.reset(k_env)
        learning = learner.init(k_network, obs[0], hyper)
        none = jnp.zeros(num_envs, bool)
        actor = Actor(
            env_state, obs, none, policy.carry(num_envs), exploration.init(k_memory, num_envs),
            jnp.zeros(num_envs), jnp.zeros(num_envs, jnp.int32),
        )  # fmt: skip
        rows = jax.eval_shape(lambda *x: collect(*x)[1], k_run, actor, learning.params, jnp.ones(num_envs), hyper)
        row = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), rows)
        return State(k_run, actor, learning, replay.init(row))

    def step(state, hyper, i):
        k_act, k_sample, k_learn = jax.random.split(jax.random.fold_in(state.key, i), 3)
        warm, elapsed = i < num_warm_up, i * float(ticks)
        epsilon = shards.own(exploration.epsilon(elapsed, shards.count * num_envs, hyper))
        epsilon = jnp.where(warm, 1.0, epsilon)
        actor, rows, (ended, returns, lengths) = collect(k_act, state.actor, state.learner.params, epsilon, hyper)
        memory = replay.add(state.replay, rows, i, hyper)

        def learn(u, carry):
            learning, memory, sums = carry
            sample = replay.sample(k_sample, memory, i + 1, u, hyper)
            count = (i - num_warm_up) * updates + u + 1
            k_loss = jax.random.fold_in(k_learn, u)
            learning, error, metrics = learner.update(k_loss, learning, sample, count, elapsed, hyper)
            memory = replay.update(memory, sample.indices, error, hyper)
            return learning, memory, jax.tree.map(jnp.add, sums, metrics)

        # Rounds that are known when compiling might be one, which XLA would unroll and fuse its sampling with the write
        # above, at the price of a copy of the whole replay.
        rounds = jnp.where(warm, 0, updates)
        learning, memory, sums = jax.lax.fori_loop(0, rounds, learn, (state.learner, memory, LearnMetrics.full(0.0)))
        metrics = Metrics(
            (~rows.last).sum(), ended.sum(), (ended * returns).sum(), (ended * lengths).sum(), epsilon.mean(),
            jax.tree.map(lambda x: x / updates, sums),
        )  # fmt: skip
        return State(state.key, actor, learning, memory), metrics

    return Trainer(init, step, num_warm_up, policy, ticks, updates)


def _like(flags: Array, x: Array) -> Array:
    """flags [E] with as many axes as x [E, ...]."""
    return jnp.expand_dims(flags, range(1, x.ndim))


def advance(trainer: Trainer, state: State, hyper: Hyper, start: Array | int, iterations: int) -> tuple[State, Metrics]:
    """Iterations start .. start + iterations - 1. Metrics [iterations]."""
    return jax.lax.scan(lambda s, i: trainer.step(s, hyper, i), state, start + jnp.arange(iterations))


def train(trainer: Trainer, key: Key, hyper: Hyper, iterations: int) -> tuple[State, Metrics]:
    """A fresh agent after `iterations` iterations, warm-up included. Metrics [iterations]."""
    return advance(trainer, trainer.init(key, hyper), hyper, 0, iterations)
