"""What is refused of an environment without running it: reset and step that do not fit together, or cannot be traced.

Every refusal is one sentence that says which rule of docs/add_an_env.md is broken.
"""

import inspect
import traceback
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from ..config import ConfigError
from ..types import PyTree
from .base import Env, Step

ARGUMENTS = {"reset": "(key)", "step": "(key, state, action)"}
RETURNS = {"reset": "(state, obs)", "step": "(state, jdqn.Step(obs, reward, terminated, truncated))"}
# What to do about an error that JAX raises inside of reset or step; the first that fits.
ADVICE: list[tuple[type[Exception], str]] = [
    (jax.errors.TracerBoolConversionError, "branch with jnp.where or jax.lax.select, not with if, and, or, not"),
    (jax.errors.TracerArrayConversionError, "compute with jax.numpy, not with NumPy"),
    (jax.errors.TracerIntegerConversionError, "index with jnp arrays and loop with jax.lax, not with Python's range"),
    (jax.errors.NonConcreteBooleanIndexError, "choose with jnp.where, for a mask as index has no fixed shape"),
    (
        jax.errors.ConcretizationTypeError,
        "keep numbers in jnp arrays, for int, float, bool and shapes cannot read them",
    ),
    (jax.errors.UnexpectedTracerError, "keep everything that changes in the state, not in an object or a global"),
    (jax.errors.KeyReuseError, "use every key for one draw, and jax.random.split it for more"),
]
NOT_THEIRS = (*(str(Path(module.__file__ or "").parent) for module in (jax, jaxlib, np)), str(Path(__file__).parent))


def check_shapes(env: Env) -> None:
    """Refuse an environment whose reset and step do not fit together; nothing is run.

    Raises:
        ConfigError: one sentence that says which rule of docs/add_an_env.md is broken.
    """
    if not isinstance(env, Env):
        raise ConfigError(
            f"an environment must be a jdqn.Env, got {type(env).__name__}: make one with jdqn.envs.make(name), "
            "jdqn.envs.from_gymnax or jdqn.Env(reset, step, num_actions)"
        )
    actions = env.num_actions
    if not isinstance(actions, Integral) or isinstance(actions, bool) or not 1 <= int(actions) < 2**31:
        raise ConfigError(
            f"{env.name} must have one action or more, a whole number, got num_actions={actions} of type "
            f"{type(actions).__name__}"
        )
    key, action = jax.random.key(0), jax.ShapeDtypeStruct((), jnp.int32)
    state, obs = _pair(env, "reset", shapes_of(env, "reset", key))
    _check_obs(env, state, obs)
    _check_step(env, state, obs, shapes_of(env, "step", key, state, action))
    strong = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    if state != strong:  # from the second step on, the state has no Python numbers, which take any dtype, any more
        _check_step(env, strong, obs, shapes_of(env, "step", key, strong, action))
    _check_batch(env)


def shapes_of(env: Env, name: str, *arguments: Any) -> Any:
    """What reset or step (`name`) returns, as `jax.eval_shape` says it.

    Raises:
        ConfigError: it cannot be called, or fails; the original error is the cause.
    """
    function = getattr(env, name)
    if not callable(function):
        raise ConfigError(f"{env.name}'s {name} must be a function {ARGUMENTS[name]}, got {type(function).__name__}")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        took = str(inspect.signature(function)).split(" ->")[0]
        raise ConfigError(
            f"{env.name}'s {name} must take {ARGUMENTS[name]}, and the one{_where([], function)} takes {took}"
        ) from error
    except ValueError:  # it has no signature to look at
        pass
    return guarded(env, name, lambda: jax.eval_shape(lambda *x: function(*x), *arguments))


def guarded(env: Env, name: str, call: Callable[[], Any]) -> Any:
    """Return `call()`, which calls reset or step (`name`).

    Raises:
        ConfigError: it fails; the sentence names the line, the original error is the cause.
    """
    try:
        return call()
    except ConfigError:
        raise
    except Exception as error:
        _explain(env, name, error)


def _explain(env: Env, name: str, error: Exception) -> NoReturn:
    function, frames = getattr(env, name), _frames(error)
    where, kind = _where(frames, function), type(error).__name__
    said = (str(error).strip() or "it says no more").splitlines()
    # Of an error in a callback JAX quotes the traceback, which ends with what went wrong.
    line = (said[-1] if "Traceback (most recent call last)" in said[0] else said[0]).rstrip(".:")[:200]
    if advice := next((text for cls, text in ADVICE if isinstance(error, cls)), None):
        raise ConfigError(f"{env.name}'s {name} fails{where} with {kind}: {advice}") from error
    if isinstance(error, TypeError) and not frames:  # JAX does not know what was returned
        raise ConfigError(
            f"{env.name}'s {name}{where} must return {RETURNS[name]}, with arrays and nothing else in it ({line})"
        ) from error
    raise ConfigError(f"{env.name}'s {name} fails{where} with {kind}: {line}") from error


