"""From the start of the process to a greedy mean of 475: python race_ours.py SETTINGS STARTED.

CartPole's preset as it is, with the programs compiled side by side as `python -m jdqn.run` does it.
"""

import concurrent.futures
import sys

import jax
import jax.numpy as jnp
from greedy import Race, layer
from turns import answer, settings

import jdqn
from jdqn.host import devices

asked = settings()
devices.split_cpu(1, 1, convolutions=False)  # as the program does
race = Race(asked["seed"], float(sys.argv[2]), answer)
env = jdqn.envs.make("CartPole-v1")
config, hyper = jdqn.preset("dqn", env.name)
trainer = jdqn.build(config, env)
population = jdqn.over_agents(trainer)
keys, i = jax.vmap(jax.random.key)(jnp.array([asked["seed"]])), jax.ShapeDtypeStruct((), jnp.int32)
shapes = jax.eval_shape(population.init, keys, hyper)
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    advance = jax.jit(population.advance, donate_argnums=0)
    compiled = pool.submit(lambda: advance.lower(shapes[0], hyper, shapes[1], i, i).compile())
    init = jax.jit(population.init, compiler_options=devices.options_to_run_once()).lower(keys, hyper).compile()
    advance = compiled.result()
(state, sums), now, last = init(keys, hyper), trainer.num_warm_up, jdqn.total_iterations(config)
state, sums = advance(state, hyper, sums, jnp.int32(0), jnp.int32(now))
while now < last:
    stop = min(now + asked["every"] // trainer.ticks, last)
    state, sums = jax.block_until_ready(advance(state, hyper, sums, jnp.int32(now), jnp.int32(stop)))
    now = stop
    torso, stream = (jax.device_get(state.learner.params["params"][name]) for name in ("torso", "last"))
    stream = stream["Stream_0"]
    parts = (torso["Dense_0"], stream["MLP_0"]["Dense_0"], stream["Dense_0"])
    layers = [(kernel[0], bias[0]) for kernel, bias in map(layer, parts)]  # of the only agent
    if race.over(layers, now * trainer.ticks):
        break
else:
    race.lost(last * trainer.ticks)
