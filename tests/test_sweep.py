"""Sweeps: which agents there are, how they are grouped, and what is written about them."""

import csv
import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from programs import TINY, result, rows, without
from rich.console import Console
from test_resume import stop_at  # noqa: F401

from jdqn import ConfigError, Hyper, envs, preset
from jdqn.config import ticks_per_iteration, total_iterations, warm_up_iterations
from jdqn.host import memory, plots, statistics, sweep
from jdqn.host.console import show_ranking
from jdqn.host.folder import RunFolder
from jdqn.host.options import parse
from jdqn.host.plan import Evolution, Plan
from jdqn.host.program import Run
from jdqn.host.wanted import agents_wanted, plans_of
from jdqn.run import Session, main

pytestmark = pytest.mark.usefixtures("_compiled_once")


def plans(words: str) -> list[Plan]:
    return plans_of(parse(words.split()))


def agents(parts: list[Plan]) -> list[tuple]:
    """(config, hyper, seed) of every agent."""
    return [(part.config, part.hyper_of(k), seed) for part in parts for k, seed in enumerate(part.seeds)]


def test_a_grid_is_every_combination_and_one_program_for_each_shape():
    words = "--seeds 2 --seed 5 --learning-rate 1e-4 1e-3 --batch-size 16 32 --discount .9 .99 --hidden-sizes 8,8 16"
    parts = plans(words)
    assert len(parts) == 4
    assert [part.agents for part in parts] == [8] * 4
    assert agents_wanted(parse(words.split())) == 32
    config, hyper = preset("dqn", "CartPole-v1")
    expected = {
        (
            dataclasses.replace(config, batch_size=b, hidden_sizes=sizes),
            hyper._replace(learning_rate=rate, discount=discount),
            seed,
        )
        for b, sizes, rate, discount, seed in itertools.product(
            (16, 32), ((8, 8), (16,)), (1e-4, 1e-3), (0.9, 0.99), (5, 6)
        )
    }
    found = agents(parts)
    assert len(found) == 32
    assert set(found) == expected
    assert sweep.swept(parts) == ["batch_size", "hidden_sizes", "learning_rate", "discount"]


def test_hidden_sizes_are_one_value_unless_there_is_a_comma():
    assert [p.config.hidden_sizes for p in plans("--hidden-sizes 32 16")] == [(32, 16)]
    assert [p.config.hidden_sizes for p in plans("--hidden-sizes 32,16")] == [(32, 16)]
    assert [p.config.hidden_sizes for p in plans("--hidden-sizes 32,16 8,")] == [(32, 16), (8,)]


def test_a_random_sweep_draws_between_two_values():
    words = (
        "--sweep random --samples 400 --learning-rate 1e-2 1e-4 --discount .9 .999 --epsilon-end 0 .5 --n-step 1 2 3"
    )
    parts = plans(words)
    assert sum(part.agents for part in parts) == 400
    assert {part.config.n_step for part in parts} == {1, 2, 3}
    drawn = [hyper for _, hyper, _ in agents(parts)]
    for name, to, low, high in [
        ("learning_rate", np.log10, -4, -2),
        ("discount", lambda x: np.log10(1 - x), -3, -1),
        ("epsilon_end", lambda x: x, 0, 0.5),
    ]:
        x = np.sort(to(np.array([getattr(h, name) for h in drawn])))
        assert low - 1e-3 <= x[0]
        assert x[-1] <= high + 1e-3
        uniform = low + (high - low) * (np.arange(400) + 0.5) / 400
        assert np.abs(x - uniform).max() < 0.09 * (high - low)  # Kolmogorov-Smirnov at about 0.3 %
    assert plans(words) == parts
    assert plans(words + " --seed 1") != parts
    three = {h.learning_rate for _, h, _ in agents(plans("--sweep random --learning-rate .1 .2 .3"))}
    assert three <= {0.1, 0.2, 0.3}  # three values are a choice


