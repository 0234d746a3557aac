"""Q-networks as three pure functions: torso, last layer, and how both are called.

Feed-forward networks ignore `carry` and `reset`; recurrent ones scan over time.
"""

import functools
import math
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from . import modules, products
from .config import ConfigError
from .heads import Head
from .replay import join_frames
from .types import Array, Key, PyTree

MOST_IMAGES, MOST_NUMBERS = 128, 2**18  # that a core looks at together, and numbers in them: about the fastest


class InitFn(Protocol):
    def __call__(self, key: Key, obs: Array) -> PyTree:
        """Return parameters for observations shaped like obs [*obs]."""
        ...


class ApplyFn(Protocol):
    def __call__(
        self, params: PyTree, key: Key | None, obs: Array, carry: PyTree, reset: Array
    ) -> tuple[PyTree, PyTree]:
        """Return (out [T, B, A, size], carry [B, *hidden]) for obs [T, B, *obs].

        `reset` [T, B] clears the carry before that row. `key` is for networks that sample; without one they do
        not: noise is zero and fractions are evenly spread.
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
    stochastic: bool = True  # whether a key changes what `apply` returns


class QNetwork(nn.Module):
    """Torso, core if there is one, last layer. A uint8 image counts as numbers from 0 to 1."""

    torso: nn.Module
    core: modules.Core | None
    last: nn.Module

    def __call__(self, obs, carry, reset):
        x = obs.astype(jnp.float32) / (255.0 if obs.dtype == jnp.uint8 else 1.0)
        x = self.torso(modules.flat(x) if isinstance(self.torso, modules.MLP) else x)
        if self.core is not None:
            x, carry = self.core(x, carry, reset)
        return self.last(x), carry


def from_module(module: nn.Module, carry: CarryFn = lambda batch: (), rngs: tuple[str, ...] = ()) -> Network:
    """A network from a module (obs [T, B, *obs], carry, reset [T, B]) -> (out, carry) that uses `rngs` to sample."""

    def init(key, obs):
        return module.init(key, obs[None, None], carry(1), jnp.zeros((1, 1), bool))

    def apply(params, key, obs, carry, reset):
        keys = dict(zip(rngs, jax.random.split(key, len(rngs)), strict=True)) if rngs and key is not None else {}
        return module.apply(params, obs, carry, reset, rngs=keys)

    return Network(init, apply, carry, bool(jax.tree.leaves(jax.eval_shape(lambda: carry(1)))), bool(rngs))


def q_network(
    kind: str,
    obs_shape: tuple[int, ...],
    num_actions: int,
    head: Head,
    *,
    images: str = "auto",
    hidden_sizes=(),
    dueling=False,
    layer_norm=False,
    noisy=False,
    noise_apart=False,
    core="none",
    core_size=128,
    fractions="fixed",
    samples=0,
) -> Network:
    """Build the network that `Config.network` names for observations of `obs_shape`, `images` if they are such.

    The last of `hidden_sizes` is the output stream's, so that a dueling network splits before it. With `noise_apart`
    every row of a noisy network has noise of its own. `fractions` says whether a quantile head's are fixed, "sampled"
    (IQN) or "proposed" (FQF), `samples` how many.

    Raises:
        ConfigError: the network cannot read such observations.
    """
    if kind == "auto":
        kind = "mlp" if len(obs_shape) != 3 else images
    if kind == "auto":
        kind = "nature" if min(obs_shape[:2]) >= 36 else "minatar"
    least = {"minatar": 3, "nature": 36, "impala": 1}.get(kind)
    if least and (len(obs_shape) != 3 or min(obs_shape[:2]) < least):
        raise ConfigError(
            f"network={kind} needs images [height, width, channels] of {least} x {least} or more, got {obs_shape}: "
            "choose mlp"
        )
    if kind == "tabular" and len(obs_shape) != 1:
        raise ConfigError(
            f"network=tabular needs a one-hot state [states], got observations of shape {obs_shape}: choose auto"
        )
    if kind == "tabular":
        return from_module(QNetwork(modules.MLP(()), None, modules.Table(num_actions, head.size)))
    *torso_sizes, hidden = hidden_sizes or (0,)
    dense = functools.partial(modules.NoisyDense, apart=noise_apart) if noisy else products.Dense
    last = (modules.Dueling if dueling else modules.Plain)(hidden, num_actions, head.size, layer_norm, dense)
    if fractions != "fixed":
        kinds = {"sampled": modules.ImplicitQuantiles, "proposed": modules.ProposedQuantiles}
        last = kinds[fractions](last, samples)
    rngs = ("noise",) * noisy + ("fractions",) * (fractions == "sampled")
    torso = modules.TORSOS[kind](tuple(torso_sizes), layer_norm)
    if core == "none":
        return from_module(QNetwork(torso, None, last), rngs=rngs)

    def carry(batch):
        cell = modules.CELLS[core](core_size)
        return jax.tree.map(jnp.zeros_like, cell.initialize_carry(jax.random.key(0), (batch, core_size)))

    return from_module(QNetwork(torso, modules.Core(core, core_size), last), carry, rngs)


def with_prior(network: Network, scale: float = 3.0) -> Network:
    """Add `scale` times a second, random network that is never trained (Osband et al. 2018)."""

    def init(key, obs):
        k_learnt, k_prior = jax.random.split(key)
        return {"learnt": network.init(k_learnt, obs), "prior": network.init(k_prior, obs)}

    def apply(params, key, obs, carry, reset):
        out, carry = network.apply(params["learnt"], key, obs, carry, reset)
        prior, _ = network.apply(params["prior"], None, obs, carry, reset)  # without noise: it never changes
        return jax.tree.map(lambda x, y: x + scale * jax.lax.stop_gradient(y), out, prior), carry

    return network._replace(init=init, apply=apply)


class Policy(NamedTuple):
    """What acting needs of a network and a head, in training, evaluation and elsewhere."""

    values: "ValuesFn"  # expected returns [B, A]
    carry: CarryFn
    members: "ValuesFn"  # the same of each member of an ensemble [B, K, A]; K is 1 for a single network
    kept: Callable[[PyTree], PyTree]  # the part of the carry that replay has to keep


class ValuesFn(Protocol):
    def __call__(
        self, params: PyTree, key: Key | None, obs: Array, carry: PyTree, reset: Array
    ) -> tuple[Array, PyTree]:
        """Return (expected returns, carry) for obs [B, *obs]; `reset` [B] clears the carry first.

        Without a key a network that samples does not: that is how a trained agent is evaluated.
        """
        ...


def _one_core_each() -> bool:
    """Whether a CPU's devices have a core each, for that is what pieces are for: several share a large product well."""
    return jax.default_backend() == "cpu" and (os.environ.get("NPROC") == "1" or jax.local_device_count() > 1)


