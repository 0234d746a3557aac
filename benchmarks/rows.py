"""What benchmarks/versus.py compares: for each row the same work, as jdqn's settings and as each library's own.

`unequal` says where it is not the same.
"""

from typing import Any, NamedTuple


class Row(NamedTuple):
    title: str
    agents: int
    env: str
    algorithm: str
    ours: dict[str, Any]  # settings of jdqn
    libraries: dict[str, tuple[str, dict[str, Any]]]  # name[, VARIABLE=value] -> (driver, what it is asked)
    unequal: str


def purejaxrl(steps: int) -> dict[str, Any]:
    """The settings of PureJaxRL's dqn.py."""
    return dict(
        NUM_ENVS=10, BUFFER_SIZE=10_000, BUFFER_BATCH_SIZE=128, TOTAL_TIMESTEPS=steps, EPSILON_START=1.0,
        EPSILON_FINISH=0.05, EPSILON_ANNEAL_TIME=250_000, TARGET_UPDATE_INTERVAL=500, LR=2.5e-4,
        LEARNING_STARTS=10_000, TRAINING_INTERVAL=10, LR_LINEAR_DECAY=False, GAMMA=0.99, TAU=1.0,
        ENV_NAME="CartPole-v1",
    )  # fmt: skip


def like_purejaxrl(steps: int) -> dict[str, Any]:
    return dict(
        total_steps=steps, num_envs=10, rollout_length=1, updates=1, batch_size=128, hidden_sizes=(120, 84),
        replay_size=10_000, warm_up_steps=10_000, learning_rate=2.5e-4, target_period=50, epsilon_steps=250_000.0,
    )  # fmt: skip


def rejax(steps: int) -> dict[str, Any]:
    """The settings of Rejax's configs/gymnax/cartpole.yaml, but for the network."""
    return dict(
        env="CartPole-v1", agent="QNetwork", agent_kwargs=dict(activation="relu"), num_envs=10, buffer_size=50_000,
        fill_buffer=5_000, batch_size=100, max_grad_norm=10, learning_rate=1e-3, num_epochs=5, total_timesteps=steps,
        polyak=0.98, eps_start=1, eps_end=0.05, exploration_fraction=0.5, gamma=0.99, ddqn=True,
    )  # fmt: skip


def like_rejax(steps: int) -> dict[str, Any]:
    return dict(
        total_steps=steps, num_envs=10, rollout_length=1, updates=5, batch_size=100, hidden_sizes=(64, 64),
        replay_size=50_000, warm_up_steps=5_010, learning_rate=1e-3, target_period=5, target_update_rate=0.02,
        epsilon_steps=steps / 2, double=True,
    )  # fmt: skip


def rejax_breakout(steps: int, fill: int = 20_000) -> dict[str, Any]:
    """The settings of Rejax's benchmark/breakout_1m.yaml, whose network it has no more."""
    return dict(
        env="Breakout-MinAtar", agent="QNetwork", agent_kwargs=dict(activation="relu"), num_envs=1,
        buffer_size=100_000, fill_buffer=fill, batch_size=100, max_grad_norm=10, learning_rate=5e-4, num_epochs=1,
        total_timesteps=steps, target_update_freq=1_000, polyak=0.0, eps_start=1, eps_end=0.05,
        exploration_fraction=0.5, gamma=0.99, ddqn=False,
    )  # fmt: skip


def like_rejax_breakout(steps: int, fill: int = 20_000) -> dict[str, Any]:
    return dict(
        total_steps=steps, num_envs=1, rollout_length=1, updates=1, batch_size=100, network="mlp",
        hidden_sizes=(64, 64), replay_size=100_000, warm_up_steps=fill + 1, learning_rate=5e-4, target_period=1_000,
        epsilon_steps=steps / 2,
    )  # fmt: skip


def purejaxql(steps: int, env: str, **rest) -> dict[str, Any]:
    """What the YAML files of PureJaxQL's PQN share."""
    return dict(
        TOTAL_TIMESTEPS=steps, TOTAL_TIMESTEPS_DECAY=steps, EPS_START=1.0, NORM_INPUT=False, NORM_TYPE="layer_norm",
        MAX_GRAD_NORM=10, LR_LINEAR_DECAY=True, GAMMA=0.99, ENV_NAME=env, **rest,
    )  # fmt: skip


CARTPOLE_PQN = dict(
    NUM_ENVS=32, NUM_STEPS=64, NUM_MINIBATCHES=16, NUM_EPOCHS=4, EPS_FINISH=0.2, EPS_DECAY=0.2, HIDDEN_SIZE=256,
    NUM_LAYERS=2, LR=1e-4, REW_SCALE=0.1, LAMBDA=0.95,
)  # fmt: skip
LIKE_CARTPOLE_PQN = dict(
    num_envs=32, rollout_length=64, batch_size=2, updates=64, hidden_sizes=(256, 256), learning_rate=1e-4,
    trace_decay=0.95,
)  # fmt: skip
MINATAR_PQN = dict(
    NUM_ENVS=128, NUM_STEPS=32, NUM_MINIBATCHES=32, NUM_EPOCHS=2, EPS_FINISH=0.05, EPS_DECAY=0.1, LR=5e-4, LAMBDA=0.65
)
LIKE_MINATAR_PQN = dict(
    num_envs=128, rollout_length=32, batch_size=4, updates=64, hidden_sizes=(128,), learning_rate=5e-4,
    trace_decay=0.65,
)  # fmt: skip


