"""What the documents tell a reader to type is run as it stands there."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jdqn
from jdqn import heads, networks
from jdqn.host.options import parse

ROOT = Path(__file__).parent.parent


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def test_the_worked_example_of_add_an_env():
    blocks = [block for block in python_blocks("docs/add_an_env.md") if "->" not in block]
    names: dict = {}
    exec("\n".join(blocks), names)
    evaluation = names["evaluation"]
    assert np.asarray(evaluation.returns).min() == 1.0
    assert 4.0 <= float(evaluation.lengths.mean()) < 6.5
    values = names["trainer"].policy.values(
        names["state"].learner.params, jax.random.key(2), np.eye(5)[:4], (), np.zeros(4, bool)
    )[0]
    assert (np.asarray(values).argmax(-1) == 1).all()  # always row


def test_the_six_lines_of_the_readme():
    """With a shorter run; the whole one is test_learning's business."""
    (block,) = python_blocks("README.md")
    assert len(block.strip().splitlines()) == 6
    names: dict = {}
    exec(block.replace("env.name)", "env.name, total_steps=4_000)").replace("(2, 32)", "(2, 3)"), names)
    assert names["returns"].shape == (3, 100)


@pytest.mark.parametrize("name", jdqn.ALGORITHMS)
def test_a_card_says_what_its_row_picks(name):
    """`--algo dqn` with the flags of the card is the same agent, on an environment where nothing is tuned for pairs."""
    card = (ROOT / "docs/algorithms.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    flags = re.findall(r"`(--[^`]+)`", re.search(r"^Row: .*?\n\n", card, re.M | re.S)[0])
    on = ["--env", "FourRooms-misc", "--algo"]
    told, meant = parse([*on, "dqn", *flags]), parse([*on, name])
    assert (told.config, told.hyper) == (meant.config, meant.hyper)
    assert re.search(rf"^python -m jdqn.run --env \S+ --algo {name}", card, re.M)
    assert f"paper_differences.md#{name})" in card
    assert f"\n## {name}\n" in (ROOT / "docs/paper_differences.md").read_text()


def test_the_commands_stand_at_the_top_of_the_readme():
    commands = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    train, test = (command.strip() for command in commands[:2])
    assert "\n" not in train
    assert train.endswith("-m jdqn.run --env CartPole-v1")
    assert "\n" not in test
    assert test.endswith(".venv/bin/pytest")


NETWORKS = {
    "CartPole, 120-84 MLP": ((4,), 2, (120, 84)),
    "MinAtar Breakout, 16 filters and 128 units": ((10, 10, 4), 3, (128,)),
    "Atari, Nature CNN, 4 actions": ((84, 84, 4), 4, (512,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bytes_of_scaling_are_those_of_the_networks(name):
    """Gradients in a ring: each device sends 2 (n - 1) / n times all parameters."""
    shape, actions, sizes = NETWORKS[name]
    network = networks.q_network("auto", shape, actions, heads.scalar(), hidden_sizes=sizes)
    params = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))
    count = sum(x.size for x in jax.tree.leaves(params))
    cells = re.search(rf"^\| {name} \| (.*) \|$", (ROOT / "docs/scaling.md").read_text(), re.M)[1].split(" | ")
    assert cells[0] == f"{count:,}"
    for devices, cell in zip((8, 64, 512), cells[1:], strict=True):
        number, unit = cell.split()
        told = float(number) * {"kB": 1e3, "MB": 1e6}[unit]
        assert told == pytest.approx(2 * (devices - 1) / devices * 4 * count, rel=0.01)


def test_the_latencies_of_scaling_are_those_of_its_assumptions():
    """Each message takes 2 (n - 1) steps in a ring. Their number, 2 or 3 to 4, is test_parallel's."""
    text = (ROOT / "docs/scaling.md").read_text()
    rows = re.findall(
        r"^\| (\d+) .*? \| (\d+) us \| ([\d,]+) \| ([\d.]+) ms \| ([\d.]+) to ([\d.]+) ms \|$", text, re.M
    )
    assert [row[0] for row in rows] == ["8", "64", "512"]
    for devices, step, steps, *told in rows:
        count = 2 * (int(devices) - 1)
        assert steps == f"{count:,}"
        assert [float(x) for x in told] == pytest.approx([k * count * int(step) / 1e3 for k in (2, 3, 4)], rel=0.01)


def first_table(text: str) -> list[dict[str, str]]:
    """Its rows, each a cell for every column."""
    head, _, *rows = re.search(r"^\|.*?\n\n", text, re.M | re.S)[0].strip().splitlines()
    names = head.strip("| ").split(" | ")
    return [dict(zip(names, re.split(r" ?\| ?", row)[1:-1], strict=True)) for row in rows]


@pytest.mark.parametrize("name", ["allreduce", "devices", "population"])
def test_what_scaling_says_was_measured_was(name):
    """Its tables are columns of what the benchmarks printed, which a new measurement changes."""
    told = first_table((ROOT / "docs/scaling.md").read_text().split(f"`python -m benchmarks.{name}")[1])
    printed = first_table((ROOT / f"benchmarks/results/{name}.txt").read_text())
    assert told == [{column: row[column] for column in told[0]} for row in printed]
