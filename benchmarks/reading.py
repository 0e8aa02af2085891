"""Reading a checkpoint, ours and TensorFlow's: `python -m benchmarks.reading ours|theirs names|values PREFIX`.

Each prints, as JSON, the seconds its imports and its work took and a hash of what it read: of the names, or of every
tensor's bytes. One tensor at a time is held, as a converter would; the time of hashing is not counted.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.checkpoints import BenchmarkCheckpoint
from benchmarks.measure import Command, Timing, alternate, python
from benchmarks.report import Report

_WHAT = {"names": "open and list the names", "values": "read every tensor, checksums tested"}
_WHO = {"ours": "graph_restore", "theirs": "TensorFlow"}


def measure(
    what: str,
    checkpoint: BenchmarkCheckpoint,
    rounds: int,
    report: Report,
    meaningful: bool,
    tasks: Iterable[str] = tuple(_WHAT),
) -> None:
    """Time both readers on the tasks, print the tables, and compare what they read."""
    for task in tasks:
        report.heading(f"{what}, {checkpoint.megabytes:.1f} MB: {_WHAT[task]}; median of {rounds}")
        reader = ("-m", "benchmarks.reading")
        commands = {
            who: Command(python(*reader, code, task, checkpoint.prefix), inputs=checkpoint.files)
            for code, who in _WHO.items()
        }
        timings = alternate(commands, rounds)
        report.table(timings, _WHO["theirs"])
        hashes = {who: _told(timing)[-1]["hash"] for who, timing in timings.items()}
        report.equal(_WHAT[task], len(set(hashes.values())) == 1, str(hashes))
        if task == "values":
            _compare(what, timings, report, meaningful)


def _compare(what: str, timings: dict[str, Timing], report: Report, meaningful: bool) -> None:
    """What the work took, with and without imports; hashing, alike for both, is in neither."""
    for words, stages in {"without imports": ("work",), "with imports": ("imports", "work")}.items():
        seconds = {
            who: statistics.median(sum(told[stage] for stage in stages) for told in _told(timing))
            for who, timing in timings.items()
        }
        ours, theirs = (seconds[who] for who in _WHO.values())
        report.line(f"{words}: {ours:.3f} s, TensorFlow {theirs:.3f} s, {ours / theirs:.2f} times")
        if meaningful:
            report.at_most(f"{what}, reading {words}, against TensorFlow", ours / theirs, 1)


def _told(timing: Timing) -> list[dict[str, Any]]:
    return [json.loads(sample.output.splitlines()[-1]) for sample in timing.samples]


class Hash:
    """A hash over names, dtypes, shapes and bytes of tensors."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add_name(self, name: str) -> None:
        self._digest.update(name.encode())

    def add(self, name: str, array: Any) -> None:
        self.add_name(name)
        self._digest.update(f"{array.dtype} {array.shape}".encode())
        self._digest.update(array.reshape(-1).view("uint8").data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def read(who: str, task: str, prefix: str) -> dict[str, Any]:
    """Do the task; seconds of its imports and of its work, without hashing, and the hash."""
    start = time.perf_counter()
    opener = _import_ours() if who == "ours" else _import_theirs()
    imported = time.perf_counter()
    names, get = opener(prefix)
    work = time.perf_counter() - imported
    found = Hash()
    for name in names:
        if task == "names":
            found.add_name(name)
            continue
        before = time.perf_counter()
        array = get(name)
        work += time.perf_counter() - before
        found.add(name, array)
    return {"imports": imported - start, "work": work, "hash": found.hexdigest()}


_Opener = Callable[[str], tuple[Iterable[str], Callable[[str], Any]]]


def _import_ours() -> _Opener:
    from graph_restore import load_checkpoint

    def opener(prefix: str) -> tuple[Iterable[str], Callable[[str], Any]]:
        checkpoint = load_checkpoint(prefix)
        return sorted(checkpoint), lambda name: checkpoint[name].read()

    return opener


def _import_theirs() -> _Opener:
    import tensorflow as tf

    def opener(prefix: str) -> tuple[Iterable[str], Callable[[str], Any]]:
        reader = tf.train.load_checkpoint(prefix)
        return sorted(reader.get_variable_to_shape_map()), reader.get_tensor

    return opener


if __name__ == "__main__":
    print(json.dumps(read(*sys.argv[1:4])))
