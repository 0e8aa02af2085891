"""What can be measured: each part with its models, its rounds and its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import converting, copying, freezing, importing, listing, live, packages, reading
from benchmarks.checkpoints import ensure_checkpoint
from benchmarks.measure import Timing
from benchmarks.models import BenchmarkModel, ensure
from benchmarks.report import Report


@dataclass(frozen=True)
class Run:
    """One run of the benchmarks: where models and outputs lie, and whether small ones do."""

    work: Path
    quick: bool
    report: Report

    def rounds(self, full: int) -> int:
        """How often a command is timed."""
        return 1 if self.quick else full

    @property
    def out(self) -> Path:
        """The folder for what the commands write."""
        return self.work / "out"

    def large(self) -> BenchmarkModel:
        """The model of 1.3 GB, or the tiny one of the same graph."""
        return ensure("bert_tiny" if self.quick else "bert_large", self.work)


def _import(run: Run) -> None:
    seconds = importing.measure(3 if run.quick else 9, run.report)
    run.report.at_most("import graph_restore after numpy", seconds * 1e3, 60, "ms")


def _small(run: Run) -> None:
    timings = freezing.measure("small model", ensure("digits", run.work), run.out, run.rounds(5), run.report)
    run.report.at_most("small model, whole command", timings[freezing.OURS].median, 0.35, "s")


def _large(run: Run) -> None:
    timings = freezing.measure("large model", run.large(), run.out, run.rounds(3), run.report)
    copying.targets("large model", timings, freezing.OURS, run.report, meaningful=not run.quick)
    _against_tensorflow("large model", timings, 6, run)


def _nodes(run: Run) -> None:
    model = ensure("nodes_1000" if run.quick else "nodes_100000", run.work)
    timings = freezing.measure("graph of many nodes", model, run.out, run.rounds(5), run.report)
    _against_tensorflow("graph of many nodes", timings, 15, run)


def _against_tensorflow(what: str, timings: dict[str, Timing], least: float, run: Run) -> None:
    if not run.quick:  # a tiny model is all start-up
        ratio = timings[freezing.THEIRS].median / timings[freezing.OURS].median
        run.report.at_least(f"{what}, faster than TensorFlow", ratio, least)


def _read(run: Run) -> None:
    reading.measure("V2 checkpoint", run.large().checkpoint, run.rounds(5), run.report, not run.quick)


def _list(run: Run) -> None:
    checkpoint = ensure_checkpoint("tensors_100" if run.quick else "tensors_10000", run.work)
    listing.measure(checkpoint, run.rounds(7), run.report, meaningful=not run.quick)


def _varints(run: Run) -> None:
    checkpoint = ensure_checkpoint("integers_20000" if run.quick else "integers_20000000", run.work)
    reading.measure("V1 checkpoint of integers", checkpoint, run.rounds(5), run.report, not run.quick, ["values"])


def _convert(run: Run) -> None:
    checkpoint = run.large().checkpoint
    converting.measure_safetensors(checkpoint, run.out, run.rounds(5), run.report, meaningful=not run.quick)


def _rewrite(run: Run) -> None:
    checkpoint = run.large().checkpoint
    converting.measure_rewriting(checkpoint, run.out, run.rounds(5), run.report, meaningful=not run.quick)


def _packages(run: Run) -> None:
    model = ensure("tables_tiny" if run.quick else "tables_3gb", run.work)
    packages.measure_writing(model, run.out, run.rounds(3), run.report, meaningful=not run.quick)


def _start(run: Run) -> None:
    model = ensure("tables_tiny" if run.quick else "tables_1gb", run.work)
    packages.measure_start(model, run.out, run.rounds(3), run.report, meaningful=not run.quick)


def _live(run: Run) -> None:
    live.measure(run.large(), run.out, run.rounds(13), run.report, meaningful=not run.quick)


PARTS: dict[str, Callable[[Run], None]] = {
    "import": _import,
    "small": _small,
    "large": _large,
    "nodes": _nodes,
    "read": _read,
    "list": _list,
    "varints": _varints,
    "convert": _convert,
    "rewrite": _rewrite,
    "packages": _packages,
    "start": _start,
    "live": _live,
}
GROUPS: dict[str, tuple[str, ...]] = {
    "main": ("import", "small", "large", "read"),
    "freeze": ("small", "large", "nodes", "packages", "start"),
    "checkpoint": ("list", "read", "varints", "convert", "rewrite"),
}
