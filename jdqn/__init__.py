"""jdqn: the DQN family as pure JAX functions. Environments, replay and learner are one compiled program.

>>> env = jdqn.envs.make("CartPole-v1")
>>> config, hyper = jdqn.preset("dqn", env.name)
>>> trainer = jdqn.build(config, env)
>>> state, metrics = jax.jit(lambda key: jdqn.train(trainer, key, hyper, 1000))(jax.random.key(0))
"""

import lazy_loader

# What the package offers stands in __init__.pyi, and each name is imported when it is first used: `import jdqn` alone
# reads neither jax nor flax.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
