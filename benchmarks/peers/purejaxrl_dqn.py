"""Time PureJaxRL's DQN, in its own environment: python purejaxrl_dqn.py CHECKOUT AGENTS STEPS REPETITIONS.

Runs with the Python of an environment that has gymnax < 1 (it expects five values of a step), flashbax, flax and
distrax. So that it imports on today's jax, `jax.tree_map` is given back; wandb is replaced by nothing, which is what
its mode "disabled" does. Settings are the file's own. Prints a line of JSON.
"""

import json
import statistics
import sys
import time
import types

sys.modules["wandb"] = types.ModuleType("wandb")
checkout, agents, steps, repetitions = sys.argv[1], *map(int, sys.argv[2:5])
sys.path.insert(0, f"{checkout}/purejaxrl")

import jax  # noqa: E402

if not hasattr(jax, "tree_map"):
    jax.tree_map = jax.tree.map
import dqn  # noqa: E402

CONFIG = dict(
    NUM_ENVS=10, BUFFER_SIZE=10_000, BUFFER_BATCH_SIZE=128, TOTAL_TIMESTEPS=steps, EPSILON_START=1.0,
    EPSILON_FINISH=0.05, EPSILON_ANNEAL_TIME=25e4, TARGET_UPDATE_INTERVAL=500, LR=2.5e-4, LEARNING_STARTS=10_000,
    TRAINING_INTERVAL=10, LR_LINEAR_DECAY=False, GAMMA=0.99, TAU=1.0, ENV_NAME="CartPole-v1", SEED=0, NUM_SEEDS=agents,
    WANDB_MODE="disabled",
)  # fmt: skip
keys = jax.random.split(jax.random.PRNGKey(0), agents)
began = time.perf_counter()
program = jax.jit(jax.vmap(dqn.make_train(CONFIG))).lower(keys).compile()
compile_seconds = time.perf_counter() - began
times = []
for _ in range(repetitions + 1):
    began = time.perf_counter()
    out = jax.block_until_ready(program(keys))
    times.append(time.perf_counter() - began)
print(
    json.dumps(
        dict(
            library="PureJaxRL",
            agents=agents,
            steps=steps,
            updates=int(out["metrics"]["updates"][0, -1]),
            seconds=statistics.median(times[1:]),
            min_seconds=min(times[1:]),
            max_seconds=max(times[1:]),
            compile_seconds=compile_seconds,
        )
    )
)
