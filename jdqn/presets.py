"""The family as data: one row per algorithm, tuned rows per environment, and how a row is built."""

import dataclasses
import difflib
from typing import Any

import jax

from . import envs, exploration, heads, networks, replay, targets
from .config import (
    Config,
    ConfigError,
    Hyper,
    replay_slots,
    segment_length,
    validate_config,
    validate_hyper,
    warm_up_iterations,
)
from .learner import make_learner
from .trainer import Trainer, make_trainer

# What each algorithm picks; what it does not name it shares with the others.
ALGORITHMS: dict[str, dict[str, Any]] = {
    # One transition of memory, a table and plain gradient steps: Q(s,a) += rate * TD error (Watkins 1989).
    "q_learning": dict(
        network="tabular", optimizer="sgd", loss="squared", num_envs=1, rollout_length=1, updates=1, batch_size=1,
        replay_size=2, warm_up_steps=0, n_step=1, target_period=1, max_gradient_norm=1e6, learning_rate=0.1,
        learning_rate_final_fraction=0.0, epsilon_end=0.5, epsilon_steps=200_000.0,
    ),
    "dqn": dict(),
    "double": dict(double=True),
    "dueling": dict(double=True, dueling=True),
    "nstep": dict(n_step=3),
}  # fmt: skip

# Settings tuned for one environment, whichever the algorithm.
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "CartPole-v1": dict(
        total_steps=100_000, num_envs=8, rollout_length=2, updates=2, batch_size=64, replay_size=16_000, n_step=10,
        hidden_sizes=(64, 64), target_period=20, learning_rate=1e-3, learning_rate_final_fraction=0.0,
        epsilon_end=0.15, epsilon_steps=16_000.0,
    ),
    "FrozenLake-misc": dict(total_steps=200_000),
}  # fmt: skip


def preset(algorithm: str = "dqn", environment: str = "", **overrides) -> tuple[Config, Hyper]:
    """Settings of `algorithm` on `environment`: defaults, then the environment's row, the algorithm's, `overrides`.

    Raises:
        ConfigError: an unknown algorithm or field, or a value that cannot work.
    """
    config, hyper = defaults(algorithm, environment, **overrides)
    validate_config(config)
    validate_hyper(hyper)
    return config, hyper


def defaults(algorithm: str, environment: str, **overrides) -> tuple[Config, Hyper]:
    """`preset` before its values are checked: what a command line starts from."""
    if algorithm not in ALGORITHMS:
        near = difflib.get_close_matches(algorithm, ALGORITHMS, 3, 0.4) or ALGORITHMS
        raise ConfigError(f"unknown algorithm {algorithm}: choose {' or '.join(near)}")
    row = ENVIRONMENTS.get(environment, {}) | ALGORITHMS[algorithm] | overrides
    static = {field.name for field in dataclasses.fields(Config)}
    for field in row.keys() - static - set(Hyper._fields):
        near = difflib.get_close_matches(field, [*static, *Hyper._fields, "algorithm", "environment"], 3, 0.4)
        raise ConfigError(f"unknown setting {field}" + (f": did you mean {' or '.join(near)}?" if near else ""))
    config = Config(**{k: v for k, v in row.items() if k in static})
    length = {"learning_rate_steps": float(config.total_steps)}
    return config, Hyper(**length | {k: v for k, v in row.items() if k in Hyper._fields})


def build(config: Config, env: envs.Env) -> Trainer:
    """Make the parts that `config` names and join them.

    Raises:
        ConfigError: settings that cannot work, or that do not suit the environment's observations.
    """
    validate_config(config)
    obs = jax.eval_shape(env.reset, jax.random.key(0))[1]
    if config.network == "tabular" and (obs.ndim != 1 or obs.dtype != bool):
        raise ConfigError(
            f"network=tabular needs a one-hot state, bool [states], and {env.name} shows {obs.dtype}{list(obs.shape)}: "
            "choose network=auto, and an algorithm other than q_learning"
        )
    head = heads.scalar(config.loss)
    network = networks.q_network(
        config.network,
        obs.shape,
        env.num_actions,
        head,
        hidden_sizes=config.hidden_sizes,
        dueling=config.dueling,
        layer_norm=config.layer_norm,
    )
    memory = replay.uniform(replay_slots(config), config.rollout_length, config.batch_size, segment_length(config))
    learner = make_learner(
        network, head, targets.greedy(config.double), n=config.n_step, target_period=config.target_period,
        optimizer=config.optimizer,
    )  # fmt: skip
    return make_trainer(
        envs.vectorise(env, config.num_envs), networks.make_policy(network, head), exploration.epsilon_greedy(),
        memory, learner, rollout_length=config.rollout_length, updates=config.updates,
        num_warm_up=warm_up_iterations(config),
    )  # fmt: skip
