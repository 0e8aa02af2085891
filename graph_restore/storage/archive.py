"""Files inside a zip or tar archive, packed or not, without unpacking it.

Members that lie in the archive as they are, in a .tar or stored in a .zip, are read in place. A packed member of a zip
is unpacked to a temporary file when it is first read, and a packed tar once as a whole: only from their beginnings can
these be read. Nothing is ever written under a name that an archive gives.
"""

from __future__ import annotations

import bz2
import calendar
import functools
import gzip
import lzma
import posixpath
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from graph_restore.errors import CorruptionError, FormatError
from graph_restore.storage.reader import as_file
from graph_restore.storage.source import Source
from graph_restore.storage.spool import SpooledSource

_CHUNK = 1 << 20
_UNPACKERS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    NotImplementedError,  # a compression that Python lacks
    RuntimeError,  # a password is asked for
    ValueError,
    OverflowError,
)


class Archive:
    """The members of the archive in `source`, by their paths; CorruptionError where it is none or is damaged."""

    def __init__(self, source: Source) -> None:
        self._source = source
        with _reading(source.name):
            packed = source.pread(0, min(6, source.size))
            self._members = _zip_members(source) if packed.startswith(b"PK") else _tar_members(source, packed)
        self._children: dict[str, dict[str, bool]] = {"": {}}
        for name in self._members:
            self._place(name)

    def kind(self, path: str) -> str | None:
        """ "file", "directory", or None where there is nothing."""
        name = _plain(path)
        if name in self._members and not path.endswith("/"):
            return "file"
        return "directory" if name in self._children else None

    def source(self, path: str, name: str) -> Source:
        """A member's bytes under `name`; FileNotFoundError where there is none."""
        found = self._members.get(_plain(path))
        if found is None:
            raise FileNotFoundError(f"{name}: no such file in the archive {self._source.name}")
        with _reading(name):
            return found[0](name)

    def can_list(self, path: str) -> bool:
        """Archives can always list what they hold."""
        return True

    def names(self, path: str) -> list[tuple[str, bool]]:
        """(name, whether it is a file) of all that lies in a directory of the archive."""
        return list(self._children.get(_plain(path), {}).items())

    def modified(self, path: str) -> float:
        """Time of writing in seconds; 0 where there is none."""
        found = self._members.get(_plain(path))
        return found[1] if found is not None else 0.0

    def _place(self, name: str) -> None:
        """Enter a member under its directory, and that under its own, up to the root."""
        is_file = True
        while name:
            folder, base = posixpath.split(name)
            known = folder in self._children
            siblings = self._children.setdefault(folder, {})
            siblings[base] = siblings.get(base, False) or is_file
            if known:
                return
            name, is_file = folder, False


_Members = dict[str, tuple[Callable[[str], Source], float]]  # path to (what makes its source, time of writing)


@functools.lru_cache(maxsize=2)
def open_archive(open_source: Callable[[str], Source], path: str, stamp: object) -> Archive:
    """The archive at `path`. The last two stay open, so that they are read once; `stamp` tells when one has changed."""
    return Archive(open_source(path))


def _zip_members(source: Source) -> _Members:
    archive = zipfile.ZipFile(as_file(source))
    members: _Members = {}
    for info in archive.infolist():
        if info.is_dir():
            continue
        stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        make = functools.partial(_stored, source, info) if stored else functools.partial(_PackedMember, archive, info)
        members[_plain(info.filename)] = (make, _seconds(info))
    return members


def _seconds(info: zipfile.ZipInfo) -> float:
    try:
        return float(calendar.timegm((*info.date_time, 0, 0, 0)))
    except ValueError:  # some writers leave the date empty
        return 0.0


def _stored(source: Source, info: zipfile.ZipInfo, name: str) -> Source:
    header = source.pread(info.header_offset, 30)  # local header: signature, 22 bytes, lengths of name and extra field
    if header[:4] != b"PK\x03\x04":
        raise CorruptionError("a member of the archive does not begin where it should", path=name)
    lengths = struct.unpack("<HH", header[26:])
    return _Part(source, info.header_offset + 30 + sum(lengths), info.file_size, name)


def _tar_members(source: Source, start: bytes) -> _Members:
    unpack = next((unpack for magic, unpack in _UNPACKERS.items() if start.startswith(magic)), None)
    if unpack is not None:
        with unpack(as_file(source)) as file:
            source = SpooledSource(source.name, _pieces(file))
    members: _Members = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=as_file(source), mode="r:") as archive:
        for info in archive:
            name = _plain(info.name)
            if info.isreg() and not info.issparse():
                make = functools.partial(_Part, source, info.offset_data, info.size)
                members[name] = (make, float(info.mtime))
            elif info.islnk() or info.issym():
                folder = posixpath.dirname(name) if info.issym() else ""
                links[name] = _plain(posixpath.join(folder, info.linkname))
    for name, target in links.items():
        if target in members:
            members[name] = members[target]
    return members


class _Part(Source):
    """A stretch of another source under a name of its own."""

    def __init__(self, source: Source, offset: int, size: int, name: str) -> None:
        if offset < 0 or size < 0 or offset + size > source.size:
            raise CorruptionError("the archive is cut short", path=name, expected=offset + size, found=source.size)
        self.name, self.size = name, size
        self._source, self._offset = source, offset

    def _pread(self, offset: int, length: int) -> bytes:
        return self._source.pread(self._offset + offset, length)


class _PackedMember(Source):
    """A packed member of a zip file, unpacked when it is first read."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> None:
        self.name, self.size = name, info.file_size
        self._archive, self._info = archive, info
        self._lock = threading.Lock()
        self._spooled: SpooledSource | None = None

    def _pread(self, offset: int, length: int) -> bytes:
        with self._lock:
            if self._spooled is None:
                with _reading(self.name), self._archive.open(self._info) as file:
                    self._spooled = SpooledSource(self.name, _pieces(file))
        return self._spooled.pread(offset, length)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        yield piece


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Whatever Python's readers raise at damaged bytes, as CorruptionError."""
    try:
        yield
    except FormatError:
        raise
    except _BROKEN as error:
        raise CorruptionError(f"the archive cannot be read: {error}", path=name) from error
    except OSError as error:
        if error.errno is not None:  # of the disk or of a store
            raise
        raise CorruptionError(f"the archive cannot be read: {error}", path=name) from error


def _plain(path: str) -> str:
    """A member's path without `.`, doubled slashes, and slashes at either end; "" for the root."""
    name = posixpath.normpath(path).strip("/")
    return "" if name == "." else name
