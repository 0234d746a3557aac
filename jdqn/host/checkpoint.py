"""Checkpoints of everything, through Orbax: a resumed run equals an uninterrupted one."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ..config import ConfigError
from ..types import PyTree


def _is_key(x) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _to_host(tree: PyTree) -> PyTree:
    """A copy that later, donated steps cannot touch; keys as their raw words."""
    return jax.tree.map(lambda x: np.array(jax.random.key_data(x) if _is_key(x) else x), tree)


def _to_device(like: PyTree, tree: PyTree) -> PyTree:
    def put(example, x):
        x = jnp.asarray(x)
        if not _is_key(example):
            return x
        impl = jax.random.key_impl(jnp.empty((), example.dtype))  # `example` may be a shape
        return jax.random.wrap_key_data(x, impl=impl)

    return jax.tree.map(put, like, tree)


class Checkpoints:
    """The newest two checkpoints of a run; saving goes on in the background."""

    def __init__(self, path: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(path.absolute(), options=options)

    def save(self, iteration: int, state: PyTree, host: dict[str, Any]) -> None:
        """Keep `state` and the JSON values `host` as of `iteration`; one already there is left alone."""
        if iteration in self._manager.all_steps():
            return
        self.wait()  # one copy of the state at a time
        self._manager.save(
            iteration,
            args=ocp.args.Composite(state=ocp.args.StandardSave(_to_host(state)), host=ocp.args.JsonSave(host)),
        )

    def newest(self) -> int:
        """Return the iteration of the newest checkpoint.

        Raises:
            ConfigError: there is none.
        """
        newest = self._manager.latest_step()
        if newest is None:
            raise ConfigError(
                f"{self._manager.directory} holds no checkpoint yet: start the run again with --overwrite"
            )
        return newest

    def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Return (state, host) of the newest checkpoint; `like` has the state's structure, shapes and dtypes.

        Raises:
            ConfigError: there is no checkpoint.
        """
        newest = self.newest()
        raw = jax.eval_shape(lambda t: jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, t), like)
        template = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), raw)  # takes no memory
        args = ocp.args.Composite(state=ocp.args.StandardRestore(template), host=ocp.args.JsonRestore())
        restored = self._manager.restore(newest, args=args)
        return _to_device(like, restored.state), restored.host

    def wait(self) -> None:
        """Return when what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for what is being written, and write no more."""
        self.wait()
        self._manager.close()
