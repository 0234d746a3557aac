"""What is refused of the program's own options; those of an agent are validation.py's."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from ..config import ConfigError, total_iterations
from .plan import Plan

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
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name in RANGES and value is not None:
            low, high = RANGES[field.name]
            if not low <= value <= high:
                bounds = f"from {low} to {high}" if math.isfinite(high) else f"at least {low}"
                raise ConfigError(f"{flag(field.name)} must be {bounds}, got {value}")
        if isinstance(value, Path):
            _check_path(flag(field.name), value)
    if options.seed > 2**32 - options.seeds:
        raise ConfigError(f"--seed must be from 0 to 2^32 - seeds, got {options.seed}")
    if not 0 < options.checkpoint_every < math.inf:
        raise ConfigError(f"--checkpoint-every must be seconds above zero, and finite, got {options.checkpoint_every}")
    if not 0 < options.pbt_fraction <= 0.5:
        raise ConfigError(f"--pbt-fraction must be above 0, up to 0.5, got {options.pbt_fraction}")
    _check_hosts(options)
    _check_cache(options.compilation_cache)


def _check_hosts(options: Any) -> None:
    given = [name for name in OF_SEVERAL_HOSTS if getattr(options, name) is not None]
    if given and not options.distributed:
        raise ConfigError(f"{flag(given[0])} belongs to a run on several hosts: add --distributed, or leave it out")
    if options.coordinator is not None:
        name, _, port = options.coordinator.rpartition(":")
        if not (name and port.isdecimal() and 0 < int(port) < 2**16):
            raise ConfigError(
                f"--coordinator is the address HOST:PORT of the first host, like 10.0.0.1:1234, got "
                f"{options.coordinator[:80]}"
            )
    if options.num_hosts is not None and (options.host_index or 0) >= options.num_hosts:
        raise ConfigError(
            f"--host-index counts from 0, so of {options.num_hosts} hosts it is at most {options.num_hosts - 1}, got "
            f"{options.host_index}"
        )


def _check_path(name: str, path: Path) -> None:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):  # who makes it will see
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero byte
        raise ConfigError(f"{name} {str(path)[:80]!r} cannot be a folder ({error}): choose another") from error


def _check_cache(where: str) -> None:
    if where == "none":
        return
    try:
        path = Path(where).expanduser()
        _check_path("--compilation-cache", path)
        found = next(p for p in (path, *path.absolute().parents) if p.exists())
        ok = bool(where) and found.is_dir()
    except (OSError, ValueError, RuntimeError):  # nobody has such a home
        ok = False
    if not ok:
        raise ConfigError(f"--compilation-cache must be a folder, or none, got {where[:80]!r}")


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


def check_plans(plans: list[Plan]) -> None:
    """Refuse a sweep of too many programs, and a run with more reports than can be written.

    Raises:
        ConfigError: one sentence that names the flag, its value and what to do.
    """
    if len(plans) > MOST_PROGRAMS:
        raise ConfigError(
            f"this makes {len(plans):,} programs to compile, one for each set of shapes, and {MOST_PROGRAMS:,} are the "
            "most: give settings that change shapes fewer values"
        )
    for plan in plans:
        total = total_iterations(plan.config)
        if min(plan.reports, total) > MOST_REPORTS:
            raise ConfigError(f"--reports must be no more than {MOST_REPORTS}, got {plan.reports}")
        if plan.evolution and total // plan.evolution.every > MOST_REPORTS:
            raise ConfigError(f"--pbt-every must leave no more than {MOST_REPORTS} generations: raise it")


def check_debug(plans: list[Plan]) -> None:
    """Refuse --debug where agents or shards go side by side: it cannot look into a loop under `vmap`.

    Raises:
        ConfigError: one sentence that names both flags.
    """
    for plan in plans:
        if plan.debug and (plan.shards > 1 or min(plan.at_once, plan.agents) > 1):
            other = "--parallel data" if plan.shards > 1 else f"--at-once {plan.at_once}"
            raise ConfigError(
                f"--debug follows one agent after another on one device, and {other} trains side by side: leave "
                f"--debug out, or start a run without {other}"
            )


def flag(name: str) -> str:
    """at_once -> --at-once."""
    return f"--{name.replace('_', '-')}"
