"""The run folder: config.json, metrics.csv, curve.png, checkpoint/, result.json."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np

from ..config import ConfigError

COLUMNS = (
    "agent", "seed", "env_steps", "updates", "episodes", "return", "length", "loss", "q", "grad_norm", "epsilon",
    "seconds",
)  # fmt: skip


class RunFolder:
    """Where one run keeps its files."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.csv"
        self.curve = path / "curve.png"
        self.checkpoint = path / "checkpoint"
        self.result = path / "result.json"

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
        if not folder.config.exists():
            raise ConfigError(f"--resume {path} holds no run: there is no {folder.config}")
        return folder

    def holds_a_run(self) -> bool:
        """There is a config.json that this program wrote: what it wrote it may remove."""
        try:
            return "jdqn" in json.loads(self.config.read_text())["versions"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write_json(self, path: Path, content: dict) -> None:
        """Write whole or not at all."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=2) + "\n")
        part.replace(path)


class MetricsFile:
    """metrics.csv: for each report one row per agent. Only `seconds` differs between equal runs."""

    def __init__(self, path: Path, reports: int, agents: int):
        """Open after `reports` reports of `agents` rows; whatever follows them is cut off.

        Raises:
            ConfigError: fewer rows are there.
        """
        keep = 1 + reports * agents
        lines = [",".join(COLUMNS) + "\n"]
        if reports:
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if len(lines) < keep:
            raise ConfigError(
                f"{path} holds {len(lines)} of the {keep} lines that the checkpoint counts: it cannot be resumed"
            )
        part = path.with_suffix(".part")
        part.write_text("".join(lines[:keep]))
        part.replace(path)
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def report(self, columns: dict[str, np.ndarray]) -> None:
        """Append one row per agent; a value that is not finite is left empty."""
        for values in zip(*(np.asarray(columns[name]).tolist() for name in COLUMNS), strict=True):
            self._writer.writerow([_text(value) for value in values])
        self._file.flush()

    def sync(self) -> None:
        """Be sure that every report is on disk, before a checkpoint counts it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _text(value: int | float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.9g}" if np.isfinite(value) else ""  # nine digits hold a float32 exactly


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Columns of metrics.csv, each [reports, agents]; nan where nothing was reported."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    agents = len({row["agent"] for row in rows})
    return {name: np.array([float(row[name] or "nan") for row in rows]).reshape(-1, agents) for name in COLUMNS}
