"""One program on several hosts: how they meet, who writes, how numbers come together, and that all take the same turn.

With one process every function here does the obvious.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..config import ConfigError
from ..keys import from_words, to_words
from ..types import PyTree

LOST_SECONDS = 30  # without a sign of life, a host counts as lost
JOIN_SECONDS = 300  # that all hosts have to start
SENTENCE = 1000  # bytes of a refusal that are passed on


def meet(coordinator: str | None, hosts: int | None, index: int | None) -> None:
    """Join the other processes of the run, before JAX has started.

    What is None is found by JAX, which knows SLURM, Open MPI 4, Kubernetes and cloud TPUs.

    Where the others do not come within JOIN_SECONDS, this process says so and ends, with status 2.

    Raises:
        ConfigError: it cannot be found, or the others cannot be reached.
    """
    # JAX would end the process after a minute more, with the trace of its stack.
    late = threading.Timer(JOIN_SECONDS, _give_up, [coordinator])
    late.daemon = True
    late.start()
    here = coordinator is not None and coordinator.rpartition(":")[0] in ("127.0.0.1", "localhost")
    try:
        jax.distributed.initialize(
            coordinator, hosts, index, initialization_timeout=JOIN_SECONDS + 60,
            coordinator_bind_address=coordinator if here else None,  # not on every network that this machine is in
            heartbeat_timeout_seconds=LOST_SECONDS, shutdown_timeout_seconds=LOST_SECONDS,
        )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--distributed could not join the other hosts ({reason}): outside SLURM, Open MPI 4 and Kubernetes give "
            "--coordinator HOST:PORT, --num-hosts and --host-index"
        ) from error
    finally:
        late.cancel()


def _give_up(coordinator: str | None) -> None:
    where = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "the address that was found")
    with contextlib.suppress(OSError):
        sys.stderr.write(
            f"error: --distributed waited {JOIN_SECONDS} seconds for the other hosts at {where}: start the same "
            "command on all of them, and see that each reaches that address\n"
        )
    leave(2)


def leave(status: int) -> None:
    """End this process now: neither a checkpoint that is being written nor another host is waited for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def several() -> bool:
    """The run has other processes; to ask does not start JAX, whose devices may still have to be chosen."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def first() -> bool:
    """This process writes the files."""
    return not several() or jax.process_index() == 0


def fetch(tree: PyTree) -> Any:
    """Arrays on whichever devices of whichever host -> NumPy, everywhere."""
    if not several():
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def agree(*numbers: float) -> list[float]:
    """The largest of each number among the processes, so that all of them go on alike."""
    if not several():
        return list(numbers)
    words = np.array(numbers, np.float64).view(np.uint32)  # JAX would round them to float32
    found = np.asarray(multihost_utils.process_allgather(words)).reshape(jax.process_count(), -1)
    return np.ascontiguousarray(found).view(np.float64).max(0).tolist()


class Agreed(ConfigError):
    """All processes refuse the same."""


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All processes come out of this block, or none: what one of them refuses, each refuses.

    Raises:
        ConfigError: one of them raised it; the sentence is that of the first one that did.
    """
    if not several():
        yield
        return
    refusal = ""
    try:
        yield
    except Agreed:
        raise
    except (ConfigError, OSError) as error:
        refusal = str(error)
    letters = np.frombuffer(refusal.encode()[:SENTENCE].ljust(SENTENCE, b"\0"), np.uint8)
    found = np.asarray(multihost_utils.process_allgather(letters)).reshape(jax.process_count(), -1)
    sentences = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in found]
    for index, sentence in enumerate(sentences):
        if sentence:
            raise Agreed(sentence if index == 0 else f"host {index} refuses: {sentence}")


def there(path: Path) -> bool:
    """Whether the first process sees a file, for the disk may show others late that it is there, or that it is gone."""
    return agree(float(first() and path.exists())) == [1.0]


def wait_for_all(name: str) -> None:
    """Return when every process has come here."""
    if several():
        multihost_utils.sync_global_devices(name)


def place(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Arrays that every process has whole -> the same, spread over the devices of all."""
    if not several():
        return jax.device_put(tree, sharding)
    shapes = jax.eval_shape(lambda: tree)
    words = jax.tree.map(np.asarray, to_words(tree))
    return jax.jit(lambda words: from_words(words, shapes), out_shardings=sharding)(words)
