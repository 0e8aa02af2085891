"""The content of tensors as arrays of whole elements, a few MiB at a time: what is looked at need not be held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from graph_restore.arrays import np
from graph_restore.errors import CorruptionError
from graph_restore.tensors import LazyTensor

Array: TypeAlias = "np.ndarray[Any, Any]"


def pieces(tensor: LazyTensor) -> Iterator[Array]:
    """The elements of a tensor of numbers in row-major order, as flat arrays of its dtype; checksums are tested."""
    for (piece,) in aligned([tensor]):
        yield piece


def aligned(tensors: Sequence[LazyTensor]) -> Iterator[tuple[Array, ...]]:
    """The same for several tensors of equal size in bytes: each step gives as many elements of every one.

    CorruptionError when one of them is shorter than the others; every checksum is tested by the end.
    """
    streams = [tensor.chunks() for tensor in tensors]
    rests = [b""] * len(tensors)
    width = max((tensor.dtype.itemsize for tensor in tensors), default=1)
    while True:
        for number, stream in enumerate(streams):
            while len(rests[number]) < width and (chunk := next(stream, None)) is not None:
                rests[number] += chunk
        step = min(len(rest) for rest in rests) // width * width
        if not step:
            break
        yield tuple(np.frombuffer(rest[:step], tensor.dtype) for rest, tensor in zip(rests, tensors))
        rests = [rest[step:] for rest in rests]
    for tensor, rest in zip(tensors, rests):
        if rest:
            raise CorruptionError(f"tensor {tensor.name} has a wrong length", found=f"{len(rest)} bytes too many")
