"""Q-networks as three pure functions: torso, last layer, and how both are called.

Feed-forward networks ignore `carry` and `reset`; recurrent ones scan over time.
"""

from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from .config import ConfigError
from .heads import Head
from .types import Array, Key, PyTree


class InitFn(Protocol):
    def __call__(self, key: Key, obs: Array) -> PyTree:
        """Return parameters for observations shaped like obs [*obs]."""
        ...


class ApplyFn(Protocol):
    def __call__(self, params: PyTree, key: Key, obs: Array, carry: PyTree, reset: Array) -> tuple[PyTree, PyTree]:
        """Return (out [T, B, A, size], carry [B, *hidden]) for obs [T, B, *obs].

        `reset` [T, B] clears the carry before that row. `key` is for networks that sample.
        """
        ...


class CarryFn(Protocol):
    def __call__(self, batch: int) -> PyTree:
        """Return the carry [B, *hidden] at the start of an episode; () if feed-forward."""
        ...


class Network(NamedTuple):
    init: InitFn
    apply: ApplyFn
    carry: CarryFn
    recurrent: bool


class MLP(nn.Module):
    """Dense layers with ReLU, after a LayerNorm if asked for, on the flattened observation."""

    sizes: tuple[int, ...]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x):  # [T, B, *features] -> [T, B, F]
        x = x.reshape(*x.shape[:2], -1)
        for size in self.sizes:
            x = nn.Dense(size)(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return x


class MinAtarConvolution(nn.Module):
    """Sixteen 3 x 3 filters (Young and Tian 2019), then dense layers."""

    sizes: tuple[int, ...]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x):  # [T, B, H, W, C] -> [T, B, F]
        x = nn.Conv(16, (3, 3), padding="VALID")(x)
        x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return MLP(self.sizes, self.layer_norm)(x)


class Stream(nn.Module):
    """One hidden layer (none if `hidden` is 0), then a linear output."""

    hidden: int
    features: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x):  # [T, B, F] -> [T, B, features]
        sizes = (self.hidden,) if self.hidden else ()
        return nn.Dense(self.features)(MLP(sizes, self.layer_norm)(x))


class Plain(nn.Module):
    """One stream for all actions."""

    hidden: int
    actions: int
    size: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x):  # [T, B, F] -> [T, B, A, size]
        return Stream(self.hidden, self.actions * self.size, self.layer_norm)(x).reshape(
            *x.shape[:2], self.actions, self.size
        )


class Dueling(nn.Module):
    """V + A - mean A, with the gradient into the torso scaled by 1 / sqrt 2 (Wang et al. 2016)."""

    hidden: int
    actions: int
    size: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x):  # [T, B, F] -> [T, B, A, size]
        x = 0.5**0.5 * x + (1 - 0.5**0.5) * jax.lax.stop_gradient(x)
        value = Stream(self.hidden, self.size, self.layer_norm)(x)[..., None, :]
        advantage = Stream(self.hidden, self.actions * self.size, self.layer_norm)(x)
        advantage = advantage.reshape(*x.shape[:2], self.actions, self.size)
        return value + advantage - advantage.mean(-2, keepdims=True)


class Table(nn.Module):
    """One free number per state and action, zero at first; the observation is the one-hot state."""

    actions: int
    size: int

    @nn.compact
    def __call__(self, x):  # [T, B, states] -> [T, B, A, size]
        table = self.param("table", nn.initializers.zeros, (x.shape[-1], self.actions * self.size))
        return (x @ table).reshape(*x.shape[:2], self.actions, self.size)


class QNetwork(nn.Module):
    """Torso, then last layer."""

    torso: nn.Module
    last: nn.Module

    def __call__(self, obs, carry, reset):
        return self.last(self.torso(obs.astype(jnp.float32))), carry


def feed_forward(module: nn.Module) -> Network:
    """A network without memory from a module (obs [T, B, *obs], carry, reset) -> (out, carry)."""

    def init(key, obs):
        return module.init(key, obs[None, None], (), jnp.zeros((1, 1), bool))

    def apply(params, key, obs, carry, reset):
        return module.apply(params, obs, carry, reset)

    return Network(init, apply, lambda batch: (), False)


def q_network(
    kind: str,
    obs_shape: tuple[int, ...],
    num_actions: int,
    head: Head,
    *,
    hidden_sizes=(),
    dueling=False,
    layer_norm=False,
) -> Network:
    """Build the network that `Config.network` names for observations of `obs_shape`.

    The last of `hidden_sizes` is the output stream's, so that a dueling network splits before it.

    Raises:
        ConfigError: the network cannot read such observations.
    """
    if kind == "auto":
        kind = "minatar" if len(obs_shape) == 3 else "mlp"
    if kind == "minatar" and (len(obs_shape) != 3 or min(obs_shape[:2]) < 3):
        raise ConfigError(
            f"network=minatar needs images [height, width, channels] of 3 x 3 or more, got {obs_shape}: choose mlp"
        )
    if kind == "tabular" and len(obs_shape) != 1:
        raise ConfigError(
            f"network=tabular needs a one-hot state [states], got observations of shape {obs_shape}: choose auto"
        )
    if kind == "tabular":
        return feed_forward(QNetwork(MLP(()), Table(num_actions, head.size)))
    *torso_sizes, hidden = hidden_sizes or (0,)
    torso = {"mlp": MLP, "minatar": MinAtarConvolution}[kind](tuple(torso_sizes), layer_norm)
    last = (Dueling if dueling else Plain)(hidden, num_actions, head.size, layer_norm)
    return feed_forward(QNetwork(torso, last))


class Policy(NamedTuple):
    """What acting needs of a network and a head, in training, evaluation and elsewhere."""

    values: "ValuesFn"
    carry: CarryFn


class ValuesFn(Protocol):
    def __call__(self, params: PyTree, key: Key, obs: Array, carry: PyTree, reset: Array) -> tuple[Array, PyTree]:
        """Return (expected returns [B, A], carry) for obs [B, *obs]; `reset` [B] clears the carry first."""
        ...


def make_policy(network: Network, head: Head) -> Policy:
    """One tick of `network`, read through `head`."""

    def values(params, key, obs, carry, reset):
        out, carry = network.apply(params, key, obs[None], carry, reset[None])
        return head.atoms(out).mean()[0], carry

    return Policy(values, network.carry)
