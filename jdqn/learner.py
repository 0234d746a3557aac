"""One gradient step: segments in, new parameters and per-segment errors out."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from .config import Hyper
from .heads import Head
from .networks import Network
from .optimizers import OPTIMIZERS, clip, learning_rate
from .shards import WHOLE, Shards
from .targets import Outputs, TargetFn, n_step
from .types import Array, Key, PyTree, Sample


class LearnerState(NamedTuple):
    params: PyTree
    target_params: PyTree  # () without a target network
    optimizer: PyTree


class LearnMetrics(NamedTuple):
    loss: Array  # [] mean over the learnt transitions, weighted as the gradient is; 0 where there was none
    q: Array  # [] mean target, in units of return
    grad_norm: Array  # [] global norm before clipping

    @classmethod
    def full(cls, value: float) -> "LearnMetrics":
        """Every field `value`."""
        return cls(*(jnp.full((), value) for _ in cls._fields))


class InitFn(Protocol):
    def __call__(self, key: Key, obs: Array, hyper: Hyper) -> LearnerState:
        """Return parameters and optimiser state for observations like obs [*obs]."""
        ...


class UpdateFn(Protocol):
    def __call__(
        self, key: Key, state: LearnerState, sample: Sample, updates: Array, ticks: Array, hyper: Hyper
    ) -> tuple[LearnerState, Array, LearnMetrics]:
        """Return (state, errors [B], metrics) after the gradient step number `updates` (from 1) at tick `ticks`."""
        ...


class Learner(NamedTuple):
    init: InitFn
    update: UpdateFn


def make_learner(
    network: Network,
    head: Head,
    target: TargetFn,
    *,
    n: int,
    target_period: int,
    optimizer: str,
    schedule: str = "linear",
    burn_in: int = 0,
    shards: Shards = WHOLE,
) -> Learner:
    """Minimise `head`'s loss against `target` over the valid rows of each segment.

    Args:
        n: rewards summed before bootstrapping.
        target_period: gradient steps between two updates of the target network. With 0 there is none, and the network
            bootstraps from itself.
        optimizer: a name in OPTIMIZERS, applied after clipping by global norm.
        schedule: a name in SCHEDULES.
        burn_in: rows at a segment's start that only warm up the carry of a recurrent network.
        shards: whose batches make up one batch. The metrics of a shard average to the agent's.
    """

    def transformation(hyper):
        return optax.chain(clip(hyper.max_gradient_norm), OPTIMIZERS[optimizer](hyper))

    def init(key, obs, hyper):
        params = network.init(key, obs)
        return LearnerState(params, params if target_period else (), transformation(hyper).init(params))

    def loss_fn(params, target_params, key, sample, hyper):
        rows = sample.rows
        reward, terminated, last = (x[burn_in:] for x in (rows.reward, rows.terminated, rows.last))
        returns = n_step(reward, terminated, last, hyper.discount, n)
        action = rows.action[burn_in:][: returns.valid.shape[0]]
        several = network.recurrent or returns.valid.shape[0] > n
        outputs_of = segment_outputs(network, burn_in) if several else row_outputs(network)
        outputs = outputs_of(params, target_params if target_period else params, key, rows, returns)
        goal = jax.lax.stop_gradient(target(head, hyper, outputs, action, returns))
        loss, error = head.loss(outputs.now_online, action, goal)  # [U, B]
        share = returns.valid / jnp.maximum(shards.mean(returns.valid.sum().astype(jnp.float32)), 1 / shards.count)
        loss = (sample.weight * share * loss).sum()
        error = returns.valid * error
        mean = error.sum(0) / jnp.maximum(returns.valid.sum(0), 1)
        error = hyper.sequence_max_fraction * error.max(0) + (1 - hyper.sequence_max_fraction) * mean
        return loss, (error, (share * goal.mean()).sum())

    def update(key, state, sample, updates, ticks, hyper):
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (error, q)), grads = grad_fn(state.params, state.target_params, key, sample, hyper)
        grads = shards.mean(grads)
        steps, optimizer_state = transformation(hyper).update(grads, state.optimizer, state.params)
        rate = learning_rate(ticks, hyper, schedule)
        params = jax.tree.map(lambda p, s: p - rate * s, state.params, steps)
        target_params = state.target_params
        if target_period:
            target_params = jax.lax.cond(
                updates % target_period == 0,
                lambda: optax.incremental_update(params, state.target_params, hyper.target_update_rate),
                lambda: state.target_params,
            )
        metrics = LearnMetrics(loss, q, optax.tree.norm(grads))
        return LearnerState(params, target_params, optimizer_state), error, metrics

    return Learner(init, update)


def row_outputs(network: Network):
    """Only the learnt rows and their bootstrap rows go through a network, each with noise of its own."""

    def outputs_of(params, target_params, key, rows, returns):
        learnt = returns.valid.shape[0]
        successor = rows.obs[returns.bootstrap, jnp.arange(returns.bootstrap.shape[1])]

        def apply(params, key, obs):
            return network.apply(params, key, obs, (), rows.last[:learnt])[0]

        k_now, k_now_target, k_next, k_next_target = jax.random.split(key, 4)
        return Outputs(
            now_online=apply(params, k_now, rows.obs[:learnt]),
            now_target=apply(target_params, k_now_target, rows.obs[:learnt]),
            next_online=apply(params, k_next, successor),
            next_target=apply(target_params, k_next_target, successor),
        )

    return outputs_of


def segment_outputs(network: Network, burn_in: int):
    """Both networks see the whole segment once, a recurrent one from its stored carry (Kapturowski et al. 2019).

    That is less work where most bootstrap rows are learnt rows too. Rows now and next share noise and fractions.
    """

    def outputs_of(params, target_params, key, rows, returns):
        learnt = returns.valid.shape[0]
        reset = jnp.concatenate([jnp.zeros_like(rows.last[:1]), rows.last[:-1]])
        start = jax.tree.map(lambda c: c[0], rows.carry)

        def unroll(params, key):
            k_burn_in, k_learn = jax.random.split(key)
            carry = start
            if burn_in:
                _, carry = network.apply(params, k_burn_in, rows.obs[:burn_in], carry, reset[:burn_in])
                carry = jax.lax.stop_gradient(carry)
            return network.apply(params, k_learn, rows.obs[burn_in:], carry, reset[burn_in:])[0]

        def now(out):
            return jax.tree.map(lambda x: x[:learnt], out)

        def then(out):
            return jax.tree.map(lambda x: x[returns.bootstrap, jnp.arange(x.shape[1])], out)

        k_online, k_target = jax.random.split(key)
        online = unroll(params, k_online)
        frozen = online if target_params is params else unroll(target_params, k_target)
        return Outputs(now(online), now(frozen), then(online), then(frozen))

    return outputs_of


def ensemble(learner: Learner, members: int) -> Learner:
    """Members that learn each for itself from the same segments (bootstrapped DQN, Osband et al. 2016).

    Parameters gain a leading axis [K]. A member learns from a segment with probability bootstrap_probability, decided
    by where the segment lies in replay: the same one whenever it is drawn, without a stored mask. The error that
    replay is told is the mean over members.
    """

    def init(key, obs, hyper):
        return jax.vmap(learner.init, (0, None, None))(jax.random.split(key, members), obs, hyper)

    def update(key, state, sample, updates, ticks, hyper):
        def one(key, state, member):
            def hears(index):
                k_segment = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), member), index)
                return jax.random.bernoulli(k_segment, hyper.bootstrap_probability)

            heard = sample.weight * jax.vmap(hears)(sample.indices)
            return learner.update(key, state, sample._replace(weight=heard), updates, ticks, hyper)

        state, error, metrics = jax.vmap(one)(jax.random.split(key, members), state, jnp.arange(members))
        return state, error.mean(0), jax.tree.map(jnp.mean, metrics)

    return Learner(init, update)
