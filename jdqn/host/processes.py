"""One program on several hosts: who writes, how numbers come together, and that all take the same turn."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..types import PyTree


def first() -> bool:
    """This process writes the files."""
    return jax.process_index() == 0


def fetch(tree: PyTree) -> Any:
    """Arrays on whichever devices of whichever host -> NumPy, everywhere."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def agree(*numbers: float) -> list[float]:
    """The largest of each number among the processes, so that all of them go on alike."""
    if jax.process_count() == 1:
        return list(numbers)
    return np.max(multihost_utils.process_allgather(np.array(numbers, np.float64)), 0).tolist()


def wait_for_all(name: str) -> None:
    """Return when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
