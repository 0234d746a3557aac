"""Population-based training on the host: who is judged by what, and lineage.csv."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..config import Hyper
from ..evolution import exploit, explore, inherit
from ..trainer import State
from .folder import RunFolder, Table
from .health import heirs
from .plan import Plan
from .processes import fetch
from .progress import Progress


class Generations:
    """The generations of a plan, if it has any. The agents beyond those of the plan, up to `size`, stay as they are."""

    def __init__(self, plan: Plan, size: int, folder: RunFolder, progress: Progress):
        self.plan, self.size = plan, size
        ranges = plan.evolution.ranges if plan.evolution else ()
        columns = ("generation", "env_steps", "agent", "parent", "score", *ranges)
        self.lineage = Table(folder.lineage, columns, progress.generations * plan.agents, write=bool(ranges))
        replay = plan.evolution is not None and plan.evolution.replay
        self._inherit = jax.jit(functools.partial(inherit, replay=replay), donate_argnums=0)

    def next(self, state: State, hyper: Hyper, progress: Progress) -> tuple[State, Hyper]:
        """The next generation, judged by the training episodes since the last one."""
        plan, evolution = self.plan, self.plan.evolution
        assert evolution is not None
        with np.errstate(invalid="ignore", divide="ignore"):
            score = progress.returns / progress.episodes
        score[progress.dropped] = np.nan  # nobody's parent
        progress.generations += 1
        key = jax.random.fold_in(jax.random.key(plan.seeds[0]), progress.generations)
        k_exploit, k_explore = jax.random.split(key)
        parents = exploit(k_exploit, jnp.asarray(score, jnp.float32), evolution.fraction)
        parents = jnp.concatenate([parents, jnp.arange(plan.agents, self.size)])
        state = self._inherit(state, parents)
        hyper = explore(k_explore, hyper, parents, evolution.ranges)
        numbers = fetch(hyper)._asdict()
        rows: dict[str, Any] = {
            "generation": np.full(plan.agents, progress.generations),
            "env_steps": progress.env_steps,
            "agent": np.arange(plan.agents),
            "parent": np.asarray(parents)[: plan.agents],
            "score": score,
        }
        self.lineage.add(rows | {name: numbers[name][: plan.agents] for name in evolution.ranges})
        progress.sick = heirs(np.asarray(parents), progress)
        progress.returns, progress.episodes = np.zeros(plan.agents), np.zeros(plan.agents)
        return state, hyper
