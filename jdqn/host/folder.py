"""The run folder: config.json, metrics.csv, curve.png, checkpoint/, result.json; or several of those in one."""

import contextlib
import csv
import errno
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ConfigError
from .processes import first

METRICS = (
    "agent", "seed", "env_steps", "updates", "episodes", "return", "length", "loss", "q", "grad_norm", "epsilon",
    "seconds",
)  # fmt: skip


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SEEN_SECONDS = 60  # that a shared disk may take to show on one host what another wrote


class RunFolder:
    """Where one run keeps its files."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.csv"
        self.curve = path / "curve.png"
        self.checkpoint = path / "checkpoint"
        self.result = path / "result.json"
        self.lineage = path / "lineage.csv"
        self.sweep = path / "sweep.csv"
        self.parts = path / "parts.json"

    @classmethod
    def require_new(cls, path: Path, overwrite: bool) -> "RunFolder":
        """Refuse a folder that may not be written, and touch nothing.

        Raises:
            ConfigError: it is there already and may not be overwritten.
        """
        folder = cls(path := path.resolve())
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--out {path} is a file: choose another folder")
        if path.is_dir() and any(path.iterdir()):
            if not overwrite:
                raise ConfigError(f"--out {path} is not empty: choose another folder, or --resume or --overwrite it")
            if not folder.holds_a_run():
                raise ConfigError(
                    f"--out {path} holds no run (no config.json of ours) and is not overwritten: remove it yourself"
                )
        parent = next(p for p in (path, *path.parents) if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ConfigError(f"--out {path} cannot be made: {parent} is not a folder that can be written to")
        return folder

    @classmethod
    def create(cls, path: Path, overwrite: bool) -> "RunFolder":
        """Make a new folder, in the place of an old run if it may be overwritten.

        Raises:
            ConfigError: it may not be overwritten, or cannot be made.
        """
        folder = cls.require_new(path, overwrite)
        path = folder.path
        if path.is_dir():
            shutil.rmtree(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {path} cannot be made: {error.strerror}") from error
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Find a folder to resume.

        Raises:
            ConfigError: there is no run in it.
        """
        folder = cls(path)
        if not (folder.config.exists() or folder.parts.exists()):
            raise ConfigError(f"--resume {path} holds no run: there is no {folder.config}")
        return folder

    def require_seen(self) -> None:
        """Wait until what the first host wrote is here too.

        Raises:
            ConfigError: it does not come.
        """
        until = time.monotonic() + SEEN_SECONDS
        while not (self.config.exists() or self.parts.exists()):
            if time.monotonic() > until:
                raise ConfigError(
                    f"{self.path} is another folder here than on the first host: choose one on a disk that all share"
                )
            time.sleep(0.1)

    def holds_a_run(self) -> bool:
        """There is a config.json or parts.json that this program wrote: what it wrote it may remove."""
        try:
            source = self.parts if self.parts.exists() else self.config
            return "jdqn" in json.loads(source.read_text())["versions"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write_rows(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """Write a CSV file."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([[text(value) for value in row.values()] for row in rows])
        write_whole(path, lines.getvalue())

    def write_json(self, path: Path, content: dict) -> None:
        """Write a JSON file."""
        write_whole(path, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` afterwards: a file is there whole or as it was.

    Raises:
        OSError: there is no room; it names `path`.
    """
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_whole(path: Path, content: str) -> None:
    """Write a file whole or not at all, also when the power fails."""
    with whole(path) as part:
        part.write_text(content, newline="")


def require_rows(path: Path, columns: Sequence[str], rows: int) -> list[bytes]:
    """The first line and so many rows of a CSV file of numbers; what follows them is not looked at.

    Raises:
        ConfigError: they are not there, or are something else.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}), and the run cannot be resumed without") from error
    if len(lines) < 1 + rows:
        raise ConfigError(
            f"{path} holds {len(lines)} of the {1 + rows} lines that the checkpoint counts: it cannot be resumed"
        )
    for number, line in enumerate(lines[: 1 + rows], 1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("it has no end")
            cells = line.decode().rstrip("\n").split(",")
            if number == 1 and tuple(cells) != tuple(columns):
                raise ValueError(f"the columns are not {', '.join(columns)}")
            if len(cells) != len(columns):
                raise ValueError(f"there are {len(cells)} of {len(columns)} cells")
            if number > 1:
                [float(cell or "nan") for cell in cells]
        except ValueError as error:
            raise ConfigError(f"{path} is damaged in line {number}, and the run cannot be resumed: {error}") from error
    return lines[: 1 + rows]


class Table:
    """A CSV file that grows by one row per agent. Of equal runs, only the column `seconds` differs.

    What the disk has no room for waits here, and is written when there is room again.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        rows: int,
        write: bool = True,
        warn: Callable[[str], None] = lambda message: None,
    ):
        """Open after `rows` rows; whatever follows them is cut off. Where it may not `write`, it does nothing.

        Raises:
            ConfigError: see `require_rows`.
        """
        self.path, self.columns, self.warn = path, columns, warn
        self._waiting, self._fresh = b"", b""  # not written yet, and written since the last sync
        self._error: OSError | None = None
        self._file = None
        if not (write and first()):
            return
        lines = require_rows(path, columns, rows) if rows else [(",".join(columns) + "\n").encode()]
        # Cut in place: a full disk may have no room for a copy.
        self._file = path.open("r+b" if rows else "wb", buffering=0)
        self._file.truncate(sum(map(len, lines)) if rows else 0)
        self._synced = self._file.seek(0, os.SEEK_END)
        self._write(b"" if rows else lines[0])

    def add(self, columns: dict[str, Any]) -> None:
        """Append a row for each place of the arrays; a value that is not finite is left empty."""
        if self._file is None:
            return
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        for values in zip(*(np.asarray(columns[name]).tolist() for name in self.columns), strict=True):
            writer.writerow([text(value) for value in values])
        self._write(lines.getvalue().encode())

    def _write(self, more: bytes) -> None:
        assert self._file is not None
        self._waiting += more
        try:
            while self._waiting:
                written = self._file.write(self._waiting)
                self._fresh, self._waiting = self._fresh + self._waiting[:written], self._waiting[written:]
        except OSError as error:
            self._lacks(error)

    def _lacks(self, error: OSError) -> None:
        if self._error is None:
            self.warn(f"{self.path} could not be written, and its rows wait for room ({error.strerror})")
        self._error = OSError(error.errno, error.strerror, str(self.path))

    def sync(self) -> bool:
        """Be sure that every row is on disk, before a checkpoint counts it; False if one still waits for room."""
        if self._file is None:
            return True
        self._write(b"")
        if self._waiting:
            return False
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            # Some disks find out only now, and say so once: what they were given has to be written again.
            self._file.truncate(self._synced)
            self._file.seek(0, os.SEEK_END)
            self._waiting, self._fresh = self._fresh, b""
            self._lacks(error)
            return False
        self._fresh, self._synced, self._error = b"", self._file.tell(), None
        return True

    def close(self) -> None:
        """Write no more.

        Raises:
            OSError: rows are still waiting for room.
        """
        if self._file is not None:
            whole, file, self._file = self.sync(), self._file, None
            file.close()
            if not whole and self._error is not None:
                raise self._error


def text(value: Any) -> str:
    """As a CSV keeps it."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if not isinstance(value, float):
        return str(value)
    return f"{value:.9g}" if np.isfinite(value) else ""  # nine digits hold a float32 exactly


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Columns of metrics.csv, each [reports, agents]; nan where nothing was reported."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    agents = len({row["agent"] for row in rows})
    return {name: np.array([float(row[name] or "nan") for row in rows]).reshape(-1, agents) for name in METRICS}
