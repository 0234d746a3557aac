"""Environments: the record every one of them is, and an adapter a file."""

from .base import Env, Step, Tick, VectorEnv, check_shapes, vectorise
from .gymnax import from_gymnax, make

__all__ = ["Env", "Step", "Tick", "VectorEnv", "check_shapes", "from_gymnax", "make", "vectorise"]
