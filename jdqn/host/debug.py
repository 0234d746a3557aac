"""--debug: the line that made the first number that is none."""

import re
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import checkify
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun


def checked(function: Callable) -> Callable:
    """Return a function that also returns the first place where something became nan."""

    def named(*arguments):
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        found = jaxpr_as_fun(_named(program))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return checkify.checkify(named, errors=checkify.nan_checks | checkify.user_checks)


def _named(program: ClosedJaxpr, caller: Any = None) -> ClosedJaxpr:
    """Let what happens inside a function of JAX's carry the traceback of the line that called it.

    JAX traces a function that has a rule for its derivative, or is jitted, by itself, and its traceback ends there.
    """

    def one(equation):
        mine = equation.source_info.traceback
        traceback = mine if caller is None or _lines(mine) else caller

        def inner(x):
            if isinstance(x, tuple):
                return tuple(map(inner, x)) if any(isinstance(y, ClosedJaxpr) for y in x) else x
            return _named(x, traceback) if isinstance(x, ClosedJaxpr) else x

        return equation.replace(
            source_info=equation.source_info.replace(traceback=traceback),
            params={name: inner(x) for name, x in equation.params.items()},
        )

    return program.map_jaxpr(lambda jaxpr: jaxpr.replace(eqns=[one(x) for x in jaxpr.eqns]))


def _lines(traceback: Any) -> list[Any]:
    """The frames of a traceback that are ours or an environment's, the innermost first."""
    frames = getattr(traceback, "frames", ())
    return [x for x in frames if not re.search(r"site-packages/(jax|jaxlib|flax|optax)/", x.file_name)]


def place_of(exception: Exception) -> str:
    """Where a line of ours, or of an environment, made what `checked` found."""
    ours = _lines(getattr(exception, "traceback_info", None))
    return f" at {ours[0].file_name}:{ours[0].line_num} ({ours[0].function_name})" if ours else ""
