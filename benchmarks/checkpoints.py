"""The checkpoints that are read and listed: `python -m benchmarks.checkpoints NAME DIRECTORY`.

Each is made once a directory: that of V2 by TensorFlow, that of V1 by graph_restore, and TensorFlow reads it in the
same run to compare.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import python, run


@dataclass(frozen=True)
class BenchmarkCheckpoint:
    """A checkpoint on disk: the prefix, and all of its files."""

    prefix: str
    files: tuple[str, ...]

    @property
    def megabytes(self) -> float:
        """The size of its files."""
        return sum(map(os.path.getsize, self.files)) / 1e6


def ensure_checkpoint(name: str, work: Path) -> BenchmarkCheckpoint:
    """The checkpoint `name` under `work`, made in another process when it is not there yet."""
    directory, prefix = work / name, str(work / name / "model.ckpt")
    if not (directory / "made").exists():
        run(python("-m", "benchmarks.checkpoints", name, str(directory)))
        (directory / "made").touch()
    files = [str(path) for path in sorted(directory.iterdir()) if path.name.startswith("model.ckpt")]
    return BenchmarkCheckpoint(prefix, tuple(files))


def _make(name: str, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    builder, size = _BUILDERS[name]
    builder(str(directory / "model.ckpt"), size)


def _tensors(prefix: str, count: int) -> None:
    """Kernels of many shapes, and the two slots that Adam keeps for each."""
    import numpy as np
    import tensorflow as tf

    values: dict[str, Any] = {}
    for number in range(count // 3):
        kernel = np.full([number % 7 + 1, number % 5 + 1], number, np.float32)
        name = f"tower/block_{number // 50}/layer_{number % 50}/kernel"
        values.update({name: kernel, f"{name}/Adam": kernel, f"{name}/Adam_1": kernel})
    for number in range(count - len(values)):
        values[f"global_step_{number}"] = np.int64(number)
    names = sorted(values)
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=[values[name] for name in names]
    )


def _integers(prefix: str, count: int) -> None:
    """Half of them int32 such as token ids, of one to three bytes as varints; half int64 of all lengths up to ten."""
    import numpy as np

    from graph_restore.checkpoint import save_checkpoint

    random = np.random.default_rng(23)
    tokens = random.integers(0, 30522, count // 2, np.int32)
    hashes = random.integers(-(1 << 63), (1 << 63) - 1, count // 2) >> random.integers(0, 63, count // 2)
    save_checkpoint(prefix, {"tokens": tokens, "hashes": hashes}, version=1)


_BUILDERS: dict[str, tuple[Callable[[str, int], None], int]] = {
    "tensors_10000": (_tensors, 10_000),
    "tensors_100": (_tensors, 100),
    "integers_20000000": (_integers, 20_000_000),
    "integers_20000": (_integers, 20_000),
}

if __name__ == "__main__":
    _make(sys.argv[1], Path(sys.argv[2]))
