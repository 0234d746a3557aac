"""Train agents of PureJaxRL's DQN: python purejaxrl_dqn.py SETTINGS, with checkout, agents and its own settings.

Runs with the Python of an environment that has gymnax < 1 (it expects five values of a step), flashbax, flax and
distrax. So that it imports on today's jax, `jax.tree_map` is given back; wandb is replaced by nothing, which is what
its mode "disabled" does.
"""

import sys
import time
import types

from turns import settings, take_turns

asked = settings()
sys.modules["wandb"] = types.ModuleType("wandb")
sys.path.insert(0, f"{asked['checkout']}/purejaxrl")

import jax  # noqa: E402

if not hasattr(jax, "tree_map"):
    jax.tree_map = jax.tree.map
import dqn  # noqa: E402

keys = jax.random.split(jax.random.PRNGKey(0), asked["agents"])
train = dqn.make_train(asked["settings"] | dict(WANDB_MODE="disabled"))
began = time.perf_counter()
program = jax.jit(jax.vmap(train)).lower(keys).compile()
compile_seconds = time.perf_counter() - began


def run():
    metrics = jax.block_until_ready(program(keys))["metrics"]
    steps = int(metrics["timesteps"][0, -1])
    return dict(ticks=steps, transitions=steps, updates=int(metrics["updates"][0, -1]))


shapes = jax.eval_shape(jax.vmap(train), keys)["runner_state"][0].params
parameters = sum(x.size // x.shape[0] for x in jax.tree.leaves(shapes))
take_turns(run, compile_seconds=compile_seconds, parameters=parameters)
