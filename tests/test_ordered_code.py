"""Ordered code against bytes worked out by hand from the format, and its order against Python's."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph_restore.errors import CorruptionError, FormatError
from graph_restore.storage.ordered_code import (
    decode_number,
    decode_signed,
    decode_slice_key,
    decode_string,
    encode_number,
    encode_signed,
    encode_slice_key,
    encode_string,
)

INT64 = st.integers(-(2**63), 2**63 - 1)

NUMBERS = [(0, "00"), (1, "0101"), (255, "01ff"), (256, "020100"), (2**64 - 1, "08" + "ff" * 8)]
STRINGS = [
    (b"", "0001"),
    (b"b", "620001"),
    (b"\x00", "00ff0001"),
    (b"\xff", "ff000001"),
    (b"a\x00\xff", "6100ffff000001"),
]
SIGNED = [
    (0, "80"),
    (1, "81"),
    (63, "bf"),
    (-1, "7f"),
    (-64, "40"),
    (64, "c040"),
    (-65, "3fbf"),
    (8191, "dfff"),
    (8192, "e02000"),
    (-8193, "1fdfff"),
    (2**62 - 1, "ffbfffffffffffffff"),
    (2**62, "ffc04000000000000000"),
    (2**63 - 1, "ffc07fffffffffffffff"),
    (-(2**63), "003f8000000000000000"),
]
KEYS = [
    (("b", (0,), (-1,)), "00 62 0001 0101 80 7f"),
    (("", (), ()), "00 0001 00"),
    (("w/x", (4, 0), (3, 100)), "00 772f78 0001 0102 84 83 80 c064"),
]


@pytest.mark.parametrize(("value", "code"), NUMBERS)
def test_number(value: int, code: str) -> None:
    assert encode_number(value).hex() == code
    assert decode_number(bytes.fromhex("aa" + code + "bb"), 1) == (value, 1 + len(code) // 2)


@pytest.mark.parametrize(("value", "code"), STRINGS)
def test_string(value: bytes, code: str) -> None:
    assert encode_string(value).hex() == code
    assert decode_string(bytes.fromhex("aa" + code + "bb"), 1) == (value, 1 + len(code) // 2)


@pytest.mark.parametrize(("value", "code"), SIGNED)
def test_signed(value: int, code: str) -> None:
    assert encode_signed(value).hex() == code
    assert decode_signed(bytes.fromhex("aa" + code + "bb"), 1) == (value, 1 + len(code) // 2)


@pytest.mark.parametrize(("key", "code"), KEYS)
def test_slice_key(key: tuple[str, tuple[int, ...], tuple[int, ...]], code: str) -> None:
    assert encode_slice_key(*key) == bytes.fromhex(code)
    assert decode_slice_key(bytes.fromhex(code)) == key


@given(INT64, INT64)
def test_signed_sorts_as_the_numbers_do(one: int, two: int) -> None:
    assert decode_signed(encode_signed(one), 0) == (one, len(encode_signed(one)))
    assert (encode_signed(one) < encode_signed(two)) == (one < two)


@given(st.binary(), st.binary())
def test_strings_sort_as_they_do(one: bytes, two: bytes) -> None:
    assert decode_string(encode_string(one), 0) == (one, len(encode_string(one)))
    assert (encode_string(one) < encode_string(two)) == (one < two)


@given(st.text(), st.lists(st.tuples(INT64, INT64), max_size=5))
def test_slice_keys_come_back(name: str, pairs: list[tuple[int, int]]) -> None:
    starts, lengths = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
    assert decode_slice_key(encode_slice_key(name, starts, lengths)) == (name, starts, lengths)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "62",
        "00 62",  # no end mark
        "00 6200aa 0001 00",  # wrong escape
        "00 62 0001 09" + "ff" * 9,  # number of nine bytes
        "00 62 0001 0200 01",  # a number with a leading zero
        "00 62 0001 0101 80",  # a length is missing
        "00 62 0001 0101 c001 7f",  # 1 in two bytes
        "00 62 0001 0101 ffff 00" + "00" * 9,  # eleven leading ones or more
        "00 62 0001 00 80",  # more bytes
        "00 62 0001 01ff",  # 255 dimensions
        "0101 62 0001 00",  # does not start with 0
    ],
)
def test_damaged_slice_keys(code: str) -> None:
    with pytest.raises(CorruptionError):
        decode_slice_key(bytes.fromhex(code))


@given(st.binary(max_size=40))
def test_any_bytes_give_a_key_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert encode_slice_key(*decode_slice_key(data)) == data
