"""From a Config to a Trainer: the parts that it names, joined."""

import dataclasses

import jax

from . import envs, exploration, heads, networks, replay, targets
from .config import Config, ConfigError, lead, replay_slots, segment_length, warm_up_iterations
from .learner import ensemble, make_learner
from .shards import WHOLE, Shards
from .trainer import Trainer, make_trainer
from .types import Array
from .validation import validate_config


def build(config: Config, env: envs.Env, shards: Shards = WHOLE) -> Trainer:
    """Make the parts that `config` names and join them.

    With `shards` it is the trainer of one of them; environments, batch and replay of `config` are the whole agent's.

    Raises:
        ConfigError: settings that cannot work, or that do not suit the environment's observations.
    """
    if not isinstance(config, Config):
        raise ConfigError(f"build takes a Config, the first of the two that preset gives, got {type(config).__name__}")
    validate_config(config)
    whole, config = config, _shard_of(config, shards)
    envs.check_shapes(env)
    obs = jax.eval_shape(env.reset, jax.random.key(0))[1]
    if config.network == "tabular" and (obs.ndim != 1 or obs.dtype != bool):
        raise ConfigError(
            f"network=tabular needs a one-hot state, bool [states], and {env.name} shows {obs.dtype}{list(obs.shape)}: "
            "choose network=auto, and an algorithm other than q_learning"
        )
    seen = jax.eval_shape(lambda x: _stack(x, config.frame_stack), obs)
    head = _head(config)

    def network_with(samples: int, acts: bool) -> networks.Network:
        network = networks.q_network(
            config.network, seen.shape, env.num_actions, head, images=config.image_network,
            hidden_sizes=config.hidden_sizes, dueling=config.dueling, layer_norm=config.layer_norm, noisy=config.noisy,
            core=config.core, core_size=config.core_size, fractions=FRACTIONS.get(config.head, "fixed"),
            samples=samples, noise_apart=acts,
        )  # fmt: skip
        return networks.with_prior(network) if config.ensemble > 1 else network

    learning, acting = network_with(config.atoms, False), network_with(_acting_samples(config), True)
    policy = networks.make_policy(acting, head, config.ensemble)
    learner = make_learner(
        learning, head, _target(config), n=config.n_step, target_period=config.target_period,
        optimizer=config.optimizer, schedule=config.learning_rate_schedule, burn_in=config.burn_in, shards=shards,
    )  # fmt: skip
    if config.ensemble > 1:
        learner = ensemble(learner, config.ensemble)
    if config.frame_stack > 1:
        policy = networks.see_frames(policy, obs, config.frame_stack)
        init = learner.init
        learner = learner._replace(init=lambda key, obs, hyper: init(key, _stack(obs, config.frame_stack), hyper))
    return make_trainer(
        envs.vectorise(env, config.num_envs), policy, _exploration(config), _replay(config, obs, shards), learner,
        rollout_length=config.rollout_length, updates=config.updates, num_warm_up=warm_up_iterations(whole),
        shards=shards,
    )  # fmt: skip


def _shard_of(config: Config, shards: Shards) -> Config:
    """What one of `shards` has of the agent's environments, batch and replay."""
    for field in ("num_envs", "batch_size") if shards.count > 1 else ():
        if getattr(config, field) % shards.count:
            raise ConfigError(
                f"{field}={getattr(config, field)} does not divide into {shards.count} equal shards: choose a multiple "
                f"of {shards.count}, or fewer devices"
            )
    return dataclasses.replace(
        config,
        num_envs=config.num_envs // shards.count,
        batch_size=config.batch_size // shards.count,
        replay_size=-(-config.replay_size // shards.count),
    )


FRACTIONS = {"implicit_quantile": "sampled", "parameterised_quantile": "proposed"}


def _stack(obs: Array, frames: int) -> Array:
    return obs if frames == 1 else replay.join_frames([obs] * frames, 0)


def _acting_samples(config: Config) -> int:
    return config.acting_atoms if config.head == "implicit_quantile" else config.atoms


def _head(config: Config) -> heads.Head:
    support = config.value_min, config.value_max, config.atoms
    return {
        "scalar": lambda: heads.scalar(config.loss, config.value_rescaling),
        "categorical": lambda: heads.categorical(*support),
        "hl_gauss": lambda: heads.hl_gauss(*support),
        "quantile": lambda: heads.quantile(config.atoms),
        "implicit_quantile": heads.implicit_quantile,
        "parameterised_quantile": heads.implicit_quantile,
    }[config.head]()


def _target(config: Config) -> targets.TargetFn:
    return {
        "greedy": lambda: targets.greedy(config.double),
        "munchausen": targets.munchausen,
        "lambda_returns": targets.lambda_returns,
    }[config.target]()


def _exploration(config: Config) -> exploration.Exploration:
    return {
        "epsilon_greedy": exploration.epsilon_greedy,
        "ladder": lambda: exploration.epsilon_greedy(exploration.ladder),
        "softmax": exploration.softmax,
        "member": lambda: exploration.member(config.ensemble),
    }[config.exploration]()


def _replay(config: Config, obs: jax.ShapeDtypeStruct, shards: Shards) -> replay.Replay:
    length, rollout = segment_length(config), config.rollout_length
    single = lead(config) if config.unroll_length == 1 else -1
    memory = {
        "uniform": lambda: replay.uniform(replay_slots(config), rollout, config.batch_size, length),
        "prioritised": lambda: replay.prioritised(
            replay_slots(config), rollout, config.batch_size, length, single, shards
        ),
        "last_rollout": lambda: replay.last_rollout(rollout, config.batch_size, config.num_envs, length),
    }[config.replay]()
    if obs.dtype == bool and config.replay != "last_rollout":  # which is short, and read whole
        memory = replay.packed(memory, obs.shape)
    return memory if config.frame_stack == 1 else replay.stacked(memory, config.frame_stack)
