"""How many bytes a run wants, and how many there are."""

import math
from pathlib import Path

import jax
import psutil

from .processes import Agreed, agree


def tree_bytes(tree) -> int:
    """Bytes of the arrays of a pytree, or of what `eval_shape` says of one."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def available_bytes() -> int:
    """Free bytes of the first device: its own figure, or this machine's memory within its container's limit."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    free = psutil.virtual_memory().available
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    try:  # "max" where there is no limit
        return min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):
        return free


def total_bytes(devices: int) -> int:
    """Free bytes of `devices` devices of all hosts together, each as free as the least free one.

    Those of a CPU share its memory.
    """
    (least,) = agree(-available_bytes())
    return int(-least) * (jax.process_count() if jax.default_backend() == "cpu" else devices)


def human(size: int) -> str:
    """1536 -> '1.5 KiB'."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def require(wanted: int, what: str, devices: int = 1) -> None:
    """Refuse what cannot fit, spread evenly over `devices`.

    Raises:
        ConfigError: naming both numbers.
    """
    free = total_bytes(devices)
    if wanted > free:
        raise Agreed(  # for what is free is agreed upon
            f"{what} needs {wanted:,} bytes ({human(wanted)}) and {free:,} ({human(free)}) are free: "
            "lower replay_size, batch_size, atoms or the network's sizes, or the number of agents or --wave"
        )
