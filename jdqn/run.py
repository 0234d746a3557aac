"""The main program: python -m jdqn.run --env CartPole-v1 [--algo dqn] [any setting]. See --help."""

import argparse
import ast
import dataclasses
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import psutil
import tyro
from rich.console import Console

from . import __version__, envs
from .config import Config, ConfigError, Hyper
from .host.checkpoint import Checkpoints
from .host.console import ProgressBar, conclude, describe, list_algorithms
from .host.folder import RunFolder, read_metrics
from .host.program import Interrupted, Plan, Run
from .host.statistics import summary
from .presets import defaults
from .validation import validate_config, validate_hyper

PROGRAM = "python -m jdqn.run"
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "orbax-checkpoint", "numpy")


@dataclasses.dataclass(frozen=True)
class Options:
    """Train agents of the DQN family on one environment, evaluate them and keep everything in a folder."""

    env: str = "CartPole-v1"
    """Environment, a gymnax name."""
    env_params: tuple[str, ...] = ()
    """Parameters of the environment, as name=value: --env DeepSea-bsuite --env-params size=20."""
    algo: str = "dqn"
    """Algorithm, a row of presets.py; it sets the defaults of the settings below."""
    seeds: int = 1
    """Agents to train side by side, with seeds seed, seed + 1, ..."""
    seed: int = 0
    """Seed of the first agent."""
    out: Path | None = None
    """Run folder; runs/<env>-<algo>-s<seed>-<time> if not given."""
    overwrite: bool = False
    """Replace a run that is already in the folder."""
    resume: Path | None = None
    """Go on with the run in this folder; takes no other flag."""
    reports: int = 100
    """Rows of metrics.csv per agent, beside the one for the warm-up."""
    episodes: int = 100
    """Greedy episodes per agent at the end, here and in Gymnasium where the environment has a twin."""
    checkpoint_every: float = 300.0
    """Seconds between checkpoints; each tenth of the run ends with one whatever this says."""
    compilation_cache: str = "~/.cache/jdqn"
    """Where compiled programs are kept for the next run; none to keep nothing."""
    list: bool = False
    """Print what each algorithm picks, and do nothing else."""
    config: tyro.conf.OmitArgPrefixes[Config] = dataclasses.field(default_factory=Config)
    hyper: tyro.conf.OmitArgPrefixes[Hyper] = dataclasses.field(default_factory=Hyper)


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
    return tyro.cli(
        Options,
        args=arguments,
        default=Options(env=env, algo=algo, config=config, hyper=hyper),
        prog=PROGRAM,
    )


