"""Checkpoints that we write: against bytes put together by hand, files of genuine TensorFlow, and our own reader."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, all_cases, case
from hypothesis import given
from hypothesis import strategies as st
from tables import block, entry, field, index, masked, shape, table

from graph_restore.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_state
from graph_restore.checkpoint.encoding import encode_varints, varint_sizes
from graph_restore.checkpoint.state import read_state
from graph_restore.errors import CorruptionError, GraphRestoreError, GraphRestoreWarning, UnsupportedFormatError
from graph_restore.slices import TensorSlice, join
from graph_restore.storage.coding import encode_varint
from graph_restore.storage.table import TableWriter
from graph_restore.tensors import ArrayTensor, LazyTensor, lazy

FLOAT, VARIANT = 1, 21
QINT8 = 11
SMALL = {"b": np.array([1, -2], np.int32), "a": np.float32(1.5), "s": [b"x", ""]}


def crc(data: bytes) -> bytes:
    return struct.pack("<I", masked(data))


def load(path: str | Path) -> Checkpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphRestoreWarning)
        return load_checkpoint(path)


def content(tensor: LazyTensor) -> Any:
    array = tensor.read()
    return (tensor.data_type, tensor.shape, array.tolist() if array.dtype == object else array.tobytes())


def contents(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: content(tensor) for name, tensor in checkpoint.items()}


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_v2_bytes(tmp_path: Path) -> None:
    a, b = bytes.fromhex("0000c03f"), bytes.fromhex("01000000 feffffff")
    lengths = bytes.fromhex("01000000 00000000")
    s = b"\x01\x00" + crc(lengths) + b"x"
    entries = [
        (b"", bytes.fromhex("0801 1a020801")),
        (b"a", bytes.fromhex("0801 1200 2804 35") + crc(a)),
        (b"b", bytes.fromhex("0803 120412020802 2004 2808 35") + crc(b)),
        (b"s", bytes.fromhex("0807 120412020802 200c 2807 35") + crc(lengths + crc(lengths) + b"x")),
    ]
    assert save_checkpoint(tmp_path / "m", SMALL) == str(tmp_path / "m")
    expected = {"m.data-00000-of-00001": a + b + s, "m.index": table([(b"t", block(entries))])}
    assert files(tmp_path) == expected


NEGATIVE = "ffffffffffffffffff01"
V1_VALUES = [
    (np.array([1, -1], np.int32), 3, "3a0b 01" + NEGATIVE),
    (np.array([300, 0], np.uint16), 17, "3a03 ac02 00"),
    (np.array([127, -1], np.int8), 6, "3a0b 7f" + NEGATIVE),
    (np.array([2**62, -1], np.int64), 9, "5213 808080808080808040" + NEGATIVE),
    (np.array([True, False]), 10, "5a02 01 00"),
    (np.array([1.5, -0.0], np.float16), 19, "6a05 807c 808002"),
    (np.array([1.5, -0.0], np.float32), 1, "2a08 0000c03f 00000080"),
    (np.array([1.5, -0.0], np.float64), 2, "3210 000000000000f83f 0000000000000080"),
    (np.array([1.5j, 1], np.complex64), 8, "4a10 00000000 0000c03f 0000803f 00000000"),
    ([b"x", ""], 7, "4201 78 4200"),
    (ArrayTensor("", np.array([-1, 1], np.int8), QINT8), 11, "3a0b" + NEGATIVE + "01"),
]


@pytest.mark.parametrize(("values", "dtype", "stored"), V1_VALUES, ids=[str(one[1]) for one in V1_VALUES])
def test_v1_bytes(tmp_path: Path, values: Any, dtype: int, stored: str) -> None:
    place = field(1, b"")
    meta = field(1, b"b") + field(2, shape(2)) + field(3, dtype) + field(4, place)
    saved = field(2, field(1, b"b") + field(2, place) + field(3, bytes.fromhex(stored)))
    entries = [
        (b"", field(1, field(1, meta) + field(2, field(1, 1)))),
        (bytes.fromhex("00 62 0001 0101 807f"), saved),
    ]
    assert save_checkpoint(tmp_path / "m", {"b": values}, version=1) == str(tmp_path / "m")
    assert files(tmp_path) == {"m": table([(b"\x01", block(entries))])}


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_saved_again_it_is_the_same(one: Case, tmp_path: Path) -> None:
    for tag, prefix in {**one.prefixes, **one.other_prefixes}.items():
        source = load(prefix)
        expected = contents(source)
        for version, keep_slices, shards in ((2, False, None), (2, True, 3), (1, True, None), (1, False, 2)):
            if version == 1 and one.id in ("dtypes/tf1.15.5-v2", "raw_dtypes/tf1.15.5-v2"):
                continue  # with types that V1 has not
            target = tmp_path / f"{tag}{version}{shards}"
            saved = save_checkpoint(target, source, version=version, keep_slices=keep_slices, shards=shards)
            found = load(saved)
            assert (found.version, found.prefix) == (version, saved)
            assert contents(found) == expected
            if keep_slices:
                boxes = {name: [box for box, _ in source.slices(name)] for name in source}
                assert {name: [box for box, _ in found.slices(name)] for name in found} == boxes


SAVED_IN_ANOTHER_ORDER = {
    "partitioned/tf0.12.1-v1",
    "partitioned/tf0.12.1-v2",
    "partitioned/tf1.4.1-v2",
    "resource_partitioned/tf1.4.1-v2",
}


def test_saved_again_the_files_are_those_of_tensorflow(tmp_path: Path) -> None:
    different, same = set(), 0
    for one in all_cases():
        for tag, prefix in {**one.prefixes, **one.other_prefixes}.items():
            source = load(prefix)
            target = tmp_path / one.id.replace("/", "-") / tag
            if len([name for name in source.files if not name.endswith(".index")]) != 1:
                continue
            saved = save_checkpoint(target / "m", source, version=source.version, keep_slices=True)
            assert len(source.files) == len(load(saved).files)
            for old, new in zip(source.files, load(saved).files):
                if Path(old).read_bytes() != Path(new).read_bytes():
                    different.add(one.id)
                same += 1
    assert different == SAVED_IN_ANOTHER_ORDER
    assert same > 200


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9).map(lambda bits: 1 << 7 * bits)))
def test_varints(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    encoded = [encode_varint(value) for value in values]
    assert varint_sizes(array).tolist() == [len(one) for one in encoded]
    assert encode_varints(array) == b"".join(encoded)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 5000])
def test_a_table_value_in_pieces(length: int) -> None:
    value = bytes(range(256)) * 20
    whole, pieces = io.BytesIO(), io.BytesIO()
    one, other = TableWriter(whole, block_size=100), TableWriter(pieces, block_size=100)
    for number in range(3):
        one.add(b"k%d" % number, value[:length])
        other.add_pieces(b"k%d" % number, length, iter([value[: length // 3], b"", value[length // 3 : length]]))
    one.finish()
    other.finish()
    assert pieces.getvalue() == whole.getvalue()


@pytest.mark.parametrize("length", [5, 500])
@pytest.mark.parametrize("given_bytes", [-1, 1])
def test_a_table_value_of_another_length(length: int, given_bytes: int) -> None:
    writer = TableWriter(io.BytesIO(), block_size=100)
    with pytest.raises(CorruptionError, match=f"expected {length} bytes"):
        writer.add_pieces(b"k", length, iter([b"x" * (length + given_bytes)]))


def shard_names(saved: str) -> list[list[str]]:
    """The tensors of each data file, V2."""
    found = load(saved)
    places = {name: tensor.extents[0].source.name for name, tensor in found.items()}  # type: ignore[attr-defined]
    return [[name for name in found if places[name] == path] for path in found.files[1:]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [["a", "b", "c", "d"]]),
        ({"shards": 1}, [["a", "b", "c", "d"]]),
        ({"shards": 2}, [["a", "b"], ["c", "d"]]),
        ({"shards": 3}, [["a", "b"], ["c"], ["d"]]),
        ({"shards": 6}, [["a"], ["b"], ["c"], ["d"]]),
        ({"shard_bytes": 8}, [["a"], ["b"], ["c"], ["d"]]),
        ({"shard_bytes": 40}, [["a", "b"], ["c"], ["d"]]),
        ({"shard_bytes": 1 << 40}, [["a", "b", "c", "d"]]),
    ],
)
def test_shards(tmp_path: Path, options: dict[str, int], expected: list[list[str]]) -> None:
    tensors = {name: np.full(size, 7, np.float32) for name, size in (("b", 5), ("d", 10), ("a", 5), ("c", 10))}
    saved = save_checkpoint(tmp_path / "m", tensors, **options)  # type: ignore[arg-type]
    assert shard_names(saved) == expected
    count = options.get("shards", len(expected))
    assert sorted(files(tmp_path)) == [*(f"m.data-{shard:05d}-of-{count:05d}" for shard in range(count)), "m.index"]


def test_shards_of_v1(tmp_path: Path) -> None:
    tensors = {name: np.full(9, 7, np.int16) for name in "abc"}
    assert save_checkpoint(tmp_path / "m", tensors, version=1, shards=2) == str(tmp_path / "m-?????-of-00002")
    assert sorted(files(tmp_path)) == ["m-00000-of-00002", "m-00001-of-00002"]
    assert [list(load(tmp_path / f"m-0000{shard}-of-00002")) for shard in range(2)] == [["a"], ["b", "c"]]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shards": 2, "shard_bytes": 9}, "not both"),
        ({"shards": 0}, "shards must be 1 to 99999, found 0"),
        ({"shards": 100_000}, "found 100000"),
        ({"shard_bytes": 0}, "at least 1, found 0"),
        ({"version": 3}, "version 1 or 2, found 3"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        save_checkpoint(tmp_path / "m", SMALL, **options)  # type: ignore[arg-type]
    assert files(tmp_path) == {}


def sliced() -> LazyTensor:
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    boxes = [TensorSlice((6, 2), (start, 0), (length, 2)) for start, length in ((0, 1), (1, 3), (4, 2))]
    return join("w", FLOAT, (6, 2), [(box, lazy("w", rows[box.index])) for box in boxes])


@pytest.mark.parametrize("version", [1, 2])
def test_slices_are_joined_or_kept(tmp_path: Path, version: int) -> None:
    for keep_slices, count in ((False, 1), (True, 3)):
        saved = save_checkpoint(
            tmp_path / str(count), {"w": sliced()}, version=version, keep_slices=keep_slices, shards=3
        )
        found = load(saved)
        assert [box.lengths[0] for box, _ in found.slices("w")] == ([6] if count == 1 else [1, 3, 2])
        assert found["w"].read().tolist() == np.arange(12).reshape(6, 2).tolist()


def test_slices_without_elements(tmp_path: Path) -> None:
    shapes = [((0, 2), [(0, 0), (0, 0)]), ((3, 2), [(0, 3), (3, 0), (0, 0)])]
    for full, parts in shapes:
        boxes = [TensorSlice(full, (start, 0), (length, 2)) for start, length in parts]
        whole = join("w", FLOAT, full, [(box, lazy("w", np.ones(box.lengths, np.float32))) for box in boxes])
        for version in (1, 2):
            saved = save_checkpoint(
                tmp_path / "m", {"w": whole}, version=version, keep_slices=True, overwrite=True, shards=2
            )
            assert load(saved)["w"].read().tolist() == np.ones(full).tolist()


@pytest.mark.parametrize("version", [1, 2])
def test_some_slices_only(tmp_path: Path, version: int) -> None:
    part = field(1, field(1, 0) + field(2, 2))
    data = struct.pack("<2f", 1.0, 2.0)
    whole = field(1, FLOAT) + field(2, shape(3)) + field(7, part)
    key = bytes.fromhex("00 77 0001 0101 80 82")
    (tmp_path / "m.index").write_bytes(index([(b"w", whole), (key, entry(FLOAT, [2], data))]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    with pytest.raises(GraphRestoreError, match="only some slices of tensor 'w' .* keep_slices=True"):
        save_checkpoint(tmp_path / "n", load(tmp_path / "m"), version=version)
    saved = load(save_checkpoint(tmp_path / "n", load(tmp_path / "m"), version=version, keep_slices=True))
    ((box, tensor),) = saved.slices("w")
    assert (box.full_shape, box.starts, box.lengths, tensor.read().tolist()) == ((3,), (0,), (2,), [1.0, 2.0])


REFUSED = [
    (
        "bfloat16",
        1,
        {"x": lazy("x", np.ones(2, np.float32)), "y": ArrayTensor("y", np.ones(2), 14)},
        "version 2: 'y' .bfloat16",
    ),
    ("uint32", 1, {"y": np.ones(2, np.uint32), "z": np.ones(2, np.uint64)}, "'y' .uint32., 'z' .uint64"),
    ("name that is no UTF-8", 1, {"y\udcff": 1.0}, "write version 2: .*the name is no UTF-8"),
    ("no name", 2, {"": 1.0}, "cannot be saved under this name.*found ''"),
    ("zero byte", 2, {"\0y": 1.0}, "cannot be saved under this name"),
    ("name that is no text", 2, {5: 1.0}, "cannot be saved under this name .*found 5"),
    ("lone surrogate", 2, {"\ud800": 1.0}, "cannot be saved under this name"),
    ("objects", 2, {"y": np.array([b"a", None], object)}, "'y' cannot be saved: it holds a NoneType"),
    ("numbers among text", 2, {"y": ["a", 1]}, "'y' cannot be saved: it holds a int"),
    ("dates", 2, {"y": np.array("2020-01-01", "datetime64[D]")}, "'y' cannot be saved: numpy dtype datetime64"),
    ("ragged", 2, {"y": [[1, 2], [3]]}, "'y' cannot be saved"),
]


@pytest.mark.parametrize(("version", "tensors", "text"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_refused_before_anything_is_written(tmp_path: Path, version: int, tensors: Any, text: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=text):
        save_checkpoint(tmp_path / "new" / "m", tensors, version=version)
    assert files(tmp_path) == {}


def test_variants_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(index([(b"v", entry(VARIANT, [], b"\x01xyz"))]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"\x01xyz")
    with pytest.raises(UnsupportedFormatError, match="'v' is of type variant, .* leave it out"):
        save_checkpoint(tmp_path / "n", load(tmp_path / "m"))


class Huge(LazyTensor):
    """More than V1 can hold, without the bytes."""

    def parts(self) -> Any:
        raise AssertionError("the length alone says no")


def test_too_large_for_v1(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="'w' is too large for a V1 checkpoint; write version 2"):
        save_checkpoint(tmp_path / "m", {"w": Huge("w", FLOAT, (1 << 29,))}, version=1)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("old", [1, 2])
@pytest.mark.parametrize("new", [1, 2])
@pytest.mark.parametrize("shards", [1, 2])
def test_what_is_there_stays_unless_it_is_to_go(tmp_path: Path, old: int, new: int, shards: int) -> None:
    save_checkpoint(tmp_path / "m", SMALL, version=old, shards=shards)
    (tmp_path / "m.meta").write_bytes(b"graph")
    (tmp_path / "m2.index").write_bytes(b"another")
    before = files(tmp_path)
    with pytest.raises(GraphRestoreError, match="at .*m already: .*overwrite=True"):
        save_checkpoint(tmp_path / "m", {"other": 5}, version=new)
    assert files(tmp_path) == before
    saved = save_checkpoint(tmp_path / "m", {"other": 5}, version=new, overwrite=True)
    assert list(load(saved)) == ["other"]
    written = ["m"] if new == 1 else ["m.data-00000-of-00001", "m.index"]
    assert sorted(files(tmp_path)) == sorted([*written, "m.meta", "m2.index"])


def test_a_file_that_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"notes")
    save_checkpoint(tmp_path / "m", SMALL)
    save_checkpoint(tmp_path / "m", SMALL, overwrite=True)
    assert (tmp_path / "m").read_bytes() == b"notes"
    with pytest.raises(GraphRestoreError, match="already"):
        save_checkpoint(tmp_path / "m", SMALL, version=1)


def test_a_checkpoint_may_replace_itself(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m", SMALL, shards=2)
    source = load(tmp_path / "m")
    expected = contents(source)
    save_checkpoint(tmp_path / "m", {name: source[name] for name in ("a", "s")}, overwrite=True)
    assert contents(load(tmp_path / "m")) == {name: expected[name] for name in ("a", "s")}


@pytest.mark.parametrize("version", [1, 2])
def test_the_old_one_is_whole_until_the_new_one_is(tmp_path: Path, version: int) -> None:
    save_checkpoint(tmp_path / "m", SMALL, version=version)
    expected = contents(load(tmp_path / "m"))
    counts: list[int] = []

    def progress(count: int) -> None:
        counts.append(count)
        assert contents(load(tmp_path / "m")) == expected

    tensors = {"x": np.arange(300_000, dtype=np.float32), "y": ["text"]}
    save_checkpoint(tmp_path / "m", tensors, version=version, overwrite=True, progress=progress)
    assert sum(counts) == sum(map(len, files(tmp_path).values()))
    assert list(load(tmp_path / "m")) == ["x", "y"]


@pytest.mark.parametrize("version", [1, 2])
def test_damage_leaves_nothing_new(tmp_path: Path, version: int) -> None:
    source = save_checkpoint(tmp_path / "source", {"w": np.arange(50_000, dtype=np.int64), "z": ["text"]})
    data = bytearray((tmp_path / "source.data-00000-of-00001").read_bytes())
    for position in (70_000, len(data) - 1):
        (tmp_path / "source.data-00000-of-00001").write_bytes(
            data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        )
        target = tmp_path / "target"
        save_checkpoint(target / "m", SMALL, overwrite=True)
        before = files(target)
        with pytest.raises(CorruptionError, match="checksum"):
            save_checkpoint(target / "m", load(source), version=version, overwrite=True)
        assert files(target) == before


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("moves", range(6))
def test_failing_moves_are_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, moves: int) -> None:
    save_checkpoint(tmp_path / "m", SMALL, shards=2)
    before = files(tmp_path)
    replace, done = os.replace, 0

    def fail(source: str, target: str) -> None:
        nonlocal done
        if os.path.dirname(source) != os.path.dirname(target):  # not the renames of single files
            if done == moves:
                done = 100
                raise OSError("the disk is gone")
            done += 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        save_checkpoint(tmp_path / "m", {"other": 5}, version=version, overwrite=True, shards=3)
    assert files(tmp_path) == before


@pytest.mark.parametrize("prefix", ["export/", "new/deep/model.ckpt-7"])
def test_directories_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert save_checkpoint(prefix, SMALL, state=True) == prefix
    directory = os.path.dirname(prefix)
    assert list(load(directory)) == ["a", "b", "s"]
    assert load(directory).prefix.endswith(os.path.basename(prefix))
    os.rename(directory, "moved")
    assert list(load("moved")) == ["a", "b", "s"]


def test_v1_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names a directory"):
        save_checkpoint(f"{tmp_path}/", SMALL, version=1)


def test_state_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("run")
    path = write_state("run", "run/m-2", ["run/m-1", tmp_path / "run" / "m-2", 'other/\u00e9"x'])
    assert path == os.path.join("run", "checkpoint")
    assert (tmp_path / path).read_text() == (
        'model_checkpoint_path: "m-2"\n'
        'all_model_checkpoint_paths: "m-1"\n'
        'all_model_checkpoint_paths: "../other/\\303\\251\\"x"\n'
        'all_model_checkpoint_paths: "m-2"\n'
    )
    assert read_state(path).all == ("m-1", '../other/\u00e9"x', "m-2")


def test_state_keeps_the_checkpoints_that_are_there(tmp_path: Path) -> None:
    for step, version in ((1, 2), (2, 1), (3, 2)):
        save_checkpoint(tmp_path / f"m-{step}", SMALL, version=version, shards=2, state=True)
    assert read_state(str(tmp_path / "checkpoint")).all == ("m-1", "m-2-?????-of-00002", "m-3")
    (tmp_path / "m-1.index").unlink()
    save_checkpoint(tmp_path / "m-3", SMALL, overwrite=True, state=True)
    assert read_state(str(tmp_path / "checkpoint")).all == ("m-2-?????-of-00002", "m-3")
    assert load(tmp_path).prefix == str(tmp_path / "m-3")


MEMORY = """
import sys
from graph_restore.checkpoint import load_checkpoint, save_checkpoint
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import FileSource
from graph_restore.tensors import ContentTensor

