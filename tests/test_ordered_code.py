"""Ordered code against bytes worked out by hand from the format, and its order against Python's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph_restore.storage.ordered_code import (
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


@pytest.mark.parametrize(("value", "code"), STRINGS)
def test_string(value: bytes, code: str) -> None:
    assert encode_string(value).hex() == code


@pytest.mark.parametrize(("value", "code"), SIGNED)
def test_signed(value: int, code: str) -> None:
    assert encode_signed(value).hex() == code


@pytest.mark.parametrize(("key", "code"), KEYS)
def test_slice_key(key: tuple[str, tuple[int, ...], tuple[int, ...]], code: str) -> None:
    assert encode_slice_key(*key) == bytes.fromhex(code)


@given(INT64, INT64)
def test_signed_sorts_as_the_numbers_do(one: int, two: int) -> None:
    assert (encode_signed(one) < encode_signed(two)) == (one < two)


@given(st.binary(), st.binary())
def test_strings_sort_as_they_do(one: bytes, two: bytes) -> None:
    assert (encode_string(one) < encode_string(two)) == (one < two)
