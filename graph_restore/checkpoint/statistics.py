"""Numbers that tell whether a tensor is sound: least, mean, greatest, NaNs, infinities, zeros. Read as a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.partial import OpaqueTensor
from graph_restore.checkpoint.streaming import Array, pieces
from graph_restore.tensors import LazyTensor, StringTensor


@dataclass
class Statistics:
    """Of the elements that are no NaN: `minimum`, `mean` and `maximum`, None where there is none (or no order).

    `nan`, `infinite` and `zeros` count elements.
    """

    minimum: float | int | None = None
    mean: float | None = None
    maximum: float | int | None = None
    nan: int = 0
    infinite: int = 0
    zeros: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json, in which NaN and infinities are text."""
        return {name: json_number(value) for name, value in asdict(self).items()}


def json_number(value: Any) -> Any:
    """`value`, or "NaN", "Infinity" and "-Infinity" for what JSON cannot hold, as protobuf's JSON spells them."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def statistics(tensors: Iterable[LazyTensor]) -> Statistics | None:
    """Over all elements of `tensors`, which are the slices of one; None for strings and values that cannot be read."""
    result, total, count = Statistics(), 0.0, 0
    for tensor in tensors:
        if isinstance(tensor, StringTensor | OpaqueTensor):
            return None
        for piece in pieces(tensor):
            total += _add(result, _plain(piece))
            count += piece.size
    if count > result.nan and result.minimum is not None:
        result.mean = total / (count - result.nan)
    return result


def _add(result: Statistics, values: Array) -> float:
    """Counts `values` in; gives their sum without NaNs."""
    result.zeros += int(np.count_nonzero(values == 0))
    if values.dtype.kind in "fc":
        wrong = np.isnan(values)
        result.nan += int(np.count_nonzero(wrong))
        result.infinite += int(np.count_nonzero(np.isinf(values)))
        values = values[~wrong] if wrong.any() else values
    if values.dtype.kind == "c" or not values.size:
        return 0.0
    least, greatest = values.min().item(), values.max().item()
    result.minimum = least if result.minimum is None else min(result.minimum, least)
    result.maximum = greatest if result.maximum is None else max(result.maximum, greatest)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs have no mean
        return float(values.sum(dtype=np.float64))


def _plain(values: Array) -> Array:
    """With numpy's own dtypes, which know all functions."""
    if values.dtype.kind == "b":
        return values.view(np.uint8)
    if values.dtype.name.startswith(("bfloat", "float8")):
        return values.astype(np.float32)
    return values.astype(np.int8) if values.dtype.name in ("int4", "int2", "uint4", "uint2") else values
