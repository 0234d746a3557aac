"""One gradient step: segments in, new parameters and per-segment errors out."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from .config import Hyper
from .heads import Head
from .networks import Network
from .targets import Outputs, TargetFn, n_step
from .types import Array, Key, PyTree, Sample


class LearnerState(NamedTuple):
    params: PyTree
    target_params: PyTree
    optimizer: PyTree


class LearnMetrics(NamedTuple):
    loss: Array  # [] mean over the learnt transitions, weighted as the gradient is
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


def learning_rate(ticks: Array, hyper: Hyper) -> Array:
    """Falls linearly from learning_rate to its final fraction over learning_rate_steps ticks."""
    progress = jnp.clip(ticks / hyper.learning_rate_steps, 0.0, 1.0)
    return hyper.learning_rate * (1.0 + (hyper.learning_rate_final_fraction - 1.0) * progress)


# An optimiser is a function of Hyper, so that its numbers stay traced; the learner applies the rate.
OPTIMIZERS: dict[str, Callable[[Hyper], optax.GradientTransformation]] = {
    "adam": lambda hyper: optax.scale_by_adam(eps=hyper.adam_epsilon),
    "sgd": lambda hyper: optax.identity(),
}


def make_learner(
    network: Network, head: Head, target: TargetFn, *, n: int, target_period: int, optimizer: str
) -> Learner:
    """Minimise `head`'s loss against `target` over the valid rows of each segment.

    Args:
        n: rewards summed before bootstrapping.
        target_period: gradient steps between two updates of the target network.
        optimizer: a name in OPTIMIZERS, applied after clipping by global norm.
    """

    def transformation(hyper):
        return optax.chain(optax.clip_by_global_norm(hyper.max_gradient_norm), OPTIMIZERS[optimizer](hyper))

    def init(key, obs, hyper):
        params = network.init(key, obs)
        return LearnerState(params, params, transformation(hyper).init(params))

    def outputs_of(params, target_params, key, rows, returns):
        """Only the learnt rows and their bootstrap rows go through a network."""
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

    def loss_fn(params, target_params, key, sample, hyper):
        rows = sample.rows
        returns = n_step(rows.reward, rows.terminated, rows.last, hyper.discount, n)
        action = rows.action[: returns.valid.shape[0]]
        outputs = outputs_of(params, target_params, key, rows, returns)
        goal = jax.lax.stop_gradient(target(head, hyper, outputs, action, returns))
        loss, error = head.loss(outputs.now_online, action, goal)  # [U, B]
        share = returns.valid / jnp.maximum(returns.valid.sum(), 1)
        loss = (sample.weight * share * loss).sum()
        return loss, ((returns.valid * error).max(0), (share * goal.mean()).sum())

    def update(key, state, sample, updates, ticks, hyper):
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (error, q)), grads = grad_fn(state.params, state.target_params, key, sample, hyper)
        steps, optimizer_state = transformation(hyper).update(grads, state.optimizer, state.params)
        rate = learning_rate(ticks, hyper)
        params = jax.tree.map(lambda p, s: p - rate * s, state.params, steps)
        target_params = jax.lax.cond(
            updates % target_period == 0,
            lambda: optax.incremental_update(params, state.target_params, hyper.target_update_rate),
            lambda: state.target_params,
        )
        metrics = LearnMetrics(loss, q, optax.tree.norm(grads))
        return LearnerState(params, target_params, optimizer_state), error, metrics

    return Learner(init, update)
