"""Files by their paths, wherever these lead: the one place that tells a disk, a store and an archive apart.

    run/model.ckpt           this disk
    gs://bucket/model.ckpt   a store, through fsspec (remote.py)
    run.zip/model.ckpt       a file inside an archive, on this disk or in a store (archive.py)

As in all these a slash parts the names, os.path.join, split, dirname and basename hold for them too.
"""

from __future__ import annotations

import os
import re
from typing import Protocol

from graph_restore.errors import UnsupportedFormatError
from graph_restore.storage.source import FileSource, Source

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")
_CHAINED = re.compile(r"(?:zip|tar)://(.*?)::(.+)", re.DOTALL)
_ARCHIVE = re.compile(r"\.(?:zip|tar|tgz|tbz2|txz|tar\.(?:gz|bz2|xz))(?=/)", re.IGNORECASE)


class Store(Protocol):
    """Where files lie that the operating system cannot open."""

    def kind(self, path: str) -> str | None: ...

    def source(self, path: str, name: str) -> Source: ...

    def can_list(self, path: str) -> bool: ...

    def names(self, path: str) -> list[tuple[str, bool]]: ...

    def modified(self, path: str) -> float: ...


def plain_path(path: str | os.PathLike[str]) -> str:
    """The path in a form that suffixes and names can be joined to: `zip://model::run.zip` becomes `run.zip/model`; of
    TensorBoard's EventAccumulator, the path it was made for.

    UnsupportedFormatError when an archive so named does not have the suffix of one.
    """
    name = os.fsdecode(path.path if is_accumulator(path) else path)  # type: ignore[union-attr]
    if "://" not in name:
        return name
    chained = _CHAINED.match(name)
    if chained is not None:
        joined = f"{plain_path(chained[2])}/{chained[1].lstrip('/')}"
        if _ARCHIVE.search(joined) is None:
            raise UnsupportedFormatError(
                "not the name of an archive; rename it", path=chained[2], expected="a .zip, .tar, .tar.gz or .tgz"
            )
        return joined
    return name[len("file://") :] if name.startswith("file://") else name


def is_accumulator(source: object) -> bool:
    """Whether `source` is a TensorBoard EventAccumulator, told without importing TensorBoard."""
    return callable(getattr(source, "Graph", None)) and callable(getattr(source, "Reload", None))


def is_local(path: str) -> bool:
    """Whether the operating system can open what is at `path`."""
    return _elsewhere(path) is None


def is_file(path: str) -> bool:
    """Whether a file is at `path`."""
    found = _elsewhere(path)
    return os.path.isfile(path) if found is None else found[0].kind(found[1]) == "file"


def is_directory(path: str) -> bool:
    """Whether a directory is at `path`; on a web server whatever ends in a slash is taken for one."""
    found = _elsewhere(path)
    return os.path.isdir(path) if found is None else found[0].kind(found[1]) == "directory"


def exists(path: str) -> bool:
    """Whether anything is at `path`."""
    found = _elsewhere(path)
    return os.path.exists(path) if found is None else found[0].kind(found[1]) is not None


def open_source(path: str) -> Source:
    """The bytes of the file at `path`; FileNotFoundError when there is none."""
    found = _elsewhere(path)
    return FileSource(path) if found is None else found[0].source(found[1], path)


def read_start(path: str, length: int) -> bytes:
    """The first `length` bytes of a file, or all of a shorter one."""
    found = _elsewhere(path)
    if found is None:
        with open(path, "rb") as file:
            return file.read(length)
    source = found[0].source(found[1], path)
    return source.pread(0, min(length, source.size))


def can_list(directory: str) -> bool:
    """Whether it can be known what lies in a directory; a web server does not tell."""
    found = _elsewhere(os.path.join(directory, ""))
    return found is None or found[0].can_list(found[1])


def all_names(directory: str) -> list[str]:
    """The names of all that lies in a directory, sorted; OSError when this disk has no such directory."""
    found = _elsewhere(os.path.join(directory, ""))
    return sorted(os.listdir(directory or ".") if found is None else (name for name, _ in found[0].names(found[1])))


def file_names(directory: str) -> list[str]:
    """The names of the files in a directory, sorted; none when it cannot be read."""
    found = _elsewhere(os.path.join(directory, ""))
    if found is not None:
        return sorted(name for name, is_file in found[0].names(found[1]) if is_file)
    try:
        with os.scandir(directory or ".") as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
    except OSError:
        return []


def modified(path: str) -> float:
    """When the file was written, in seconds; 0 where that is not known."""
    found = _elsewhere(path)
    return os.stat(path).st_mtime if found is None else found[0].modified(found[1])


def _elsewhere(path: str) -> tuple[Store, str] | None:
    """(store, path in it) of a file that does not lie on this disk as it is; None of one that does."""
    url = "://" in path and _URL.match(path) is not None
    for match in _ARCHIVE.finditer(path):
        stamp = _stamp(path[: match.end()], url)
        if stamp is not None:
            from graph_restore.storage.archive import open_archive  # most runs need no zipfile and no tarfile

            return open_archive(open_source, path[: match.end()], stamp), path[match.end() + 1 :]
    if not url:
        return None
    from graph_restore.storage.remote import RemoteStore

    return RemoteStore(), path


def _stamp(path: str, url: bool) -> object:
    """Something that changes when the file does; None when there is no file."""
    if url:
        from graph_restore.storage.remote import RemoteStore

        return RemoteStore().stamp(path)
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns
