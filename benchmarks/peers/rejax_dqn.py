"""Train agents of Rejax's DQN: python rejax_dqn.py SETTINGS, with agents and its own settings.

Runs with the Python of an environment that has rejax and gymnax < 1. Its evaluation during training is switched off:
it happens once, at the end, and returns nothing.
"""

import time

import jax
import jax.numpy as jnp
from rejax import get_algo
from turns import settings, take_turns

asked = settings()
kind = get_algo("dqn")
kind = kind[0] if isinstance(kind, tuple) else kind
steps = asked["settings"]["total_timesteps"]
algorithm = kind.create(**asked["settings"] | dict(eval_freq=steps, skip_initial_evaluation=True))
algorithm = algorithm.replace(eval_callback=lambda *_: jnp.zeros(()))
keys = jax.random.split(jax.random.PRNGKey(0), asked["agents"])
train = jax.vmap(kind.train, (None, 0))
began = time.perf_counter()
program = jax.jit(train).lower(algorithm, keys).compile()
compile_seconds = time.perf_counter() - began


def run():
    state = jax.block_until_ready(program(algorithm, keys))[0]
    done = int(state.global_step[0])
    return dict(ticks=done, transitions=done, updates=int(state.q_ts.step[0]))


shapes = jax.eval_shape(train, algorithm, keys)[0].q_ts.params
parameters = sum(x.size // x.shape[0] for x in jax.tree.leaves(shapes))
take_turns(run, compile_seconds=compile_seconds, parameters=parameters)
