"""What decides a run: the plan of one compiled program, as config.json keeps it."""

import dataclasses
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax
import numpy as np
import xxhash

from ..config import Config, ConfigError, Hyper
from ..validation import validate_config, validate_hyper
from ..version import __version__
from .checks import check_plans, check_ranges
from .devices import arithmetic

CHANGEABLE = ("reports", "episodes", "checkpoint_every", "keep", "keep_best", "non_finite", "debug")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "numpy")


@dataclasses.dataclass(frozen=True)
class Evolution:
    """Population-based training of the agents of a plan."""

    every: int  # iterations between two generations
    fraction: float  # of the agents that copy, and of those that are copied
    factor: float  # by which a copy perturbs what it inherits
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
            if len(options.config.total_steps) != 1:
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
            "device": {"platform": device.platform, "kind": arithmetic(), "count": jax.device_count()},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Plan":
        """The plan that `to_json` described.

        Raises:
            ConfigError: another version of the program wrote it, with other settings, or it holds what no run has.
        """
        versions = content.get("versions") if isinstance(content, dict) else None
        wrote = versions.get("jdqn") if isinstance(versions, dict) else None
        if not isinstance(wrote, str):
            raise ConfigError("this is no run's, for it does not say which version of jdqn wrote it")
        fields = _fields(cls, {name: x for name, x in content.items() if name not in ("versions", "device")}, wrote)
        fields |= dict(
            config=Config(**_fields(Config, fields["config"], wrote)),
            hyper=Hyper(**_fields(Hyper, fields["hyper"], wrote)),
        )
        if fields["evolution"] is not None:
            fields["evolution"] = Evolution(**_fields(Evolution, fields["evolution"], wrote))
        plan = cls(**fields)
        plan.validate()
        return plan

    def validate(self) -> None:
        """Refuse numbers that no command line could ask for.

        Raises:
            ConfigError: one sentence that names the field and its value.
        """
        validate_config(self.config)
        validate_hyper(Hyper(*map(np.asarray, self.hyper)))  # type: ignore[arg-type]
        check_ranges(vars(self) | {"seeds": self.agents})
        for seed in (min(self.seeds), max(self.seeds)):
            check_ranges({"seed": seed}, lambda _: "each of seeds")
        for name, numbers in self.hyper._asdict().items():
            if isinstance(numbers, tuple) and len(numbers) != self.agents:
                raise ConfigError(
                    f"{name} must be one number, or one for each of the {self.agents} seeds, got {len(numbers)}"
                )
        most = self.config.num_envs if self.agents == 1 else 1
        if not 1 <= self.shards <= most:
            raise ConfigError(f"shards must be from 1 to {most}, for one agent's environments, got {self.shards}")
        if self.evolution is None:
            return
        for name in ("fraction", "factor"):
            check_ranges({f"pbt_{name}": getattr(self.evolution, name)}, f"{name} of evolution".format)
        ranges = self.evolution.ranges
        known = ranges and set(ranges) <= set(Hyper._fields) and all(low < high for low, high in ranges.values())
        if not known or self.evolution.every < 1 or self.agents < 2:
            raise ConfigError(
                "evolution must have two seeds or more, a generation every so many iterations, and ranges from low to "
                f"high of settings, got {len(self.seeds)}, {self.evolution.every} and {str(ranges)[:80]}"
            )
        validate_hyper(Hyper(**{name: np.array(ends) for name, ends in ranges.items()}))  # type: ignore[arg-type]


def read_plans(path: Path) -> list[Plan]:
    """The plans in the config.json or parts.json of a run; whoever edits them by hand is told what cannot be.

    Raises:
        ConfigError: one sentence that names the file and what of it is no run's.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged, or not a run's ({error})") from error
    parts = content.get("plans") if isinstance(content, dict) and "plans" in content else [content]
    try:
        if not (isinstance(parts, list) and parts):
            raise ConfigError(f"plans must be a list of what is trained, got {str(parts)[:80]}")
        plans = list(map(Plan.from_json, parts))
        check_plans(plans)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return plans


ONE_OR_EACH = float | tuple[float, ...]
TOLD = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "a word",
    tuple[int, ...]: "a list of whole numbers",
    ONE_OR_EACH: "a finite number, or a list of one for each agent",
}


def _fields(cls: type, content: dict[str, Any], wrote: str) -> dict[str, Any]:
    """Every field of `cls` from JSON, as its annotation says; those that have fields themselves stay dicts."""
    hints = get_type_hints(cls)
    _require_same_names(set(content), set(hints), wrote)
    found = {}
    for name, hint in hints.items():
        wanted = ONE_OR_EACH if cls is Hyper else hint
        try:
            found[name] = _read(wanted, content[name])
        except TypeError as error:
            told = " or ".join(get_args(wanted)) if get_origin(wanted) is Literal else TOLD.get(wanted, "{name: value}")
            raise ConfigError(f"{name} must be {told}, got {json.dumps(content[name])[:80]}") from error
    return found


def _read(wanted: Any, value: Any) -> Any:
    """A JSON value as the annotation `wanted` says.

    Raises:
        TypeError: it is something else.
    """
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is UnionType:
        match = next((one for one in inner if isinstance(value, list) == (get_origin(one) is tuple)), None)
        return None if value is None and NoneType in inner else _read(match, value)
    if origin is tuple and isinstance(value, list):
        each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(each) == len(value):
            return tuple(map(_read, each, value))
    if origin is dict and isinstance(value, dict):
        return {name: _read(inner[1], x) for name, x in value.items()}
    if origin is Literal:
        fits = isinstance(value, str) and value in inner
    elif wanted is float:
        if type(value) in (int, float) and abs(value) <= sys.float_info.max:
            return float(value)
        fits = False
    else:
        fits = wanted is Any or type(value) is (dict if wanted in (Config, Hyper, Evolution) else wanted)
    if not fits:
        raise TypeError
    return value


def _require_same_names(found: set[str], known: set[str], wrote: str) -> None:
    for name in sorted(found ^ known):
        has = "has" if name in found else "lacks"
        raise ConfigError(
            f"the run was written by jdqn {wrote} and {has} the setting {name}, and this is jdqn {__version__}: go on "
            "with the version that wrote it"
        )


def _short(content: Any) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(content).encode())
