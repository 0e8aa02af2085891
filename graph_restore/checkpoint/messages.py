"""The small protobuf records inside checkpoints; those of V1 by hand, so that payloads between them stay on disk.

    V2 index   key "" -> BundleHeaderProto { num_shards=1 endianness=2 version=3 }
               else   -> BundleEntryProto { dtype=1 shape=2 shard_id=3 offset=4 size=5 crc32c=6 slices=7 }
    V1 table   key "" -> SavedTensorSlices { meta=1 { tensor=1 { name=1 shape=2 type=3 slice=4 } versions=2 } }
    both       TensorSliceProto { extent=1 { start=1 length=2 } }, no length meaning the whole dimension

The formats are those of tensorflow/core/protobuf/tensor_bundle.proto and tensorflow/core/util/saved_tensor_slice.proto.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from graph_restore.dtypes import DataType, data_type
from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.slices import TensorSlice
from graph_restore.storage.coding import BYTES, VARINT, Field, Window, decode_varint
from graph_restore.storage.source import BytesSource
from graph_restore.tensor_proto import scan_shape

VERSION = 1  # of both formats, as TensorFlow writes it to this day
_INT64 = 1 << 63
_MAX_ELEMENTS = 1 << 59  # with elements of up to 16 bytes, what an array may have even if another dimension is 0
_MAX_RANK = 254  # of a TensorShape

_Entry = tuple[int, tuple[int, ...], int, int, int, int, "tuple[SliceExtents, ...]"]  # of a BundleEntryProto


@dataclass(frozen=True)
class SliceExtents:
    """A slice as it is written: starts and lengths, -1 for a whole dimension. Its key is made of these very numbers."""

    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    def within(self, shape: tuple[int, ...]) -> TensorSlice:
        """The box this slice is in a tensor of `shape`; FormatError if it does not lie in it."""
        padded = shape + (0,) * (len(self.lengths) - len(shape))
        lengths = tuple(size if length < 0 else length for size, length in zip(padded, self.lengths))
        return TensorSlice(shape, self.starts, lengths)


@dataclass(frozen=True)
class BundleHeader:
    """What a V2 index says about the whole checkpoint."""

    num_shards: int
    big_endian: bool


class BundleEntry(NamedTuple):
    """What a V2 index says about one tensor or slice; with `slices` the tensor has no data of its own."""

    data_type: DataType
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[SliceExtents, ...]


@dataclass(frozen=True)
class TensorMeta:
    """What the metadata of a V1 file say about one tensor: the slices are those that lie in this file."""

    name: str
    data_type: DataType
    shape: tuple[int, ...]
    slices: tuple[SliceExtents, ...]


def decode_text(data: bytes) -> str:
    """A name; bytes that are no UTF-8 survive as surrogates."""
    return data.decode("utf-8", "surrogateescape")


def decode_header(data: bytes, path: str) -> BundleHeader:
    """The header of a V2 index; UnsupportedFormatError for a version this reader does not know."""
    window = Window(BytesSource(data, path))
    num_shards = endianness = 0
    for field in window.fields(0, len(data)):
        if field.number == 1 and field.wire_type == VARINT:
            num_shards = _signed(field)
        elif field.number == 2 and field.wire_type == VARINT:
            endianness = field.value
        elif field.number == 3 and field.wire_type == BYTES:
            _check_version(window, field)
    return BundleHeader(num_shards, endianness == 1)


def decode_entry(data: bytes, name: str, path: str) -> BundleEntry:
    """One entry of a V2 index, checked as far as it can be alone; FormatError names the tensor."""
    where = f"{path}, entry of {name!r}"
    number, shape, shard, offset, size, crc, slices = _plain_entry(data) or _any_entry(data, where)
    if not _is_sound(shape):
        raise FormatError("a tensor's shape is impossible", path=where, found=shape)
    found = BundleEntry(_data_type(number, name, path), shape, shard, offset, size, crc, slices)
    if shard < 0 or offset < 0 or size < 0:
        raise FormatError("an entry with a negative number", path=where, found=list(found[2:5]))
    return found


def _any_entry(data: bytes, where: str) -> _Entry:
    from graph_restore.protos import BundleEntryProto  # most checkpoints have plain entries only

    try:
        entry = BundleEntryProto.FromString(data)
    except Exception:  # protobuf's DecodeError has no public base that all its implementations share
        raise CorruptionError("not a protobuf message here", path=where) from None
    shape = tuple(dim.size for dim in entry.shape.dim)
    slices = tuple(map(_extents, entry.slices))
    return entry.dtype, shape, entry.shard_id, entry.offset, entry.size, entry.crc32c, slices


def _plain_entry(data: bytes) -> _Entry | None:
    """An entry as TensorFlow writes that of a whole tensor, each field once and in order; None for any other."""
    end = len(data) - 5  # where the checksum begins, four bytes after their tag
    if end < 2 or data[0] != 0x08 or data[1] > 0x7F or data[end] != 0x35:
        return None
    shape: tuple[int, ...] | None = ()
    position = 2
    if data[2] == 0x12 and data[3] < 0x80:
        position = 4 + data[3]
        shape = _plain_shape(data[4:position])
    shard, position = _plain_number(data, position, 0x18)
    offset, position = _plain_number(data, position, 0x20)
    size, position = _plain_number(data, position, 0x28)
    if shape is None or position != end or shard >> 31 or offset >> 63 or size >> 63:
        return None
    return data[1], shape, shard, offset, size, int.from_bytes(data[end + 1 :], "little"), ()


@lru_cache(4096)
def _plain_shape(data: bytes) -> tuple[int, ...] | None:
    """The sizes of a TensorShapeProto that states nothing else; None for any other. Most occur many times."""
    sizes = []
    position = 0
    while position < len(data):
        end = position + 2 + (data[position + 1] if position + 1 < len(data) else 0x80)
        if data[position] != 0x12 or end > len(data):
            return None
        size, position = _plain_number(data, position + 2, 0x08) if end > position + 2 else (0, end)
        if position != end or size >> 63:
            return None
        sizes.append(size)
    return tuple(sizes)


def _plain_number(data: bytes, position: int, tag: int) -> tuple[int, int]:
    """(number, position after it) of the varint field `tag`; (0, position) when it is not there, or does not end."""
    if position + 1 >= len(data) or data[position] != tag:
        return 0, position
    if data[position + 1] < 0x80:
        return data[position + 1], position + 2
    try:
        return decode_varint(data, position + 1)
    except CorruptionError:
        return 0, position


def _extents(part: Any) -> SliceExtents:
    """A TensorSliceProto."""
    lengths = (extent.length if extent.HasField("length") else -1 for extent in part.extent)
    return SliceExtents(tuple(extent.start for extent in part.extent), tuple(lengths))


def decode_metadata(data: bytes, path: str) -> list[TensorMeta]:
    """The metadata of a V1 file, one record a tensor, in the order of the file."""
    window = Window(BytesSource(data, f"{path}, metadata"))
    metas = []
    for outer in window.fields(0, len(data)):
        if outer.number != 1 or outer.wire_type != BYTES:
            continue
        for field in window.fields(outer.offset, outer.end):
            if field.number == 1 and field.wire_type == BYTES:
                metas.append(_tensor_meta(window, field, path))
            elif field.number == 2 and field.wire_type == BYTES:
                _check_version(window, field)
    return metas


def is_v1_metadata(data: bytes) -> bool:
    """Whether the value of the empty key is that of a V1 table (field 1 a message) and not of a V2 index."""
    return data[:1] != b"\x08"


def _tensor_meta(window: Window, record: Field, path: str) -> TensorMeta:
    name, number = "", 0
    shape: tuple[int, ...] = ()
    slices = []
    for field in window.fields(record.offset, record.end):
        if field.number == 3 and field.wire_type == VARINT:
            number = field.value
        elif field.wire_type != BYTES:
            continue
        elif field.number == 1:
            name = decode_text(window.bytes_at(field.offset, field.length))
        elif field.number == 2:
            shape = _shape(window, field)
        elif field.number == 4:
            slices.append(_slice_extents(window, field))
    return TensorMeta(name, _data_type(number, name, path), shape, tuple(slices))


def _slice_extents(window: Window, record: Field) -> SliceExtents:
    starts, lengths = [], []
    for extent in window.fields(record.offset, record.end):
        if extent.number == 1 and extent.wire_type == BYTES:
            numbers = {1: 0, 2: -1}
            for field in window.fields(extent.offset, extent.end):
                if field.wire_type == VARINT:
                    numbers[field.number] = _signed(field)
            starts.append(numbers[1])
            lengths.append(numbers[2])
    return SliceExtents(tuple(starts), tuple(lengths))


def _shape(window: Window, field: Field) -> tuple[int, ...]:
    shape = scan_shape(window, field)
    _check_shape(shape, window.source.name)
    return shape


@lru_cache(4096)
def _is_sound(shape: tuple[int, ...]) -> bool:
    return len(shape) <= _MAX_RANK and min(shape, default=0) >= 0 and math.prod(filter(None, shape)) < _MAX_ELEMENTS


def _check_shape(shape: tuple[int, ...], path: str) -> None:
    if not _is_sound(shape):
        raise FormatError("a tensor's shape is impossible", path=path, found=shape)


def _data_type(number: int, name: str, path: str) -> DataType:
    try:
        kind = data_type(number)
    except UnsupportedFormatError:
        kind = None
    if kind is None:
        raise UnsupportedFormatError(
            f"tensor {name!r} has an unknown data type; the file may be of a newer TensorFlow",
            path=path,
            expected="1 to 32",
            found=number,
        )
    if kind is DataType.DT_INVALID:
        raise FormatError(f"tensor {name!r} has no data type", path=path)
    return kind


def _check_version(window: Window, record: Field) -> None:
    """VersionDef { producer=1 min_consumer=2 bad_consumers=3 }: whether the writer lets this version read."""
    for field in window.fields(record.offset, record.end):
        if field.number == 2 and field.wire_type == VARINT and field.value > VERSION:
            raise UnsupportedFormatError(
                "the checkpoint asks for a newer reader",
                path=window.source.name,
                expected=f"version {VERSION}",
                found=field.value,
            )


def _signed(field: Field) -> int:
    return field.value - (1 << 64) if field.value >= _INT64 else field.value
