"""From values on the command line to the plans of a sweep, and from their results to a ranking."""

import csv
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import Config, ConfigError, Hyper
from ..effects import idle
from ..evolution import scale
from .checks import flag
from .plan import Plan
from .statistics import interquartile_mean, interval, of_agents

Setting = dict[str, Any]  # a value for each field that is swept
CONFIG = {field.name for field in dataclasses.fields(Config)}


def grid(values: dict[str, tuple]) -> list[Setting]:
    """Every combination, the last field fastest."""
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def random(values: dict[str, tuple], samples: int, seed: int) -> list[Setting]:
    """`samples` draws. Two values of a field of Hyper are a range, anything else is a choice."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, listed in values.items():
        if name in CONFIG or len(listed) != 2:
            drawn[name] = [listed[k] for k in rng.integers(len(listed), size=samples)]
            continue
        low, high = sorted(listed)
        to, back = scale(name, low, high)
        first, last = sorted((to(low, np), to(high, np)))  # NumPy's: JAX's devices are still to be chosen
        drawn[name] = back(rng.uniform(first, last, samples), np).clip(low, high).tolist()
    return [{name: drawn[name][k] for name in values} for k in range(samples)]


def plans(plan: Plan, settings: list[Setting], apart: bool = False) -> list[Plan]:
    """`plan` for each setting and seed: one plan, and so one program, for each distinct Config.

    Every setting is trained with the seeds of `plan`, so that settings are compared in the same worlds; `apart`, each
    takes the seeds that follow those of the one before, so that no two agents share their random numbers.
    """
    groups: dict[Config, list[tuple[Hyper, int]]] = {}  # (hyper, seed) of each agent
    for k, setting in enumerate(settings):
        config = dataclasses.replace(plan.config, **{k: v for k, v in setting.items() if k in CONFIG})
        hyper = plan.hyper._replace(**{k: v for k, v in setting.items() if k not in CONFIG})
        first = k * plan.agents if apart else 0
        groups.setdefault(config, []).extend((hyper, first + seed) for seed in plan.seeds)
    swept = {name for setting in settings for name in setting if name not in CONFIG}
    found = []
    for config, agents in groups.items():
        fields: dict[str, Any] = {
            name: tuple(float(getattr(hyper, name)) for hyper, _ in agents) if name in swept else value
            for name, value in plan.hyper._asdict().items()
        }
        seeds = tuple(seed for _, seed in agents)
        found.append(dataclasses.replace(plan, config=config, hyper=Hyper(**fields), seeds=seeds))
    return found


def waves(plan: Plan, most: int) -> list[Plan]:
    """`plan` in parts of no more than `most` agents, as equal as can be.

    Raises:
        ConfigError: its agents have to be there together.
    """
    number = -(-plan.agents // most)
    if plan.evolution and number > 1:
        raise ConfigError(
            f"--pbt-every compares all agents, and {plan.agents} do not fit into memory or --wave together "
            f"({most} do): train fewer"
        )
    return [plan.select(part) for part in np.array_split(np.arange(plan.agents), number)]


def swept(parts: list[Plan]) -> list[str]:
    """Fields of Config and Hyper that differ between the agents of `parts`, in their order."""
    first = parts[0]
    names = [
        name for name in (field.name for field in dataclasses.fields(Config))
        if any(getattr(part.config, name) != getattr(first.config, name) for part in parts)
    ]  # fmt: skip
    return names + [name for name in Hyper._fields if any(isinstance(getattr(p.hyper, name), tuple) for p in parts)]


def idle_in_all(parts: list[Plan]) -> dict[str, str]:
    """Name of each setting that changes nothing in any of `parts` -> what it belongs to."""
    first, *others = (idle(part.config, part.hyper) for part in parts)
    return {name: owner for name, owner in first.items() if all(name in other for other in others)}


def compared(parts: list[Plan]) -> list[str]:
    """Columns of `rows` that the ranking tells apart by: the setting, or the agent where agents change theirs."""
    evolution = parts[0].evolution
    return ["agent", *map(final, evolution.ranges)] if evolution else swept(parts)


def final(name: str) -> str:
    """The column of a field of Hyper as it was at the end of population-based training."""
    return f"final_{name}"


def evolved(plan: Plan, hyper: Hyper) -> dict[str, Any]:
    """What a result says of `hyper`, fields [S] or more: the numbers that population-based training ended with."""
    if plan.evolution is None:
        return {}
    numbers = hyper._asdict()
    return {"final": {name: np.asarray(numbers[name])[: plan.agents].tolist() for name in plan.evolution.ranges}}


def rows(parts: list[Plan], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per agent: where it is, what tells it apart, and how it did."""
    names, found = swept(parts), list[dict[str, Any]]()
    for number, (part, result) in enumerate(zip(parts, results, strict=True)):
        for k, seed in enumerate(part.seeds):
            values = dataclasses.asdict(part.config) | part.hyper_of(k)._asdict()
            found.append(
                {"agent": len(found), "part": number, "agent_of_part": k, "seed": seed}
                | {name: values[name] for name in names}
                | {final(name): numbers[k] for name, numbers in result.get("final", {}).items()}
                | {"return": result["evaluation"]["per_agent"][k]}
            )
    return found


