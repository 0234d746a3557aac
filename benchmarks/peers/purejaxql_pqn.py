"""Train agents of PureJaxQL's PQN: python purejaxql_pqn.py SETTINGS, with checkout, script, agents and its settings.

Runs where PureJaxRL's DQN does. Its command line (hydra), its files (safetensors) and wandb are replaced by nothing:
only `make_train` is called, with the settings of its YAML files and without its tests during training.
"""

import importlib
import sys
import time
import types

from turns import settings, take_turns

asked = settings()
parts = {
    "wandb": {}, "omegaconf": {"OmegaConf": None}, "safetensors": {},
    "safetensors.flax": {"load_file": None, "save_file": None}, "hydra": {"main": lambda **_: lambda main: main},
}  # fmt: skip
for name, content in parts.items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__dict__.update(content)
sys.path.insert(0, asked["checkout"])

import jax  # noqa: E402

if not hasattr(jax, "tree_map"):
    jax.tree_map = jax.tree.map
make_train = importlib.import_module(f"purejaxql.{asked['script']}").make_train

keys = jax.random.split(jax.random.PRNGKey(0), asked["agents"])
train = jax.vmap(make_train(asked["settings"] | dict(WANDB_MODE="disabled", TEST_DURING_TRAINING=False)))
began = time.perf_counter()
program = jax.jit(train).lower(keys).compile()
compile_seconds = time.perf_counter() - began


def run():
    metrics = jax.block_until_ready(program(keys))["metrics"]
    steps = int(metrics["env_step"][0, -1])
    return dict(ticks=steps, transitions=steps, updates=int(metrics["grad_steps"][0, -1]))


shapes = jax.eval_shape(train, keys)["runner_state"][0].params
parameters = sum(x.size // x.shape[0] for x in jax.tree.leaves(shapes))
take_turns(run, compile_seconds=compile_seconds, parameters=parameters)
