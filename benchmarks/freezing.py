"""`graph-restore freeze` against cp of the same bytes and against TensorFlow's freeze_graph."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.copying import COPY, copies
from benchmarks.measure import Command, Timing, alternate, python, run
from benchmarks.models import BenchmarkModel
from benchmarks.report import Report

OURS, THEIRS = "graph-restore freeze", "TF freeze_graph"
_TOOL = "tensorflow.python.tools.freeze_graph"


def commands(model: BenchmarkModel, folder: Path) -> dict[str, Command]:
    """What is run, by the name it has in the table; each writes a file of its own into `folder`."""
    ours, theirs = folder / "ours.pb", folder / "theirs.pb"
    fetches = ",".join(model.fetches)
    freeze = python("-m", "graph_restore", "freeze", model.meta, "--fetches", fetches, "-o", str(ours))
    tool = python(
        "-m", _TOOL, f"--input_meta_graph={model.meta}", f"--input_checkpoint={model.prefix}", "--input_binary=true",
        f"--output_graph={theirs}", f"--output_node_names={fetches}",
    )  # fmt: skip
    return {
        **copies(model.data, folder),
        OURS: Command(freeze, [ours], model.files),
        THEIRS: Command(tool, [theirs], model.files),
    }


def measure(name: str, model: BenchmarkModel, folder: Path, rounds: int, report: Report) -> dict[str, Timing]:
    """Time all four, print them, and compare what both frozen graphs compute."""
    folder.mkdir(parents=True, exist_ok=True)
    report.heading(
        f"{name}: {model.data_bytes / 1e6:.1f} MB of weights, {model.variables} variables, {model.nodes} nodes; "
        f"median of {rounds}, page cache warm"
    )
    made = commands(model, folder)
    try:
        timings = alternate(made, rounds)
        report.table(timings, COPY)
        _compare(name, model, folder, report)
    finally:
        for command in made.values():
            command.clean()
    return timings


def _compare(name: str, model: BenchmarkModel, folder: Path, report: Report) -> None:
    """Run both files on the same input; each in its own process, since both are large."""
    feeds = json.dumps({"fetches": model.fetches, "feeds": model.feeds})
    ours, theirs = (
        json.loads(run(python("-m", "benchmarks.outputs", str(folder / file), feeds)).output.splitlines()[-1])
        for file in ("ours.pb", "theirs.pb")
    )
    report.line(f"outputs of both files on one input: {', '.join(ours)}")
    report.equal(name, ours == theirs, f"ours {ours}, theirs {theirs}")
