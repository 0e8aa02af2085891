"""One block of a table: entries sorted by key, each key without what it shares with the key before.

    block    := entry*, uint32 restarts[n], uint32 n          (little endian)
    entry    := varint shared, varint unshared, varint value length, rest of the key, value
    trailer  := type (1 byte: 0 as such, 1 snappy), masked crc of block and type     (follows the block)

A restart is the offset of an entry that shares nothing. The format is leveldb's (doc/table_format.md), read by
tensorflow/tsl/lib/io/block.cc. Blocks past a megabyte, which hold the large tensors of V1 checkpoints, are walked and
never loaded; their checksum is verified when the first of their values is read, and once only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from operator import lt
from typing import NamedTuple

from graph_restore.errors import CorruptionError, UnsupportedFormatError
from graph_restore.storage import snappy
from graph_restore.storage.coding import Window, decode_varint, encode_varint
from graph_restore.storage.crc32c import checked_chunks, extend, mask
from graph_restore.storage.extent import Checksum, Extent
from graph_restore.storage.source import BytesSource, Source

TRAILER = struct.Struct("<BI")
LOADED = 1 << 20  # blocks up to this size are read and verified at once
RESTART_INTERVAL = 16
_MAX_KEY = 1 << 16
_HEAD = 64  # bytes looked at for the head of an entry, and most often its key
_UINT32 = struct.Struct("<I")
_RESTARTS_AT_ONCE = 1 << 14
_AS_SUCH, _SNAPPY = 0, 1


class Handle(NamedTuple):
    """Where a block lies; its trailer follows and is not counted in `size`."""

    offset: int
    size: int


class Unpacked:
    """The content of the packed block that was read last, so that a walk through it unpacks it once."""

    def __init__(self) -> None:
        self._block: Block | None = None
        self._content = b""

    def content(self, block: Block) -> bytes:
        """What `block` unpacks to."""
        if self._block is not block:
            self._content = b""
            self._content = snappy.decompress(block.packed(), block.source.name, block.handle.offset)
            self._block = block
        return self._content


class PackedSource(Source):
    """The content of a packed block, unpacked whenever it is read."""

    def __init__(self, block: Block, unpacked: Unpacked) -> None:
        source, (offset, size) = block.source, block.handle
        self.name = f"{source.name} (packed block at byte {offset})"
        self.size = snappy.content_length(source.pread(offset, min(size, 10)), source.name, offset, size)
        self._block, self._unpacked = block, unpacked

    def _pread(self, offset: int, length: int) -> bytes:
        return self._unpacked.content(self._block)[offset : offset + length]


class Block:
    """A block of `source` at `handle`; CorruptionError for a damaged trailer, or for entries that cannot be."""

    def __init__(self, source: Source, handle: Handle, unpacked: Unpacked) -> None:
        self.source, self.handle = source, handle
        self.kind, crc = TRAILER.unpack(source.pread(handle.offset + handle.size, TRAILER.size))
        self._region = Checksum(handle.offset, handle.size + 1, crc, f"the table block at byte {handle.offset}")
        self._unpacked = unpacked
        self.verified = False

    def packed(self) -> bytes:
        """The bytes on disk, verified."""
        data = b"".join(self._verified_chunks())
        self.verified = True
        return data[:-1]

    def verify(self) -> None:
        """Reads the block to compare its checksum, unless that was done before."""
        if not self.verified:
            for _ in self._verified_chunks():
                pass
            self.verified = True

    def entries(self, inline: int) -> Iterator[tuple[bytes, Extent | bytes]]:
        """(key, value) of every entry in order; values up to `inline` bytes are verified bytes, others extents."""
        if self.kind == _AS_SUCH:
            yield from self._plain_entries(inline)
            return
        if self.kind != _SNAPPY:
            self._refuse_packing()
        content = PackedSource(self, self._unpacked)
        window = Window(content)
        for key, offset, length in _walk(window, 0, content.size, 0):
            yield key, window.bytes_at(offset, length) if length <= inline else Extent(content, offset, length)

    def _plain_entries(self, inline: int) -> Iterator[tuple[bytes, Extent | bytes]]:
        start, size = self.handle
        loaded = size <= LOADED
        window = Window(BytesSource(self.packed(), self.source.name) if loaded else self.source)
        base, shift = (0, start) if loaded else (start, 0)
        for key, offset, length in _walk(window, base, size, shift):
            if length > inline:
                yield key, BlockExtent(self.source, offset + shift, length, self._region, self)
            else:
                self.verify()
                yield key, window.bytes_at(offset, length)

    def _verified_chunks(self) -> Iterator[bytes]:
        region = self._region
        return checked_chunks(self.source, region.offset, region.length, region.masked_crc, region.what)

    def _refuse_packing(self) -> None:
        self.verify()  # a damaged type byte is damage, not an unknown packing
        raise UnsupportedFormatError(
            "unknown packing of a table block",
            path=self.source.name,
            offset=self.handle.offset + self.handle.size,
            expected="0 (none) or 1 (snappy)",
            found=self.kind,
        )


@dataclass(frozen=True)
class BlockExtent(Extent):
    """A value inside a block: the first of a block's values that is read verifies it, the others need not."""

    block: Block | None = None

    def chunks(self, verify: bool = True) -> Iterator[bytes]:
        known = self.block is not None and self.block.verified
        yield from super().chunks(verify and not known)
        if verify and self.block is not None:
            self.block.verified = True

    def part(self, offset: int, length: int) -> Extent:
        whole = super().part(offset, length)
        return BlockExtent(whole.source, whole.offset, whole.length, whole.checksum, self.block)


