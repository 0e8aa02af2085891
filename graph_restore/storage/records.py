"""TFRecord files, event files among them.

    file    := record*
    record  := uint64 length, masked crc of these 8 bytes, data, masked crc of the data      (little endian)

The format is that of tensorflow/tsl/lib/io/record_writer.h. Lengths are checked as the records are passed, data only
when it is read: the graph may lie behind thousands of summaries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from graph_restore.errors import CorruptionError
from graph_restore.storage.coding import Window
from graph_restore.storage.crc32c import masked
from graph_restore.storage.extent import Checksum, Extent
from graph_restore.storage.source import Source

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


@dataclass(frozen=True)
class Record:
    """One record: its data are the bytes [offset, offset + length) of `source`."""

    source: Source
    offset: int
    length: int
    crc: int

    @property
    def extent(self) -> Extent:
        """Where the data lie, with the checksum that vouches for them."""
        checksum = Checksum(self.offset, self.length, self.crc, f"the record at byte {self.offset - _HEADER.size}")
        return Extent(self.source, self.offset, self.length, checksum)

    def read(self, verify: bool = True) -> bytes:
        """The data; with `verify`, CorruptionError when their checksum does not match."""
        return self.extent.read(verify)


class RecordFile:
    """The records of a source from `start` on, in order; may be iterated again.

    A writer that was killed leaves its last record cut short. Iteration then ends there and `truncated_at` is the
    offset of that record, else None. Any other damage is a CorruptionError.
    """

    def __init__(self, source: Source, start: int = 0) -> None:
        self.source, self.start = source, start
        self.truncated_at: int | None = None

    def __iter__(self) -> Iterator[Record]:
        self.truncated_at = None
        window = Window(self.source)
        offset, size = self.start, self.source.size
        while offset < size:
            data = offset + _HEADER.size
            length = self._length(window, offset) if data <= size else size
            end = data + length + _FOOTER.size
            if end > size:
                self.truncated_at = offset
                return
            (crc,) = _FOOTER.unpack(window.bytes_at(data + length, _FOOTER.size))
            yield Record(self.source, data, length, crc)
            offset = end

    def _length(self, window: Window, offset: int) -> int:
        length, crc = _HEADER.unpack(window.bytes_at(offset, _HEADER.size))
        found = masked(_HEADER.pack(length, 0)[:8])
        if crc != found:
            raise CorruptionError(
                "checksum of a record's length does not match; this is no TFRecord file, or it is damaged",
                path=self.source.name,
                offset=offset,
                expected=f"crc32c {crc:#010x}",
                found=f"{found:#010x}",
            )
        return int(length)


class Writable(Protocol):
    """What bytes can be appended to."""

    def write(self, data: bytes, /) -> object: ...


def write_record(file: Writable, data: bytes) -> None:
    """Appends one record to `file`."""
    length = struct.pack("<Q", len(data))
    file.write(length + _FOOTER.pack(masked(length)) + data + _FOOTER.pack(masked(data)))
