"""What a checkpoint to be written consists of: pieces, which are whole tensors or slices of partitioned ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.encoding import encode_text
from graph_restore.checkpoint.messages import SliceExtents
from graph_restore.checkpoint.partial import PartialStrings, PartialTensor
from graph_restore.dtypes import DataType, type_name
from graph_restore.errors import GraphRestoreError, UnsupportedFormatError
from graph_restore.slices import JoinedStrings, JoinedTensor, TensorSlice
from graph_restore.storage.ordered_code import encode_slice_key
from graph_restore.tensors import LazyTensor, lazy

MAX_SHARDS = 99999  # file names count them in five digits
_OPAQUE = (DataType.DT_INVALID, DataType.DT_RESOURCE, DataType.DT_VARIANT)


@dataclass(frozen=True)
class Piece:
    """A tensor under its name, or with `box` the slice of it that lies there."""

    name: str
    tensor: LazyTensor
    box: TensorSlice | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole tensor."""
        return self.box.full_shape if self.box else self.tensor.shape

    @property
    def extents(self) -> SliceExtents:
        """The place as it is written: a slice in numbers, as Savers of partitioned variables do, a tensor as -1."""
        if self.box:
            return SliceExtents(self.box.starts, self.box.lengths)
        return SliceExtents((0,) * len(self.shape), (-1,) * len(self.shape))

    @property
    def slice_key(self) -> bytes:
        """The ordered-code key of the place."""
        return encode_slice_key(self.name, self.extents.starts, self.extents.lengths)


def make_pieces(tensors: Mapping[str, Any], keep_slices: bool) -> list[Piece]:
    """The pieces of a checkpoint of `tensors`, sorted by name as bytes, slices by where they start.

    Raises UnsupportedFormatError for a name or value that no checkpoint can hold, GraphRestoreError for a tensor of
    which only some slices are there, unless slices are kept.
    """
    pieces: list[Piece] = []
    for name in sorted(tensors, key=_checked_name):
        tensor = _checked_tensor(name, tensors[name])
        if keep_slices and isinstance(tensor, JoinedTensor | JoinedStrings):
            pieces += _slices(name, tensor)
        elif isinstance(tensor, PartialTensor | PartialStrings):
            raise GraphRestoreError(
                f"only some slices of tensor {name!r} are there, not the whole; pass keep_slices=True to save these, "
                "or leave it out"
            )
        else:
            pieces.append(Piece(name, tensor))
    return pieces


def _slices(name: str, tensor: JoinedTensor | JoinedStrings) -> list[Piece]:
    slices = dict(tensor.slices)  # slices without elements may lie in the same place
    if len(slices) == 1 and next(iter(slices)).whole:
        return [Piece(name, part) for part in slices.values()]
    return [Piece(name, part, box) for box, part in slices.items()]


def divide(pieces: Sequence[Piece], shards: int | None, shard_bytes: int | None) -> list[list[Piece]]:
    """The pieces of each shard, runs in their order: `shards` of about the same size, or none over `shard_bytes`.

    One shard with neither; a piece larger than `shard_bytes` is a shard of its own. Raises ValueError when both are
    given, or one is out of range.
    """
    if shards is not None and shard_bytes is not None:
        raise ValueError("pass shards or shard_bytes, not both")
    if shards is not None and not 1 <= shards <= MAX_SHARDS:
        raise ValueError(f"shards must be 1 to {MAX_SHARDS}, found {shards}")
    if shard_bytes is not None:
        return _divide_by_size(pieces, shard_bytes)
    groups: list[list[Piece]] = [[] for _ in range(shards or 1)]
    if len(groups) == 1:
        return [list(pieces)]
    sizes = [piece.tensor.nbytes for piece in pieces]
    total = max(1, sum(sizes))
    for piece, size, end in zip(pieces, sizes, accumulate(sizes)):
        middle = end - size / 2  # decides, so that a large piece goes where most of it would be
        groups[min(len(groups) - 1, int(middle * len(groups) / total))].append(piece)
    return groups


def _divide_by_size(pieces: Sequence[Piece], limit: int) -> list[list[Piece]]:
    if limit < 1:
        raise ValueError(f"shard_bytes must be at least 1, found {limit}")
    groups: list[list[Piece]] = [[]]
    filled = 0
    for piece in pieces:
        size = piece.tensor.nbytes
        if filled and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(piece)
        filled += size
    if len(groups) > MAX_SHARDS:
        raise ValueError(f"shard_bytes={limit} makes {len(groups)} shards; {MAX_SHARDS} is the most there can be")
    return groups


def _checked_name(name: str) -> bytes:
    """The name as bytes, by which names sort; the empty key and those with a leading zero byte mean other things."""
    try:
        key = encode_text(name)
    except (UnicodeEncodeError, AttributeError):
        key = b""
    if not key or key.startswith(b"\x00"):
        raise UnsupportedFormatError(
            "a tensor cannot be saved under this name",
            expected="text that is not empty and does not start with a zero byte",
            found=repr(name),
        )
    return key


def _checked_tensor(name: str, value: Any) -> LazyTensor:
    try:
        tensor = value if isinstance(value, LazyTensor) else lazy(name, _array(value))
    except (TypeError, ValueError) as error:
        raise UnsupportedFormatError(f"tensor {name!r} cannot be saved: {error}") from error
    if tensor.data_type in _OPAQUE:
        raise UnsupportedFormatError(
            f"tensor {name!r} is of type {type_name(tensor.data_type)}, whose values only TensorFlow itself can write; "
            "leave it out"
        )
    return tensor


def _array(value: Any) -> np.ndarray[Any, Any]:
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        array = array if isinstance(value, np.ndarray) else np.array(value, object)
        for item in array.ravel().tolist():
            if not isinstance(item, bytes | str):
                raise TypeError(f"it holds a {type(item).__name__} where bytes or text should be")
    return array
