"""From the start of the process to a greedy mean of 475: python race_cleanrl.py SETTINGS STARTED.

CleanRL's dqn.py runs as it is, with its defaults, but for its log, which goes nowhere. Its network is judged when the
optimiser has made as many steps as `every` environment steps bring.
"""

import runpy
import sys
import types

import torch
from greedy import Race
from turns import answer, settings

asked = settings()
race = Race(asked["seed"], float(sys.argv[2]), answer)


class Silent:
    """Takes the place of TensorBoard's writer."""

    def __init__(self, *_):
        pass

    def __getattr__(self, _):
        return lambda *_: None


class Judged(torch.optim.Adam):
    """Judges what it optimises, and leaves when that is good enough."""

    calls = 0

    def step(self, *arguments):
        super().step(*arguments)
        self.calls += 1
        if self.calls % (asked["every"] // 10) == 0:  # an update follows every ten steps
            flat = [x.detach().numpy().T.copy() for x in self.param_groups[0]["params"]]
            layers = list(zip(flat[::2], flat[1::2], strict=True))
            if race.over(layers, 10_000 + 10 * self.calls):
                sys.exit()


sys.modules["torch.utils.tensorboard"] = types.ModuleType("torch.utils.tensorboard")
sys.modules["torch.utils.tensorboard"].SummaryWriter = Silent
torch.optim.Adam = Judged
sys.path.insert(0, asked["checkout"])
sys.argv[1:] = ["--seed", str(asked["seed"]), *asked["flags"]]
runpy.run_path(f"{asked['checkout']}/cleanrl/dqn.py", run_name="__main__")
race.lost(asked["steps"])
