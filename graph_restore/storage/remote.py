"""Files at URLs, through fsspec: `gs://`, `s3://`, `hdfs://`, `http://`, `memory://` and whatever else it knows.

Only the ranges that are asked for are fetched. A server that gives nothing but whole files is read once, into a
temporary file. fsspec and the package of a store are imported when the first such path is met, and never before.
"""

from __future__ import annotations

import errno
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from graph_restore.errors import PackageRequiredError, UnsupportedFormatError
from graph_restore.storage.source import Source
from graph_restore.storage.spool import SpooledSource

_AHEAD = 256 << 10  # bytes fetched beyond those asked for, so that a scan through small windows needs few requests
_CHUNK = 4 << 20  # bytes of a payload to a request
_PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "s3": "s3fs",
    "s3a": "s3fs",
    "hdfs": "pyarrow",
    "http": "aiohttp",
    "https": "aiohttp",
    "abfs": "adlfs",
    "az": "adlfs",
}
_STAMPS = ("size", "ETag", "etag", "LastModified", "Last-Modified", "mtime", "updated", "created")


class RemoteStore:
    """The files that URLs name; every path given is a whole URL.

    A server of web pages cannot list its files, nor say what is a directory: there, what ends in a slash is one.
    OSError where a store does not answer; PackageRequiredError where its package is not installed.
    """

    def kind(self, path: str) -> str | None:
        """ "file", "directory", or None where there is nothing, or nothing that may be read."""
        if not self.can_list(path) and path.endswith("/"):
            return "directory"
        try:
            kind = _info(path).get("type")
        except (FileNotFoundError, PermissionError):  # stores answer "forbidden" to those who may not list
            return None
        if kind == "file" and not path.endswith("/"):
            return "file"
        return "directory" if kind == "directory" else None

    def source(self, path: str, name: str) -> Source:
        """The file's bytes; FileNotFoundError or PermissionError where they cannot be had."""
        return RemoteSource(path, name)

    def can_list(self, path: str) -> bool:
        """Whether the store can list its files."""
        return not _is_http(path)

    def names(self, path: str) -> list[tuple[str, bool]]:
        """(name, whether it is a file) of all that lies in a directory; nothing where that cannot be known."""
        if not self.can_list(path):
            return []
        files, inner = _filesystem(path)
        try:
            files.invalidate_cache(inner)
            found = files.ls(inner, detail=True)
        except OSError:
            return []
        except Exception as error:  # each store has errors of its own
            raise _failed(path, error) from error
        return [(str(entry["name"]).rstrip("/").rsplit("/", 1)[-1], entry.get("type") == "file") for entry in found]

    def modified(self, path: str) -> float:
        """Time of writing in seconds; 0 where the store does not know."""
        files, inner = _filesystem(path)
        with suppress(Exception):  # it decides only between checkpoints that have no step in their names
            return float(files.modified(inner).timestamp())
        return 0.0

    def stamp(self, path: str) -> str | None:
        """A text that changes when the file does; None when it is no file."""
        if self.kind(path) != "file":
            return None
        info = _info(path)
        return repr([info.get(key) for key in _STAMPS])


class RemoteSource(Source):
    """A file at a URL, read by ranges, one request at a time."""

    def __init__(self, path: str, name: str) -> None:
        self.name, self._path = name, path
        self._lock = threading.Lock()
        self._file: Any = None
        self._spooled: SpooledSource | None = None
        info = _info(path)
        if info.get("type") == "directory":
            raise IsADirectoryError(errno.EISDIR, "a directory", path)
        self._options: dict[str, Any] = {}
        if _is_http(path):
            self._options = {"headers": {"Accept-Encoding": "identity"}}  # ranges are of the file, not of a packed form
        if info.get("size") is None or info.get("partial") is False:
            self._spooled = SpooledSource(name, self._stream())
        self.size = int(info["size"]) if self._spooled is None else self._spooled.size

    def chunks(self, offset: int, length: int, size: int = _CHUNK) -> Iterator[bytes]:
        return super().chunks(offset, length, size)

    def _pread(self, offset: int, length: int) -> bytes:
        if not length:
            return b""
        with self._lock:
            if self._spooled is None:
                try:
                    return self._range(offset, length)
                except ValueError:  # what fsspec says where a server knows no ranges
                    self._file = None
                    self._spooled = SpooledSource(self.name, self._stream())
                except Exception as error:  # each store has errors of its own
                    raise _failed(self._path, error) from error
            return self._spooled.pread(offset, length)

    def _range(self, offset: int, length: int) -> bytes:
        if self._file is None:
            options = {**self._options, "size": self.size} if self._options else {}
            files, inner = _filesystem(self._path)
            self._file = files.open(inner, "rb", block_size=_AHEAD, cache_type="readahead", **options)
            weakref.finalize(self, self._file.close)
        self._file.seek(offset)
        pieces = []
        while length:
            piece = bytes(self._file.read(length))
            if not piece:
                break
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)

    def _stream(self) -> Iterator[bytes]:
        files, inner = _filesystem(self._path)
        options = {**self._options, "block_size": 0} if self._options else {}
        try:
            with files.open(inner, "rb", **options) as file:
                while piece := file.read(_CHUNK):
                    yield bytes(piece)
        except Exception as error:  # each store has errors of its own
            raise _failed(self._path, error) from error


def _filesystem(path: str) -> tuple[Any, str]:
    """(fsspec's file system, the path it knows); PackageRequiredError naming what to install."""
    scheme = path.split("://", 1)[0].rsplit("::", 1)[-1].lower()
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        more = "" if _PACKAGES.get(scheme, "aiohttp") == "aiohttp" else " " + _PACKAGES[scheme]
        raise PackageRequiredError(
            f"{path}: URLs are read through fsspec, which is not installed; pip install 'graph-restore[remote]'{more}"
        ) from None
    try:
        files, inner = url_to_fs(path)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        what = f"pip install {package}" if package else "install the package named here"
        raise PackageRequiredError(f"{path}: the package for {scheme}:// is not installed; {what} ({error})") from error
    except ValueError as error:
        raise UnsupportedFormatError(f"no store of this kind is known ({error})", path=path) from error
    except Exception as error:  # each store has errors of its own
        raise _failed(path, error) from error
    return files, inner


def _info(path: str) -> dict[str, Any]:
    """What the store says of a path; FileNotFoundError, PermissionError, or OSError where it does not answer."""
    files, inner = _filesystem(path)
    try:
        return dict(files.info(inner))
    except (FileNotFoundError, NotADirectoryError) as error:
        # over HTTP whatever went wrong looks like this, and only the cause tells
        cause = error.__cause__
        status = getattr(cause, "status", None)
        if status in (401, 403):
            raise PermissionError(errno.EACCES, f"the server answers {status}", path) from error
        if cause is not None and not isinstance(cause, FileNotFoundError) and status not in (404, 410):
            raise _failed(path, cause) from error
        raise FileNotFoundError(errno.ENOENT, "no such file", path) from error
    except PermissionError:
        raise
    except Exception as error:  # each store has errors of its own
        raise _failed(path, error) from error


def _failed(path: str, error: BaseException) -> OSError:
    text = f"the store could not be read ({type(error).__name__}: {error}); see that it can be reached, and try again"
    return OSError(errno.EIO, text, path)


def _is_http(path: str) -> bool:
    return path.lower().startswith(("http://", "https://"))
