"""The family as data: one row per algorithm, and tuned rows per environment."""

import dataclasses
import difflib
from numbers import Integral
from typing import Any

from .config import Config, ConfigError, Hyper
from .validation import validate_config, validate_hyper

# What each algorithm picks; what it does not name it shares with the others.
PRIORITISED = dict(replay="prioritised")
PQN = dict(
    replay="last_rollout", target="lambda_returns", layer_norm=True, num_envs=32, rollout_length=32, batch_size=4,
    updates=16, warm_up_steps=0, target_period=0, n_step=1, optimizer="radam", learning_rate=5e-4,
    learning_rate_final_fraction=0.0, epsilon_end=0.05, epsilon_steps=100_000.0,
)  # fmt: skip
MUNCHAUSEN = dict(target="munchausen", n_step=1)
ALGORITHMS: dict[str, dict[str, Any]] = {
    # One transition of memory, a table and plain gradient steps: Q(s,a) += rate * TD error (Watkins 1989).
    "q_learning": dict(
        network="tabular", optimizer="sgd", loss="squared", num_envs=1, rollout_length=1, updates=1, batch_size=1,
        replay_size=2, warm_up_steps=0, n_step=1, target_period=0, max_gradient_norm=1e6, learning_rate=0.1,
        learning_rate_final_fraction=0.0, epsilon_end=0.5, epsilon_steps=200_000.0,
    ),
    "dqn": dict(),
    "double": dict(double=True),
    "dueling": dict(double=True, dueling=True),
    "per": dict(double=True, **PRIORITISED),
    "nstep": dict(n_step=3),
    "c51": dict(head="categorical"),
    "hl_gauss": dict(head="hl_gauss"),
    "qrdqn": dict(head="quantile"),
    "iqn": dict(head="implicit_quantile", atoms=8),
    "fqf": dict(head="parameterised_quantile", atoms=8),
    "noisy": dict(noisy=True, epsilon_start=0.0, epsilon_end=0.0),
    "rainbow": dict(
        head="categorical", double=True, dueling=True, noisy=True, n_step=3, epsilon_start=0.0, epsilon_end=0.0,
        priority_exponent=0.5, **PRIORITISED,
    ),
    "munchausen": dict(**MUNCHAUSEN),
    "miqn": dict(head="implicit_quantile", atoms=8, **MUNCHAUSEN),
    "bootstrapped": dict(ensemble=10, exploration="member", epsilon_start=0.0, epsilon_end=0.0),
    "pqn": dict(**PQN),
    "pqn_rnn": dict(core="gru", **PQN),
    "apex": dict(
        double=True, dueling=True, n_step=3, exploration="ladder", num_envs=32, importance_final_exponent=0.4,
        **PRIORITISED,
    ),
    "r2d2": dict(
        double=True, dueling=True, core="lstm", n_step=5, burn_in=8, unroll_length=16, value_rescaling=True,
        exploration="ladder", num_envs=32, batch_size=32, **PRIORITISED, priority_exponent=0.9,
        importance_exponent=0.6, importance_final_exponent=0.6,
    ),
    "btr": dict(
        head="implicit_quantile", atoms=8, dueling=True, noisy=True, target="munchausen", n_step=3,
        epsilon_start=0.0, epsilon_end=0.0, layer_norm=True, image_network="impala", **PRIORITISED,
    ),
}  # fmt: skip

MINATAR = dict(
    total_steps=1_000_000, num_envs=16, rollout_length=1, updates=4, batch_size=32, replay_size=100_000,
    warm_up_steps=5_000, hidden_sizes=(128,), core_size=128, target_period=250, learning_rate=2.5e-4,
    optimizer_epsilon=1e-5, epsilon_end=0.01, epsilon_steps=100_000.0, value_min=-1.0, value_max=30.0,
)  # fmt: skip

# Settings tuned for one environment, whichever the algorithm.
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "CartPole-v1": dict(
        total_steps=100_000, num_envs=8, rollout_length=2, updates=2, batch_size=64, replay_size=16_000, n_step=10,
        hidden_sizes=(64, 64), target_period=20, learning_rate=1e-3, learning_rate_final_fraction=0.0,
        epsilon_end=0.15, epsilon_steps=16_000.0, value_min=0.0, value_max=100.0,
    ),
    "Acrobot-v1": dict(
        total_steps=100_000, num_envs=8, rollout_length=2, updates=4, batch_size=64, replay_size=50_000, n_step=3,
        hidden_sizes=(128, 128), target_period=100, learning_rate=1e-3, learning_rate_final_fraction=0.0,
        epsilon_end=0.05, epsilon_steps=50_000.0, value_min=-100.0, value_max=0.0,
    ),
    "Catch-bsuite": dict(
        total_steps=50_000, num_envs=8, rollout_length=2, updates=2, batch_size=64, replay_size=10_000, n_step=1,
        hidden_sizes=(64, 64), target_period=50, learning_rate=1e-3, learning_rate_final_fraction=0.0,
        epsilon_end=0.05, epsilon_steps=20_000.0, value_min=-1.5, value_max=1.5,
    ),
    "DeepSea-bsuite": dict(
        total_steps=100_000, num_envs=8, rollout_length=2, updates=2, batch_size=64, replay_size=50_000, n_step=1,
        hidden_sizes=(64, 64), target_period=50, learning_rate=1e-3, epsilon_end=0.05, epsilon_steps=20_000.0,
        value_min=-0.5, value_max=1.5,
    ),
    "MemoryChain-bsuite": dict(
        total_steps=100_000, num_envs=8, rollout_length=2, updates=2, batch_size=32, replay_size=50_000, n_step=1,
        hidden_sizes=(64, 64), core_size=64, target_period=50, learning_rate=1e-3, learning_rate_final_fraction=0.0,
        epsilon_end=0.05, epsilon_steps=20_000.0, value_min=-1.5, value_max=1.5,
    ),
    "MountainCar-v0": dict(
        total_steps=200_000, num_envs=8, rollout_length=2, updates=8, batch_size=128, replay_size=50_000, n_step=1,
        hidden_sizes=(128, 128), target_period=100, learning_rate=4e-3, learning_rate_final_fraction=0.0,
        discount=0.98, epsilon_end=0.07, epsilon_steps=40_000.0, value_min=-50.0, value_max=0.0,
    ),
    "FrozenLake-misc": dict(total_steps=200_000),
    "Asterix-MinAtar": MINATAR,
    "Breakout-MinAtar": MINATAR,
    "Freeway-MinAtar": MINATAR,
    "Seaquest-MinAtar": MINATAR,
    "SpaceInvaders-MinAtar": MINATAR,
}  # fmt: skip

# What one algorithm needs on one environment beside its row.
CARTPOLE_PQN = dict(
    total_steps=500_000, updates=32, trace_decay=0.95, learning_rate=1e-3, epsilon_end=0.1, epsilon_steps=100_000.0
)
ACROBOT_PQN = dict(total_steps=500_000, updates=32, trace_decay=0.9, learning_rate=1e-3)
MINATAR_PQN = dict(num_envs=128, batch_size=4, updates=64, epsilon_steps=500_000.0)  # two epochs of 32 minibatches
PAIRS: dict[tuple[str, str], dict[str, Any]] = {
    ("CartPole-v1", "munchausen"): dict(n_step=3),
    ("CartPole-v1", "miqn"): dict(n_step=10),
    ("CartPole-v1", "pqn"): CARTPOLE_PQN,
    ("CartPole-v1", "pqn_rnn"): dict(core_size=64, **CARTPOLE_PQN),
    ("CartPole-v1", "apex"): dict(updates=8, n_step=10),
    ("CartPole-v1", "r2d2"): dict(core_size=64, target_period=40, ladder_exponent=3.0),
    ("Catch-bsuite", "hl_gauss"): dict(atoms=31),
    ("Catch-bsuite", "pqn"): dict(updates=32, epsilon_steps=20_000.0),
    ("Catch-bsuite", "pqn_rnn"): dict(updates=32, epsilon_steps=20_000.0),
    ("Acrobot-v1", "pqn"): ACROBOT_PQN,
    ("Acrobot-v1", "pqn_rnn"): dict(
        core_size=128, **ACROBOT_PQN | dict(updates=48, epsilon_steps=250_000.0, learning_rate=5e-4)
    ),
    ("Acrobot-v1", "qrdqn"): dict(atoms=16),
    ("Acrobot-v1", "apex"): dict(total_steps=200_000, updates=8),
    ("Acrobot-v1", "r2d2"): dict(core_size=64),
    ("Acrobot-v1", "btr"): dict(total_steps=200_000, atoms=4, learning_rate=2e-3),
    ("MountainCar-v0", "munchausen"): dict(updates=4),
    ("Asterix-MinAtar", "pqn"): MINATAR_PQN,
    ("Breakout-MinAtar", "pqn"): MINATAR_PQN,
}

