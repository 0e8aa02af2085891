"""Tensors whose bytes stay where they are: content, fills, varints, strings, casts; expected values written by hand."""

from __future__ import annotations

import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tables

import graph_restore as gr
from graph_restore.storage.coding import decode_varints
from graph_restore.storage.extent import Checksum, Extent
from graph_restore.storage.source import BytesSource
from graph_restore.tensors import (
    ArrayTensor,
    CastTensor,
    ContentTensor,
    FilledTensor,
    LazyTensor,
    StringArrayTensor,
    VarintTensor,
    lazy,
)

FLOAT, INT32, STRING, INT64, BOOL, QINT8, BFLOAT16, HALF, UINT64 = 1, 3, 7, 9, 10, 11, 14, 19, 23


def _extent(data: bytes, **checked: Any) -> Extent:
    return Extent(BytesSource(b"??" + data + b"!!", "file"), 2, len(data), **checked)


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "expected"),
    [
        (FLOAT, (2,), "0000803f 000000c0", np.float32([1, -2])),
        (FLOAT, (), "0000c03f", np.float32(1.5)),
        (INT32, (2, 1), "feffffff 00000080", np.int32([[-2], [-(2**31)]])),
        (INT64, (1,), "ffffffffffffff7f", np.int64([2**63 - 1])),
        (BOOL, (3,), "000100", np.array([False, True, False])),
        (QINT8, (2,), "80 7f", np.int8([-128, 127])),
        (HALF, (2,), "003c 00c0", np.float16([1, -2])),
        (BFLOAT16, (2,), "803f 00c0", np.array([1, -2], ml_dtypes.bfloat16)),
        (8, (1,), "0000803f 000000c0", np.complex64([1 - 2j])),
        (29, (3,), "01 07 0f", np.array([1, 7, -1], ml_dtypes.int4)),
        (24, (2,), "3c c0", np.array([1, -2], ml_dtypes.float8_e5m2)),
        (FLOAT, (0, 3), "", np.zeros((0, 3), np.float32)),
    ],
)
def test_content(dtype: int, shape: tuple[int, ...], data: str, expected: Any) -> None:
    tensor = ContentTensor("t", dtype, shape, [_extent(bytes.fromhex(data))])
    found = tensor.read()
    assert isinstance(found, np.ndarray) and found.dtype == expected.dtype == tensor.dtype
    assert found.shape == expected.shape == tensor.shape and found.tolist() == expected.tolist()
    assert (tensor.size, tensor.nbytes) == (expected.size, len(bytes.fromhex(data)))
    found.flags.writeable = True  # a new array, the caller's own


def test_content_in_several_extents() -> None:
    data = [struct.pack("<i", number) for number in (5, -6, 7)]
    assert ContentTensor("t", INT32, (3,), map(_extent, data)).read().tolist() == [5, -6, 7]


def test_a_wrong_checksum_is_found_after_the_values() -> None:
    data = b"\x01\x02\x03\x04"
    for crc, right in ((tables.masked(data), True), (tables.masked(data) ^ 1, False)):
        tensor = ContentTensor("t", INT32, (), [_extent(data, checksum=Checksum(2, 4, crc, "values"))])
        assert tensor.read(verify=False).item() == 0x04030201
        if right:
            assert tensor.read().item() == 0x04030201
        else:
            with pytest.raises(gr.CorruptionError, match="file, byte 2|file"):
                tensor.read()


@pytest.mark.parametrize("rest", [0, 300_000])  # a region that is read at once, and one that is read in pieces
def test_a_small_stretch_is_read_with_the_region_that_vouches_for_it(rest: int) -> None:
    region = b"abcdef" + bytes(rest)
    source = BytesSource(b"??" + region, "file")
    for crc, right in ((tables.masked(region), True), (tables.masked(region) ^ 1, False)):
        extent = Extent(source, 3, 3, Checksum(2, len(region), crc, "values"))
        if right:
            assert extent.read() == b"bcd"
        else:
            with pytest.raises(gr.CorruptionError, match="checksum of values does not match"):
                extent.read()
        assert extent.read(verify=False) == b"bcd"


