"""A source as an open file, for what can only read one: Python's own readers of archives."""

from __future__ import annotations

import io
from typing import IO, Any

from graph_restore.storage.source import Source


def as_file(source: Source) -> IO[bytes]:
    """The bytes of `source` as a file that can be sought in."""
    return io.BufferedReader(_Reader(source), 1 << 16)


class _Reader(io.RawIOBase):
    """A source as Python's own readers of archives want it."""

    def __init__(self, source: Source) -> None:
        self._source, self._position = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self._source.size - self._position))
        buffer[:count] = self._source.pread(self._position, count) if count else b""
        self._position += count
        return count
