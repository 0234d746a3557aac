"""The command line: flags and their values, read and checked."""

import argparse
import dataclasses
import inspect
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro

from ..config import Config, ConfigError, Hyper
from ..presets import ELSEWHERE, defaults
from .checks import check_options, flag

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
    pbt_factor: float = 1.2
    """What a copy multiplies or divides settings by that are searched logarithmically (1 - discount, too)."""
    pbt_replay: Literal["keep", "copy"] = "keep"
    """Whether an agent that copies another keeps its own replay."""
    parallel: Literal["agents", "data"] = "agents"
    """What is spread over devices: agents, or one agent's environments, replay and batch."""
    devices: str = "all"
    """Devices to spread over: all or a number. A CPU becomes one for each core."""
    at_once: int = 0
    """Agents in one batch (vmap) on a device; 0 for all of them, one after another on a CPU."""
    wave: int = 0
    """Agents in memory together, or the next smaller multiple of the devices; the others follow. 0: as many as fit."""
    distributed: bool = False
    """Run on several hosts at once: start the same command on each."""
    coordinator: str | None = None
    """Address HOST:PORT of the first host; JAX finds it under SLURM, Open MPI 4 and Kubernetes."""
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
    """Print what each algorithm picks, with --env on that environment, and do nothing else."""
    config: tyro.conf.OmitArgPrefixes[Configs] = dataclasses.field(default_factory=Configs)
    hyper: tyro.conf.OmitArgPrefixes[Hypers] = dataclasses.field(default_factory=Hypers)


# Flag of each field that holds a number -> its type, and whether it takes several.
NUMBERS: dict[str, tuple[type, bool]] = {
    flag(name): (kind, cls is not Options)
    for cls in (Options, Config, Hyper)
    for name, hint in get_type_hints(cls).items()
    for kind in (int, float)
    if hint in (kind, kind | None)
}


def parse(arguments: list[str]) -> Options:
    """Read the command line; --env, --algo and --total-steps come first, for they decide other defaults.

    Raises:
        ConfigError: one sentence that names a flag.
        SystemExit: what tyro refuses, which has said so: unknown flags, and words that are no choice.
    """
    _check_names(arguments)
    _check_numbers(arguments)
    first = argparse.ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--env", default=Options.env)
    first.add_argument("--algo", default=Options.algo)
    first.add_argument("--total-steps", "--total_steps", type=int, default=argparse.SUPPRESS)
    try:
        known = vars(first.parse_known_args(arguments)[0])
    except argparse.ArgumentError:  # a value is missing: tyro says it better
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


def flags_of(arguments: list[str]) -> dict[str, str]:
    """The flags that are given, as written but for underscores -> the field of each: --no-double -> double."""
    words = [word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--")]
    return {word: word.removeprefix("--").removeprefix("no-").replace("-", "_") for word in words}


def _check_names(arguments: list[str]) -> None:
    """Refuse names that other trainers have for a setting; tyro knows what is near to what was written."""
    for word, name in flags_of(arguments).items():
        if name in ELSEWHERE:
            raise ConfigError(f"{word} is called {flag(ELSEWHERE[name])} here")


def _check_numbers(arguments: list[str]) -> None:
    """Refuse words where a flag takes numbers, and such a flag alone: tyro would show the insides of Python."""
    name, words = "", list[str]()
    for word in [*arguments, "--"]:
        if not word.startswith("-") or _reads(float, word):
            words.append(word)
            continue
        kind, several = NUMBERS.get(name, (str, True))
        if name in NUMBERS and not words:
            raise ConfigError(f"{name} needs a value" + ", or several to sweep over" * several)
        for value in words if several else words[:1]:  # what follows is tyro's to refuse
            if not _reads(kind, value):
                _refuse_number(name, value)
        name, equals, value = word.partition("=")
        name, words = name.replace("_", "-"), [value] if equals else []


def _reads(kind: type, word: str) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True


def _refuse_number(name: str, word: str) -> None:
    kind, several = NUMBERS[name]
    what = ("whole number" if kind is int else "number") + "s" * several
    meant = float(word) if _reads(float, word) else math.nan
    advice = f": write {meant:.0f}" if meant.is_integer() and abs(meant) < 2**31 else ""
    if re.fullmatch(r"\d{1,3}(,\d{3})+", word):
        advice = f": write {word.replace(',', '')[:80]}"
    elif several and "," in word and all(_reads(kind, piece) for piece in word.split(",")):
        advice = ": put spaces between them"
    raise ConfigError(f"{name} takes {what if several else f'a {what}'}, got {word[:80] or repr(word)}{advice}")


def _one_each(cls: Any, values: dict[str, Any]) -> Any:
    def value(x):
        return x if isinstance(x, bool) else tuple(map(str, x)) if isinstance(x, tuple) else (x,)

    return cls(**{name: value(x) for name, x in values.items()})
