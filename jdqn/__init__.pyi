from . import envs
from .build import build
from .config import Config, ConfigError, Hyper, total_iterations
from .envs import Env, Step, check_env
from .evaluate import Evaluation, evaluate
from .host.load import load
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
