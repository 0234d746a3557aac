"""The main program: python -m jdqn.run --env CartPole-v1 [--algo dqn] [any setting]. See --help."""

import contextlib
import gc
import json
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import jax
import psutil
from rich.console import Console

from . import envs
from .config import ConfigError
from .host import devices, manifest, sweep
from .host.checkpoint import Checkpoints
from .host.checks import can_keep
from .host.console import ProgressBar, describe, list_algorithms, screen
from .host.folder import NO_ROOM, RunFolder
from .host.health import Sick
from .host.options import Options, flags_of, parse
from .host.processes import Agreed, agree, fetch, first, leave, meet, several, there, together, wait_for_all
from .host.program import Run
from .host.results import compared_apart, finish, play_the_best, played
from .host.session import (
    Session,
    begin,
    refuse_other_settings,
    remarks,
    resume,
    will_convolve,
    write_plans,
)
from .host.signals import Interrupted
from .host.training import Training

LOST = "gloo|heartbeat|coordination|connection|unavailable|deadline|barrier"  # what JAX says when a host is lost


def main(arguments: list[str]) -> int:
    """Run the program; the exit status is 0, 2 for settings that cannot work, 128 + n after signal n, 1 otherwise."""
    console = screen()
    split = {"import": time.time() - psutil.Process().create_time()}
    try:
        options = parse(arguments)
        if options.distributed:
            devices.split_cpu(devices.number_wanted(options.devices), devices.cores(), will_convolve(options))
            meet(options.coordinator, options.num_hosts, options.host_index)
            console.quiet = not first()
        if options.list:
            env = options.env if "--env" in flags_of(arguments) else ""
            if env:
                envs.make(env)  # which refuses what is none
            list_algorithms(console, env)
            return 0
        (now,) = agree(time.time())
        with together():
            session = resume(options, arguments) if options.resume else begin(options, now)
        refuse_other_settings(session, options)
        for sentence in remarks(session, options, arguments):
            warn(sentence)
        again = f"go on with python -m jdqn.run --resume {session.folder.path}"
        keep_compiled(options.compilation_cache)
        if options.resume and not session.longer and there(session.folder.result):
            console.print(f"{session.folder.path} is finished: see {session.folder.result}")
            return 0
        try:
            train(console, session, options, split)
        except (ConfigError, Interrupted, Sick):
            raise
        except Exception as error:
            if several():
                leave_the_others(error, session.folder)
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                then = again if has_checkpoint(session) else "start it again with --overwrite"
                tell(f"{error.filename or 'a file'} could not be written ({error.strerror}): make room and {then}")
                return 1
            raise
        return 0
    except KeyboardInterrupt:
        console.print("stopped; if the run has a checkpoint, --resume goes on from there")
        return 130
    except Interrupted as stop:
        where = "at a checkpoint" if stop.saved else "without a checkpoint of this moment"
        console.print(f"stopped {where}: {again}")
        return 128 + stop.signum
    except Sick as error:
        before = (
            "the last checkpoint is from before" if has_checkpoint(session) else "there is no checkpoint from before"
        )
        tell(f"{error}; {before}")
        return 1
    except ConfigError as error:
        if first() or not isinstance(error, Agreed):
            tell(str(error))
        if several() and not isinstance(error, Agreed):
            leave(2)
        return 2


def has_checkpoint(session: Session) -> bool:
    """There is something that --resume goes on from."""
    folders = [session.folder_of(k) for k in range(len(session.plans))]
    return any(any(folder.checkpoint.glob(f"*/{manifest.NAME}")) for folder in folders)


def tell(sentence: str, kind: str = "error") -> None:
    """Say to stderr what is wrong."""
    screen(stderr=True).print(f"{kind}: {sentence}")


def warn(sentence: str) -> None:
    """Say what goes on all the same; of several processes one does."""
    if first():
        tell(sentence, "warning")


def leave_the_others(error: Exception, folder: RunFolder) -> None:
    """End this process of several, at once: leaving politely would wait for a host that may be lost."""
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    # A RuntimeError of JAX's, or the ValueError that gathering numbers makes of one.
    if isinstance(error, RuntimeError | ValueError) and re.search(LOST, str(error), re.IGNORECASE):
        what = f"this host is out of step, probably because another host was lost ({reason})"
    else:
        with contextlib.suppress(OSError):
            traceback.print_exception(error)
        what = f"this host failed ({reason})"
    tell(f"{what}: start all of them again with --resume {folder.path}")
    leave(1)