class BlockBuilder:
    """A block in the making; keys must come in order, which the table's writer checks."""

    def __init__(self, restart_interval: int = RESTART_INTERVAL) -> None:
        self._interval = restart_interval
        self._data = bytearray()
        self._restarts = [0]
        self._count = 0
        self._last = b""

    @property
    def size(self) -> int:
        """Bytes of the block without its trailer."""
        return len(self._data) + 4 * len(self._restarts) + 4

    @property
    def empty(self) -> bool:
        return not self._count

    def add(self, key: bytes, value: bytes) -> None:
        self.open(key, len(value))
        self._data += value

    def open(self, key: bytes, length: int) -> None:
        """Adds an entry up to its value of `length` bytes, which is to be given to `parts`."""
        shared = 0
        if self._count % self._interval:
            shared = shared_prefix(self._last, key)
        elif self._count:
            self._restarts.append(len(self._data))
        head = encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(length)
        self._data += head + key[shared:]
        self._last = key
        self._count += 1

    def parts(self, value: Iterable[bytes] = ()) -> Iterator[bytes]:
        """The block with its trailer, not packed, in pieces; `value` is that of the last entry if it was opened."""
        restarts = struct.pack(f"<{len(self._restarts) + 1}I", *self._restarts, len(self._restarts))
        crc = 0
        for piece in chain([bytes(self._data)], value, [restarts + bytes([_AS_SUCH])]):
            crc = extend(crc, piece)
            yield piece
        yield _UINT32.pack(mask(crc))


def shared_prefix(first: bytes, second: bytes) -> int:
    """How many leading bytes two keys have in common."""
    limit = min(len(first), len(second))
    return next((index for index in range(limit) if first[index] != second[index]), limit)


def _walk(window: Window, start: int, size: int, shift: int) -> Iterator[tuple[bytes, int, int]]:
    """(key, offset of the value, its length) of every entry; `shift` makes offsets those of the file in errors."""
    end = start + _entries_size(window.source, start, size, shift)
    position, key = start, b""
    while position < end:
        head = window.bytes_at(position, min(_HEAD, end - position))
        shared, unshared, length, rest = _entry_head(head, window, position, shift)
        value = rest + unshared
        if shared > len(key) or shared + unshared > _MAX_KEY or value + length > end:
            raise CorruptionError(
                "impossible lengths in a table entry",
                path=window.source.name,
                offset=position + shift,
                expected=f"at most {len(key)} shared and {end - rest} more bytes",
                found=f"{shared} shared, {unshared} of key, {length} of value",
            )
        begin = rest - position
        own = head[begin : begin + unshared] if begin + unshared <= len(head) else window.bytes_at(rest, unshared)
        following = key[:shared] + own
        if position > start and following <= key:
            raise CorruptionError("keys of a table are out of order", path=window.source.name, offset=position + shift)
        key = following
        yield key, value, length
        position = value + length


def _entry_head(head: bytes, window: Window, position: int, shift: int) -> tuple[int, int, int, int]:
    """(shared, unshared, value length, offset of the rest of the key) of the entry that begins with `head`."""
    if len(head) > 2 and head[0] | head[1] | head[2] < 0x80:
        return head[0], head[1], head[2], position + 3
    numbers, used = [], 0
    for _ in range(3):
        number, used = decode_varint(head, used, window.source.name, position + shift)
        numbers.append(number)
    return numbers[0], numbers[1], numbers[2], position + used


def _entries_size(source: Source, start: int, size: int, shift: int) -> int:
    """Bytes of the entries, which is where the restarts begin; CorruptionError when these cannot be."""
    count = _UINT32.unpack(source.pread(start + size - 4, 4))[0] if size >= 4 else 0
    entries = size - 4 - 4 * count
    if count == 0 or entries < 0:
        raise CorruptionError(
            "a table block has an impossible number of restarts",
            path=source.name,
            offset=start + shift,
            expected=f"1 to {max(0, size - 4) // 4}",
            found=count,
        )
    previous, limit = -1, max(1, entries)
    for chunk in source.chunks(start + entries, 4 * count, 4 * _RESTARTS_AT_ONCE):
        restarts = (previous, *struct.unpack(f"<{len(chunk) // 4}I", chunk))
        in_order = all(map(lt, restarts, restarts[1:]))
        if (previous < 0 and restarts[1] != 0) or not in_order or restarts[-1] >= limit:
            raise CorruptionError("restarts of a table block are out of order", path=source.name, offset=start + shift)
        previous = restarts[-1]
    return entries
