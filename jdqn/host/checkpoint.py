"""Checkpoints of everything: written by Orbax while training goes on, counted once a manifest vouches for each byte.

A checkpoint is a folder named by its iteration. Its `manifest.json` is written last and holds the checksum of every
other file, of itself, and the JSON values that belong to the state: what has none is unfinished, what does not match
it is damaged, and neither is ever read.
"""

import concurrent.futures
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ..config import ConfigError
from ..keys import from_words, to_words
from ..types import PyTree
from . import manifest
from .processes import first


class Checkpoints:
    """The newest checkpoints of a run, and the best one; saving goes on in the background."""

    def __init__(self, path: Path, keep: int = 2, warn: Callable[[str], None] = lambda message: None):
        """Look at the checkpoints in `path`, and keep the newest `keep` of them; `warn` tells of one that is lost."""
        self.path, self.keep, self.warn = path.absolute(), keep, warn
        # Frames of games and random keys hardly compress: written as they are, they are written five times as fast.
        self._writer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler(use_compression=False))
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._job: concurrent.futures.Future | None = None
        self._copy: PyTree = None
        self._chosen: tuple[int, dict[str, Any]] | None = None

    def save(self, iteration: int, state: PyTree, host: dict[str, Any], best: bool = False) -> None:
        """Keep `state` and the JSON values `host` as of `iteration`; one already there is left alone.

        Returns when `state` is copied, so that later, donated steps cannot touch it. The newest checkpoint that is the
        `best` is kept however many follow. One that cannot be written is warned of, and the older ones stay.
        """
        self.wait()  # one copy of the state at a time
        if iteration in self.saved():
            return
        self._copy = _snapshot(state, self._copy)
        content = {"iteration": iteration, "best": best, "host": host, "arrays": manifest.arrays(state)}
        folder, args = self.path / str(iteration), ocp.args.PyTreeSave(self._copy)

        def write(start: bool):
            if start:
                self._writer.save(folder, args)
            self._writer.wait_until_finished()
            self._vouch(folder, content)

        several = jax.process_count() > 1
        if several:  # its barriers have to come in the same order on all of them
            self._writer.save(folder, args)
        self._job = self._thread.submit(write, start=not several)

    def _vouch(self, folder: Path, content: dict[str, Any]) -> None:
        """Write the manifest of what is on disk now, then remove what is no longer kept."""
        if not first():
            return
        manifest.write(folder, content)
        saved = self.saved()
        kept = saved[-self.keep :] + [k for k in saved if manifest.read(self.path / str(k)).get("best")][-1:]
        for iteration in set(saved) - set(kept):
            shutil.rmtree(self.path / str(iteration), ignore_errors=True)

    def busy(self) -> bool:
        """The last checkpoint is still being written."""
        return self._job is not None and not self._job.done()

    def wait(self) -> bool:
        """Return when what was saved is on disk: True, or False if it could not be written, which is warned of."""
        job, self._job = self._job, None
        try:
            if job is not None:
                job.result()
        except Exception as error:
            if jax.process_count() > 1:
                raise
            self.warn(f"a checkpoint could not be written, and the run goes on without ({_reason(error)})")
            return False
        return True

    def close(self) -> None:
        """Wait for what is being written, and write no more."""
        self.wait()
        self._thread.shutdown()
        self._writer.close()

    def saved(self) -> list[int]:
        """Iterations of the checkpoints that were finished, whether or not they are still whole."""
        found = self.path.iterdir() if self.path.is_dir() else ()
        return sorted(int(x.name) for x in found if x.name.isdecimal() and (x / manifest.NAME).exists())

    def newest(self) -> int:
        """Return the iteration of the newest checkpoint that is whole; one that is damaged is warned of.

        Raises:
            ConfigError: there is none.
        """
        return self._choose()[0]

    def host(self) -> dict[str, Any]:
        """Return the JSON values of the newest checkpoint that is whole.

        Raises:
            ConfigError: there is none.
        """
        return self._choose()[1]["host"]

    def _choose(self) -> tuple[int, dict[str, Any]]:
        """(iteration, content of its manifest) of the newest one that is whole."""
        if self._chosen is not None:
            return self._chosen
        damages = []
        for iteration in reversed(self.saved()):
            try:
                self._chosen = iteration, manifest.verified(self.path / str(iteration))
            except manifest.Damaged as damage:
                damages.append(str(damage))
                continue
            for sentence in damages:
                self.warn(f"{sentence}: going on from the checkpoint before it, {iteration}")
            return self._chosen
        if damages:
            raise ConfigError(f"{damages[0]}, and no older checkpoint is whole: start the run again with --overwrite")
        raise ConfigError(f"{self.path} holds no checkpoint yet: start the run again with --overwrite")

    def restore(self, like: PyTree) -> PyTree:
        """Return the state of the newest checkpoint that is whole; `like` has its structure, shapes and dtypes.

        Raises:
            ConfigError: there is none, or it holds other arrays.
        """
        iteration, content = self._choose()
        manifest.require_arrays(content, like, self.path / str(iteration))
        raw = jax.eval_shape(to_words, like)
        template = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), raw)  # takes no memory
        numpy = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray), template)  # wherever it was written
        args = ocp.args.PyTreeRestore(template, restore_args=numpy)
        found = self._writer.restore(self.path / str(iteration), args)
        return from_words(jax.tree.map(jnp.asarray, found), like)

    def tidy(self) -> None:
        """Remove what is unfinished, and what follows the newest checkpoint that is whole: it will be written again."""
        if not (first() and self.path.is_dir()):
            return
        newest, finished = self.newest() if self.saved() else -1, self.saved()
        for folder in self.path.iterdir():
            known = folder.name.isdecimal() and int(folder.name) in finished
            if folder.is_dir() and not (known and int(folder.name) <= newest):
                shutil.rmtree(folder, ignore_errors=True)


@functools.partial(jax.jit, donate_argnums=0, keep_unused=True)
def _copy_over(old: PyTree, tree: PyTree) -> PyTree:
    """A copy in the memory of an older one, which the system has handed out already: ten times as fast."""
    return jax.tree.map(jnp.copy, to_words(tree))


@jax.jit
def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, to_words(tree))


def _snapshot(tree: PyTree, old: PyTree) -> PyTree:
    """A copy of `tree` with keys as words, where the host can write it; it may take the place of `old`.

    Of several processes each copies, and writes, what lies on its devices.
    """
    if jax.default_backend() != "cpu" and jax.process_count() == 1:
        return jax.tree.map(np.asarray, to_words(tree))
    return jax.block_until_ready(_copy(tree) if old is None else _copy_over(old, tree))


def _reason(error: Exception) -> str:
    """Of a long message, what went wrong."""
    lines = (str(error).strip() or repr(error)).splitlines()
    return next((line.strip() for line in lines if "space" in line.lower()), lines[0])[:200]
