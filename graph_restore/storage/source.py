"""Where bytes come from: a file read by position, or bytes in memory.

Files are read with pread and never mapped, since mapped pages count as memory of the process.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator

from graph_restore.errors import CorruptionError

CHUNK = 1 << 18  # bytes read at a time when a payload is streamed; still in the processor's cache when it is copied


class Source:
    """Random access to `size` bytes; `name` is the path, or a word for what the bytes are, for messages."""

    name: str
    size: int

    def pread(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes at `offset`; CorruptionError naming the file when they are not all there."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise CorruptionError(
                "the file ends too early; it was cut short or belongs to another set of files",
                path=self.name,
                offset=offset,
                expected=f"{length} bytes",
                found=max(0, self.size - offset),
            )
        data = self._pread(offset, length)
        if len(data) != length:
            raise CorruptionError("the file became shorter while it was read", path=self.name, offset=offset)
        return data

    def chunks(self, offset: int, length: int, size: int = CHUNK) -> Iterator[bytes]:
        """The bytes [offset, offset + length) in pieces of at most `size`."""
        end = offset + length
        while offset < end:
            step = min(size, end - offset)
            yield self.pread(offset, step)
            offset += step

    def check_unchanged(self) -> None:
        """CorruptionError when the bytes are known to have changed since the source was made."""

    def fileno(self) -> int | None:
        """A descriptor whose bytes are this source's, for os.copy_file_range; None for bytes in memory."""
        return None

    def _pread(self, offset: int, length: int) -> bytes:
        raise NotImplementedError


class FileSource(Source):
    """A file on disk, opened on first read and closed with the object."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        facts = os.stat(path)
        self.size, self._modified = facts.st_size, facts.st_mtime_ns
        self._descriptor: int | None = None

    def check_unchanged(self) -> None:
        """CorruptionError when the file was written to after it was opened: what was read may be of two files."""
        if os.fstat(self.fileno()).st_mtime_ns != self._modified:
            raise CorruptionError("the file was changed while it was in use; load it again", path=self.name)

    def fileno(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            weakref.finalize(self, os.close, self._descriptor)
        return self._descriptor

    def _pread(self, offset: int, length: int) -> bytes:
        pieces = []
        while length:  # one pread gives at most 2 GiB
            piece = os.pread(self.fileno(), min(length, 1 << 30), offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class BytesSource(Source):
    """Bytes already in memory, such as a serialized GraphDef."""

    def __init__(self, data: bytes, name: str = "<bytes>") -> None:
        self.name, self.size, self._data = name, len(data), data

    def _pread(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]
