"""LazyTensor: a tensor's type and shape, and where its bytes are; the bytes stay there until they are wanted.

The content of a tensor is its elements in row-major order, little-endian, as `TensorProto.tensor_content` and V2
checkpoints have them. A tensor gives its content as `parts`: stretches of a file that hold it as it is (`Extent`,
copied from file to file without being looked at twice) or pieces of bytes made on the fly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, data_type, from_numpy, item_size, numpy_dtype, type_name
from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.storage.coding import decode_varints
from graph_restore.storage.extent import Extent

_PIECE = 1 << 20  # elements or bytes made at a time
_MAX_RANK, _MAX_SIZE = 254, 1 << 59  # what TensorFlow's shapes, and what numpy's sizes can be
_FILL_LIMIT = 4 << 30  # bytes a few stored values may be spread to; no length in the file vouches for more


class LazyTensor:
    """A tensor on disk (or about to be).

    `name` says which one in messages; `data_type` is TensorFlow's type, `dtype` the numpy dtype that `read` gives
    (quantised types as plain integers, strings as object), `shape` a tuple of ints, () for a scalar, `size` the number
    of elements.
    """

    proto: Extent | None = None  # this tensor's whole TensorProto in a file, to be copied as it stands

    def __init__(self, name: str, data_type_number: int, shape: Sequence[int]) -> None:
        self.name = name
        self.data_type: DataType = data_type(data_type_number)
        self.shape: tuple[int, ...] = tuple(map(int, shape))
        self.size = _size(self.shape)
        if self.size < 0:
            if min(self.shape) < 0:
                raise FormatError(f"tensor {name}: a negative dimension", found=self.shape)
            most = f"at most {_MAX_RANK} dimensions and under {_MAX_SIZE} elements"
            raise FormatError(f"tensor {name}: its shape is impossible", expected=most, found=list(self.shape[:32]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of the array that `read` returns."""
        return numpy_dtype(self.data_type)

    @property
    def nbytes(self) -> int:
        """Bytes of content (for strings: of all strings together)."""
        return self.size * item_size(self.data_type)

    def parts(self) -> Iterator[Extent | bytes]:
        """The content in order."""
        raise NotImplementedError

    def chunks(self, verify: bool = True) -> Iterator[bytes]:
        """The content in pieces of a few MiB; a wrong checksum is a CorruptionError after the last piece it covers."""
        for part in self.parts():
            if isinstance(part, Extent):
                yield from part.chunks(verify)
            else:
                yield part

    def read(self, verify: bool = True) -> np.ndarray[Any, Any]:
        """The values as a new array of `dtype` and `shape`, also for scalars; checksums are tested if `verify`."""
        check_rank(self)
        content = np.empty(self.nbytes, np.uint8)
        filled = 0
        for chunk in self.chunks(verify):
            if filled + len(chunk) > content.size:
                filled += len(chunk)
                break
            content[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
        if filled != content.size:
            raise CorruptionError(f"tensor {self.name} has a wrong length", expected=content.size, found=filled)
        return content.view(self.dtype).reshape(self.shape)

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """The values [start, stop) along the first axis, as an array.

        Only their bytes are read where the tensor lies in a file as it is. A checksum covers a whole tensor, so a part
        of one is read without it; `read` tests it.
        """
        check_rank(self)
        width = self.nbytes // self.shape[0] if self.shape[0] else 0
        content = b"".join(self.content(start * width, stop * width))
        return np.frombuffer(bytearray(content), self.dtype).reshape(stop - start, *self.shape[1:])

    def content(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes [start, stop) of the content, checksums not tested."""
        position = 0
        for part in self.parts() if start < stop else ():
            length = part.length if isinstance(part, Extent) else len(part)
            begin, end = max(start - position, 0), min(stop - position, length)
            if begin < end:
                if isinstance(part, Extent):
                    yield from part.part(begin, end - begin).chunks(False)
                else:
                    yield part[begin:end]
            position += length
            if position >= stop:
                return

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        """A part as an array, `tensor[1000:1010]` or `tensor[5, :3]`: only the rows asked for are read."""
        keys = key if isinstance(key, tuple) else (key,)
        first = keys[0] if keys else Ellipsis
        if not self.shape or isinstance(first, bool) or not isinstance(first, int | np.integer | slice):
            return np.asarray(self.read()[key], self.dtype)
        if isinstance(first, slice):
            steps = range(self.shape[0])[first]
            low, high = (min(steps), max(steps) + 1) if steps else (0, 0)
            inner: Any = slice(None, None, steps.step if steps.step != 1 else None)
        else:
            low = range(self.shape[0])[first]  # an IndexError as arrays give it
            high, inner = low + 1, 0
        within = (inner, *keys[1:])
        return np.asarray(self.rows(low, high)[within], self.dtype)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"tensor {self.name} is a scalar and has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {type_name(self.data_type)} {list(self.shape)}>"


@lru_cache(4096)
def _size(shape: tuple[int, ...]) -> int:
    """The number of elements of a shape, -1 where no tensor can have it; of many tensors most have the same few."""
    possible = min(shape, default=0) >= 0 and len(shape) <= _MAX_RANK and math.prod(filter(None, shape)) < _MAX_SIZE
    return math.prod(shape) if possible else -1


def check_rank(tensor: LazyTensor) -> None:
    """UnsupportedFormatError for a tensor of more dimensions than an array can have; it can still be copied."""
    if len(tensor.shape) > 32 and (len(tensor.shape) > 64 or int(np.__version__.partition(".")[0]) < 2):
        raise UnsupportedFormatError(f"tensor {tensor.name}: {len(tensor.shape)} dimensions are too many for an array")


class ContentTensor(LazyTensor):
    """Content that lies in files as it is, in one extent or several."""

    def __init__(self, name: str, data_type_number: int, shape: Sequence[int], extents: Iterable[Extent]) -> None:
        super().__init__(name, data_type_number, shape)
        self.extents = tuple(extents)
        found = sum(extent.length for extent in self.extents)
        if found != self.nbytes:
            raise CorruptionError(
                f"tensor {name} of type {type_name(self.data_type)} and shape {list(self.shape)} has a wrong length",
                path=self.extents[0].source.name if self.extents else None,
                offset=self.extents[0].offset if self.extents else None,
                expected=f"{self.nbytes} bytes",
                found=found,
            )

    def parts(self) -> Iterator[Extent | bytes]:
        yield from self.extents


class ArrayTensor(LazyTensor):
    """Values already in memory, numbers only (see `lazy` for any array)."""

    def __init__(self, name: str, array: np.ndarray[Any, Any], data_type_number: int | None = None) -> None:
        super().__init__(name, data_type_number or from_numpy(array.dtype), array.shape)
        self.array = np.ascontiguousarray(array, dtype=self.dtype).reshape(array.shape)

    def parts(self) -> Iterator[Extent | bytes]:
        yield self.array.tobytes()

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return np.array(self.array[start:stop])


class FilledTensor(LazyTensor):
    """A few stored values, the last one repeated to the end, as TensorProto allows; none at all means zeros."""

    def __init__(self, name: str, data_type_number: int, shape: Sequence[int], values: np.ndarray[Any, Any]) -> None:
        super().__init__(name, data_type_number, shape)
        if values.size > self.size:
            raise CorruptionError(f"tensor {name} has too many values", expected=self.size, found=values.size)
        if self.nbytes > _FILL_LIMIT:
            raise UnsupportedFormatError(
                f"tensor {name} spreads {values.size} stored values over shape {list(self.shape)}",
                expected=f"at most {_FILL_LIMIT} bytes",
                found=self.nbytes,
            )
        self.values = values.astype(self.dtype, copy=False)

    def parts(self) -> Iterator[Extent | bytes]:
        yield self.values.tobytes()
        missing = self.size - self.values.size
        last = self.values[-1] if self.values.size else self.dtype.type(0)
        piece = np.full(min(missing, _PIECE), last, self.dtype).tobytes() if missing else b""
        while missing:
            step = min(missing, _PIECE)
            yield piece[: step * self.dtype.itemsize]
            missing -= step


class VarintTensor(LazyTensor):
    """Packed varints, as V1 checkpoints and TensorProto keep integers, booleans and the bits of halves.

    Fewer varints than elements are allowed only with `fill`: the last one is then repeated.
    """

    def __init__(
        self, name: str, data_type_number: int, shape: Sequence[int], extent: Extent, fill: bool = False
    ) -> None:
        super().__init__(name, data_type_number, shape)
        self.extent = extent
        limit = _FILL_LIMIT if fill else extent.length * item_size(self.data_type)
        if self.nbytes > limit or (self.size and not extent.length and not fill):
            raise CorruptionError(
                f"tensor {name} has fewer values than its shape {list(self.shape)} asks for",
                path=extent.source.name,
                offset=extent.offset,
                expected=self.size,
                found=f"at most {extent.length}",
            )
        self._fill = fill

    def parts(self) -> Iterator[Extent | bytes]:
        count, last = 0, self._cast(np.zeros(1, np.uint64))
        for values in self._values():
            count += values.size
            if count > self.size:
                break
            last = values[-1:]
            yield values.tobytes()
        if count > self.size or (count < self.size and not self._fill):
            raise CorruptionError(
                f"tensor {self.name} has a wrong number of values",
                path=self.extent.source.name,
                offset=self.extent.offset,
                expected=self.size,
                found=count,
            )
        if count < self.size:
            yield from FilledTensor("", self.data_type, (self.size - count,), last).chunks()

    def _values(self) -> Iterator[np.ndarray[Any, Any]]:
        rest = b""
        for chunk in self.extent.chunks():
            data = np.frombuffer(rest + chunk, np.uint8)
            ends = np.flatnonzero(data < 0x80)
            used = int(ends[-1]) + 1 if ends.size else 0
            rest = data[used:].tobytes()
            if len(rest) > 10:
                break
            if ends.size:
                yield self._cast(self._decode(data[:used], ends))
        if rest:
            raise CorruptionError(f"tensor {self.name}: a varint does not end", path=self.extent.source.name)

    def _decode(self, data: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        starts = np.concatenate(([0], ends[:-1] + 1))
        if (ends - starts).max() >= 10:
            raise CorruptionError(f"tensor {self.name}: a varint of over 10 bytes", path=self.extent.source.name)
        return decode_varints(data, starts, ends)

    def _cast(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self.data_type is DataType.DT_BOOL:
            return values.astype(np.bool_)
        if self.dtype.kind not in "iu" or self.data_type in (DataType.DT_INT4, DataType.DT_UINT4):
            bits = np.dtype(f"u{self.dtype.itemsize}")  # half and bfloat16 are stored as their bits
            return values.astype(bits).view(self.dtype)
        return values.astype(self.dtype)


class StringTensor(LazyTensor):
    """Strings: variable in length, so without content; `strings` gives them one by one."""

    def strings(self, verify: bool = True) -> Iterator[bytes]:
        """The elements in row-major order."""
        raise NotImplementedError

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return np.asarray(self.read(False)[start:stop], object)

    def lengths(self) -> np.ndarray[Any, Any]:
        """The length in bytes of every element, int64, in row-major order."""
        return np.fromiter((len(string) for string in self.strings()), np.int64, self.size)

    @property
    def nbytes(self) -> int:
        return int(self.lengths().sum())

    def read(self, verify: bool = True) -> np.ndarray[Any, Any]:
        check_rank(self)
        values = np.empty(self.size, object)
        count = 0
        for count, string in enumerate(self.strings(verify), 1):
            if count <= self.size:
                values[count - 1] = string
        if count != self.size:
            raise CorruptionError(f"tensor {self.name} has a wrong number of strings", expected=self.size, found=count)
        return values.reshape(self.shape)


class StringArrayTensor(StringTensor):
    """Strings already in memory; text is encoded as UTF-8."""

    def __init__(self, name: str, array: np.ndarray[Any, Any]) -> None:
        super().__init__(name, DataType.DT_STRING, array.shape)
        self._strings = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel().tolist()]

    def strings(self, verify: bool = True) -> Iterator[bytes]:
        yield from self._strings


class CastTensor(LazyTensor):
    """Another tensor's values converted to another numeric type as numpy's `astype` does, piece by piece."""

    def __init__(self, tensor: LazyTensor, data_type_number: int) -> None:
        super().__init__(tensor.name, data_type_number, tensor.shape)
        self.tensor = tensor

    def parts(self) -> Iterator[Extent | bytes]:
        rest = b""
        width = self.tensor.dtype.itemsize
        for chunk in self.tensor.chunks():
            data = rest + chunk
            whole = len(data) - len(data) % width
            rest = data[whole:]
            yield np.frombuffer(data[:whole], self.tensor.dtype).astype(self.dtype).tobytes()

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return self.tensor.rows(start, stop).astype(self.dtype)


def lazy(name: str, value: Any) -> LazyTensor:
    """A LazyTensor over a value in memory: an array, a number, bytes or text, or nested lists of these."""
    if isinstance(value, LazyTensor):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        if not isinstance(value, np.ndarray):
            array = np.array(value, dtype=object)  # numpy's own byte strings lose trailing zeros
        return StringArrayTensor(name, array)
    return ArrayTensor(name, array)
