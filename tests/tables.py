"""Tables, records and checkpoint entries put together byte by byte, with a checksum of its own, for tests to damage.

Nothing here comes from the package: these are the formats as documented, in the most literal form.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

MAGIC = bytes.fromhex("57fb808b247547db")


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit: polynomial 0x82f63b78, reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """The checksum as it is stored."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    out = b""
    while value >= 0x80:
        out += bytes([value % 0x80 + 0x80])
        value //= 0x80
    return out + bytes([value])


def field(number: int, content: bytes | int) -> bytes:
    """A protobuf field: a varint or length-delimited bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content % (1 << 64))
    return varint(number << 3 | 2) + varint(len(content)) + content


def shape(*sizes: int) -> bytes:
    """A TensorShapeProto."""
    return b"".join(field(2, field(1, size)) for size in sizes)


def entry(dtype: int, sizes: Sequence[int], data: bytes, offset: int = 0, shard: int = 0) -> bytes:
    """A BundleEntryProto of a tensor whose data are `data`."""
    head = field(1, dtype) + field(2, shape(*sizes))
    place = field(3, shard) + field(4, offset) + field(5, len(data))
    return head + place + b"\x35" + struct.pack("<I", masked(data))


def block(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A block without shared prefixes and with one restart."""
    data = b"".join(b"\x00" + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    return data + struct.pack("<II", 0, 1)


def trailer(content: bytes, kind: int = 0) -> bytes:
    """The type of packing and the checksum that follow a block."""
    return bytes([kind]) + struct.pack("<I", masked(content + bytes([kind])))


def table(blocks: Sequence[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    """A table of these blocks, each under its key in the index."""
    out, handles = b"", []
    for last, content in blocks:
        handles.append((last, varint(len(out)) + varint(len(content))))
        out += content + trailer(content, kind)
    return out + ending(len(out), block(handles))


def ending(offset: int, index: bytes) -> bytes:
    """What follows the data blocks: an empty metaindex block, the index, the footer."""
    metaindex = block([])
    out = metaindex + trailer(metaindex)
    footer = varint(offset) + varint(len(metaindex)) + varint(offset + len(out)) + varint(len(index))
    return out + index + trailer(index) + footer.ljust(40, b"\x00") + MAGIC


def one_block(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A table with a single data block."""
    return table([(entries[-1][0], block(entries))])


def index(entries: Sequence[tuple[bytes, bytes]], num_shards: int = 1, more: bytes = b"") -> bytes:
    """The index file of a V2 checkpoint; `more` are fields of the header."""
    header = field(1, num_shards) + more + field(3, field(1, 1))
    return one_block([(b"", header), *sorted(entries)])


def saved_slice(name: bytes, values: bytes) -> bytes:
    """The value of a V1 slice that is the whole tensor: `values` are the fields of its TensorProto."""
    return field(2, field(1, name) + field(2, b"") + field(3, values))


def metadata(*tensors: bytes) -> bytes:
    """The value of the empty key of a V1 table."""
    return field(1, b"".join(field(1, tensor) for tensor in tensors) + field(2, field(1, 1)))
