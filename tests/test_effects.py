"""Settings that are said to change nothing change no bit, and all others change something."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdqn
from jdqn import envs
from jdqn.config import Hyper
from jdqn.effects import BELONGS, explores, idle
from jdqn.host.options import parse
from jdqn.host.wanted import plans_of
from jdqn.run import main

ENV = envs.make("Catch-bsuite")  # whose episodes all end within the run
SMALL = dict(
    num_envs=4, rollout_length=4, batch_size=8, warm_up_steps=64, replay_size=400, hidden_sizes=(8,), core_size=8,
    total_steps=800, updates=2, atoms=5, value_min=-1.0, value_max=1.0, epsilon_end=0.1,
)  # fmt: skip
CASES = {
    "nothing special": dict(algorithm="dqn", optimizer="sgd", target_period=0),
    "sequences": dict(
        algorithm="r2d2", burn_in=1, unroll_length=3, n_step=2, learning_rate_final_fraction=0.5, target_period=3,
        importance_final_exponent=1.0,
    ),
    "softmax": dict(algorithm="munchausen", exploration="softmax", ensemble=2, target_period=3),
    "rollouts": dict(algorithm="pqn", batch_size=2, rollout_length=8),
}  # fmt: skip
# Another value for each number, far enough from those above that it shows within a short run.
OTHER = Hyper(
    learning_rate=0.03, learning_rate_final_fraction=0.1, learning_rate_steps=100.0, optimizer_epsilon=0.1,
    max_gradient_norm=1e-3, discount=0.5, target_update_rate=0.5, epsilon_start=0.3, epsilon_end=0.7,
    epsilon_steps=300.0, ladder_base=0.9, ladder_exponent=0.5, softmax_temperature=2.0, priority_exponent=0.1,
    importance_exponent=0.9, importance_final_exponent=0.2, importance_steps=300.0, sequence_max_fraction=0.1,
    trace_decay=0.1, munchausen_scale=0.1, munchausen_temperature=0.5, munchausen_floor=-0.01,
    bootstrap_probability=0.3,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_numbers_that_are_idle_change_no_bit_and_others_do(case):
    """One agent for each number of Hyper that is another, beside one for which none is: a batch of twins."""
    config, hyper = jdqn.preset(environment="", **SMALL | CASES[case])
    trainer = jdqn.build(config, ENV)
    agents = len(Hyper._fields) + 1
    # `which` is 0 for the twin that all are compared with, and k for the one whose k-th number is another.
    which = jnp.arange(agents)
    table = Hyper(*(jnp.where(which == k, getattr(OTHER, name), getattr(hyper, name))
                    for k, name in enumerate(Hyper._fields, 1)))  # fmt: skip

    def twin(hyper):
        return jdqn.train(trainer, jax.random.key(1000), hyper, config.total_steps // trainer.ticks)[0].learner.params

    compiled = jax.jit(jax.vmap(twin)).lower(table).compile({"xla_backend_optimization_level": 0})
    leaves = [np.asarray(x) for x in jax.tree.leaves(compiled(table))]
    same = {name for k, name in enumerate(Hyper._fields, 1) if all((x[k] == x[0]).all() for x in leaves)}
    assert same == set(idle(config, hyper)) & set(Hyper._fields)


CHOICES = {
    "core_size": 16, "atoms": 7, "acting_atoms": 5, "value_min": -2.0, "value_max": 2.0, "hidden_sizes": (6,),
    "replay_size": 1000, "learning_rate_schedule": "cosine",
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        CASES["nothing special"], CASES["rollouts"], dict(algorithm="c51"), dict(algorithm="iqn"),
        dict(algorithm="dqn", core="gru", learning_rate_final_fraction=0.5),
    ],
)  # fmt: skip
def test_choices_that_are_idle_leave_the_program_as_it_is(case):
    def program(**changed):
        config, hyper = jdqn.preset(environment="", **SMALL | case | changed)
        trainer = jdqn.build(config, ENV)
        state = jax.eval_shape(trainer.init, jax.random.key(0), hyper)
        return str(jax.make_jaxpr(trainer.step)(state, hyper, 0))

    config, hyper = jdqn.preset(environment="", **SMALL | case)
    as_it_is, without = program(), idle(config, hyper)
    for name, other in CHOICES.items():
        if name == "learning_rate_schedule" and name in without:
            continue  # a fall to where it began is still computed
        assert (program(**{name: other}) == as_it_is) == (name in without), name


def test_every_setting_that_is_named_exists():
    named = [name for names, _, _ in BELONGS for name in names]
    assert len(named) == len(set(named))
    assert set(named) <= set(Hyper._fields) | {field.name for field in dataclasses.fields(jdqn.Config)}


def test_a_tabular_agent_has_no_widths():
    config, hyper = jdqn.preset("q_learning", "FrozenLake-misc")
    assert idle(config, hyper)["hidden_sizes"] == "a network that is not tabular"


def test_numbers_that_fall_to_where_they_began_have_no_length():
    for name, field in (("noisy", "epsilon_steps"), ("apex", "importance_steps"), ("r2d2", "importance_steps")):
        config, hyper = jdqn.preset(name)
        assert field in idle(config, hyper)
    noisy, still = jdqn.preset("noisy")
    assert "epsilon_steps" not in idle(noisy, still._replace(epsilon_end=np.array([0.0, 0.1])))


def test_choices_of_image_networks_need_auto():
    assert "image_network" in idle(jdqn.Config(network="mlp"), Hyper())
    assert "image_network" not in idle(jdqn.Config(), Hyper())


@pytest.mark.parametrize("algorithm", jdqn.ALGORITHMS)
def test_every_row_explores(algorithm):
    assert explores(*jdqn.preset(algorithm))


RUN = ["--env", "Catch-bsuite", "--total-steps", "1100", "--warm-up-steps", "1000", "--episodes", "2"]


@pytest.fixture
def warned(monkeypatch, capsys, tmp_path):
    """Of flags, what the program says before it trains."""
    monkeypatch.setattr("jdqn.run.train", lambda *_: None)

    def of(flags):
        assert main([*RUN, *flags.split(), "--out", str(tmp_path / "run")]) == 0
        return capsys.readouterr().err

    return of


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--priority-exponent 0.3", "--priority-exponent changes nothing here: it belongs to replay=prioritised"),
        ("--core_size=32", "--core-size changes nothing here: it belongs to core=gru or lstm"),
        (
            "--learning-rate-final-fraction 1 --learning-rate-schedule cosine",
            "--learning-rate-schedule changes nothing here: it belongs to a learning_rate_final_fraction below 1",
        ),
        (
            "--algo rainbow --no-noisy",
            "nothing explores after the warm-up, for epsilon is 0 and no layer noisy: raise --epsilon-end, or give "
            "--noisy",
        ),
    ],
)
def test_the_program_says_what_changes_nothing(flags, told, warned):
    assert warned(flags) == f"warning: {told}\n"


def test_the_program_says_nothing_of_settings_that_work(warned):
    assert not warned(
        "--algo rainbow --priority-exponent 0.3 --atoms 11 --epsilon-end 0.1 --no-noisy --learning-rate 1e-3"
    )


def test_a_tabular_agent_is_not_told_of_noise(warned):
    flags = "--env FrozenLake-misc --algo q_learning --epsilon-start 0 --epsilon-end 0"
    assert warned(flags).endswith("raise --epsilon-end\n")


@pytest.mark.parametrize("flags", ["--epsilon-end 0 0.05", "--epsilon-end 0 --exploration epsilon_greedy softmax"])
def test_a_sweep_with_agents_that_do_not_explore_is_no_matter(flags, warned):
    assert not warned(f"--epsilon-start 0 {flags}")


def test_what_the_draws_of_a_sweep_have_not_met_is_no_matter():
    """All three draws of this seed have uniform replay."""
    flags = "--sweep random --samples 3 --seed 34 --replay uniform prioritised --priority-exponent 0.2 0.9"
    assert {plan.config.replay for plan in plans_of(parse([*RUN, *flags.split()]))} == {"uniform"}
    with pytest.raises(jdqn.ConfigError, match=r"^the values of --priority-exponent all train the same agent"):
        plans_of(parse([*RUN, "--sweep", "random", "--priority-exponent", "0.2", "0.9"]))


def test_agents_that_would_all_be_the_same_are_no_sweep(capsys):
    assert main([*RUN, "--priority-exponent", "0.3", "0.9"]) == 2
    assert capsys.readouterr().err == (
        "error: the values of --priority-exponent all train the same agent, for it belongs to replay=prioritised: give "
        "it one value, or choose that\n"
    )
    assert main([*RUN, "--core-size", "32", "64"]) == 2
    assert "--core-size all train the same agent, for it belongs to core=gru or lstm: " in capsys.readouterr().err
