"""Reading a checkpoint, ours and TensorFlow's: `python -m benchmarks.reading ours|theirs names|values PREFIX`.

Each prints, as JSON, the seconds its work took without imports and a hash of what it read: of the names, or of every
tensor's bytes. One tensor at a time is held, as a converter would.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.measure import Command, Timing, alternate, python
from benchmarks.models import BenchmarkModel
from benchmarks.report import Report

_WHAT = {"names": "open and list the names", "values": "read every tensor"}
_WHO = {"ours": "graph_restore", "theirs": "TensorFlow"}


def measure(model: BenchmarkModel, rounds: int, report: Report) -> None:
    """Time both readers on both tasks, print the tables, and compare what they read."""
    for task, words in _WHAT.items():
        report.heading(f"Checkpoint of {model.data_bytes / 1e6:.1f} MB: {words}; median of {rounds}")
        commands = {who: python("-m", "benchmarks.reading", code, task, model.prefix) for code, who in _WHO.items()}
        timings = alternate({who: Command(made, inputs=model.files) for who, made in commands.items()}, rounds)
        report.table(timings, _WHO["theirs"])
        for who, timing in timings.items():
            report.line(f"{who} without its imports: {min(_seconds(timing)):.3f} s")
        hashes = {who: _last(timing)["hash"] for who, timing in timings.items()}
        report.equal(words, len(set(hashes.values())) == 1, str(hashes))


def _last(timing: Timing) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(timing.output.splitlines()[-1])
    return found


def _seconds(timing: Timing) -> list[float]:
    return [json.loads(sample.output.splitlines()[-1])["seconds"] for sample in timing.samples]


def read(who: str, task: str, prefix: str) -> dict[str, Any]:
    """Do the task; seconds of it without imports and hashing, and the hash."""
    opened = _open_ours if who == "ours" else _open_theirs
    opener = opened()
    start = time.perf_counter()
    names, get = opener(prefix)
    seconds = time.perf_counter() - start
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode())
        if task == "values":
            start = time.perf_counter()
            array = get(name)
            seconds += time.perf_counter() - start
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.reshape(-1).view("uint8").data)
    return {"seconds": seconds, "hash": digest.hexdigest()}


def _open_ours() -> Any:
    from graph_restore import load_checkpoint

    def opener(prefix: str) -> tuple[Iterable[str], Any]:
        checkpoint = load_checkpoint(prefix)
        return sorted(checkpoint), lambda name: checkpoint[name].read()

    return opener


def _open_theirs() -> Any:
    import tensorflow as tf

    def opener(prefix: str) -> tuple[Iterable[str], Any]:
        reader = tf.train.load_checkpoint(prefix)
        return sorted(reader.get_variable_to_shape_map()), reader.get_tensor

    return opener


if __name__ == "__main__":
    print(json.dumps(read(*sys.argv[1:4])))