@pytest.mark.parametrize(
    "words", ["--sweep random --samples 9 --discount .8 .99", "--learning-rate 1e-4 1e-3 --seeds 2 --pbt-every 1000"]
)
def test_a_population_finds_a_device_for_each_core(words):
    """Nothing starts JAX before its devices are chosen: of four cores, four."""
    program = f"""
import jax
from jdqn.host import devices, options, session
devices.cores = lambda: 4
session.begin(options.parse({words.split()}), 0.0)
print(jax.device_count())
"""
    variables = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=variables)
    assert done.stdout == "4\n", done.stderr


def test_two_draws_share_no_seed():
    """They may be of one setting, and are other agents of it then; a grid compares its settings on the same seeds."""
    for words in ("--sweep random --samples 8 --n-step 1 2 --learning-rate .1 .2 .3",
                  "--sweep random --samples 8 --learning-rate 1e-4 1e-2"):  # fmt: skip
        found = agents(plans(f"{words} --seeds 3 --seed 7"))
        assert sorted(seed for *_, seed in found) == list(range(7, 7 + 24))
        settings = {}
        for config, hyper, seed in found:
            settings.setdefault((seed - 7) // 3, set()).add((config, hyper))
        assert all(len(setting) == 1 for setting in settings.values())
    assert [seed for *_, seed in agents(plans("--learning-rate 1e-4 1e-2 --seeds 3"))] == [0, 1, 2] * 2
    (population,) = plans("--learning-rate 1e-4 1e-2 --seeds 3 --pbt-every 1000")
    assert population.seeds == tuple(range(6))
    (last,) = plans("--sweep random --learning-rate 1e-3 1e-2 --seed 4294967280")
    assert last.seeds[-1] == 2**32 - 1


def test_a_range_that_ends_where_32_bits_have_no_logarithm_is_linear():
    (plan,) = plans("--sweep random --samples 64 --discount .9 0.99999999")
    assert 0.9 <= min(plan.hyper.discount) < 0.92
    assert 0.98 < max(plan.hyper.discount) <= 1.0


def test_a_generation_just_fits():
    config, _ = preset("dqn", "CartPole-v1")
    ticks, warm_up, total = ticks_per_iteration(config), warm_up_iterations(config), total_iterations(config)
    most = (total - warm_up) * ticks - 1
    (plan,) = plans(f"--learning-rate 1e-4 1e-2 --pbt-every {most}")
    assert Run(plan, envs.make("CartPole-v1")).generation_ends.tolist() == [total - 1]
    with pytest.raises(ConfigError, match=rf"lower it below {most + 1}$"):
        plans(f"--learning-rate 1e-4 1e-2 --pbt-every {most + 1}")


def test_waves_are_as_equal_as_can_be():
    (plan,) = plans("--seeds 11 --learning-rate 1e-4 1e-3")
    parts = sweep.waves(plan, 5)
    assert [part.agents for part in parts] == [5, 5, 4, 4, 4]
    assert agents(parts) == agents([plan])
    assert sweep.waves(plan, 22) == [plan]


def test_agents_that_are_compared_are_not_parted():
    (plan,) = plans("--sweep random --learning-rate 1e-4 1e-3 --pbt-every 1000")
    assert sweep.waves(plan, 16) == [plan]
    with pytest.raises(ConfigError, match=r"--pbt-every compares all agents, and 16 do not fit .* \(15 do\)"):
        sweep.waves(plan, 15)


def test_a_plan_survives_json():
    for words in (
        "--seeds 3 --learning-rate 1e-4 1e-3 --hidden-sizes 8",
        "--env DeepSea-bsuite --env-params size=5 --pbt-every 1000 --learning-rate 1e-4 1e-3 --pbt-replay copy",
    ):
        (plan,) = plans(words)
        assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.evolution == Evolution(62, 0.2, 1.2, True, {"learning_rate": (1e-4, 1e-3)})


REFUSED = {
    "--learning-rate": "--learning-rate needs a value",
    "--learning-rate 1e-3 nan": "learning_rate must be",
    "--batch-size 32 0": "batch_size must be",
    "--total-steps 1000 2000": "--total-steps takes one value",
    "--sweep random": "nothing to draw",
    "--hidden-sizes a": "--hidden-sizes takes widths",
    "--pbt-every 100": "needs something to perturb",
    "--pbt-every 100 --learning-rate 1e-3 1e-2 --pbt-fraction .6": "--pbt-fraction must be",
    "--pbt-every 100 --learning-rate 1e-3 1e-2 --batch-size 16 32": "the values of --batch-size take one each",
    "--pbt-every 99000 --learning-rate 1e-3 1e-2": "--pbt-every 99000 leaves no generation",
    "--samples 0": "--samples must be",
    "--samples 8 --learning-rate 1e-3 1e-2": "--samples belongs to --sweep random",
    "--pbt-fraction .3": "--pbt-fraction belongs to --pbt-every",
    "--pbt-factor 2": "--pbt-factor belongs to --pbt-every",
    "--pbt-every 100 --learning-rate 1e-3 1e-2 --pbt-factor 1": "--pbt-factor must be",
    "--pbt-every 100 --epsilon-end .1 .3 --pbt-factor 2": "--epsilon-end moves by a tenth of its range",
    "--pbt-replay copy": "--pbt-replay belongs to --pbt-every",
    "--learning-rate 1e-3 1e-3": "--learning-rate has the value 0.001 twice",
    "--discount .9 .99 .9900000001": "--discount has the value 0.99 twice",  # in 32 bits
    "--n-step 1 2 1": "--n-step has the value 1 twice",
    "--sweep random --learning-rate 1e-3 1e-2 --seed 4294967281": "--seed must be from 0 to 2^32 - 16",
    "--wave -1": "--wave must be",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_swept_is_refused(words):
    with pytest.raises(ConfigError, match=re.escape(REFUSED[words])):
        plans(words)


def test_the_ranking_is_by_mean():
    table = [
        {"n_step": n, "learning_rate": rate, "return": value}
        for n, rate, value in [
            (1, 0.1, 3.0),
            (1, 0.1, 5.0),
            (2, 0.1, 10.0),
            (2, 0.1, 0.0),
            (1, 0.2, 1.0),
            (1, 0.2, 2.0),
        ]
    ]
    found = sweep.ranking(table, ["n_step", "learning_rate"])
    assert [r["mean"] for r in found] == [5.0, 4.0, 1.5]
    assert found[0]["setting"] == {"n_step": 2, "learning_rate": 0.1}
    assert found[1]["ci95"] == statistics.interval([3.0, 5.0])
    assert [r["agents"] for r in found] == [2, 2, 2]


def test_agents_that_are_not_finite_count_and_have_no_return(tmp_path, capsys):
    """None of their parts in a mean; one agent has no interval, and a setting without any is last."""
    (plan,) = plans("--learning-rate 1e-4 1e-3 1e-2 --seeds 2")
    returns = np.array([np.nan, 5.0, 7.0, 9.0, np.nan, np.nan])
    result = {"evaluation": statistics.summary(returns[:, None]), "agents": 6}
    assert result["evaluation"]["per_agent"] == [None, 5.0, 7.0, 9.0, None, None]
    found = sweep.rows([plan], [result])
    RunFolder(tmp_path).write_rows(tmp_path / "sweep.csv", found)
    assert [r["return"] for r in table(tmp_path)] == ["", "5", "7", "9", "", ""]
    order = sweep.ranking(found, ["learning_rate"])
    assert [(r["setting"]["learning_rate"], r["agents"], r["non_finite"], r["mean"]) for r in order] == [
        (1e-3, 2, 0, 8.0), (1e-4, 2, 1, 5.0), (1e-2, 2, 2, None),
    ]  # fmt: skip
    assert [r["ci95"] for r in order] == [statistics.interval([7.0, 9.0]), None, None]
    show_ranking(Console(), order)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[2:] for line in lines[-2:]] == [["2", "1", "5.00", "-", "5.00"], ["2", "2", "-", "-", "-"]]
    plots.swept(found, "learning_rate", tmp_path / "figure.png")
    assert sweep.best(plan, returns).tolist() == [2, 3]
    assert sweep.best(plan, np.array([9.0, np.nan, 7.0, 8.0, 1.0, 1.0])).tolist() == [0]  # as the ranking has it
    assert statistics.of_agents([3.0, np.nan], 1)["ci95"] is None


def test_what_an_agent_began_and_ended_with():
    """Of population-based training the ranking is of agents, by what they ended with, and one is the best."""
    (plan,) = plans("--sweep random --samples 3 --learning-rate 1e-4 1e-3 --discount .9 .99 --pbt-every 1000")
    ends = Hyper(learning_rate=np.array([3e-4, 2e-4, 1e-4, 9.0]), discount=np.array([0.91, 0.92, 0.93, 9.0]))
    result = {"evaluation": {"per_agent": [2.0, 3.0, 1.0]}} | sweep.evolved(plan, ends)
    found = sweep.rows([plan], [result])
    assert list(found[0])[4:] == ["learning_rate", "discount", "final_learning_rate", "final_discount", "return"]
    assert [r["learning_rate"] for r in found] == list(plan.hyper.learning_rate)
    assert [r["final_discount"] for r in found] == [0.91, 0.92, 0.93]
    order = sweep.ranking(found, sweep.compared([plan]))
    assert order[0]["setting"] == {"agent": 1, "final_learning_rate": 2e-4, "final_discount": 0.92}
    assert [r["mean"] for r in order] == [3.0, 2.0, 1.0]
    assert sweep.agents_of(found, order[0]["setting"]) == [1]
    assert sweep.best(plan, np.array([2.0, 3.0, 1.0])).tolist() == [1]
    assert sweep.evolved(dataclasses.replace(plan, evolution=None), ends) == {}


def test_gymnasium_of_parts():
    """Those that are the best of all, counted through, if every one of them was played: the mean of some is another."""

    def part(scores, agents=None):
        played = statistics.of_agents(scores, 10) | ({} if agents is None else {"agents": agents})
        many = len(scores) if agents is None else 4
        return {
            "env": "", "algo": "", "agents": many, "env_steps": 1, "updates": 1, "compile_seconds": 0.0,
            "run_seconds": 1.0, "env_steps_per_second": 1.0, "evaluation": statistics.of_agents([1.0] * many, 10),
            "non_finite": [], "gymnasium": played,
        }  # fmt: skip

    whole = sweep.joined([part([1.0, 2.0]), part([4.0])])["gymnasium"]
    assert whole == statistics.of_agents([1.0, 2.0, 4.0], 10)
    two = [part([1.0, 2.0], [0, 1]), part([5.0, 6.0], [2, 3])]
    best = sweep.joined(two, [6, 7])["gymnasium"]
    assert best == statistics.of_agents([5.0, 6.0], 10) | {"agents": [6, 7]}
    assert sweep.joined(two, [2, 3])["gymnasium"] is None  # nobody played them
    assert sweep.joined(two, [5, 6])["gymnasium"] is None  # and only one of these
    lone = {"gymnasium": statistics.summary(np.array([[1.0, 2.0, 9.0]])) | {"agents": [2]}}
    alone = sweep.joined([part([1.0, 1.0]) | {"gymnasium": None}, part([0.0], [0]) | lone], [4])["gymnasium"]
    assert alone == lone["gymnasium"] | {"agents": [4]}  # of one agent the interval is over its episodes
    assert sweep.joined([part([1.0]) | {"gymnasium": None}, part([2.0]) | {"gymnasium": None}])["gymnasium"] is None


def test_the_interquartile_mean():
    assert statistics.interquartile_mean([5, 1, 100, 3, -50, 4, 2, 6]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert statistics.interquartile_mean([7, 1, 4]) == 4.0
    assert statistics.interquartile_mean(range(10)) == pytest.approx(np.mean([2, 3, 4, 5, 6, 7]))


SWEEP = [*TINY["dqn"], "--learning-rate", "1e-3", "1e-2"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two settings, two seeds, one program."""
    path = tmp_path_factory.mktemp("sweep") / "run"
    assert main([*SWEEP, "--out", str(path)]) == 0
    return path


def table(path):
    with (path / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_writes_a_row_per_agent_and_a_ranking(swept):
    found = table(swept)
    assert [(r["agent"], r["seed"], r["learning_rate"]) for r in found] == [
        ("0", "3", "0.001"), ("1", "4", "0.001"), ("2", "3", "0.01"), ("3", "4", "0.01"),
    ]  # fmt: skip
    scores = result(swept)["evaluation"]["per_agent"]
    np.testing.assert_allclose([float(r["return"]) for r in found], scores)
    ranking = result(swept)["ranking"]
    assert [r["mean"] for r in ranking] == sorted([np.mean(scores[:2]), np.mean(scores[2:])], reverse=True)
    best = [0, 1] if np.mean(scores[:2]) >= np.mean(scores[2:]) else [2, 3]
    assert result(swept)["gymnasium"]["agents"] == best  # only the best setting is played there
    assert matplotlib.image.imread(swept / "sweep_learning_rate.png").shape[:2] == (440, 660)


def test_an_agent_of_a_sweep_is_the_agent_of_a_run(swept, tmp_path):
    """Metrics to the last digit, also of the parameters behind the evaluation."""
    assert main([*TINY["dqn"], "--learning-rate", "1e-2", "--out", str(tmp_path / "run")]) == 0
    alone = [without(["seconds", "agent"], row) for row in rows(tmp_path / "run")]
    together = [without(["seconds", "agent"], row) for row in rows(swept) if row["agent"] in "23"]
    assert alone == together
    assert result(tmp_path / "run")["evaluation"]["per_agent"] == result(swept)["evaluation"]["per_agent"][2:]


@pytest.mark.slow
def test_waves_and_groups_change_nothing(swept, tmp_path, stop_at, capsys):  # noqa: F811
    """Three at a time, in parts; stopped in the second part and resumed."""
    path = tmp_path / "waves"
    assert stop_at(80, signal.SIGTERM, [*SWEEP, "--wave", "3", "--out", path]) == 128 + signal.SIGTERM
    assert f"go on with python -m jdqn.run --resume {path}\n" in capsys.readouterr().out
    assert main(["--resume", str(path)]) == 0
    assert main(["--resume", str(path)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert [without(["part", "agent_of_part"], r) for r in table(path)] == [
        without(["part", "agent_of_part"], r) for r in table(swept)
    ]
    assert [r["part"] for r in table(path)] == ["0", "0", "1", "1"]
    assert result(path)["ranking"] == result(swept)["ranking"]
    groups = tmp_path / "groups"
    assert main([*SWEEP, "--batch-size", "8", "64", "--out", str(groups)]) == 0
    same = [r for r in table(groups) if r["batch_size"] == "64"]
    assert [r["return"] for r in same] == [r["return"] for r in table(swept)]
    assert (groups / "sweep_batch_size.png").exists()


@pytest.mark.slow
def test_population_based_training_resumes_exactly(tmp_path, stop_at):  # noqa: F811
    """Its generations are in lineage.csv, and its hyper-parameters in the checkpoint."""
    words = [*TINY["dqn"], "--seeds", "5", "--learning-rate", "1e-3", "1e-2", "--sweep", "random", "--samples", "1"]
    words += ["--pbt-every", "320"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    assert stop_at(107, signal.SIGTERM, [*words, "--out", tmp_path / "run"]) == 128 + signal.SIGTERM
    assert main(["--resume", str(tmp_path / "run")]) == 0
    one, two = ((tmp_path / name / "lineage.csv").read_text() for name in ("whole", "run"))
    assert one == two
    lines = list(csv.DictReader(one.splitlines()))
    assert list(lines[0]) == ["generation", "env_steps", "agent", "parent", "score", "learning_rate"]
    assert len(lines) == 5 * 3  # iterations 83, 103, 123 of 125; the warm-up ends at 63
    copies = [r for r in lines if r["agent"] != r["parent"]]
    assert len(copies) == 3
    rates = initial = [float(r["learning_rate"]) for r in table(tmp_path / "run")]
    for generation in (lines[:5], lines[5:10], lines[10:]):
        for r in generation:
            parent = rates[int(r["parent"])]
            allowed = [parent] if r["agent"] == r["parent"] else np.clip([parent * 1.2, parent / 1.2], 1e-3, 1e-2)
            assert any(float(r["learning_rate"]) == pytest.approx(x, rel=1e-5) for x in allowed)
        rates = [float(r["learning_rate"]) for r in generation]
    metrics = rows(tmp_path / "run")
    for k in range(5):  # the first score is of episodes that ended after the warm-up
        mine = [r for r in metrics if r["agent"] == str(k) and 1008 < int(r["updates"]) * 8 + 1008 <= 1328]
        ended = [(float(r["return"]) * int(r["episodes"]), int(r["episodes"])) for r in mine if r["return"]]
        assert float(lines[k]["score"]) == pytest.approx(np.divide(*np.sum(ended, 0)), rel=1e-6)
    ends = [float(r["final_learning_rate"]) for r in table(tmp_path / "run")]
    np.testing.assert_allclose(ends, [float(r["learning_rate"]) for r in lines[-5:]], rtol=1e-6)
    assert ends != initial
    order, scores = result(tmp_path / "run")["ranking"], result(tmp_path / "run")["evaluation"]["per_agent"]
    assert [r["mean"] for r in order] == sorted(scores, reverse=True)
    assert order[0]["setting"].keys() == {"agent", "final_learning_rate"}
    assert result(tmp_path / "run")["gymnasium"]["agents"] == [order[0]["setting"]["agent"]]
    assert [path.name for path in (tmp_path / "run").glob("sweep_*.png")] == ["sweep_final_learning_rate.png"]
    a, b = (
        [without(["seconds"], row) for row in rows(tmp_path / name)] for name in ("whole", "run")
    )  # fmt: skip
    assert a == b


def test_parts_share_one_compiled_program():
    """Also those with fewer agents, and after the whole plan was looked at for its size."""
    (plan,) = plans("--seeds 5")
    session = Session(RunFolder(Path("run")), [plan], 1)
    env = envs.make("CartPole-v1")
    assert session.run(plan, env).size == 5
    session.plans = sweep.waves(plan, 2)
    runs = [session.run(part, env) for part in session.plans]
    assert all(run.programs is runs[0].programs for run in runs)
    assert [run.size for run in runs] == [2, 2, 2]
    assert [run.plan.seeds for run in runs] == [(0, 1), (2, 3), (4,)]
    assert Hyper(*runs[0].plan.hyper) == plan.hyper


def test_waves_of_fewer_agents_than_devices():
    """What fits is trained, on fewer devices if need be; no wave holds copies that it was not asked for."""
    (plan,) = plans("--seeds 5")
    env = envs.make("CartPole-v1")
    session = Session(RunFolder(Path("run")), [plan], 4)
    run = session.run(plan, env)
    assert (run.devices, run.size) == (4, 8)
    assert [run.most(wave) for wave in (1, 2, 3, 4, 5, 9)] == [1, 2, 3, 4, 5, 5]
    free = 2.5 * 3 * run.agent_bytes  # of two agents, their copies, and as much again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "available_bytes", lambda: int(free))
        assert run.most() == 2
        session.plans = sweep.waves(plan, run.most())
        parts = [session.run(part, env) for part in session.plans]
        for part in parts:
            part.require_memory()
    assert [(part.devices, part.size, part.plan.agents) for part in parts] == [(2, 2, 2), (2, 2, 2), (2, 2, 1)]


def test_a_figure_draws_no_line_through_single_agents(tmp_path, monkeypatch):
    """A population that copied and was clipped has some values twice; what joins the others would be no mean."""
    figures = []
    monkeypatch.setattr(plots.plt, "close", figures.append)
    for values, lines in (([1, 2, 3, 3], 0), ([1, 1, 2, 2, 3], 1), ([1, 1, 2, 3], 0)):
        table = [{"final_batch_size": value, "return": float(k)} for k, value in enumerate(values)]
        plots.swept(table, "final_batch_size", tmp_path / "figure.png")
        assert sum(not line.get_alpha() for line in figures.pop().axes[0].lines) == lines


def test_a_figure_shows_every_agent_on_the_scale_of_the_search(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots.plt, "close", figures.append)
    drawn = {
        "learning_rate": ([1e-4, 1e-3, 1e-2], [1e-4, 1e-3, 1e-2], "log", "learning_rate"),
        "final_discount": ([0.9, 0.99, 0.999], [0.1, 0.01, 0.001], "log", "1 - final_discount"),
        "discount": ([0.9, 0.99, 1.0], [0.9, 0.99, 1.0], "linear", "discount"),
        "epsilon_end": ([0.0, 0.001, 1.0], [0.0, 0.001, 1.0], "symlog", "epsilon_end"),
        "hidden_sizes": ([(64, 64), (16,)], [0, 1], "linear", "hidden_sizes"),
    }
    for name, (values, places, scale, label) in drawn.items():
        table = [{name: value, "return": float(k)} for k, value in enumerate(2 * values)]
        plots.swept([*table, {name: values[0], "return": None}], name, tmp_path / "figure.png")
        (axes,) = figures.pop().axes
        dots = [(x, y) for line in axes.lines if line.get_alpha() for x, y in line.get_xydata()]
        there = dict(zip(values, places, strict=True))
        expected = sorted((there[row[name]], row["return"]) for row in table)
        np.testing.assert_allclose(sorted(dots), expected, rtol=1e-9)
        assert (axes.get_xscale(), axes.get_xlabel()) == (scale, label)
        assert axes.xaxis_inverted() == label.startswith("1 - ")
        (means,) = (line for line in axes.lines if not line.get_alpha())
        assert means.get_linestyle() == ("None" if name == "hidden_sizes" else "-")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["64,64", "16"]


@pytest.mark.slow
def test_waves_of_one_setting_leave_what_one_run_leaves(tmp_path, monkeypatch):
    """Metrics, curve, evaluation and Gymnasium of all agents, from one compiled program."""
    words, made, compile_of = [*TINY["dqn"], "--seeds", "3"], [], Run.compile

    def compiling(run, fresh):
        made.append(len(run.programs))
        compile_of(run, fresh)

    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(Run, "compile", compiling)
    assert main([*words, "--wave", "2", "--out", str(tmp_path / "waves")]) == 0
    before, *waves = made  # programs there, before anything is written and then for each wave
    assert before == 0
    assert len(waves) == 2
    assert waves[0] == waves[1] > 0
    one, two = ([without(["seconds"], row) for row in rows(tmp_path / name)] for name in ("whole", "waves"))
    assert one == two
    one, two = (result(tmp_path / name) for name in ("whole", "waves"))
    for name in ("agents", "env_steps", "evaluation", "gymnasium", "non_finite"):
        assert one[name] == two[name]
    assert (tmp_path / "waves" / "curve.png").exists()
    assert "ranking" not in two


@pytest.mark.slow
def test_of_settings_in_several_parts_the_whole_winner_plays_in_gymnasium(tmp_path, capsys):
    """Its agents are in two waves; what one of those plays best by itself may be another setting."""
    words = [*TINY["dqn"], "--seeds", "3", "--learning-rate", "1e-3", "1e-2", "--out", str(tmp_path / "run")]
    assert main([*words, "--wave", "2", "--hidden-sizes", "8,8", "16,16"]) == 0
    said = capsys.readouterr().out
    assert "12 agent(s) x" in said
    assert "in 6 parts" in said
    assert "the largest part:" in said
    whole = result(tmp_path / "run")
    best = [int(row["agent"]) for row in table(tmp_path / "run") if all(
        row[name] == (",".join(map(str, value)) if name == "hidden_sizes" else f"{value:.9g}")
        for name, value in whole["ranking"][0]["setting"].items()
    )]  # fmt: skip
    assert len(best) == 3
    assert whole["gymnasium"]["agents"] == best
    parts = [json.loads((tmp_path / "run" / f"part-{k:03d}" / "result.json").read_text()) for k in range(6)]
    played = [x for part in parts if part["gymnasium"] for x in part["gymnasium"]["per_agent"]]
    assert played == whole["gymnasium"]["per_agent"]
    assert len(played) == 3
