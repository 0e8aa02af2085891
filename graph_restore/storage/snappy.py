"""Snappy, the raw block format: what table blocks of type 1 are packed with.

    block    := varint size of the content, element*
    element  := tag (1 byte), its low two bits say which:
      00  literal: length - 1 in the high six bits (60 to 63: in the next 1 to 4 bytes, little endian), then the bytes
      01  copy: length - 4 in bits 2 to 4, offset in bits 5 to 7 (high) and the next byte
      10  copy: length - 1 in the high six bits, offset in the next 2 bytes
      11  copy: the same with 4 bytes
    A copy repeats what lies `offset` bytes back; it may reach into itself.

The format is described in snappy's format_description.txt.
"""

from __future__ import annotations

from graph_restore.errors import CorruptionError, UnsupportedFormatError
from graph_restore.storage.coding import decode_varint

MAX_CONTENT = 1 << 31  # a table value is a protobuf message, and none may be larger
_MAX_RATIO = 22  # the best element is 3 bytes for 64


def content_length(data: bytes, path: str = "<bytes>", offset: int = 0, size: int | None = None) -> int:
    """Bytes that a block starting with `data` unpacks to; `size` is the block's length if `data` is only its start.

    CorruptionError if so many cannot come out of such a block, UnsupportedFormatError past 2 GiB.
    """
    length, _ = decode_varint(data, 0, path, offset)
    packed = len(data) if size is None else size
    if length > packed * _MAX_RATIO:
        raise CorruptionError(
            "a snappy block claims more content than it can hold",
            path=path,
            offset=offset,
            expected=f"at most {packed * _MAX_RATIO} bytes",
            found=length,
        )
    if length > MAX_CONTENT:
        raise UnsupportedFormatError(
            "a snappy block unpacks to too much",
            path=path,
            offset=offset,
            expected=f"at most {MAX_CONTENT} bytes",
            found=length,
        )
    return length


def decompress(data: bytes, path: str = "<bytes>", offset: int = 0) -> bytes:
    """The content of a whole block; `path` and `offset` say where it lies, for CorruptionError."""
    size = content_length(data, path, offset)
    _, position = decode_varint(data, 0, path, offset)
    out = bytearray()
    while position < len(data):
        start = position
        length, back, position = _element(data, position)
        literal = back == 0
        if position > len(data) or back > len(out) or back < 0 or len(out) + length > size:
            raise CorruptionError("a snappy element reaches outside its block", path=path, offset=offset + start)
        if literal:
            if position + length > len(data):
                raise CorruptionError("a snappy literal is cut short", path=path, offset=offset + start)
            out += data[position : position + length]
            position += length
        else:
            _repeat(out, back, length)
    if len(out) != size:
        raise CorruptionError(
            "a snappy block is cut short", path=path, offset=offset, expected=f"{size} bytes", found=len(out)
        )
    return bytes(out)


def _element(data: bytes, position: int) -> tuple[int, int, int]:
    """(length, bytes to go back, position after the element's head); 0 back is a literal, -1 a wrong offset of 0."""
    tag = data[position]
    position += 1
    kind, high = tag & 3, tag >> 2
    if kind == 0:
        extra = high - 59 if high > 59 else 0
        length = int.from_bytes(data[position : position + extra], "little") if extra else high
        return length + 1, 0, position + extra
    if kind == 1:
        low = data[position] if position < len(data) else 0
        return (high & 7) + 4, (tag >> 5 << 8 | low) or -1, position + 1
    width = 2 if kind == 2 else 4
    return high + 1, int.from_bytes(data[position : position + width], "little") or -1, position + width


def _repeat(out: bytearray, back: int, length: int) -> None:
    """Appends `length` bytes starting `back` before the end, the appended ones included."""
    start = len(out) - back
    if back >= length:
        out += out[start : start + length]
    else:
        out += (bytes(out[start:]) * (length // back + 1))[:length]
