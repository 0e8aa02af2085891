"""Summaries as TensorBoard draws them: numbers, and histograms of values that are read piece by piece.

    Summary        := (1: Value)*
    Value          := 1: tag, 2: number (float32) or 5: HistogramProto
    HistogramProto := 1: min, 2: max, 3: count, 4: sum, 5: sum of squares (float64), 6: limits, 7: counts (packed)

tensorflow/core/framework/summary.proto and histogram.proto. Buckets are those of tensorflow/core/lib/histogram: each
10% wider than the one before, away from zero on both sides. A bucket holds the values below its limit, down to the
limit of the bucket before.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np

from graph_restore.protos import Summary
from graph_restore.storage.coding import encode_header

Array = np.ndarray[Any, Any]

_SMALLEST, _LARGEST, _GROWTH = 1.0e-12, 1.0e20, 1.1
_HEAD_BITS = 16


@cache
def bucket_limits() -> Array:
    """The upper limits of all buckets, float64, ascending."""
    limit, positive = _SMALLEST, []
    while limit < _LARGEST:
        positive.append(limit)
        limit *= _GROWTH
    positive.append(np.finfo(np.float64).max)
    return np.array([*(-limit for limit in reversed(positive)), 0.0, *positive])


class Histogram:
    """Counts of values in TensorBoard's buckets; what is no number is left out and counted in `left_out`."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(bucket_limits()), np.int64)
        self.minimum, self.maximum = np.inf, -np.inf
        self.sum = self.sum_of_squares = 0.0
        self.left_out = 0

    @property
    def count(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def add(self, values: Array) -> None:
        """Count in a flat array of numbers or truth values, of any type but complex ones."""
        values = np.ascontiguousarray(values, "<f4" if _fits_float32(values.dtype) else "<f8")
        finite = np.isfinite(values)
        if not finite.all():
            self.left_out += int(values.size - np.count_nonzero(finite))
            values = values[finite]
        if values.size:
            self.counts += np.bincount(_buckets(values), minlength=len(self.counts))
            self.minimum = min(self.minimum, float(values.min()))
            self.maximum = max(self.maximum, float(values.max()))
            wide = values.astype(np.float64, copy=False)
            with np.errstate(over="ignore", invalid="ignore"):
                self.sum += float(wide.sum())
                self.sum_of_squares += float(np.dot(wide, wide))

    def encode(self) -> bytes:
        """As a HistogramProto, in which each run of empty buckets is one."""
        full = self.counts > 0
        last_of_run = np.append(full[:-1] | full[1:], True)
        limits, counts = bucket_limits()[last_of_run], self.counts[last_of_run]
        totals = [self.minimum, self.maximum, self.count, self.sum, self.sum_of_squares]
        data = b"".join(_number(field, value) for field, value in enumerate(totals, 1))
        return data + _packed(6, limits) + _packed(7, counts)


def number_summary(tag: str, number: float) -> Any:
    """A Summary of one number, which TensorBoard draws as a point of a line; past float32's range it is infinite."""
    with np.errstate(over="ignore"):
        return _summary(tag, b"\x15" + np.array(number, "<f4").tobytes())


def histogram_summary(tag: str, histogram: Histogram) -> Any:
    """A Summary of one histogram, which must not be empty."""
    return _summary(tag, _field(5, histogram.encode()))


def _summary(tag: str, content: bytes) -> Any:
    return Summary.FromString(_field(1, _field(1, tag.encode("utf-8", "replace")) + content))


def _field(number: int, data: bytes) -> bytes:
    return encode_header(number, len(data)) + data


def _number(field: int, value: float) -> bytes:
    return bytes([field << 3 | 1]) + struct.pack("<d", value)


def _packed(field: int, values: Array) -> bytes:
    return _field(field, values.astype("<f8").tobytes())


def _fits_float32(dtype: np.dtype[Any]) -> bool:
    """Whether float32 holds every number of a type: true too of the small floats that numpy has from ml_dtypes."""
    return dtype.itemsize <= 2 or (dtype.kind == "f" and dtype.itemsize == 4)


def _buckets(values: Array) -> Array:
    """The bucket that each value is in.

    The upper 16 bits of a value leave at most two buckets, since values that share them are less than 10% apart, so a
    table gives the first and one comparison decides: many times faster than searching the limits.
    """
    first, limit = _table(values.dtype.itemsize)
    heads = values.view("<u2")[values.dtype.itemsize // 2 - 1 :: values.dtype.itemsize // 2]
    found: Array = first[heads] + (values >= limit[heads])
    return found


@cache
def _table(itemsize: int) -> tuple[Array, Array]:
    """For floats of this size, by their upper bits: the lowest bucket, and from which value on the next one is it."""
    kind, bits = np.dtype(f"<f{itemsize}"), np.dtype(f"<u{itemsize}")
    shift = bits.type(8 * itemsize - _HEAD_BITS)
    heads = np.arange(1 << _HEAD_BITS, dtype=bits) << shift
    with np.errstate(all="ignore"):
        lowest = np.fmin(heads.view(kind), (heads | ((bits.type(1) << shift) - bits.type(1))).view(kind))
        first = np.searchsorted(bucket_limits(), lowest.astype(np.float64), side="right")
        first = np.minimum(first, len(bucket_limits()) - 1)
        exact = bucket_limits()[first]
        limit = exact.astype(kind)
        limit = np.where(limit < exact, np.nextafter(limit, kind.type(np.inf)), limit)
    limit[first == len(bucket_limits()) - 1] = np.inf
    return first, limit
