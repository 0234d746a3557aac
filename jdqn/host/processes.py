"""One program on several hosts: how they meet, who writes, how numbers come together, and that all take the same turn.

With one process every function here does the obvious.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..config import ConfigError
from ..keys import from_words, to_words
from ..types import PyTree

LOST_SECONDS = 30  # without a sign of life, a host counts as lost


def meet(coordinator: str | None, hosts: int | None, index: int | None) -> None:
    """Join the other processes of the run, before JAX has started.

    What is None is found by JAX, which knows SLURM, Open MPI, Kubernetes and cloud TPUs.

    Raises:
        ConfigError: it cannot be found, or the others cannot be reached.
    """
    try:
        jax.distributed.initialize(coordinator, hosts, index, heartbeat_timeout_seconds=LOST_SECONDS)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--distributed could not join the other hosts ({reason}): outside SLURM, Open MPI and Kubernetes give "
            "--coordinator HOST:PORT, --num-hosts and --host-index"
        ) from error


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


def place(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Arrays that every process has whole -> the same, spread over the devices of all."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    shapes = jax.eval_shape(lambda: tree)
    words = jax.tree.map(np.asarray, to_words(tree))
    return jax.jit(lambda words: from_words(words, shapes), out_shardings=sharding)(words)
