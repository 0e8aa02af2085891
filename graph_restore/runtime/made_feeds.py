"""Feeds for a graph that nobody gave any: the same at every run, small numbers, of the dtypes and shapes it states.

Numbers are between -1 and 1; whole numbers 0 or 1, which are indices into almost anything; single truth values False,
as `is_training` should be. Strings are what their consumer can read: an empty tf.Example, a small picture, else words.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from graph_restore.dtypes import DataType, numpy_dtype, type_name
from graph_restore.errors import GraphRestoreError
from graph_restore.graph import Graph
from graph_restore.names import tensor_name
from graph_restore.transforms.feeds import output_shape

BATCH = 2
SIZES = (4, 32, 128)  # for dimensions past the first that the graph leaves open; the next where one cannot be run
# The rank that an input of an op must have: (op, position) to it. Ranks are never tried out, as some of TensorFlow's
# kernels end the process where one is wrong.
_RANKS = {
    ("MatMul", 0): 2, ("MatMul", 1): 2, ("Conv2D", 0): 4, ("DepthwiseConv2dNative", 0): 4, ("MaxPool", 0): 4,
    ("AvgPool", 0): 4, ("FusedBatchNorm", 0): 4, ("FusedBatchNormV2", 0): 4, ("FusedBatchNormV3", 0): 4,
    ("ResizeBilinear", 0): 4, ("ResizeNearestNeighbor", 0): 4, ("Conv3D", 0): 5, ("Switch", 1): 0, ("RefSwitch", 1): 0,
    ("If", 0): 0, ("StatelessIf", 0): 0, ("LookupTableFind", 1): 1, ("LookupTableFindV2", 1): 1, ("Gather", 1): 1,
    ("GatherV2", 1): 1, ("ResourceGather", 1): 1, ("ParseExample", 0): 1, ("ParseExampleV2", 0): 1,
    ("DecodeJpeg", 0): 0, ("DecodePng", 0): 0, ("DecodeImage", 0): 0,
}  # fmt: skip
_KEEPING_RANK = ("Identity", "Cast", "Relu", "Neg", "StopGradient", "StringToHashBucketFast", "StringToNumber")
Array = np.ndarray[Any, Any]
_WORDS = (b"the", b"a", b"of", b"and", b"to", b"0", b"1")


def made_feed(graph: Graph, name: str, size: int, shape: Sequence[int] | None = None) -> Array:
    """An array for placeholder `name`, of `shape`, else of the shape it states: open dimensions are `BATCH` and then
    `size` large. GraphRestoreError where the rank is not known (see `rank_of`)."""
    node = graph.node(name)
    dtype = node.attr["dtype"].type
    sizes = tuple(shape) if shape is not None else _shape(graph, node, size)
    random = np.random.default_rng(zlib.crc32(node.name.encode()))
    if dtype == DataType.DT_STRING:
        return _strings(graph, node, sizes)
    if dtype == DataType.DT_BOOL:
        return random.integers(0, 2, sizes).astype(bool) if sizes else np.zeros([], bool)
    if dtype in (DataType.DT_COMPLEX64, DataType.DT_COMPLEX128):
        return (random.uniform(-1, 1, sizes) + 1j * random.uniform(-1, 1, sizes)).astype(numpy_dtype(dtype))
    array_type = numpy_dtype(dtype)
    if array_type.kind in "iu":
        return random.integers(0, 2, sizes).astype(array_type)
    return random.uniform(-1, 1, sizes).astype(array_type)


def rank_of(graph: Graph, node: Any) -> int | None:
    """The rank that a placeholder states, or that what takes it needs; None where neither tells."""
    stated = output_shape(node, 0, graph.versions.producer)
    if not stated.unknown_rank:
        return len(stated.dim)
    return 0 if node.attr["dtype"].type == DataType.DT_BOOL else _rank_needed(graph, node.name)


def _rank_needed(graph: Graph, name: str) -> int | None:
    waiting, seen = [name], set()
    while waiting:
        current = waiting.pop()
        seen.add(current)
        for consumer, position in graph.consumers.get(current, ()):
            if (consumer.op, position) in _RANKS:
                return _RANKS[consumer.op, position]
            if consumer.op in _KEEPING_RANK and consumer.name not in seen:
                waiting.append(consumer.name)
    return None


def _shape(graph: Graph, node: Any, size: int) -> tuple[int, ...]:
    rank = rank_of(graph, node)
    if rank is None:
        what = f"{tensor_name(node.name)} {type_name(node.attr['dtype'].type)}"
        raise GraphRestoreError(
            f"the graph does not state the shape of {what}; pass feeds (with freeze: --verify-feeds FILE), "
            f"or its shape (shapes={{'{node.name}': [2, 4]}}; verify --shape {node.name}=2,4)"
        )
    dims = [dim.size for dim in output_shape(node, 0, graph.versions.producer).dim] or [-1] * rank
    return tuple(dim if dim >= 0 else size if position else BATCH for position, dim in enumerate(dims))


def _strings(graph: Graph, node: Any, sizes: tuple[int, ...]) -> Array:
    consumers = {consumer.op for consumer, _ in graph.consumers.get(node.name, ())}
    count = int(np.prod(sizes))
    if any(op.startswith("Parse") for op in consumers):
        values = [b""] * count
    elif any(op.startswith("Decode") and op != "DecodeRaw" for op in consumers):
        values = [_picture()] * count
    else:
        values = [_WORDS[number % len(_WORDS)] for number in range(count)]
    return np.array([*values, None], object)[:-1].reshape(sizes)


def _picture() -> bytes:
    """A black PNG, 8 by 8, in colours."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(8 * (1 + 3 * 8)))) + chunk(b"IEND", b"")
