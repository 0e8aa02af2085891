"""Snappy blocks written by hand, element by element."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.storage.snappy import content_length, decompress

BLOCKS = [
    ("empty", "00", b""),
    ("literal", "03 08 616263", b"abc"),
    ("copy of one byte offset", "0c 0c 61626364 11 04", b"abcdabcdabcd"),
    ("copy of two byte offset, onto itself", "41 00 61 fe 0100", b"a" * 65),
    ("copy of four byte offset", "08 0c 61626364 0f 04000000", b"abcdabcd"),
    ("literal with one length byte", "3d f0 3c" + "7a" * 61, b"z" * 61),
    ("literal with two length bytes", "ac02 f4 2b01" + "79" * 300, b"y" * 300),
    ("two elements", "06 08 616263 08 646566", b"abcdef"),
]


@pytest.mark.parametrize(("name", "block", "content"), BLOCKS)
def test_golden(name: str, block: str, content: bytes) -> None:
    assert decompress(bytes.fromhex(block)) == content


def test_long_offset_of_a_short_copy() -> None:
    literal = bytes(range(256)) * 2
    block = bytes.fromhex("8404 f4ff01") + literal + bytes([0 | 1 | (1 << 5), 0x02])  # 4 bytes from 0x102 back
    assert decompress(block) == literal + literal[512 - 0x102 :][:4]


@pytest.mark.parametrize(
    ("reason", "block"),
    [
        ("size does not end", "ff"),
        ("no bytes at all", ""),
        ("content is shorter than said", "04 08 616263"),
        ("content is longer than said", "02 08 616263"),
        ("literal is cut", "03 08 6162"),
        ("length bytes are cut", "03 f4 61"),
        ("copy from before the start", "08 00 61 11 02"),
        ("copy with offset 0", "05 00 61 01 00"),
        ("copy is cut", "05 00 61 01"),
        ("copy past the size", "04 00 61 11 01"),
        ("more than such a block can hold", "ff7f 00 61"),
    ],
)
def test_damaged(reason: str, block: str) -> None:
    with pytest.raises(CorruptionError, match="somewhere.index, byte"):
        decompress(bytes.fromhex(block), "somewhere.index", 100)


def test_too_much_is_refused_before_it_is_made() -> None:
    with pytest.raises(UnsupportedFormatError, match="at most"):
        content_length(bytes.fromhex("8080808010"), size=1 << 32)


@given(st.binary(max_size=60))
def test_any_bytes_give_content_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        decompress(data)
