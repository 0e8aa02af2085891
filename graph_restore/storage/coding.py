"""Varints and the protobuf wire format, walked without decoding what a field holds.

message := field*
field   := varint(number << 3 | type), then by type
           0: varint    1: 8 bytes    2: varint length, that many bytes    5: 4 bytes
(3 and 4, groups, are not used by any message read here)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias

from graph_restore.arrays import np
from graph_restore.errors import CorruptionError
from graph_restore.storage.source import Source

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WINDOW = 1 << 16
_Array: TypeAlias = "np.ndarray[Any, Any]"
_SEVENS = 0x7F7F7F7F7F7F7F7F  # the bits of a varint that count
_GROUPS = ((1, 0x007F007F007F007F), (2, 0x00003FFF00003FFF), (4, 0x000000000FFFFFFF))


class Field(NamedTuple):
    """One field of a message: where it starts (its tag), where its content lies, and a varint's value."""

    number: int
    wire_type: int
    start: int
    offset: int
    length: int
    value: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def encode_varint(value: int) -> bytes:
    """`value` (0 to 2**64-1) as a base-128 varint."""
    if 0 <= value < 0x80:
        return bytes((value,))  # most are of one byte
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(4096)
def encode_header(number: int, length: int) -> bytes:
    """The bytes before a length-delimited field's content."""
    return encode_varint(number << 3 | BYTES) + encode_varint(length)


def decode_varint(data: bytes, position: int, path: str = "<bytes>", base: int = 0) -> tuple[int, int]:
    """(value, position after it) of the varint at `position`; CorruptionError past the end or past 10 bytes."""
    value = shift = 0
    for index in range(position, min(position + 10, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, index + 1
        shift += 7
    raise CorruptionError("a varint does not end where it must", path=path, offset=base + position)


@cache
def _masks_and_steps() -> tuple[_Array, list[tuple[Any, ...]]]:
    """The bits that count by a varint's length; and how far the upper of two groups of them is moved, where the lower
    one is, and where the upper one comes to be."""
    masks = np.array([_SEVENS & ((1 << 8 * length) - 1) for length in range(11)], np.uint64)
    return masks, [tuple(map(np.uint64, (shift, low, low << 7 * shift))) for shift, low in _GROUPS]


def decode_varints(data: _Array, starts: _Array, ends: _Array) -> _Array:
    """The uint64 values of varints of up to 10 bytes in `data`, a uint8 vector; `starts`, `ends`: of their first and
    last bytes.

    Eight bytes are taken at once, what is past the end masked out, then the groups of 7 bits moved together in pairs.
    """
    masks, steps = _masks_and_steps()
    words = np.ndarray((data.size + 1,), "<u8", np.concatenate((data, np.zeros(8, np.uint8))), strides=(1,))
    lengths = ends - starts + 1
    values: _Array = words[starts]
    values &= masks[lengths]
    for shift, low, high in steps:
        upper = values >> shift
        upper &= high
        values &= low
        values |= upper
    for index in (8, 9):
        longer = np.flatnonzero(lengths > index)
        byte = data[starts[longer] + index].astype(np.uint64) & np.uint64(0x7F)
        values[longer] |= byte << np.uint64(7 * index)
    return values


class Window:
    """A source read forward through a small window, so that a scan costs few system calls and little memory."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._start = 0
        self._data = b""

    def bytes_at(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`; CorruptionError when the source is shorter."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._data):
            if length > _WINDOW:
                return self.source.pread(offset, length)
            self._data = self.source.pread(offset, min(_WINDOW, max(length, self.source.size - offset)))
            self._start, begin = offset, 0
        return self._data[begin : begin + length]

    def varint(self, offset: int, end: int) -> tuple[int, int]:
        """(value, offset after it) of the varint at `offset`, which must stop before `end`."""
        begin = offset - self._start
        if 0 <= begin < len(self._data) and offset < end and self._data[begin] < 0x80:
            return self._data[begin], offset + 1  # most are of one byte
        data = self.bytes_at(offset, min(10, max(0, end - offset)))
        value, used = decode_varint(data, 0, self.source.name, offset)
        return value, offset + used

    def past_short(self, offset: int, end: int, limit: int) -> int:
        """Where the first field at or after `offset` starts that is no plain short one: bytes, at most `limit` of them.

        `limit` is under 16384. Looks no further than the window reaches: what lies before that place is in memory.
        """
        data, base = self._data, self._start
        position, stop = offset - base, min(end - base, len(data))
        while 0 <= position < stop - 2:  # a tag and a length of up to two bytes
            tag, length, content = data[position], data[position + 1], position + 2
            if length >= 0x80:
                length += (data[content] << 7) - 0x80
                content += 1
            if tag & 0x87 != BYTES or tag < 8 or length > limit or content + length > stop:
                break
            position = content + length
        return base + position

    def past_alike(self, number: int, offset: int, end: int) -> tuple[int, int]:
        """(how many short fields of this number, under 16, with bytes follow each other from `offset` on, where they
        end), as far as the window reaches."""
        data, base, tag = self._data, self._start, number << 3 | BYTES
        position, stop, count = offset - base, min(end - base, len(data)), 0
        while 0 <= position < stop - 1 and data[position] == tag and data[position + 1] < 0x80:
            after = position + 2 + data[position + 1]
            if after > stop:
                break
            position = after
            count += 1
        return count, base + position

    def contents(self, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
        """(number, bytes of the content) of every field; CorruptionError as for `fields`."""
        while offset < end:
            data, base = self._data, self._start
            position, stop = offset - base, min(end - base, len(data))
            while 0 <= position < stop - 1:  # as long as fields are plain and short
                tag, after = data[position], position + 2 + data[position + 1]
                if tag & 0x87 != BYTES or tag < 8 or data[position + 1] >= 0x80 or after > stop:
                    break
                yield tag >> 3, data[position + 2 : after]
                position = after
            offset = base + position
            for field in self.fields(offset, end):
                yield field.number, self.bytes_at(field.offset, field.length)
                offset = field.end
                break

    def fields(self, offset: int, end: int) -> Iterator[Field]:
        """Every field of the message in [offset, end); CorruptionError where it is no such message."""
        while offset < end:
            start = offset
            begin = offset - self._start
            if begin >= 0 and offset + 2 <= end and begin + 2 <= len(self._data):
                tag, length = self._data[begin], self._data[begin + 1]
                if 8 <= tag < 0x80 and tag & 7 == BYTES and length < 0x80 and offset + 2 + length <= end:
                    offset += 2 + length
                    yield Field(tag >> 3, BYTES, start, start + 2, length, 0)  # as nearly all are
                    continue
            tag, offset = self.varint(offset, end)
            number, wire_type = tag >> 3, tag & 7
            value = 0
            content = offset
            if wire_type == VARINT:
                value, offset = self.varint(offset, end)
                length = offset - content
            elif wire_type == BYTES:
                length, content = self.varint(offset, end)
            else:
                length = {FIXED64: 8, FIXED32: 4}.get(wire_type, -1)
            if number == 0 or length < 0 or content + length > end:
                raise CorruptionError(
                    "not a protobuf message here", path=self.source.name, offset=start, found=f"tag {tag}"
                )
            offset = content + length
            yield Field(number, wire_type, start, content, length, value)
