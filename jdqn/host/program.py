"""One run from the first key to the last checkpoint: compile, train in chunks, report, stop when asked."""

import concurrent.futures
import dataclasses
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..build import build
from ..config import Config, Hyper, total_iterations
from ..envs import Env
from ..evaluate import evaluate
from ..parallel import over_agents, zero_metrics
from ..trainer import Metrics, State
from .checkpoint import Checkpoints
from .folder import MetricsFile, RunFolder
from .memory import require, tree_bytes

HOLDS = 4  # times the state in memory at most: itself, its copy for a checkpoint, and what Orbax makes of that
LAUNCH_SECONDS = 1.0  # work handed to the device at a time: what Ctrl-C waits for


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that decides what a run computes. It is what config.json holds."""

    env: str
    env_params: dict[str, Any]
    algo: str
    seed: int
    seeds: int
    reports: int
    episodes: int
    checkpoint_every: float
    config: Config
    hyper: Hyper

    @property
    def task(self) -> str:
        """The environment and what was changed of it."""
        return " ".join([self.env, *(f"{name}={value}" for name, value in self.env_params.items())])

    @property
    def agent_seeds(self) -> np.ndarray:
        return self.seed + np.arange(self.seeds)


class Interrupted(Exception):
    """A signal asked the run to stop, and it did, at a checkpoint."""

    def __init__(self, signum: int):
        self.signum = signum


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


@dataclasses.dataclass
class Progress:
    """The clock, and what the host adds up beside the state. Saved with it."""

    iteration: int
    reports: int
    env_steps: np.ndarray  # [S] int64
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"env_steps": self.env_steps.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Progress":
        return cls(**content | {"env_steps": np.array(content["env_steps"], np.int64)})


class Run:
    """The compiled programs of a plan, and its training loop."""

    def __init__(self, plan: Plan, env: Env):
        self.plan, self.env = plan, env
        self.trainer = build(plan.config, env)
        self.population = over_agents(self.trainer)
        self.total = total_iterations(plan.config)
        warm_up = self.trainer.num_warm_up
        # Reports end the warm-up, then come as evenly as whole iterations allow.
        reports = min(plan.reports, self.total - warm_up)
        ends = np.linspace(warm_up, self.total, reports + 1).round().astype(int)
        self.report_ends = np.unique(ends)
        self.keys = jax.vmap(jax.random.key)(jnp.asarray(plan.agent_seeds, jnp.uint32))
        self.shapes = jax.eval_shape(lambda keys: self.population.start(keys, plan.hyper), self.keys)
        self.compile_seconds = 0.0

    @property
    def replay_bytes(self) -> int:
        return tree_bytes(self.shapes[0].replay)

    @property
    def parameters(self) -> int:
        """Learnt numbers of one agent."""
        return sum(x.size for x in jax.tree.leaves(self.shapes[0].learner.params)) // self.plan.seeds

    def require_memory(self) -> None:
        """Refuse what cannot fit, before anything is allocated."""
        require(HOLDS * tree_bytes(self.shapes), f"training {self.plan.seeds} agent(s) and saving them")

    def compile(self, fresh: bool) -> None:
        """Compile side by side; `fresh` if the run starts at the beginning. Nobody waits for evaluation here."""
        began = time.perf_counter()
        hyper, (state, sums) = self.plan.hyper, self.shapes
        i = jax.ShapeDtypeStruct((), jnp.int32)

        def evaluate_one(params, key):
            return evaluate(self.env, self.trainer.policy, params, key, episodes=self.plan.episodes)

        pool = concurrent.futures.ThreadPoolExecutor(3)
        jobs = [
            pool.submit(
                lambda: jax.jit(self.population.advance, donate_argnums=0).lower(state, hyper, sums, i, i).compile()
            )
        ]
        if fresh:
            jobs.append(pool.submit(lambda: jax.jit(self.population.start).lower(self.keys, hyper).compile()))
        self._evaluate = pool.submit(
            lambda: jax.jit(jax.vmap(evaluate_one)).lower(state.learner.params, self.keys).compile()
        )
        pool.shutdown(wait=False)
        self._advance, *rest = [job.result() for job in jobs]
        scratch = getattr(self._advance.memory_analysis(), "temp_size_in_bytes", 0)  # None on some devices
        wanted = HOLDS * tree_bytes(self.shapes) + scratch
        require(wanted, f"training {self.plan.seeds} agent(s) with batches and gradients, and saving them")
        if rest:
            self._start = rest[0]
        self.compile_seconds += time.perf_counter() - began

    def begin(self) -> tuple[State, Metrics, Progress]:
        """Fresh agents after their warm-up."""
        began = time.perf_counter()
        state, sums = jax.block_until_ready(self._start(self.keys, self.plan.hyper))
        progress = Progress(self.trainer.num_warm_up, 0, np.zeros(self.plan.seeds, np.int64), 0.0)
        progress.seconds = time.perf_counter() - began
        return state, sums, progress

    def train(
        self, folder: RunFolder, checkpoints: Checkpoints, resume: bool, show: Callable[[Progress, dict], None]
    ) -> tuple[State, Progress]:
        """Train to the end, or until a signal.

        Raises:
            Interrupted: a signal came; a checkpoint of the moment is written.
        """
        plan = self.plan
        if resume:
            (state, sums), saved = checkpoints.restore(self.shapes)
            progress = Progress.from_json(saved)
        with Signals() as signals:
            if not resume:
                state, sums, progress = self.begin()
            metrics = MetricsFile(folder.metrics, progress.reports, plan.seeds)
            stride, due = 1, _CheckpointClock(plan.checkpoint_every, self.trainer.num_warm_up, self.total)
            stops = np.union1d(self.report_ends, due.tenths)
            if not resume and progress.iteration in self.report_ends:
                sums = self._report(progress, sums, metrics, show)
            while progress.iteration < self.total and signals.received is None:
                began = time.perf_counter()
                boundary = stops[np.searchsorted(stops, progress.iteration, side="right")]
                stop = min(progress.iteration + stride, int(boundary))
                state, sums = self._advance(state, plan.hyper, sums, np.int32(progress.iteration), np.int32(stop))
                jax.block_until_ready(sums)
                took = time.perf_counter() - began
                stride = max(1, min(2 * stride, int((stop - progress.iteration) * LAUNCH_SECONDS / took)))
                progress.seconds += took
                progress.iteration = stop
                if stop in self.report_ends:
                    sums = self._report(progress, sums, metrics, show)
                if due(progress.iteration):
                    metrics.sync()
                    checkpoints.save(progress.iteration, (state, sums), progress.to_json())
            metrics.sync()
            metrics.close()
            checkpoints.save(progress.iteration, (state, sums), progress.to_json())
            if signals.received is not None:
                checkpoints.wait()
                raise Interrupted(signals.received)
        return state, progress

    def _report(self, progress: Progress, sums: Metrics, file: MetricsFile, show) -> Metrics:
        """Write one row per agent; return sums of nothing."""
        totals = jax.device_get(sums)
        began = self.report_ends[progress.reports - 1] if progress.reports else 0
        iterations = progress.iteration - began
        progress.env_steps = progress.env_steps + totals.env_steps
        progress.reports += 1
        with np.errstate(invalid="ignore", divide="ignore"):
            columns = {
                "agent": np.arange(self.plan.seeds),
                "seed": self.plan.agent_seeds,
                "env_steps": progress.env_steps,
                "updates": np.full(self.plan.seeds, self.updates(progress.iteration)),
                "episodes": totals.episodes,
                "return": totals.return_sum / totals.episodes,
                "length": totals.length_sum / totals.episodes,
                "loss": totals.learn.loss / iterations,
                "q": totals.learn.q / iterations,
                "grad_norm": totals.learn.grad_norm / iterations,
                "epsilon": totals.epsilon / iterations,
                "seconds": np.full(self.plan.seeds, round(progress.seconds, 3)),
            }
        file.report(columns)
        show(progress, columns)
        return zero_metrics((self.plan.seeds,))

    def updates(self, iteration: int) -> int:
        """Gradient steps an agent has made by `iteration`."""
        return max(0, iteration - self.trainer.num_warm_up) * self.trainer.updates

    def evaluate(self, state: State) -> np.ndarray:
        """Returns [S, episodes] of greedy episodes of every agent."""

        began = time.perf_counter()
        compiled = self._evaluate.result()
        self.compile_seconds += time.perf_counter() - began
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 2**31 - 1))(self.keys)
        return np.asarray(compiled(state.learner.params, keys).returns)


class _CheckpointClock:
    """Due at each tenth of the way from iteration `begin` to `end`, and `every` seconds after the last one."""

    def __init__(self, every: float, begin: int, end: int):
        self.every, self.last = every, time.monotonic()
        self.tenths = np.linspace(begin, end, 11).round().astype(int)[1:]

    def __call__(self, iteration: int) -> bool:
        if iteration not in self.tenths and time.monotonic() - self.last < self.every:
            return False
        self.last = time.monotonic()
        return True
