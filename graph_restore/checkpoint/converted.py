"""Tensors whose values are made from those of others as they are read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from graph_restore.arrays import np
from graph_restore.checkpoint.streaming import Array, aligned, pieces
from graph_restore.dtypes import DataType, type_name
from graph_restore.errors import GraphRestoreWarning
from graph_restore.storage.extent import Extent
from graph_restore.tensors import CastTensor, LazyTensor


class ConvertedTensor(CastTensor):
    """Floating-point values in another floating-point type, rounded to nearest.

    Those too large for it become infinite, and a GraphRestoreWarning says how many.
    """

    def parts(self) -> Iterator[Extent | bytes]:
        overflows = 0
        for piece in pieces(self.tensor):
            values = _cast(piece, self)
            overflows += int(np.count_nonzero(_infinite(values) & ~_infinite(piece)))
            yield values.tobytes()
        if overflows:
            text = f"tensor {self.name}: {overflows} of {self.size} values are too large for"
            warnings.warn(f"{text} {type_name(self.data_type)} and become infinite", GraphRestoreWarning, stacklevel=2)


class AveragedTensor(LazyTensor):
    """The mean of several tensors of one dtype and shape, reckoned in double precision."""

    def __init__(self, tensors: Sequence[LazyTensor]) -> None:
        super().__init__(tensors[0].name, tensors[0].data_type, tensors[0].shape)
        self.tensors = list(tensors)

    def parts(self) -> Iterator[Extent | bytes]:
        kinds = (DataType.DT_COMPLEX64, DataType.DT_COMPLEX128)
        wide = np.complex128 if self.data_type in kinds else np.float64
        for first, *others in aligned(self.tensors):
            with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs
                total = first.astype(wide)
                for other in others:
                    total += other.astype(wide)
                total /= len(self.tensors)
            yield _cast(total, self).tobytes()


def _cast(values: Array, tensor: LazyTensor) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(tensor.dtype)


def _infinite(values: Array) -> Array:
    return np.isinf(values)
