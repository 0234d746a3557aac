"""What is refused, before anything compiles: each refusal is one sentence that says what to do."""

import dataclasses
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
    warm_up_rows,
)

MAY_BE_ZERO = ("warm_up_steps", "burn_in", "target_period")
# How far a loop goes that is written out in the program, and a support that is made before memory is counted.
MOST = {"n_step": 1_000, "frame_stack": 100, "atoms": 10_000, "acting_atoms": 10_000}
MOST_LAYERS = 100
LARGEST, SMALLEST, EPSILON = (float(x) for x in (np.finfo(np.float32).max, np.finfo(np.float32).tiny, 2**-23))


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
    _check_indices(config)


def _is_count(value: Any, least: int = 1, most: int = 2**31 - 1) -> bool:
    return _is_whole(value) and least <= int(value) <= most


def _check_type(field: dataclasses.Field, value: Any) -> None:
    """Refuse a value that is not of its field's annotation; whole numbers count things, so they are above zero."""
    if field.type is int:
        least, most = 0 if field.name in MAY_BE_ZERO else 1, MOST.get(field.name, 2**31 - 1)
        ok, told = _is_count(value, least, most), MOST.get(field.name, "2^31 - 1")
        requirement = f"a whole number from {least} to {told}"
    elif field.type is float:
        ok = isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= LARGEST  # type: ignore[operator]
        requirement = "a finite number of 32 bits"
    elif field.type is bool:
        ok, requirement = isinstance(value, bool), "True or False"
    elif get_origin(field.type) is Literal:
        names = get_args(field.type)
        ok, requirement = isinstance(value, str) and value in names, " or ".join(names)
    else:
        ok = isinstance(value, tuple) and len(value) <= MOST_LAYERS and all(_is_count(size) for size in value)
        requirement = f"a tuple of up to {MOST_LAYERS} whole numbers from 1 to 2^31 - 1"
    if not ok:
        raise ConfigError(f"{field.name} must be {requirement}, got {_text(value)}")


def _text(value: Any) -> str:
    """What was given, as far as a sentence holds it."""
    try:
        return str(value)[:200]
    except ValueError:  # Python does not write out a number of thousands of digits
        return "a number of thousands of digits"


def _apart(low: float, high: float, atoms: int) -> bool:
    """Neighbours on the support differ in float32, and their distances can be told."""
    gap = (float(high) - float(low)) / (atoms - 1)
    return high - low <= LARGEST and gap >= 4 * max(abs(low), abs(high)) * EPSILON and gap >= SMALLEST


