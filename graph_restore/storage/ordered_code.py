"""Ordered code: numbers and strings as bytes that sort as the values do. Tensor slices are keyed by it.

    number   := count (1 byte), that many bytes big endian, no leading zero byte; 0 is the single byte 00
    string   := bytes with 00 as 00 ff and ff as ff 00, then 00 01
    signed   := as many leading 1 bits as there are bytes, then the value; all bits inverted below zero
                (one byte for -64 to 63: 80 xor value)
    slice    := number 0, string name, number of dimensions, then signed start and signed length of each
                (a whole dimension is start 0, length -1)

The format is that of tensorflow/core/lib/strings/ordered_code.cc; the slice key that of
tensorflow/core/util/saved_tensor_slice_util.cc. A key starts with 00 and so sorts before every tensor name.
"""

from __future__ import annotations

from collections.abc import Sequence

from graph_restore.errors import CorruptionError

MAX_DIMENSIONS = 254  # TensorFlow's limit for a shape
_INT64 = 1 << 63


def encode_number(value: int) -> bytes:
    """`value` (0 to 2**64-1) so that greater numbers sort later."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def decode_number(data: bytes, position: int) -> tuple[int, int]:
    """(value, position after it); CorruptionError when it does not end or is longer than it needs to be."""
    size = data[position] if position < len(data) else 9
    end = position + 1 + size
    if size > 8 or end > len(data) or (size and data[position + 1] == 0):
        raise CorruptionError("no ordered-code number here", offset=position, found=data[position : position + 9].hex())
    return int.from_bytes(data[position + 1 : end], "big"), end


def encode_string(value: bytes) -> bytes:
    """`value` with its end marked, so that no string is a prefix of another."""
    return b"".join({0x00: b"\x00\xff", 0xFF: b"\xff\x00"}.get(byte, bytes([byte])) for byte in value) + b"\x00\x01"


def decode_string(data: bytes, position: int) -> tuple[bytes, int]:
    """(value, position after its end mark); CorruptionError for a wrong escape or a missing end mark."""
    out = bytearray()
    start = position
    while position + 1 < len(data):
        byte, following = data[position], data[position + 1]
        if byte == 0x00 and following == 0x01:
            return bytes(out), position + 2
        if byte in (0x00, 0xFF):
            if following != 0xFF - byte:
                break
            position += 1
        out.append(byte)
        position += 1
    raise CorruptionError("an ordered-code string does not end or has a wrong escape", offset=start)


def encode_signed(value: int) -> bytes:
    """`value` (-2**63 to 2**63-1) so that greater numbers sort later."""
    magnitude = ~value if value < 0 else value
    size = min(10, magnitude.bit_length() // 7 + 1)
    code = value & ((1 << 8 * size) - 1)
    return (code ^ _header(size)).to_bytes(size, "big")


def decode_signed(data: bytes, position: int) -> tuple[int, int]:
    """(value, position after it); CorruptionError when it does not end or is no number of 64 bits."""
    lead = int.from_bytes(data[position : position + 2].ljust(2, b"\x00"), "big")
    negative = lead < 0x8000
    ones = lead ^ 0xFFFF if negative else lead
    size = next((bit for bit in range(11) if not ones >> (15 - bit) & 1), 11)
    end = position + size
    if position >= len(data) or size > 10 or end > len(data):
        raise CorruptionError("an ordered-code signed number does not end", offset=position)
    code = int.from_bytes(data[position:end], "big") ^ _header(size)
    value = code - (1 << 8 * size) if negative else code
    if not -_INT64 <= value < _INT64 or encode_signed(value) != data[position:end]:
        raise CorruptionError("no ordered-code signed number here", offset=position, found=data[position:end].hex())
    return value, end


def encode_slice_key(name: str, starts: Sequence[int], lengths: Sequence[int]) -> bytes:
    """The table key of one slice of tensor `name`; a length of -1 stands for the whole dimension."""
    pairs = (encode_signed(start) + encode_signed(length) for start, length in zip(starts, lengths, strict=True))
    text = name.encode("utf-8", "surrogateescape")
    return encode_number(0) + encode_string(text) + encode_number(len(starts)) + b"".join(pairs)


def decode_slice_key(key: bytes) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """(tensor name, starts, lengths) of a slice's key; CorruptionError where `key` is no such key."""
    zero, position = decode_number(key, 0)
    name, position = decode_string(key, position)
    rank, position = decode_number(key, position)
    if zero or rank > MAX_DIMENSIONS:
        raise CorruptionError("not the key of a tensor slice", found=key[:80].hex())
    numbers = []
    for _ in range(2 * rank):
        number, position = decode_signed(key, position)
        numbers.append(number)
    if position != len(key):
        raise CorruptionError("the key of a tensor slice is followed by more bytes", offset=position)
    return name.decode("utf-8", "surrogateescape"), tuple(numbers[::2]), tuple(numbers[1::2])


def _header(size: int) -> int:
    """The leading 1 bits of a signed number of `size` bytes, in place."""
    return ((1 << size) - 1) << 7 * size
