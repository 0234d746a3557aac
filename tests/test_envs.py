"""Every gymnax environment keeps our rules, and episodes follow one another as base.py says."""

import functools
import gzip
import struct
import subprocess
import sys
from types import SimpleNamespace
from urllib.error import URLError

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from gymnax.utils import load_mnist

import jdqn
from jdqn import envs
from jdqn.envs.gymnax import IMAGES

CONTINUOUS = ["Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc", "Reacher-misc", "Swimmer-misc"]
NAMES = [name for name in gymnax.registered_envs if name not in [*CONTINUOUS, "MNISTBandit-bsuite"]]
ONE_HOT = {"FrozenLake-misc": 16}
BINARY = {name for name in NAMES if "MinAtar" in name} | {"Catch-bsuite", "DeepSea-bsuite", "Pong-misc"}
ENVS, TICKS, LIMIT = 3, 50, 20
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes all the time
if jax.__version_info__ < (0, 11):  # which knows the option no more
    QUICK["xla_cpu_use_fusion_emitters"] = False


def kinds(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def test_gymnax_still_has_the_environments_we_counted():
    assert len(NAMES) == 20
    assert len(BINARY) == 8
    assert set(CONTINUOUS) < set(gymnax.registered_envs)


@pytest.mark.parametrize("name", NAMES)
def test_reset_and_step_agree(name):
    env = envs.make(name)
    first = jax.eval_shape(env.reset, jax.random.key(0))
    state, step = jax.eval_shape(env.step, jax.random.key(0), first[0], jnp.int32(0))
    assert kinds(state) == kinds(first[0])
    assert jax.tree.structure(state) == jax.tree.structure(first[0])
    assert not any(x.weak_type for x in jax.tree.leaves((state, first[0])))  # no Python numbers left
    assert kinds(step.obs) == kinds(first[1])
    assert kinds(step[1:]) == (((), jnp.float32), ((), jnp.bool), ((), jnp.bool))
    assert env.name == name


@pytest.mark.parametrize("name", NAMES)
def test_a_random_rollout_is_what_gymnax_says(name):
    """Fifty ticks beside gymnax's own step from the same state; a short time limit makes every episode end."""
    gym, params = gymnax.make(name)
    params = params.replace(max_steps_in_episode=type(params.max_steps_in_episode)(LIMIT))
    env = envs.make(name, max_steps_in_episode=LIMIT)
    vector = envs.vectorise(env, ENVS)

    def tick(carry, key):
        state, last = carry
        k_action, k_step = jax.random.split(key)
        action = jax.random.randint(k_action, (ENVS,), 0, env.num_actions)
        k_raw = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.clone(k_step), jnp.arange(ENVS))  # as vectorise does
        obs, after, reward, ended, _ = jax.vmap(gym.step_env, (0, 0, 0, None))(k_raw, state, action, params)
        truncated = jax.vmap(gym.is_truncated, (0, None))(after, params) | jnp.zeros(ENVS, bool)
        state, ours = vector.step(k_step, state, last, action)
        return (state, ours.last), (ours, last, obs, reward, ended, truncated)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def rollout(key):
        k_reset, k_run = jax.random.split(key)
        state, obs = vector.reset(k_reset)
        return obs, jax.lax.scan(tick, (state, jnp.zeros(ENVS, bool)), jax.random.split(k_run, TICKS))[1]

    first, (ours, reset, obs, reward, ended, truncated) = jax.tree.map(np.asarray, rollout(jax.random.key(0)))
    assert ours.last.any()
    assert reset.any()
    assert kinds(first) == kinds(ours.obs[0])
    assert (ours.obs.ndim == 5) == (name in IMAGES)  # [T, E, height, width, channels]
    if name in ONE_HOT:
        assert ours.obs.dtype == bool
        obs = np.eye(ONE_HOT[name])[obs]
    elif name in BINARY:
        assert ours.obs.dtype == bool
        assert np.isin(obs, [0, 1]).all()
    else:
        assert ours.obs.dtype == obs.dtype
        assert not (obs.ndim == 5 and np.isin(obs, [0, 1]).all()), "an image of zeros and ones belongs into BINARY"
    live = ~reset
    np.testing.assert_allclose(np.float32(ours.obs)[live], obs[live], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.reward[live], reward[live], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours.terminated[live], ended[live])
    np.testing.assert_array_equal(ours.last[live], (ended | truncated)[live])
    for flag in (ours.reward, ours.terminated, ours.last):
        assert not flag[reset].any()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_actions_are_refused(name):
    with pytest.raises(jdqn.ConfigError, match=f"{name} has continuous actions"):
        envs.make(name)


