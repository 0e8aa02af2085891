"""Slices of tensors: how a partitioned variable's parts lie in the whole.

TensorFlow writes a slice as text, `10 4 4,3:0,4` (full shape, then `start,length` for each dimension, `-` for a whole
one), in the `shape_and_slices` input of its save and restore ops; see tensorflow/core/framework/tensor_slice.h.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType
from graph_restore.errors import CorruptionError, FormatError
from graph_restore.storage.extent import Extent
from graph_restore.tensors import ContentTensor, LazyTensor, StringTensor, check_rank


@dataclass(frozen=True)
class TensorSlice:
    """A box in a tensor: where it starts and how long it is in each dimension of the full shape."""

    full_shape: tuple[int, ...]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        fits = len(self.full_shape) == len(self.starts) == len(self.lengths) and all(
            start >= 0 and length >= 0 and start + length <= size
            for size, start, length in zip(self.full_shape, self.starts, self.lengths)
        )
        if not fits:
            raise FormatError(
                "a tensor slice lies outside its tensor",
                expected=f"inside {list(self.full_shape)}",
                found=f"starts {list(self.starts)}, lengths {list(self.lengths)}",
            )

    @staticmethod
    def parse(spec: str) -> TensorSlice | None:
        """The slice a `shape_and_slices` text gives; None for the empty text, which means the whole tensor."""
        if not spec:
            return None
        *dims, extents = spec.split(" ")
        try:
            shape = tuple(int(dim) for dim in dims)
            pairs = [None if part == "-" else part.split(",") for part in extents.split(":")]
            starts = tuple(int(pair[0]) if pair else 0 for pair in pairs)
            lengths = tuple(int(pair[1]) if pair else size for pair, size in zip(pairs, shape))
        except (ValueError, IndexError):
            raise FormatError("not a tensor slice text", expected="such as '10 4 4,3:0,4'", found=repr(spec)) from None
        return TensorSlice(shape, starts, lengths)

    @property
    def whole(self) -> bool:
        """Whether the slice is the tensor itself."""
        return self.lengths == self.full_shape

    @property
    def axis(self) -> int:
        """The first dimension that is cut; 0 for a whole tensor."""
        cut = [axis for axis, (size, length) in enumerate(zip(self.full_shape, self.lengths)) if size != length]
        return cut[0] if cut else 0

    @property
    def index(self) -> tuple[slice, ...]:
        """For numpy indexing."""
        return tuple(slice(start, start + length) for start, length in zip(self.starts, self.lengths))

    def meets(self, other: TensorSlice) -> bool:
        """Whether two slices of one tensor share an element."""
        places = zip(self.starts, self.lengths, other.starts, other.lengths)
        return all(a < b + m and b < a + n for a, n, b, m in places)

    def __str__(self) -> str:
        extents = ":".join(
            "-" if length == size else f"{start},{length}"
            for size, start, length in zip(self.full_shape, self.starts, self.lengths)
        )
        return " ".join([*map(str, self.full_shape), extents])


SlicedParts = Sequence[tuple[TensorSlice, LazyTensor]]


def join(name: str, data_type: int, shape: Sequence[int], slices: SlicedParts) -> LazyTensor:
    """The whole tensor of which `slices` are the parts; CorruptionError unless they cover it exactly once."""
    covered = sum(math.prod(box.lengths) for box, _ in slices)
    if covered != math.prod(shape) or _overlap([box for box, _ in slices]):
        raise CorruptionError(
            f"the slices of tensor {name} do not cover its shape {list(shape)} exactly once; a shard may be missing",
            expected=f"{math.prod(shape)} elements",
            found=f"{covered} in slices {[str(box) for box, _ in slices]}",
        )
    kind = JoinedStrings if data_type == DataType.DT_STRING else JoinedTensor
    return kind(name, data_type, shape, slices)


def cut(tensor: LazyTensor, box: TensorSlice) -> LazyTensor:
    """The part of `tensor` that lies in `box`, as a tensor of the box's shape; `tensor` itself when it is all of it."""
    if box.full_shape != tensor.shape:
        raise CorruptionError(f"a slice of tensor {tensor.name}", expected=tensor.shape, found=box.full_shape)
    if box.whole:
        return tensor
    if isinstance(tensor, JoinedTensor | JoinedStrings):
        for known, part in tensor.slices:
            if known == box:
                return part
    kind = CutStrings if tensor.data_type is DataType.DT_STRING else CutTensor
    return kind(tensor, box)


def _overlap(boxes: list[TensorSlice]) -> bool:
    """Whether two boxes share an element; only boxes next to each other along the cut axis need a look when sorted."""
    axis = next((box.axis for box in boxes if not box.whole), 0)
    if any(box.axis != axis or box.lengths[axis + 1 :] != box.full_shape[axis + 1 :] for box in boxes):
        return any(one.meets(two) for number, one in enumerate(boxes) for two in boxes[:number])
    ordered = sorted((box for box in boxes if math.prod(box.lengths)), key=lambda box: box.starts)
    return any(one.meets(two) for one, two in zip(ordered, ordered[1:]))


class _Stream:
    """A tensor's content taken in steps of any size."""

    def __init__(self, tensor: LazyTensor) -> None:
        self._chunks = tensor.chunks()
        self._rest = memoryview(b"")

    def take(self, length: int) -> Iterator[bytes]:
        while length:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
                if not self._rest:
                    raise CorruptionError("a tensor slice ends too early", expected=f"{length} more bytes")
            piece, self._rest = self._rest[:length], self._rest[length:]
            length -= len(piece)
            yield bytes(piece)

    def finish(self) -> None:
        """Read to the end, where checksums are tested."""
        for _ in self._chunks:
            pass


