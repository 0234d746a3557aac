"""What decides a run: the plan of one compiled program, as config.json keeps it."""

import dataclasses
import platform
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from ..config import Config, Hyper
from ..version import __version__

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "orbax-checkpoint", "numpy")


@dataclasses.dataclass(frozen=True)
class Evolution:
    """Population-based training of the agents of a plan."""

    every: int  # iterations between two generations
    fraction: float  # of the agents that copy, and of those that are copied
    replay: bool  # whether replay is copied too
    ranges: dict[str, tuple[float, float]]  # what is perturbed, and how far it may go


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that decides what one program computes."""

    env: str
    env_params: dict[str, Any]
    algo: str
    seeds: tuple[int, ...]  # one per agent
    reports: int
    episodes: int
    checkpoint_every: float
    config: Config
    hyper: Hyper  # numbers, and tuples of one per agent
    shards: int = 1  # pieces of the one agent, if there are several
    at_once: int = 0  # agents under one vmap; 0 leaves it to the device
    evolution: Evolution | None = None

    @property
    def task(self) -> str:
        """The environment and what was changed of it."""
        return " ".join([self.env, *(f"{name}={value}" for name, value in self.env_params.items())])

    @property
    def agents(self) -> int:
        return len(self.seeds)

    def hyper_of(self, agent: int) -> Hyper:
        """The numbers of one agent."""
        return Hyper(*(x[agent] if isinstance(x, tuple) else x for x in self.hyper))

    def select(self, agents: np.ndarray) -> "Plan":
        """The plan of some of the agents."""

        def pick(x):
            return tuple(x[k] for k in agents) if isinstance(x, tuple) else x

        return dataclasses.replace(self, seeds=pick(self.seeds), hyper=Hyper(*map(pick, self.hyper)))

    def to_json(self) -> dict[str, Any]:
        content = dataclasses.asdict(self) | {"hyper": self.hyper._asdict()}
        device = jax.devices()[0]
        return content | {
            "versions": {"jdqn": __version__, "python": platform.python_version()}
            | {name: version(name) for name in LIBRARIES},
            "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Plan":
        fields: dict[str, Any] = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        hyper: dict[str, Any] = {k: tuple(x) if isinstance(x, list) else x for k, x in content["hyper"].items()}
        config = content["config"] | {"hidden_sizes": tuple(content["config"]["hidden_sizes"])}
        fields |= dict(seeds=tuple(content["seeds"]), config=Config(**config), hyper=Hyper(**hyper))
        if evolution := content["evolution"]:
            ranges = {name: tuple(ends) for name, ends in evolution["ranges"].items()}
            fields["evolution"] = Evolution(**evolution | {"ranges": ranges})
        return cls(**fields)