# Choices that do not go together, and what to do instead.
COMBINATIONS: list[tuple[Callable[[Config], bool], str]] = [
    (
        lambda c: c.network == "tabular" and (c.dueling or c.noisy or c.layer_norm or c.core != "none"),
        "a tabular network has no streams to duel, no layers to make noisy, to normalise or to put a core behind: "
        "switch dueling, noisy, layer_norm and core off, or choose network=mlp",
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
        "value_rescaling belongs to head=scalar, got head={head}: switch it off (--no-value-rescaling)",
    ),
    (
        lambda c: c.loss == "huber" and c.head != "scalar",
        "loss=huber belongs to head=scalar, got head={head}: choose loss=squared, other heads bring their own",
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
        lambda c: c.head in ("categorical", "hl_gauss") and not _apart(c.value_min, c.value_max, c.atoms),
        "{atoms} atoms from value_min={value_min} to value_max={value_max} are not apart in float32: choose fewer, or "
        "returns of another size",
    ),
    (
        lambda c: c.double and c.target != "greedy",
        "double belongs to target=greedy, got target={target}: switch it off (--no-double)",
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
        asked, segment = warm_up_rows(config)
        lower = "warm_up_steps" if asked > segment else "num_envs, n_step, unroll_length, burn_in or frame_stack"
        if config.rollout_length > max(asked, segment):
            lower = "rollout_length or num_envs"
        raise ConfigError(
            f"warm-up takes {warm_up * ticks_per_iteration(config)} steps and leaves none of the "
            f"{config.total_steps} to learn in: raise total_steps or lower {lower}"
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
    if config.batch_size > kept * config.num_envs:
        raise ConfigError(
            f"batch_size={config.batch_size} is more than the {kept * config.num_envs} rows that "
            f"replay_size={config.replay_size} keeps: raise replay_size or lower batch_size"
        )


def _check_indices(config: Config) -> None:
    """Refuse sizes that a 32-bit number cannot count: rows of replay, nodes of its sum tree, ticks, gradient steps."""
    ticks, length, total = ticks_per_iteration(config), segment_length(config), total_iterations(config)
    kept = length if config.replay == "last_rollout" else replay_slots(config) * int(config.rollout_length)
    rows = (kept + length) * int(config.num_envs)
    nodes = 4 * rows // 3 if config.replay == "prioritised" else rows  # a tree of width 4
    learning = total - warm_up_iterations(config)
    for count, what, advice in (
        (nodes, "rows of replay and a segment of each environment", "replay_size, num_envs or rollout_length"),
        (int(config.batch_size) * length, "rows in a batch", "batch_size, n_step, unroll_length or burn_in"),
        (total * ticks, "ticks in a run", "total_steps, num_envs or rollout_length"),
        (learning * int(config.updates), "gradient steps in a run", "updates or total_steps"),
    ):
        if count >= 2**31 - 16:
            raise ConfigError(f"32 bits cannot count {count:,} {what}: lower {advice}")


POSITIVE = (
    "learning_rate", "optimizer_epsilon", "max_gradient_norm", "learning_rate_steps", "epsilon_steps",
    "importance_steps", "softmax_temperature", "munchausen_temperature",
)  # fmt: skip
FRACTIONS = (
    "discount", "learning_rate_final_fraction", "epsilon_start", "epsilon_end", "ladder_base", "trace_decay",
    "priority_exponent", "importance_exponent", "importance_final_exponent", "sequence_max_fraction",
)  # fmt: skip


def validate_hyper(hyper: Hyper) -> None:
    """Refuse numbers that cannot work; fields may be arrays, but no lists, which JAX would take for several fields.

    Raises:
        ConfigError: one sentence that names the field, its value and what to do.
    """

    def check(field: str, ok: Callable[[float], bool], requirement: str) -> None:
        values = _numbers(getattr(hyper, field))
        if values is None:
            raise ConfigError(f"{field} must be {requirement}, got {_text(getattr(hyper, field))}")
        for value in values:
            if not (abs(value) <= LARGEST and ok(value)):
                raise ConfigError(f"{field} must be {requirement}, got {value:g}")

    for field in POSITIVE:
        check(field, lambda x: x >= SMALLEST, "a finite number above zero, of 32 bits")
    for field in FRACTIONS:
        check(field, lambda x: 0 <= x <= 1, "a number from 0 to 1")
    for field in ("target_update_rate", "bootstrap_probability"):
        check(field, lambda x: SMALLEST <= x <= 1, "a number above 0, up to 1")
    for field in ("munchausen_scale", "ladder_exponent"):
        check(field, lambda x: x >= 0, "a finite number of 32 bits, zero or more")
    check("munchausen_floor", lambda x: x <= 0, "a finite number of 32 bits, zero or less")


def _numbers(value: Any) -> np.ndarray | None:
    """A Python number or an array -> float64 [numbers]; None if it is anything else, or holds none."""
    if isinstance(value, list | tuple):
        return None
    try:
        values = np.ravel(np.asarray(value))
    except (TypeError, ValueError):
        return None
    if values.dtype.kind in "iu" and any(abs(int(x)) >= 2**31 for x in values):
        return None  # whole numbers stay such when they are traced, and have 32 bits
    return values.astype(np.float64) if values.size and values.dtype.kind in "iuf" else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
