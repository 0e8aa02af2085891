"""Tensors whose values are made from those of others as they are read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from graph_restore.arrays import np
from graph_restore.checkpoint.streaming import Array, aligned, pieces
from graph_restore.dtypes import DataType, type_name
from graph_restore.errors import warn
from graph_restore.storage.extent import Extent
from graph_restore.tensors import CastTensor, LazyTensor


class ConvertedTensor(CastTensor):
    """Numbers in another type, as numpy converts them: rounded to nearest among floats, cut off to integers.

    Of those that the type cannot hold, too large ones, NaNs and imaginary parts, a GraphRestoreWarning says how many.
    """

    def parts(self) -> Iterator[Extent | bytes]:
        lost = 0
        for piece in pieces(self.tensor):
            values = _cast(piece, self)
            lost += int(np.count_nonzero(_lost(piece, values)))
            yield values.tobytes()
        if lost:
            text = f"tensor {self.name}: {lost} of {self.size} values are {_LOSSES[_loss(self)]}"
            warn(text.format(type_name(self.data_type)))

    def rows(self, start: int, stop: int) -> Array:
        return _cast(self.tensor.rows(start, stop), self)


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
    with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of imaginary parts
        return values.astype(tensor.dtype)


def _loss(tensor: ConvertedTensor) -> str:
    """What the type of `tensor` may fail to hold of what it is made from."""
    if tensor.dtype.kind in "iu":
        return "integer"
    return "imaginary" if tensor.tensor.dtype.kind == "c" and tensor.dtype.kind != "c" else "float"


_LOSSES = {
    "float": "too large for {} and become infinite",
    "integer": "NaN, too large or of the wrong sign for {}, and become some other number",
    "imaginary": "complex, and {} drops their imaginary part",
}


def _lost(values: Array, made: Array) -> Array:
    """Which of `values` are not, but for rounding, what was made of them."""
    if made.dtype.kind == "b":
        return np.zeros(values.shape, np.bool_)
    if values.dtype.kind == "c" and made.dtype.kind != "c":
        return np.asarray(values.imag != 0)
    if made.dtype.kind not in "iu":
        return np.asarray(np.isinf(made) & ~np.isinf(values))
    if values.dtype.kind in "iu":
        return np.asarray((made.astype(values.dtype) != values) | ((made < 0) != (values < 0)))
    wide = values.astype(np.float64)
    return np.asarray(made.astype(np.float64) != np.trunc(wide))
