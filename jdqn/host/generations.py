"""Population-based training on the host: who is judged by what, and lineage.csv."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..config import Hyper
from ..evolution import exploit, explore, inherit
from ..parallel import on_devices, sharded
from ..shards import DEVICES
from ..trainer import State
from ..types import Array
from .folder import RunFolder, Table
from .health import heirs
from .plan import Plan
from .processes import fetch
from .progress import Progress

OF_GENERATIONS = 2**31 - 2  # folded into a seed's key, from which agents and their evaluation take other numbers


def lineage_columns(plan: Plan) -> tuple[str, ...]:
    ranges = plan.evolution.ranges if plan.evolution else ()
    return ("generation", "env_steps", "agent", "parent", "score", *ranges)


class Generations:
    """The generations of a plan, if it has any. The agents beyond those of the plan, up to `size`, stay as they are.

    `mesh` are the devices that the agents lie on, None for one; a generation lies there as the one before it.
    """

    def __init__(
        self,
        plan: Plan,
        size: int,
        folder: RunFolder,
        progress: Progress,
        mesh: jax.sharding.Mesh | None = None,
        warn: Callable[[str], None] = lambda message: None,
    ):
        self.plan, self.size = plan, size
        rows = progress.generations * plan.agents
        self.lineage = Table(folder.lineage, lineage_columns(plan), rows, plan.evolution is not None, warn)
        place = None if mesh is None else sharded(mesh)
        self._inherit = jax.jit(self._inherit_on(mesh), donate_argnums=0, out_shardings=place)
        self._explore = jax.jit(self._explore_from, out_shardings=place)

    def _key(self, generation: Array | int) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(self.plan.seeds[0]), OF_GENERATIONS)
        return jax.random.fold_in(key, generation)

    def _inherit_on(self, mesh: jax.sharding.Mesh | None):
        replay = self.plan.evolution is not None and self.plan.evolution.replay

        def copy(state, parents, lost):
            return inherit(state, parents, replay, lost, None if mesh is None else DEVICES)

        return copy if mesh is None else on_devices(mesh)(copy, shared=2)

    def _explore_from(self, hyper: Hyper, parents: Array, generation: Array) -> Hyper:
        evolution = self.plan.evolution
        assert evolution is not None
        key = jax.random.fold_in(self._key(generation), 1)
        return explore(key, hyper, parents, evolution.ranges, evolution.factor)

    def _score(self, progress: Progress) -> np.ndarray:
        """What agents [S] are judged by: nan if no episode of theirs ended in this generation, -inf if dropped."""
        with np.errstate(invalid="ignore", divide="ignore"):
            score = progress.returns / progress.episodes
        score[progress.dropped] = -np.inf
        return score

    def next(self, state: State, hyper: Hyper, progress: Progress) -> tuple[State, Hyper]:
        """The next generation, judged by the training episodes since the last one."""
        plan, evolution, score = self.plan, self.plan.evolution, self._score(progress)
        assert evolution is not None
        progress.generations += 1
        key = jax.random.fold_in(self._key(progress.generations), 0)
        parents, lost = np.arange(self.size, dtype=np.int32), np.zeros(self.size, bool)
        parents[: plan.agents] = exploit(key, jnp.asarray(score, jnp.float32), evolution.fraction)
        lost[progress.dropped] = True
        state = self._inherit(state, parents, lost)
        hyper = self._explore(hyper, parents, np.int32(progress.generations))
        numbers = fetch(hyper)._asdict()
        rows: dict[str, Any] = {
            "generation": np.full(plan.agents, progress.generations),
            "env_steps": progress.env_steps,
            "agent": np.arange(plan.agents),
            "parent": parents[: plan.agents],
            "score": score,
        }
        self.lineage.add(rows | {name: numbers[name][: plan.agents] for name in evolution.ranges})
        progress.sick = heirs(parents, progress)
        progress.begin_generation()
        return state, hyper
