"""What decides a run: the plan of one compiled program, as config.json keeps it."""

import dataclasses
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import xxhash

from ..config import Config, ConfigError, Hyper
from ..validation import validate_config
from ..version import __version__
from .devices import kind

CHANGEABLE = ("reports", "episodes", "checkpoint_every", "keep", "keep_best", "non_finite", "debug")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "numpy")


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
    keep: int = 2  # newest checkpoints
    keep_best: bool = False  # evaluate at each tenth, and keep the best checkpoint too
    non_finite: Literal["drop", "stop", "restart"] = "drop"  # what is done with a sick agent
    debug: bool = False  # look for the line that makes a nan
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

    def changed(self, names: Sequence[str], options: Any) -> "Plan":
        """The plan with those of its fields, or total_steps, as `options` has them."""
        config = self.config
        if "total_steps" in names:
            if len(options.config.total_steps) > 1:
                raise ConfigError("--total-steps takes one value")
            config = dataclasses.replace(config, total_steps=options.config.total_steps[0])
            validate_config(config)
        values = {name: getattr(options, name) for name in names if name != "total_steps"}
        return dataclasses.replace(self, config=config, **{"debug": False} | values)

    def fingerprint(self) -> dict[str, Any]:
        """Whatever decides the numbers of a run, with a checksum in the place of what may be long."""
        content = dataclasses.asdict(self)
        for name in CHANGEABLE:
            content.pop(name)
        config = {name: x for name, x in content.pop("config").items() if name != "total_steps"}
        hyper = {name: x if isinstance(x, float) else _short(x) for name, x in self.hyper._asdict().items()}
        return json.loads(json.dumps(content | {"seeds": _short(self.seeds), "hyper": ""} | config | hyper))

    def require_same(self, saved: dict[str, Any], checkpoint: Path) -> None:
        """Refuse a checkpoint that another run made.

        Raises:
            ConfigError: naming the first setting that differs.
        """
        for name, value in self.fingerprint().items():
            if saved.get(name) != value:
                raise ConfigError(
                    f"{checkpoint} was made with {name}={saved.get(name)}, and config.json says {value}: it is "
                    "damaged, or the checkpoint is of another run"
                )

    def to_json(self) -> dict[str, Any]:
        content = dataclasses.asdict(self) | {"hyper": self.hyper._asdict()}
        device = jax.devices()[0]
        return content | {
            "versions": {"jdqn": __version__, "python": platform.python_version()}
            | {name: version(name) for name in LIBRARIES},
            "device": {"platform": device.platform, "kind": kind(), "count": jax.device_count()},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Plan":
        """The plan that `to_json` described.

        Raises:
            ConfigError: another version of the program wrote it, with other settings.
            KeyError, TypeError, ValueError, AttributeError: it describes none.
        """
        wrote = content["versions"]["jdqn"]
        for part, known in ((content, cls), (content["config"], Config)):
            names = {field.name for field in dataclasses.fields(known)}
            _require_same_names(set(part) - {"versions", "device"}, names, wrote)
        _require_same_names(set(content["hyper"]), set(Hyper._fields), wrote)
        fields: dict[str, Any] = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        hyper: dict[str, Any] = {k: tuple(x) if isinstance(x, list) else x for k, x in content["hyper"].items()}
        config = content["config"] | {"hidden_sizes": tuple(content["config"]["hidden_sizes"])}
        fields |= dict(seeds=tuple(content["seeds"]), config=Config(**config), hyper=Hyper(**hyper))
        if evolution := content["evolution"]:
            ranges = {name: tuple(ends) for name, ends in evolution["ranges"].items()}
            fields["evolution"] = Evolution(**evolution | {"ranges": ranges})
        return cls(**fields)


def _require_same_names(found: set[str], known: set[str], wrote: str) -> None:
    for name in sorted(found ^ known):
        has = "has" if name in found else "lacks"
        raise ConfigError(
            f"the run was written by jdqn {wrote} and {has} the setting {name}, and this is jdqn {__version__}: go on "
            "with the version that wrote it"
        )


def _short(content: Any) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(content).encode())