directory, version, size, dtype = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with open(directory + "/sparse", "wb") as file:
    file.truncate(size)
whole = Extent(FileSource(directory + "/sparse"), 0, size)
saved = save_checkpoint(directory + "/m", {"w": ContentTensor("w", dtype, (size // 4,), [whole])}, version=version)
save_checkpoint(directory + "/m", load_checkpoint(saved), version=version, overwrite=True)
assert load_checkpoint(saved)["w"].shape == (size // 4,)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
@pytest.mark.parametrize(("version", "megabytes", "dtype"), [(2, 600, 1), (1, 600, 1), (1, 60, 3)])
def test_memory(tmp_path: Path, version: int, megabytes: int, dtype: int) -> None:
    arguments = [str(tmp_path), str(version), str(megabytes << 20), str(dtype)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, cwd=root)
    for path in tmp_path.iterdir():
        path.unlink()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 120_000  # kilobytes


def test_the_oracle_survives(tmp_path: Path) -> None:
    """Once without our own reading of the source: the oracle's arrays, saved, come back."""
    arrays = case("dtypes/tf1.15.5-v2").oracle["checkpoint"][""]
    for version in (1, 2):
        kept = {name: value for name, value in arrays.items() if version == 2 or value.dtype.name != "bfloat16"}
        found = load(save_checkpoint(tmp_path / str(version), kept, version=version))
        for name, value in kept.items():
            array = found[name].read()
            assert (array.dtype, array.shape) == (value.dtype, value.shape)
            assert array.tolist() == value.tolist() if value.dtype == object else array.tobytes() == value.tobytes()
