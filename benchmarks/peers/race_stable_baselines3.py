"""From the start of the process to a greedy mean of 475: python race_stable_baselines3.py SETTINGS STARTED.

With the settings that rl-baselines3-zoo has tuned for CartPole.
"""

import sys

import gymnasium
import stable_baselines3
from greedy import Race, torch_layers
from stable_baselines3.common.callbacks import BaseCallback
from turns import answer, settings

asked = settings()
race = Race(asked["seed"], float(sys.argv[2]), answer)


class Judge(BaseCallback):
    over = False

    def _on_step(self) -> bool:
        if self.num_timesteps % asked["every"] == 0:
            self.over = race.over(torch_layers(self.model.q_net), self.num_timesteps)
        return not self.over


model = stable_baselines3.DQN(
    "MlpPolicy",
    gymnasium.make("CartPole-v1"),
    policy_kwargs=dict(net_arch=asked["hidden_sizes"]),
    seed=asked["seed"],
    device="cpu",
    **asked["settings"],
)
judge = Judge()
model.learn(asked["steps"], callback=judge, log_interval=None)
if not judge.over:
    race.lost(model.num_timesteps)
