"""What a checkpoint holds, and single tensors or parts of them.

part     := tensor name, or tensor name "[" index ("," index)* "]"
index    := as in numpy: 3, -1, 10:20, ::2, ...
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from graph_restore.checkpoint.checkpoint import Checkpoint
from graph_restore.checkpoint.partial import PartialStrings, PartialTensor
from graph_restore.checkpoint.roles import Role, roles
from graph_restore.checkpoint.statistics import Statistics, statistics
from graph_restore.dtypes import type_name
from graph_restore.errors import GraphRestoreError, TensorNotFoundError, did_you_mean
from graph_restore.slices import JoinedStrings, JoinedTensor, TensorSlice, cut
from graph_restore.tensors import ArrayTensor, LazyTensor, StringTensor, lazy

_PART = re.compile(r"(?P<name>.*)\[(?P<index>[^\[\]]*)\]", re.DOTALL)
_INDEX = re.compile(r"(?:(?P<one>-?\d+)|(?P<range>(?:-?\d+)?:(?:-?\d+)?(?::(?:-?\d+)?)?)|(?P<rest>\.\.\.))")


class Listed(NamedTuple):
    """One tensor: TensorFlow's dtype name, bytes of content, in how many slices it lies, whether some are missing."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    nbytes: int
    slices: int
    partial: bool
    role: Role
    statistics: Statistics | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        found = {
            "name": self.name, "dtype": self.dtype, "shape": list(self.shape), "elements": self.size,
            "bytes": self.nbytes, "slices": self.slices, "partial": self.partial,
            "role": self.role.kind, "of": self.role.of,
        }  # fmt: skip
        if self.statistics is not None:
            found["statistics"] = self.statistics.to_dict()
        return found


def list_tensors(
    tensors: Mapping[str, LazyTensor], pattern: str | None = None, *, stats: bool = False
) -> Iterator[Listed]:
    """The tensors whose name is `pattern` or fits it as a glob (`*` takes slashes too), in order; all without one.

    With `stats` values are read, in pieces. TensorNotFoundError when none fits.
    """
    known = roles(tensors)
    for name in matching(tensors, pattern) if pattern is not None else tensors:
        tensor = tensors[name]
        parts = [part for _, part in tensor.slices] if isinstance(tensor, JoinedTensor | JoinedStrings) else [tensor]
        yield Listed(
            name=name,
            dtype=type_name(tensor.data_type),
            shape=tensor.shape,
            size=tensor.size,
            nbytes=sum(part.nbytes for part in parts),
            slices=len(parts),
            partial=isinstance(tensor, PartialTensor | PartialStrings),
            role=known[name],
            statistics=statistics(parts) if stats else None,
        )


def matching(tensors: Mapping[str, LazyTensor], pattern: str) -> list[str]:
    """The names that are `pattern` or fit it as a glob; TensorNotFoundError with near names when there is none.

    For an object-based checkpoint also the key of the object at that path.
    """
    found = [name for name in tensors if name == pattern or fnmatch.fnmatchcase(name, pattern)]
    if not found and isinstance(tensors, Checkpoint) and tensors.objects is not None:
        key = tensors.objects.key_of(pattern)
        found = [key] if key is not None else []
    if not found:
        where = f" in checkpoint {tensors.prefix}" if isinstance(tensors, Checkpoint) else ""
        raise TensorNotFoundError(f"no tensor fits {pattern!r}{where}{did_you_mean(pattern, tensors)}")
    return found


def read_part(tensors: Mapping[str, LazyTensor], part: str) -> LazyTensor:
    """The tensor `name`, or the part of it that `name[10:20,:3]` means; a range of rows is still read from disk lazily.

    TensorNotFoundError for an unknown name, GraphRestoreError for an index that is none or lies outside.
    """
    match = _PART.fullmatch(part)
    if part in tensors or match is None:
        return _named(tensors, part)
    tensor = _named(tensors, match["name"])
    index = _parsed(match["index"], part)
    if ... in index:
        place = index.index(...)
        fill = len(tensor.shape) - len(index) + 1
        index[place : place + 1] = [slice(None)] * fill
    if len(index) > len(tensor.shape):
        raise GraphRestoreError(f"{part}: {len(index)} indices, but the shape is {list(tensor.shape)}")
    return _selected(tensor, index, part)


def _named(tensors: Mapping[str, LazyTensor], name: str) -> LazyTensor:
    try:
        return tensors[name]  # a Checkpoint knows more names than it lists, such as paths to objects
    except TensorNotFoundError:
        raise
    except KeyError:
        raise TensorNotFoundError(f"no tensor {name!r}{did_you_mean(name, tensors)}") from None


def _parsed(text: str, part: str) -> list[Any]:
    index: list[Any] = []
    for item in text.split(","):
        match = _INDEX.fullmatch(item.replace(" ", ""))
        if match is None or (match["rest"] and ... in index):
            raise GraphRestoreError(f"{part}: no index; write such as name[3], name[10:20,:3] or name[...,0]")
        if match["rest"]:
            index.append(...)
        elif match["range"]:
            bounds = [int(bound) if bound else None for bound in match["range"].split(":")]
            if bounds[2:] == [0]:
                raise GraphRestoreError(f"{part}: a step of 0")
            index.append(slice(*bounds))
        else:
            index.append(int(match["one"]))
    return index


def _selected(tensor: LazyTensor, index: list[Any], part: str) -> LazyTensor:
    """First the rows, as a cut of what lies on disk; the rest in memory."""
    for size, item in zip(tensor.shape, index):
        if isinstance(item, int) and not -size <= item < size:
            raise GraphRestoreError(f"{part}: {item} is outside the shape {list(tensor.shape)}")
    if not tensor.shape:
        return tensor
    rows = index[0]
    taken = range(tensor.shape[0])[slice(rows, rows + 1 or None) if isinstance(rows, int) else rows]
    low, high = (min(taken[0], taken[-1]), max(taken[0], taken[-1]) + 1) if taken else (0, 0)
    starts, lengths = (low, *(0 for _ in tensor.shape[1:])), (high - low, *tensor.shape[1:])
    piece = cut(tensor, TensorSlice(tensor.shape, starts, lengths))
    if isinstance(rows, slice) and taken.step == 1 and all(item == slice(None) for item in index[1:]):
        return piece
    first = 0 if isinstance(rows, int) else slice(None, None, taken.step)
    place = (first, *index[1:])
    values = piece.read()[place]
    if isinstance(tensor, StringTensor):
        return lazy(tensor.name, values)
    return ArrayTensor(tensor.name, values, tensor.data_type)
