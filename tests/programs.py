"""Tiny runs of the program, in this process or in another, and what their folders hold."""

import contextlib
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

REST = ["--total-steps", "2000", "--reports", "5", "--episodes", "3", "--seed", "3", "--seeds", "2"]
# 63 iterations of warm-up, 125 in all, and a ring that is written more than twice over.
DQN = dict(num_envs=8, rollout_length=2, updates=2, warm_up_steps=1000, replay_size=800, n_step=3)
TINY = {
    "dqn": [*(f"--{name}={value}" for name, value in DQN.items()), "--hidden-sizes", "16", "16", *REST],
    "q_learning": ["--env", "FrozenLake-misc", "--algo", "q_learning", *REST],
}
SECONDS = ("compile_seconds", "run_seconds", "env_steps_per_second")  # what differs between equal runs


def subprocess_of(arguments, **environment) -> subprocess.Popen:
    """`python -m jdqn.run` with its output in pipes; a variable that is None is taken out of its environment."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, "-m", "jdqn.run", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


@contextlib.contextmanager
def compiled_once(where: Path):
    """Equal programs compile once, here and in subprocesses, and the home of whoever runs the tests stays clean."""
    settings = {
        "jax_compilation_cache_dir": str(where),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name.upper(), str(value))
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def without(names, content: dict) -> dict:
    return {name: value for name, value in content.items() if name not in names}


def ticks_of(rows, num_envs):
    """Rows as replay keeps them, [slots * T * E, ...] -> NumPy arrays [slots * T, E, ...]."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, num_envs, *x.shape[1:]), rows)
