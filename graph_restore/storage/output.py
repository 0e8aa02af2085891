"""Files that appear whole or not at all, and bytes copied from file to file.

Written under a temporary name beside the target, synced, then renamed: a failure leaves what was there before.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType

from graph_restore.errors import UnsupportedFormatError
from graph_restore.storage.crc32c import checked_chunks
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import Source

_BUFFER = 1 << 18
_SPLICE_FROM = 1 << 16  # shorter stretches are cheaper read and written with their neighbours
_WRITE_BACK = 8 << 20  # bytes after which the disk is set to work, so that the sync at the end finds little to do
_NO_COPY_FILE_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

Progress = Callable[[int], None]


def local_path(path: str | os.PathLike[str]) -> str:
    """`path` as text, when it can be written to; UnsupportedFormatError for a URL, under which nothing is written."""
    name = os.fspath(path).removeprefix("file://")
    if _URL.match(name):
        raise UnsupportedFormatError(
            "stores are read and never written to; write to a disk, then copy the files there", path=name
        )
    return name


class AtomicFile:
    """A file being written; it takes its name when the `with` block ends without an error.

    `progress`, when given, is called with the number of bytes just written.
    """

    def __init__(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        self.path = local_path(path)
        self.size = 0
        self._progress = progress or (lambda count: None)
        self._buffer = bytearray()
        self._sources: set[Source] = set()
        self._written = self._on_its_way = 0
        self._target = _regular(os.path.realpath(self.path))
        self._descriptor, self._temporary = -1, ""
        self._splices = hasattr(os, "copy_file_range")

    def __enter__(self) -> AtomicFile:
        try:
            self._open_beside(self._target)
        except BaseException:  # a signal may come at any moment
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._discard()

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self.size += len(data)
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def write_all(self, parts: Iterable[Extent | bytes]) -> None:
        """Append pieces of bytes and stretches of other files, in order."""
        for part in parts:
            if isinstance(part, Extent):
                self.splice(part)
            else:
                self.write(part)

    def splice(self, extent: Extent) -> None:
        """Append a stretch of another file, its checksum tested on the way; CorruptionError when it is wrong."""
        source, check = extent.source, extent.checksum
        self._sources.add(source)
        exact = check is None or (check.offset, check.length) == (extent.offset, extent.length)
        descriptor = source.fileno() if extent.length >= _SPLICE_FROM and exact and self._splices else None
        if descriptor is None:
            for chunk in extent.chunks():
                self.write(chunk)
            return
        self._flush()
        position, end = extent.offset, extent.offset + extent.length
        if check is not None:
            for chunk in checked_chunks(source, check.offset, check.length, check.masked_crc, check.what):
                self._copy(descriptor, position, chunk)
                position += len(chunk)
        while position < end:
            step = min(end - position, _WRITE_BACK)
            self._copy(descriptor, position, step if self._splices else source.pread(position, step))
            position += step

    def _copy(self, descriptor: int, offset: int, chunk: bytes | int) -> None:
        """Append what lies at `offset` of another file; `chunk` is these bytes, or only their number."""
        length = chunk if isinstance(chunk, int) else len(chunk)
        done = self._copy_in_kernel(descriptor, offset, length) if self._splices else 0
        while done < length:
            rest = chunk[done:] if not isinstance(chunk, int) else os.pread(descriptor, length - done, offset + done)
            done += self._put(rest)
        self.size += length
        self._advance(length)

    def _copy_in_kernel(self, descriptor: int, offset: int, length: int) -> int:
        done = 0
        try:
            while done < length:
                step = os.copy_file_range(descriptor, self._descriptor, length - done, offset + done)
                if not step:
                    break
                done += step
        except OSError as error:
            if error.errno not in _NO_COPY_FILE_RANGE:
                error.filename = self.path
                raise
            self._splices = False
        return done

    def _put(self, data: bytes | memoryview) -> int:
        """How many of the bytes were written; an error names the file."""
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            error.filename = self.path
            raise

    def _flush(self) -> None:
        view = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while view:
            count = self._put(view)
            self._advance(count)
            view = view[count:]

    def _advance(self, count: int) -> None:
        """Tell of `count` bytes written, and have the disk begin with them meanwhile.

        Linux starts to write back a range that is declared not needed; as it is still dirty, it stays in memory too.
        """
        self._progress(count)
        self._written += count
        length = self._written - self._on_its_way
        if length >= _WRITE_BACK and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # only advice
                os.posix_fadvise(self._descriptor, self._on_its_way, length, os.POSIX_FADV_DONTNEED)
            self._on_its_way = self._written

    def _commit(self) -> None:
        self._flush()
        os.fsync(self._descriptor)
        for source in self._sources:
            source.check_unchanged()
        os.replace(self._temporary, self._target)
        folder = os.open(os.path.dirname(self._target), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _open_beside(self, path: str) -> None:
        """Open a new file in the folder of `path`, with the permissions that `path` has or would get."""
        folder, name = os.path.split(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        while self._descriptor < 0:
            # not with tempfile, which takes 5 ms to import
            self._temporary = os.path.join(folder, f".{name[:40]}.{os.urandom(6).hex()}.tmp")
            try:
                self._descriptor = os.open(self._temporary, flags, 0o666)
            except FileExistsError:
                self._temporary = ""
            except OSError as error:
                error.filename = path  # nobody has heard of the temporary one
                raise
        if os.path.exists(path):
            os.fchmod(self._descriptor, os.stat(path).st_mode & 0o777)

    def _discard(self) -> None:
        """Close the file, and take it away if it has not got its name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if os.path.exists(self._temporary):
            os.unlink(self._temporary)


def _regular(path: str) -> str:
    """`path`, when a file can take its place; OSError for a directory, a device or a pipe, which must stay."""
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "is a directory; give the name of a file to write", path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "is no regular file and cannot be replaced; give the name of a file to write", path)
    return path
