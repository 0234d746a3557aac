"""The training of one plan, in launches of a second or so: examine, report, breed, save, and stop when asked."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..parallel import zero_metrics
from ..trainer import State
from .checkpoint import Checkpoints
from .folder import METRICS, RunFolder, Table
from .generations import Generations
from .health import Health, Restart, begin_again
from .processes import agree, fetch, together
from .program import Run
from .progress import Progress
from .signals import CheckpointClock, Interrupted, Signals

LAUNCH_SECONDS = 1.0  # work handed to the device at a time: what Ctrl-C waits for
LONGEST_LAUNCH = 10.0
COPIED_BYTES = 3e9  # of agents that a CPU copies from their places and back in a second, as measured


def launch_seconds(copied: int) -> float:
    """How long a launch that copies `copied` bytes of agents should be: ten times as long as that, within limits."""
    return max(LAUNCH_SECONDS, min(10 * copied / COPIED_BYTES, LONGEST_LAUNCH))


class Training:
    """What `Run` compiled, going on in a folder."""

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        checkpoints: Checkpoints,
        show: Callable[[Progress, dict], None] = lambda progress, columns: None,
        warn: Callable[[str], None] = lambda message: None,
    ):
        self.run, self.plan, self.folder, self.checkpoints = run, run.plan, folder, checkpoints
        self.show, self.warn = show, warn
        self.health = Health(run.plan, run.examine, warn)
        self.identity = run.identity
        self.tables: list[Table] = []

    def go(self, resume: bool) -> tuple[State, Progress]:
        """Train to the end, or until a signal.

        Raises:
            Interrupted: a signal came; a checkpoint of the moment is written.
            Sick: an agent is not finite any more, and the plan says to stop.
        """
        sick: list[dict[str, Any]] = []
        with Signals() as signals:
            while True:
                try:
                    return self._train(resume, signals, sick)
                except Restart as restart:
                    sick = restart.sick
                    self.checkpoints.wait()
                    resume = self.checkpoints.exist()
                finally:
                    for table in self.tables:
                        with contextlib.suppress(OSError):  # somebody else has told
                            table.close()

    def _train(self, resume: bool, signals: Signals, sick: list[dict[str, Any]]) -> tuple[State, Progress]:
        run, plan, checkpoints = self.run, self.plan, self.checkpoints
        if resume:
            state, self.sums, self.hyper, progress = run.restore(checkpoints)
            if sick:
                state = state._replace(key=run.place(begin_again(state.key, sick, plan)))
                progress.sick = sick
        else:
            state, self.sums, self.hyper, progress = run.begin(sick)
        with together():
            self.metrics = Table(self.folder.metrics, METRICS, progress.reports * plan.agents, warn=self.warn)
            self.tables = [self.metrics]
            self.generations = Generations(plan, run.size, self.folder, progress, run.mesh, self.warn)
            self.tables.append(self.generations.lineage)
        self.scored = progress.iteration if resume else -1  # what is evaluated for keep_best
        self.clock = CheckpointClock(plan.checkpoint_every, run.trainer.num_warm_up, run.total)
        stops, stride, seconds = np.union1d(run.report_ends, self.clock.tenths), 1, launch_seconds(run.copied_bytes)
        (stopped,) = agree(signals.received or 0)
        if not resume and progress.iteration in run.report_ends:
            self._report(progress)
            progress.begin_generation()  # a warm-up plays at random
        while progress.iteration < run.total and not stopped:
            began = time.perf_counter()
            boundary = stops[np.searchsorted(stops, progress.iteration, side="right")]
            stop = min(progress.iteration + stride, int(boundary))
            start = np.int32(progress.iteration)
            state, self.sums = run.advance(state, self.hyper, self.sums, start, np.int32(stop))
            took, due, busy, stopped = agree(
                time.perf_counter() - began, self.clock.due(stop), checkpoints.busy(), signals.received or 0
            )
            stride = max(1, min(2 * stride, int((stop - progress.iteration) * seconds / took)))
            progress.seconds += took
            progress.iteration = stop
            self.health.examine(state, self.sums, progress)
            if stop in run.report_ends:
                self._report(progress)
            if stop in run.generation_ends:
                state, self.hyper = self.generations.next(state, self.hyper, progress)
            if stop in self.clock.tenths or (due and not busy):
                self._save(state, progress)
        self._save(state, progress)
        saved = checkpoints.wait()
        for table in self.tables:
            table.close()
        (stopped,) = agree(stopped or signals.received or 0)  # also one that came while that was written
        if stopped:
            raise Interrupted(int(stopped), saved)
        return state, progress

    def _save(self, state: State, progress: Progress) -> None:
        """Save, unless rows that the checkpoint would count are waiting for room on the disk."""
        self.clock.saved()
        if not all(table.sync() for table in self.tables):
            return
        if self.plan.keep_best and progress.iteration in self.clock.tenths and self.scored < progress.iteration:
            self.scored = progress.iteration
            score = self.run.score(state, progress.dropped)
            if progress.best is None or score > progress.best["mean"]:
                progress.best = {"iteration": progress.iteration, "mean": score}
        best = progress.best is not None and progress.best["iteration"] == progress.iteration
        content = {"progress": progress.to_json(), "run": self.identity}
        self.checkpoints.save(progress.iteration, (state, self.sums, self.hyper), content, best)

    def _report(self, progress: Progress) -> None:
        """Write one row per agent, and begin new sums."""
        run, plan = self.run, self.plan
        totals = run.of_agents(fetch(self.sums))
        iterations = progress.iteration - progress.reported
        learnt = progress.iteration - max(progress.reported, run.trainer.num_warm_up)  # 0 at the end of warm-up
        progress.env_steps = progress.env_steps + totals.env_steps
        progress.returns = progress.returns + totals.return_sum
        progress.episodes = progress.episodes + totals.episodes
        progress.reports += 1
        progress.reported = progress.iteration
        with np.errstate(invalid="ignore", divide="ignore"):
            columns = {
                "agent": np.arange(plan.agents),
                "seed": np.array(plan.seeds),
                "env_steps": progress.env_steps,
                "updates": np.full(plan.agents, run.updates(progress.iteration)),
                "episodes": totals.episodes,
                "return": totals.return_sum / totals.episodes,
                "length": totals.length_sum / totals.episodes,
                "loss": totals.learn.loss / learnt,
                "q": totals.learn.q / learnt,
                "grad_norm": totals.learn.grad_norm / learnt,
                "epsilon": totals.epsilon / iterations,
                "seconds": np.full(plan.agents, round(progress.seconds, 3)),
            }
        self.metrics.add(columns)
        self.show(progress, columns)
        self.sums = run.place(zero_metrics((run.size,)))
