"""Make docs/benchmarks.md, and its figures, of what the benchmarks left in benchmarks/results/.

    python -m benchmarks.report [--results FOLDER] [--out FILE]

Nothing is measured here. A section is what a script says of itself, then the tables that it printed, then a figure.
"""

import argparse
import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent


class Section(NamedTuple):
    """What one call of `common.tell` wrote."""

    title: str
    notes: str  # between title and machine
    machine: str
    table: str
    records: list[dict[str, Any]]


def read(path: Path) -> list[Section]:
    """The sections of a file of results."""
    sections, lines, records = [], list[str](), list[dict[str, Any]]()
    for line in [*path.read_text().splitlines(), "end"]:
        if line.startswith("{"):
            records.append(json.loads(line))
        else:
            if records:
                sections.append(_section(lines, records))
                lines, records = [], []
            lines.append(line)
    return sections


def _section(lines: list[str], records: list[dict[str, Any]]) -> Section:
    first = next(k for k, line in enumerate(lines) if line.startswith("|"))
    title, *notes, machine = "\n".join(lines[:first]).strip().split("\n\n")
    table = "\n".join(line for line in lines[first:] if line)
    return Section(title, "\n\n".join(notes), machine, table, records)


def lines(panel: str, x: str, y: str, by: str) -> Callable[[list[dict], Path], None]:
    """Return draw(records, path): a panel for each value of `panel`, in it a line over `x` for each value of `by`."""

    def draw(records, path):
        panels = list(dict.fromkeys(r[panel] for r in records))
        figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.2), squeeze=False, layout="constrained")
        for name, axis in zip(panels, axes[0], strict=True):
            some = [r for r in records if r[panel] == name]
            for which in dict.fromkeys(r[by] for r in some):
                points = sorted((r[x], r[y]) for r in some if r[by] == which)
                axis.plot(*zip(*points, strict=True), marker="o", label=f"{which}")
            axis.set(title=name, xscale="log", yscale="log", xlabel=_words(x), ylabel=_words(y))
            axis.grid(True, alpha=0.3)
            axis.legend(title=_words(by), fontsize=8)
        figure.savefig(path, dpi=100, metadata={"Software": None})
        plt.close(figure)

    return draw


def bars(records: list[dict], path: Path) -> None:
    """How many times longer each library takes than jdqn, at a logarithmic scale."""
    found = [r for r in records if r.get("times") and r["library"] != "jdqn"][::-1]
    figure, axis = plt.subplots(figsize=(7, 1 + 0.35 * len(found)), layout="constrained")
    names = [f"{r['library']}, {r['row']}" for r in found]
    drawn = axis.barh(range(len(found)), [r["times"] for r in found], color="tab:blue")
    axis.bar_label(drawn, [f"{r['times']:.2f}" for r in found], padding=3)
    axis.set_yticks(range(len(found)), names)
    axis.axvline(1, color="black", linewidth=1)
    axis.set(xscale="log", xlabel="seconds, as a multiple of jdqn's")
    axis.margins(x=0.15)  # for the labels
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _words(name: str) -> str:
    return name.replace("_", " ")


class Chapter(NamedTuple):
    """A part of the document; `figure` draws the records that have all of `needs`."""

    title: str
    script: str
    files: str  # a pattern
    figure: Callable[[list[dict], Path], None] | None = None
    needs: tuple[str, ...] = ()


CHAPTERS = [
    Chapter("Beside other libraries", "versus", "versus-*.txt", bars, ("row", "library")),
    Chapter("A race to a solved CartPole", "race", "race.txt"),
    Chapter("Where an iteration goes", "floor", "floor.txt"),
    Chapter(
        "Environments alone", "stepping", "stepping.txt",
        lines("env", "environments", "steps_per_second", "library"), ("environments",),
    ),
    Chapter("Replay", "replay", "replay.txt"),
    Chapter(
        "Training", "training", "training.txt",
        lines("env", "environments", "steps_per_second", "updates"), ("environments", "updates"),
    ),
    Chapter("Doubling", "scaling", "scaling.txt", lines("what", "value", "microseconds", "env"), ("value",)),
    Chapter("From the start", "startup", "startup.txt"),
    Chapter(
        "Populations", "population", "population.txt", lines("work", "agents", "steps_per_second", "way"), ("agents",)
    ),
    Chapter("Devices and processes", "devices", "devices.txt"),
    Chapter("Messages between devices", "allreduce", "allreduce.txt"),
    Chapter("Populations on an accelerator", "accelerator", "accelerator.txt"),
    Chapter("Gradients", "networks", "networks.txt"),
    Chapter("Checkpoints", "checkpoint", "checkpoint.txt"),
    Chapter("An hour", "memory", "memory.txt"),
]  # fmt: skip
HEAD = """# Benchmarks

Made by `python -m benchmarks.report` from [benchmarks/results](../benchmarks/results), which has what the scripts
printed: change those, not this. Times are wall clock until the result is there, medians of at least five unless a
section says otherwise, with the least and the most as `spread` where they are kept; compilation is apart, timed once.
"""


def description(script: str) -> str:
    """What a script says of itself, commands as code."""
    doc = ast.get_docstring(ast.parse((ROOT / "benchmarks" / f"{script}.py").read_text())) or ""
    parts = []
    for block in doc.split("\n\n"):
        code = block.startswith("    ")
        parts.append("```sh\n" + "\n".join(x.strip() for x in block.splitlines()) + "\n```" if code else block)
    return "\n\n".join(parts)


def write(chapter: Chapter, results: Path, out: Path, figures: Path) -> str:
    """The text of a chapter, empty where nothing was measured; its figure is drawn into `figures`."""
    sections = [section for path in sorted(results.glob(chapter.files)) for section in read(path)]
    if not sections:
        return ""
    text, machine = [f"## {chapter.title}", description(chapter.script)], None
    for section in sections:
        text += [f"### {section.title}", section.notes]
        if section.machine != machine:
            machine = section.machine
            text.append(machine)
        text.append(section.table)
    records = [record for section in sections for record in section.records]
    records = [{"work": "CartPole"} | r for r in records if all(r.get(name) is not None for name in chapter.needs)]
    if chapter.title == "Training":  # of the presets each has numbers of its own
        records = sections[-1].records
    if chapter.figure and records:
        path = f"{chapter.script}.png"
        chapter.figure(records, figures / path)
        text.append(f"![{chapter.title.lower()}]({os.path.relpath(results / path, out.parent)})")
    return "\n\n".join(part for part in text if part)


def document(results: Path, out: Path, figures: Path) -> str:
    """The text of a document at `out` that shows the figures of `results`; they are drawn into `figures`."""
    chapters = [write(chapter, results, out, figures) for chapter in CHAPTERS]
    return "\n\n".join([HEAD.strip(), *filter(None, chapters)]) + "\n"


def main(arguments: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args(arguments)
    results, out = options.results.resolve(), options.out.resolve()
    out.write_text(document(results, out, results))
    print(f"wrote {out}")
    return out


if __name__ == "__main__":
    main()