def test_unknown_names_and_parameters_are_refused_with_advice():
    with pytest.raises(jdqn.ConfigError, match=r"unknown environment CartPole-v2: did you mean .*CartPole-v1"):
        envs.make("CartPole-v2")
    with pytest.raises(
        jdqn.ConfigError, match=r"unknown environment qqq: choose one of CartPole-v1, .*FrozenLake-misc"
    ):
        envs.make("qqq")
    with pytest.raises(jdqn.ConfigError, match=r"CartPole-v1 has no parameter max_step: .*max_steps_in_episode"):
        envs.make("CartPole-v1", max_step=7)


def test_a_parameter_takes_the_type_of_its_default():
    env = envs.make("Acrobot-v1", available_torque=[-2, 0, 2])  # an array
    jax.eval_shape(env.step, jax.random.key(0), jax.eval_shape(env.reset, jax.random.key(1))[0], jnp.int32(0))
    for value in ("many", None, [1, 2]):
        with pytest.raises(jdqn.ConfigError, match=r"^CartPole-v1 .*max_steps_in_episode"):
            envs.make("CartPole-v1", max_steps_in_episode=value)


def test_what_changes_shapes_can_be_chosen_too():
    env = envs.make("DeepSea-bsuite", size=12, randomize_actions=False)
    state, obs = env.reset(jax.random.key(0))
    assert (obs.shape, int(state.action_mapping.sum())) == ((12, 12), 144)
    state, obs = envs.make("FrozenLake-misc", map_name="8x8").reset(jax.random.key(0))
    assert obs.shape == (64,)


def test_an_observation_that_is_not_one_array_is_refused():
    space = spaces.Dict({"position": spaces.Discrete(3)})
    fake = SimpleNamespace(action_space=lambda params: spaces.Discrete(2), observation_space=lambda params: space)
    with pytest.raises(jdqn.ConfigError, match="mine has a Dict observation space"):
        envs.from_gymnax(fake, None, "mine")


def test_an_object_that_does_not_follow_gymnax_is_told_what_it_lacks():
    with pytest.raises(jdqn.ConfigError, match=r"^mine must follow gymnax, with action_space\(params\) .*_space'"):
        envs.from_gymnax(SimpleNamespace(), None, "mine")
    gym, params = gymnax.make("CartPole-v1")
    names = "action_space", "observation_space", "reset_env", "step_env"  # and no is_truncated, as in gymnax 0.0.9
    old = SimpleNamespace(**{name: getattr(gym, name) for name in names})
    with pytest.raises(jdqn.ConfigError, match=r"^mine must follow gymnax, and has no is_truncated: write it"):
        envs.from_gymnax(old, params, "mine")


def mnist_files(folder, monkeypatch, cut=None):
    """Put three tiny digits, as the published files hold them, where gymnax looks."""
    images = struct.pack(">IIII", 2051, 3, 28, 28) + bytes(range(256)) * 9 + bytes(48)
    labels = struct.pack(">II", 2049, 3) + bytes([1, 2, 3])
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images)[:cut])
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    monkeypatch.setattr(load_mnist, "load_mnist", functools.partial(load_mnist.load_mnist, str(folder)))


def test_mnist_works_where_its_data_is(tmp_path, monkeypatch):
    mnist_files(tmp_path, monkeypatch)
    env = envs.make("MNISTBandit-bsuite")
    state, obs = env.reset(jax.random.key(0))
    assert kinds(obs) == ((28, 28), jnp.float32)
    after, step = env.step(jax.random.key(1), state, state.correct_label)
    assert kinds(after) == kinds(state)
    assert (float(step.reward), bool(step.terminated)) == (1.0, True)


