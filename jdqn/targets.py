"""Bellman targets: from rewards and the next state's atoms to the atoms that a head should learn.

`n_step` is the one place where the discount meets rewards, terminations and time limits.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .config import Hyper
from .heads import Head, pick
from .types import Array, Atoms, PyTree


class Returns(NamedTuple):
    """n-step returns of the U learnt rows of each segment."""

    reward: Array  # [U, B] r_t + ... + discount^(k-1) r_{t+k-1}
    discount: Array  # [U, B] discount^k, or 0 where the task terminated on the way
    bootstrap: Array  # [U, B] int32, row t+k: n later, or the episode's last row if that comes first
    ended: Array  # [U, B] bool, the bootstrap row is a last row
    valid: Array  # [U, B] bool, row t is a transition and not itself a last row


class Outputs(NamedTuple):
    """Network outputs at the learnt rows and at their bootstrap rows. XLA drops those no target reads."""

    now_online: PyTree  # [U, B, A, size] the one that gradients flow through
    now_target: PyTree
    next_online: PyTree
    next_target: PyTree


class TargetFn(Protocol):
    def __call__(self, head: Head, hyper: Hyper, outputs: Outputs, action: Array, returns: Returns) -> Atoms:
        """Return the atoms [U, B, N] to learn at action [U, B]."""
        ...


def n_step(reward: Array, terminated: Array, last: Array, discount: Array | float, n: int) -> Returns:
    """n-step returns that stop at an episode's last row.

    Args:
        reward, terminated, last: consecutive rows [L, B], as in `Row`.
        discount: discount factor per step.
        n: rewards to sum; U = L - n rows can be learnt.

    A window that meets the episode's end is shortened: after a termination nothing is bootstrapped,
    after a time limit the episode's true final observation is, with the discount of the steps taken.
    """
    learnt = reward.shape[0] - n
    valid = alive = ~last[:learnt]
    total, factor = jnp.zeros(alive.shape), jnp.ones(alive.shape)
    bootstrap = jnp.broadcast_to(jnp.arange(learnt)[:, None], alive.shape)
    for k in range(n):
        total += jnp.where(alive, factor * reward[k : k + learnt], 0.0)
        factor *= jnp.where(alive, discount * ~terminated[k : k + learnt], 1.0)
        bootstrap += alive
        alive &= ~last[k + 1 : k + 1 + learnt]
    ended = jnp.take_along_axis(last, bootstrap, 0)
    return Returns(total, factor, bootstrap, ended, valid)


def greedy(double: bool = False) -> TargetFn:
    """Bootstrap from the best next action (Watkins 1989; Mnih et al. 2015).

    With `double` the online network picks the action that the target network values
    (van Hasselt et al. 2016). IQN draws other fractions to choose than to value; here one draw does both.
    """

    def target(head, hyper, outputs, action, returns):
        chooser = outputs.next_online if double else outputs.next_target
        best = head.atoms(chooser).mean().argmax(-1)
        value, weight = jax.tree.map(lambda x: pick(x, best), head.atoms(outputs.next_target))
        return Atoms(returns.reward[..., None] + returns.discount[..., None] * value, weight)

    return target


def munchausen(mixture: bool = False) -> TargetFn:
    """Soft values at the next state and a clipped log-policy bonus now (Vieillard et al. 2020).

    The policy is softmax(Q_target / temperature), at both states. The next state's return averages over actions atom
    by atom where that means something (quantile heads: the published M-IQN; an expected value either way); with
    `mixture`, and for heads with fixed returns (C51), it is the mixture of the actions' distributions.
    With n > 1 the bonus is that of the first action.
    """

    def target(head, hyper, outputs, action, returns):
        temperature = hyper.munchausen_temperature

        def log_policy(out):
            return jax.nn.log_softmax(head.atoms(out).mean() / temperature)

        now = jnp.take_along_axis(log_policy(outputs.now_target), action[..., None], -1)
        bonus = hyper.munchausen_scale * jnp.clip(temperature * now, hyper.munchausen_floor, 0.0)
        log_next = log_policy(outputs.next_target)[..., None]  # [U, B, A, 1]
        value, weight = head.atoms(outputs.next_target)  # [U, B, A, N]
        value, policy = value - temperature * log_next, jnp.exp(log_next)
        if head.aligned and not mixture:
            value, weight = (policy * value).sum(-2), weight[..., 0, :]
        else:
            value, weight = (x.reshape(*x.shape[:-2], -1) for x in (value, policy * weight))
        return Atoms(returns.reward[..., None] + bonus + returns.discount[..., None] * value, weight)

    return target


def lambda_returns() -> TargetFn:
    """Peng's Q(lambda) along the segment, an expected return (Peng and Williams 1994; PQN, Gallici et al. 2024).

    G_t = r_t + discount_t ((1 - lambda) V_t+1 + lambda G_t+1), where V is the best next value. At an episode's last
    row and at the segment's end G_t+1 is V_t+1. Needs n = 1.
    """

    def target(head, hyper, outputs, action, returns):
        value = head.atoms(outputs.next_target).mean().max(-1)  # [U, B]
        end = jnp.zeros(value.shape, bool).at[-1].set(True)

        def back(following, row):
            reward, discount, stop, value = row
            mixed = (1 - hyper.trace_decay) * value + hyper.trace_decay * following
            total = reward + discount * jnp.where(stop, value, mixed)
            return total, total

        rows = (returns.reward, returns.discount, returns.ended | end, value)
        _, total = jax.lax.scan(back, jnp.zeros_like(value[-1]), rows, reverse=True)
        return Atoms(total[..., None], jnp.ones_like(total[..., None]))

    return target
