"""CRC-32C as TensorFlow stores it: masked, so that a checksum of data that holds checksums stays sound.

The mask rotates right by 15 bits and adds a constant (tensorflow/tsl/lib/hash/crc32c.h).
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

from graph_restore.errors import CorruptionError
from graph_restore.storage.source import Source

_MASK_DELTA = 0xA282EAD8
_UINT32 = 0xFFFFFFFF


def extend(crc: int, data: bytes) -> int:
    """The plain CRC-32C of what `crc` already covers followed by `data`; start with 0."""
    return int(google_crc32c.extend(crc, data))


def mask(crc: int) -> int:
    """The stored form of a plain checksum."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _UINT32


def masked(data: bytes) -> int:
    """The stored form of the checksum of `data`."""
    return mask(extend(0, data))


def checked_chunks(source: Source, offset: int, length: int, expected: int, what: str) -> Iterator[bytes]:
    """The bytes of a region in pieces; after the last one CorruptionError if the masked checksum is not `expected`."""
    crc = 0
    for chunk in source.chunks(offset, length):
        crc = extend(crc, chunk)
        yield chunk
    _compare(mask(crc), expected, what, source, offset)


def checked(source: Source, offset: int, length: int, expected: int, what: str) -> bytes:
    """The same at once, for a small region."""
    data = source.pread(offset, length)
    _compare(masked(data), expected, what, source, offset)
    return data


def _compare(found: int, expected: int, what: str, source: Source, offset: int) -> None:
    if found != expected:
        raise CorruptionError(
            f"checksum of {what} does not match; the file is damaged, take another copy of it",
            path=source.name,
            offset=offset,
            expected=f"crc32c {expected:#010x}",
            found=f"{found:#010x}",
        )