FEWER, CORRUPT = "expected 3, found 2|fewer", gr.CorruptionError


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: ContentTensor("t", INT32, (2,), [_extent(bytes(7))]),
            CORRUPT,
            r"int32 and shape \[2\].*8 bytes, found 7",
        ),
        (lambda: ContentTensor("t", INT32, (-1,), []), gr.FormatError, "negative dimension"),
        (lambda: ContentTensor("t", INT32, (1,) * 255, []), gr.FormatError, "its shape is impossible"),
        (lambda: ContentTensor("t", INT32, (1 << 30, 1 << 30, 0), []), gr.FormatError, "its shape is impossible"),
        (lambda: ContentTensor("t", 99, (), []), gr.UnsupportedFormatError, "unknown data type number.*found 99"),
        (lambda: FilledTensor("t", INT32, (1,), np.int32([1, 2])), CORRUPT, "t has too many values"),
        (
            lambda: FilledTensor("t", FLOAT, (1 << 31,), np.float32([1])),
            gr.UnsupportedFormatError,
            "at most 4294967296",
        ),
        (lambda: VarintTensor("t", INT32, (3,), _extent(b"\x01\x02")).read(), CORRUPT, FEWER),
        (lambda: VarintTensor("t", INT32, (1,), _extent(b"\x01\x02")).read(), CORRUPT, "expected 1, found 2"),
        (lambda: VarintTensor("t", INT32, (1,), _extent(b"\x81")).read(), CORRUPT, "a varint does not end|number"),
        (lambda: VarintTensor("t", INT32, (1,), _extent(b"\x80" * 11 + b"\x01")).read(), CORRUPT, "varint"),
        (lambda: VarintTensor("t", INT32, (1 << 40,), _extent(b"\x01"), fill=True), CORRUPT, "fewer values"),
    ],
)
def test_what_cannot_be(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("dtype", "data", "shape", "expected"),
    [
        (INT32, "01 7f 8001", (3,), [1, 127, 128]),
        (INT32, "feffffffffffffffff01", (1,), [-2]),  # negative numbers take ten bytes
        (INT64, "ffffffffffffffffff01 808080808080808080 01", (2,), [-1, -(2**63)]),
        (UINT64, "ffffffffffffffffff01", (), 2**64 - 1),
        (BOOL, "00 01 02", (3,), [False, True, True]),
        (4, "ff01 00", (2,), [255, 0]),
        (6, "80ffffffffffffffff01", (1,), [-128]),
        (HALF, "8078 8080 03", (2,), [1.0, -2.0]),
        (BFLOAT16, "807f 8080 03", (2,), [1.0, -2.0]),
        (INT32, "05", (2, 2), [[5, 5], [5, 5]]),  # the last value repeats
        (INT32, "", (2,), [0, 0]),
    ],
)
def test_varints(dtype: int, data: str, shape: tuple[int, ...], expected: Any) -> None:
    raw = {"8078 8080 03": b"\x80\x78\x80\x80\x03", "807f 8080 03": b"\x80\x7f\x80\x80\x03"}.get(data) or bytes.fromhex(
        data
    )
    tensor = VarintTensor("t", dtype, shape, _extent(raw), fill=True)
    assert tensor.read().tolist() == expected and tensor.read().dtype == tensor.dtype


def test_varints_across_chunks() -> None:
    numbers = np.arange(-1000, 400_000, 7, dtype=np.int64)
    data = b"".join(tables.varint(int(number) % (1 << 64)) for number in numbers)
    extent = _Slow(BytesSource(data), 0, len(data))
    assert (VarintTensor("t", INT64, numbers.shape, extent).read() == numbers).all()


class _Slow(Extent):
    """Gives its bytes in pieces that end inside varints."""

    def chunks(self, verify: bool = True) -> Any:
        data = self.source.pread(0, self.length)
        return (data[start : start + 997] for start in range(0, len(data), 997))


@pytest.mark.parametrize(
    ("shape", "values", "expected"),
    [
        ((4,), [1, 2], [1, 2, 2, 2]),
        ((2, 2), [], [[0, 0], [0, 0]]),
        ((0,), [], []),
        ((), [3], 3),
        ((2,), [1, 2], [1, 2]),
    ],
)
def test_fills(shape: tuple[int, ...], values: list[int], expected: Any) -> None:
    assert FilledTensor("t", INT32, shape, np.int32(values)).read().tolist() == expected


