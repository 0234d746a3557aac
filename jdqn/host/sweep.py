"""From values on the command line to the plans of a sweep, and from their results to a ranking."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from ..config import Config, ConfigError, Hyper
from ..evolution import scale
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
        ends = float(to(low)), float(to(high))
        drawn[name] = [float(back(x)) for x in rng.uniform(min(ends), max(ends), samples)]
    return [{name: drawn[name][k] for name in values} for k in range(samples)]


def plans(plan: Plan, settings: list[Setting]) -> list[Plan]:
    """`plan` for each setting and seed: one plan, and so one program, for each distinct Config."""
    groups: dict[Config, list[Hyper]] = {}
    for setting in settings:
        config = dataclasses.replace(plan.config, **{k: v for k, v in setting.items() if k in CONFIG})
        hyper = plan.hyper._replace(**{k: v for k, v in setting.items() if k not in CONFIG})
        groups.setdefault(config, []).append(hyper)
    swept = {name for setting in settings for name in setting if name not in CONFIG}
    found = []
    for config, hypers in groups.items():
        fields: dict[str, Any] = {
            name: tuple(float(getattr(h, name)) for h in hypers for _ in plan.seeds) if name in swept else value
            for name, value in plan.hyper._asdict().items()
        }
        found.append(dataclasses.replace(plan, config=config, hyper=Hyper(**fields), seeds=plan.seeds * len(hypers)))
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


def rows(parts: list[Plan], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per agent: where it is, what tells it apart, and how it did."""
    names, found = swept(parts), list[dict[str, Any]]()
    for number, (part, result) in enumerate(zip(parts, results, strict=True)):
        for k, seed in enumerate(part.seeds):
            values = dataclasses.asdict(part.config) | part.hyper_of(k)._asdict()
            found.append(
                {"agent": len(found), "part": number, "agent_of_part": k, "seed": seed}
                | {name: values[name] for name in names}
                | {"return": result["evaluation"]["per_agent"][k]}
            )
    return found


def ranking(table: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """The settings of a sweep, the best first: mean over seeds with its interval, and interquartile mean."""
    groups: dict[tuple, list[float]] = {}
    for row in table:
        scores = groups.setdefault(tuple(row[name] for name in names), [])
        scores.extend([] if row["return"] is None else [row["return"]])  # None was not finite any more
    found = [
        {
            "setting": dict(zip(names, values, strict=True)),
            "agents": len(scores),
            "mean": float(np.mean(scores)),
            "ci95": interval(scores),
            "interquartile_mean": interquartile_mean(scores),
        }
        for values, scores in groups.items()
        if scores
    ]
    return sorted(found, key=lambda setting: -setting["mean"])


def best(plan: Plan, scores: np.ndarray) -> np.ndarray:
    """The agents of the setting with the best mean of scores [S]; all of them if there is only one setting."""
    agents: dict[Hyper, list[int]] = {}
    for k in range(plan.agents):
        agents.setdefault(plan.hyper_of(k), []).append(k)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    return np.array(max(agents.values(), key=lambda group: scores[group].mean()))


def joined(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The result of a run in several parts."""
    agents = [result["agents"] for result in results]
    seconds = sum(result["run_seconds"] for result in results)
    steps = sum(result["env_steps"] * number for result, number in zip(results, agents, strict=True))
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
        "gymnasium": None,
    }


def refuse_empty(values: dict[str, tuple]) -> None:
    """Refuse a flag without a value.

    Raises:
        ConfigError: naming it.
    """
    for name, listed in values.items():
        if not listed:
            raise ConfigError(f"--{name.replace('_', '-')} needs a value, or several to sweep over")
