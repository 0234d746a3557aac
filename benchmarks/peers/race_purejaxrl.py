"""From the start of the process to a greedy mean of 475: python race_purejaxrl.py SETTINGS STARTED.

PureJaxRL trains in one scan. Here the scan is caught on its way into the program and cut into pieces, between which the
policy is judged; what a step does is its own.
"""

import sys
import types
from unittest import mock

from greedy import Race, layer
from turns import answer, settings

asked = settings()
race = Race(asked["seed"], float(sys.argv[2]), answer)
sys.modules["wandb"] = types.ModuleType("wandb")
sys.path.insert(0, f"{asked['checkout']}/purejaxrl")

import jax  # noqa: E402

if not hasattr(jax, "tree_map"):
    jax.tree_map = jax.tree.map
import dqn  # noqa: E402

config = asked["settings"] | dict(WANDB_MODE="disabled")
train, scan, caught = dqn.make_train(config), jax.lax.scan, []
pieces = asked["every"] // config["NUM_ENVS"]


def catch(step, carry, xs=None, length=None, **rest):
    """Instead of the whole training: nothing, but its first state."""
    if length != config["NUM_UPDATES"]:
        return scan(step, carry, xs, length, **rest)
    caught.append(step)
    return carry, {}


with mock.patch.object(jax.lax, "scan", catch):
    start = jax.jit(train).lower(jax.random.PRNGKey(asked["seed"])).compile()
carry = start(jax.random.PRNGKey(asked["seed"]))["runner_state"]
advance = jax.jit(lambda carry: scan(caught[0], carry, None, pieces)[0], donate_argnums=0)
for piece in range(1, config["NUM_UPDATES"] // pieces + 1):
    carry = jax.block_until_ready(advance(carry))
    params = jax.device_get(carry[0].params)["params"]
    if race.over([layer(params[f"Dense_{k}"]) for k in range(3)], piece * asked["every"]):
        break
else:
    race.lost(config["TOTAL_TIMESTEPS"])