def test_mnist_says_so_where_its_data_cannot_be_had(tmp_path, monkeypatch):
    def offline(*_):
        raise URLError("Name or service not known")

    monkeypatch.setattr(load_mnist, "urlretrieve", offline)
    monkeypatch.setattr(load_mnist, "load_mnist", functools.partial(load_mnist.load_mnist, str(tmp_path)))
    with pytest.raises(jdqn.ConfigError, match=r"^MNISTBandit-bsuite needs data .*Name or service not known"):
        envs.make("MNISTBandit-bsuite")


def test_mnist_says_so_where_a_download_was_cut_short(tmp_path, monkeypatch):
    mnist_files(tmp_path, monkeypatch, cut=100)
    with pytest.raises(jdqn.ConfigError, match="MNISTBandit-bsuite needs data"):
        envs.make("MNISTBandit-bsuite")


def told_by(code):
    """What a new process prints."""
    return subprocess.check_output([sys.executable, "-c", code], text=True).split()


def test_import_reads_nothing_until_it_is_used():
    loaded = told_by("import sys, jdqn; print(*{name.split('.')[0] for name in sys.modules})")
    assert "jdqn" in loaded
    assert not {"jax", "flax", "optax", "matplotlib", "gymnax"} & set(loaded)
    loaded = told_by("import sys, jdqn; jdqn.build; print(*{name.split('.')[0] for name in sys.modules})")
    assert "jax" in loaded
    assert not {"matplotlib", "seaborn", "pandas", "gymnax"} & set(loaded)


def test_every_name_of_the_package_is_there_and_functions_keep_theirs():
    import jdqn.build
    import jdqn.evaluate

    assert callable(jdqn.build), "not the module of that name"
    assert callable(jdqn.evaluate)
    assert all(hasattr(jdqn, name) for name in jdqn.__all__)
    with pytest.raises(AttributeError, match="jdqn attribute shortcut"):
        _ = jdqn.shortcut


def test_an_environment_brings_no_plots_and_its_drawing_works_all_the_same():
    lines = [
        "import sys, jdqn",
        "jdqn.envs.make('CartPole-v1')",
        "print(any(name in sys.modules for name in ('matplotlib.pyplot', 'seaborn')))",
        "from gymnax.environments.misc import pong",
        "colours = pong.sns.color_palette('cubehelix', 2)",
        "import matplotlib.pyplot",
        "print(len(colours), pong.plt.subplots is matplotlib.pyplot.subplots)",
    ]
    assert told_by("\n".join(lines)) == ["False", "2", "True"]


def train_a_little(algorithm, name, **overrides):
    env = envs.make(name)
    small = dict(total_steps=160, num_envs=4, rollout_length=2, warm_up_steps=40, replay_size=200, batch_size=8)
    config, hyper = jdqn.preset(algorithm, name, **small | overrides)
    trainer, iterations = jdqn.build(config, env), jdqn.total_iterations(config)
    train = jax.jit(jdqn.train, static_argnames=("trainer", "iterations"), compiler_options=QUICK)
    state, metrics = train(trainer, jax.random.key(0), hyper, iterations)
    assert int(metrics.env_steps.sum()) > 0
    assert np.isfinite(metrics.learn.loss[trainer.num_warm_up :]).all()
    assert iterations - trainer.num_warm_up >= 10
    for x in jax.tree.leaves(state.learner.params):
        assert np.isfinite(x).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.nightly) if "MinAtar" in name and "Breakout" not in name else name
        for name in NAMES
    ],
)
def test_every_environment_trains(name):
    train_a_little("dqn", name, hidden_sizes=(16, 16))


@pytest.mark.slow
def test_q_learning_trains():
    train_a_little("q_learning", "FrozenLake-misc", num_envs=1, rollout_length=1, warm_up_steps=0, batch_size=1)
