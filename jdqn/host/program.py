"""The compiled programs of one plan, and the arrays that they begin with."""

import concurrent.futures
import copy
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..build import build
from ..config import ConfigError, Hyper, total_iterations
from ..envs import Env
from ..evaluate import evaluate
from ..health import non_finite
from ..parallel import device_mesh, each, group_size, on_devices, over_agents, over_devices, over_shards, sharded
from ..shards import AGENTS, DEVICES, WHOLE, Shards
from ..trainer import Metrics, State
from ..types import PyTree
from ..version import __version__
from .checkpoint import Checkpoints
from .debug import checked, place_of
from .devices import arithmetic, options_to_run_once
from .folder import METRICS, RunFolder, require_rows
from .generations import lineage_columns
from .health import Sick, begin_again
from .memory import require, total_bytes, tree_bytes
from .plan import Plan
from .processes import fetch, first, place, several
from .progress import Progress


def holds() -> int:
    """Times the state in the memory of its devices: itself and, where that is the host's, its copy for a checkpoint."""
    return 2 if jax.default_backend() == "cpu" else 1


class Run:
    """The compiled programs of a plan on `devices` devices, with room for `room` agents if that is more."""

    def __init__(self, plan: Plan, env: Env, devices: int = 1, room: int = 0):
        self.plan, self.env, self.devices = plan, env, devices
        # Where the agents leave room, or do not divide over the devices, the first ones are trained twice, and the
        # copies dropped.
        self.size = plan.shards if plan.shards > 1 else -(-max(room, plan.agents) // devices) * devices
        self.mesh = device_mesh(devices) if devices > 1 else None
        axes = (AGENTS,) if self.mesh is None else (DEVICES, AGENTS)
        self.trainer = build(plan.config, env, Shards(plan.shards, axes) if plan.shards > 1 else WHOLE)
        self.at_once = 1 if plan.debug else plan.at_once or None  # checkify cannot look into a loop under vmap
        alone = over_shards(self.trainer) if plan.shards > 1 else over_agents(self.trainer, self.at_once)
        self.population = alone if self.mesh is None else over_devices(alone, self.mesh)
        self.total = total_iterations(plan.config)
        # Reports end the warm-up and each generation, then come as evenly as whole iterations allow.
        warm_up = self.trainer.num_warm_up
        reports = min(plan.reports, self.total - warm_up)
        every = plan.evolution.every if plan.evolution else self.total
        self.generation_ends = np.arange(warm_up + every, self.total, every)
        ends = np.linspace(warm_up, self.total, reports + 1).round().astype(int)
        self.report_ends = np.union1d(ends, self.generation_ends)
        self.init = jax.jit(self.population.init, compiler_options=options_to_run_once())
        self.shapes = self.init.eval_shape(*self._inputs())
        self.programs: dict[str, concurrent.futures.Future] = {}
        self.compile_seconds = 0.0

    def again(self, plan: Plan) -> "Run":
        """The same programs, which are compiled once, for other agents that they have room for."""
        other = copy.copy(self)
        other.plan, other.compile_seconds = plan, 0.0
        return other

    def most(self, wave: int = 0) -> int:
        """Agents of this kind that are in memory together: `wave`, or as many as fit; at least one.

        A multiple of the devices, which would train copies else, or less than one each.
        """
        if self.plan.shards > 1 or wave >= self.plan.agents:
            return self.plan.agents
        # Beside the state and its copy there has to be as much again to compute with.
        fit = wave or max(1, total_bytes(self.devices) // ((holds() + 1) * self.agent_bytes))
        return fit // self.devices * self.devices or (self.devices if several() else fit)

    def _inputs(self) -> tuple[jax.Array, Hyper]:
        """Keys and Hyper of all agents; the shards of one agent have the same."""
        seeds = jnp.asarray(np.resize(np.array(self.plan.seeds, np.uint32), self.size))
        hyper: list[Any] = [jnp.asarray(np.resize(np.array(x, np.float32), self.size)) for x in self.plan.hyper]
        return self.place((jax.vmap(jax.random.key)(seeds), Hyper(*hyper)))

    def place(self, tree: PyTree) -> PyTree:
        """Put arrays [S, ...] on the devices that their agents live on."""
        return tree if self.mesh is None else place(tree, sharded(self.mesh))

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint says of the run that wrote it."""
        device = jax.devices()[0]
        where = {"platform": device.platform, "kind": arithmetic(), "count": self.devices}
        return {"size": self.size, "plan": self.plan.fingerprint(), "device": where}

    def require_resumable(self, checkpoints: Checkpoints, folder: RunFolder) -> dict[str, Any]:
        """What the newest checkpoint says of the devices that wrote it.

        Raises:
            ConfigError: another version or another run wrote it, what it counts is not in `folder`, or there is nothing
                left to train.
        """
        iteration, plan = checkpoints.newest(), self.plan
        path = folder.checkpoint / str(iteration)
        size, device, progress = self.require_same(checkpoints, path)
        if iteration > self.total:
            steps = iteration * self.trainer.ticks
            raise ConfigError(f"the run has been trained for {steps:,} steps: raise --total-steps above that")
        checkpoints.require_arrays(self._saved_as(size))
        if first():
            require_rows(folder.metrics, METRICS, progress.reports * plan.agents)
            if progress.generations:
                require_rows(folder.lineage, lineage_columns(plan), progress.generations * plan.agents)
        return device

    def require_same(self, checkpoints: Checkpoints, path: Path) -> tuple[int, dict[str, Any], Progress]:
        """What the newest checkpoint, at `path`, says of the run that wrote it: places, devices, how far it was.

        Raises:
            ConfigError: another version or another run wrote it.
        """
        try:
            host = checkpoints.host()
            wrote, progress = host["run"], Progress.from_json(host["progress"])
            size, saved, device = wrote["size"], wrote["plan"], wrote["device"]
            device["platform"], device["kind"], device["count"]
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} was written by jdqn {checkpoints.version()}, and this is jdqn {__version__}, whose "
                f"checkpoints hold other things ({error!r}): go on with the version that wrote it"
            ) from error
        self.plan.require_same(saved, path)
        return size, device, progress

    def _saved_as(self, size: int) -> PyTree:
        """Shapes of what a run of `size` agents, copies included, keeps in a checkpoint."""
        kept = (*self.shapes, self._inputs()[1])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), kept)

    def elsewhere(self, wrote: dict[str, Any]) -> str:
        """What is to be said of going on with what other devices wrote; nothing if they are the same."""
        here = self.identity["device"]
        if here == wrote:
            return ""
        then, now = (f"{x['count']} {x['platform']} device(s) ({x['kind']})" for x in (wrote, here))
        alike = here["platform"] == "cpu" and here["kind"] == wrote["kind"] and self.plan.shards == 1
        numbers = "the same numbers, for its agents are independent" if alike else "numbers that may round otherwise"
        return f"written on {then}, going on on {now} with {numbers}"

    @property
    def replay_bytes(self) -> int:
        return tree_bytes(self.shapes[0].replay)

    @property
    def agent_bytes(self) -> int:
        """All that one agent is: replay, networks, optimiser, environments."""
        return tree_bytes(self.shapes) // (1 if self.plan.shards > 1 else self.size)

    @property
    def copied_bytes(self) -> int:
        """Of agents that take turns on a CPU: each leaves the others' arrays and comes back to them in every call."""
        agents = self.size // self.devices
        turns = self.plan.shards == 1 and group_size(self.at_once, agents) < agents
        return tree_bytes(self.shapes) // jax.process_count() if turns and jax.default_backend() == "cpu" else 0

    @property
    def parameters(self) -> int:
        """Learnt numbers of one agent."""
        return sum(x.size for x in jax.tree.leaves(self.shapes[0].learner.params)) // self.size

    def require_memory(self, scratch: int = 0) -> None:
        """Refuse what cannot fit, before anything is allocated."""
        what = (
            f"training {self.plan.agents} agent(s){' with batches and gradients,' if scratch else ''} and saving them"
        )
        require(holds() * tree_bytes(self.shapes) + scratch, what, self.devices)

    def compile(self, fresh: bool) -> None:
        """Compile side by side; `fresh` if the run starts at the beginning. Nobody waits here for what comes later."""
        began = time.perf_counter()
        state, sums = self.shapes
        keys, hyper = self._inputs()
        i = jax.ShapeDtypeStruct((), jnp.int32)
        if self.mesh is not None:
            place = sharded(self.mesh)
            state, sums = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), (state, sums))

        def evaluate_one(params, key):
            return evaluate(self.env, self.trainer.policy, params, key, episodes=self.plan.episodes)

        evaluate_all = each(evaluate_one, self.at_once)
        if self.mesh is not None:
            evaluate_all = on_devices(self.mesh)(evaluate_all)
        train = checked(self.population.advance) if self.plan.debug else self.population.advance
        advance = jax.jit(train, donate_argnums=0)
        jobs = {  # in the order in which they are needed
            "advance": lambda: advance.lower(state, hyper, sums, i, i),
            "init": lambda: self.init.lower(keys, hyper),
            "examine": lambda: jax.jit(jax.vmap(non_finite)).lower(state, sums),
            "evaluate": lambda: jax.jit(evaluate_all).lower(state.learner.params, keys),
        }
        pool = concurrent.futures.ThreadPoolExecutor(2)
        for name, lower in jobs.items():
            if name in self.programs or (name == "init" and not fresh):
                continue
            # The longest is traced here, by itself, so that the others' tracing goes on beside its compilation.
            compile_it = lower().compile if name == "advance" else lambda lower=lower: lower().compile()
            self.programs[name] = pool.submit(compile_it)
        pool.shutdown(wait=False)
        for name in ("advance", "init") if fresh else ("advance",):
            self.programs[name].result()
        memory = self.programs["advance"].result().memory_analysis()
        self.require_memory(max(1, getattr(memory, "temp_size_in_bytes", 0)))  # None on some devices
        self.compile_seconds += time.perf_counter() - began

    def advance(self, *arguments) -> tuple[State, Metrics]:
        """Call the program of that name, and wait.

        Raises:
            Sick: under --debug, naming the line that made the first number that is none.
        """
        found = jax.block_until_ready(self.programs["advance"].result()(*arguments))
        if not self.plan.debug:
            return found
        error, results = found
        if exception := error.get_exception():
            raise Sick(f"--debug found {str(exception).rstrip('.')}{place_of(exception)}")
        return results

    def examine(self, state: State, sums: Metrics) -> np.ndarray:
        """Which of jdqn.health.QUANTITIES are not finite in each agent or shard, [S, Q] bool."""
        return fetch(self.programs["examine"].result()(state, sums))

    def begin(self, sick: list[dict[str, Any]] | None = None) -> tuple[State, Metrics, Hyper, Progress]:
        """Fresh agents after their warm-up; those that `sick` restarted have other random numbers."""
        began = time.perf_counter()
        keys, hyper = self._inputs()
        if sick:
            keys = self.place(begin_again(keys, sick, self.plan))
        state, sums = self.programs["init"].result()(keys, hyper)
        state, sums = self.advance(state, hyper, sums, np.int32(0), np.int32(self.trainer.num_warm_up))
        progress = Progress.of(self.plan.agents, self.trainer.num_warm_up)
        progress.seconds, progress.sick = time.perf_counter() - began, sick or []
        return state, sums, hyper, progress

    def restore(self, checkpoints: Checkpoints) -> tuple[State, Metrics, Hyper, Progress]:
        """Agents as they were saved, also by a run on other devices."""
        host = checkpoints.host()
        size, agents = host["run"]["size"], np.arange(self.size) % self.plan.agents
        like = self._saved_as(size)
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        if size == self.size:
            state, sums, hyper = checkpoints.restore(like, device if self.mesh is None else sharded(self.mesh))
        else:  # through the memory of the host, which has room for what several devices hold
            saved = jax.tree.map(lambda x: x[agents], checkpoints.restore(like))
            state, sums, hyper = jax.device_put(saved, device) if self.mesh is None else self.place(saved)
        return state, sums, hyper, Progress.from_json(host["progress"])

    def of_agents(self, sums: Metrics) -> Metrics:
        """Metrics of all that is trained -> of the agents that were asked for."""
        if self.plan.shards == 1:
            return jax.tree.map(lambda x: x[: self.plan.agents], sums)
        total, mean = (jax.tree.map(lambda x, f=f: f(x, keepdims=True), sums) for f in (np.sum, np.mean))
        return total._replace(epsilon=mean.epsilon, learn=mean.learn)

    def updates(self, iteration: int) -> int:
        """Gradient steps an agent has made by `iteration`."""
        return max(0, iteration - self.trainer.num_warm_up) * self.trainer.updates

    def evaluate(self, state: State) -> np.ndarray:
        """Returns [S, episodes] of greedy episodes of every agent."""
        began = time.perf_counter()
        compiled = self.programs["evaluate"].result()
        self.compile_seconds += time.perf_counter() - began
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 2**31 - 1))(self._inputs()[0])
        return fetch(compiled(state.learner.params, keys).returns)[: self.plan.agents]

    def params_of(self, state: State, agents: np.ndarray) -> PyTree:
        """What some agents have learnt, as NumPy arrays on every host."""
        whole = None if self.mesh is None else jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        take = jax.jit(lambda params: jax.tree.map(lambda x: x[agents], params), out_shardings=whole)
        return jax.device_get(take(state.learner.params))

    def score(self, state: State, dropped: list[int]) -> float:
        """Mean greedy return of the agents that are not dropped."""
        return float(np.delete(self.evaluate(state).mean(1), dropped).mean())
