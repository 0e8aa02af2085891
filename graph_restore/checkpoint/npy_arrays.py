"""Arrays of .npy files as tensors whose values stay where they are: members of a .npz, files of a directory.

The format is that of numpy/lib/format.py. The header's length is capped before it is read; pickled objects are refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, from_numpy
from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.storage.extent import Extent
from graph_restore.tensors import LazyTensor, StringTensor

_MAX_HEADER = 1 << 16


class Member(Protocol):
    """One .npy file: what its header says, and its data as a stream. `path`: the file to name in errors."""

    path: str
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    length: int

    def chunks(self) -> Iterator[bytes]:
        """The data after the header."""


def npy_facts(file: IO[bytes], name: str, path: str) -> tuple[Sequence[int], bool, np.dtype[Any]]:
    """(shape, whether column-major, dtype); the length is capped before numpy reads it."""
    start = file.read(8)
    width = 2 if start[6:7] == b"\x01" else 4
    length = file.read(width)
    count = int.from_bytes(length, "little")
    if start[:6] != b"\x93NUMPY" or count > _MAX_HEADER:
        raise FormatError(f"{name!r} is no .npy file", path=path)
    header = io.BytesIO(start + length + file.read(count))
    version = np.lib.format.read_magic(header)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found: tuple[Sequence[int], bool, np.dtype[Any]] = read(header)
    return found


def npy_tensor(member: Member, name: str) -> LazyTensor:
    if member.dtype.kind == "O":
        raise UnsupportedFormatError(f"array {name!r} is a pickle of Python objects, not read here", path=member.path)
    try:
        kind = from_numpy(member.dtype)
    except ValueError as error:
        raise UnsupportedFormatError(f"array {name!r}: {error}", path=member.path) from None
    tensor = NpyStrings(name, member) if kind is DataType.DT_STRING else NpyTensor(name, kind, member)
    expected = tensor.size * member.dtype.itemsize
    if expected != member.length:
        raise CorruptionError(
            f"array {name!r} has a wrong length", path=member.path, expected=expected, found=member.length
        )
    return tensor


class NpyTensor(LazyTensor):
    """Numbers of a .npy file, turned to little-endian and row-major; column-major ones are assembled in memory."""

    def __init__(self, name: str, kind: DataType, member: Member) -> None:
        super().__init__(name, kind, member.shape)
        self._member = member

    def parts(self) -> Iterator[Extent | bytes]:
        member = self._member
        if member.fortran_order and len(self.shape) > 1:
            stored = np.frombuffer(b"".join(member.chunks()), member.dtype)
            yield stored.reshape(self.shape, order="F").astype(self.dtype).tobytes()
            return
        for items in _items(member):
            yield items.tobytes() if member.dtype == self.dtype else items.astype(self.dtype).tobytes()


class NpyStrings(StringTensor):
    """Byte strings or text of a .npy file, without the zeros that numpy pads them with."""

    def __init__(self, name: str, member: Member) -> None:
        super().__init__(name, DataType.DT_STRING, member.shape)
        self._member = member

    def strings(self, verify: bool = True) -> Iterator[bytes]:
        member = self._member
        if member.fortran_order and len(self.shape) > 1:
            stored = np.frombuffer(b"".join(member.chunks()), member.dtype)
            rows: Iterator[Any] = iter([stored.reshape(self.shape, order="F").ravel()])
        else:
            rows = _items(member)
        for items in rows:
            yield from (item.encode() if isinstance(item, str) else item for item in items.tolist())


def _items(member: Member) -> Iterator[np.ndarray[Any, Any]]:
    rest, width = b"", member.dtype.itemsize
    for chunk in member.chunks() if width else ():
        data = rest + chunk
        whole = len(data) - len(data) % width
        rest = data[whole:]
        yield np.frombuffer(data[:whole], member.dtype)
