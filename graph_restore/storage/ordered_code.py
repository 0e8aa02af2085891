"""Ordered code: numbers and strings as bytes that sort as the values do. Tensor slices are keyed by it.

    number   := count (1 byte), that many bytes big endian, no leading zero byte; 0 is the single byte 00
    string   := bytes with 00 as 00 ff and ff as ff 00, then 00 01
    signed   := as many leading 1 bits as there are bytes, then the value; all bits inverted below zero
                (one byte for -64 to 63: 80 xor value)
    slice    := number 0, string name, number of dimensions, then signed start and signed length of each
                (a whole dimension is start 0, length -1)

The format is that of tensorflow/core/lib/strings/ordered_code.cc; the slice key that of
tensorflow/core/util/saved_tensor_slice_util.cc. A key starts with 00 and so sorts before every tensor name. Keys are
only ever made, to look a slice up: which slices there are is told by the entry of the empty key.
"""

from __future__ import annotations

from collections.abc import Sequence


def encode_number(value: int) -> bytes:
    """`value` (0 to 2**64-1) so that greater numbers sort later."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def encode_string(value: bytes) -> bytes:
    """`value` with its end marked, so that no string is a prefix of another."""
    return b"".join({0x00: b"\x00\xff", 0xFF: b"\xff\x00"}.get(byte, bytes([byte])) for byte in value) + b"\x00\x01"


def encode_signed(value: int) -> bytes:
    """`value` (-2**63 to 2**63-1) so that greater numbers sort later."""
    magnitude = ~value if value < 0 else value
    size = min(10, magnitude.bit_length() // 7 + 1)
    code = value & ((1 << 8 * size) - 1)
    return (code ^ _header(size)).to_bytes(size, "big")


def encode_slice_key(name: str, starts: Sequence[int], lengths: Sequence[int]) -> bytes:
    """The table key of one slice of tensor `name`; a length of -1 stands for the whole dimension."""
    pairs = (encode_signed(start) + encode_signed(length) for start, length in zip(starts, lengths, strict=True))
    text = name.encode("utf-8", "surrogateescape")
    return encode_number(0) + encode_string(text) + encode_number(len(starts)) + b"".join(pairs)


def _header(size: int) -> int:
    """The leading 1 bits of a signed number of `size` bytes, in place."""
    return ((1 << size) - 1) << 7 * size
