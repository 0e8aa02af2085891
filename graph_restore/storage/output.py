"""Files that appear whole or not at all, and bytes copied from file to file.

Written under a temporary name beside the target, synced, then renamed: a failure leaves what was there before. Only a
terminal, a pipe, /dev/null and their like are written to as they are: there is nothing to keep, and they must stay.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType

from graph_restore.errors import GraphRestoreError, UnsupportedFormatError
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import Source

_BUFFER = 1 << 18
_DIRECT_FROM = 1 << 16  # shorter pieces are cheaper written with their neighbours
_PIECE = 1 << 17  # written at a time: more takes large blocks of memory, which virtual machines must ask their host for
_WRITE_BACK = 8 << 20  # bytes after which the disk is set to work, so that the sync at the end finds little to do
_KEPT = 512 << 20  # of a file in memory; what was written before that makes room, so that no file needs its size of it
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


def is_stream(path: str) -> bool:
    """Whether what is written to `path` goes on its way and is no file: a pipe, a terminal, /dev/null."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def refuse_special(path: str, made: str) -> None:
    """GraphRestoreError where `path` is a device, a pipe or a socket, beside which what is `made` cannot be meant."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise GraphRestoreError(
            f"{path} is a device or a pipe, and {made}: give a name on a disk. (A graph in one file, such as a .pb, "
            "can be written to it.)"
        )


class AtomicFile:
    """A file being written; it takes its name when the `with` block ends without an error. A pipe or a device of
    characters is written to at once.

    `progress`, when given, is called with the number of bytes just written.
    """

    def __init__(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        self.path = local_path(path)
        self.size = 0
        self._progress = progress or (lambda count: None)
        self._buffer = bytearray()
        self._sources: set[Source] = set()
        self._written = self._on_its_way = 0
        self._is_stream = is_stream(self.path)
        self._target = self.path if self._is_stream else _regular(os.path.realpath(self.path), self.path)
        self._descriptor, self._temporary = -1, ""
        self._splices = hasattr(os, "copy_file_range")

    def __enter__(self) -> AtomicFile:
        try:
            if self._is_stream:
                self._descriptor = os.open(self._target, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))
            else:
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
        if len(data) >= _DIRECT_FROM:
            self._flush()
            self._put(data)
            return
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
        """Append a stretch of another file, its checksum tested on the way; CorruptionError when it is wrong.

        What was read for its checksum is written while the processor has it at hand, which is faster than to have the
        kernel copy it then; it copies what need not be looked at.
        """
        self._sources.add(extent.source)
        if extent.length < _DIRECT_FROM:
            self.write(extent.read())
            return
        descriptor = extent.source.fileno() if extent.checksum is None and self._splices else None
        done = 0 if descriptor is None else self._copy(descriptor, extent.offset, extent.length)
        for chunk in (extent.part(done, extent.length - done) if done else extent).chunks():
            self.write(chunk)

    def _copy(self, descriptor: int, offset: int, length: int) -> int:
        """Have the kernel append what lies at `offset` of another file; how many of the bytes it could."""
        self._flush()
        done = 0
        try:
            while done < length:
                step = os.copy_file_range(descriptor, self._descriptor, min(length - done, _WRITE_BACK), offset + done)
                if not step:
                    break
                done += step
                self.size += step
                self._advance(step)
        except OSError as error:
            if error.errno not in _NO_COPY_FILE_RANGE:
                error.filename = self.path
                raise
            self._splices = False
        return done

    def _flush(self) -> None:
        self._put(bytes(self._buffer))
        self._buffer.clear()

    def _put(self, data: bytes) -> None:
        """Write at once; an error names the file."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view[:_PIECE]) :]
        except OSError as error:
            error.filename = self.path
            raise
        self._advance(len(data))

    def _advance(self, count: int) -> None:
        """Tell of `count` bytes written, have the disk begin with them meanwhile, and give up what it has had long."""
        self._progress(count)
        self._written += count
        length = self._written - self._on_its_way
        if length >= _WRITE_BACK:
            self._give_up(self._on_its_way, length)
            self._give_up(self._on_its_way - _KEPT, length)
            self._on_its_way = self._written

    def _give_up(self, start: int, length: int) -> None:
        """Declare bytes not needed: Linux then starts to write them back, or, once that is done, frees their memory."""
        if start >= 0 and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # only advice
                os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_DONTNEED)

    def _commit(self) -> None:
        self._flush()
        if not self._is_stream:
            os.fsync(self._descriptor)
        for source in self._sources:
            source.check_unchanged()
        if self._is_stream:
            return
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
            except FileNotFoundError:
                shown = os.path.dirname(self.path)
                raise FileNotFoundError(
                    errno.ENOENT, f"there is no directory {shown}; make it first", self.path
                ) from None
            except OSError as error:
                error.filename = self.path  # nobody has heard of the temporary one
                raise
        if os.path.exists(path):
            os.fchmod(self._descriptor, os.stat(path).st_mode & 0o777)

    def _discard(self) -> None:
        """Close the file, and take it away if it has not got its name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if os.path.exists(self._temporary):
            os.unlink(self._temporary)


def _regular(path: str, given: str) -> str:
    """`path`, when a file can take its place; OSError for a directory, a disk or a socket, which must stay, and when
    what was `given` can only be the name of a directory."""
    if os.path.isdir(path) or given.endswith(os.sep):
        raise IsADirectoryError(errno.EISDIR, "is a directory; give the name of a file to write", given)
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(
            errno.EINVAL, "is no regular file and cannot be replaced; give the name of a file to write", given
        )
    return path
