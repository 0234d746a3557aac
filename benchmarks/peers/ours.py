"""Train agents of jdqn: python ours.py SETTINGS, a JSON object with env, algorithm, agents and settings of a Config.

Agents are shared out over the cores as `python -m jdqn.run` does it. A turn is a whole run from fresh agents on.
"""

import time

import jax
import jax.numpy as jnp
from turns import settings, take_turns

import jdqn
from jdqn import parallel
from jdqn.host import devices

asked = settings()
fields = {name: tuple(x) if isinstance(x, list) else x for name, x in asked["settings"].items()}
devices.split_cpu(None, asked["agents"], devices.convolves(asked["env"], fields.get("network", "auto")))
config, hyper = jdqn.preset(asked["algorithm"], "", **fields)
trainer = jdqn.build(config, jdqn.envs.make(asked["env"]))
agents, last = asked["agents"], jdqn.total_iterations(config)
number = devices.choose(None, agents, divides=True)
population, keys = parallel.over_agents(trainer), jax.vmap(jax.random.key)(jnp.arange(agents))
if number > 1:
    mesh = parallel.device_mesh(number)
    population, keys = parallel.over_devices(population, mesh), jax.device_put(keys, parallel.sharded(mesh))
began = time.perf_counter()
init = jax.jit(population.init).lower(keys, hyper).compile()
compile_seconds = time.perf_counter() - began
state, sums = jax.block_until_ready(init(keys, hyper))  # so that it is known where they lie
began = time.perf_counter()
advance = jax.jit(population.advance, donate_argnums=0)
advance = advance.lower(state, hyper, sums, jnp.int32(0), jnp.int32(0)).compile()
compile_seconds += time.perf_counter() - began
del state, sums


def run():
    state, sums = init(keys, hyper)
    state, sums = advance(state, hyper, sums, jnp.int32(0), jnp.int32(last))
    jax.block_until_ready((state, sums))
    updates = (last - trainer.num_warm_up) * trainer.updates
    return dict(ticks=last * trainer.ticks, transitions=float(sums.env_steps.mean()), updates=updates)


shapes = jax.eval_shape(population.init, keys, hyper)[0].learner.params
parameters = sum(x.size // x.shape[0] for x in jax.tree.leaves(shapes))
take_turns(run, compile_seconds=compile_seconds, parameters=parameters)