def ranking(table: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """The settings of a sweep, the best first: mean over agents with its interval, and interquartile mean.

    Agents that are not finite any more have no return: they are counted, and a setting with no other comes last.
    """
    groups: dict[tuple, list[float | None]] = {}
    for row in table:
        groups.setdefault(tuple(row[name] for name in names), []).append(row["return"])
    found = []
    for values, returns in groups.items():
        scores = [x for x in returns if x is not None]
        found.append(
            {
                "setting": dict(zip(names, values, strict=True)),
                "agents": len(returns),
                "non_finite": len(returns) - len(scores),
                "mean": float(np.mean(scores)) if scores else None,
                "ci95": interval(scores) if len(scores) > 1 else None,
                "interquartile_mean": interquartile_mean(scores) if scores else None,
            }
        )
    return sorted(found, key=lambda setting: -np.inf if setting["mean"] is None else setting["mean"], reverse=True)


def agents_of(table: list[dict[str, Any]], setting: Setting) -> list[int]:
    """The agents of a setting of the ranking that are finite."""
    return [
        row["agent"] for row in table
        if row["return"] is not None and all(row[name] == value for name, value in setting.items())
    ]  # fmt: skip


class Standings(NamedTuple):
    """How all agents of a run did, and how its settings compare."""

    rows: list[dict[str, Any]]
    ranking: list[dict[str, Any]]  # nothing if there is one setting
    best: list[int] | None  # the finite agents of the first setting of the ranking


def standings(parts: list[Plan], results: list[dict[str, Any]]) -> Standings:
    table = rows(parts, results)
    if not swept(parts):
        return Standings(table, [], None)
    order = ranking(table, compared(parts))
    return Standings(table, order, agents_of(table, order[0]["setting"]))


def best(plan: Plan, scores: np.ndarray) -> np.ndarray:
    """The agents that the ranking by scores [S] puts first; all of them if there is only one setting.

    Scores that are nan are of agents that are not finite any more; none of those is among them.
    """
    agents: dict[Any, list[int]] = {}
    for k in np.flatnonzero(np.isfinite(scores)).tolist():
        agents.setdefault(k if plan.evolution else plan.hyper_of(k), []).append(k)
    return np.array(max(agents.values(), key=lambda group: scores[group].mean()))


def are_waves(parts: list[Plan]) -> bool:
    """The parts are one program's, and differ in their agents only."""
    return all(part.config == parts[0].config for part in parts)


def joined_metrics(parts: list[Path]) -> list[dict[str, Any]]:
    """The rows of the metrics.csv of all waves as one run of all agents would have them: report after report.

    Nothing if the waves do not have the same reports, which may be changed between them.
    """
    tables = []
    for path in parts:
        with path.open() as file:
            lines = list(csv.DictReader(file))
        agents = len({line["agent"] for line in lines})
        tables.append([lines[k : k + agents] for k in range(0, len(lines), agents)])
    if len({tuple(report[0]["updates"] for report in table) for table in tables}) > 1:
        return []
    return [
        row | {"agent": k}
        for reports in zip(*tables, strict=True)
        for k, row in enumerate(row for report in reports for row in report)
    ]


def joined(results: list[dict[str, Any]], chosen: list[int] | None = None) -> dict[str, Any]:
    """The result of a run in several parts, of whose agents those `chosen` are the best; all if not given."""
    agents = [result["agents"] for result in results]
    seconds = sum(result["run_seconds"] for result in results)
    # Of all agents; what a part says of one is rounded.
    steps = sum(round(result["env_steps_per_second"] * result["run_seconds"]) for result in results)
    each = [x for result in results for x in result["evaluation"]["per_agent"]]
    return {
        "env": results[0]["env"],
        "algo": results[0]["algo"],
        "agents": sum(agents),
        "parts": len(results),
        "env_steps": round(steps / sum(agents)),
        "updates": [result["updates"] for result in results],
        "compile_seconds": sum(result["compile_seconds"] for result in results),
        "run_seconds": seconds,
        "env_steps_per_second": steps / seconds,
        "evaluation": of_agents(each, results[0]["evaluation"]["episodes"]),
        "non_finite": [found | {"part": k} for k, result in enumerate(results) for found in result["non_finite"]],
        "best_checkpoint": None,
        "gymnasium": _joined_gymnasium(
            results, [k for k, x in enumerate(each) if x is not None] if chosen is None else chosen
        ),
    }


def _joined_gymnasium(results: list[dict[str, Any]], chosen: Sequence[int]) -> dict[str, Any] | None:
    """What the agents `chosen` reached, if all of them were played: a mean of some would say another thing."""
    first, found = 0, dict[int, float]()
    for result in results:
        if played := result["gymnasium"]:
            agents = played.get("agents", range(result["agents"]))
            found |= dict(zip((first + k for k in agents), played["per_agent"], strict=True))
        first += result["agents"]
    if not chosen or any(k not in found for k in chosen):
        return None
    parts = [result["gymnasium"] for result in results if result["gymnasium"]]
    told = of_agents([found[k] for k in chosen], parts[0]["episodes"])
    if len(found) == 1:  # of one agent the interval is over its episodes
        told["ci95"] = parts[0]["ci95"]
    return told | ({} if len(chosen) == first else {"agents": list(chosen)})


def refuse_empty(values: dict[str, tuple]) -> None:
    """Refuse a flag without a value.

    Raises:
        ConfigError: naming it.
    """
    for name, listed in values.items():
        if not listed:
            raise ConfigError(f"{flag(name)} needs a value, or several to sweep over")
