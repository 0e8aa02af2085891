"""What ops give for values that are known, worked out with numpy where that is exact to the last bit.

Left out, so that a folded graph never differs from the one it came from: sums of floats and functions whose last bit
depends on the kernel (exp, sqrt), results that are NaN or denormal (TensorFlow's kernels flush those to zero), division
of integers by zero (an error at run time), conversions that do not fit. Each op is that of TensorFlow's op definition
of the name; see tensorflow/core/ops/{array,math}_ops.cc.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, numpy_dtype
from graph_restore.protos import AttrValue

LARGEST = 1 << 20  # bytes of a value worked out here; what is larger is left to be computed when the graph runs
Array: TypeAlias = "np.ndarray[Any, Any]"
_PLAIN_KINDS = "biufO"


def evaluate(node: Any, inputs: Sequence[Array]) -> list[Array] | None:
    """The outputs of a node for these inputs; None where they are not certain to be TensorFlow's to the last bit."""
    function = _functions().get(node.op)
    if function is None or not all(_is_plain(value) for value in inputs):
        return None
    try:
        with np.errstate(all="raise", under="ignore"):
            found = function(node, *inputs)
    except (TypeError, ValueError, IndexError, FloatingPointError, ZeroDivisionError, OverflowError, _NotExact):
        return None
    outputs = [np.asarray(value) for value in (found if isinstance(found, list) else [found])]
    return outputs if all(_is_plain(value) and value.nbytes <= LARGEST for value in outputs) else None


class _NotExact(Exception):
    """A result that TensorFlow may give otherwise."""


def _is_plain(value: Array) -> bool:
    if value.dtype.kind == "f":
        small = np.abs(value[np.isfinite(value)])
        return not np.isnan(value).any() and not ((small > 0) & (small < np.finfo(value.dtype).tiny)).any()
    return value.dtype.kind in _PLAIN_KINDS


def _attr(node: Any, name: str) -> Any:
    """An attr, empty where the node lacks it: asking a message for one that is not set would set it."""
    return node.attr[name] if name in node.attr else AttrValue()


def _attr_int(node: Any, name: str) -> int:
    return int(_attr(node, name).i)


def _two(function: Callable[[Array, Array], Any]) -> Callable[[Any, Array, Array], Any]:
    """An elementwise function of two numbers."""

    def computed(node: Any, one: Array, two: Array) -> Any:
        if one.dtype == object or one.dtype != two.dtype:
            raise _NotExact
        if math.prod(np.broadcast_shapes(one.shape, two.shape)) * one.itemsize > LARGEST:
            raise _NotExact
        return function(one, two)

    return computed


def _compared(function: Callable[[Array, Array], Any]) -> Callable[[Any, Array, Array], Any]:
    def computed(node: Any, one: Array, two: Array) -> Any:
        return np.asarray(function(one, two), np.bool_)

    return computed


def _divided(one: Array, two: Array) -> Array:
    if one.dtype.kind != "f":
        raise _NotExact
    return np.asarray(one / two)


