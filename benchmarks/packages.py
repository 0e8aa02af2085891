"""Models past 2 GB: written as a memory-mapped package and as a SavedModel, against cp; how soon C++ runs a package.

`python -m benchmarks.packages PATH FETCH` prints what TensorFlow computes from a SavedModel or a .meta.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.copying import COPY, copies, targets
from benchmarks.measure import ROOT, Command, alternate, python, run
from benchmarks.models import BenchmarkModel
from benchmarks.report import Report

PACKAGE, SAVED_MODEL = "graph-restore freeze to .pbmm", "graph-restore export to SavedModel"
_FEED = ("places:0", "4", "0,1,2,1")


def measure_writing(model: BenchmarkModel, folder: Path, rounds: int, report: Report, meaningful: bool) -> None:
    """Both ways to write a model too large for one GraphDef."""
    folder.mkdir(parents=True, exist_ok=True)
    package, saved = folder / "large.pbmm", folder / "large_saved_model"
    fetch = model.fetches[0]
    freeze = python("-m", "graph_restore", "freeze", model.meta, "--fetches", fetch, "-o", str(package))
    export = python(
        "-m", "graph_restore", "export", model.meta, "-o", str(saved), "--format", "saved_model", "--fetches", fetch,
    )  # fmt: skip
    commands = {
        **copies(model.data, folder),
        PACKAGE: Command(freeze, [package], model.files),
        SAVED_MODEL: Command(export, [saved], model.files),
    }
    report.heading(f"past 2 GB: {model.data_bytes / 1e6:.1f} MB of weights; median of {rounds}, page cache warm")
    try:
        timings = alternate(commands, rounds)
        report.table(timings, COPY)
        found = {
            "the package, in C++": _told(run(_program("memmapped", folder, package, fetch)).output),
            "the SavedModel": run(python("-m", "benchmarks.packages", str(saved), fetch)).output.splitlines()[-1],
            "the source": run(python("-m", "benchmarks.packages", model.meta, fetch)).output.splitlines()[-1],
        }
        report.equal("what was written", len(set(found.values())) == 1, str(found))
    finally:
        for command in commands.values():
            command.clean()
    for name in (PACKAGE, SAVED_MODEL):
        targets(name, timings, name, report, meaningful)


def measure_start(model: BenchmarkModel, folder: Path, rounds: int, report: Report, meaningful: bool) -> None:
    """From start to the first result in C++: a .pb of 1 GB, and a package of the same model."""
    folder.mkdir(parents=True, exist_ok=True)
    fetch = model.fetches[0]
    outputs = {"frozen": folder / "start.pb", "memmapped": folder / "start.pbmm"}
    for path in outputs.values():
        run(python("-m", "graph_restore", "freeze", model.meta, "--fetches", fetch, "-o", str(path)))
    commands = {
        path.suffix: Command(_program(name, folder, path, fetch), inputs=[str(path)]) for name, path in outputs.items()
    }
    report.heading(f"C++, start to first result: {model.data_bytes / 1e6:.1f} MB of weights; median of {rounds}")
    try:
        timings = alternate(commands, rounds)
    finally:
        for path in outputs.values():
            path.unlink(missing_ok=True)
    report.table(timings, ".pb")
    results = {suffix: _told(timing.output) for suffix, timing in timings.items()}
    report.equal("C++ results", len(set(results.values())) == 1, str(results))
    if meaningful:
        report.at_least("a package starts faster than a .pb", timings[".pb"].median / timings[".pbmm"].median, 10)


def _program(name: str, folder: Path, model: Path, fetch: str) -> list[str]:
    """The command that runs a model in a program of examples/cpp, which is built first."""
    build = folder / f"build_{name}"
    if not (build / f"run_{name}").exists():
        source = ROOT / "examples" / "cpp" / name
        for command in (
            ["cmake", "-S", str(source), "-B", str(build), f"-DPython3_EXECUTABLE={sys.executable}"],
            ["cmake", "--build", str(build)],
        ):
            subprocess.run(command, check=True, capture_output=True)
    return [str(build / f"run_{name}"), str(model), f"{fetch}:0", *_FEED]


def _told(output: str) -> str:
    """The values that a program of examples/cpp printed last."""
    return " ".join(f"{float(value):.6g}" for value in output.splitlines()[-1].split(","))


def compute(path: str, fetch: str) -> str:
    """What a SavedModel, or the model of a .meta, gives, in TensorFlow."""
    import tensorflow as tf

    name, _, values = _FEED
    fed: Any = [float(value) for value in values.split(",")]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        if path.endswith(".meta"):
            tf.compat.v1.train.import_meta_graph(path).restore(session, path.removesuffix(".meta"))
        else:
            tf.compat.v1.saved_model.load(session, ["serve"], path)
        return " ".join(f"{value:.6g}" for value in session.run(f"{fetch}:0", {name: fed}).ravel())


if __name__ == "__main__":
    print(compute(*sys.argv[1:3]))
