"""TensorProto, the tensor inside a GraphDef: found in a file without being decoded, and written from a stream.

A TensorProto holds its values as `tensor_content` (raw bytes, field 4) or in one typed list, packed or not; fewer
values than the shape asks for mean that the last one repeats. See tensorflow/core/framework/tensor.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, data_type, item_size, numpy_dtype
from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.storage.coding import BYTES, VARINT, Field, Window, encode_header, encode_varint
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import BytesSource, Source
from graph_restore.tensors import ContentTensor, FilledTensor, LazyTensor, StringTensor, VarintTensor, lazy

_DTYPE, _SHAPE, _CONTENT, _STRINGS = 1, 2, 4, 8
FIXED_FIELDS = {5: "<f4", 6: "<f8", 9: "<f4", 12: "<f8", 18: "u1"}  # float, double, scomplex, dcomplex, float8
VARINT_FIELDS = {7, 10, 11, 13, 16, 17}  # int, int64, bool, half, uint32, uint64
_LISTS = {  # the typed list that holds a type's values; int_val, 7, for all that are not here
    DataType.DT_FLOAT: 5, DataType.DT_DOUBLE: 6, DataType.DT_COMPLEX64: 9, DataType.DT_INT64: 10, DataType.DT_BOOL: 11,
    DataType.DT_COMPLEX128: 12, DataType.DT_HALF: 13, DataType.DT_BFLOAT16: 13, DataType.DT_UINT32: 16,
    DataType.DT_UINT64: 17,
    **{kind: 18 for kind in DataType if kind.name.startswith("DT_FLOAT8")},
}  # fmt: skip
STRIPPED = b"<stripped "  # the content of constants in graphs that are for looking at, as by `stripped`
_STRIPPED_MOST = 40  # bytes


class Encoded(NamedTuple):
    """Bytes to be written: how many, and a function that gives them in order."""

    length: int
    parts: Callable[[], Iterator[Extent | bytes]]


def concatenated(pieces: Iterable[bytes | Encoded]) -> Encoded:
    """The pieces one after the other."""
    held = list(pieces)
    length = sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in held)

    def parts() -> Iterator[Extent | bytes]:
        for piece in held:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from piece.parts()

    return Encoded(length, parts)


def message_field(number: int, content: Encoded) -> list[bytes | Encoded]:
    """A field of a message that holds a message: its header, and its content."""
    return [encode_header(number, content.length), content]


class ProtoStringTensor(StringTensor):
    """Strings of a TensorProto, each a field of its own."""

    def __init__(self, name: str, shape: tuple[int, ...], extent: Extent, stored: int) -> None:
        super().__init__(name, DataType.DT_STRING, shape)
        self.extent = extent
        if stored > self.size or (self.size > 1 << 28 and stored < self.size):
            raise CorruptionError(f"tensor {name} has a wrong number of strings", expected=self.size, found=stored)

    def strings(self, verify: bool = True) -> Iterator[bytes]:
        window, last, count = Window(self.extent.source), b"", 0
        for number, content in window.contents(self.extent.offset, self.extent.offset + self.extent.length):
            if number == _STRINGS and count < self.size:
                last = content
                count += 1
                yield last
        for _ in range(self.size - count):
            yield last


def scan_tensor_proto(name: str, source: Source, offset: int, end: int) -> LazyTensor:
    """The tensor of the TensorProto in [offset, end) of `source`, its values left there.

    FormatError when the bytes are no TensorProto; UnsupportedFormatError for resource handles and variants.
    """
    window = Window(source)
    number = strings = 0
    shape: tuple[int, ...] = ()
    values: list[Field] = []
    position = offset
    while position < end:
        count, position = window.past_alike(_STRINGS, position, end)
        strings += count
        for field in window.fields(position, end):
            position = field.end
            if field.number == _DTYPE and field.wire_type == VARINT:
                number = field.value
            elif field.number == _SHAPE and field.wire_type == BYTES:
                shape = scan_shape(window, field)
            elif field.number == _STRINGS:
                strings += 1
                break
            elif field.number == _CONTENT or field.number in FIXED_FIELDS or field.number in VARINT_FIELDS:
                values.append(field)
    whole = Extent(source, offset, end - offset)
    tensor = _stored(name, data_type(number), shape, values, strings, whole)
    tensor.proto = whole
    return tensor


def scan_shape(window: Window, shape: Field) -> tuple[int, ...]:
    """The sizes a TensorShapeProto field holds; FormatError if one is unknown, since values have a shape."""
    sizes = []
    for dim in window.fields(shape.offset, shape.end):
        if dim.number == 2 and dim.wire_type == BYTES:
            size = 0
            for field in window.fields(dim.offset, dim.end):
                if field.number == 1 and field.wire_type == VARINT:
                    size = field.value - (1 << 64) if field.value >> 63 else field.value
            sizes.append(size)
    if any(size < 0 for size in sizes):
        raise FormatError("a tensor's shape is impossible", path=window.source.name, offset=shape.start, found=sizes)
    return tuple(sizes)


def _stored(
    name: str, kind: DataType, shape: tuple[int, ...], values: list[Field], strings: int, whole: Extent
) -> LazyTensor:
    content = [field for field in values if field.number == _CONTENT and field.length]
    _refuse_stripped(name, kind, content, whole.source)
    if kind is DataType.DT_STRING:
        return ProtoStringTensor(name, shape, whole, strings)
    if kind in (DataType.DT_RESOURCE, DataType.DT_VARIANT, DataType.DT_INVALID):
        raise UnsupportedFormatError(f"tensor {name} is of type {kind.name} and has no values to read")
    values = content[-1:] or [field for field in values if field.number == _LISTS.get(kind, 7)]  # others are not read
    if not values:
        return FilledTensor(name, kind, shape, np.empty(0, numpy_dtype(kind)))
    first = values[0]
    extent = Extent(whole.source, first.offset, first.length)
    if first.number == _CONTENT:
        return ContentTensor(name, kind, shape, [extent])
    if len(values) == 1 and first.wire_type == BYTES:
        if first.number in VARINT_FIELDS:
            return VarintTensor(name, kind, shape, extent, fill=True)
        return _content(name, kind, shape, extent)
    return _unpacked(name, kind, shape, values, whole.source)


def _refuse_stripped(name: str, kind: DataType, content: list[Field], source: Source) -> None:
    """CorruptionError for a constant that is not there; left alone, strings would be taken for empty ones."""
    last = content[-1] if content else None
    is_word = last is not None and len(STRIPPED) < last.length < _STRIPPED_MOST
    if last is not None and is_word and source.pread(last.offset, len(STRIPPED)) == STRIPPED:
        raise CorruptionError(
            f"tensor {name}: its value was left out when this graph was written to be looked at; load the graph from "
            "elsewhere",
            path=source.name,
        )
    if last is not None and kind is DataType.DT_STRING:
        raise UnsupportedFormatError(f"tensor {name}: strings in tensor_content are not read", path=source.name)


def _content(name: str, kind: DataType, shape: tuple[int, ...], extent: Extent) -> LazyTensor:
    try:
        return ContentTensor(name, kind, shape, [extent])
    except CorruptionError:
        if extent.length % item_size(kind) or extent.length > 1 << 16:
            raise
    return FilledTensor(name, kind, shape, np.frombuffer(extent.read(), numpy_dtype(kind)))


def _unpacked(name: str, kind: DataType, shape: tuple[int, ...], values: list[Field], source: Source) -> LazyTensor:
    """Values one field each (proto2 style) or in several packed runs: rewritten as one packed run in memory."""
    run = bytearray()
    for field in values:
        run += source.pread(field.offset, field.length)
    packed = Extent(BytesSource(bytes(run), source.name), 0, len(run))
    if values[0].number in VARINT_FIELDS:
        return VarintTensor(name, kind, shape, packed, fill=True)
    return _content(name, kind, shape, packed)


def from_message(message: Any, name: str = "") -> LazyTensor:
    """The tensor of a TensorProto message, ours or TensorFlow's."""
    data = message.SerializeToString()
    return scan_tensor_proto(name, BytesSource(data, name or "<TensorProto>"), 0, len(data))


