"""How two checkpoints differ: whole tensors by name, then dtype, shape, bytes. Version, shards and slices never count.

Bytes are compared, so a NaN is equal to the same NaN, and 0.0 is not -0.0. With a tolerance numbers are compared as
numpy's `allclose` does, NaN being equal to NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.partial import OpaqueTensor, PartialStrings, PartialTensor
from graph_restore.checkpoint.statistics import json_number
from graph_restore.checkpoint.streaming import Array, aligned
from graph_restore.dtypes import type_name
from graph_restore.slices import TensorSlice
from graph_restore.tensors import LazyTensor, StringTensor


@dataclass
class TensorDifference:
    """How one tensor differs: `kind` is "dtype", "shape", "values" or "incomparable".

    `first` and `second` describe both sides. For values: how many of `size` elements differ, and the greatest
    absolute difference of numbers (None for strings, and where one side only is NaN or not both are finite).
    """

    name: str
    kind: str
    first: str
    second: str
    differing: int = 0
    size: int = 0
    max_difference: float | int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        return {**vars(self), "max_difference": json_number(self.max_difference)}


@dataclass
class Difference:
    """`only_first`, `only_second`: names; `changed`: tensors of both that differ; `equal`: how many do not."""

    only_first: list[str] = field(default_factory=list)
    only_second: list[str] = field(default_factory=list)
    changed: list[TensorDifference] = field(default_factory=list)
    equal: int = 0

    @property
    def none(self) -> bool:
        """Whether the checkpoints are equal."""
        return not (self.only_first or self.only_second or self.changed)

    @property
    def max_difference(self) -> float | int | None:
        """The greatest of the tensors' differences."""
        known = [one.max_difference for one in self.changed if one.max_difference is not None]
        return max(known, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        return {
            "same": self.none,
            "equal": self.equal,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "changed": [one.to_dict() for one in self.changed],
            "max_difference": json_number(self.max_difference),
        }


def compare(
    first: Mapping[str, LazyTensor], second: Mapping[str, LazyTensor], *, atol: float = 0.0, rtol: float = 0.0
) -> Difference:
    """What differs between two checkpoints; values are read in pieces, side by side.

    With `atol` or `rtol`, numbers within `atol + rtol * abs(second)` of each other are equal. CorruptionError where a
    value cannot be read.
    """
    found = Difference(sorted(first.keys() - second.keys()), sorted(second.keys() - first.keys()))
    for name in sorted(first.keys() & second.keys()):
        difference = _compare_tensors(name, first[name], second[name], atol, rtol)
        if difference is None:
            found.equal += 1
        else:
            found.changed.append(difference)
    return found


def _compare_tensors(
    name: str, first: LazyTensor, second: LazyTensor, atol: float, rtol: float
) -> TensorDifference | None:
    if first.data_type != second.data_type:
        return TensorDifference(name, "dtype", type_name(first.data_type), type_name(second.data_type))
    if first.shape != second.shape:
        return TensorDifference(name, "shape", str(list(first.shape)), str(list(second.shape)))
    pairs = _readable(first, second)
    if pairs is None:
        return TensorDifference(name, "incomparable", _described(first), _described(second))
    described = f"{type_name(first.data_type)} {list(first.shape)}"
    found = TensorDifference(name, "values", described, described, size=first.size)
    for one, other in pairs:
        if isinstance(one, StringTensor) and isinstance(other, StringTensor):
            found.differing += sum(a != b for a, b in zip(one.strings(), other.strings()))
        else:
            for a, b in aligned([one, other]):
                _add(found, a, b, atol, rtol)
    return found if found.differing else None


def _readable(first: LazyTensor, second: LazyTensor) -> list[tuple[LazyTensor, LazyTensor]] | None:
    """What is to be compared: the tensors, or the slices there are of both; None when there is no such thing."""
    if isinstance(first, OpaqueTensor) or isinstance(second, OpaqueTensor):
        return None
    one, other = _slices(first), _slices(second)
    if one is None and other is None:
        return [(first, second)]
    if one is None or other is None or one.keys() != other.keys():
        return None
    return [(one[box], other[box]) for box in one]


def _slices(tensor: LazyTensor) -> dict[TensorSlice, LazyTensor] | None:
    return dict(tensor.slices) if isinstance(tensor, PartialTensor | PartialStrings) else None


def _described(tensor: LazyTensor) -> str:
    if isinstance(tensor, PartialTensor | PartialStrings):
        return f"only slices {'; '.join(str(box) for box, _ in tensor.slices)}"
    return "values that only TensorFlow can read" if isinstance(tensor, OpaqueTensor) else "the whole tensor"


def _add(found: TensorDifference, a: Array, b: Array, atol: float, rtol: float) -> None:
    """Counts in what differs between two pieces."""
    unlike = _bits(a) != _bits(b)
    if not unlike.any():
        return
    unlike = unlike.reshape(a.size, -1).any(axis=1)
    a, b = a[unlike], b[unlike]
    distance = _distance(a, b)
    if atol or rtol:
        with np.errstate(invalid="ignore"):
            near = np.isfinite(_magnitude(b)) & (distance <= atol + rtol * _magnitude(b))
        far = ~(near | (distance == 0) | (_nan(a) & _nan(b)))
        distance = distance[far]
    found.differing += distance.size
    for value in _greatest(distance):
        found.max_difference = value if found.max_difference is None else max(found.max_difference, value)


def _bits(values: Array) -> Array:
    """The bytes of every element, as one integer or two."""
    return values.view(np.dtype(f"u{min(8, values.dtype.itemsize)}"))


def _distance(a: Array, b: Array) -> Array:
    """|a - b|: exact for integers, in double precision otherwise; 0 for equal infinities, NaN beside a NaN."""
    if a.dtype.kind in "iu":
        one, other = np.maximum(a, b), np.minimum(a, b)
        unsigned = np.dtype(f"u{a.dtype.itemsize}")
        difference: Array = one.view(unsigned) - other.view(unsigned)  # right though a signed one would overflow
        return difference
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    one, other = a.astype(wide), b.astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(one == other, 0.0, np.abs(one - other))


def _magnitude(values: Array) -> Array:
    wide = np.complex128 if values.dtype.kind == "c" else np.float64
    return np.abs(values.astype(wide))


def _nan(values: Array) -> Array:
    different: Array = values != values
    return different


def _greatest(distance: Array) -> Iterator[float | int]:
    known = distance[~np.isnan(distance)] if distance.dtype.kind == "f" else distance
    if known.size:
        yield known.max().item()
