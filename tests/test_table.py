"""Tables: a hand-made one, one test an error, and what comes back of what is written."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import pytest
from corpus import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import block, crc32c, ending, field, masked, one_block, table, trailer, varint

from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.storage.crc32c import extend
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import BytesSource, FileSource, Source
from graph_restore.storage.table import Table, TableWriter

# three entries, of which the last two share "appl"; one restart
FRUIT = bytes.fromhex("00 00 01 6d00 05 01 6170706c65 3104 01 02 79 323200000000 01000000")
FRUIT_ENTRIES = [(b"", b"m"), (b"apple", b"1"), (b"apply", b"22")]


def open_table(data: bytes) -> Table:
    return Table(BytesSource(data, "some.index"))


def read(data: bytes, inline: int = 1 << 16) -> list[tuple[bytes, bytes]]:
    entries = open_table(data).entries(inline)
    return [(key, value.read() if isinstance(value, Extent) else value) for key, value in entries]


def write(entries: list[tuple[bytes, bytes]], block_size: int = 256 << 10) -> bytes:
    file = io.BytesIO()
    writer = TableWriter(file, block_size)
    for key, value in entries:
        writer.add(key, value)
    writer.finish()
    return file.getvalue()


def test_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283 == extend(0, b"123456789")


@pytest.mark.parametrize("inline", [-1, 0, 1, 1 << 16])
def test_hand_made_table(inline: int) -> None:
    assert read(table([(b"apply", FRUIT)]), inline) == FRUIT_ENTRIES


def test_table_without_entries() -> None:
    assert read(table([])) == []
    assert read(write([])) == []


def test_get_looks_in_the_right_block() -> None:
    found = open_table(table([(b"b", FRUIT), (b"z", block([(b"cherry", b"3")]))]))
    keys = [b"", b"apple", b"apply", b"appl", b"b", b"cherry", b"d", b"zz"]
    assert [found.get(key) for key in keys] == [b"m", b"1", b"22", None, None, b"3", None, None]


def test_packed_block() -> None:
    packed = varint(len(FRUIT)) + bytes([(len(FRUIT) - 1) << 2]) + FRUIT
    data = bytearray(table([(b"apply", packed)], kind=1))
    assert read(bytes(data)) == FRUIT_ENTRIES
    assert read(bytes(data), inline=-1) == FRUIT_ENTRIES
    data[8] ^= 1
    with pytest.raises(CorruptionError, match=r"checksum of the table block at byte 0"):
        read(bytes(data))


class Counting(BytesSource):
    """Counts the bytes that are read."""

    taken = 0

    def _pread(self, offset: int, length: int) -> bytes:
        self.taken += length
        return super()._pread(offset, length)


def test_large_blocks_are_walked_and_values_stay_in_place() -> None:
    entries = [(b"", b"small"), (b"big", b"x" * 3_000_000), (b"c", b"y" * 100_000)]
    source = Counting(write(entries, block_size=4_000_000), "some.ckpt")
    found = list(Table(source).entries(inline=-1))
    assert source.taken < 700_000
    assert [key for key, _ in found] == [b"", b"big", b"c"]
    values = [value for _, value in found if isinstance(value, Extent)]
    assert [value.length for value in values] == [5, 3_000_000, 100_000]
    assert values[1].part(10, 4).read() == b"xxxx"
    assert b"".join(values[2].chunks()) == b"y" * 100_000


def test_a_large_block_is_verified_when_any_of_its_values_is_read() -> None:
    data = bytearray(write([(b"", b"small"), (b"big", b"x" * 3_000_000)], block_size=4_000_000))
    data[2_000_000] ^= 1
    small, big = (value for _, value in Table(BytesSource(bytes(data))).entries(inline=-1))
    assert isinstance(small, Extent)
    assert isinstance(big, Extent)
    assert small.read(verify=False) == b"small"
    for value in (small, big, big.part(0, 8)):
        with pytest.raises(CorruptionError, match="table block at byte 0"):
            value.read()
    with pytest.raises(CorruptionError, match="table block at byte 0"):
        next(Table(BytesSource(bytes(data))).entries())


def _index_of(handle: bytes) -> bytes:
    content = FRUIT + trailer(FRUIT)
    return content + ending(len(content), block([(b"apply", handle)]))


def _block_of(content: bytes) -> bytes:
    return table([(b"z", content)])


def _entry_block(entries: bytes) -> bytes:
    return _block_of(entries + struct.pack("<II", 0, 1))


DAMAGED = [
    ("too short", b"", "too short for a table"),
    ("no magic", bytes(100), "does not end as a table does"),
    (
        "footer handle past the end",
        bytes(52) + b"\xff\xff\x03\x08".ljust(40, b"\x00") + one_block([(b"", b"")])[-8:],
        "handle points outside",
    ),
    ("footer handle without end", bytes(52) + b"\xff" * 40 + one_block([(b"", b"")])[-8:], "varint"),
    ("index handle near 2**63", _index_of(varint(2**63 - 1) + varint(2**63 - 1)), "handle points outside"),
    ("index handle past the data", _index_of(varint(4) + varint(1000)), "handle points outside"),
    ("index handle cut short", _index_of(b"\x80"), "varint"),
    ("index handle wrong by a byte", _index_of(varint(0) + varint(len(FRUIT) - 1)), "checksum"),
    ("block too short for restarts", _block_of(b"\x00\x00"), "number of restarts"),
    ("no restarts", _block_of(b"\x00\x00\x01m" + bytes(4)), "number of restarts"),
    ("too many restarts", _block_of(b"\x00\x00\x01m" + struct.pack("<II", 0, 1 << 31)), "number of restarts"),
    ("first restart not 0", _block_of(b"\x00\x00\x01m" + struct.pack("<II", 1, 1)), "restarts of a table block"),
    ("unsorted restarts", _block_of(FRUIT[:-8] + struct.pack("<IIII", 0, 12, 4, 3)), "restarts of a table block"),
    ("restart past the entries", _block_of(FRUIT[:-8] + struct.pack("<III", 0, 99, 2)), "restarts of a table block"),
    ("more shared than there is", _entry_block(b"\x01\x00\x00"), "impossible lengths"),
    ("key past the block", _entry_block(b"\x00\x09\x00abc"), "impossible lengths"),
    ("value past the block", _entry_block(b"\x00\x01\x7fa"), "impossible lengths"),
    ("value length near 2**64", _entry_block(b"\x00\x01" + b"\xff" * 9 + b"\x01a"), "impossible lengths"),
    ("entry cut in its lengths", _entry_block(b"\x00\x80"), "varint"),
    ("key of a megabyte", _entry_block(b"\x00" + varint(100_000) + b"\x00" + b"k" * 100_000), "impossible lengths"),
    ("keys out of order", _block_of(block([(b"b", b"1"), (b"a", b"2")])), "out of order"),
    ("a key twice", _block_of(block([(b"b", b"1"), (b"b", b"2")])), "out of order"),
    ("blocks out of order", table([(b"b", block([(b"b", b"")])), (b"c", block([(b"a", b"")]))]), "out of order"),
    ("key past its separator", table([(b"a", block([(b"b", b"")]))]), "out of order"),
]


@pytest.mark.parametrize(("data", "text"), [one[1:] for one in DAMAGED], ids=[one[0] for one in DAMAGED])
def test_damaged(data: bytes, text: str) -> None:
    with pytest.raises(CorruptionError, match=text) as caught:
        read(data)
    assert str(caught.value).startswith("some.index")


def test_unknown_packing() -> None:
    with pytest.raises(UnsupportedFormatError, match=r"byte 27.*expected 0 \(none\) or 1 \(snappy\), found 7"):
        read(table([(b"apply", FRUIT)], kind=7))


def test_damaged_packing_byte_is_damage() -> None:
    data = bytearray(table([(b"apply", FRUIT)]))
    data[len(FRUIT)] = 7
    with pytest.raises(CorruptionError, match="checksum"):
        read(bytes(data))


def test_every_flipped_byte_of_the_data_is_found() -> None:
    data = table([(b"apply", FRUIT)])
    for position in range(len(FRUIT) + 5):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(FormatError):
            read(bytes(damaged))


def test_writer_refuses_keys_out_of_order() -> None:
    with pytest.raises(ValueError, match="in order"):
        write([(b"b", b""), (b"a", b"")])
    with pytest.raises(ValueError, match="in order"):
        write([(b"b", b""), (b"b", b"")])


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.binary(max_size=12), st.binary(max_size=80), max_size=60),
    st.sampled_from([1, 100, 1000, 256 << 10]),
    st.sampled_from([-1, 20, 1 << 16]),
)
def test_what_is_written_is_read(entries: dict[bytes, bytes], block_size: int, inline: int) -> None:
    ordered = sorted(entries.items())
    data = write(ordered, block_size)
    assert read(data, inline) == ordered
    found = open_table(data)
    assert all(found.get(key) == value for key, value in ordered)
    assert found.get(b"\xff" * 13) is None


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_damage_gives_entries_or_a_format_error(data: st.DataObject) -> None:
    """Structure is damaged under a checksum that is right, so that the checksum does not find it first."""
    content = bytearray(write(FRUIT_ENTRIES + [(b"key%03d" % number, b"v" * number) for number in range(40)])[:-100])
    content = content[: data.draw(st.integers(1, len(content)))]
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FormatError):
        read(table([(b"\xff" * 9, bytes(content))], kind=data.draw(st.sampled_from([0, 0, 0, 1]))))


def _unpacked_tables() -> list[Path]:
    return sorted(CORPUS.glob("*/tf*/*.index")) + sorted(CORPUS.glob("*/tf*-v1/model.ckpt"))


@pytest.mark.parametrize("path", _unpacked_tables()[::7], ids=lambda path: "-".join(path.parts[-3:]))
def test_the_writer_gives_the_bytes_of_genuine_files(path: Path) -> None:
    source: Source = FileSource(path)
    entries = [(key, value) for key, value in Table(source).entries(1 << 30) if isinstance(value, bytes)]
    assert write(entries) == path.read_bytes()


@pytest.mark.tensorflow
def test_tensorflow_reads_a_written_index(tmp_path: Path) -> None:
    """A bundle of empty tensors, so that the index is all that must be right; several blocks of it."""
    import tensorflow as tf

    header = field(1, 1) + field(3, field(1, 1))
    entry = field(1, 1) + field(2, field(2, field(1, 0))) + b"\x35" + struct.pack("<I", masked(b""))
    names = [f"scope_{number % 7}/variable_{number:05d}" for number in range(1000)]
    entries = [(b"", header), *sorted((name.encode(), entry) for name in names)]
    (tmp_path / "model.index").write_bytes(write(entries, block_size=4096))
    (tmp_path / "model.data-00000-of-00001").write_bytes(b"")
    reader = tf.train.load_checkpoint(str(tmp_path / "model"))
    assert sorted(reader.get_variable_to_shape_map()) == sorted(names)
    assert reader.get_tensor(names[500]).shape == (0,)
