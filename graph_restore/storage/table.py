"""Tables: sorted keys and values in a file. V1 checkpoints are such files, and `.index` files of V2 ones.

    table    := data block*, metaindex block, index block, footer
    index    := a block whose values are handles, each under a key between its block's last and the next one's first
    handle   := varint offset, varint size
    footer   := metaindex handle, index handle, zeros up to 40 bytes, magic 57 fb 80 8b 24 75 47 db

The format is leveldb's (doc/table_format.md), kept by tensorflow/tsl/lib/io/table.cc; blocks are in block.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Protocol

from graph_restore.errors import CorruptionError
from graph_restore.storage.block import TRAILER, Block, BlockBuilder, Handle, Unpacked, shared_prefix
from graph_restore.storage.coding import decode_varint, encode_varint
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import Source

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE = 48
INLINE = 1 << 16  # values up to this size are given as bytes
_BLOCK_SIZE = 256 << 10
_LARGE = 2  # entries of so many block sizes start a block


class Table:
    """A table in `source`, its index read and checked; CorruptionError where it is none or is damaged."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._unpacked = Unpacked()
        footer = self._footer()
        _, position = self._handle(footer, 0, source.size - FOOTER_SIZE)
        index, _ = self._handle(footer, position, source.size - FOOTER_SIZE)
        self._separators: list[bytes] = []
        self._handles: list[Handle] = []
        for key, value in Block(source, index, self._unpacked).entries(INLINE):
            if isinstance(value, Extent):
                raise CorruptionError("a table's index has an impossible handle", path=source.name, offset=value.offset)
            self._separators.append(key)
            self._handles.append(self._handle(value, 0, index.offset)[0])

    def entries(self, inline: int = INLINE) -> Iterator[tuple[bytes, Extent | bytes]]:
        """(key, value) of all entries in order of the keys.

        Values up to `inline` bytes are given as bytes whose checksum was verified, larger ones as extents that verify
        theirs when they are read; with `inline` -1 all are extents. CorruptionError where blocks cannot be.
        """
        last: bytes | None = None
        for number, handle in enumerate(self._handles):
            for key, value in self._block(handle).entries(inline):
                if (last is not None and key <= last) or key > self._separators[number]:
                    raise CorruptionError(
                        "keys of a table are out of order", path=self.source.name, offset=handle.offset, found=key[:80]
                    )
                last = key
                yield key, value

    def get(self, key: bytes) -> Extent | bytes | None:
        """The value of one key, as `entries` gives it, found through the index; None when it is not there."""
        number = bisect_left(self._separators, key)
        if number == len(self._handles):
            return None
        for found, value in self._block(self._handles[number]).entries(INLINE):
            if found >= key:
                return value if found == key else None
        return None

    def _block(self, handle: Handle) -> Block:
        return Block(self.source, handle, self._unpacked)

    def _footer(self) -> bytes:
        source = self.source
        if source.size < FOOTER_SIZE:
            raise CorruptionError("too short for a table", path=source.name, expected=FOOTER_SIZE, found=source.size)
        footer = source.pread(source.size - FOOTER_SIZE, FOOTER_SIZE)
        if footer[-8:] != MAGIC:
            raise CorruptionError(
                "the file does not end as a table does; it is cut short, or is no V1 checkpoint and no .index file",
                path=source.name,
                offset=source.size - 8,
                expected=MAGIC.hex(),
                found=footer[-8:].hex(),
            )
        return footer[:-8]

    def _handle(self, data: bytes, position: int, limit: int) -> tuple[Handle, int]:
        """The handle at `position` and the position after it; its block and trailer must end before `limit`."""
        path = self.source.name
        offset, position = decode_varint(data, position, path)
        size, position = decode_varint(data, position, path)
        if offset + size + TRAILER.size > limit:
            raise CorruptionError(
                "a table's handle points outside the file",
                path=path,
                expected=f"a block that ends by {limit}",
                found=f"offset {offset}, size {size}",
            )
        return Handle(offset, size), position


