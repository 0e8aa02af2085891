"""TFRecord files, written by hand, by the package and by TensorFlow."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import masked

from graph_restore.errors import CorruptionError
from graph_restore.storage.records import RecordFile, write_record
from graph_restore.storage.source import BytesSource, FileSource


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def read(data: bytes, start: int = 0) -> list[bytes]:
    return [found.read() for found in RecordFile(BytesSource(data, "run.tfevents"), start)]


def test_records_in_order() -> None:
    data = record(b"abc") + record(b"") + record(b"x" * 70_000) + record(b"end")
    assert read(data) == [b"abc", b"", b"x" * 70_000, b"end"]


def test_start_in_the_middle() -> None:
    assert read(record(b"abc") + record(b"def"), start=19) == [b"def"]


@pytest.mark.parametrize("kept", [1, 8, 12, 14, 18])
def test_last_record_cut_short_is_told(kept: int) -> None:
    records = RecordFile(BytesSource(record(b"abc") + record(b"def")[:kept]))
    assert [found.read() for found in records] == [b"abc"]
    assert records.truncated_at == 19


def test_whole_file_is_not_truncated() -> None:
    records = RecordFile(BytesSource(record(b"abc")))
    assert len(list(records)) == 1
    assert records.truncated_at is None


def test_damaged_length_is_found_while_passing() -> None:
    data = bytearray(record(b"abc") + record(b"def"))
    data[19] ^= 1
    with pytest.raises(CorruptionError, match=r"run.tfevents, byte 19: checksum of a record's length"):
        read(bytes(data))


def test_damaged_data_are_found_when_read() -> None:
    data = bytearray(record(b"abc") + record(b"def"))
    data[13] ^= 1
    first, second = RecordFile(BytesSource(bytes(data)))
    assert second.read() == b"def"
    assert first.read(verify=False) == b"a" + bytes([ord("b") ^ 1]) + b"c"
    with pytest.raises(CorruptionError, match="the record at byte 0"):
        first.read()


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_written_records_are_read(contents: list[bytes]) -> None:
    file = io.BytesIO()
    for content in contents:
        write_record(file, content)
    assert file.getvalue() == b"".join(map(record, contents))
    assert read(file.getvalue()) == contents


@pytest.mark.tensorflow
def test_tensorflow_reads_and_writes_the_same(tmp_path: Path) -> None:
    import tensorflow as tf

    contents = [b"abc", b"", b"x" * 100_000]
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for content in contents:
            writer.write(content)
    with open(ours, "wb") as file:
        for content in contents:
            write_record(file, content)
    assert [found.read() for found in RecordFile(FileSource(theirs))] == contents
    assert list(tf.compat.v1.io.tf_record_iterator(str(ours))) == contents