def _floor_divided(one: Array, two: Array) -> Array:
    if one.dtype.kind not in "iu":
        raise _NotExact
    return np.asarray(one // two)


def _of_integers(function: Callable[..., Any]) -> Callable[..., Any]:
    def computed(node: Any, *values: Array) -> Any:
        if values[0].dtype.kind not in "iu":
            raise _NotExact
        return function(*values)

    return computed


def _cast(node: Any, value: Array) -> Array:
    source, target = value.dtype, numpy_dtype(_attr(node, "DstT").type)
    if source.kind not in "biuf" or target.kind not in "biuf" or _attr(node, "DstT").type == DataType.DT_HALF:
        raise _NotExact
    if target.kind in "iu" and source.kind == "f":
        limits = np.iinfo(target)
        if not (np.isfinite(value) & (value > limits.min) & (value < limits.max)).all():
            raise _NotExact
    return value.astype(target)


def _shape_type(node: Any) -> Any:
    return np.int64 if _attr(node, "out_type").type == DataType.DT_INT64 else np.int32


def _reshape(node: Any, value: Array, shape: Array) -> Array:
    return value.reshape([int(size) for size in shape.reshape(-1)])


def _squeeze(node: Any, value: Array) -> Array:
    dims = tuple(_attr(node, "squeeze_dims").list.i)
    return np.squeeze(value, dims or None)


def _fill(node: Any, dims: Array, value: Array) -> Array:
    if math.prod(dims.tolist()) * max(value.itemsize, 1) > LARGEST:
        raise _NotExact
    return np.full(dims.tolist(), value.item() if value.dtype == object else value, value.dtype)


def _range(node: Any, start: Array, limit: Array, delta: Array) -> Array:
    numbers = range(start.item(), limit.item(), delta.item())
    if len(numbers) * start.itemsize > LARGEST:
        raise _NotExact
    return np.array(numbers, start.dtype)


def _slice(node: Any, value: Array, begin: Array, size: Array) -> Array:
    ends = [value.shape[axis] if n < 0 else b + n for axis, (b, n) in enumerate(zip(begin.tolist(), size.tolist()))]
    if any(b < 0 or e > n for b, e, n in zip(begin.tolist(), ends, value.shape)):
        raise _NotExact
    return value[tuple(slice(b, e) for b, e in zip(begin.tolist(), ends))]


def _strided_slice(node: Any, value: Array, begin: Array, end: Array, strides: Array) -> Array:
    masks = {name: _attr_int(node, f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    key: list[Any] = []
    for axis, (first, last, step) in enumerate(zip(begin.tolist(), end.tolist(), strides.tolist())):
        bit = 1 << axis
        if masks["ellipsis"] & bit:
            key.append(Ellipsis)
        elif masks["new_axis"] & bit:
            key.append(None)
        elif masks["shrink_axis"] & bit:
            if masks["begin"] & bit:
                raise _NotExact
            key.append(first)
        else:
            key.append(slice(None if masks["begin"] & bit else first, None if masks["end"] & bit else last, step))
    return np.asarray(value[tuple(key)])


def _gather(node: Any, value: Array, indices: Array, *axis: Array) -> Array:
    if _attr_int(node, "batch_dims") or (indices < 0).any():
        raise _NotExact
    return np.take(value, indices, int(axis[0]) if axis else 0)


def _concat(axis: Array, values: Sequence[Array]) -> Array:
    return np.concatenate(values, int(axis))


def _tile(node: Any, value: Array, multiples: Array) -> Array:
    if math.prod(multiples.tolist()) * value.nbytes > LARGEST:
        raise _NotExact
    return np.tile(value, multiples.tolist())


def _reduced(function: Callable[..., Any]) -> Callable[[Any, Array, Array], Any]:
    def computed(node: Any, value: Array, axes: Array) -> Any:
        if value.dtype.kind not in "biu":
            raise _NotExact
        dims = tuple(axes.reshape(-1).tolist())
        return np.asarray(function(value, axis=dims, keepdims=_attr(node, "keep_dims").b)).astype(value.dtype)

    return computed


def _same(node: Any, *values: Array) -> list[Array]:
    return list(values)


@cache
def _functions() -> dict[str, Callable[..., Any]]:
    """What works each op out; made when first asked for, since it takes numpy."""
    return {
        **dict.fromkeys(("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape"), _same),
        "LogicalNot": lambda node, value: np.logical_not(value),
        "LogicalAnd": _compared(np.logical_and),
        "LogicalOr": _compared(np.logical_or),
        "Equal": _compared(np.equal), "NotEqual": _compared(np.not_equal),
        "Less": _compared(np.less), "LessEqual": _compared(np.less_equal),
        "Greater": _compared(np.greater), "GreaterEqual": _compared(np.greater_equal),
        "Add": _two(np.add), "AddV2": _two(np.add), "Sub": _two(np.subtract), "Mul": _two(np.multiply),
        "RealDiv": _two(_divided), "Div": _two(_divided), "FloorDiv": _two(_floor_divided),
        "Neg": lambda node, value: -value, "Abs": lambda node, value: np.abs(value),
        "Square": lambda node, value: value * value,
        "Maximum": _of_integers(np.maximum), "Minimum": _of_integers(np.minimum),
        "FloorMod": _of_integers(np.mod), "Cast": _cast,
        "Shape": lambda node, value: np.array(value.shape, _shape_type(node)),
        "Size": lambda node, value: np.array(value.size, _shape_type(node)),
        "Rank": lambda node, value: np.array(value.ndim, np.int32),
        "ShapeN": lambda node, *values: [np.array(value.shape, _shape_type(node)) for value in values],
        "Reshape": _reshape, "Squeeze": _squeeze, "Fill": _fill, "Range": _range, "Slice": _slice,
        "ExpandDims": lambda node, value, axis: np.expand_dims(value, int(axis)),
        "StridedSlice": _strided_slice, "Gather": _gather, "GatherV2": _gather, "Tile": _tile,
        "Concat": lambda node, axis, *values: _concat(axis, values),
        "ConcatV2": lambda node, *values: _concat(values[-1], values[:-1]),
        "Pack": lambda node, *values: np.stack(values, _attr_int(node, "axis")),
        "Unpack": lambda node, value: [np.asarray(item) for item in np.moveaxis(value, _attr_int(node, "axis"), 0)],
        "Transpose": lambda node, value, order: np.transpose(value, order.tolist()),
        "ZerosLike": lambda node, value: np.zeros_like(value), "OnesLike": lambda node, value: np.ones_like(value),
        "Prod": _reduced(np.prod), "Sum": _reduced(np.sum), "Max": _reduced(np.max), "Min": _reduced(np.min),
        "All": _reduced(np.all), "Any": _reduced(np.any),
    }  # fmt: skip
