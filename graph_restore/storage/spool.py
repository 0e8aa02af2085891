"""Bytes that can only be read from first to last, kept in a temporary file for random access."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable

from graph_restore.storage.source import Source


class SpooledSource(Source):
    """All of `pieces`, in a file without a name that goes away with the object."""

    def __init__(self, name: str, pieces: Iterable[bytes]) -> None:
        self.name = name
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object, or by the error below
        try:
            for piece in pieces:
                self._file.write(piece)
            self._file.flush()
        except BaseException:
            self._file.close()
            raise
        self.size = os.fstat(self._file.fileno()).st_size

    def fileno(self) -> int:
        return self._file.fileno()

    def _pread(self, offset: int, length: int) -> bytes:
        pieces = []
        while length:  # one pread gives at most 2 GiB
            piece = os.pread(self._file.fileno(), min(length, 1 << 30), offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)
