"""Prints times, memory and ratios, side by side and from one run: `python -m benchmarks [--work DIR] [--quick]`.

Needs TensorFlow 2.21 in this Python and 8 GB of disk. Exit status 1 when outputs differ, never for a missed target.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import freezing, importing, reading
from benchmarks.freezing import COPY, OURS, SYNCED, THEIRS
from benchmarks.measure import Timing
from benchmarks.models import ensure
from benchmarks.report import Report


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--work", type=Path, help="keep the models here, for the next run too (else they are removed)")
    parser.add_argument("--quick", action="store_true", help="without the 1.3 GB model, and fewer runs")
    parser.add_argument("--only", choices=("large", "small", "import", "read"), help="one part alone")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graph_restore_bench_")))
        return _run(work.absolute(), options.quick, options.only)


def _run(work: Path, quick: bool, only: str | None) -> int:
    report = Report()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    report.line(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {load}, work in {work}")
    large = "bert_tiny" if quick else "bert_large"
    if only in (None, "import"):
        _import_targets(importing.measure(3 if quick else 9, report), report)
    if only in (None, "small"):
        timings = freezing.measure("small model", ensure("digits", work), work / "out", 1 if quick else 5, report)
        _small_targets(timings, report)
    if only in (None, "large"):
        rounds = 1 if quick else 3
        timings = freezing.measure(large.replace("_", " "), ensure(large, work), work / "out", rounds, report)
        _large_targets(timings, report, meaningful=not quick)
    if only in (None, "read"):
        reading.measure(ensure(large, work), 1 if quick else 3, report)
    return report.finish()


def _import_targets(seconds: float, report: Report) -> None:
    report.target(f"import graph_restore at most 60 ms after numpy: {seconds * 1e3:.1f} ms", seconds <= 0.06)


def _small_targets(timings: dict[str, Timing], report: Report) -> None:
    seconds = timings[OURS].median
    report.target(f"small model, whole command, under 0.35 s: {seconds:.3f} s", seconds < 0.35)


def _large_targets(timings: dict[str, Timing], report: Report, meaningful: bool) -> None:
    ours = timings[OURS]
    report.target(f"large model, peak memory under 80 MB: {ours.peak_bytes / 1e6:.1f} MB", ours.peak_bytes < 80e6)
    if not meaningful:
        return  # the tiny model is all start-up
    for name in (COPY, SYNCED):
        ratio = ours.median / timings[name].median
        report.target(f"large model, at most 1.5 times {name}: {ratio:.2f} times", ratio <= 1.5)
    ratio = timings[THEIRS].median / ours.median
    report.target(f"large model, at least 6 times faster than TensorFlow: {ratio:.1f} times", ratio >= 6)


if __name__ == "__main__":
    sys.exit(main())
