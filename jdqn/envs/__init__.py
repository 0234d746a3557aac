"""Environments: the record every one of them is, what is asked of it, and an adapter a file."""

from .base import Env, Step, Tick, VectorEnv, vectorise
from .check import EnvReport, check_env
from .gymnax import from_gymnax, make
from .shapes import check_shapes

__all__ = [
    "Env", "EnvReport", "Step", "Tick", "VectorEnv", "check_env", "check_shapes", "from_gymnax", "make", "vectorise",
]  # fmt: skip
