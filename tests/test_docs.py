"""What the documents tell a reader to type is run as it stands there."""

import re
from pathlib import Path

import jax
import numpy as np

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


def test_the_commands_stand_at_the_top_of_the_readme():
    commands = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    train, test = (command.strip() for command in commands[:2])
    assert "\n" not in train
    assert train.endswith("-m jdqn.run --env CartPole-v1")
    assert "\n" not in test
    assert test.endswith(".venv/bin/pytest")
