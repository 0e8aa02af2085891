"""Tensors that a checkpoint lists and that cannot be given as a whole.

A Saver may save some of a partitioned variable's slices only, and one shard of a V1 checkpoint holds only its own:
the slices can be read, the whole cannot. Variants and resource handles have values only while a graph runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, type_name
from graph_restore.errors import CorruptionError, UnsupportedFormatError
from graph_restore.slices import JoinedStrings, JoinedTensor, SlicedParts, join
from graph_restore.storage.extent import Extent
from graph_restore.tensors import LazyTensor


class PartialTensor(JoinedTensor):
    """A tensor of which some slices are missing: they can be had one by one, and `read` is a CorruptionError."""

    def parts(self) -> Iterator[Extent | bytes]:
        _refuse(self, self.slices)

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        _check_rows(self, start, stop)
        return super().rows(start, stop)


class PartialStrings(JoinedStrings):
    """The same for strings."""

    def strings(self, verify: bool = True) -> Iterator[bytes]:
        _refuse(self, self.slices)

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        _check_rows(self, start, stop)
        return super().rows(start, stop)


class OpaqueTensor(LazyTensor):
    """A tensor whose type has no values that could be read: a variant or a resource handle."""

    @property
    def nbytes(self) -> int:
        return 0

    def parts(self) -> Iterator[Extent | bytes]:
        raise UnsupportedFormatError(
            f"tensor {self.name} is of type {type_name(self.data_type)}, whose values only TensorFlow itself can read"
        )


def assemble(name: str, kind: DataType, shape: Sequence[int], slices: SlicedParts) -> LazyTensor:
    """The tensor of `slices`: the only one as it is if it is whole, else their join, partial if some are missing.

    CorruptionError when slices overlap.
    """
    if len(slices) == 1 and slices[0][0].whole:
        return slices[0][1]
    if sum(math.prod(box.lengths) for box, _ in slices) >= math.prod(shape):
        return join(name, kind, shape, slices)
    partial = PartialStrings if kind is DataType.DT_STRING else PartialTensor
    return partial(name, kind, shape, slices)


def _check_rows(tensor: PartialTensor | PartialStrings, start: int, stop: int) -> None:
    """CorruptionError unless the slices that are there hold all of the rows [start, stop)."""
    held = 0
    for box, _ in tensor.slices:
        low, high = max(start, box.starts[0]), min(stop, box.starts[0] + box.lengths[0])
        held += max(0, high - low) * math.prod(box.lengths[1:])
    if held < (stop - start) * math.prod(tensor.shape[1:]):
        _refuse(tensor, tensor.slices)


def _refuse(tensor: LazyTensor, slices: SlicedParts) -> NoReturn:
    raise CorruptionError(
        f"only slices of tensor {tensor.name} are in this checkpoint, not the whole; a shard may be missing, "
        "or a Saver wrote only these (they can be read one by one, see Checkpoint.slices)",
        expected=f"shape {list(tensor.shape)}",
        found="; ".join(str(box) for box, _ in slices),
    )
