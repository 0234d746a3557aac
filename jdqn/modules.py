"""The layers that Q-networks are made of: torsos, recurrent cores, and the output streams.

Torsos map observations [T, B, *obs] to features [T, B, F], outputs map features to [T, B, A, size].
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from .heads import Quantiles
from .products import Conv, Dense, times
from .types import Array, PyTree


class MLP(nn.Module):
    """Dense layers with ReLU, after a LayerNorm if asked for, on [..., F]."""

    sizes: tuple[int, ...]
    layer_norm: bool = False
    dense: Callable[[int], nn.Module] = Dense

    @nn.compact
    def __call__(self, x):
        for size in self.sizes:
            x = self.dense(size)(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return x


def flat(x: Array) -> Array:
    """[T, B, ...] -> [T, B, F]."""
    return x.reshape(*x.shape[:2], -1)


class MinAtarConvolution(nn.Module):
    """Sixteen 3 x 3 filters (Young and Tian 2019), then dense layers."""

    sizes: tuple[int, ...]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x):
        x = Conv(16, (3, 3), padding="VALID")(x)
        x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return MLP(self.sizes, self.layer_norm)(flat(x))


class NatureConvolution(nn.Module):
    """Three convolutions for 84 x 84 images (Mnih et al. 2015), then dense layers."""

    sizes: tuple[int, ...]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x):
        for filters, width, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = Conv(filters, (width, width), (stride, stride), padding="VALID")(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return MLP(self.sizes, self.layer_norm)(flat(x))


class ImpalaResNet(nn.Module):
    """Three sections of a convolution, max-pooling and two residual blocks (Espeholt et al. 2018), then dense ones."""

    sizes: tuple[int, ...]
    layer_norm: bool = False
    filters: tuple[int, ...] = (16, 32, 32)

    @nn.compact
    def __call__(self, x):
        images = x.reshape(-1, *x.shape[2:])
        for filters in self.filters:
            images = nn.max_pool(Conv(filters, (3, 3))(images), (3, 3), (2, 2), "SAME")
            for _ in range(2):
                block = Conv(filters, (3, 3))(nn.relu(images))
                images = images + Conv(filters, (3, 3))(nn.relu(block))
        x = flat(nn.relu(images).reshape(*x.shape[:2], *images.shape[1:]))
        return MLP(self.sizes, self.layer_norm)(nn.LayerNorm()(x) if self.layer_norm else x)


TORSOS = {"mlp": MLP, "minatar": MinAtarConvolution, "nature": NatureConvolution, "impala": ImpalaResNet}
CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


class Core(nn.Module):
    """A recurrent cell over time; the carry is cleared before the rows that `reset` marks."""

    kind: str
    size: int

    @nn.compact
    def __call__(self, x: Array, carry: PyTree, reset: Array) -> tuple[Array, PyTree]:  # [T, B, F] -> [T, B, size]
        def tick(cell, carry, row):
            x, reset = row
            carry = jax.tree.map(lambda c: jnp.where(reset[:, None], 0.0, c), carry)
            return cell(carry, x)

        scan = nn.scan(tick, variable_broadcast="params", split_rngs={"params": False})
        carry, x = scan(CELLS[self.kind](self.size), carry, (x, reset))
        return x, carry


class NoisyDense(nn.Module):
    """A factorised noisy layer (Fortunato et al. 2018), f(x) = sign(x) sqrt|x|.

    One draw serves the whole batch, as in the paper. With `apart` every row [T, B] has its own, so that environments
    which step together explore apart. Without an rng named "noise" the means alone are used.
    """

    features: int
    sigma: float = 0.5
    apart: bool = False

    @nn.compact
    def __call__(self, x):
        inputs = x.shape[-1]
        bound = inputs**-0.5

        def uniform(key, shape):
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        spread = nn.initializers.constant(self.sigma * bound)
        out = times(x, self.param("kernel", uniform, (inputs, self.features)))
        out += self.param("bias", uniform, (self.features,))
        kernel_spread = self.param("kernel_spread", spread, (inputs, self.features))
        bias_spread = self.param("bias_spread", spread, (self.features,))
        if not self.has_rng("noise"):
            return out
        k_in, k_out = jax.random.split(self.make_rng("noise"))
        rows = tuple(n if self.apart and axis < 2 else 1 for axis, n in enumerate(x.shape[:-1]))
        noise_in, noise_out = (
            jnp.sign(e) * jnp.sqrt(jnp.abs(e))
            for e in (jax.random.normal(k_in, (*rows, inputs)), jax.random.normal(k_out, (*rows, self.features)))
        )
        # The noisy kernel is spread_ij e_i e_j: scaling inputs and outputs spares making one kernel per row.
        return out + (times(x * noise_in, kernel_spread) + bias_spread) * noise_out


class Stream(nn.Module):
    """One hidden layer (none if `hidden` is 0), then a linear output."""

    hidden: int
    features: int
    layer_norm: bool = False
    dense: Callable[[int], nn.Module] = Dense

    @nn.compact
    def __call__(self, x):
        sizes = (self.hidden,) if self.hidden else ()
        return self.dense(self.features)(MLP(sizes, self.layer_norm, self.dense)(x))


class Plain(nn.Module):
    """One stream for all actions."""

    hidden: int
    actions: int
    size: int
    layer_norm: bool = False
    dense: Callable[[int], nn.Module] = Dense

    @nn.compact
    def __call__(self, x):
        out = Stream(self.hidden, self.actions * self.size, self.layer_norm, self.dense)(x)
        return out.reshape(*x.shape[:-1], self.actions, self.size)


class Dueling(nn.Module):
    """V + A - mean A, with the gradient into the torso scaled by 1 / sqrt 2 (Wang et al. 2016)."""

    hidden: int
    actions: int
    size: int
    layer_norm: bool = False
    dense: Callable[[int], nn.Module] = Dense

    @nn.compact
    def __call__(self, x):
        x = 0.5**0.5 * x + (1 - 0.5**0.5) * jax.lax.stop_gradient(x)
        value = Stream(self.hidden, self.size, self.layer_norm, self.dense)(x)[..., None, :]
        advantage = Stream(self.hidden, self.actions * self.size, self.layer_norm, self.dense)(x)
        advantage = advantage.reshape(*x.shape[:-1], self.actions, self.size)
        return value + advantage - advantage.mean(-2, keepdims=True)


class Table(nn.Module):
    """One free number per state and action, zero at first; the observation is the one-hot state."""

    actions: int
    size: int

    @nn.compact
    def __call__(self, x):
        table = self.param("table", nn.initializers.zeros, (x.shape[-1], self.actions * self.size))
        return (x @ table).reshape(*x.shape[:2], self.actions, self.size)


def cos_pi(x: Array) -> Array:
    """cos(pi x), elementwise, within 2e-7.

    By its power series around the nearest whole number. A CPU computes `jnp.cos` number by number, and IQN would spend
    most of its time there.
    """
    whole = jnp.round(x)
    square = (x - whole) ** 2
    total = jnp.zeros_like(x)
    for k in range(6, -1, -1):
        total = total * square + (-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k)
    return jnp.where(whole % 2 == 0, total, -total)


class AtFractions(nn.Module):
    """Quantile values at given fractions: features times an embedding of 64 cosines (IQN, Dabney et al. 2018b)."""

    last: nn.Module  # an output of size 1
    cosines: int = 64

    @nn.compact
    def __call__(self, x: Array, fraction: Array) -> Array:  # [T, B, F], [T, B, N] -> [T, B, A, N]
        embedded = cos_pi(jnp.arange(self.cosines) * fraction[..., None])
        features = x[..., None, :] * nn.relu(Dense(x.shape[-1])(embedded))  # [T, B, N, F]
        return self.last(features)[..., 0].swapaxes(-1, -2)


class ImplicitQuantiles(nn.Module):
    """Values at fractions drawn uniformly; evenly spread where there is no rng named "fractions"."""

    last: nn.Module
    samples: int

    @nn.compact
    def __call__(self, x):
        shape = (*x.shape[:2], self.samples)
        if self.has_rng("fractions"):
            fraction = jax.random.uniform(self.make_rng("fractions"), shape)
        else:
            fraction = jnp.broadcast_to((jnp.arange(self.samples) + 0.5) / self.samples, shape)
        value = AtFractions(self.last, name="values")(x, fraction)
        return Quantiles(value, fraction, jnp.full(shape, 1 / self.samples))


class ProposedQuantiles(nn.Module):
    """Values at fractions that a layer proposes (FQF, Yang et al. 2019); its gradient stays out of the torso.

    The paper trains the proposal with RMSProp at 2.5e-9, about 1 / 20,000 of the network's rate. Here one optimiser
    trains everything, and the proposal's logits are scaled by `rate`, which slows them a hundredfold under Adam.
    """

    last: nn.Module
    samples: int
    rate: float = 0.01

    @nn.compact
    def __call__(self, x):
        features = jax.lax.stop_gradient(x)
        share = jax.nn.softmax(self.rate * Dense(self.samples)(features))
        edge = jnp.cumsum(share, -1)[..., :-1]  # [T, B, N - 1] between the fractions
        fixed = jax.lax.stop_gradient(share)
        middle = jnp.cumsum(fixed, -1) - fixed / 2
        at, still = AtFractions(self.last, name="values"), jax.lax.stop_gradient(edge)
        if self.has_rng("noise"):  # one call: middles and edges have to see the same noise
            value, at_edge = jnp.split(at(x, jnp.concatenate([middle, still], -1)), [self.samples], -1)
        else:  # two: the compiler leaves the second one out where nobody asks for edges
            value, at_edge = at(x, middle), at(x, still)
        return Quantiles(value, middle, fixed, (edge, jax.lax.stop_gradient(at_edge)))
