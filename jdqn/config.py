"""Config: what changes the program. Hyper: what is only a number in it.

Whatever changes a shape, a loop count or which function runs is static and lives in `Config`.
Whatever is only a number in arithmetic lives in `Hyper`, is traced, and so can be swept with `vmap`
without compiling again.
"""

import dataclasses
from typing import Literal, NamedTuple


class ConfigError(ValueError):
    """A setting that cannot work, met before anything compiles; the message says what to do, on one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())  # a value that is quoted may have line breaks


HeadName = Literal["scalar", "categorical", "hl_gauss", "quantile", "implicit_quantile", "parameterised_quantile"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices of an agent. Steps are environment ticks, summed over an agent's environments."""

    total_steps: int = 500_000
    """Length of a run in environment ticks per agent, warm-up included."""
    num_envs: int = 8
    """Environments that an agent steps together (E)."""
    rollout_length: int = 1
    """Ticks of every environment between two phases of learning (T)."""
    updates: int = 1
    """Gradient steps per phase of learning."""
    batch_size: int = 128
    """Segments in a gradient step (B); with replay=last_rollout, the environments whose rollouts are in it."""
    frame_stack: int = 1
    """Newest observations that the network sees together; replay stores each once and stacks them again."""
    replay: Literal["uniform", "prioritised", "last_rollout"] = "uniform"
    """Where segments come from; last_rollout forgets what is older (PQN)."""
    replay_size: int = 50_000
    """Rows kept, over all environments; rounded up to whole rollouts."""
    warm_up_steps: int = 1_000
    """Random ticks before the first gradient step; rounded up to whole rollouts."""
    network: Literal["auto", "mlp", "minatar", "nature", "impala", "tabular"] = "auto"
    """Torso; auto takes image_network for images [height, width, channels], else the MLP."""
    image_network: Literal["auto", "minatar", "nature", "impala"] = "auto"
    """What network=auto takes for images; auto takes Nature's convolutions from 36 x 36 on, MinAtar's for less."""
    hidden_sizes: tuple[int, ...] = (120, 84)
    """Widths of the dense layers; the last one belongs to the output stream (two when dueling)."""
    layer_norm: bool = False
    """LayerNorm before every ReLU; IMPALA has one between its convolutions and the dense layers."""
    core: Literal["none", "gru", "lstm"] = "none"
    """Recurrent core between torso and output stream."""
    core_size: int = 128
    """Units of the recurrent core."""
    dueling: bool = False
    """Separate streams for state value and action advantages (Wang et al. 2016)."""
    noisy: bool = False
    """Noisy layers in the output streams (Fortunato et al. 2018)."""
    ensemble: int = 1
    """Members of an ensemble, each with a random prior function (Osband et al. 2018)."""
    head: HeadName = "scalar"
    """What the last layer means: an expected return, or a distribution (C51, HL-Gauss, QR-DQN, IQN, FQF)."""
    loss: Literal["squared", "huber"] = "squared"
    """Loss of the scalar head; huber is the TD error clipped to +-1 (Mnih et al. 2015), squared leaves it alone."""
    value_rescaling: bool = False
    """Scalar head: learn h(return) = sign(x)(sqrt(|x| + 1) - 1) + 0.001 x (Pohlen et al. 2018; R2D2's 0.001)."""
    atoms: int = 51
    """Atoms of a distributional head (N): bins, quantiles, or fractions sampled to learn."""
    acting_atoms: int = 32
    """Fractions that the implicit quantile head samples to act (K)."""
    value_min: float = -10.0
    """Lowest return that the categorical and HL-Gauss heads can express."""
    value_max: float = 10.0
    """Highest return that they can express."""
    target: Literal["greedy", "munchausen", "lambda_returns"] = "greedy"
    """The Bellman target."""
    double: bool = False
    """The online network picks the action that the target network values (van Hasselt et al. 2016)."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    unroll_length: int = 1
    """Consecutive rows learnt from in each segment (U); last_rollout learns from the whole rollout."""
    burn_in: int = 0
    """Rows before them that only warm up the recurrent carry (Kapturowski et al. 2019)."""
    target_period: int = 250
    """Gradient steps between two updates of the target network; 0 for none, the network bootstraps from itself."""
    exploration: Literal["epsilon_greedy", "ladder", "softmax", "member"] = "epsilon_greedy"
    """How actions are chosen: by epsilon, an epsilon per environment, softmax(values / temperature), or one member."""
    optimizer: Literal["adam", "radam", "rmsprop", "muon", "sgd"] = "adam"
    """Gradient transformation, after clipping by global norm."""
    learning_rate_schedule: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls to its final fraction."""


