"""Row f of benchmarks/versus.py: from the start of a process to a greedy mean of 475 on CartPole.

Each library trains one agent with the settings it has for CartPole, and every 2,500 steps its policy plays 100 greedy
episodes in Gymnasium. The clock starts with the process, imports and compilation included, and does not count the
judging. The policy that ends a race plays another 100 episodes, `again`. `cached` finds its programs compiled.

Unequal: jdqn and Stable-Baselines3 (rl-baselines3-zoo) have settings tuned for CartPole, PureJaxRL and CleanRL those of
their scripts. PureJaxRL is cut into pieces to be judged, and compiles two programs, one after the other, where jdqn
compiles two side by side; it has one thread (NPROC=1), with which it is faster, as jdqn has.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .environments import ROOT, Missing, python_of
from .rows import purejaxrl

ZOO = dict(  # rl-baselines3-zoo, hyperparams/dqn.yml
    learning_rate=2.3e-3, batch_size=64, buffer_size=100_000, learning_starts=1_000, gamma=0.99,
    target_update_interval=10, train_freq=256, gradient_steps=128, exploration_fraction=0.16,
    exploration_final_eps=0.04,
)  # fmt: skip
COLUMNS = {
    "library": "", "cache": "", "seeds": "", "reached": "", "seconds": ".1f", "spread": "", "steps": ",.0f",
    "score": ".1f", "again": ".1f", "note": "",
}  # fmt: skip


def runners(tiny: bool) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(library, cold or cached, driver, what it is asked)."""
    steps = 20_000 if tiny else 500_000
    jax = dict(settings=purejaxrl(steps))
    zoo = dict(settings=ZOO, hidden_sizes=[256, 256], steps=4_000 if tiny else 50_000)
    flags = dict(flags=["--total-timesteps", str(steps)], steps=steps)
    return [
        ("jdqn", "cold", "race_ours", {}),
        ("jdqn", "cached", "race_ours", {}),
        ("PureJaxRL", "cold", "race_purejaxrl", jax),
        ("PureJaxRL", "cached", "race_purejaxrl", jax),
        ("Stable-Baselines3", "-", "race_stable_baselines3", zoo),
        ("CleanRL", "-", "race_cleanrl", flags),
    ]


def once(python: str, driver: str, asked: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """One race.

    Raises:
        Missing: it fell.
    """
    command = [python, str(ROOT / "benchmarks" / "peers" / f"{driver}.py"), json.dumps(asked), repr(time.time())]
    out = subprocess.run(command, capture_output=True, text=True, env=environment)
    if not out.stdout.strip():
        raise Missing(f"not run: {(out.stderr.strip() or 'it said nothing').splitlines()[-1][:200]}")
    return json.loads(out.stdout.splitlines()[-1])


def run(options: argparse.Namespace, checkout_of: Callable, environment: dict[str, str]) -> list[dict[str, Any]]:
    """A record for each library, cold and cached where it compiles; they take turns, seed by seed."""
    seeds, records = range(1 if options.tiny else 5), []
    races = runners(options.tiny)
    with tempfile.TemporaryDirectory() as caches:
        found: list[list[dict]] = [[] for _ in races]
        notes: dict[str, str] = {}
        for seed in seeds:
            for k, (library, cache, driver, asked) in enumerate(races):
                if library in notes:
                    continue
                try:
                    python = python_of(library, options.environments, options.torch)
                    told = asked | dict(seed=seed, every=2_500) | checkout_of(library, options)
                    found[k].append(once(python, driver, told, environment | _variables(cache, library, seed, caches)))
                except Missing as error:
                    notes[library] = str(error)
                    continue
                print(json.dumps(dict(library=library, cache=cache, seed=seed) | found[k][-1]), file=sys.stderr)
    for (library, cache, _, _), results in zip(races, found, strict=True):
        records.append(dict(library=library, cache=cache, seeds=len(results), note=notes.get(library)))
        if results:
            records[-1] |= _summary(results)
    return records


def _variables(cache: str, library: str, seed: int, caches: str) -> dict[str, str]:
    """Where what JAX compiles is kept: a seed's cached run finds that of its cold run. One thread for all of JAX."""
    return {} if cache == "-" else dict(
        NPROC="1",
        JAX_COMPILATION_CACHE_DIR=str(Path(caches) / f"{library}-{seed}"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )  # fmt: skip


def _summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over seeds. A race that was not won counts with the whole of its time, and `reached` says so."""
    times = [x["seconds"] for x in results]
    again = [x["again"] for x in results if x["again"] is not None]
    return dict(
        reached=f"{sum(x['reached'] for x in results)} of {len(results)}",
        seconds=statistics.median(times),
        spread=f"{min(times):.1f} to {max(times):.1f}",
        steps=statistics.median(x["steps"] for x in results),
        score=statistics.median(x["score"] for x in results),
        again=statistics.median(again) if again else None,
    )
