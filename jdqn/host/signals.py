"""When a run stops or saves: signals, and the clock of checkpoints."""

import signal
import time

import numpy as np


class Interrupted(Exception):
    """A signal asked the run to stop, and it did; at a checkpoint, if that could be `saved`."""

    def __init__(self, signum: int, saved: bool = True):
        self.signum, self.saved = signum, saved


class Signals:
    """Note the first SIGINT or SIGTERM; let a second one through."""

    def __enter__(self) -> "Signals":
        self.received: int | None = None
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, signum: int, frame) -> None:
        self.received = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def __exit__(self, *exception) -> None:
        self._restore()


class CheckpointClock:
    """Due at each tenth of the way from iteration `begin` to `end`, and `every` seconds after the last one."""

    def __init__(self, every: float, begin: int, end: int):
        self.every, self.last = every, time.monotonic()
        self.tenths = np.linspace(begin, end, 11).round().astype(int)[1:]

    def due(self, iteration: int) -> bool:
        return iteration in self.tenths or time.monotonic() - self.last >= self.every

    def saved(self) -> None:
        self.last = time.monotonic()
