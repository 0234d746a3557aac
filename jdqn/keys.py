"""Random keys as the numbers that they are, where something cannot handle keys: slices, files, other processes."""

from typing import Any

import jax
import jax.numpy as jnp

from .types import PyTree


def is_key(x: Any) -> bool:
    """A typed random key, an array of them, or the shape of one."""
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def to_words(tree: PyTree) -> PyTree:
    """Every key [...] becomes its words [..., W]; the other arrays stay."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def from_words(words: PyTree, like: PyTree) -> PyTree:
    """The inverse of `to_words`; `like` has the structure and dtypes, and may be shapes."""

    def wrap(x, like):
        if not is_key(like):
            return x
        return jax.random.wrap_key_data(x, impl=jax.random.key_impl(jnp.empty((), like.dtype)))

    return jax.tree.map(wrap, words, like)
