"""Value heads: what a network's last layer means, and how it learns.

A head turns network output into atoms, to act and to bootstrap, and scores network output against
target atoms, to learn. What lies between two heads' atoms (n-step, double, Munchausen, lambda) is
in targets.py and does not know which head is in use.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .types import Array, Atoms, PyTree


class AtomsFn(Protocol):
    def __call__(self, out: PyTree) -> Atoms:
        """Return atoms [..., A, N] of the network output."""
        ...


class LossFn(Protocol):
    def __call__(self, out: PyTree, action: Array, target: Atoms) -> tuple[Array, Array]:
        """Return (loss [...], priority error [...]) of `out` at action [...] against target [..., N']."""
        ...


class Head(NamedTuple):
    size: int  # numbers per action that the last layer emits
    atoms: AtomsFn
    loss: LossFn
    aligned: bool = True  # atom i of every action has the same weight, so a policy may average values atom by atom


class Quantiles(NamedTuple):
    """Network output of the heads whose fractions are not fixed."""

    value: Array  # [..., A, N] quantile values at `fraction`
    fraction: Array  # [..., N] in (0, 1)
    weight: Array  # [..., N] probability that each value stands for; sums to 1
    edges: PyTree = ()  # FQF: (edges [..., N - 1] between the fractions, values [..., A, N - 1] there)


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


def rescale(x: Array, epsilon: float = 1e-3) -> Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x (Pohlen et al. 2018), without the difference near zero.

    Epsilon is R2D2's; Pohlen et al. have 0.01.
    """
    return x / (jnp.sqrt(jnp.abs(x) + 1) + 1) + epsilon * x


def unscale(x: Array, epsilon: float = 1e-3) -> Array:
    """The inverse of `rescale`, written so that float32 keeps its digits near zero.

    The textbook form subtracts numbers near 1. With y = sqrt(|h^-1| + 1) - 1, the larger root of
    epsilon y^2 + (1 + 2 epsilon) y = |x|, it is y^2 + 2 y.
    """
    size = jnp.abs(x)
    b = 1 + 2 * epsilon
    y = 2 * size / (b + jnp.sqrt(b**2 + 4 * epsilon * size))
    return jnp.sign(x) * (y**2 + 2 * y)


def scalar(loss: str = "huber", value_rescaling: bool = False) -> Head:
    """The expected return, learnt by the TD error (Mnih et al. 2015).

    The paper clips the error to +-1, which is the Huber loss. `loss="squared"` leaves it alone. With
    `value_rescaling` the network learns h(return), and its atoms are h^-1 of what it says (R2D2).
    """
    score = LOSSES[loss]
    to, back = (rescale, unscale) if value_rescaling else (lambda x: x, lambda x: x)

    def atoms(out):
        return Atoms(back(out), jnp.ones_like(out))

    def loss_fn(out, action, target):
        error = to(target.mean()) - pick(out, action)[..., 0]
        return score(error), jnp.abs(error)

    return Head(1, atoms, loss_fn)


def _weigh(x: Array, weight: Array) -> Array:
    """Sum of x [..., N, N'] weighted by weight [..., N'], as a matrix product: a CPU sums a last axis one by one."""
    return jnp.einsum("...ij,...j->...i", x, weight, precision=jax.lax.Precision.HIGHEST)


def _bins(low: float, high: float, size: int, project) -> Head:
    """A softmax over `size` fixed returns, learnt by cross-entropy with `project`ed targets [..., size].

    The priority error is the KL divergence: the cross-entropy less the target's own entropy (Hessel et al. 2018).
    """
    support = jnp.linspace(low, high, size)

    def atoms(out):
        return Atoms(jnp.broadcast_to(support, out.shape), jax.nn.softmax(out))

    def loss_fn(out, action, target):
        goal = project(target)
        cross_entropy = -(goal * jax.nn.log_softmax(pick(out, action))).sum(-1)
        # 0 log 0 is 0; jax.scipy.special.xlogy says so too, but meets a nan on its way, which --debug would find.
        entropy = -(goal * jnp.log(jnp.where(goal == 0, 1, goal))).sum(-1)
        return cross_entropy, jnp.maximum(cross_entropy - entropy, 0.0)

    return Head(size, atoms, loss_fn, aligned=False)


def categorical(low: float, high: float, size: int = 51) -> Head:
    """C51 (Bellemare et al. 2017): each target atom is shared between its two neighbours on the support."""
    gap = (high - low) / (size - 1)
    place = jnp.arange(size)

    def project(target):
        position = (jnp.clip(target.value, low, high) - low) / gap  # [..., N'] in units of bins
        distance = jnp.abs(position[..., None, :] - place[:, None])
        return _weigh(jnp.clip(1 - distance, 0, 1), target.weight)

    return _bins(low, high, size, project)


def hl_gauss(low: float, high: float, size: int = 51, smoothing: float = 0.75) -> Head:
    """HL-Gauss (Farebrother et al. 2024): the target is a Gaussian around the expected return, cut into bins.

    `smoothing` is its standard deviation in bins; 0.75 is the paper's. Bin i lies around the i-th return of the
    support, so that the lowest and the highest return can be expressed; the paper's bins end at these two. The
    target's mean alone is learnt, as in the paper, whatever else its atoms say.
    """
    gap = (high - low) / (size - 1)
    edges = low + gap * (jnp.arange(size + 1) - 0.5)

    def project(target):
        mean = jnp.clip(target.mean(), low, high)[..., None]
        below = jax.scipy.special.ndtr((edges - mean) / (smoothing * gap))
        return jnp.diff(below, axis=-1) / (below[..., -1:] - below[..., :1])

    return _bins(low, high, size, project)


def quantile_huber(value: Array, fraction: Array, target: Atoms, kappa: float = 1.0) -> Array:
    """Quantile Huber loss of value [..., N] at fraction [..., N], mean over the target (Dabney et al. 2018).

    Its gradient, which reaches `value` alone, is written out: two matrix products in place of eight passes over
    [..., N, N'], and a fifth of the time on a CPU.
    """
    constant = jax.lax.stop_gradient(value)
    error = target.value[..., None, :] - constant[..., :, None]  # [..., N, N']
    fraction = fraction[..., :, None]
    clipped = jnp.clip(error, -kappa, kappa)
    slope = jnp.where(error < 0, 1 - fraction, fraction) * clipped / kappa
    loss, gradient = _weigh(slope * (error - clipped / 2), target.weight), -_weigh(slope, target.weight)
    loss, gradient = jax.lax.stop_gradient((loss, gradient))
    return loss + gradient * (value - constant)


def quantile(size: int = 200, kappa: float = 1.0) -> Head:
    """QR-DQN (Dabney et al. 2018a): quantile values at the midpoints (2 i + 1) / 2 N."""
    midpoints = (jnp.arange(size) + 0.5) / size

    def atoms(out):
        return Atoms(out, jnp.full_like(out, 1 / size))

    def loss_fn(out, action, target):
        value = pick(out, action)
        loss = quantile_huber(value, jnp.broadcast_to(midpoints, value.shape), target, kappa).sum(-1)
        return loss, jnp.abs(target.mean() - value.mean(-1))

    return Head(size, atoms, loss_fn)


def implicit_quantile(kappa: float = 1.0) -> Head:
    """IQN (Dabney et al. 2018b), and with edges FQF (Yang et al. 2019): the network chooses the fractions.

    FQF's second loss moves the edges towards the smallest 1-Wasserstein error (its Proposition 1). Targets are
    averaged by the probability that each stands for; the FQF paper averages them plainly.
    """

    def atoms(out):
        return Atoms(out.value, jnp.broadcast_to(out.weight[..., None, :], out.value.shape))

    def loss_fn(out, action, target):
        value = pick(out.value, action)
        loss = quantile_huber(value, out.fraction, target, kappa).sum(-1)
        if out.edges:
            edge, at_edge = out.edges
            slope = 2 * pick(at_edge, action) - value[..., 1:] - value[..., :-1]
            loss = loss + (jax.lax.stop_gradient(slope) * edge).sum(-1)
        return loss, jnp.abs(target.mean() - (out.weight * value).sum(-1))

    return Head(1, atoms, loss_fn)