class JoinedTensor(LazyTensor):
    """A partitioned tensor, made whole from its slices as they are read."""

    def __init__(self, name: str, data_type: int, shape: Sequence[int], slices: SlicedParts) -> None:
        super().__init__(name, data_type, shape)
        self.slices = sorted(slices, key=lambda pair: pair[0].starts)

    def parts(self) -> Iterator[Extent | bytes]:
        used = [(box, tensor) for box, tensor in self.slices if tensor.size]
        axis = next((box.axis for box, _ in used if not box.whole), 0)
        if any(box.lengths[:axis] + box.lengths[axis + 1 :] != self._others(axis) for box, _ in used):
            yield self._assembled().tobytes()  # cut along two axes: no TensorFlow partitioner makes these
        elif math.prod(self.shape[:axis]) == 1:
            for _, tensor in used:
                yield from tensor.parts()
        else:
            yield from self._interleaved(axis, used)

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return _joined_rows(self, start, stop)

    def _others(self, axis: int) -> tuple[int, ...]:
        return self.shape[:axis] + self.shape[axis + 1 :]

    def _interleaved(self, axis: int, used: SlicedParts) -> Iterator[bytes]:
        streams = [(_Stream(tensor), tensor.nbytes // math.prod(self.shape[:axis])) for _, tensor in used]
        pending: list[bytes] = []
        for _ in range(math.prod(self.shape[:axis])):
            for stream, step in streams:
                pending.extend(stream.take(step))
            if len(pending) > 4096 or sum(map(len, pending)) > 1 << 20:
                yield b"".join(pending)
                pending = []
        yield b"".join(pending)
        for stream, _ in streams:
            stream.finish()

    def _assembled(self) -> np.ndarray[Any, Any]:
        whole = np.empty(self.shape, self.dtype)
        for box, tensor in self.slices:
            whole[box.index] = tensor.read()
        return whole


class JoinedStrings(StringTensor):
    """A partitioned string tensor; assembled in memory, since strings have no fixed places."""

    def __init__(self, name: str, data_type: int, shape: Sequence[int], slices: SlicedParts) -> None:
        super().__init__(name, data_type, shape)
        self.slices = sorted(slices, key=lambda pair: pair[0].starts)

    def strings(self, verify: bool = True) -> Iterator[bytes]:
        check_rank(self)
        whole = np.empty(self.shape, object)
        for box, tensor in self.slices:
            whole[box.index] = tensor.read(verify)
        yield from whole.ravel().tolist()

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return _joined_rows(self, start, stop)


def _joined_rows(whole: JoinedTensor | JoinedStrings, start: int, stop: int) -> np.ndarray[Any, Any]:
    """The rows [start, stop), read from those slices only that hold some of them."""
    check_rank(whole)
    result = np.empty((stop - start, *whole.shape[1:]), whole.dtype)
    for box, tensor in whole.slices:
        low, high = max(start, box.starts[0]), min(stop, box.starts[0] + box.lengths[0])
        if low < high and tensor.size:
            place = (slice(low - start, high - start), *box.index[1:])
            result[place] = tensor.rows(low - box.starts[0], high - box.starts[0])
    return result


class CutTensor(LazyTensor):
    """A slice of a tensor that is stored whole (or in other slices)."""

    def __init__(self, tensor: LazyTensor, box: TensorSlice) -> None:
        super().__init__(tensor.name, tensor.data_type, box.lengths)
        self.tensor, self.box = tensor, box

    def parts(self) -> Iterator[Extent | bytes]:
        axis = self.box.axis
        if self.box.lengths[axis + 1 :] != self.box.full_shape[axis + 1 :] or not self.size:
            yield self.tensor.read()[self.box.index].tobytes()
            return
        inner = math.prod(self.box.full_shape[axis + 1 :]) * self.tensor.dtype.itemsize
        row = self.box.full_shape[axis] * inner
        skip, keep = self.box.starts[axis] * inner, self.box.lengths[axis] * inner
        rows = math.prod(self.box.full_shape[:axis])
        if rows == 1 and isinstance(self.tensor, ContentTensor) and len(self.tensor.extents) == 1:
            yield self.tensor.extents[0].part(skip, keep)
            return
        stream = _Stream(self.tensor)
        for _ in range(rows):
            for _ in stream.take(skip):
                pass
            yield b"".join(stream.take(keep))
            for _ in stream.take(row - skip - keep):
                pass
        stream.finish()

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        first = self.box.starts[0]
        rows = self.tensor.rows(first + start, first + stop)
        inner = (slice(None), *self.box.index[1:])
        return np.ascontiguousarray(rows[inner])


class CutStrings(StringTensor):
    """A slice of a string tensor."""

    def __init__(self, tensor: LazyTensor, box: TensorSlice) -> None:
        super().__init__(tensor.name, tensor.data_type, box.lengths)
        self.tensor, self.box = tensor, box

    def strings(self, verify: bool = True) -> Iterator[bytes]:
        yield from self.tensor.read(verify)[self.box.index].ravel().tolist()

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        first = self.box.starts[0]
        inner = (slice(None), *self.box.index[1:])
        return np.array(self.tensor.rows(first + start, first + stop)[inner], object)