def one_or_more(agents: int, library: str, driver: str, asked: dict[str, Any]) -> dict[str, Any]:
    """A library in JAX as it comes, and a single agent also on one thread, as ours has: small products gain by that."""
    names = [library] if agents > 1 else [library, f"{library}, NPROC=1"]
    return dict.fromkeys(names, (driver, asked))


RESETS = "jdqn resets on a tick of its own, PureJaxRL, PureJaxQL and Rejax in the step that ends an episode"
COMPANY = (
    "the others run on gymnax 0.0.9, jdqn on 1.0.1; jdqn makes a device of one thread of each core, for several agents"
)
DQN = f"{RESETS}; {COMPANY}; jdqn clips gradients by their global norm and adds up metrics"
REJAX = (
    "Rejax draws without replacement, with a random number for each row of its whole buffer at every update; its "
    "evaluation during training is off"
)
PQN = (
    f"{RESETS}; {COMPANY}; jdqn computes the targets anew at each update, in the same forward pass, where PureJaxQL "
    "keeps those of the rollout; jdqn's batches are whole rollouts of some environments, PureJaxQL's are shuffled "
    "rows, and its tests during training are off"
)


def versus_purejaxrl(agents: int, steps: int) -> Row:
    return Row(
        "CartPole, PureJaxRL's hyper-parameters", agents, "CartPole-v1", "dqn", like_purejaxrl(steps),
        one_or_more(agents, "PureJaxRL", "purejaxrl_dqn", dict(settings=purejaxrl(steps))),
        f"{DQN}; PureJaxRL does not clip",
    )  # fmt: skip


def versus_stable_baselines3(steps: int) -> Row:
    settings = dict(
        batch_size=128, buffer_size=10_000, learning_starts=10_000, train_freq=1, gradient_steps=1,
        learning_rate=2.5e-4, target_update_interval=500, exploration_fraction=1.0,
    )  # fmt: skip
    asked = dict(env="CartPole-v1", num_envs=10, steps=steps, hidden_sizes=[120, 84], settings=settings)
    return Row(
        "CartPole, the same in Python", 1, "CartPole-v1", "dqn", like_purejaxrl(steps),
        {"Stable-Baselines3": ("stable_baselines3_dqn", asked)},
        "jdqn resets on a tick of its own; Stable-Baselines3 steps Gymnasium's environments one by one, and its loss "
        "is Huber's; PyTorch has one thread, with which it is faster",
    )  # fmt: skip


def versus_rejax(agents: int, steps: int) -> Row:
    return Row(
        "CartPole, Rejax's configuration", agents, "CartPole-v1", "dqn", like_rejax(steps),
        one_or_more(agents, "Rejax", "rejax_dqn", dict(settings=rejax(steps))),
        f"{DQN}, Rejax clips each number; the network is a 64-64 MLP with ReLU in both, as a dueling one differs "
        f"(jdqn's streams have a layer each); {REJAX}",
    )  # fmt: skip


def versus_rejax_breakout(steps: int, fill: int) -> Row:
    return Row(
        "MinAtar Breakout, DQN, Rejax's configuration", 1, "Breakout-MinAtar", "dqn", like_rejax_breakout(steps, fill),
        one_or_more(1, "Rejax", "rejax_dqn", dict(settings=rejax_breakout(steps, fill))),
        f"{DQN}, Rejax clips each number; the network is a 64-64 MLP with ReLU in both, as Rejax's convolution is "
        f"gone; jdqn stores bools; {REJAX}; most of the steps are warm-up, as in its configuration",
    )  # fmt: skip


def versus_purejaxql(steps: int) -> Row:
    asked = dict(script="pqn_gymnax", settings=purejaxql(steps, "CartPole-v1", **CARTPOLE_PQN))
    return Row(
        "CartPole, PQN, PureJaxQL's configuration", 1, "CartPole-v1", "pqn",
        LIKE_CARTPOLE_PQN | dict(total_steps=steps), one_or_more(1, "PureJaxQL", "purejaxql_pqn", asked), PQN,
    )  # fmt: skip


def versus_purejaxql_breakout(steps: int) -> Row:
    asked = dict(script="pqn_minatar", settings=purejaxql(steps, "Breakout-MinAtar", **MINATAR_PQN))
    return Row(
        "MinAtar Breakout, PQN, PureJaxQL's configuration", 1, "Breakout-MinAtar", "pqn",
        LIKE_MINATAR_PQN | dict(total_steps=steps), {"PureJaxQL": ("purejaxql_pqn", asked)}, PQN,
    )  # fmt: skip


def rows(tiny: bool) -> dict[str, Row]:
    """The rows by name; steps are those of each agent."""
    if tiny:
        return {
            "a1": versus_purejaxrl(1, 11_000),
            "a8": versus_purejaxrl(8, 10_500),
            "a32": versus_purejaxrl(32, 10_500),
            "a1-python": versus_stable_baselines3(11_000),
            "b1": versus_rejax(1, 6_000),
            "b32": versus_rejax(32, 5_200),
            "c": versus_purejaxql(4_096),
            "d": versus_purejaxql_breakout(4_096),
            "e": versus_rejax_breakout(1_500, 1_000),
        }
    return {
        "a1": versus_purejaxrl(1, 500_000),
        "a8": versus_purejaxrl(8, 200_000),
        "a32": versus_purejaxrl(32, 100_000),
        "a1-python": versus_stable_baselines3(50_000),
        "b1": versus_rejax(1, 100_000),
        "b32": versus_rejax(32, 12_000),
        "c": versus_purejaxql(499_712),
        "d": versus_purejaxql_breakout(81_920),
        "e": versus_rejax_breakout(35_000, 20_000),
    }
