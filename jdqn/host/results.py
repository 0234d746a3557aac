"""What a run ends with: its agents played, its results joined, written and told."""

import time
from typing import Any

import numpy as np
from rich.console import Console

from ..trainer import State
from . import sweep
from .console import conclude, show_ranking
from .folder import RunFolder, read_metrics
from .processes import first
from .program import Run
from .progress import Progress
from .session import Session
from .statistics import summary


def played(run: Run, folder: RunFolder, state: State, progress: Progress, split: dict[str, float]) -> dict[str, Any]:
    """Play with what was learnt, and draw how it was learnt."""
    from . import plots, twin  # matplotlib and gymnasium, not needed before

    began, compiled, plan = time.perf_counter(), run.compile_seconds, run.plan
    returns = np.array(run.evaluate(state))
    returns[progress.dropped] = np.nan
    # Of a sweep, only what its ranking puts first is played again: a twin is one Python environment per episode.
    chosen = sweep.best(plan, returns.mean(1))
    theirs = None if plan.env_params else twin.play(
        plan.env, run.trainer.policy, run.params_of(state, chosen), np.array(plan.seeds)[chosen], plan.episodes
    )  # fmt: skip
    evaluated = time.perf_counter()
    if first():
        plots.learning_curves({f"{plan.algo} on {plan.task}": read_metrics(folder.metrics)}, folder.curve)
    took = {
        "compile": run.compile_seconds,
        "run": progress.seconds,
        "evaluate": evaluated - began - (run.compile_seconds - compiled),
        "write": time.perf_counter() - evaluated,
    }
    for name, seconds in took.items():
        split[name] = split.get(name, 0.0) + seconds
    return {
        "env": plan.env,
        "algo": plan.algo,
        "agents": plan.agents,
        "env_steps": int(progress.env_steps.mean().round()),
        "updates": run.updates(progress.iteration),
        "compile_seconds": run.compile_seconds,
        "run_seconds": progress.seconds,
        "env_steps_per_second": float(progress.env_steps.sum() / progress.seconds),
        "evaluation": summary(returns),
        "non_finite": progress.sick,
        "best_checkpoint": progress.best,
        "gymnasium": None
        if theirs is None
        else summary(theirs) | ({} if len(chosen) == plan.agents else {"agents": chosen.tolist()}),
    }


def finish(console: Console, session: Session, results: list[dict[str, Any]], split: dict[str, float]) -> None:
    """The last files and the last lines."""
    began, folder = time.perf_counter(), session.folder
    plans, more, chosen = session.plans, dict[str, Any](), None
    if names := sweep.swept(plans):
        from . import plots

        table = sweep.rows(plans, results)
        folder.write_rows(folder.sweep, table)
        more["ranking"] = sweep.ranking(table, sweep.compared(plans))
        chosen = sweep.agents_of(table, more["ranking"][0]["setting"])
        evolution = plans[0].evolution  # whose agents did not keep what they began with
        for name in map(sweep.final, evolution.ranges) if evolution else names:
            plots.swept(table, name, folder.path / f"sweep_{name}.png")
        show_ranking(console, more["ranking"])
    result = (results[0] if len(results) == 1 else sweep.joined(results, chosen)) | more
    if len(results) > 1 and sweep.are_waves(plans):
        join_waves(session)
    folder.write_json(folder.result, result)
    split["write"] = split.get("write", 0.0) + time.perf_counter() - began
    conclude(console, result, folder, split)


def join_waves(session: Session) -> None:
    """The metrics and the curve of all agents, as if they had been trained together."""
    from . import plots

    folder, plan = session.folder, session.plans[0]
    if metrics := sweep.joined_metrics([session.folder_of(k).metrics for k in range(len(session.plans))]):
        folder.write_rows(folder.metrics, metrics)
        plots.learning_curves({f"{plan.algo} on {plan.task}": read_metrics(folder.metrics)}, folder.curve)