class Hyper(NamedTuple):
    """Traced hyper-parameters: plain floats, or arrays [S] where agents differ."""

    learning_rate: float = 1e-3
    """Step size of the optimiser at the start."""
    learning_rate_final_fraction: float = 1.0
    """The learning rate falls to this fraction of itself."""
    learning_rate_steps: float = 500_000.0
    """Environment ticks over which the learning rate falls; a preset takes the length of the run."""
    optimizer_epsilon: float = 1e-8
    """Term that Adam, RAdam and RMSProp add to the root of the second moment."""
    max_gradient_norm: float = 10.0
    """Gradients are scaled down to this global norm."""
    discount: float = 0.99
    """Discount factor per step."""
    target_update_rate: float = 1.0
    """target <- (1 - rate) target + rate online, every target_period updates."""
    epsilon_start: float = 1.0
    """Share of random actions at tick 0; warm-up is random whatever this says."""
    epsilon_end: float = 0.05
    """Share of random actions from epsilon_steps on."""
    epsilon_steps: float = 25_000.0
    """Environment ticks, warm-up included, over which epsilon falls linearly."""
    ladder_base: float = 0.4
    """Ape-X ladder: environment i of E explores with base^(1 + exponent i / (E - 1)) (Horgan et al. 2018)."""
    ladder_exponent: float = 7.0
    """Ape-X ladder: see ladder_base."""
    softmax_temperature: float = 0.03
    """Softmax exploration: actions are drawn from softmax(values / temperature)."""
    priority_exponent: float = 0.6
    """Prioritised replay: segments are drawn in proportion to error^exponent (Schaul et al. 2016)."""
    importance_exponent: float = 0.4
    """Prioritised replay: how far the weights correct for that at the start (beta)."""
    importance_final_exponent: float = 1.0
    """Prioritised replay: the same at importance_steps."""
    importance_steps: float = 500_000.0
    """Environment ticks over which beta rises linearly; a preset takes the length of the run."""
    sequence_max_fraction: float = 0.9
    """Priority of a segment: fraction times its largest error plus the rest times its mean one (R2D2)."""
    trace_decay: float = 0.65
    """lambda of lambda_returns."""
    munchausen_scale: float = 0.9
    """Weight of the log-policy bonus (alpha)."""
    munchausen_temperature: float = 0.03
    """Entropy temperature of the Munchausen target (tau)."""
    munchausen_floor: float = -1.0
    """Lowest value of the log-policy bonus before it is weighted (l0)."""
    bootstrap_probability: float = 1.0
    """Share of the segments that each member of an ensemble learns from."""


def ticks_per_iteration(config: Config) -> int:
    """Environment ticks in one iteration: the unit of the clock."""
    return int(config.rollout_length) * int(config.num_envs)  # NumPy's whole numbers would overflow


def warm_up_iterations(config: Config) -> int:
    """Iterations that only collect: enough for warm_up_steps and, where replay draws segments, for a whole one."""
    return -(-max(warm_up_rows(config)) // config.rollout_length)


def warm_up_rows(config: Config) -> tuple[int, int]:
    """Rows of every environment that warm_up_steps ask for, and those that a segment does where replay draws some."""
    segment = 0 if config.replay == "last_rollout" else segment_length(config)
    return -(-config.warm_up_steps // config.num_envs), segment


def total_iterations(config: Config) -> int:
    """Iterations of a whole run, warm-up included; the last one is rounded up."""
    return -(-config.total_steps // ticks_per_iteration(config))


def segment_length(config: Config) -> int:
    """Rows in a segment (L): older frames of the first stack, burn-in, the learnt rows and what they bootstrap from."""
    learnt = config.rollout_length if config.replay == "last_rollout" else config.unroll_length
    return lead(config) + learnt + config.n_step


def lead(config: Config) -> int:
    """Rows at a segment's start that are not learnt from."""
    return config.frame_stack - 1 + config.burn_in


def replay_slots(config: Config) -> int:
    """Rollouts that replay keeps."""
    return -(-config.replay_size // ticks_per_iteration(config))
