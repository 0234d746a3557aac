"""The command line: flags and their values, read and checked."""

import argparse
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro

from ..config import Config, Hyper
from ..presets import defaults
from .checks import check_options

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
