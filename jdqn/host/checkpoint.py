"""Checkpoints of everything, through Orbax: a resumed run equals an uninterrupted one."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ..config import ConfigError
from ..keys import from_words, to_words
from ..types import PyTree


def _to_host(tree: PyTree) -> PyTree:
    """A copy that later, donated steps cannot touch."""
    return jax.tree.map(np.array, to_words(tree))


@jax.jit
def _copy(tree: PyTree) -> PyTree:
    """The same where no process has all of it: each keeps, and writes, what lies on its devices."""
    return jax.tree.map(jnp.copy, to_words(tree))


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
        copy = _to_host(state) if jax.process_count() == 1 else _copy(state)
        self._manager.save(
            iteration,
            args=ocp.args.Composite(state=ocp.args.StandardSave(copy), host=ocp.args.JsonSave(host)),
        )

    def any(self) -> bool:
        """There is a checkpoint."""
        return self._manager.latest_step() is not None

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

    def host(self) -> dict[str, Any]:
        """Return the JSON values of the newest checkpoint.

        Raises:
            ConfigError: there is no checkpoint.
        """
        return self._manager.restore(self.newest(), args=ocp.args.Composite(host=ocp.args.JsonRestore())).host

    def restore(self, like: PyTree) -> PyTree:
        """Return the state of the newest checkpoint; `like` has its structure, shapes and dtypes.

        Raises:
            ConfigError: there is no checkpoint.
        """
        raw = jax.eval_shape(to_words, like)
        template = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), raw)  # takes no memory
        args = ocp.args.Composite(state=ocp.args.StandardRestore(template))
        words = jax.tree.map(jnp.asarray, self._manager.restore(self.newest(), args=args).state)
        return from_words(words, like)

    def wait(self) -> None:
        """Return when what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for what is being written, and write no more."""
        self.wait()
        self._manager.close()
