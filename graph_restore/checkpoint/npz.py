"""Numpy's .npz files: zip archives of .npy files, a tensor each. Headers are read first, tensors on demand.

What the archive says is capped by its size: members must be stored or deflated, and no longer than that can give.
Pickled objects are refused.
"""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from graph_restore.checkpoint.npy import check_tensors, npy_length, npy_parts
from graph_restore.checkpoint.npy_arrays import npy_facts, npy_tensor
from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError, warn
from graph_restore.storage import files
from graph_restore.storage.extent import Extent
from graph_restore.storage.output import AtomicFile, Progress
from graph_restore.storage.reader import as_file
from graph_restore.storage.source import CHUNK
from graph_restore.tensors import LazyTensor

_DEFLATE_AT_MOST = 1032  # bytes that one deflated byte can stand for
_SUFFIX = ".npy"


def read_npz(path: str | os.PathLike[str]) -> dict[str, LazyTensor]:
    """The tensors of a .npz file by name, values left in the file. Text becomes UTF-8 strings.

    FormatError for what is no such file, UnsupportedFormatError for dtypes TensorFlow has none for.
    """
    name = files.plain_path(path)
    source = files.open_source(name)
    size = source.size
    tensors: dict[str, LazyTensor] = {}
    with _translated(name):
        archive = zipfile.ZipFile(as_file(source))
        for info in archive.infolist():
            if not info.filename.endswith(_SUFFIX):
                text = f"{name}: {info.filename!r} is no .npy file and was left out"
                warn(text)
                continue
            key = info.filename[: -len(_SUFFIX)]
            if key in tensors:
                raise FormatError(f"two members are named {info.filename!r}", path=name)
            _check_member(info, name, size)
            tensors[key] = npy_tensor(_Member(archive, info, name), key)
    return tensors


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Whatever zipfile, zlib and numpy make of bad bytes becomes a FormatError; the list of their errors is open."""
    try:
        yield
    except FormatError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that one is a seek to an impossible place
            raise
        raise FormatError(f"no readable .npz file: {error or type(error).__name__}", path=path) from error


def _check_member(info: zipfile.ZipInfo, path: str, size: int) -> None:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise UnsupportedFormatError(f"{info.filename!r} is encrypted or packed as numpy does not", path=path)
    most = info.compress_size * (_DEFLATE_AT_MOST if info.compress_type == zipfile.ZIP_DEFLATED else 1)
    if info.compress_size > size or info.file_size > most:
        raise CorruptionError(
            f"{info.filename!r} claims more bytes than there are", path=path, expected=f"at most {most}",
            found=info.file_size,
        )  # fmt: skip


class _Member:
    """One .npy file in an archive: its header, and its data as a stream."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> None:
        self._archive, self._info, self.path = archive, info, path
        with archive.open(info) as file:
            shape, self.fortran_order, self.dtype = npy_facts(file, info.filename, path)
            self.shape: tuple[int, ...] = tuple(int(size) for size in shape)
            self._start = file.tell()
        self.length = info.file_size - self._start

    def chunks(self) -> Iterator[bytes]:
        """The data; zipfile compares the archive's checksum at the end."""
        with _translated(self.path), self._archive.open(self._info) as file:
            file.read(self._start)
            while chunk := file.read(CHUNK):
                yield chunk


class _Sink:
    """What zipfile needs of a file that is only written to."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        self._file.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing to do: the file is whole when it takes its name."""


def write_npz(tensors: Mapping[str, LazyTensor], path: str, progress: Progress | None = None) -> None:
    """Write tensors as a .npz file that `numpy.load` reads without pickles, one after the other, nothing packed."""
    check_tensors(tensors)
    _check_names(tensors)
    with AtomicFile(path, progress) as file, zipfile.ZipFile(_Sink(file), "w", allowZip64=True) as archive:  # type: ignore[call-overload]
        for name, tensor in tensors.items():
            info = zipfile.ZipInfo(name + _SUFFIX)  # of a fixed date: the same tensors make the same file
            with archive.open(info, "w", force_zip64=npy_length(tensor) > zipfile.ZIP64_LIMIT) as member:
                for part in npy_parts(tensor):
                    for chunk in part.chunks() if isinstance(part, Extent) else (part,):
                        member.write(chunk)


def _check_names(tensors: Mapping[str, LazyTensor]) -> None:
    wrong = [name for name in tensors if "\0" in name or any("\ud800" <= one <= "\udfff" for one in name)]
    if wrong:
        raise UnsupportedFormatError(f"names that a .npz file cannot hold, rename them: {', '.join(map(repr, wrong))}")
