"""How a driver of a library talks to benchmarks/versus.py: one line of JSON when it is ready, then one for each turn.

Drivers run in environments of their own, so this needs Python alone. A turn begins with a line on stdin, so libraries
that are compared can take turns while the others wait. What a library prints goes to stderr.
"""

import json
import os
import sys
import time
from collections.abc import Callable

_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def settings() -> dict:
    """What the driver was asked to do."""
    return json.loads(sys.argv[1])


def answer(found: dict) -> None:
    print(json.dumps(found), file=_answers, flush=True)


def take_turns(run: Callable[[], dict], **about) -> None:
    """Say `about`, then run once for every line of stdin; a run returns what it did when that is really there."""
    answer(about)
    for _ in sys.stdin:
        began = time.perf_counter()
        found = run()
        answer(found | {"seconds": time.perf_counter() - began})
