"""Config: what changes the program. Hyper: what is only a number in it.

Whatever changes a shape, a loop count or which function runs is static and lives in `Config`.
Whatever is only a number in arithmetic lives in `Hyper`, is traced, and so can be swept with `vmap`
without compiling again.
"""

import dataclasses
import math
from collections.abc import Callable
from numbers import Integral
from typing import Any, Literal, NamedTuple, get_args, get_origin

import numpy as np


class ConfigError(ValueError):
    """A setting that cannot work, met before anything compiles; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices of an agent. Steps are environment ticks, summed over an agent's environments."""

    total_steps: int = 500_000
    """Length of a run in environment ticks per agent, warm-up included."""
    num_envs: int = 8
    """Environments that an agent steps together (E)."""
    rollout_length: int = 1
    """Ticks of every environment between two phases of learning (T)."""
    updates: int = 1
    """Gradient steps per phase of learning."""
    batch_size: int = 128
    """Segments in a gradient step (B)."""
    replay: Literal["uniform"] = "uniform"
    """Where segments come from."""
    replay_size: int = 50_000
    """Rows kept, over all environments; rounded up to whole rollouts."""
    warm_up_steps: int = 1_000
    """Random ticks before the first gradient step; rounded up to whole rollouts."""
    network: Literal["auto", "mlp", "minatar", "tabular"] = "auto"
    """Torso; auto takes the MinAtar convolution for images [height, width, channels], else the MLP."""
    hidden_sizes: tuple[int, ...] = (120, 84)
    """Widths of the dense layers; the last one belongs to the output stream (two when dueling)."""
    layer_norm: bool = False
    """LayerNorm before every ReLU."""
    dueling: bool = False
    """Separate streams for state value and action advantages (Wang et al. 2016)."""
    head: Literal["scalar"] = "scalar"
    """What the last layer means: scalar is the expected return."""
    loss: Literal["squared", "huber"] = "squared"
    """Loss of the scalar head; huber is the TD error clipped to +-1 (Mnih et al. 2015), squared learns better."""
    target: Literal["greedy"] = "greedy"
    """The Bellman target."""
    double: bool = False
    """The online network picks the action that the target network values (van Hasselt et al. 2016)."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    target_period: int = 250
    """Gradient steps between two updates of the target network."""
    exploration: Literal["epsilon_greedy"] = "epsilon_greedy"
    """How actions are chosen while training."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Gradient transformation, after clipping by global norm."""


class Hyper(NamedTuple):
    """Traced hyper-parameters: plain floats, or arrays [S] where agents differ."""

    learning_rate: float = 1e-3
    """Step size of the optimiser at the start."""
    learning_rate_final_fraction: float = 1.0
    """The learning rate falls linearly to this fraction of itself."""
    learning_rate_steps: float = 500_000.0
    """Environment ticks over which the learning rate falls; a preset takes the length of the run."""
    adam_epsilon: float = 1e-8
    """Term that Adam adds to the root of its second moment."""
    max_gradient_norm: float = 10.0
    """Gradients are scaled down to this global norm."""
    discount: float = 0.99
    """Discount factor per step."""
    target_update_rate: float = 1.0
    """target <- (1 - rate) target + rate online, every target_period updates."""
    epsilon_start: float = 1.0
    """Share of random actions at tick 0; warm-up is random whatever this says."""
    epsilon_end: float = 0.05
    """Share of random actions from epsilon_steps on."""
    epsilon_steps: float = 25_000.0
    """Environment ticks, warm-up included, over which epsilon falls linearly."""


def ticks_per_iteration(config: Config) -> int:
    """Environment ticks in one iteration: the unit of the clock."""
    return config.rollout_length * config.num_envs


def warm_up_iterations(config: Config) -> int:
    """Iterations that only collect: enough for warm_up_steps and for one whole segment."""
    rows = max(-(-config.warm_up_steps // config.num_envs), segment_length(config))
    return -(-rows // config.rollout_length)


def total_iterations(config: Config) -> int:
    """Iterations of a whole run, warm-up included; the last one is rounded up."""
    return -(-config.total_steps // ticks_per_iteration(config))


def segment_length(config: Config) -> int:
    """Rows in a segment (L): the learnt ones and what their bootstrap needs."""
    return 1 + config.n_step


def replay_slots(config: Config) -> int:
    """Rollouts that replay keeps."""
    return -(-config.replay_size // ticks_per_iteration(config))


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**31


def _check_type(field: dataclasses.Field, value: Any) -> None:
    """Refuse a value that is not of its field's annotation; numbers count things, so they are above zero."""
    if field.type is int:
        least = 0 if field.name == "warm_up_steps" else 1
        ok, requirement = _is_count(value, least), f"a whole number from {least} to 2^31 - 1"
    elif field.type is bool:
        ok, requirement = isinstance(value, bool), "True or False"
    elif get_origin(field.type) is Literal:
        names = get_args(field.type)
        ok, requirement = value in names, " or ".join(names)
    else:
        ok = isinstance(value, tuple) and all(_is_count(size) for size in value)
        requirement = "a tuple of whole numbers from 1 to 2^31 - 1"
    if not ok:
        raise ConfigError(f"{field.name} must be {requirement}, got {value}")


def validate_config(config: Config) -> None:
    """Refuse static choices that cannot work.

    Raises:
        ConfigError: one sentence that names the field, its value and what to do.
    """
    for field in dataclasses.fields(Config):
        _check_type(field, getattr(config, field.name))
    if config.network == "tabular" and config.dueling:
        raise ConfigError("a tabular network has no streams to duel: drop dueling, or choose network=mlp")

    warm_up = warm_up_iterations(config)
    if warm_up >= total_iterations(config):
        raise ConfigError(
            f"warm-up takes {warm_up * ticks_per_iteration(config)} steps and leaves none of the "
            f"{config.total_steps} to learn in: raise total_steps or lower warm_up_steps"
        )
    slots = replay_slots(config)
    if slots * config.rollout_length < segment_length(config):
        raise ConfigError(
            f"replay_size={config.replay_size} keeps {slots * config.rollout_length} rows of each of the "
            f"{config.num_envs} environments, and a segment needs {segment_length(config)}: raise replay_size "
            f"to at least {segment_length(config) * config.num_envs}"
        )


def validate_hyper(hyper: Hyper) -> None:
    """Refuse numbers that cannot work; fields may be arrays.

    Raises:
        ConfigError: one sentence that names the field, its value and what to do.
    """

    def check(field: str, ok: Callable[[float], bool], requirement: str) -> None:
        values = np.asarray(getattr(hyper, field))
        if values.dtype.kind not in "iuf":
            raise ConfigError(f"{field} must be {requirement}, got {values}")
        for value in np.ravel(values.astype(np.float64)):
            if not (math.isfinite(value) and ok(value)):
                raise ConfigError(f"{field} must be {requirement}, got {value:g}")

    for field in ("learning_rate", "adam_epsilon", "max_gradient_norm", "learning_rate_steps", "epsilon_steps"):
        check(field, lambda x: x > 0, "a finite number above zero")
    for field in ("discount", "learning_rate_final_fraction", "epsilon_start", "epsilon_end"):
        check(field, lambda x: 0 <= x <= 1, "a number from 0 to 1")
    check("target_update_rate", lambda x: 0 < x <= 1, "a number above 0, up to 1")
