"""From the start of a process to the first update of a CartPole agent: python first_update.py STARTED.

STARTED is the time at which the process was started. Prints a line of JSON with the seconds at which each part ended.
Nothing is imported before the clock is read; benchmarks/startup.py runs it.
"""

import gc
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

ends = {"python": time.time()}
gc.set_threshold(100_000)  # as the program does

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

ends["import jax"] = time.time()
import jdqn  # noqa: E402
from jdqn.host import devices  # noqa: E402

ends["import jdqn"] = time.time()
devices.split_cpu(1, 1, convolutions=False)  # as the program does
env = jdqn.envs.make("CartPole-v1")
config, hyper = jdqn.preset("dqn", env.name)
trainer = jdqn.build(config, env)
population = jdqn.over_agents(trainer)
keys = jax.vmap(jax.random.key)(jnp.arange(1))
ends["build"] = time.time()
init = jax.jit(population.init, compiler_options=devices.options_to_run_once())
i = jax.ShapeDtypeStruct((), jnp.int32)
shapes = init.eval_shape(keys, hyper)
advance = jax.jit(population.advance, donate_argnums=0).lower(shapes[0], hyper, shapes[1], i, i)
ends["trace"] = time.time()
with ThreadPoolExecutor(2) as pool:
    init, advance = pool.map(lambda job: job(), (lambda: init.lower(keys, hyper).compile(), advance.compile))
ends["compile"] = time.time()
first = trainer.num_warm_up
state, sums = init(keys, hyper)
state, sums = jax.block_until_ready(advance(state, hyper, sums, jnp.int32(0), jnp.int32(first)))
ends["warm-up"] = time.time()
jax.block_until_ready(advance(state, hyper, sums, jnp.int32(first), jnp.int32(first + 1)))
ends["first update"] = time.time()
print(json.dumps({name: end - float(sys.argv[1]) for name, end in ends.items()}))
