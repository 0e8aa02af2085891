"""Resampler (tf.contrib.resampler) written with ops that TensorFlow still has.

`data` is [batch, height, width, channels], `warp` [batch, ..., 2] holds x and y; the output is [batch, ..., channels],
interpolated between the four points around (x, y), points outside the picture counting as zero, and zero for places
more than one point outside (resampler_ops.cc of TensorFlow 1.15, whose order of addition is kept).
"""

from __future__ import annotations

from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.transforms.composing import Composer

_INT, _BOOL = DataType.DT_INT32, DataType.DT_BOOL


def resampler(make: Composer) -> list[Any]:
    """Compose the node; it needs no functions."""
    _Resampler(make).compose()
    return []


class _Resampler:
    def __init__(self, make: Composer) -> None:
        self.make = make
        self.dtype = make.type("T")
        self.data, self.warp = make.inputs
        self.zero, self.one, self.last = (make.constant(number) for number in (0, 1, -1))
        self.none = self.real(self.zero)
        self.unit = self.real(self.one)

    def compose(self) -> None:
        make = self.make
        shape = make("Shape", self.data, T=self.dtype, out_type=_INT)
        batch, height, width, channels = (self.gather(shape, make.constant(axis), self.zero) for axis in range(4))
        places = make("Shape", self.warp, T=self.dtype, out_type=_INT)
        inner = self.sliced(places, 1, -1)
        count = make("Prod", inner, self.zero, T=_INT, Tidx=_INT)
        flat = make("Reshape", self.warp, self.pack(batch, count, make.constant(2)), T=self.dtype, Tshape=_INT)
        two = make.constant(2)
        self.x, self.y = (self.gather(flat, index, two, self.dtype) for index in (self.zero, self.one))
        self.sizes = {"x": width, "y": height}
        rows = make("Range", self.zero, batch, self.one, Tidx=_INT)
        rows = make("ExpandDims", rows, self.one, T=_INT, Tdim=_INT)
        self.rows = make("BroadcastTo", rows, self.pack(batch, count), T=_INT, Tidx=_INT)
        result = make("Reshape", self.interpolated(), self.pack(batch, count, channels), T=self.dtype, Tshape=_INT)
        whole = make("ConcatV2", self.sliced(places, 0, -1), self.pack(channels), self.zero, N=2, T=_INT, Tidx=_INT)
        make.last("Reshape", result, whole, T=self.dtype, Tshape=_INT)

    def interpolated(self) -> str:
        make = self.make
        left, top = make("Floor", self.x, T=self.dtype), make("Floor", self.y, T=self.dtype)
        right, bottom = self.sum(left, self.unit), self.sum(top, self.unit)
        dx, dy = self.difference(right, self.x), self.difference(bottom, self.y)
        other_x, other_y = self.difference(self.unit, dx), self.difference(self.unit, dy)
        inside = self.both(
            self.both(self.less(self.minus_one, self.x), self.less(self.minus_one, self.y)),
            self.both(self.less(self.x, self.real(self.sizes["x"])), self.less(self.y, self.real(self.sizes["y"]))),
        )
        total = self.weighted(dx, dy, left, top)
        total = self.sum(total, self.weighted(other_x, other_y, right, bottom))
        total = self.sum(total, self.weighted(dx, other_y, left, bottom))
        total = self.sum(total, self.weighted(other_x, dy, right, top))
        return self.where(inside, total)

    @property
    def minus_one(self) -> str:
        return self.real(self.last)

    def weighted(self, across: str, down: str, x: str, y: str) -> str:
        """The point (x, y), zero where there is none, times both weights."""
        make = self.make
        column, row = self.whole(x), self.whole(y)
        exists = self.both(self.within(column, self.sizes["x"]), self.within(row, self.sizes["y"]))
        indices = [self.rows, self.clipped(row, self.sizes["y"]), self.clipped(column, self.sizes["x"])]
        index = make("Pack", *indices, N=3, T=_INT, axis=-1)
        point = self.where(exists, make("GatherNd", self.data, index, Tparams=self.dtype, Tindices=_INT))
        weight = make("ExpandDims", make("Mul", across, down, T=self.dtype), self.last, T=self.dtype, Tdim=_INT)
        return make("Mul", weight, point, T=self.dtype)

    def where(self, condition: str, values: str) -> str:
        make = self.make
        wide = make("ExpandDims", condition, self.last, T=_BOOL, Tdim=_INT)
        return make("SelectV2", wide, values, self.none, T=self.dtype)

    def within(self, index: str, size: str) -> str:
        make = self.make
        return self.both(make("GreaterEqual", index, self.zero, T=_INT), make("Less", index, size, T=_INT))

    def clipped(self, index: str, size: str) -> str:
        make = self.make
        most = make("Sub", size, self.one, T=_INT)
        return make("Maximum", make("Minimum", index, most, T=_INT), self.zero, T=_INT)

    def gather(self, params: str, index: str, axis: str, dtype: DataType = _INT) -> str:
        return self.make("GatherV2", params, index, axis, Tparams=dtype, Tindices=_INT, Taxis=_INT)

    def sliced(self, vector: str, start: int, end: int) -> str:
        constants = [self.make.constant([number]) for number in (start, end, 1)]
        return self.make("StridedSlice", vector, *constants, T=_INT, Index=_INT)

    def pack(self, *numbers: str) -> str:
        return self.make("Pack", *numbers, N=len(numbers), T=_INT)

    def real(self, number: str) -> str:
        return self.make("Cast", number, SrcT=_INT, DstT=self.dtype)

    def whole(self, number: str) -> str:
        return self.make("Cast", number, SrcT=self.dtype, DstT=_INT)

    def sum(self, first: str, second: str) -> str:
        return self.make("AddV2", first, second, T=self.dtype)

    def difference(self, first: str, second: str) -> str:
        return self.make("Sub", first, second, T=self.dtype)

    def less(self, first: str, second: str) -> str:
        return self.make("Less", first, second, T=self.dtype)

    def both(self, first: str, second: str) -> str:
        return self.make("LogicalAnd", first, second)
