"""`graph-restore checkpoint convert`, from V2 to safetensors and to V2 again, against cp of the same bytes.

`python -m benchmarks.converting FILE.safetensors` prints the hash of its tensors that benchmarks.reading prints for a
checkpoint; it reads the file by the words of the format's README, with nothing of ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import BenchmarkCheckpoint
from benchmarks.copying import COPY, copies, targets
from benchmarks.measure import Command, alternate, python, run
from benchmarks.reading import Hash
from benchmarks.report import Report

OURS = "graph-restore checkpoint convert"


def measure_safetensors(
    checkpoint: BenchmarkCheckpoint, folder: Path, rounds: int, report: Report, meaningful: bool
) -> None:
    """V2 to one safetensors file."""
    output = folder / "out.safetensors"
    reader = python("-m", "benchmarks.converting", str(output))
    _measure("V2 to safetensors", checkpoint, [output], reader, rounds, report, meaningful)


def measure_rewriting(
    checkpoint: BenchmarkCheckpoint, folder: Path, rounds: int, report: Report, meaningful: bool
) -> None:
    """V2 to V2, as it is after an edit; TensorFlow reads the new one."""
    prefix = folder / "out.ckpt"
    outputs = [folder / f"out.ckpt{suffix}" for suffix in (".index", ".data-00000-of-00001")]
    reader = python("-m", "benchmarks.reading", "theirs", "values", str(prefix))
    _measure("V2 to V2", checkpoint, [prefix, *outputs], reader, rounds, report, meaningful)


def _measure(
    what: str,
    checkpoint: BenchmarkCheckpoint,
    outputs: Sequence[Path],
    reader: Sequence[str],
    rounds: int,
    report: Report,
    meaningful: bool,
) -> None:
    """Time the command and both copies, and compare what `reader` finds with what TensorFlow reads from the source."""
    outputs[0].parent.mkdir(parents=True, exist_ok=True)
    data = next(path for path in checkpoint.files if ".data-" in path)
    convert = python("-m", "graph_restore", "checkpoint", "convert", checkpoint.prefix, "-o", str(outputs[0]))
    commands = {**copies(data, outputs[0].parent), OURS: Command(convert, outputs, checkpoint.files)}
    report.heading(f"{what}, {checkpoint.megabytes:.1f} MB; median of {rounds}, page cache warm")
    try:
        timings = alternate(commands, rounds)
        report.table(timings, COPY)
        theirs, ours = _hash(python("-m", "benchmarks.reading", "theirs", "values", checkpoint.prefix)), _hash(reader)
        report.equal(what, theirs == ours, f"TensorFlow read {theirs} from the source, {ours} was written")
    finally:
        for command in commands.values():
            command.clean()
    targets(what, timings, OURS, report, meaningful)


def _hash(command: Sequence[str]) -> str:
    found: str = json.loads(run(command).output.splitlines()[-1])["hash"]
    return found


_DTYPES = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}


def hash_of(path: str) -> str:
    """The hash of all tensors of a safetensors file."""
    import numpy as np

    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        found = Hash()
        for name in sorted(header):
            entry = header[name]
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            values = np.frombuffer(file.read(end - begin), _DTYPES[entry["dtype"]])
            found.add(name, values.reshape(entry["shape"]))
    return found.hexdigest()


if __name__ == "__main__":
    print(json.dumps({"hash": hash_of(sys.argv[1])}))
