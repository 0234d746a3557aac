"""The command line: flags and their values, read and checked."""

import argparse
import ast
import dataclasses
import inspect
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
import tyro

from ..config import Config, ConfigError, Hyper, ticks_per_iteration, total_iterations, warm_up_iterations
from ..presets import defaults
from ..validation import validate_config, validate_hyper
from . import sweep
from .checks import check_agents, check_options, check_plans, flag
from .folder import text
from .plan import Evolution, Plan

PROGRAM = "python -m jdqn.run"


def _documentation(cls: type) -> dict[str, str]:
    """Name of each field -> the string below it."""
    return dict(re.findall(r'^    (\w+): .*\n    """(.+)"""', inspect.getsource(cls), re.M))


def _several(cls: type) -> Any:
    """A dataclass with the fields of `cls`, each of which takes one value or several; a bool stays a flag."""
    help_of, fields, words = _documentation(cls), list[Any](), tuple[str, ...]
    for name, kind in get_type_hints(cls).items():
        metavar = "SIZE [SIZE ...]" if name == "hidden_sizes" else None
        several: Any = {bool: bool, tuple[int, ...]: words}.get(kind, tuple.__class_getitem__((kind, ...)))
        fields.append((name, Annotated[several, tyro.conf.arg(help=help_of[name], metavar=metavar)]))
    return dataclasses.make_dataclass(cls.__name__, fields)


Configs: Any = _several(Config)
Hypers: Any = _several(Hyper)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train agents of the DQN family on one environment, evaluate them and keep everything in a folder.

    A setting that is given several values is swept over: every combination is trained with every seed, as one program
    for each distinct set of shapes. Several --hidden-sizes are written like 64,64 128,128.
    """

    env: str = "CartPole-v1"
    """Environment, a gymnax name."""
    env_params: tuple[str, ...] = ()
    """Parameters of the environment, as name=value: --env DeepSea-bsuite --env-params size=20."""
    algo: str = "dqn"
    """Algorithm, a row of presets.py; it sets the defaults of the settings below."""
    seeds: int = 1
    """Agents to train side by side of each setting, with seeds seed, seed + 1, ...; in a grid the same for each."""
    seed: int = 0
    """Seed of the first agent."""
    sweep: Literal["grid", "random"] = "grid"
    """How settings with several values are combined; random draws, between the two if there are two."""
    samples: int = 16
    """Settings that --sweep random draws."""
    pbt_every: int = 0
    """Population-based training: steps between two generations of the agents of a sweep; 0 for none."""
    pbt_fraction: float = 0.2
    """Share of the agents that copy another, and share of those that are copied."""
    pbt_replay: Literal["keep", "copy"] = "keep"
    """Whether an agent that copies another keeps its own replay."""
    parallel: Literal["agents", "data"] = "agents"
    """What is spread over devices: agents, or one agent's environments, replay and batch."""
    devices: str = "all"
    """Devices to spread over: all or a number. A CPU becomes one for each core."""
    at_once: int = 0
    """Agents in one batch (vmap) on a device; 0 for all of them, one after another on a CPU."""
    wave: int = 0
    """Agents in memory together, the others follow in waves; 0 for as many as fit."""
    distributed: bool = False
    """Run on several hosts at once: start the same command on each."""
    coordinator: str | None = None
    """Address HOST:PORT of the first host; JAX finds it under SLURM, Open MPI and Kubernetes."""
    num_hosts: int | None = None
    """How many processes there are, where JAX cannot find out."""
    host_index: int | None = None
    """Which of them this is, from 0, where JAX cannot find out."""
    out: Path | None = None
    """Run folder; runs/<env>-<algo>-s<seed>-<time> if not given."""
    overwrite: bool = False
    """Replace a run that is already in the folder."""
    resume: Path | None = None
    """Go on with the run in this folder. Beside it go --total-steps, what is reported and kept, and where it runs."""
    reports: int = 100
    """Rows of metrics.csv per agent, beside the one for the warm-up."""
    episodes: int = 100
    """Greedy episodes per agent at the end, here and in Gymnasium where the environment has a twin."""
    checkpoint_every: float = 300.0
    """Seconds between checkpoints; each tenth of the run ends with one whatever this says."""
    keep: int = 2
    """Newest checkpoints that are kept."""
    keep_best: bool = False
    """Evaluate at each tenth of the run, and keep the best of those checkpoints too."""
    non_finite: Literal["drop", "stop", "restart"] = "drop"
    """What is done with an agent that is nan or infinite: leave it out, stop all, or begin it again, three times."""
    debug: bool = False
    """Look for the line that makes the first nan; slow, and on one device."""
    compilation_cache: str = "~/.cache/jdqn"
    """Where compiled programs are kept for the next run; none to keep nothing."""
    list: bool = False
    """Print what each algorithm picks, and do nothing else."""
    config: tyro.conf.OmitArgPrefixes[Configs] = dataclasses.field(default_factory=Configs)
    hyper: tyro.conf.OmitArgPrefixes[Hypers] = dataclasses.field(default_factory=Hypers)


def parse(arguments: list[str]) -> Options:
    """Read the command line; --env, --algo and --total-steps come first, for they decide other defaults."""
    first = argparse.ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--env", default=Options.env)
    first.add_argument("--algo", default=Options.algo)
    first.add_argument("--total-steps", "--total_steps", type=int, default=argparse.SUPPRESS)
    try:
        known = vars(first.parse_known_args(arguments)[0])
    except argparse.ArgumentError:  # a value is missing or no number: tyro says it better
        known = {"env": Options.env, "algo": Options.algo}
    env, algo = known.pop("env"), known.pop("algo")
    config, hyper = defaults(algo, env, **known)
    options = tyro.cli(
        Options,
        args=arguments,
        default=Options(
            env=env,
            algo=algo,
            config=_one_each(Configs, dataclasses.asdict(config)),
            hyper=_one_each(Hypers, hyper._asdict()),
        ),
        prog=PROGRAM,
    )
    check_options(options)
    return options


def _one_each(cls: Any, values: dict[str, Any]) -> Any:
    def value(x):
        return x if isinstance(x, bool) else tuple(map(str, x)) if isinstance(x, tuple) else (x,)

    return cls(**{name: value(x) for name, x in values.items()})


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
    if plan.agents < 2:
        raise ConfigError("--pbt-every needs two agents or more to choose from: raise --samples or --seeds")
    ticks, warm_up, total = (f(plan.config) for f in (ticks_per_iteration, warm_up_iterations, total_iterations))
    every = max(1, options.pbt_every // ticks)
    if warm_up + every >= total:
        raise ConfigError(
            f"--pbt-every {options.pbt_every} leaves no generation between the warm-up, which ends at step "
            f"{warm_up * ticks}, and the end at {total * ticks}: lower it below {(total - warm_up) * ticks}"
        )
    return Evolution(every, options.pbt_fraction, options.pbt_replay == "copy", ranges)


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
