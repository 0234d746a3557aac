"""What one call of the program has to do: begin a run that the options describe, or go on with one that is there."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import xxhash

from ..config import ConfigError
from ..effects import explores
from ..envs import Env
from . import devices
from .checks import check_debug, check_plans, flag
from .folder import RunFolder
from .options import Options, flags_of
from .plan import CHANGEABLE, Plan, read_plans
from .processes import Agreed, agree, several
from .program import Run
from .sweep import idle_in_all
from .wanted import plans_of

WHERE = ("--devices", "--distributed", "--coordinator", "--num-hosts", "--host-index", "--compilation-cache")
MAY_CHANGE = ("total_steps", *CHANGEABLE)


@dataclasses.dataclass
class Session:
    """What one call of the program has to do: a folder, and the plans to train in it, one after another."""

    folder: RunFolder
    plans: list[Plan]
    devices: int | None  # as asked for
    longer: bool = False  # a run that is there gets another number of steps
    made: dict[Any, Run] = dataclasses.field(default_factory=dict)

    def run(self, plan: Plan, env: Env) -> Run:
        """The programs of a plan; those of one with other numbers and seeds are the same.

        All waves of a plan have room for the largest, so that they are one program.
        """
        room = max(other.agents for other in (plan, *self.plans) if other.config == plan.config)
        key = plan.config, room
        if key in self.made:
            return self.made[key].again(plan)
        pieces = plan.shards if plan.shards > 1 else room
        number = 1 if plan.debug else devices.choose(self.devices, pieces, divides=plan.shards > 1)
        self.made[key] = Run(plan, env, number, room)
        return self.made[key]

    def folder_of(self, part: int) -> RunFolder:
        """Where the run of a plan keeps its files: in the session's folder if there is only one."""
        return RunFolder(self.folder.path / f"part-{part:03d}") if len(self.plans) > 1 else self.folder


def refuse_other_settings(session: Session, options: Options) -> None:
    """Refuse hosts that were started with different flags, or have another Python or other libraries.

    Called before anything else is gathered from all of them, which has the same shape on all only if this is so.

    Raises:
        Agreed: on every host.
    """
    if not several():
        return
    told = [{name: value for name, value in plan.to_json().items() if name != "device"} for plan in session.plans]
    content = json.dumps([told, options.resume is None, options.wave, str(session.folder.path)], default=repr)
    digest = xxhash.xxh64_intdigest(content.encode()) >> 12  # 52 bits: a float has them all
    largest, smallest = agree(digest, -digest)
    if largest != -smallest:
        raise Agreed(
            "the hosts of this run have different flags, or versions of Python, jdqn or its libraries: give all of "
            "them the same (--host-index apart)"
        )


def convolve(plans: list[Plan]) -> bool:
    return any(devices.convolves(plan.env, plan.config.network) for plan in plans)


def will_convolve(options: Options) -> bool:
    """Whether a network of the run looks at images, asked before the hosts of the run have met.

    What is wrong with the options is refused later, by all hosts together.
    """
    try:
        return convolve(plans_in(RunFolder.open(options.resume)) if options.resume else plans_of(options))
    except ConfigError:
        return True


def plans_in(folder: RunFolder) -> list[Plan]:
    """What a run that is there was going to train."""
    return read_plans(folder.parts if folder.parts.exists() else folder.config)


def begin(options: Options, now: float) -> Session:
    """The plans that the options ask for, in a folder named by the time `now` if they name none."""
    wanted, data = devices.number_wanted(options.devices), options.parallel == "data"
    plans = plans_of(options)
    most = devices.cores() if data else max(plan.agents for plan in plans)
    devices.split_cpu(wanted, most, convolve(plans))
    if data:
        if len(plans) > 1 or plans[0].agents > 1:
            raise ConfigError("--parallel data trains one agent: leave --seeds at 1 and give every setting one value")
        for name in ("wave", "at_once"):
            if getattr(options, name):
                raise ConfigError(f"{flag(name)} is for several agents, and --parallel data trains one: leave it out")
        shards = devices.choose(wanted, jax.device_count(), divides=False)
        plans = [dataclasses.replace(plans[0], shards=shards)]
    check_debug(plans, options.distributed)
    name = f"{options.env}-{options.algo}-s{options.seed}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    return Session(RunFolder(options.out or Path("runs") / name), plans, wanted)


