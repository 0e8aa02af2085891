"""Directories of .npy files, one tensor a file, as `write_directory` writes them: read back under the same names.

A tensor's name is the file's path without `.npy`, with `/` between folders; `%XX` stands for a byte, and a folder `%`
for an empty part. Directories that other programs made are read in the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from graph_restore.checkpoint.npy_arrays import npy_facts, npy_tensor
from graph_restore.errors import FormatError
from graph_restore.storage.extent import Extent
from graph_restore.storage.files import open_source
from graph_restore.storage.reader import as_file
from graph_restore.tensors import LazyTensor

_SUFFIX = ".npy"
_ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


class NpyDirectory(dict[str, LazyTensor]):
    """The tensors by name; `files`: what they lie in."""

    files: list[str]


def read_directory(directory: str) -> NpyDirectory:
    """The tensors of a directory, in the order of their names, values left in the files.

    FormatError for a file that is no .npy and for two of one name; UnsupportedFormatError for dtypes TensorFlow lacks.
    """
    found = NpyDirectory()
    found.files = npy_files(directory)
    named = sorted((tensor_name(os.path.relpath(path, directory)), path) for path in found.files)
    for name, path in named:
        if name in found:
            raise FormatError(f"two files are named as tensor {name!r}; leave one", path=path)
        found[name] = npy_tensor(_File(path), name)
    return found


def npy_files(directory: str) -> list[str]:
    """The .npy files in a directory on this disk and the folders in it; links to folders are not followed."""
    return [
        os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in sorted(names)
        if name.endswith(_SUFFIX)
    ]


def tensor_name(path: str) -> str:
    """The tensor that lies at `path`, relative to its directory."""
    *folders, last = path[: -len(_SUFFIX)].split(os.sep)
    return "/".join([*("" if folder == "%" else _unescaped(folder) for folder in folders), _unescaped(last)])


def _unescaped(part: str) -> str:
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogateescape"), part)


class _File:
    """A .npy file of its own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._source = open_source(path)
        with as_file(self._source) as file:
            try:
                shape, self.fortran_order, self.dtype = npy_facts(file, os.path.basename(path), path)
            except (FormatError, OSError):
                raise
            except Exception as error:  # numpy parses the header as Python
                raise FormatError(f"no readable .npy file: {error or type(error).__name__}", path=path) from error
            self.shape: tuple[int, ...] = tuple(int(size) for size in shape)
            self._start = file.tell()
        self.length = self._source.size - self._start

    def chunks(self) -> Iterator[bytes]:
        """The data after the header."""
        return Extent(self._source, self._start, self.length).chunks()
