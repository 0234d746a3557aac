"""From the start of a process to the first update of a CartPole agent: python first_update.py STARTED.

STARTED is the time at which the process was started. Prints a line of JSON with the seconds at which each part ended.
Nothing is imported before the clock is read; benchmarks/startup.py runs it.
"""

import json
import sys
import time

ends = {"python": time.time()}

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

ends["import jax"] = time.time()
import jdqn  # noqa: E402

ends["import jdqn"] = time.time()
env = jdqn.envs.make("CartPole-v1")
config, hyper = jdqn.preset("dqn", env.name)
trainer = jdqn.build(config, env)
population = jdqn.over_agents(trainer)
keys = jax.vmap(jax.random.key)(jnp.arange(1))
ends["build"] = time.time()
shapes, i = jax.eval_shape(population.start, keys, hyper), jax.ShapeDtypeStruct((), jnp.int32)
start = jax.jit(population.start).lower(keys, hyper)
advance = jax.jit(population.advance, donate_argnums=0).lower(shapes[0], hyper, shapes[1], i, i)
ends["trace"] = time.time()
start, advance = start.compile(), advance.compile()
ends["compile"] = time.time()
state, sums = jax.block_until_ready(start(keys, hyper))
ends["warm-up"] = time.time()
first = trainer.num_warm_up
jax.block_until_ready(advance(state, hyper, sums, jnp.int32(first), jnp.int32(first + 1)))
ends["first update"] = time.time()
print(json.dumps({name: end - float(sys.argv[1]) for name, end in ends.items()}))
