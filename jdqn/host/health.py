"""Sick agents: found after every launch, named, and dropped or begun again while the others go on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..config import ticks_per_iteration
from ..health import QUANTITIES
from ..trainer import Metrics, State
from .plan import Plan
from .progress import Progress

RESTARTS = 3  # of one agent; what is sick again and again is dropped
OF_RESTARTS = 2**31 - 3  # and below, folded into a seed's key: of its first numbers the agent that died was made
ADVICE = "lower learning_rate or max_gradient_norm, or look for the place with --debug"


class Sick(Exception):
    """Training cannot go on; the message names who, where and what."""


class Restart(Exception):
    """Some agents have to begin again from the last checkpoint, with other random numbers."""

    def __init__(self, sick: list[dict[str, Any]]):
        self.sick = sick


class Health:
    """Looks after the agents of a plan."""

    def __init__(self, plan: Plan, examine: Callable[[State, Metrics], np.ndarray], warn: Callable[[str], None]):
        """`examine` is jdqn.health.non_finite of all agents, [S, Q] bool."""
        self.plan, self.warn, self._examine = plan, warn, examine

    def examine(self, state: State, sums: Metrics, progress: Progress) -> None:
        """Find what is not finite any more, and do with it what the plan says; `progress.sick` keeps it.

        Raises:
            Sick: the plan says to stop, or no agent is left.
            Restart: the plan says so.
        """
        found = self._examine(state, sums)
        if self.plan.shards > 1:
            found = np.any(found, axis=0, keepdims=True)
        dropped = progress.dropped
        sick = [k for k in np.flatnonzero(found[: self.plan.agents].any(1)).tolist() if k not in dropped]
        if not sick:
            return
        findings = [self._finding(k, found[k], progress) for k in sick]
        for finding in findings:
            self.warn(
                f"agent {finding['agent']} (seed {finding['seed']}) is {finding['done']}: {finding['quantity']} not "
                f"finite by step {finding['env_steps']:,}"
            )
        if any(finding["done"] == "stopped" for finding in findings):
            raise Sick(f"{_who(findings)} not finite any more: {ADVICE}")
        progress.sick = progress.sick + findings
        if any(finding["done"] == "restarted" for finding in findings):
            raise Restart(progress.sick)
        if len(progress.dropped) == self.plan.agents:
            raise Sick(f"no agent is finite any more: {ADVICE}")

    def _finding(self, agent: int, found: np.ndarray, progress: Progress) -> dict[str, Any]:
        before = sum(one["agent"] == agent and one["done"] == "restarted" for one in progress.sick)
        done = {"drop": "dropped", "stop": "stopped", "restart": "restarted"}[self.plan.non_finite]
        return {
            "agent": agent,
            "seed": self.plan.seeds[agent],
            "env_steps": progress.iteration * ticks_per_iteration(self.plan.config),
            "quantity": ", ".join(np.array(QUANTITIES)[found]),
            "done": "dropped" if done == "restarted" and before >= RESTARTS else done,
        }


def _who(findings: list[dict[str, Any]]) -> str:
    numbers = ", ".join(str(finding["agent"]) for finding in findings)
    return f"agent {numbers} is" if len(findings) == 1 else f"agents {numbers} are"


def begin_again(keys: jax.Array, sick: list[dict[str, Any]], plan: Plan) -> jax.Array:
    """Keys [S] with others for the agents that the last of `sick` restarted, each time another one."""
    at = sick[-1]["env_steps"]
    now = {found["agent"] for found in sick if found["done"] == "restarted" and found["env_steps"] == at}
    counts = np.zeros(keys.shape[0], np.uint32)
    for k in range(len(counts)):
        agent = 0 if plan.shards > 1 else k % plan.agents
        if agent in now:
            counts[k] = sum(found["agent"] == agent and found["done"] == "restarted" for found in sick)

    def other(key, k):
        return jnp.where(k > 0, jax.random.fold_in(key, OF_RESTARTS - k), key)

    return jax.vmap(other)(keys, jnp.asarray(counts))


def heirs(parents: np.ndarray, progress: Progress) -> list[dict[str, Any]]:
    """`progress.sick`, and which of the dropped agents took over another in this generation: those are looked at."""
    steps = int(progress.env_steps.max())
    return progress.sick + [
        {"agent": k, "env_steps": steps, "quantity": "", "done": f"took over agent {parents[k]}"}
        for k in progress.dropped if parents[k] != k
    ]  # fmt: skip
