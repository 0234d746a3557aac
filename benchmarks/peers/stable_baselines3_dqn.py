"""Train an agent of Stable-Baselines3's DQN: python stable_baselines3_dqn.py SETTINGS, with env, num_envs and its own.

Environments are Gymnasium's, in this process. It runs on the CPU.
"""

import stable_baselines3
from stable_baselines3.common.env_util import make_vec_env
from turns import settings, take_turns

asked = settings()
steps = asked["steps"]


def run():
    model = stable_baselines3.DQN(
        "MlpPolicy",
        make_vec_env(asked["env"], asked["num_envs"], seed=0),
        policy_kwargs=dict(net_arch=asked["hidden_sizes"]),
        seed=0,
        device="cpu",
        **asked["settings"],
    )
    model.learn(steps, log_interval=None)
    parameters = sum(x.numel() for x in model.q_net.parameters())
    done = dict(ticks=model.num_timesteps, transitions=model.num_timesteps, updates=model._n_updates)
    return done | dict(parameters=parameters)


take_turns(run, compile_seconds=0.0)
