"""Checkpoints of everything: written while training goes on, and counted once a manifest vouches for each byte.

A checkpoint is a folder named by its iteration: the arrays of the state, and `manifest.json`, which is written last and
holds the checksum of every other file, of itself, and the JSON values that belong to the state. What has none is
unfinished, what does not match it is damaged, and neither is ever read.
"""

import concurrent.futures
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ..config import ConfigError
from ..keys import from_words, to_words
from ..types import PyTree
from . import arrays, manifest
from .processes import agree, first, several, together

ARRAYS = "arrays"  # folder in a checkpoint


class Checkpoints:
    """The newest checkpoints of a run, and the best one; saving goes on in the background."""

    def __init__(self, path: Path, keep: int = 2, warn: Callable[[str], None] = lambda message: None):
        """Look at the checkpoints in `path`, and keep the newest `keep` of them; `warn` tells of one that is lost."""
        self.path, self.keep, self.warn = path.absolute(), keep, warn
        self._threads = concurrent.futures.ThreadPoolExecutor(2)  # one writes, the other looks at what is written
        self._job: concurrent.futures.Future | None = None
        self._copy: list[arrays.Piece] = []
        self._written: int | None = None
        self._warned = False
        self._chosen: tuple[int, dict[str, Any]] | None = None

    def save(self, iteration: int, state: PyTree, host: dict[str, Any], best: bool = False) -> None:
        """Keep `state` and the JSON values `host` as of `iteration`; one already there is left alone.

        Returns when `state` is copied, so that later, donated steps cannot touch it. The newest checkpoint that is the
        `best` is kept however many follow. One that cannot be written is warned of, and the older ones stay.
        """
        self.wait()  # one copy of the state at a time
        if iteration == self._written:  # which all hosts know alike, while files may reach one of them later
            return
        self._written, self._chosen = iteration, None
        self._copy = arrays.copy(jax.tree.leaves(to_words(state)), self._copy)
        content = {"iteration": iteration, "best": best, "host": host, "arrays": manifest.arrays(state)}
        checksums = self._threads.submit(arrays.checksums, self._copy)
        self._job = self._threads.submit(self._write, self.path / str(iteration), content, checksums)

    def _write(self, folder: Path, content: dict[str, Any], checksums: concurrent.futures.Future) -> None:
        try:
            arrays.write(folder / ARRAYS, self._copy, jax.process_index())
            if not first():
                return
            while arrays.written(folder / ARRAYS) < jax.process_count():
                time.sleep(0.1)
            manifest.write(folder, content, {f"{ARRAYS}/{name}": x for name, x in checksums.result().items()})
        except OSError:  # make room at least for what is there
            shutil.rmtree(folder, ignore_errors=True)
            raise
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
        except OSError as error:
            if several():
                raise
            if not self._warned:
                reason = error.strerror or error
                self.warn(
                    f"a checkpoint could not be written, and the run goes on without until there is room ({reason})"
                )
            self._warned = True
            self._written = None
            return False
        self._warned = self._warned and job is None
        return True

    def close(self) -> None:
        """Wait for what is being written, and write no more."""
        self.wait()
        self._threads.shutdown()

    def saved(self) -> list[int]:
        """Iterations of the checkpoints that were finished, whether or not they are still whole."""
        found = self.path.iterdir() if self.path.is_dir() else ()
        return sorted(int(x.name) for x in found if x.name.isdecimal() and (x / manifest.NAME).exists())

    def exist(self) -> bool:
        """Whether any process sees one that was finished."""
        return agree(len(self.saved())) != [0]

    def newest(self) -> int:
        """Return the iteration of the newest checkpoint that is whole; one that is damaged is warned of.

        Raises:
            ConfigError: there is none.
        """
        return self._choose()[0]

    def choose_best(self) -> None:
        """From now on, read the best checkpoint instead of the newest.

        Raises:
            ConfigError: none was kept, or it is damaged.
        """
        best = [k for k in self.saved() if manifest.read(self.path / str(k)).get("best")]
        if not best:
            raise ConfigError(f"{self.path} holds no checkpoint that was kept as the best: train with --keep-best")
        try:
            self._chosen = best[-1], manifest.verified(self.path / str(best[-1]))
        except manifest.Damaged as damage:
            raise ConfigError(f"{damage}: load the newest checkpoint instead") from damage

    def host(self) -> dict[str, Any]:
        """Return the JSON values of the newest checkpoint that is whole.

        Raises:
            ConfigError: there is none.
        """
        return self._choose()[1]["host"]

    def version(self) -> str:
        """Which version wrote the newest checkpoint that is whole."""
        return self._choose()[1]["jdqn"]

    def require_arrays(self, like: PyTree) -> None:
        """Refuse the newest checkpoint if it holds other arrays.

        Raises:
            ConfigError: naming the first one, and the versions.
        """
        iteration, content = self._choose()
        manifest.require_arrays(content, like, self.path / str(iteration))

    def _choose(self) -> tuple[int, dict[str, Any]]:
        """(iteration, content of its manifest) of the newest one that is whole; one host reads every byte."""
        if self._chosen is None:
            found = None
            with together():
                if first():
                    found = self._newest_whole()
            (iteration,) = map(int, agree(found[0] if found else 0))
            content = found[1] if found else manifest.read(self.path / str(iteration))
            with together():
                if not content:
                    raise ConfigError(
                        f"{self.path / str(iteration)} is not there on this host: all have to share a disk"
                    )
            self._chosen = iteration, content
            self._written = iteration
        return self._chosen

    def _newest_whole(self) -> tuple[int, dict[str, Any]]:
        damages = []
        for iteration in reversed(self.saved()):
            try:
                found = manifest.verified(self.path / str(iteration))
            except manifest.Damaged as damage:
                damages.append(str(damage))
                continue
            for sentence in damages:
                self.warn(f"{sentence}: going on from the checkpoint before it, {iteration}")
            return iteration, found
        if damages:
            raise ConfigError(f"{damages[0]}, and no older checkpoint is whole: start the run again with --overwrite")
        raise ConfigError(f"{self.path} holds no checkpoint yet: start the run again with --overwrite")

    def restore(self, like: PyTree, sharding: jax.sharding.Sharding | None = None) -> PyTree:
        """Return the state of the newest checkpoint that is whole; `like` has its structure, shapes and dtypes.

        With `sharding` every device reads what it holds; without, the arrays are NumPy's, but for keys.

        Raises:
            ConfigError: there is none, or it holds other arrays.
        """
        self.require_arrays(like)
        iteration, _ = self._choose()
        words, reader = jax.eval_shape(to_words, like), arrays.Reader(self.path / str(iteration) / ARRAYS)
        leaves = [reader.read(number, x, sharding) for number, x in enumerate(jax.tree.leaves(words))]
        return from_words(jax.tree.unflatten(jax.tree.structure(words), leaves), like)

    def tidy(self) -> None:
        """Remove what is unfinished, and what follows the newest checkpoint that is whole: it will be written again."""
        if not (first() and self.path.is_dir()):
            return
        newest, finished = self._chosen[0] if self._chosen else -1, self.saved()
        for folder in self.path.iterdir():
            known = folder.name.isdecimal() and int(folder.name) in finished
            if folder.is_dir() and not (known and int(folder.name) <= newest):
                shutil.rmtree(folder, ignore_errors=True)
