"""Value heads: what a network's last layer means, and how it learns.

A head turns network output into atoms, to act and to bootstrap, and scores network output against
target atoms, to learn. What lies between two heads' atoms (n-step, double, Munchausen, lambda) is
in targets.py and does not know which head is in use.
"""

from typing import NamedTuple, Protocol

import jax.numpy as jnp

from .types import Array, Atoms, PyTree


class AtomsFn(Protocol):
    def __call__(self, out: PyTree) -> Atoms:
        """Return atoms [..., A, N] of the network output [..., A, size]."""
        ...


class LossFn(Protocol):
    def __call__(self, out: PyTree, action: Array, target: Atoms) -> tuple[Array, Array]:
        """Return (loss [...], priority error [...]) of out [..., A, size] at action [...] against target [..., N]."""
        ...


class Head(NamedTuple):
    size: int  # numbers per action that the last layer emits
    taus: int  # quantile fractions that the network is to sample; 0 for every head but IQN's kind
    atoms: AtomsFn
    loss: LossFn


def pick(x: Array, action: Array) -> Array:
    """x [..., A, N] at action [...] -> [..., N]."""
    return jnp.take_along_axis(x, action[..., None, None], -2).squeeze(-2)


def huber(x: Array, delta: float = 1.0) -> Array:
    """x^2 / 2 within delta of zero, linear beyond: its gradient is x clipped to +-delta."""
    size = jnp.abs(x)
    return jnp.where(size <= delta, 0.5 * x**2, delta * (size - 0.5 * delta))


def squared(x: Array) -> Array:
    """x^2 / 2: its gradient is x."""
    return 0.5 * x**2


LOSSES = {"huber": huber, "squared": squared}


def scalar(loss: str = "huber") -> Head:
    """The expected return, learnt by the TD error (Mnih et al. 2015).

    The paper clips the error to +-1, which is the Huber loss. `loss="squared"` leaves it alone.
    """
    score = LOSSES[loss]

    def atoms(out):
        return Atoms(out, jnp.ones_like(out))

    def loss_fn(out, action, target):
        error = target.mean() - pick(out, action)[..., 0]
        return score(error), jnp.abs(error)

    return Head(1, 0, atoms, loss_fn)
