"""Whatever is wrong with a user's environment is said in one sentence, before anything compiles where that can be."""

import random
import re
import time

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_envs import NAMES

import jdqn
from jdqn import envs
from jdqn.config import ConfigError

NO_REWARD, GOES_ON = jnp.float32(0), jnp.bool(False)


def sound_reset(key):
    x = jax.random.uniform(key, (2,))
    return {"x": x, "t": jnp.int32(0)}, x


def sound_step(key, state, action):
    x, t = 0.9 * state["x"] + 0.1 * jax.random.normal(key, (2,)) * action, state["t"] + 1
    return {"x": x, "t": t}, jdqn.Step(x, x[0], jnp.abs(x).max() > 2, t >= 20)


def river(reset=sound_reset, step=sound_step, num_actions=2):
    return jdqn.Env(reset, step, num_actions, "River")


def resets(state=None, obs=None):
    """A sound environment whose reset makes this state or shows this."""

    def reset(key):
        first = sound_reset(key)
        return (first[0] if state is None else state), (first[1] if obs is None else obs)

    return river(reset)


def gives(state=lambda x: x, **parts):
    """A sound environment whose step gives other `parts`, and a state that went through `state`."""

    def step(key, before, action):
        after, result = sound_step(key, before, action)
        return state(after), result._replace(**parts)

    return river(step=step)


def returns(value):
    """A sound environment whose step returns something else, made of the state and Step that it should."""
    return river(step=lambda *x: value(*sound_step(*x)))


def branching(key, state, action):
    return sound_step(key, state, 0) if action > 0 else sound_step(key, state, 1)


def through_numpy(key, state, action):
    return sound_step(key, state | {"x": np.sin(np.asarray(state["x"]))}, action)


def looping(key, state, action):
    for _ in range(action):
        state = state | {"t": state["t"] + 1}
    return sound_step(key, state, action)


def in_place(key, state, action):
    state["x"][0] = 1.0
    return sound_step(key, state, action)


def misspelt(key, state, action):
    return sound_step(key, state, acton)  # noqa: F821


def masking(key, state, action):
    return sound_step(key, state | {"x": jnp.zeros(2) + state["x"][state["x"] > 0].sum()}, action)


def to_float(key, state, action):
    return sound_step(key, state, float(action))


class Remembering:
    """As a Gym environment would be written: what changes is kept in the object."""

    def reset(self, key):
        self.state, obs = sound_reset(key)
        return self.state, obs

    def step(self, key, state, action):
        return sound_step(key, self.state, action)


