"""What is refused, before anything compiles: each refusal is one sentence that says what to do."""

import dataclasses
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin

import numpy as np

from .config import (
    Config,
    ConfigError,
    Hyper,
    lead,
    replay_slots,
    segment_length,
    ticks_per_iteration,
    total_iterations,
    warm_up_iterations,
)

MAY_BE_ZERO = ("warm_up_steps", "burn_in")


def validate_config(config: Config) -> None:
    """Refuse static choices that cannot work.

    Raises:
        ConfigError: one sentence that names the field, its value and what to do.
    """
    for field in dataclasses.fields(Config):
        _check_type(field, getattr(config, field.name))
    for rule, sentence in COMBINATIONS:
        if rule(config):
            raise ConfigError(sentence.format(**dataclasses.asdict(config)))
    _check_lengths(config)


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**31


def _check_type(field: dataclasses.Field, value: Any) -> None:
    """Refuse a value that is not of its field's annotation; whole numbers count things, so they are above zero."""
    if field.type is int:
        least = 0 if field.name in MAY_BE_ZERO else 1
        ok, requirement = _is_count(value, least), f"a whole number from {least} to 2^31 - 1"
    elif field.type is float:
        ok = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        requirement = "a finite number"
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


# Choices that do not go together, and what to do instead.
COMBINATIONS: list[tuple[Callable[[Config], bool], str]] = [
    (
        lambda c: c.network == "tabular" and (c.dueling or c.noisy or c.layer_norm or c.core != "none"),
        "a tabular network has no streams to duel, no layers to make noisy, to normalise or to put a core behind: drop "
        "dueling, noisy, layer_norm and core, or choose network=mlp",
    ),
    (
        lambda c: c.network == "tabular" and c.head in ("implicit_quantile", "parameterised_quantile"),
        "head={head} reads features, and a tabular network has none: choose head=quantile or network=mlp",
    ),
    (
        lambda c: c.network == "tabular" and c.frame_stack > 1,
        "a tabular network needs one one-hot state, not a stack of {frame_stack}: choose frame_stack=1",
    ),
    (
        lambda c: c.value_rescaling and c.head != "scalar",
        "value_rescaling belongs to head=scalar, got head={head}: drop it",
    ),
    (
        lambda c: c.loss == "huber" and c.head != "scalar",
        "loss=huber belongs to head=scalar, got head={head}: drop it, the other heads bring a loss of their own",
    ),
    (
        lambda c: c.head in ("categorical", "hl_gauss") and not c.value_min < c.value_max,
        "value_min must be below value_max, got {value_min} and {value_max}",
    ),
    (
        lambda c: c.head in ("categorical", "hl_gauss", "parameterised_quantile") and c.atoms < 2,
        "head={head} needs two atoms or more, got atoms={atoms}",
    ),
    (
        lambda c: c.double and c.target != "greedy",
        "double belongs to target=greedy, got target={target}: drop it",
    ),
    (
        lambda c: c.target == "lambda_returns" and c.n_step != 1,
        "target=lambda_returns needs n_step=1, got {n_step}",
    ),
    (
        lambda c: c.target == "lambda_returns" and c.replay != "last_rollout" and c.unroll_length == 1,
        "target=lambda_returns runs along a segment, and one learnt row is none: raise unroll_length",
    ),
    (
        lambda c: c.burn_in > 0 and c.core == "none",
        "burn_in={burn_in} warms up a recurrent carry, and there is none: choose core=gru or lstm, or burn_in=0",
    ),
    (
        lambda c: c.replay == "last_rollout" and c.burn_in > 0,
        "replay=last_rollout learns from every row, so burn_in must be 0, got {burn_in}",
    ),
    (
        lambda c: c.replay == "last_rollout" and c.unroll_length != 1,
        "replay=last_rollout learns from the whole rollout, so unroll_length must be left at 1, got {unroll_length}",
    ),
    (
        lambda c: c.replay == "last_rollout" and (c.batch_size > c.num_envs or c.num_envs % c.batch_size != 0),
        "replay=last_rollout shares out the environments, so batch_size={batch_size} must divide num_envs={num_envs}",
    ),
    (
        lambda c: c.exploration == "member" and c.ensemble == 1,
        "exploration=member follows a member of an ensemble: raise ensemble",
    ),
    (
        lambda c: c.exploration == "ladder" and c.num_envs == 1,
        "exploration=ladder gives each environment its own epsilon, and there is one: raise num_envs",
    ),
    (
        lambda c: c.ensemble > 1 and c.core != "none",
        "an ensemble of recurrent networks is not supported: choose core=none or ensemble=1",
    ),
    (
        lambda c: c.ensemble > 1 and c.head in ("implicit_quantile", "parameterised_quantile"),
        "a prior cannot be added to a head that chooses its own fractions, got head={head}: choose head=quantile",
    ),
]


def _check_lengths(config: Config) -> None:
    """Refuse a run or a replay that is too short."""
    warm_up = warm_up_iterations(config)
    if warm_up >= total_iterations(config):
        raise ConfigError(
            f"warm-up takes {warm_up * ticks_per_iteration(config)} steps and leaves none of the "
            f"{config.total_steps} to learn in: raise total_steps or lower warm_up_steps"
        )
    if config.replay == "last_rollout":
        if config.rollout_length < config.n_step + lead(config):
            raise ConfigError(
                f"replay=last_rollout keeps {config.rollout_length} new rows at a time, fewer than the "
                f"{config.n_step + lead(config)} that overlap: raise rollout_length"
            )
        return
    kept, least = replay_slots(config) * config.rollout_length, segment_length(config)
    if config.replay == "prioritised":
        least += config.rollout_length
    if kept < least:
        raise ConfigError(
            f"replay_size={config.replay_size} keeps {kept} rows of each of the {config.num_envs} environments, and "
            f"a segment needs {least}: raise replay_size to at least {least * config.num_envs}"
        )


POSITIVE = (
    "learning_rate", "optimizer_epsilon", "max_gradient_norm", "learning_rate_steps", "epsilon_steps",
    "importance_steps", "softmax_temperature", "munchausen_temperature",
)  # fmt: skip
FRACTIONS = (
    "discount", "learning_rate_final_fraction", "epsilon_start", "epsilon_end", "ladder_base", "trace_decay",
    "priority_exponent", "importance_exponent", "importance_final_exponent", "sequence_max_fraction",
)  # fmt: skip


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

    for field in POSITIVE:
        check(field, lambda x: x > 0, "a finite number above zero")
    for field in FRACTIONS:
        check(field, lambda x: 0 <= x <= 1, "a number from 0 to 1")
    for field in ("target_update_rate", "bootstrap_probability"):
        check(field, lambda x: 0 < x <= 1, "a number above 0, up to 1")
    for field in ("munchausen_scale", "ladder_exponent"):
        check(field, lambda x: x >= 0, "a finite number, zero or more")
    check("munchausen_floor", lambda x: x <= 0, "a finite number, zero or less")
