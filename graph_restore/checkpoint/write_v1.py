"""Writes V1 checkpoints; v1.py tells the format. Each shard is a table of its own.

A value's length precedes it, so integers, whose varints differ in length, are read twice: to measure, then to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.encoding import (
    encode_metadata,
    encode_slice,
    encode_text,
    encode_varints,
    message,
    varint_sizes,
)
from graph_restore.checkpoint.messages import TensorMeta
from graph_restore.checkpoint.v1 import FIXED_FIELDS, STRING_FIELD, VARINT_FIELDS
from graph_restore.checkpoint.write_plan import Piece
from graph_restore.dtypes import DataType, type_name
from graph_restore.errors import UnsupportedFormatError
from graph_restore.storage.coding import encode_header
from graph_restore.storage.output import AtomicFile, Progress
from graph_restore.storage.table import TableWriter
from graph_restore.tensors import LazyTensor, StringTensor

# TensorFlow's own reader knows none of these, so that its writer never wrote them
_NOT_WRITTEN = {
    DataType.DT_QINT16,
    DataType.DT_QUINT16,
    DataType.DT_BFLOAT16,
    DataType.DT_UINT32,
    DataType.DT_UINT64,
}
_VARINT = {kind: field for kind, field in VARINT_FIELDS.items() if kind not in _NOT_WRITTEN}
_MAX_VALUE = (1 << 31) - 1  # what protobuf can parse
_AT_ONCE = 1 << 16  # elements encoded at a time


@dataclass(frozen=True)
class _Values:
    """The one field of a TensorProto that holds the values: its length, and its bytes in pieces."""

    length: int
    pieces: Callable[[], Iterator[bytes]]


def check_pieces(pieces: Sequence[Piece]) -> None:
    """UnsupportedFormatError naming all pieces that a V1 checkpoint cannot hold."""
    kinds = {piece.name: piece.tensor.data_type for piece in pieces}
    refused = [
        f"{name!r} ({type_name(kind)})"
        for name, kind in kinds.items()
        if kind is not DataType.DT_STRING and kind not in FIXED_FIELDS and kind not in _VARINT
    ]
    refused += [
        f"{name!r} (the name is no UTF-8)" for name in kinds if any("\udc80" <= one <= "\udcff" for one in name)
    ]
    if refused:
        raise UnsupportedFormatError(
            f"V1 checkpoints cannot hold these tensors, leave them out or write version 2: {', '.join(refused)}"
        )


def write_tables(prefix: str, shards: Sequence[Sequence[Piece]], progress: Progress | None = None) -> list[str]:
    """Writes the V1 checkpoint `prefix`, several shards as `prefix-00000-of-00002`, and gives the names of its files.

    Raises UnsupportedFormatError for a tensor past 2 GiB, CorruptionError when a checksum or length is wrong.
    """
    paths = [prefix]
    if len(shards) > 1:
        paths = [f"{prefix}-{shard:05d}-of-{len(shards):05d}" for shard in range(len(shards))]
    for path, pieces in zip(paths, shards):
        with AtomicFile(path, progress) as file:
            writer = TableWriter(file)
            writer.add(b"", encode_metadata(_metadata(pieces)))
            for piece in sorted(pieces, key=lambda piece: piece.slice_key):
                _add(writer, piece)
            writer.finish()
    return paths


def _metadata(pieces: Sequence[Piece]) -> list[TensorMeta]:
    """A record a tensor, with those of its slices that are among `pieces`."""
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.name, []).append(piece)
    return [
        TensorMeta(name, group[0].tensor.data_type, group[0].shape, tuple(piece.extents for piece in group))
        for name, group in groups.items()
    ]


def _add(writer: TableWriter, piece: Piece) -> None:
    """Adds SavedTensorSlices { data=2 SavedSlice { name=1 slice=2 data=3 TensorProto } }."""
    values = _values(piece.tensor)
    head = message(1, encode_text(piece.name)) + message(2, encode_slice(piece.extents))
    head += encode_header(3, values.length)
    head = encode_header(2, len(head) + values.length) + head
    length = len(head) + values.length
    if length > _MAX_VALUE:
        raise UnsupportedFormatError(
            f"tensor {piece.name!r} is too large for a V1 checkpoint; write version 2",
            expected=f"at most {_MAX_VALUE} bytes",
            found=length,
        )
    writer.add_pieces(piece.slice_key, length, _after(head, values.pieces()))


def _values(tensor: LazyTensor) -> _Values:
    if isinstance(tensor, StringTensor):
        lengths = tensor.lengths().astype(np.uint64)
        size = lengths.size + int(varint_sizes(lengths).sum(dtype=np.int64)) + int(lengths.sum())
        return _Values(size, lambda: _string_fields(tensor))
    if not tensor.size:
        return _Values(0, lambda: iter(()))
    if tensor.data_type in FIXED_FIELDS:
        return _packed(FIXED_FIELDS[tensor.data_type], tensor.nbytes, tensor.chunks)
    if tensor.data_type is DataType.DT_BOOL:
        size = tensor.size
    else:
        size = sum(int(varint_sizes(run).sum(dtype=np.int64)) for run in _runs(tensor))
    return _packed(_VARINT[tensor.data_type], size, lambda: map(encode_varints, _runs(tensor)))


def _packed(number: int, size: int, pieces: Callable[[], Iterator[bytes]]) -> _Values:
    head = encode_header(number, size)
    return _Values(len(head) + size, lambda: _after(head, pieces()))


def _after(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from pieces


def _string_fields(tensor: StringTensor) -> Iterator[bytes]:
    for string in tensor.strings():
        yield message(STRING_FIELD, string)


def _runs(tensor: LazyTensor) -> Iterator[np.ndarray[Any, Any]]:
    """The numbers that become varints, as uint64 vectors of limited length; negative ones extended to 64 bits."""
    width = tensor.dtype.itemsize
    rest = b""
    for chunk in tensor.chunks():
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % width
        rest = data[whole:]
        for start in range(0, whole, _AT_ONCE * width):
            yield _as_uint64(tensor, data[start : min(whole, start + _AT_ONCE * width)])


def _as_uint64(tensor: LazyTensor, data: bytes) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any]
    if tensor.data_type is DataType.DT_BOOL:
        values = np.frombuffer(data, np.uint8) != 0
    else:  # halves as their bits
        values = np.frombuffer(data, tensor.dtype if tensor.dtype.kind in "iu" else f"<u{tensor.dtype.itemsize}")
    return values.astype(np.int64).view(np.uint64)
