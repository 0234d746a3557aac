"""What a run has learnt, for who wants to use it: from its folder back to functions and parameters."""

import json
from pathlib import Path
from typing import NamedTuple

import jax

from .. import envs
from ..config import ConfigError
from ..trainer import Trainer
from ..types import PyTree
from .checkpoint import Checkpoints
from .folder import RunFolder
from .plan import Plan
from .program import Run


class Trained(NamedTuple):
    """The agents of a run folder."""

    env: envs.Env
    trainer: Trainer
    params: PyTree  # [S, ...] of the agents, in their order
    iteration: int  # of the checkpoint that they come from


def load(folder: str | Path, best: bool = False) -> Trained:
    """Load the agents of a run, from its newest checkpoint or, with `best`, from the one that `--keep-best` kept.

    Of a run in several parts, each part is such a folder.

    Raises:
        ConfigError: there is no run, no checkpoint, or no best one.
    """
    found = RunFolder.open(Path(folder))
    if not found.config.exists():
        raise ConfigError(f"{folder} is a run in several parts: load one of them, like {found.path / 'part-000'}")
    plan = Plan.from_json(json.loads(found.config.read_text()))
    env = envs.make(plan.env, **plan.env_params)
    run, checkpoints = Run(plan, env), Checkpoints(found.checkpoint)
    try:
        if best:
            checkpoints.choose_best()
        state, *_ = run.restore(checkpoints)
        iteration = checkpoints.newest()
    finally:
        checkpoints.close()
    agents = plan.agents
    return Trained(env, run.trainer, jax.tree.map(lambda x: x[:agents], state.learner.params), iteration)