# What other trainers call a setting.
ELSEWHERE = {
    "lr": "learning_rate", "gamma": "discount", "tau": "target_update_rate", "buffer_size": "replay_size",
    "memory_size": "replay_size", "learning_starts": "warm_up_steps", "train_frequency": "rollout_length",
    "train_freq": "rollout_length", "gradient_steps": "updates", "target_network_frequency": "target_period",
    "target_update_interval": "target_period", "num_steps": "rollout_length", "n_atoms": "atoms", "num_atoms": "atoms",
    "v_min": "value_min", "v_max": "value_max", "start_e": "epsilon_start", "end_e": "epsilon_end",
    "total_timesteps": "total_steps", "n_envs": "num_envs", "max_grad_norm": "max_gradient_norm",
    "q_lambda": "trace_decay",
}  # fmt: skip


def preset(algorithm: str = "dqn", environment: str = "", **overrides) -> tuple[Config, Hyper]:
    """Settings of `algorithm` on `environment`.

    Defaults, then the environment's row, the algorithm's, what is tuned for the two together, and `overrides`.

    Raises:
        ConfigError: an unknown algorithm or field, or a value that cannot work.
    """
    config, hyper = defaults(algorithm, environment, **overrides)
    validate_config(config)
    validate_hyper(hyper)
    return config, hyper


def defaults(algorithm: str, environment: str, **overrides) -> tuple[Config, Hyper]:
    """`preset` before its values are checked: what a command line starts from."""
    if not isinstance(environment, str):
        raise ConfigError(f"environment is a name, like env.name, got {type(environment).__name__}")
    if algorithm not in ALGORITHMS:
        near = difflib.get_close_matches(algorithm, ALGORITHMS, 3, 0.4)
        rest = [name for name in ALGORITHMS if name not in near]
        raise ConfigError(f"unknown algorithm {algorithm}: choose {' or '.join(near + rest)}")
    row = ENVIRONMENTS.get(environment, {}) | ALGORITHMS[algorithm] | PAIRS.get((environment, algorithm), {})
    row |= overrides
    static = {field.name for field in dataclasses.fields(Config)}
    for field in row.keys() - static - set(Hyper._fields):
        if field in ELSEWHERE:
            raise ConfigError(f"{field} is called {ELSEWHERE[field]} here")
        names = [*static, *Hyper._fields, *ELSEWHERE, "algorithm", "environment"]
        near = list(dict.fromkeys(ELSEWHERE.get(x, x) for x in difflib.get_close_matches(field, names, 3, 0.5)))
        raise ConfigError(f"unknown setting {field}" + (f": did you mean {' or '.join(near)}?" if near else ""))
    config = Config(**{k: v for k, v in row.items() if k in static})
    whole = isinstance(config.total_steps, Integral) and abs(int(config.total_steps)) < 2**31  # else it is refused
    steps = float(config.total_steps) if whole else 1.0
    length = dict.fromkeys(("learning_rate_steps", "importance_steps"), steps)
    return config, Hyper(**length | {k: v for k, v in row.items() if k in Hyper._fields})
