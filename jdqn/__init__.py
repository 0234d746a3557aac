"""jdqn: the DQN family as pure JAX functions. Environments, replay and learner are one compiled program.

>>> env = jdqn.envs.make("CartPole-v1")
>>> config, hyper = jdqn.preset("dqn", env.name)
>>> trainer = jdqn.build(config, env)
>>> state, metrics = jax.jit(lambda key: jdqn.train(trainer, key, hyper, 1000))(jax.random.key(0))
"""

from pathlib import Path
from typing import Any

from . import envs
from .build import build
from .config import Config, ConfigError, Hyper, total_iterations
from .envs import Env, Step, check_env
from .evaluate import Evaluation, evaluate
from .parallel import Population, device_mesh, over_agents, over_devices, over_shards
from .presets import ALGORITHMS, preset
from .shards import Shards
from .trainer import Metrics, State, Trainer, advance, train
from .types import Atoms, Row, Sample
from .version import __version__

__all__ = [
    "ALGORITHMS",
    "Atoms",
    "Config",
    "ConfigError",
    "Env",
    "Evaluation",
    "Hyper",
    "Metrics",
    "Population",
    "Row",
    "Sample",
    "Shards",
    "State",
    "Step",
    "Trainer",
    "__version__",
    "advance",
    "build",
    "check_env",
    "device_mesh",
    "envs",
    "evaluate",
    "load",
    "over_agents",
    "over_devices",
    "over_shards",
    "preset",
    "total_iterations",
    "train",
]


def load(folder: str | Path, best: bool = False) -> Any:
    """Load what a run of the program has learnt: (env, trainer, params [S, ...], iteration).

    See `jdqn.host.load.load`, which is imported only here.
    """
    from .host.load import load

    return load(folder, best)
