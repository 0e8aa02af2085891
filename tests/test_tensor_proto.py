"""TensorProto: read without being decoded, and written as a stream."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tables

import graph_restore as gr
from graph_restore import protos
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import BytesSource
from graph_restore.tensor_proto import encode, encode_head, encode_value, from_message, scan_tensor_proto
from graph_restore.tensors import lazy


def _scan(data: bytes) -> Any:
    return scan_tensor_proto("t", BytesSource(data, "file"), 0, len(data))


# dtype, fields after it, values
LITERAL: list[tuple[int, str, Any]] = [
    (1, "12 04 1202 0802  22 08 0000803f 000000c0", np.float32([1, -2])),  # tensor_content
    (1, "12 00  2a 04 0000c03f", np.float32(1.5)),  # float_val, packed
    (1, "12 00  2d 0000c03f", np.float32(1.5)),  # not packed, as proto2 wrote it
    (1, "12 04 1202 0802  2d 0000803f 2d 000000c0", np.float32([1, -2])),
    (1, "12 04 1202 0803  2a 04 0000803f 2a 04 000000c0", np.float32([1, -2, -2])),  # two runs; the last repeats
    (1, "12 04 1202 0802", np.float32([0, 0])),  # no values: zeros
    (2, "12 00  32 08 000000000000f83f", np.float64(1.5)),
    (3, "12 04 1202 0802  3a 0b 05 feffffffffffffffff01", np.int32([5, -2])),
    (3, "12 00  38 05", np.int32(5)),
    (4, "12 04 1202 0802  3a 03 ff01 00", np.uint8([255, 0])),
    (7, "12 04 1202 0802  42 01 61 42 00", np.array([b"a", b""], object)),
    (7, "12 04 1202 0803  42 01 61", np.array([b"a", b"a", b"a"], object)),
    (7, "12 04 1202 0802", np.array([b"", b""], object)),
    (8, "12 00  4a 08 0000803f 000000c0", np.complex64(1 - 2j)),
    (9, "12 00  52 01 07", np.int64(7)),
    (10, "12 04 1202 0802  5a 02 0100", np.array([True, False])),
    (11, "12 00  3a 0a ffffffffffffffffff01", np.int8(-1)),
    (14, "12 00  6a 03 8080 03", np.array(-2, ml_dtypes.bfloat16)),
    (18, "12 00  62 10 000000000000f03f 0000000000000000", np.complex128(1)),
    (19, "12 00  6a 02 8078", np.float16(1)),
    (22, "12 00  8201 05 ffffffff0f", np.uint32(2**32 - 1)),
    (23, "12 00  8a01 01 07", np.uint64(7)),
    (24, "12 04 1202 0802  9201 02 3cc0", np.array([1, -2], ml_dtypes.float8_e5m2)),
    (1, "12 08 1202 0802 1202 0800  22 00", np.zeros((2, 0), np.float32)),
    (3, "2a 04 0000803f  12 00", np.int32(0)),  # a float_val in an int32: not one of its values, so not read
    (3, "38 05  12 04 1202 0801  22 04 09000000", np.int32([9])),  # tensor_content goes first
]


@pytest.mark.parametrize(("dtype", "fields", "expected"), LITERAL)
def test_bytes_as_the_format_says(dtype: int, fields: str, expected: Any) -> None:
    data = tables.field(1, dtype) + bytes.fromhex(fields)
    tensor = _scan(data)
    found = tensor.read()
    assert found.dtype == expected.dtype and found.shape == expected.shape and found.tolist() == expected.tolist()
    encoded = encode(tensor)
    parts = list(encoded.parts())
    assert len(parts) == 1 and isinstance(parts[0], Extent) and parts[0].read() == data  # copied as it stands
    assert encoded.length == len(data)


@pytest.mark.parametrize(
    ("dtype", "fields", "error", "message"),
    [
        (1, "12 04 1202 0802  22 07 00000000000000", gr.CorruptionError, "wrong length"),
        (1, "12 04 1202 0802  22 04 00000000", gr.CorruptionError, "wrong length"),  # content never repeats
        (1, "12 04 1202 0801  2a 08 00000000 00000000", gr.CorruptionError, "too many values|wrong length"),
        (7, "12 00  42 00 42 00", gr.CorruptionError, "wrong number of strings"),
        (1, "12 0d 120b 08 ffffffffffffffffff01", gr.FormatError, "shape is impossible"),
        (1, "12 04 1202 08", gr.CorruptionError, "varint|not a protobuf"),
        (20, "12 00", gr.UnsupportedFormatError, "DT_RESOURCE and has no values"),
        (21, "12 00", gr.UnsupportedFormatError, "DT_VARIANT"),
        (0, "12 00", gr.UnsupportedFormatError, "DT_INVALID"),
        (77, "12 00", gr.UnsupportedFormatError, "unknown data type number"),
        (1, "22 05 00", gr.CorruptionError, "not a protobuf message"),
    ],
)
def test_what_is_refused(dtype: int, fields: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _scan(tables.field(1, dtype) + bytes.fromhex(fields)).read()


VALUES = [
    np.float32([[1, -2], [0.5, 3e38]]), np.float64(1.25), np.int32([]), np.zeros((2, 0, 3), np.int64),
    np.uint8([0, 255]), np.int16(-3), np.int8([-128]), np.uint16([65535]), np.uint32([2**32 - 1]),
    np.uint64([2**64 - 1]), np.array([b"", b"a\x00", b"long " * 50], object), np.array(b"scalar", object),
    np.array([True, False]), np.float16([1, -2]), np.complex64(1 - 2j), np.complex128([1j]),
    np.array([1, -2, 3.5], ml_dtypes.bfloat16),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value.dtype}{list(value.shape)}")
def test_what_is_written_is_a_tensor_proto(value: np.ndarray[Any, Any]) -> None:
    data = encode_value("t", value)
    message = protos.TensorProto.FromString(data)
    assert [dim.size for dim in message.tensor_shape.dim] == list(value.shape) and not message.tensor_shape.unknown_rank
    if value.dtype == object:
        assert list(message.string_val) == value.ravel().tolist()
    else:
        assert message.tensor_content == value.tobytes()
    assert protos.TensorProto.FromString(encode_head(lazy("t", value))).dtype == message.dtype
    assert _scan(data).read().tolist() == value.tolist() == from_message(message).read().tolist()


@pytest.mark.tensorflow
@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value.dtype}{list(value.shape)}")
def test_tensorflow_agrees(value: np.ndarray[Any, Any]) -> None:
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    made = tf.make_tensor_proto(value)
    assert from_message(made).read().dtype == value.dtype and from_message(made).read().tolist() == value.tolist()
    found = tf.make_ndarray(tensor_pb2.TensorProto.FromString(encode_value("t", value)))
    assert found.dtype == value.dtype and found.tolist() == value.tolist()


@pytest.mark.tensorflow
@pytest.mark.parametrize(("dtype", "fields", "expected"), LITERAL)
def test_tensorflow_reads_the_same_from_these_bytes(dtype: int, fields: str, expected: Any) -> None:
    """Through a Const, since what the kernel takes is what counts; make_ndarray is another implementation."""
    import tensorflow.compat.v1 as tf

    if dtype == 24:
        pytest.skip("no kernel prints float8 constants")
    graph_def = tf.GraphDef()
    node = graph_def.node.add(name="c", op="Const")
    node.attr["dtype"].type = dtype
    node.attr["value"].tensor.ParseFromString(tables.field(1, dtype) + bytes.fromhex(fields))
    with tf.Graph().as_default() as graph:
        (output,) = tf.import_graph_def(graph_def, return_elements=["c:0"], name="")
        if dtype == 11:
            output = tf.bitcast(output, tf.int8)
        with tf.Session(graph=graph) as session:
            found = np.asarray(session.run(output), object if dtype == 7 else None)
    assert found.shape == expected.shape and found.tolist() == expected.tolist()