def keep_compiled(where: str) -> None:
    """Turn on JAX's cache of compiled programs, unless the environment already names one."""
    if where != "none" and "JAX_COMPILATION_CACHE_DIR" not in os.environ and can_keep(where):
        jax.config.update("jax_compilation_cache_dir", str(Path(where).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def prepare(console: Console, session: Session, options: Options, split: dict[str, float]) -> list[Run]:
    """Everything that can be refused is refused here, on all hosts alike, before the first file is touched."""
    began, fresh, folder = time.perf_counter(), options.resume is None, session.folder
    with together():
        env = envs.make(session.plans[0].env, **session.plans[0].env_params)
        runs = [session.run(plan, env) for plan in session.plans]
    if fresh:  # what is resumed keeps its waves
        session.plans = [part for run in runs for part in sweep.waves(run.plan, run.most(options.wave))]
        runs = [session.run(part, env) for part in session.plans]
    split["build"] = time.perf_counter() - began
    describe(console, runs)
    for run in runs:
        run.require_memory()
    with together():
        if fresh and first():
            RunFolder.require_new(folder.path, options.overwrite)
    if fresh:
        runs[0].compile(fresh=True)
    with together():  # an old run goes only now
        if fresh and first():
            RunFolder.create(folder.path, options.overwrite)
        if first():
            write_plans(session)
    with together():
        folder.require_seen()
    if not first():  # where JAX itself ends this process, because the first host is lost, nothing can be said any more
        screen().print(f"if a host is lost, start all of them again with --resume {folder.path}")
    return runs


def train(console: Console, session: Session, options: Options, split: dict[str, float]) -> None:
    """Train plan after plan, then compare the settings if there are several."""
    runs, results = prepare(console, session, options, split), list[dict[str, Any]]()
    for k, run in enumerate(runs):
        part = session.folder_of(k)
        if there(part.result):
            results.append(json.loads(part.result.read_text()))
            continue
        if len(runs) > 1:
            console.print(f"part {k + 1} of {len(runs)}: {run.plan.agents} agent(s)")
        resume = options.resume is not None
        results.append(train_part(console, run, part, split, resume, session))
        if len(runs) > 1 and first():
            part.write_json(part.result, results[-1])
    found = sweep.standings(session.plans, results)
    if compared_apart(session):
        play_the_best(session, runs, results, found, split)
    if first():
        finish(console, session, results, found, split)
    wait_for_all("finished")


def train_part(
    console: Console, run: Run, folder: RunFolder, split: dict[str, float], resume: bool, session: Session
) -> dict[str, Any]:
    """Train and evaluate the agents of one plan; return what its result.json holds."""
    alone = len(session.plans) == 1
    with together():
        if first() and not alone and not folder.config.exists():
            folder.path.mkdir(exist_ok=True)
            folder.write_json(folder.config, run.plan.to_json())
    checkpoints = Checkpoints(folder.checkpoint, run.plan.keep, warn)
    try:
        resume = resume and (alone or checkpoints.exist())
        if resume:
            checkpoints.newest()  # which all look for together
            with together():
                wrote = run.require_resumable(checkpoints, folder)
            if told := run.elsewhere(wrote):
                console.print(told)
        checkpoints.tidy()
        wait_for_all("nothing half-written is left")
        run.compile(fresh=not resume)
        console.print(f"compiled in {run.compile_seconds:.1f} s; writing to {folder.path}")
        with ProgressBar(console, run) as show:
            training = Training(run, folder, checkpoints, show, warn)
            state, progress = training.go(resume)
        result = played(run, folder, state, progress, split, not compared_apart(session))
        result |= sweep.evolved(run.plan, fetch(training.hyper))
    except (ConfigError, Interrupted, Sick):
        checkpoints.close()
        raise
    checkpoints.close()  # after any other exception it might wait for a host that was lost
    return result


if __name__ == "__main__":
    gc.set_threshold(100_000)  # modules and traces stay: to look through them for garbage is a tenth of starting
    status = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again, and end with a status of its own
        leave(status)
    if status == 130:
        leave(status)
    sys.exit(status)