REMEMBERING = Remembering()
HERE = r" at test_check_env\.py:\d+"
MUST_RETURN = r"River's step.* must return \(state, jdqn\.Step\(obs, reward, terminated, truncated\)\)"
# What is met without running anything, by build too.
SHAPES = {
    "no_env": ("CartPole-v1", r"an environment must be a jdqn\.Env, got str: make one with jdqn\.envs\.make"),
    "gymnax": (gymnax.make("CartPole-v1")[0], r"must be a jdqn\.Env, got CartPole: make one with .*from_gymnax"),
    "no_actions": (river(num_actions=0), "River must have one action or more, a whole number, got num_actions=0"),
    "negative_actions": (river(num_actions=-2), "got num_actions=-2"),
    "half_an_action": (river(num_actions=2.0), r"got num_actions=2\.0"),
    "many_actions": (river(num_actions=2**31), "got num_actions=2147483648"),
    "actions_none": (river(num_actions=None), "got num_actions=None"),
    "actions_word": (river(num_actions="2"), "got num_actions=2"),
    "actions_true": (river(num_actions=True), "got num_actions=True"),
    "reset_none": (river(reset=None), r"River's reset must be a function \(key\), got NoneType"),
    "step_none": (river(step=3), r"River's step must be a function \(key, state, action\), got int"),
    "swapped": (river(sound_step, sound_reset), rf"River's reset must take \(key\), and the one{HERE} takes \(key, st"),
    "reset_arity": (river(lambda: 0), rf"reset must take \(key\), and the one{HERE} takes \(\)"),
    "step_arity": (river(step=lambda key, state: 0), r"step must take \(key, state, action\), .* takes \(key, state\)"),
    "params": (river(step=lambda key, s, a, params: 0), r"step must take .* takes \(key, s, a, params\)"),
    "reset_returns_one": (river(lambda key: sound_reset(key)[1]), r"reset must return \(state, obs\), got one float32"),
    "reset_returns_none": (river(lambda key: None), r"River's reset must return \(state, obs\), got one None"),
    "reset_returns_three": (river(lambda key: (*sound_reset(key), {})), r"must return \(state, obs\), got .*of 3"),
    "reset_returns_dict": (river(lambda key: sound_reset(key)[0]), r"must return \(state, obs\), got a dict of 2"),
    "order": (river(lambda key: sound_reset(key)[::-1]), "must show one array, .* state and obs the wrong way round"),
    "obs_none": (river(lambda key: (sound_reset(key)[0], None)), "must show one array, and reset shows PyTreeDef"),
    "obs_dict": (resets(obs={"a": jnp.zeros(2)}), "must show one array, and reset shows .*: concatenate it$"),
    "obs_list": (resets(obs=[0.0, 1.0]), "must show one array, and reset shows"),
    "obs_complex": (resets(obs=jnp.zeros(2, complex)), r"must show real numbers or bools, and reset shows complex64"),
    "obs_key": (resets(obs=jax.random.key(0)), r"must show real numbers or bools, and reset shows key\[\]"),
    "obs_empty": (resets(obs=jnp.zeros((3, 0))), r"must show one number or more, and reset shows float32\[3, 0\]"),
    "obs_word": (resets(obs="left"), r"River's reset.* must return \(state, obs\), with arrays and nothing else in it"),
    "state_word": (resets(state={"name": "left"}), r"reset.* must return \(state, obs\), with arrays and nothing else"),
    "state_object": (resets(state=Remembering()), r"reset.* must return \(state, obs\), with arrays and nothing else"),
    "obs_shape": (gives(obs=jnp.zeros(3)), r"River must keep obs at float32\[2\], and step gives float32\[3\]"),
    "obs_dtype": (gives(obs=jnp.zeros(2, int)), r"must keep obs at float32\[2\], and step gives int32\[2\]"),
    "obs_half": (gives(obs=jnp.zeros(2, jnp.float16)), r"must keep obs at float32\[2\], and step gives float16\[2\]"),
    "obs_number": (gives(obs=0.0), r"must keep obs at float32\[2\], and step gives float32\[\]"),
    "obs_lost": (gives(obs=None), r"must keep obs at float32\[2\], and step gives None"),
    "obs_pair": (gives(obs=(0.0, 0.0)), r"must keep obs at float32\[2\], and step gives tuple"),
    "reward_shape": (gives(reward=jnp.zeros(1)), r"must keep reward at float32\[\], and step gives float32\[1\]"),
    "reward_whole": (gives(reward=jnp.int32(1)), r"must keep reward at float32\[\], and step gives int32\[\]"),
    "reward_python": (gives(reward=1), r"must keep reward at float32\[\], and step gives int32\[\]"),
    "reward_bool": (gives(reward=True), r"must keep reward at float32\[\], and step gives bool\[\]"),
    "reward_none": (gives(reward=None), r"must keep reward at float32\[\], and step gives None"),
    "reward_half": (gives(reward=jnp.bfloat16(1)), r"must keep reward at float32\[\], and step gives bfloat16\[\]"),
    "terminated": (gives(terminated=jnp.float32(0)), r"must keep terminated at bool\[\], and step gives float32\[\]"),
    "terminated_shape": (gives(terminated=jnp.zeros(1, bool)), r"must keep terminated at bool\[\], .* bool\[1\]"),
    "terminated_python": (gives(terminated=0), r"must keep terminated at bool\[\], and step gives int32\[\]"),
    "truncated": (gives(truncated=jnp.int32(0)), r"must keep truncated at bool\[\], and step gives int32\[\]"),
    "truncated_dict": (gives(truncated={}), r"must keep truncated at bool\[\], and step gives dict"),
    "state_dtype": (gives(lambda s: s | {"t": 1.0 * s["t"]}), r"must keep state\['t'\] at int32\[\], .* float32\[\]"),
    "state_shape": (gives(lambda s: s | {"x": s["x"][:1]}), r"must keep state\['x'\] at float32\[2\], .* float32\[1\]"),
    "state_tuple": (gives(lambda s: tuple(s.values())), r"must keep the structure .*drops state\['t'\] and"),
    "state_lost": (gives(lambda s: {"x": s["x"]}), r"must keep the structure of its state, .* it drops state\['t'\]"),
    "state_more": (gives(lambda s: s | {"u": s["t"]}), r"must keep the structure .* it adds state\['u'\]"),
    "state_none": (gives(lambda s: s | {"x": None}), r"must keep the structure of its state, .* it drops state\['x'\]"),
    "state_kind": (
        river(
            lambda key: ([jnp.int32(0)], jnp.zeros(2)),
            lambda key, s, action: (tuple(s), jdqn.Step(jnp.zeros(2), NO_REWARD, GOES_ON, GOES_ON)),
        ),
        r"must keep the structure of its state, .* it makes .* of ",
    ),
    "state_word_later": (gives(lambda s: s | {"t": "left"}), f"{MUST_RETURN}, with arrays and nothing else in it"),
    "step_alone": (returns(lambda state, step: step), f"{MUST_RETURN}, got a Step of 4"),
    "step_none_at_all": (returns(lambda state, step: None), f"{MUST_RETURN}, got one None"),
    "step_five": (returns(lambda state, step: (state, *step)), f"{MUST_RETURN}, got a tuple of 5"),
    "step_tuple": (returns(lambda state, step: (state, tuple(step))), f"{MUST_RETURN}, and has tuple of 4 in"),
    "step_dict": (returns(lambda state, step: (state, step._asdict())), f"{MUST_RETURN}, and has dict of 4 in"),
    "step_order": (returns(lambda state, step: (step, state)), f"{MUST_RETURN}, and has dict of 2 in the place"),
    "step_obs": (returns(lambda state, step: (state, step.obs)), rf"{MUST_RETURN}, and has float32\[2\] in the place"),
    "if": (river(step=branching), f"step fails{HERE} with TracerBoolConversionError: branch with jnp.where"),
    "numpy": (river(step=through_numpy), f"fails{HERE} with TracerArrayConversionError: compute with jax.numpy"),
    "range": (river(step=looping), f"fails{HERE} with TracerIntegerConversionError: .*loop with jax.lax"),
    "float": (river(step=to_float), f"fails{HERE} with ConcretizationTypeError: keep numbers in jnp arrays"),
    "mask": (river(step=masking), f"fails{HERE} with NonConcreteBooleanIndexError: choose with jnp.where"),
    "object": (river(REMEMBERING.reset, REMEMBERING.step), "with UnexpectedTracerError: keep everything that changes"),
    "assigned": (river(step=in_place), f"River's step fails{HERE} with TypeError: .*item assignment"),
    "name": (river(step=misspelt), f"River's step fails{HERE} with NameError: name 'acton' is not defined"),
    "divided": (river(lambda key: 1 // 0), f"River's reset fails{HERE} with ZeroDivisionError: "),
}  # fmt: skip


def refusal(call, pattern):
    with pytest.raises(ConfigError, match=pattern) as caught:
        call()
    assert re.fullmatch(r"[^\n]{20,700}", str(caught.value))
    return caught.value


@pytest.mark.parametrize("case", SHAPES)
def test_what_does_not_fit_is_refused_before_anything_runs(case):
    env, sentence = SHAPES[case]
    refusal(lambda: jdqn.build(jdqn.Config(), env), sentence)
    refusal(lambda: jdqn.check_env(env), sentence)


def test_the_error_of_the_environment_is_the_cause():
    error = refusal(lambda: jdqn.check_env(river(step=misspelt)), "NameError")
    assert isinstance(error.__cause__, NameError)
    line = misspelt.__code__.co_firstlineno + 1
    assert f"test_check_env.py:{line} " in str(error)
    arity = refusal(lambda: jdqn.check_env(river(lambda: 0)), "must take")
    assert isinstance(arity.__cause__, TypeError)


def test_python_numbers_are_taken_where_they_keep_their_dtype():
    def reset(key):
        return (0, 1.0), jax.random.uniform(key, (2,))

    def step(key, state, action):
        n, x = state
        obs = jax.random.uniform(key, (2,))
        return (n + 1, 0.5 * x), jdqn.Step(obs, 1.0, False, n >= 5)

    assert jdqn.check_env(river(reset, step)).remarks == ()

    def shrinks(key, state, action):
        n, x = state
        return (n + jnp.int8(1), x), step(key, state, action)[1]

    refusal(lambda: jdqn.build(jdqn.Config(), river(reset, shrinks)), r"must keep state\[0\] at int32\[\], .* int8\[\]")


def test_what_is_no_number_any_more_after_the_first_step():
    """A weak float32 takes the dtype of whatever it meets, a strong one keeps its own."""

    def step(key, x, action):
        narrow = jnp.bfloat16(1) if not x.weak_type else 1.0  # as a library may do
        return (0.5 * x).astype(narrow.dtype if hasattr(narrow, "dtype") else jnp.float32), jdqn.Step(
            jnp.zeros(2), NO_REWARD, GOES_ON, GOES_ON
        )

    env = river(lambda key: (1.0, jnp.zeros(2)), step)
    refusal(lambda: jdqn.build(jdqn.Config(), env), r"must keep state at float32\[\], and step gives bfloat16\[\]")


def test_what_cannot_be_batched_is_refused():
    def step(key, state, action):
        x = jax.pure_callback(np.sin, jax.ShapeDtypeStruct((2,), jnp.float32), state["x"])
        return sound_step(key, state | {"x": x}, action)

    refusal(lambda: jdqn.build(jdqn.Config(), river(step=step)), f"River's step fails{HERE} with NotImplementedError: ")


def drawing_twice(key, state, action):
    return sound_step(key, state | {"x": jax.random.normal(key, (2,))}, action)


def kept_key(key):
    return {"key": jax.random.key(0)}, jax.random.uniform(key, (2,))


def step_of_kept_key(key, state, action):
    own, draw = jax.random.split(state["key"])
    return {"key": own}, jdqn.Step(jax.random.normal(draw, (2,)), NO_REWARD, GOES_ON, GOES_ON)


class Counting:
    steps = 0

    def step(self, key, state, action):
        self.steps += 1
        return sound_step(key, state | {"t": jnp.int32(self.steps)}, action)


@jax.jit
def baked(key):
    """What jit keeps of it is always the same, and another time the program starts another."""
    return {"x": jax.random.uniform(key, (2,)), "t": jnp.int32(np.random.randint(1 << 30))}, jnp.zeros(2)  # noqa: NPY002


def of_the_time(key):
    state, obs = sound_reset(key)
    return state | {"t": jnp.int32(time.perf_counter_ns() % 2**31)}, obs


def noise_of_python(key, state, action):
    after, step = sound_step(key, state, action)
    return after, step._replace(reward=jnp.float32(random.random()))


def late(value, part):
    """Puts `value` into state x, the observation or the reward after three steps."""

    def step(key, state, action):
        after, result = sound_step(key, state, action)
        broken = jnp.where(after["t"] > 3, value, 0.0)
        if part == "state":
            return after | {"x": after["x"] + broken}, result
        return after, result._replace(**{part: getattr(result, part) + broken})

    return river(step=step)


PLAYED = {
    "same_start": (resets({"x": jnp.zeros(2), "t": jnp.int32(0)}, jnp.zeros(2)), "reset must use its key, and 32 keys"),
    "same_key": (river(kept_key, step_of_kept_key), r"must use its key, and puts the same key into state\['key'\]"),
    "key_twice": (river(step=drawing_twice), "step fails.* with KeyReuseError: use every key for one draw"),
    "key_twice_reset": (
        river(lambda key: (sound_reset(key)[0], jax.random.normal(key, (2,)))), "reset fails.* with KeyReuseError",
    ),
    "counting": (river(step=Counting().step), "step must be pure, and gives two results for the same arguments"),
    "numpy_in_jit": (river(baked), "reset must be pure, and gives two results"),
    "clock": (river(of_the_time), "reset must be pure"),
    "random": (river(step=noise_of_python), "step must be pure, .*: draw with its key, not with NumPy or random"),
    "reset_nan": (resets(obs=jnp.full(2, jnp.nan)), "must give finite numbers, and reset gives NaN in obs"),
    "reset_inf": (resets({"x": jnp.full(2, -jnp.inf), "t": jnp.int32(0)}), r"reset gives infinity in state\['x'\]"),
    "obs_nan": (late(jnp.nan, "obs"), "must give finite numbers, and step gives NaN in obs at tick 4 of"),
    "obs_inf": (late(jnp.inf, "obs"), "step gives infinity in obs at tick 4 of"),
    "reward_nan": (late(jnp.nan, "reward"), "step gives NaN in reward at tick 4 of"),
    "reward_inf": (late(-jnp.inf, "reward"), "step gives infinity in reward at tick 4 of"),
    "state_nan": (late(jnp.nan, "state"), r"step gives NaN in state\['x'\] at tick 4 of"),
}  # fmt: skip


@pytest.mark.parametrize("case", PLAYED)
def test_what_breaks_a_rule_while_it_runs_is_refused(case):
    env, sentence = PLAYED[case]
    refusal(lambda: jdqn.check_env(env, num_envs=2, ticks=20), f"^River.*{sentence}")


def test_a_sound_environment_passes():
    """With every seed, and its numbers are those of the play."""
    report = jdqn.check_env(river(), num_envs=3, ticks=50)
    assert report == envs.EnvReport(3 * 50 - 3 * 2, 3 * 2, ())  # 20 steps and a reset
    assert jdqn.check_env(river(), jax.random.key(7), num_envs=1, ticks=20) == envs.EnvReport(20, 1, ())


def test_a_deterministic_start_can_be_meant():
    env = PLAYED["same_start"][0]
    assert jdqn.check_env(env, deterministic_reset=True, num_envs=2, ticks=30).episodes == 2
    refusal(lambda: jdqn.check_env(PLAYED["same_key"][0], deterministic_reset=True), "the same key into")


def test_remarks():
    """What is no mistake for certain is told."""
    still = river(
        lambda key: (jax.random.uniform(key), jnp.zeros(2)),
        lambda key, state, action: (state, jdqn.Step(jnp.zeros(2), NO_REWARD, GOES_ON, GOES_ON)),
    )
    steps, episodes, remarks = jdqn.check_env(still, num_envs=2, ticks=10)
    assert (steps, episodes) == (20, 0)
    for remark, words in zip(remarks, ("no episode of River ended", "nothing but zeros", "same obs"), strict=True):
        assert words in remark


QUICK = {"MountainCar-v0", "FrozenLake-misc", "GaussianBandit-misc"}
ALIKE = {
    "Asterix-MinAtar", "DeepSea-bsuite", "DiscountingChain-bsuite", "FourRooms-misc", "FrozenLake-misc", "Pong-misc",
    "Seaquest-MinAtar", "SpaceInvaders-MinAtar",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.nightly) for name in NAMES]
)
def test_the_environments_of_gymnax_pass(name):
    """Some always begin alike."""
    env = envs.make(name)
    if name in ALIKE:
        refusal(lambda: jdqn.check_env(env), f"^{name}'s reset must use its key")
    report = jdqn.check_env(env, deterministic_reset=name in ALIKE)
    assert (report.episodes > 0) == (name != "Freeway-MinAtar")  # whose limit is 2,500 steps
    assert bool(report.remarks) == (name in ("Freeway-MinAtar", "SimpleBandit-bsuite"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (dict(num_envs=0), "check_env's num_envs must be a whole number of at least 1, got 0"),
        (dict(num_envs=2.0), "check_env's num_envs must be"),
        (dict(ticks=-1), "check_env's ticks must be"),
        (dict(key=0), r"check_env's key must be a random key like jax.random.key\(0\), got 0"),
        (dict(key=jnp.zeros(2)), "check_env's key must be a random key"),
        (dict(key=jax.random.split(jax.random.key(0))), "check_env's key must be a random key"),
    ],
)
def test_what_is_asked_of_check_env_itself(given, sentence):
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        jdqn.check_env(river(), **given)


def test_an_error_in_a_callback_is_the_one_that_is_told():
    def divide(x):
        raise ZeroDivisionError("nothing to divide by")

    def reset(key):
        state, obs = sound_reset(key)
        shown = jax.ShapeDtypeStruct(obs.shape, obs.dtype)
        return state, jax.pure_callback(divide, shown, obs, vmap_method="sequential")

    with pytest.raises(ConfigError, match=r"ZeroDivisionError: nothing to divide by$"):
        jdqn.check_env(river(reset))
