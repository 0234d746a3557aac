"""Which devices a run uses. A CPU with several cores becomes several devices, so that a population uses all of them."""

import functools
import os
from pathlib import Path

import jax
import xxhash

from ..config import ConfigError
from ..envs.gymnax import IMAGES

MOST_DEVICES = 1024  # of one process; a CPU would be cut into however many are asked for


def cores() -> int:
    """Cores that this process may use, within its container's limit."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(found, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no limit, or not Linux
        return found


@functools.cache
def processor() -> tuple[str, str]:
    """(name of the CPU, instructions that it has), as far as the system tells."""
    try:
        lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    except OSError:
        lines = []
    about = {name.strip(): value.strip() for name, value in lines}
    return about.get("model name", "cpu"), about.get("flags", about.get("Features", ""))  # the latter on ARM


def name_of_device() -> str:
    """What the devices are; JAX calls all CPUs alike."""
    device = jax.devices()[0]
    return processor()[0] if device.platform == "cpu" else device.device_kind


def arithmetic() -> str:
    """What has to be the same for the same program to round in the same way.

    Of a CPU that is the instructions it has, for which its name does not stand, and how many threads share a large
    product: XLA has one pool of them for all devices of a process, with at least one for each.
    """
    if jax.default_backend() != "cpu":
        return name_of_device()
    name, instructions = processor()
    digest = xxhash.xxh32_hexdigest(" ".join(sorted(instructions.split())).encode())
    asked = os.environ.get("NPROC", "")
    threads = max(int(asked) if asked.isdecimal() else cores(), jax.local_device_count())
    return f"{name}, instructions {digest}, threads {threads}"


def number_wanted(text: str) -> int | None:
    """'all' -> None, '4' -> 4.

    Raises:
        ConfigError: it is neither.
    """
    if text == "all":
        return None
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MOST_DEVICES):
        raise ConfigError(f"--devices must be all or a number from 1 to {MOST_DEVICES}, got {text[:80]}")
    return int(text)


def convolves(env: str, network: str) -> bool:
    """Whether the network of that name looks at images of `env`, as far as is known before JAX starts."""
    return env in IMAGES if network == "auto" else network not in ("mlp", "tabular")


def split_cpu(wanted: int | None, most: int, convolutions: bool) -> None:
    """Make `wanted` devices of the CPU, by default one a core and no more than `most`.

    A single device gets one thread, or with `convolutions` one a core: those are the only products of ours that two
    cores compute faster than one. A program of small ones takes 1.3 to 1.9 times as long on two threads, which wait for
    each other after every operation. The environment variable NPROC decides otherwise.

    Only before JAX has started; later, or where XLA_FLAGS already decides it, the devices stay as they are.
    """
    number = min(cores(), most) if wanted is None else wanted
    if not convolutions:
        os.environ.setdefault("NPROC", "1")
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", number)
    except RuntimeError:
        return


def options_to_run_once() -> dict[str, int]:
    """How to compile what runs once: on a CPU LLVM does less, for the same bits in three quarters of the time."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def choose(wanted: int | None, parts: int, divides: bool) -> int:
    """How many devices `parts` agents or shards go to; where it `divides`, each gets as many.

    Raises:
        ConfigError: there are not so many.
    """
    there = jax.local_device_count()
    if wanted is not None and wanted > there:
        raise ConfigError(f"--devices {wanted}: there are {there} {jax.default_backend()} device(s)")
    if jax.process_count() > 1:  # no host may be without its part
        if wanted is not None and wanted != there:
            raise ConfigError(f"--devices {wanted}: with --distributed every host uses all of its {there} device(s)")
        number = jax.device_count()
        if divides and parts % number:
            raise ConfigError(
                f"{parts} shards do not divide over the {number} devices of all hosts: start hosts that have one of "
                f"{_divisors(parts, parts)} together"
            )
        return number
    if divides and wanted is not None and parts % wanted:
        fit = _divisors(parts, there)
        raise ConfigError(f"--devices {wanted}: {parts} shards do not divide over them, choose one of {fit}")
    number = min(wanted or there, parts)
    return next(n for n in range(number, 0, -1) if parts % n == 0) if divides else number


def _divisors(number: int, most: int) -> str:
    return ", ".join(str(n) for n in range(1, min(number, most) + 1) if number % n == 0)
