"""What follows a gradient: clipping, an optimiser by name, and the learning rate over time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from .config import Hyper
from .types import Array

# How much of the way to its final fraction the learning rate has gone, of the share of learning_rate_steps gone.
SCHEDULES: dict[str, Callable[[Array], Array]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: 0.5 - 0.5 * jnp.cos(jnp.pi * progress),
}


def learning_rate(ticks: Array, hyper: Hyper, schedule: str = "linear") -> Array:
    """Falls from learning_rate to its final fraction over learning_rate_steps ticks."""
    progress = SCHEDULES[schedule](jnp.clip(ticks / hyper.learning_rate_steps, 0.0, 1.0))
    return hyper.learning_rate * (1.0 + (hyper.learning_rate_final_fraction - 1.0) * progress)


def clip(most: Array | float) -> optax.GradientTransformation:
    """Clip by global norm: optax.clip_by_global_norm bit for bit, but without 0 / 0, which --debug would find."""

    def clipped(updates, _):
        norm = optax.tree.norm(updates)
        divisor = jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
        return jax.tree.map(lambda x: jnp.where(norm < most, x, x / divisor * most), updates)

    return optax.stateless(clipped)


def radam(hyper: Hyper) -> optax.GradientTransformation:
    """RAdam (Liu et al. 2020): optax.scale_by_radam bit for bit, but for a root of negative numbers in its first steps.

    Optax drops that nan, but --debug would find it.
    """
    first, second, epsilon = 0.9, 0.999, hyper.optimizer_epsilon
    longest = 2.0 / (1.0 - second) - 1.0

    def update(updates, state, params=None):
        mean = optax.tree.update_moment(updates, state.mu, first, 1)
        square = optax.tree.update_moment_per_elem_norm(updates, state.nu, second, 2)
        count = optax.safe_increment(state.count)
        decay = second**count
        length = longest - 2 * count * decay / (1 - decay)
        squared = (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length)
        r = jnp.sqrt(jnp.maximum(squared, 0.0))
        steps = jax.tree.map(
            lambda m, v: jnp.where(length >= 5.0, r * m / (jnp.sqrt(v) + epsilon), m),
            optax.tree.bias_correction(mean, first, count),
            optax.tree.bias_correction(square, second, count),
        )
        return steps, optax.ScaleByAdamState(count, mean, square)

    return optax.GradientTransformation(optax.scale_by_radam().init, update)


def muon(hyper: Hyper) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for every matrix, Adam for the rest.

    Nesterov momentum of 0.95, made orthogonal by Newton-Schulz, times sqrt(max(1, out / in)). Optax's own momentum is
    Adam's, with its correction for the bias of the first steps. The paper leaves the last layer to Adam; here it is a
    matrix like others.
    """

    def dimensions(tree):
        return jax.tree.map(lambda x: optax.contrib.MuonDimensionNumbers(), tree)

    def widen(updates, _):
        return jax.tree.map(lambda x: x * max(1.0, x.shape[1] / x.shape[0]) ** 0.5, updates)

    matrix = optax.chain(
        optax.trace(0.95, nesterov=True),
        optax.contrib.scale_by_muon(beta=0.0, nesterov=False, weight_dimension_numbers=dimensions),
        optax.stateless(widen),
    )
    rest = optax.scale_by_adam(eps=hyper.optimizer_epsilon)
    kinds = {"matrix": matrix, "rest": rest}
    return optax.partition(kinds, lambda tree: jax.tree.map(lambda x: "matrix" if x.ndim == 2 else "rest", tree))


# An optimiser is a function of Hyper, so that its numbers stay traced; the learner applies the rate.
OPTIMIZERS: dict[str, Callable[[Hyper], optax.GradientTransformation]] = {
    "adam": lambda hyper: optax.scale_by_adam(eps=hyper.optimizer_epsilon),
    "radam": radam,
    "rmsprop": lambda hyper: optax.scale_by_rms(decay=0.95, eps=hyper.optimizer_epsilon, eps_in_sqrt=False),
    "muon": muon,
    "sgd": lambda hyper: optax.identity(),
}