def encode(tensor: LazyTensor) -> Encoded:
    """The TensorProto of `tensor`, for a file: copied as it stands when it came from one, else made as a stream."""
    proto = tensor.proto
    if proto is not None:
        return Encoded(proto.length, lambda: iter([proto]))
    head = encode_head(tensor)
    if isinstance(tensor, StringTensor):
        length = sum(1 + len(encode_varint(int(size))) + int(size) for size in tensor.lengths())
        return Encoded(len(head) + length, lambda: _string_parts(head, tensor))
    head += encode_header(_CONTENT, tensor.nbytes)
    return Encoded(len(head) + tensor.nbytes, lambda: _joined(head, tensor.parts()))


def encode_head(tensor: LazyTensor) -> bytes:
    """The dtype and shape fields."""
    return head_of(tensor.data_type, tensor.shape)


@lru_cache(1024)
def head_of(number: int, sizes: tuple[int, ...]) -> bytes:
    """The dtype and shape fields of a tensor of that type and shape."""
    shape = b"".join(_dim(size) for size in sizes)
    return encode_varint(_DTYPE << 3) + encode_varint(number) + encode_header(_SHAPE, len(shape)) + shape


def stripped(tensor: LazyTensor) -> bytes:
    """A serialized TensorProto with dtype and shape of `tensor`, and in place of its values a word that they are gone,
    which no reader takes for values."""
    word = STRIPPED + b"%d bytes>" % tensor.nbytes
    return encode_head(tensor) + encode_header(_CONTENT, len(word)) + word


def _dim(size: int) -> bytes:
    content = b"\x08" + encode_varint(size)
    return encode_header(2, len(content)) + content


def _joined(head: bytes, parts: Iterator[Extent | bytes]) -> Iterator[Extent | bytes]:
    yield head
    yield from parts


def _string_parts(head: bytes, tensor: StringTensor) -> Iterator[Extent | bytes]:
    piece = bytearray(head)
    for string in tensor.strings():
        piece += encode_header(_STRINGS, len(string)) + string
        if len(piece) > 1 << 20:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def encode_value(name: str, value: Any) -> bytes:
    """The serialized TensorProto of a small value in memory."""
    encoded = encode(lazy(name, value))
    return b"".join(part.read() if isinstance(part, Extent) else part for part in encoded.parts())