class Writable(Protocol):
    """A file opened for binary writing, as far as tables need one."""

    def write(self, data: bytes, /) -> object: ...


class TableWriter:
    """Writes a table to `file`, at its start: `add` or `add_pieces` in order of keys, then `finish`.

    Nothing is packed. The bytes are those that TensorFlow's own writer would give.
    """

    def __init__(self, file: Writable, block_size: int = _BLOCK_SIZE) -> None:
        self._file, self._block_size = file, block_size
        self._offset = 0
        self._block = BlockBuilder()
        self._index = BlockBuilder(restart_interval=1)
        self._last: bytes | None = None
        self._pending: Handle | None = None

    def add(self, key: bytes, value: bytes) -> None:
        """Appends an entry; ValueError when `key` does not sort after the one before."""
        self._prepare(key, len(value))
        self._block.add(key, value)
        if self._block.size >= self._block_size:
            self._flush()

    def add_pieces(self, key: bytes, length: int, pieces: Iterable[bytes]) -> None:
        """Appends an entry whose value comes in pieces, `length` bytes together; those of a large one are not held.

        CorruptionError when they are more or fewer bytes, since what was measured before has changed then.
        """
        value = _measured(pieces, length)
        if length < self._block_size:
            self.add(key, b"".join(value))
            return
        self._prepare(key, length)
        self._block.open(key, length)
        self._flush(value)

    def finish(self) -> None:
        """Writes what is left, the index and the footer; the file stays open."""
        if not self._block.empty:
            self._flush()
        if self._pending is not None and self._last is not None:
            self._index.add(_successor(self._last), _encode_handle(self._pending))
        metaindex = self._write(BlockBuilder())
        index = self._write(self._index)
        handles = _encode_handle(metaindex) + _encode_handle(index)
        self._file.write(handles.ljust(FOOTER_SIZE - len(MAGIC), b"\x00") + MAGIC)

    def _prepare(self, key: bytes, length: int) -> None:
        """Checks the order, starts a block for a large value, and gives a block just written its key in the index."""
        if self._last is not None and key <= self._last:
            raise ValueError(f"table keys must be added in order: {key!r} after {self._last!r}")
        if len(key) + length >= _LARGE * self._block_size and not self._block.empty:
            self._flush()
        if self._pending is not None and self._last is not None:
            self._index.add(_separator(self._last, key), _encode_handle(self._pending))
            self._pending = None
        self._last = key

    def _flush(self, value: Iterable[bytes] = ()) -> None:
        self._pending = self._write(self._block, value)
        self._block = BlockBuilder()

    def _write(self, block: BlockBuilder, value: Iterable[bytes] = ()) -> Handle:
        start = self._offset
        for piece in block.parts(value):
            self._file.write(piece)
            self._offset += len(piece)
        return Handle(start, self._offset - start - TRAILER.size)


def _measured(pieces: Iterable[bytes], length: int) -> Iterator[bytes]:
    count = 0
    for piece in pieces:
        count += len(piece)
        if count > length:
            break
        yield piece
    if count != length:
        raise CorruptionError("a table value has a wrong length", expected=f"{length} bytes", found=count)


def _encode_handle(handle: Handle) -> bytes:
    return encode_varint(handle.offset) + encode_varint(handle.size)


def _separator(before: bytes, after: bytes) -> bytes:
    """A short key that is at least `before` and less than `after`."""
    shared = shared_prefix(before, after)
    if shared < min(len(before), len(after)) and before[shared] < 0xFF and before[shared] + 1 < after[shared]:
        return before[:shared] + bytes([before[shared] + 1])
    return before


def _successor(key: bytes) -> bytes:
    """A short key that is at least `key`."""
    for index, byte in enumerate(key):
        if byte != 0xFF:
            return key[:index] + bytes([byte + 1])
    return key
