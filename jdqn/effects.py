"""Which settings change nothing, because what they belong to was not chosen, and whether anything explores."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .config import Config, Hyper

PRIORITIES = ("priority_exponent", "importance_exponent", "importance_final_exponent")
# Settings, whether they do something (more than round otherwise), and what they belong to in the words of a sentence.
BELONGS: list[tuple[tuple[str, ...], Callable[[Config, Hyper], bool], str]] = [
    (PRIORITIES, lambda c, _: c.replay == "prioritised", "replay=prioritised"),
    (
        ("importance_steps",),
        lambda c, h: c.replay == "prioritised" and _differ(h.importance_exponent, h.importance_final_exponent),
        "replay=prioritised with an importance_final_exponent that is not importance_exponent",
    ),
    (
        ("sequence_max_fraction",),
        lambda c, _: c.replay == "prioritised" and c.unroll_length > 1,
        "replay=prioritised with an unroll_length above 1",
    ),
    (("replay_size",), lambda c, _: c.replay != "last_rollout", "replay=uniform or prioritised"),
    (("trace_decay",), lambda c, _: c.target == "lambda_returns", "target=lambda_returns"),
    (
        ("munchausen_scale", "munchausen_temperature", "munchausen_floor"),
        lambda c, _: c.target == "munchausen",
        "target=munchausen",
    ),
    (("target_update_rate",), lambda c, _: c.target_period > 0, "a target_period above 0"),
    (("bootstrap_probability",), lambda c, _: c.ensemble > 1, "an ensemble above 1"),
    (("softmax_temperature",), lambda c, _: c.exploration == "softmax", "exploration=softmax"),
    (("ladder_base", "ladder_exponent"), lambda c, _: c.exploration == "ladder", "exploration=ladder"),
    (
        ("epsilon_start", "epsilon_end"),
        lambda c, _: c.exploration != "ladder",
        "exploration=epsilon_greedy, softmax or member",
    ),
    (
        ("epsilon_steps",),
        lambda c, h: c.exploration != "ladder" and _differ(h.epsilon_start, h.epsilon_end),
        "exploration=epsilon_greedy, softmax or member with an epsilon_end that is not epsilon_start",
    ),
    (("core_size",), lambda c, _: c.core != "none", "core=gru or lstm"),
    (("hidden_sizes",), lambda c, _: c.network != "tabular", "a network that is not tabular"),
    (("image_network",), lambda c, _: c.network == "auto", "network=auto"),
    (("atoms",), lambda c, _: c.head != "scalar", "a head that is not scalar"),
    (("acting_atoms",), lambda c, _: c.head == "implicit_quantile", "head=implicit_quantile"),
    (
        ("value_min", "value_max"),
        lambda c, _: c.head in ("categorical", "hl_gauss"),
        "head=categorical or hl_gauss",
    ),
    (("optimizer_epsilon",), lambda c, _: c.optimizer != "sgd", "an optimizer that is not sgd"),
    (
        ("learning_rate_schedule", "learning_rate_steps"),
        lambda _, h: _differ(h.learning_rate_final_fraction, 1),
        "a learning_rate_final_fraction below 1",
    ),
]


def _differ(one: Any, other: Any) -> bool:
    """Of some agent; numbers, or one for each."""
    return bool(np.any(np.asarray(one) != np.asarray(other)))


def idle(config: Config, hyper: Hyper) -> dict[str, str]:
    """Name of each setting that changes nothing under these -> what it belongs to. Fields of hyper may be arrays."""
    return {name: owner for names, works, owner in BELONGS if not works(config, hyper) for name in names}


def explores(config: Config, hyper: Hyper) -> bool:
    """Whether some agent explores once its warm-up is over: by epsilon, noise, softmax or members."""
    by_epsilon = _differ(hyper.epsilon_start, 0) or _differ(hyper.epsilon_end, 0)
    return by_epsilon or config.exploration != "epsilon_greedy" or config.noisy
