"""Prints times, memory and ratios, side by side and from one run: `python -m benchmarks [PART ...] [--quick]`.

A part is import, small, large or nodes (freezing models of 0.7 MB, of 1.3 GB, of 100,000 nodes), list, read, varints,
convert or rewrite (checkpoints), packages or start (models past 2 GB, written and run in C++), live (restore_graph), or
one of the groups: main (import, small, large, read), freeze, checkpoint.

Needs TensorFlow 2.21 in this Python and 20 GB of disk; packages and start also cmake and a C++ compiler. Exit status 1
when results differ, never for a missed target.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.parts import GROUPS, PARTS, Run
from benchmarks.report import Report


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure [main]")
    parser.add_argument("--work", type=Path, help="keep the models here, for the next run too (else they are removed)")
    parser.add_argument("--quick", action="store_true", help="small models only, and fewer runs")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.parts if name not in {*PARTS, *GROUPS}]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join([*GROUPS, *PARTS])}")
    with ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graph_restore_bench_")))
        return _run(options.parts or ["main"], Run(work.absolute(), options.quick, Report()))


def _run(asked: list[str], run: Run) -> int:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    run.report.line(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {load}, work in {run.work}")
    wanted = {part for name in asked for part in GROUPS.get(name, (name,))}
    for part, measure in PARTS.items():
        if part in wanted:
            measure(run)
    return run.report.finish()


if __name__ == "__main__":
    sys.exit(main())
