"""The names and shapes of a checkpoint of many tensors, whole processes: command, library, and TensorFlow.

`python -m benchmarks.listing ours|theirs PREFIX` prints a line for each tensor, its name and its shape.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

from benchmarks.checkpoints import BenchmarkCheckpoint
from benchmarks.measure import Command, alternate, python
from benchmarks.report import Report

COMMAND, LIBRARY, THEIRS = "graph-restore checkpoint ls", "load_checkpoint", "tf.train.list_variables"
_LINE = re.compile(r"  (\S+) +\w+ +(\[[\d, ]*\])( .*)?")  # of the command: name, dtype, shape, bytes


def measure(checkpoint: BenchmarkCheckpoint, rounds: int, report: Report, meaningful: bool) -> None:
    """Time all three, print them, and compare what they list."""
    commands = {
        THEIRS: python("-m", "benchmarks.listing", "theirs", checkpoint.prefix),
        LIBRARY: python("-m", "benchmarks.listing", "ours", checkpoint.prefix),
        COMMAND: python("-m", "graph_restore", "checkpoint", "ls", checkpoint.prefix),
    }
    timings = alternate({who: Command(made, inputs=checkpoint.files) for who, made in commands.items()}, rounds)
    found = {who: listed(timing.output) for who, timing in timings.items()}
    report.heading(f"Listing {len(found[THEIRS])} tensors, whole processes; median of {rounds}")
    report.table(timings, THEIRS)
    same = bool(found[THEIRS]) and found[COMMAND] == found[LIBRARY] == found[THEIRS]
    report.equal("listing", same, str({who: len(lines) for who, lines in found.items()}))
    for who in (LIBRARY, COMMAND) if meaningful else ():
        ratio = timings[THEIRS].median / timings[who].median
        report.at_least(f"listing by {who}, faster than TensorFlow", ratio, 10)


def listed(output: str) -> list[str]:
    """The lines about tensors, however the command has aligned them."""
    return [f"{match[1]} {match[2]}" for line in output.splitlines() if (match := _LINE.fullmatch(line))]


def _lines(names: Iterable[tuple[str, str, Sequence[int]]]) -> None:
    """As the command prints them."""
    print("\n".join(f"  {name} {dtype} {list(shape)} " for name, dtype, shape in names))


def _ours(prefix: str) -> None:
    from graph_restore import load_checkpoint

    _lines((name, "dtype", tensor.shape) for name, tensor in load_checkpoint(prefix).items())


def _theirs(prefix: str) -> None:
    import tensorflow as tf

    _lines((name, "dtype", shape) for name, shape in tf.train.list_variables(prefix))


if __name__ == "__main__":
    {"ours": _ours, "theirs": _theirs}[sys.argv[1]](sys.argv[2])
