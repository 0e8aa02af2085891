"""The small protobuf records inside checkpoints, written: the other direction of messages.py, byte for byte as
TensorFlow writes them (fields in order of their numbers, zeros left out), and numbers as runs of varints.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.messages import VERSION, BundleEntry, SliceExtents, TensorMeta
from graph_restore.storage.coding import FIXED32, VARINT, encode_header, encode_varint


def encode_text(name: str) -> bytes:
    """A name; the surrogates that stand for bytes that are no UTF-8 become these bytes again."""
    return name.encode("utf-8", "surrogateescape")


def message(number: int, content: bytes) -> bytes:
    """A field that holds a message or bytes."""
    return encode_header(number, len(content)) + content


def encode_shape(sizes: Iterable[int]) -> bytes:
    """TensorShapeProto { dim=2 { size=1 } }."""
    return b"".join(message(2, _number(1, size)) for size in sizes)


def encode_slice(extents: SliceExtents) -> bytes:
    """TensorSliceProto { extent=1 { start=1 length=2 } }; a length, unlike a start, is written when it is 0 too."""
    out = b""
    for start, length in zip(extents.starts, extents.lengths):
        out += message(1, b"" if length < 0 else _number(1, start) + _tag(2, VARINT) + encode_varint(length))
    return out


def encode_bundle_header(num_shards: int) -> bytes:
    """The value of the empty key of a V2 index: little-endian, which is 0 and so left out."""
    return _number(1, num_shards) + message(3, _number(1, VERSION))


def encode_bundle_entry(entry: BundleEntry) -> bytes:
    """The value of any other key of a V2 index."""
    out = _number(1, entry.data_type) + message(2, encode_shape(entry.shape))
    out += _number(3, entry.shard) + _number(4, entry.offset) + _number(5, entry.size)
    if entry.crc:
        out += _tag(6, FIXED32) + struct.pack("<I", entry.crc)
    return out + b"".join(message(7, encode_slice(part)) for part in entry.slices)


def encode_metadata(metas: Sequence[TensorMeta]) -> bytes:
    """The value of the empty key of a V1 table."""
    tensors = b"".join(message(1, _tensor_meta(meta)) for meta in metas)
    return message(1, tensors + message(2, _number(1, VERSION)))


def varint_sizes(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How many bytes each of `values`, uint64, takes as a varint."""
    sizes = np.ones(values.shape, np.uint8)
    rest = values >> np.uint64(7)
    while rest.any():
        sizes += rest != 0
        rest >>= np.uint64(7)
    return sizes


def encode_varints(values: np.ndarray[Any, Any]) -> bytes:
    """`values`, a uint64 vector, as varints one after the other; takes some thirty times its length meanwhile."""
    sizes = varint_sizes(values)
    columns = np.arange(sizes.max(initial=1), dtype=np.uint8)
    digits = (values[:, None] >> (columns * np.uint64(7))).astype(np.uint8) & 0x7F
    digits[columns + 1 < sizes[:, None]] |= 0x80
    used: np.ndarray[Any, Any] = digits[columns < sizes[:, None]]
    return used.tobytes()


def _tensor_meta(meta: TensorMeta) -> bytes:
    head = message(1, encode_text(meta.name)) + message(2, encode_shape(meta.shape)) + _number(3, meta.data_type)
    return head + b"".join(message(4, encode_slice(part)) for part in meta.slices)


def _number(number: int, value: int) -> bytes:
    return _tag(number, VARINT) + encode_varint(value) if value else b""


def _tag(number: int, wire_type: int) -> bytes:
    return encode_varint(number << 3 | wire_type)