def test_large_fills_are_made_in_pieces() -> None:
    tensor = FilledTensor("t", 4, (5_000_000,), np.uint8([9]))
    assert max(map(len, tensor.chunks())) <= 1 << 20 and int(tensor.read().sum()) == 45_000_000


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        (1.5, 2, ()),
        (np.float32(1.5), FLOAT, ()),
        ([[1, 2]], INT64, (1, 2)),
        (True, BOOL, ()),
        (np.arange(6, dtype=">i4").reshape(2, 3), INT32, (2, 3)),
        (np.arange(6, dtype="<f4").reshape(2, 3).T, FLOAT, (3, 2)),
        (np.array([1.5], ml_dtypes.bfloat16), BFLOAT16, (1,)),
    ],
)
def test_numbers_in_memory(value: Any, dtype: int, shape: tuple[int, ...]) -> None:
    tensor = lazy("t", value)
    assert (int(tensor.data_type), tensor.shape) == (dtype, shape)
    assert tensor.read().tolist() == np.asarray(value).tolist()
    assert b"".join(tensor.chunks()) == tensor.read().tobytes()
    assert lazy("t", tensor) is tensor


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("höhe", "höhe".encode()),
        (b"\x00\xff\x00", b"\x00\xff\x00"),  # numpy's own byte strings would lose the last zero
        ([b"a\x00", "b"], [b"a\x00", b"b"]),
        ([["x"], [b""]], [[b"x"], [b""]]),
        (np.array(["a", "bc"]), [b"a", b"bc"]),
        (np.array([b"a", b"bc"], object), [b"a", b"bc"]),
    ],
)
def test_strings_in_memory(value: Any, expected: Any) -> None:
    tensor = lazy("t", value)
    assert int(tensor.data_type) == STRING and tensor.dtype == np.dtype(object)
    assert tensor.read().tolist() == expected
    flat = np.ravel(np.array(expected, object))
    assert tensor.nbytes == sum(map(len, flat))


def test_casts_go_piece_by_piece() -> None:
    extents = [_extent(struct.pack("<d", number)[:5]) for number in ()] + [
        _extent(bytes(3)),
        _extent(bytes(5)),
        _extent(struct.pack("<d", 2.5)),
    ]  # noqa: E501
    whole = ContentTensor("t", 2, (2,), extents)  # the first value lies in two pieces
    assert CastTensor(whole, INT32).read().tolist() == [0, 2]
    assert CastTensor(lazy("t", np.int64([1, -1])), FLOAT).read().dtype == np.float32


def test_a_tensor_that_gives_too_much_or_too_little() -> None:
    class Lying(LazyTensor):
        def parts(self) -> Any:
            yield bytes(self.given)

    for given in (3, 5):
        tensor = Lying("t", INT32, ())
        tensor.given = given  # type: ignore[attr-defined]
        with pytest.raises(gr.CorruptionError, match="t has a wrong length"):
            tensor.read()

    class LyingStrings(StringArrayTensor):
        def strings(self, verify: bool = True) -> Any:
            yield b"one"

    with pytest.raises(gr.CorruptionError, match=r"wrong number of strings \(expected 2, found 1"):
        LyingStrings("t", np.array([b"a", b"b"], object)).read()


def test_repr_names_type_and_shape() -> None:
    assert repr(ArrayTensor("w", np.zeros((2, 3), np.float32))) == "<ArrayTensor w float32 [2, 3]>"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x00", 0),
        (b"\x7f", 127),
        (b"\x80\x01", 128),
        (b"\x96\x01", 150),  # the example of protobuf's own documentation
        (b"\x80\x80\x80\x80\x01", 1 << 28),
        (b"\x81\x82\x83\x84\x85\x86\x87\x08", sum((n + 1) << 7 * n for n in range(8))),
        (b"\xff" * 8 + b"\x01", (1 << 57) - 1),
        (b"\xff" * 9 + b"\x01", (1 << 64) - 1),
        (b"\xff" * 9 + b"\x7f", (1 << 64) - 1),  # bits past the 64th do not count
        (b"\x81" + b"\x80" * 8 + b"\x00", 1),  # longer than it need be
    ],
)
def test_varints_of_every_length(data: bytes, value: int) -> None:
    run = np.frombuffer(b"\x05" + data + b"\xac\x02" + data, np.uint8)  # 5, it, 300, it
    ends = np.flatnonzero(run < 0x80)
    starts = np.concatenate(([0], ends[:-1] + 1))
    assert decode_varints(run, starts, ends).tolist() == [5, value, 300, value]
