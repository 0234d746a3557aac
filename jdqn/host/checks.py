"""What is refused of the program's own options; those of an agent are validation.py's."""

import dataclasses
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..config import ConfigError, ticks_per_iteration, total_iterations, warm_up_iterations
from .folder import NO_ROOM

COUNT = 2**31 - 1
MOST_AGENTS, MOST_PROGRAMS, MOST_REPORTS = 2**20, 1_000, 1_000_000
# From where to where each number may go; those that depend on another are below.
RANGES: dict[str, tuple[float, float]] = {
    "seeds": (1, MOST_AGENTS),
    "seed": (0, 2**32 - 1),
    "samples": (1, MOST_AGENTS),
    "pbt_every": (0, COUNT),
    "at_once": (0, COUNT),
    "wave": (0, COUNT),
    "num_hosts": (1, MOST_AGENTS),
    "host_index": (0, MOST_AGENTS),
    "reports": (1, math.inf),
    "episodes": (1, 1_000_000),
    "keep": (1, COUNT),
}
OF_SEVERAL_HOSTS = ("coordinator", "num_hosts", "host_index")


def check_options(options: Any) -> None:
    """Refuse numbers out of range, and paths that cannot be ones.

    Raises:
        ConfigError: one sentence that names the flag, its value and what to do.
    """
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    check_ranges(values, flag)
    for name, value in values.items():
        if isinstance(value, Path):
            check_path(flag(name), value)
    if options.seed > 2**32 - options.seeds:
        raise ConfigError(f"--seed must be from 0 to 2^32 - seeds, got {options.seed}")
    _check_hosts(options)
    cache = options.compilation_cache
    # By default compiled programs are kept where there is a home that can be written to.
    if cache not in ("none", type(options).compilation_cache) and not can_keep(cache):
        raise ConfigError(f"--compilation-cache must be a folder that can be written to, or none, got {cache[:80]!r}")


def check_ranges(values: dict[str, Any], told: Callable[[str], str] = str) -> None:
    """Refuse numbers out of range; `told` turns the name of one into what it is called.

    Raises:
        ConfigError: one sentence that names it and its value.
    """
    for name, value in values.items():
        low, high = RANGES.get(name, (-math.inf, math.inf))
        if name in RANGES and value is not None and not low <= value <= high:
            bounds = f"from {low} to {high}" if math.isfinite(high) else f"at least {low}"
            raise ConfigError(f"{told(name)} must be {bounds}, got {value}")
        if name == "checkpoint_every" and not 0 < value < math.inf:
            raise ConfigError(f"{told(name)} must be seconds above zero, and finite, got {value}")
        if name == "pbt_fraction" and not 0 < value <= 0.5:
            raise ConfigError(f"{told(name)} must be above 0, up to 0.5, got {value}")
        if name == "pbt_factor" and not 1.001 <= value <= 100:
            raise ConfigError(f"{told(name)} must be from 1.001 to 100, got {value}")


def _check_hosts(options: Any) -> None:
    given = [name for name in OF_SEVERAL_HOSTS if getattr(options, name) is not None]
    if given and not options.distributed:
        raise ConfigError(f"{flag(given[0])} belongs to a run on several hosts: add --distributed, or leave it out")
    if options.coordinator is not None:
        name, _, port = options.coordinator.rpartition(":")
        if not (name and port.isdecimal() and len(port) < 6 and 0 < int(port) < 2**16):
            raise ConfigError(
                f"--coordinator is the address HOST:PORT of the first host, like 10.0.0.1:1234, got "
                f"{options.coordinator[:80]}"
            )
    if options.num_hosts is not None and (options.host_index or 0) >= options.num_hosts:
        raise ConfigError(
            f"--host-index counts from 0, so of {options.num_hosts} hosts it is at most {options.num_hosts - 1}, got "
            f"{options.host_index}"
        )


def check_path(name: str, path: Path) -> None:
    """Refuse a path that no folder can have.

    Raises:
        ConfigError: naming it.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):  # who makes it will see
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero byte
        raise ConfigError(f"{name} {str(path)[:80]!r} cannot be a folder ({error}): choose another") from error


def can_keep(where: str) -> bool:
    """Whether compiled programs can be kept in the folder `where`."""
    try:
        path = Path(where).expanduser()
        check_path("--compilation-cache", path)
        found = next(p for p in (path, *path.absolute().parents) if p.exists())
        return bool(where) and found.is_dir() and ("JAX_COMPILATION_CACHE_DIR" in os.environ or _writes(found))
    except (OSError, ValueError, RuntimeError):  # nobody has such a home
        return False


def _writes(folder: Path) -> bool:
    """Whether a file can be made there; who may do everything is told so of /proc and of what is mounted to be read."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.errno in NO_ROOM  # there may be room later
    return True


def check_agents(agents: int) -> None:
    """Refuse a sweep whose agents nobody could list.

    Raises:
        ConfigError: with how many there are.
    """
    if agents > MOST_AGENTS:
        raise ConfigError(
            f"this makes {agents:,} agents, and {MOST_AGENTS:,} are the most: give fewer values or seeds, or draw some "
            "with --sweep random --samples"
        )


def check_plans(plans: Sequence[Any]) -> None:
    """Refuse too many programs, more reports than can be written, and too many generations or none.

    Raises:
        ConfigError: one sentence that names the flag, its value and what to do.
    """
    programs = len({plan.config for plan in plans})  # waves share one
    if programs > MOST_PROGRAMS:
        raise ConfigError(
            f"this makes {programs:,} programs to compile, one for each set of shapes, and {MOST_PROGRAMS:,} are the "
            "most: give settings that change shapes fewer values"
        )
    for plan in plans:
        ticks, warm_up, total = (f(plan.config) for f in (ticks_per_iteration, warm_up_iterations, total_iterations))
        if min(plan.reports, total) > MOST_REPORTS:
            raise ConfigError(f"--reports must be no more than {MOST_REPORTS}, got {plan.reports}")
        if plan.evolution is None:
            continue
        if total // plan.evolution.every > MOST_REPORTS:
            raise ConfigError(f"--pbt-every must leave no more than {MOST_REPORTS} generations: raise it")
        if (first := warm_up + plan.evolution.every) >= total:  # of a run that goes on; wanted.py knows more of others
            raise ConfigError(
                f"--total-steps {plan.config.total_steps} leaves no generation of population-based training: raise it "
                f"above {first * ticks}"
            )


def check_debug(plans: Sequence[Any], distributed: bool) -> None:
    """Refuse --debug on several hosts, for it is of one device, and where agents or shards go side by side.

    It cannot look into a loop under `vmap`.

    Raises:
        ConfigError: one sentence that names both flags.
    """
    for plan in plans:
        if plan.debug and distributed:
            raise ConfigError("--debug trains on one device of one host: leave it out, or start without --distributed")
        if plan.debug and (plan.shards > 1 or min(plan.at_once, plan.agents) > 1):
            other = "--parallel data" if plan.shards > 1 else f"--at-once {plan.at_once}"
            raise ConfigError(
                f"--debug follows one agent after another on one device, and {other} trains side by side: leave "
                f"--debug out, or start a run without {other}"
            )


def flag(name: str) -> str:
    """at_once -> --at-once."""
    return f"--{name.replace('_', '-')}"