def plan_of(options: Options) -> Plan:
    """Check the options that are not Config's or Hyper's.

    Raises:
        ConfigError: one of them cannot work.
    """
    if not 1 <= options.seeds <= 2**20:
        raise ConfigError(f"--seeds must be from 1 to 1048576, got {options.seeds}")
    if not 0 <= options.seed <= 2**32 - options.seeds:
        raise ConfigError(f"--seed must be from 0 to 2^32 - seeds, got {options.seed}")
    for name in ("reports", "episodes"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if not options.checkpoint_every > 0:
        raise ConfigError(f"--checkpoint-every must be above zero seconds, got {options.checkpoint_every}")
    validate_config(options.config)
    validate_hyper(options.hyper)
    fields = {field.name for field in dataclasses.fields(Plan)}
    chosen = {name: getattr(options, name) for name in fields}
    return Plan(**chosen | {"env_params": dict(map(env_param, options.env_params))})


def env_param(text: str) -> tuple[str, Any]:
    """'size=20' -> ("size", 20)."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals and value):
        raise ConfigError(f"--env-params takes name=value, got {text}: write it like --env-params size=20")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a word
        return name, value


def plan_to_json(plan: Plan) -> dict:
    content = dataclasses.asdict(plan)
    content["hyper"] = plan.hyper._asdict()
    device = jax.devices()[0]
    return content | {
        "versions": {"jdqn": __version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }


def plan_from_json(content: dict) -> Plan:
    config = content["config"] | {"hidden_sizes": tuple(content["config"]["hidden_sizes"])}
    fields = {field.name: content[field.name] for field in dataclasses.fields(Plan)}
    return Plan(**fields | {"config": Config(**config), "hyper": Hyper(**content["hyper"])})


def open_run(options: Options, arguments: list[str]) -> tuple[Plan, RunFolder]:
    """Make the folder of a new run, or find the one to resume."""
    if options.resume is None:
        plan = plan_of(options)
        name = f"{plan.env}-{plan.algo}-s{plan.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        return plan, RunFolder(options.out or Path("runs") / name)
    if len(arguments) != (2 if "--resume" in arguments else 1):
        raise ConfigError("--resume takes no other flag: the run goes on with the settings in its config.json")
    folder = RunFolder.open(options.resume)
    try:
        return plan_from_json(json.loads(folder.config.read_text())), folder
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"--resume {folder.path}: {folder.config} is not a run's ({error!r})") from error


def keep_compiled(where: str) -> None:
    """Turn on JAX's cache of compiled programs, unless the environment already names one."""
    if where != "none" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path(where).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def main(arguments: list[str]) -> int:
    """Run the program; the exit status is 0, 2 for settings that cannot work, 128 + n after signal n."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    split = {"import": time.time() - psutil.Process().create_time()}
    try:
        options = parse(arguments)
        if options.list:
            list_algorithms(console)
            return 0
        plan, folder = open_run(options, arguments)
        keep_compiled(options.compilation_cache)
        if options.resume and folder.result.exists():
            console.print(f"{folder.path} is finished: see {folder.result}")
            return 0
        began = time.perf_counter()
        run = Run(plan, envs.make(plan.env, **plan.env_params))
        split["build"] = time.perf_counter() - began
        describe(console, run)
        run.require_memory()
        if not options.resume:  # an old run goes only when nothing can be refused any more
            RunFolder.require_new(folder.path, options.overwrite)
            run.compile(fresh=True)
            RunFolder.create(folder.path, options.overwrite)
            folder.write_json(folder.config, plan_to_json(plan))
        checkpoints = Checkpoints(folder.checkpoint)
        try:
            if options.resume:
                checkpoints.newest()
                run.compile(fresh=False)
            return train_and_report(console, run, folder, checkpoints, options.resume is not None, split)
        finally:
            checkpoints.close()
    except KeyboardInterrupt:
        console.print("stopped; if the run has a checkpoint, --resume goes on from there")
        return 130
    except ConfigError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
        return 2


def train_and_report(console, run: Run, folder: RunFolder, checkpoints: Checkpoints, resume: bool, split: dict) -> int:
    """Everything from the first step to the last file."""
    console.print(f"compiled in {run.compile_seconds:.1f} s; writing to {folder.path}")
    try:
        with ProgressBar(console, run) as show:
            state, progress = run.train(folder, checkpoints, resume, show)
    except Interrupted as stop:
        console.print(f"stopped at a checkpoint: go on with python -m jdqn.run --resume {folder.path}")
        return 128 + stop.signum
    from .host import plots, twin  # matplotlib and gymnasium, not needed before

    began, compiled = time.perf_counter(), run.compile_seconds
    ours = summary(run.evaluate(state))
    theirs = None if run.plan.env_params else twin.play(
        run.plan.env, run.trainer.policy, state.learner.params, run.plan.agent_seeds, run.plan.episodes
    )  # fmt: skip
    evaluated = time.perf_counter()
    result = {
        "env": run.plan.env,
        "algo": run.plan.algo,
        "agents": run.plan.seeds,
        "env_steps": int(progress.env_steps.mean().round()),
        "updates": run.updates(progress.iteration),
        "compile_seconds": run.compile_seconds,
        "run_seconds": progress.seconds,
        "env_steps_per_second": float(progress.env_steps.sum() / progress.seconds),
        "evaluation": ours,
        "gymnasium": None if theirs is None else summary(theirs),
    }
    plots.learning_curves({f"{run.plan.algo} on {run.plan.task}": read_metrics(folder.metrics)}, folder.curve)
    folder.write_json(folder.result, result)
    split |= {
        "compile": run.compile_seconds,
        "run": progress.seconds,
        "evaluate": evaluated - began - (run.compile_seconds - compiled),
        "write": time.perf_counter() - evaluated,
    }
    conclude(console, result, int(progress.env_steps.sum()), folder, split)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
