"""From the options to plans: settings, sweeps and generations, each checked."""

import ast
import dataclasses
import math
from typing import Any

import numpy as np

from ..config import Config, ConfigError, Hyper, ticks_per_iteration, total_iterations, warm_up_iterations
from ..evolution import LINEAR, scale
from ..validation import validate_config, validate_hyper
from . import sweep
from .checks import check_agents, check_plans, flag
from .folder import text
from .options import Options
from .plan import Evolution, Plan


def plans_of(options: Options) -> list[Plan]:
    """The plans that the options ask for: one, or several if a sweep changes shapes.

    Raises:
        ConfigError: one of them cannot work.
    """
    values = _values(options)
    several = {name: listed for name, listed in values.items() if len(listed) > 1}
    first = {name: listed[0] for name, listed in values.items()}
    plan = Plan(
        env=options.env, env_params=env_params(options.env_params), algo=options.algo,
        seeds=tuple(range(options.seed, options.seed + options.seeds)), reports=options.reports,
        episodes=options.episodes, checkpoint_every=options.checkpoint_every, at_once=options.at_once,
        keep=options.keep, keep_best=options.keep_best, non_finite=options.non_finite, debug=options.debug,
        config=Config(**{name: first[name] for name in sweep.CONFIG}),
        hyper=Hyper(**{name: first[name] for name in Hyper._fields}),
    )  # fmt: skip
    if options.sweep == "random" and not several:
        raise ConfigError(
            "--sweep random has nothing to draw: give a setting two values, like --learning-rate 1e-4 1e-2"
        )
    if len(values["total_steps"]) > 1:
        raise ConfigError("--total-steps takes one value: schedules follow it, so sweep over it in separate runs")
    check_agents(agents_wanted(options))
    _refuse_unused(options)
    _refuse_equals(several)
    apart = options.sweep == "random" or options.pbt_every > 0
    if apart and options.seed > 2**32 - agents_wanted(options):
        raise ConfigError(
            f"--seed must be from 0 to 2^32 - {agents_wanted(options)}, for every agent has a seed of its own, got "
            f"{options.seed}"
        )
    ends: dict[str, Any] = {name: np.array(listed) for name, listed in several.items() if name in Hyper._fields}
    validate_hyper(Hyper(**ends))  # before something is drawn between them
    draw = options.sweep == "random"
    settings = sweep.random(several, options.samples, options.seed) if draw else sweep.grid(several)
    found = sweep.plans(plan, settings, apart)
    for part in found:
        validate_config(part.config)
        validate_hyper(Hyper(*map(np.asarray, part.hyper)))  # type: ignore[arg-type]
    if options.pbt_every:
        found = [dataclasses.replace(part, evolution=_evolution(options, part, several)) for part in found]
    check_plans(found)
    if not draw or not sweep.CONFIG & several.keys():  # else choices were drawn, and others might have been
        _refuse_idle(several, found)
    return found


def agents_wanted(options: Options) -> int:
    """How many agents the options ask for."""
    settings = math.prod(len(listed) for listed in _values(options).values())
    return options.seeds * (options.samples if options.sweep == "random" else settings)


def _values(options: Options) -> dict[str, tuple]:
    """Every field of Config and Hyper with its values."""
    values = dataclasses.asdict(options.config) | dataclasses.asdict(options.hyper)
    values["hidden_sizes"] = hidden_sizes(values["hidden_sizes"])
    sweep.refuse_empty({name: x for name, x in values.items() if not isinstance(x, bool)})
    return {name: (x,) if isinstance(x, bool) else x for name, x in values.items()}


def hidden_sizes(words: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """("64", "64") -> ((64, 64),) and ("64,64", "128") -> ((64, 64), (128,))."""
    listed = [words] if not any("," in word for word in words) else [word.split(",") for word in words]
    try:
        return tuple(tuple(int(size) for size in sizes if size) for sizes in listed)
    except ValueError as error:
        told = str(words)[:80]
        raise ConfigError(f"--hidden-sizes takes widths like 64 64, or 64,64 128,128 to sweep, got {told}") from error


def _refuse_unused(options: Options) -> None:
    """Refuse what belongs to a flag that is not given."""
    for name, owner, given in (
        ("samples", "--sweep random", options.sweep == "random"),
        ("pbt_fraction", "--pbt-every", options.pbt_every > 0),
        ("pbt_factor", "--pbt-every", options.pbt_every > 0),
        ("pbt_replay", "--pbt-every", options.pbt_every > 0),
    ):
        if not given and getattr(options, name) != getattr(Options, name):
            raise ConfigError(f"{flag(name)} belongs to {owner}: give that too, or leave {flag(name)} out")


def _refuse_equals(several: dict[str, tuple]) -> None:
    """Refuse a value that is there twice: its agents would be the same ones."""
    for name, listed in several.items():
        trained = [np.float32(x) if isinstance(x, float) else x for x in listed]
        for k, value in enumerate(listed):
            if trained[k] in trained[:k]:
                raise ConfigError(f"{flag(name)} has the value {text(value)} twice: give every value once")


def _refuse_idle(several: dict[str, tuple], plans: list[Plan]) -> None:
    """Refuse to compare agents that are all the same."""
    without = sweep.idle_in_all(plans)
    for name in several:
        if name in without:
            raise ConfigError(
                f"the values of {flag(name)} all train the same agent, for it belongs to {without[name]}: give it "
                "one value, or choose that"
            )


def _evolution(options: Options, plan: Plan, several: dict[str, tuple]) -> Evolution:
    for name in several:
        if name in sweep.CONFIG:
            raise ConfigError(
                f"--pbt-every compares the agents of one program, and the values of {flag(name)} take one each: give "
                "it one value, and start a run for each"
            )
    ranges = {
        name: (float(min(listed)), float(max(listed))) for name, listed in several.items() if name in Hyper._fields
    }
    if not ranges:
        raise ConfigError(
            "--pbt-every needs something to perturb: give a setting two values, like --learning-rate 1e-4 1e-2"
        )
    if options.pbt_factor != Options.pbt_factor and all(scale(name, *ends) is LINEAR for name, ends in ranges.items()):
        raise ConfigError(
            "--pbt-factor is for settings that are searched logarithmically, and "
            f"{' and '.join(map(flag, ranges))} moves by a tenth of its range: leave it out"
        )
    if plan.agents < 2:
        raise ConfigError("--pbt-every needs two agents or more to choose from: raise --samples or --seeds")
    ticks, warm_up, total = (f(plan.config) for f in (ticks_per_iteration, warm_up_iterations, total_iterations))
    every = max(1, options.pbt_every // ticks)
    if warm_up + every >= total:
        raise ConfigError(
            f"--pbt-every {options.pbt_every} leaves no generation between the warm-up, which ends at step "
            f"{warm_up * ticks}, and the end at {total * ticks}: lower it below {(total - warm_up) * ticks}"
        )
    return Evolution(every, options.pbt_fraction, options.pbt_factor, options.pbt_replay == "copy", ranges)


def env_params(texts: tuple[str, ...]) -> dict[str, Any]:
    """("size=20", "deterministic=False") -> {"size": 20, "deterministic": False}."""
    found = dict(map(env_param, texts))
    if len(found) < len(texts):
        raise ConfigError(f"--env-params takes each name once, got {' '.join(texts)}")
    return found


def env_param(text: str) -> tuple[str, Any]:
    """'size=20' -> ("size", 20)."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals and value):
        raise ConfigError(f"--env-params takes name=value, got {text}: write it like --env-params size=20")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # a word
        return name, value
