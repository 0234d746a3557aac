"""gymnax environments, made to keep our rules. gymnax itself is imported only when one is made."""

import contextlib
import difflib
import importlib
import inspect
import math
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..config import ConfigError
from .base import Env, Step

# Observations that hold only zeros and ones, so a bool says the same in a quarter of the bytes.
IMAGES = frozenset(f"{game}-MinAtar" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")) | {
    "Pong-misc"
}
BINARY = IMAGES | {"Catch-bsuite", "DeepSea-bsuite"}
# Numbers of things: how many there may be. The sizes are those of arrays that gymnax makes at once.
SIZES = (
    "size", "rows", "columns", "num_bits", "n_actions", "num_actions", "maze_size", "width", "height", "num_joints",
    "num_urchins",
)  # fmt: skip
MOST = dict.fromkeys(SIZES, 1000) | {"n_distractor": 1000, "max_steps_in_episode": 2**31 - 1, "chain_length": 2**31 - 1}
LARGEST = float(np.finfo(np.float32).max)
LEAST = dict.fromkeys(MOST, 1) | {"n_distractor": 0}
INTERFACE = ("reset_env", "step_env", "is_truncated")


def make(name: str, /, **overrides) -> Env:
    """The gymnax environment `name`, with `overrides` of its parameters (max_steps_in_episode=200) or sizes (size=20).

    A discrete observation becomes a one-hot vector, a binary image bool, an integer reward float32.

    Raises:
        ConfigError: unknown name or parameter, continuous actions, an observation that is not one
            array, or data that cannot be downloaded.
    """
    with _without_plots():
        import gymnax

    if name not in gymnax.registered_envs:
        near = difflib.get_close_matches(name, gymnax.registered_envs, 3, 0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(gymnax.registered_envs)}"
        raise ConfigError(f"unknown environment {name}: {hint}")
    try:
        env, params = gymnax.make(name)
        # What the constructor takes (DeepSea's size) changes shapes; what is in params are numbers in arithmetic.
        sizes = {
            field: parameter.default
            for field, parameter in inspect.signature(type(env)).parameters.items()
            if isinstance(parameter.default, (int, float, str))
        }
        numbers = {field: getattr(params, field) for field in params.__dataclass_fields__}
        if unknown := overrides.keys() - sizes.keys() - numbers.keys():
            fields = ", ".join([*sizes, *numbers])
            raise ConfigError(f"{name} has no parameter {', '.join(sorted(unknown))}: choose from {fields}")
        typed = {field: _typed(name, field, value, sizes | numbers) for field, value in overrides.items()}
        if chosen := {field: value for field, value in typed.items() if field in sizes}:
            env, params = _make(name, chosen)
    except (OSError, EOFError) as error:
        raise ConfigError(f"{name} needs data that could not be downloaded or read ({error})") from error
    return from_gymnax(env, params.replace(**{f: value for f, value in typed.items() if f not in sizes}), name)


class _Later(types.ModuleType):
    """Stands for a module that is imported when something of it is asked for.

    The lazy modules of the standard library are already read when a second module imports them, as gymnax's do.
    """

    def __getattr__(self, attribute):
        if attribute.startswith("__"):  # what asks every module for its file, say, wants nothing drawn
            raise AttributeError(attribute)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)


@contextlib.contextmanager
def _without_plots() -> Iterator[None]:
    """gymnax imports what draws some of its games; that takes longer than all the rest of gymnax, so it waits."""
    names = () if "gymnax" in sys.modules else ("matplotlib.pyplot", "seaborn")
    stand_ins = {name: _Later(name) for name in names}
    for name, module in stand_ins.items():
        sys.modules.setdefault(name, module)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:  # whoever else imports it gets the real one
                del sys.modules[name]


