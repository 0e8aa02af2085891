"""A stretch of bytes on disk and the checksum that vouches for it.

The checksum may cover more than the stretch: the value of a V1 checkpoint lies inside a table block, and the block
is what has a checksum. The whole covered region is read then, and only the stretch is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from graph_restore.storage.crc32c import checked, checked_chunks
from graph_restore.storage.source import CHUNK, Source


class Checksum(NamedTuple):
    """A masked CRC-32C over [offset, offset + length) of a source; `what` names it in messages."""

    offset: int
    length: int
    masked_crc: int
    what: str


@dataclass(frozen=True)
class Extent:
    """The bytes [offset, offset + length) of `source`; `checksum` covers at least these, or is None."""

    source: Source
    offset: int
    length: int
    checksum: Checksum | None = None

    def chunks(self, verify: bool = True) -> Iterator[bytes]:
        """The bytes in pieces; with `verify`, CorruptionError after the last piece of a damaged region."""
        if not verify or self.checksum is None:
            yield from self.source.chunks(self.offset, self.length)
            return
        region = self.checksum
        position = region.offset
        for chunk in checked_chunks(self.source, region.offset, region.length, region.masked_crc, region.what):
            begin, end = max(self.offset - position, 0), min(self.offset + self.length - position, len(chunk))
            if begin < end:
                yield chunk if end - begin == len(chunk) else chunk[begin:end]
            position += len(chunk)

    def read(self, verify: bool = True) -> bytes:
        """All the bytes at once, for small stretches."""
        region = self.checksum
        if verify and region is not None and region.length <= CHUNK:
            start = self.offset - region.offset
            return checked(self.source, *region)[start : start + self.length]
        return b"".join(self.chunks(verify))

    def part(self, offset: int, length: int) -> Extent:
        """The stretch [offset, offset + length) of this one, still vouched for by the same checksum."""
        if offset < 0 or length < 0 or offset + length > self.length:
            raise ValueError(f"[{offset}, {offset + length}) is outside an extent of {self.length} bytes")
        return Extent(self.source, self.offset + offset, length, self.checksum)