def _frames(error: Exception) -> list[tuple[str, int]]:
    """(file, line) of the frames that are neither JAX's nor ours, the innermost last."""
    found = ((frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__))
    return [(file, line) for file, line in found if not file.startswith(NOT_THEIRS)]


def _where(frames: list[tuple[str, int]], function: Callable) -> str:
    """' at river.py:12': where the user's code failed, else where the function begins."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    frames = frames or ([(code.co_filename, code.co_firstlineno)] if code else [])
    return f" at {Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""


def _pair(env: Env, name: str, result: Any) -> Any:
    if not isinstance(result, tuple | list) or isinstance(result, Step) or len(result) != 2:
        kind = type(result).__name__
        got = f"a {kind} of {len(result)}" if isinstance(result, tuple | list | dict) else f"one {_describe(result)}"
        raise ConfigError(f"{env.name}'s {name} must return {RETURNS[name]}, got {got}")
    return result


def _check_obs(env: Env, state: PyTree, obs: Any) -> None:
    if not _is_array(obs):
        turned = ", or are state and obs the wrong way round?" if _is_array(state) else ""
        raise ConfigError(
            f"{env.name} must show one array, and reset shows {jax.tree.structure(obs)}: concatenate it{turned}"
        )
    if not any(jnp.issubdtype(obs.dtype, kind) for kind in (jnp.bool, jnp.integer, jnp.floating)):
        raise ConfigError(f"{env.name} must show real numbers or bools, and reset shows {_describe(obs)}")
    if 0 in obs.shape:
        raise ConfigError(f"{env.name} must show one number or more, and reset shows {_describe(obs)}")


def _check_step(env: Env, state: PyTree, obs: Any, result: Any) -> None:
    """Refuse a `result` of step that does not follow `state` and `obs`."""
    after, step = _pair(env, "step", result)
    if not isinstance(step, Step):
        got = f"{type(step).__name__} of {len(step)}" if isinstance(step, tuple | list | dict) else _describe(step)
        raise ConfigError(f"{env.name}'s step must return {RETURNS['step']}, and has {got} in the place of jdqn.Step")
    _check_structure(env, state, after)
    for name, made, found in [
        *(("state" + path, a, b) for (path, a), b in zip(leaves(state), jax.tree.leaves(after), strict=True)),
        ("obs", obs, step.obs),
        ("reward", jax.ShapeDtypeStruct((), jnp.float32), step.reward),
        ("terminated", jax.ShapeDtypeStruct((), jnp.bool), step.terminated),
        ("truncated", jax.ShapeDtypeStruct((), jnp.bool), step.truncated),
    ]:
        wanted, got = _describe(made), _describe(found)
        if wanted != got:
            raise ConfigError(f"{env.name} must keep {name} at {wanted}, and step gives {got}")


def _check_structure(env: Env, state: PyTree, after: PyTree) -> None:
    before, later = jax.tree.structure(state), jax.tree.structure(after)
    if str(before) == str(later):
        return
    old, new = ([path for path, _ in leaves(tree)] for tree in (state, after))
    lost, added = [path for path in old if path not in new], [path for path in new if path not in old]
    if lost or added:
        what = " and ".join(f"{verb} state{x[0]}" for verb, x in (("drops", lost), ("adds", added)) if x)
    else:
        what = f"makes {later} of {before}"
    raise ConfigError(f"{env.name} must keep the structure of its state, and step changes what reset makes: it {what}")


def _check_batch(env: Env) -> None:
    """Refuse functions that cannot be batched: custom primitives, callbacks without a rule for vmap."""
    keys, actions = jax.eval_shape(jax.random.split, jax.random.key(0)), jax.ShapeDtypeStruct((2,), jnp.int32)
    state, _ = guarded(env, "reset", lambda: jax.eval_shape(jax.vmap(lambda key: env.reset(key)), keys))
    guarded(env, "step", lambda: jax.eval_shape(jax.vmap(lambda *x: env.step(*x)), keys, state, actions))


def leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """('.velocity', leaf) of every leaf."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")


def is_key(x: Any) -> bool:
    return hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _describe(x: Any) -> str:
    """'float32[3]', or what it is if it is no array."""
    if not _is_array(x):
        return "None" if x is None else type(x).__name__
    return f"{'key' if is_key(x) else jnp.dtype(x.dtype).name}{list(x.shape)}"
