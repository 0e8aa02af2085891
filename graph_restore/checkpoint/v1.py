"""V1 checkpoints: one table, or shards that are each a table with metadata of its own tensors.

    table    := "" -> SavedTensorSlices { meta=1 }, slice key -> SavedTensorSlices { data=2 SavedSlice }
    SavedSlice { name=1 slice=2 data=3 TensorProto }

The TensorProto has neither dtype nor shape, only one list of values, packed: the metadata have the rest. Floats lie as
they are; integers, booleans and the bits of halves are varints. Written by tensorflow/core/util/tensor_slice_writer.cc.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.messages import TensorMeta, decode_metadata, decode_text, is_v1_metadata
from graph_restore.checkpoint.partial import assemble
from graph_restore.dtypes import DataType
from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.slices import TensorSlice
from graph_restore.storage.coding import BYTES, Field, Window
from graph_restore.storage.extent import Extent
from graph_restore.storage.files import open_source
from graph_restore.storage.ordered_code import encode_slice_key
from graph_restore.storage.table import Table
from graph_restore.tensors import ContentTensor, LazyTensor, StringTensor, VarintTensor, check_rank

STRING_FIELD = 8
FIXED_FIELDS = {
    DataType.DT_FLOAT: 5,
    DataType.DT_DOUBLE: 6,
    DataType.DT_COMPLEX64: 9,
    DataType.DT_COMPLEX128: 12,
}
VARINT_FIELDS = {
    DataType.DT_INT32: 7,
    DataType.DT_UINT8: 7,
    DataType.DT_INT16: 7,
    DataType.DT_INT8: 7,
    DataType.DT_UINT16: 7,
    DataType.DT_QINT8: 7,
    DataType.DT_QUINT8: 7,
    DataType.DT_QINT32: 7,
    DataType.DT_QINT16: 7,
    DataType.DT_QUINT16: 7,
    DataType.DT_INT64: 10,
    DataType.DT_BOOL: 11,
    DataType.DT_HALF: 13,
    DataType.DT_BFLOAT16: 13,
    DataType.DT_UINT32: 16,
    DataType.DT_UINT64: 17,
}

Part = tuple[TensorSlice, LazyTensor]


def read_tables(paths: Sequence[str]) -> dict[str, LazyTensor]:
    """Tensors by name of the V1 checkpoint that consists of these files; FormatError where they cannot be."""
    known: dict[str, tuple[TensorMeta, str, list[Part]]] = {}
    for path in paths:
        for meta, parts in _read_table(path):
            first, where, slices = known.setdefault(meta.name, (meta, path, []))
            if (first.shape, first.data_type) != (meta.shape, meta.data_type):
                raise CorruptionError(
                    f"two shards disagree about tensor {meta.name!r}; they are of different checkpoints",
                    path=path,
                    expected=f"{first.data_type.name} {list(first.shape)} as in {where}",
                    found=f"{meta.data_type.name} {list(meta.shape)}",
                )
            slices.extend(parts)
    return {name: assemble(name, meta.data_type, meta.shape, slices) for name, (meta, _, slices) in known.items()}


def _read_table(path: str) -> Iterator[tuple[TensorMeta, list[Part]]]:
    """(metadata, slices) of every tensor of one file."""
    entries = Table(open_source(path)).entries(inline=-1)
    first = next(entries, None)
    metas = _metadata(first, path)
    wanted: dict[bytes, tuple[TensorMeta, TensorSlice, list[Part]]] = {}
    found: list[tuple[TensorMeta, list[Part]]] = []
    for meta in metas:
        parts: list[Part] = []
        found.append((meta, parts))
        for extents in meta.slices:
            key = encode_slice_key(meta.name, extents.starts, extents.lengths)
            wanted[key] = (meta, extents.within(meta.shape), parts)
    for key, value in entries:  # in order of the file, so that packed blocks are unpacked once
        if key in wanted and isinstance(value, Extent):
            meta, box, parts = wanted.pop(key)
            parts.append((box, _tensor(meta, box, value)))
    for meta, box, _ in wanted.values():
        raise CorruptionError(f"slice {box} of tensor {meta.name!r} is listed and not there", path=path)
    yield from found


def _metadata(entry: tuple[bytes, Extent | bytes] | None, path: str) -> list[TensorMeta]:
    if entry is None or entry[0] != b"":
        raise FormatError("a table, but no V1 checkpoint: it has no metadata", path=path)
    data = entry[1].read() if isinstance(entry[1], Extent) else entry[1]
    if not is_v1_metadata(data):
        raise FormatError(
            "this table is the index of a V2 checkpoint, not a V1 checkpoint; its name should end in .index, with data "
            "files beside it",
            path=path,
        )
    metas = decode_metadata(data, path)
    if len({meta.name for meta in metas}) != len(metas):
        raise CorruptionError("the metadata name a tensor twice", path=path)
    return metas


def _tensor(meta: TensorMeta, box: TensorSlice, value: Extent) -> LazyTensor:
    """The tensor of one slice, whose SavedTensorSlices record lies at `value`."""
    window = Window(value.source)
    saved = _only(window, value.offset, value.offset + value.length, 2)
    if saved is None:
        raise FormatError(f"no data under the key of tensor {meta.name!r}", path=value.source.name, offset=value.offset)
    name = _only(window, saved.offset, saved.end, 1)
    if name is None or decode_text(window.bytes_at(name.offset, name.length)) != meta.name:
        raise CorruptionError(
            f"the data under the key of tensor {meta.name!r} are of another",
            path=value.source.name,
            offset=value.offset,
        )
    proto = _only(window, saved.offset, saved.end, 3)
    start, length = (proto.offset, proto.length) if proto else (saved.end, 0)
    content = value.part(start - value.offset, length)
    if meta.data_type is DataType.DT_STRING:
        return SavedStrings(meta.name, box.lengths, content)
    return _numbers(meta, box, content, window)


def _only(window: Window, offset: int, end: int, number: int) -> Field | None:
    """The last field of that number that holds bytes, None if there is none."""
    fields = [field for field in window.fields(offset, end) if field.number == number and field.wire_type == BYTES]
    return fields[-1] if fields else None


def _numbers(meta: TensorMeta, box: TensorSlice, content: Extent, window: Window) -> LazyTensor:
    number = FIXED_FIELDS.get(meta.data_type) or VARINT_FIELDS.get(meta.data_type)
    if number is None:
        raise UnsupportedFormatError(
            f"tensor {meta.name!r} is of type {meta.data_type.name}, which V1 checkpoints cannot hold",
            path=content.source.name,
        )
    extents = []
    for field in window.fields(content.offset, content.offset + content.length):
        if field.number == number and field.length:
            extents.append(content.part(field.offset - content.offset, field.length))
    if meta.data_type in FIXED_FIELDS or not extents:
        return ContentTensor(meta.name, meta.data_type, box.lengths, extents)
    if len(extents) > 1:
        raise UnsupportedFormatError(
            f"the values of tensor {meta.name!r} are not packed in one run, as TensorFlow does",
            path=content.source.name,
            offset=content.offset,
        )
    return VarintTensor(meta.name, meta.data_type, box.lengths, extents[0])


class SavedStrings(StringTensor):
    """Strings of a V1 checkpoint, each a field of its own in a TensorProto."""

    def __init__(self, name: str, shape: tuple[int, ...], extent: Extent) -> None:
        super().__init__(name, DataType.DT_STRING, shape)
        self._extent = extent
        if self.size > extent.length:
            raise CorruptionError(
                f"string tensor {name!r} has too few bytes for its shape {list(shape)}",
                path=extent.source.name,
                offset=extent.offset,
                expected=f"{self.size} or more",
                found=extent.length,
            )

    def strings(self, verify: bool = True) -> Iterator[bytes]:
        extent = self._extent
        if verify:
            for _ in extent.chunks():
                pass
        window = Window(extent.source)
        for field in self._fields(window):
            yield window.bytes_at(field.offset, field.length)

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        check_rank(self)
        width = math.prod(self.shape[1:])
        window = Window(self._extent.source)
        fields = islice(self._fields(window), start * width, stop * width)
        strings = [window.bytes_at(field.offset, field.length) for field in fields]
        if len(strings) != (stop - start) * width:
            raise CorruptionError(f"tensor {self.name} has too few strings", expected=self.size)
        values = np.empty(len(strings), object)
        values[:] = strings
        return values.reshape(stop - start, *self.shape[1:])

    def _fields(self, window: Window) -> Iterator[Field]:
        end = self._extent.offset + self._extent.length
        for field in window.fields(self._extent.offset, end):
            if field.number == STRING_FIELD and field.wire_type == BYTES:
                yield field