def make_policy(network: Network, head: Head, ensemble: int = 1) -> Policy:
    """One tick of `network`, read through `head`; with an ensemble, parameters have a leading axis [K].

    A core looks at many images in pieces: what convolutions make of them is many times as large, and leaves its cache.
    Rows share what a network samples, so that one which samples sees them together.
    """

    def one(params, key, obs, carry, reset):
        def look(obs, carry, reset):
            out, carry = network.apply(params, key, obs[None], carry, reset[None])
            return head.atoms(out).mean()[0], carry

        def look_at_one(row):
            return jax.tree.map(lambda x: x[0], look(*jax.tree.map(lambda x: x[None], row)))

        rows, numbers = len(obs), math.prod(obs.shape[1:])
        together = max(1, min(MOST_IMAGES, MOST_NUMBERS // numbers))
        drawn = network.stochastic and key is not None
        if rows > together and obs.ndim > 3 and not drawn and _one_core_each():
            return jax.lax.map(look_at_one, (obs, carry, reset), batch_size=together)
        return look(obs, carry, reset)

    def members(params, key, obs, carry, reset):
        if ensemble == 1:
            values, carry = one(params, key, obs, carry, reset)
            return values[:, None], carry
        keys = None if key is None else jax.random.split(key, ensemble)
        over = (0, None if key is None else 0, None, None, None)
        return jax.vmap(one, over, (1, None))(params, keys, obs, carry, reset)

    return Policy(_mean_of(members), network.carry, members, lambda carry: carry)


def _mean_of(members: ValuesFn) -> ValuesFn:
    def values(params, key, obs, carry, reset):
        values, carry = members(params, key, obs, carry, reset)
        return values.mean(1), carry

    return values


def see_frames(policy: Policy, obs: Array, frames: int) -> Policy:
    """Let `policy` see the newest `frames` observations like `obs`; the older ones travel in its carry.

    A carry of zeros, with which an episode starts, is a stack of zeros.
    """

    def members(params, key, obs, carry, reset):
        before, inner = carry
        before = [jnp.where(jnp.expand_dims(reset, range(1, x.ndim)), jnp.zeros_like(x), x) for x in before]
        seen = [*before, obs]
        values, inner = policy.members(params, key, join_frames(seen, 1), inner, reset)
        return values, (tuple(seen[1:]), inner)

    def carry(batch):
        return tuple(jnp.zeros((batch, *obs.shape), obs.dtype) for _ in range(frames - 1)), policy.carry(batch)

    return Policy(_mean_of(members), carry, members, lambda carry: policy.kept(carry[1]))
