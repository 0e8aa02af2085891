"""Ranges of rows: the values numpy gives, no byte read beyond them, and tensors that cannot be given whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import entry, field, index, shape

from graph_restore.checkpoint import load_checkpoint, save_checkpoint, write_tensors
from graph_restore.errors import CorruptionError, UnsupportedFormatError
from graph_restore.slices import TensorSlice, cut, join
from graph_restore.storage.source import FileSource
from graph_restore.tensors import ArrayTensor, LazyTensor, lazy

ROWS, COLUMNS = 40_000, 4
TABLE = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
WORDS = np.array([[b"word %d" % number, b"x" * 500] for number in range(2000)], object)
WANTED = [slice(100, 110), slice(19_995, 20_005), slice(30_010, 30_000, -1), slice(5, 5), -1]


def partitioned(name: str, value: Any, *boxes: tuple[tuple[int, ...], tuple[int, ...]]) -> LazyTensor:
    slices = [TensorSlice(value.shape, starts, lengths) for starts, lengths in boxes]
    kind = lazy(name, value).data_type
    return join(name, kind, value.shape, [(box, lazy(name, value[box.index])) for box in slices])


def sources() -> dict[str, LazyTensor]:
    half = ROWS // 2
    quarters = [((0, 0), (half, 1)), ((0, 1), (half, 3)), ((half, 0), (half, 3)), ((half, 3), (half, 1))]
    return {
        "whole": lazy("whole", TABLE),
        "rows": partitioned("rows", TABLE, ((0, 0), (half, 4)), ((half, 0), (half, 4))),
        "columns": partitioned("columns", TABLE, ((0, 0), (ROWS, 1)), ((0, 1), (ROWS, 3))),
        "both": partitioned("both", TABLE, *quarters),
    }


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The lengths of all reads from files."""
    lengths: list[int] = []
    pread = FileSource._pread

    def counted(self: FileSource, offset: int, length: int) -> bytes:
        lengths.append(length)
        return pread(self, offset, length)

    monkeypatch.setattr(FileSource, "_pread", counted)
    yield lengths


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("key", ["whole", "rows", "columns", "both"])
def test_only_the_bytes_of_the_rows_are_read(key: str, version: int, tmp_path: Path, read: list[int]) -> None:
    save_checkpoint(tmp_path / "m", {key: sources()[key]}, version=version, keep_slices=True)
    tensor = load_checkpoint(tmp_path / "m")[key]
    for wanted in WANTED:
        read.clear()
        found = tensor[wanted]
        assert found.dtype == np.float32 and found.tolist() == TABLE[wanted].tolist()
        assert sum(read) == found.nbytes


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("parts", [1, 2])
def test_ranges_of_strings(version: int, parts: int, tmp_path: Path, read: list[int]) -> None:
    boxes = [((0, 0), (1000, 2)), ((1000, 0), (1000, 2))]
    tensor = partitioned("words", WORDS, *boxes) if parts == 2 else lazy("words", WORDS)
    save_checkpoint(tmp_path / "m", {"words": tensor}, version=version, keep_slices=True)
    tensor = load_checkpoint(tmp_path / "m")["words"]
    for wanted in (slice(10, 13), slice(998, 1002), slice(3, 3), slice(5, 1, -2), 1999, (slice(4, 6), 1)):
        assert np.array_equal(tensor[wanted], WORDS[wanted])
    read.clear()
    assert tensor[2:4].tolist() == WORDS[2:4].tolist()
    assert sum(read) < 400_000 < 2000 * 500  # the lengths, and a window; not the million bytes


def partial(tmp_path: Path) -> LazyTensor:
    """A tensor of shape [4, 2] of which the first two rows are in the checkpoint, and half of the third."""
    parts = [(b"\x01\x80\x82\x01\x80\x82", (0, 2), (0, 2)), (b"\x01\x82\x81\x01\x80\x81", (2, 1), (0, 1))]
    data = np.arange(5, dtype="<f4").tobytes()
    boxes, entries, offset = b"", [], 0
    for _, rows, columns in parts:
        extents = b"".join(field(1, field(1, start) + field(2, length)) for start, length in (rows, columns))
        boxes += field(7, extents)
        length = rows[1] * columns[1] * 4
        key = b"\x00p\x00\x01\x01\x02" + b"".join(bytes([0x80 ^ start, 0x80 ^ size]) for start, size in (rows, columns))
        entries.append((key, entry(1, [rows[1], columns[1]], data[offset : offset + length], offset)))
        offset += length
    whole = field(1, 1) + field(2, shape(4, 2)) + boxes
    (tmp_path / "p.index").write_bytes(index([(b"p", whole), *entries]))
    (tmp_path / "p.data-00000-of-00001").write_bytes(data)
    return load_checkpoint(tmp_path / "p")["p"]


def test_rows_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    tensor = partial(tmp_path)
    assert tensor[0:2].tolist() == [[0, 1], [2, 3]] and tensor[1].tolist() == [2, 3]
    for wanted in (slice(1, 3), slice(None), 3, 2, slice(None, None, -1)):
        with pytest.raises(CorruptionError, match="only slices of tensor p"):
            tensor[wanted]
    with pytest.raises(CorruptionError, match="only slices of tensor p"):
        tensor.read()


def test_more_dimensions_than_arrays_have(tmp_path: Path) -> None:
    """TensorFlow's shapes have up to 254; such a tensor is copied, and is no reason to refuse its neighbours."""
    data = b"\x00\x00\x80\x3f"
    (tmp_path / "m.index").write_bytes(index([(b"deep", entry(1, [1] * 100, data)), (b"w", entry(1, [], data))]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    found = load_checkpoint(tmp_path / "m")
    assert found["w"].read() == 1.0 and found["deep"].shape == (1,) * 100
    for get in (found["deep"].read, lambda: found["deep"][0:1]):
        with pytest.raises(UnsupportedFormatError, match="deep: 100 dimensions are too many"):
            get()
    write_tensors(found, tmp_path / "copy")
    assert (tmp_path / "copy.data-00000-of-00001").read_bytes() == data * 2
    assert load_checkpoint(tmp_path / "copy")["deep"].shape == (1,) * 100


def test_ranges_of_a_cut() -> None:
    table = ArrayTensor("t", TABLE[:10])
    part = cut(table, TensorSlice((10, 4), (2, 1), (6, 2)))
    assert part[1:3].tolist() == TABLE[3:5, 1:3].tolist()
    words = cut(lazy("w", WORDS[:10]), TensorSlice((10, 2), (2, 1), (6, 1)))
    assert words[1:3].tolist() == WORDS[3:5, 1:2].tolist()
