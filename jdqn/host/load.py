"""What a run has learnt, for who wants to use it: from its folder back to functions and parameters."""

import warnings
from pathlib import Path
from typing import NamedTuple

import jax

from .. import envs
from ..config import ConfigError
from ..trainer import Trainer
from ..types import PyTree
from .checkpoint import Checkpoints
from .checks import check_path
from .folder import RunFolder
from .plan import read_plans
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
        ConfigError: there is no run, no checkpoint, or no best one; or its config.json is damaged, or another run's.
    """
    found, damages = RunFolder(Path(folder)), list[str]()
    check_path("the folder", found.path)
    if found.parts.exists():
        raise ConfigError(f"{folder} is a run in several parts: load one of them, like {found.path / 'part-000'}")
    if not found.config.exists():
        raise ConfigError(f"{folder} holds no run: there is no {found.config}")
    plan, *others = read_plans(found.config)
    if others:
        raise ConfigError(f"{found.config} is damaged: it describes {1 + len(others)} runs, as a parts.json does")
    env = envs.make(plan.env, **plan.env_params)
    run, checkpoints = Run(plan, env), Checkpoints(found.checkpoint, warn=damages.append)
    try:
        if best:
            checkpoints.choose_best()
        iteration = checkpoints.newest()
        run.require_same(checkpoints, found.checkpoint / str(iteration))
        state, *_ = run.restore(checkpoints)
    finally:
        checkpoints.close()
    for damage in damages:
        warnings.warn(damage, stacklevel=2)  # of whoever called jdqn.load
    agents = plan.agents
    return Trained(env, run.trainer, jax.tree.map(lambda x: x[:agents], state.learner.params), iteration)
