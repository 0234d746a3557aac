"""What a run ends with: its agents played, its results joined, written and told."""

import time
from typing import Any

import numpy as np
from rich.console import Console

from ..trainer import State
from . import sweep
from .checkpoint import Checkpoints
from .console import conclude, show_ranking
from .folder import RunFolder, read_metrics
from .plan import Plan
from .processes import first
from .program import Run
from .progress import Progress
from .session import Session
from .statistics import summary
from .twin import TWINS, play


def played(
    run: Run, folder: RunFolder, state: State, progress: Progress, split: dict[str, float], in_gymnasium: bool = True
) -> dict[str, Any]:
    """Play with what was learnt, and draw how it was learnt."""
    from . import plots  # matplotlib, not needed before

    began, compiled, plan = time.perf_counter(), run.compile_seconds, run.plan
    returns = np.array(run.evaluate(state))
    returns[progress.dropped] = np.nan
    # Of a sweep, only what its ranking puts first is played again: a twin is one Python environment per episode.
    plays = in_gymnasium and has_twin(plan)
    theirs = play_in_gymnasium(run, state, sweep.best(plan, returns.mean(1))) if plays else None
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
        "gymnasium": theirs,
    }


def has_twin(plan: Plan) -> bool:
    return not plan.env_params and plan.env in TWINS


def play_in_gymnasium(run: Run, state: State, chosen: np.ndarray) -> dict[str, Any]:
    """How the agents `chosen` do in the twin of their environment."""
    plan = run.plan
    params, seeds = run.params_of(state, chosen), np.array(plan.seeds)[chosen]
    told = summary(play(plan.env, run.trainer.policy, params, seeds, plan.episodes))
    return told | ({} if len(chosen) == plan.agents else {"agents": chosen.tolist()})


def compared_apart(session: Session) -> bool:
    """Settings are compared that are trained in several parts, so that only the end tells which is the best."""
    return len(session.plans) > 1 and bool(sweep.swept(session.plans))


def play_the_best(
    session: Session, runs: list[Run], results: list[dict[str, Any]], found: sweep.Standings, split: dict[str, float]
) -> None:
    """Play the agents that the ranking puts first, from the checkpoints of the parts that trained them."""
    began, chosen = time.perf_counter(), dict[int, list[int]]()
    for agent in found.best if found.best and has_twin(session.plans[0]) else ():
        row = found.rows[agent]
        chosen.setdefault(row["part"], []).append(row["agent_of_part"])
    for k, agents in chosen.items():
        folder = session.folder_of(k)
        checkpoints = Checkpoints(folder.checkpoint)
        # Of a part whose last checkpoint could not be written nothing is said.
        if checkpoints.exist() and checkpoints.newest() == runs[k].total:
            state, *_ = runs[k].restore(checkpoints)
            results[k]["gymnasium"] = play_in_gymnasium(runs[k], state, np.array(agents))
            if first():
                folder.write_json(folder.result, results[k])
        checkpoints.close()
    split["evaluate"] = split.get("evaluate", 0.0) + time.perf_counter() - began


def finish(
    console: Console,
    session: Session,
    results: list[dict[str, Any]],
    found: sweep.Standings,
    split: dict[str, float],
) -> None:
    """The last files and the last lines."""
    began, folder = time.perf_counter(), session.folder
    plans, more = session.plans, dict[str, Any]()
    if len(found.rows) > 1:
        folder.write_rows(folder.sweep, found.rows)
    if names := sweep.swept(plans):
        from . import plots

        more["ranking"] = found.ranking
        evolution = plans[0].evolution  # whose agents did not keep what they began with
        for name in map(sweep.final, evolution.ranges) if evolution else names:
            plots.swept(found.rows, name, folder.path / f"sweep_{name}.png")
        show_ranking(console, found.ranking)
    result = (results[0] if len(results) == 1 else sweep.joined(results, found.best)) | more
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