def resume(options: Options, arguments: list[str]) -> Session:
    """The plans of a run that is there, with what may be changed of them.

    Raises:
        ConfigError: there is none, its files are damaged, another flag is given, or what may change cannot be so.
    """
    given = flags_of(arguments)
    changed = [name for name in MAY_CHANGE if name in given.values()]
    for word, name in given.items():
        if name not in MAY_CHANGE and word not in ("--resume", *WHERE):
            may = ", ".join(map(flag, MAY_CHANGE))
            raise ConfigError(
                f"--resume goes on with the settings in its config.json, and {word} cannot change: leave it out, or "
                f"start another run (what may change is {may}, and where it runs: {', '.join(WHERE)})"
            )
    assert options.resume is not None
    folder, wanted = RunFolder.open(options.resume), devices.number_wanted(options.devices)
    plans = [plan.changed(changed, options) for plan in plans_in(folder)]
    check_plans(plans)
    check_debug(plans, options.distributed)
    agents, shards = max(plan.agents for plan in plans), max(plan.shards for plan in plans)
    # A device for each shard, on however few cores, sums gradients as the run did that was stopped.
    number = shards if wanted is None and shards > 1 else wanted
    devices.split_cpu(number, agents, convolve(plans))
    return Session(folder, plans, wanted, longer="total_steps" in changed)


def remarks(session: Session, options: Options, arguments: list[str]) -> list[str]:
    """What goes on all the same, and should be known: settings without effect, and agents that learn nothing new."""
    if options.resume:
        return _taught_nothing(session)
    plans, given = session.plans, flags_of(arguments)
    without = idle_in_all(plans)
    found = [
        f"{word} changes nothing here: it belongs to {without[name]}" for word, name in given.items() if name in without
    ]
    if not any(explores(plan.config, plan.hyper) for plan in plans):
        noisy = ", or give --noisy" * all(plan.config.network != "tabular" for plan in plans)
        found.append(
            f"nothing explores after the warm-up, for epsilon is 0 and no layer noisy: raise --epsilon-end{noisy}"
        )
    return found


def _taught_nothing(session: Session) -> list[str]:
    """What is to be said of steps beyond the schedule of a run that goes on for longer; none if they teach."""
    for plan in session.plans if session.longer else ():
        for k in range(plan.agents):
            hyper = plan.hyper_of(k)
            if hyper.learning_rate_final_fraction == 0 and hyper.learning_rate_steps < plan.config.total_steps:
                return [
                    f"the schedule of this run has let the learning rate fall to 0 by step "
                    f"{hyper.learning_rate_steps:,.0f}, and what is trained beyond that teaches nothing: start a run "
                    f"of {plan.config.total_steps:,} steps instead, or one with --learning-rate-final-fraction above 0"
                ]
    return []


def write_plans(session: Session) -> None:
    """Keep what is going to be trained; results of fewer steps are results no more."""
    folder, plans = session.folder, [plan.to_json() for plan in session.plans]
    if session.longer:
        folder.result.unlink(missing_ok=True)
    if len(plans) == 1:
        folder.write_json(folder.config, plans[0])
        return
    folder.write_json(folder.parts, {"versions": plans[0]["versions"], "plans": plans})
    for k, plan in enumerate(plans):
        part = session.folder_of(k)
        if session.longer:
            part.result.unlink(missing_ok=True)
        if part.config.exists():
            part.write_json(part.config, plan)