def _make(name: str, chosen: dict[str, Any]):
    """gymnax.make, which believes whatever sizes it is told; an environment of theirs has to begin at least."""
    import gymnax

    try:
        env, params = gymnax.make(name, **chosen)
        jax.eval_shape(env.reset_env, jax.random.key(0), params)
        return env, params
    except OSError:
        raise
    except Exception as error:
        told = ", ".join(f"{field}={value}" for field, value in chosen.items())
        raise ConfigError(f"{name} cannot be made with {told} ({error!r}): choose a size nearer to its own") from error


def _typed(name: str, field: str, value: Any, defaults: dict[str, Any]):
    """gymnax computes with a parameter in the type of its default: 20 steps may have to be 20.0.

    Raises:
        ConfigError: it is no such number or word, or not one of 32 bits.
    """
    default = defaults[field]
    number = float(value) if _is_number(value) else math.nan
    if isinstance(default, str):
        kind, ok = "a word", isinstance(value, str | int)
    elif isinstance(default, bool):
        kind, ok = "True or False", isinstance(value, bool) or value in (0, 1)
    elif isinstance(default, int):
        least, most = LEAST.get(field, -(2**31)), MOST.get(field, 2**31 - 1)
        kind, ok = f"a whole number from {least} to {most}", least <= number <= most and number == int(number)
    elif isinstance(default, float):
        kind, ok = "a finite number of 32 bits", number >= LEAST.get(field, -LARGEST)
    else:
        shape = np.shape(default)
        kind, ok = f"numbers of shape {shape}", _are_numbers(value, shape)
    if not ok:
        raise ConfigError(f"{name} needs {kind} for {field}, got {repr(value)[:80]}: its own is {default}")
    return type(default)(value) if isinstance(default, int | float | str) else jnp.asarray(value, default.dtype)


def _is_number(value: Any) -> bool:
    """A number that float32 holds; the words "True" and "1" are none."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return number and -LARGEST <= value <= LARGEST


def _are_numbers(value: Any, shape: tuple[int, ...]) -> bool:
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        return False
    return array.shape == shape and bool(np.isfinite(array).all())


def from_gymnax(env, params, name: str) -> Env:
    """Adapt a gymnax environment object, a user's own included.

    Raises:
        ConfigError: continuous actions, or an observation that is not one array.
    """
    try:
        actions, observations = env.action_space(params), env.observation_space(params)
    except (AttributeError, TypeError) as error:
        raise ConfigError(
            f"{name} must follow gymnax, with action_space(params) and observation_space(params), and {error}"
        ) from error
    if not hasattr(actions, "n"):
        raise ConfigError(f"{name} has continuous actions, and DQN needs a finite number of them")
    if not hasattr(observations, "n") and not isinstance(getattr(observations, "shape", None), tuple):
        kind = type(observations).__name__
        raise ConfigError(f"{name} has a {kind} observation space, and a network here takes one array")

    if missing := [part for part in INTERFACE if not callable(getattr(env, part, None))]:
        raise ConfigError(
            f"{name} must follow gymnax, and has no {' and no '.join(missing)}: write it, or use jdqn.Env(reset, step, "
            "num_actions)"
        )

    def encode(obs):
        if hasattr(observations, "n"):
            return jax.nn.one_hot(obs, observations.n, dtype=bool)
        return jnp.asarray(obs).astype(bool) if name in BINARY else jnp.asarray(obs)

    # gymnax mixes Python numbers into its states; a scan needs the dtypes of reset and step to agree.
    shapes = jax.eval_shape(env.reset_env, jax.random.key(0), params)[1]

    def strong(state):
        return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, shapes)

    def reset(key):
        obs, state = env.reset_env(key, params)
        return strong(state), encode(obs)

    def step(key, state, action):
        obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
        truncated = env.is_truncated(state, params)
        return strong(state), Step(
            encode(obs), jnp.asarray(reward, jnp.float32), jnp.asarray(terminated, bool), jnp.asarray(truncated, bool)
        )

    return Env(reset, step, int(np.asarray(actions.n)), name)
