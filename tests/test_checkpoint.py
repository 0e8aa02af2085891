"""Checkpoints of both versions: values against the TensorFlow that wrote them, and one hand-made file an error."""

from __future__ import annotations

import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from corpus import Arrays, Case, all_cases, case, cases
from tables import entry, field, index, masked, metadata, one_block, saved_slice, shape, varint

from graph_restore.checkpoint import Checkpoint, load_checkpoint, verify_checkpoint
from graph_restore.errors import (
    CheckpointNotFoundError,
    CorruptionError,
    FormatError,
    GraphRestoreWarning,
    TensorNotFoundError,
    UnsupportedFormatError,
)
from graph_restore.slices import TensorSlice

FLOAT, INT32, STRING, VARIANT = 1, 3, 7, 21
ONES = struct.pack("<2f", 1.0, 1.0)


def assert_same(checkpoint: Checkpoint, expected: Arrays) -> None:
    assert expected
    for key, value in expected.items():
        found = checkpoint[key]
        assert (found.shape, found.dtype) == (value.shape, value.dtype), key
        array = found.read()
        assert isinstance(array, np.ndarray)
        assert (array.shape, array.dtype) == (value.shape, value.dtype), key
        same = array.tolist() == value.tolist() if value.dtype == object else array.tobytes() == value.tobytes()
        assert same, key


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_values_are_those_of_the_writer(one: Case) -> None:
    twins = set(one.prefixes.values())  # a V1 file under the prefix of a V2 checkpoint has a test of its own
    others = {tag: prefix for tag, prefix in one.other_prefixes.items() if prefix not in twins}
    for tag, prefix in {**one.prefixes, **others}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GraphRestoreWarning)
            assert_same(load_checkpoint(prefix), one.oracle["checkpoint"][tag])


@pytest.mark.parametrize("one", cases("both_versions"), ids=lambda one: one.id)
def test_v1_file_whose_prefix_has_a_v2_checkpoint_too(one: Case, tmp_path: Path) -> None:
    shutil.copyfile(one.prefix, tmp_path / "model.ckpt")
    assert_same(load_checkpoint(tmp_path / "model.ckpt"), one.oracle["checkpoint"]["v1"])


def write_v2(directory: Path, entries: list[tuple[bytes, bytes]], data: bytes = b"", **header: object) -> str:
    (directory / "m.index").write_bytes(index(entries, **header))  # type: ignore[arg-type]
    (directory / "m.data-00000-of-00001").write_bytes(data)
    return str(directory / "m")


def tensor_meta(name: bytes, dtype: int, sizes: tuple[int, ...], slices: tuple[bytes, ...] = (b"",)) -> bytes:
    head = field(1, name) + field(2, shape(*sizes)) + field(3, dtype)
    return head + b"".join(field(4, content) for content in slices)


def write_v1(path: Path, dtype: int, sizes: tuple[int, ...], values: bytes) -> str:
    """One tensor `b`, stored whole."""
    whole = field(1, b"") * len(sizes)
    key = b"\x00b\x00\x01" + (b"\x01" + bytes([len(sizes)]) if sizes else b"\x00") + b"\x80\x7f" * len(sizes)
    entries = [(b"", metadata(tensor_meta(b"b", dtype, sizes, (whole,)))), (key, saved_slice(b"b", values))]
    path.write_bytes(one_block(entries))
    return str(path)


def test_hand_made_v2(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_v2(tmp_path, [(b"w", entry(FLOAT, [2, 1], ONES, offset=3))], b"abc" + ONES))
    assert list(checkpoint) == ["w"]
    assert checkpoint["w"].read().tolist() == [[1.0], [1.0]]
    assert (checkpoint.version, checkpoint.prefix) == (2, str(tmp_path / "m"))
    assert checkpoint.files == [str(tmp_path / "m.index"), str(tmp_path / "m.data-00000-of-00001")]
    assert repr(checkpoint) == f"<Checkpoint {tmp_path / 'm'} V2, 1 tensors>"


def test_hand_made_v1(tmp_path: Path) -> None:
    path = write_v1(tmp_path / "m", INT32, (3,), field(7, varint(5) + varint(300) + varint(2**64 - 2)))
    checkpoint = load_checkpoint(path)
    assert checkpoint["b"].read().tolist() == [5, 300, -2]
    assert (checkpoint.version, checkpoint.files) == (1, [path])


def test_hand_made_strings(tmp_path: Path) -> None:
    lengths = struct.pack("<2I", 1, 300)
    crc = struct.pack("<I", masked(lengths))
    text = b"a" + b"b" * 300
    data = varint(1) + varint(300) + crc + text
    record = entry(STRING, [2], data)[:-4] + struct.pack("<I", masked(lengths + crc + text))
    checkpoint = load_checkpoint(write_v2(tmp_path, [(b"s", record)], data))
    assert checkpoint["s"].read().tolist() == [b"a", b"b" * 300]
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(damaged))
        with pytest.raises(FormatError):
            checkpoint["s"].read()


def test_every_flipped_byte_of_the_data_is_found(tmp_path: Path) -> None:
    one = case("dtypes/tf1.15.5-v2")
    data = Path(one.prefix + ".data-00000-of-00001").read_bytes()
    (tmp_path / "m.index").write_bytes(Path(one.prefix + ".index").read_bytes())
    target = tmp_path / "m.data-00000-of-00001"
    target.write_bytes(data)
    checkpoint = load_checkpoint(tmp_path / "m")
    for position in range(0, len(data), 3):
        target.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        with pytest.raises(CorruptionError):
            [tensor.read() for tensor in checkpoint.values()]


def test_missing_key_gives_near_names() -> None:
    checkpoint = load_checkpoint(case("linear/tf0.12.1-v2").prefix)
    name = next(iter(checkpoint))
    assert name + "x" not in checkpoint
    with pytest.raises(TensorNotFoundError, match=f"near names: .*{name}"):
        checkpoint[name + "x"]
    with pytest.raises(TensorNotFoundError):
        checkpoint.slices("no such")


@pytest.mark.parametrize("identity", ["partitioned/tf0.12.1-v1", "partitioned/tf1.15.5-v2"])
def test_slices_join_to_the_whole(identity: str) -> None:
    checkpoint = load_checkpoint(case(identity).prefix)
    parted = [name for name in checkpoint if len(checkpoint.slices(name)) > 1]
    assert parted
    for name in parted:
        whole = checkpoint[name].read()
        for box, part in checkpoint.slices(name):
            assert whole[box.index].tobytes() == part.read().tobytes()  # there are NaNs in it


def test_slices_of_a_whole_tensor(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_v2(tmp_path, [(b"w", entry(FLOAT, [2], ONES))], ONES))
    assert checkpoint.slices("w") == [(TensorSlice((2,), (0,), (2,)), checkpoint["w"])]


SLICE = field(1, field(1, 0) + field(2, 2))  # the first two rows
SLICE_KEY = bytes.fromhex("00 77 0001 0101 80 82")


def test_some_slices_of_a_tensor_are_listed_and_refuse_to_be_the_whole(tmp_path: Path) -> None:
    whole = field(1, FLOAT) + field(2, shape(3)) + field(7, SLICE)
    checkpoint = load_checkpoint(write_v2(tmp_path, [(b"w", whole), (SLICE_KEY, entry(FLOAT, [2], ONES))], ONES))
    assert list(checkpoint) == ["w"]
    assert checkpoint["w"].shape == (3,)
    assert [part.read().tolist() for _, part in checkpoint.slices("w")] == [[1.0, 1.0]]
    with pytest.raises(CorruptionError, match=r"only slices of tensor w .*expected shape \[3\], found 3 0,2"):
        checkpoint["w"].read()


def test_variants_are_listed_and_refuse_to_be_read(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_v2(tmp_path, [(b"v", entry(VARIANT, [], b"\x01xyz"))], b"\x01xyz"))
    assert list(checkpoint) == ["v"]
    with pytest.raises(UnsupportedFormatError, match="variant"):
        checkpoint["v"].read()


def test_empty_bundle(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(index([], num_shards=0))
    assert list(load_checkpoint(tmp_path / "m")) == []


BAD_V2: list[tuple[str, list[tuple[bytes, bytes]], type[FormatError], str]] = [
    ("size does not fit the shape", [(b"w", entry(FLOAT, [3], ONES))], CorruptionError, "expected 12 bytes, found 8"),
    ("offset past the data", [(b"w", entry(FLOAT, [2], ONES, offset=1))], CorruptionError, "expected 9 bytes or more"),
    ("offset near 2**63", [(b"w", entry(FLOAT, [2], ONES, offset=2**63 - 1))], CorruptionError, "data file is shorter"),
    ("negative offset", [(b"w", entry(FLOAT, [2], ONES, offset=-8))], FormatError, "negative number"),
    ("negative dimension", [(b"w", entry(FLOAT, [-2], ONES))], FormatError, "shape is impossible"),
    ("shape near 2**64", [(b"w", entry(FLOAT, [2**40, 2**24], ONES))], FormatError, "shape is impossible"),
    ("shape of 0 and too much", [(b"w", entry(FLOAT, [0, 2**40, 2**40], b""))], FormatError, "shape is impossible"),
    ("shape past 2**63 bytes", [(b"w", entry(4, [0, 2**62], b""))], FormatError, "shape is impossible"),
    ("255 dimensions", [(b"w", entry(4, [1] * 255, b"x"))], FormatError, "shape is impossible"),
    ("huge shape", [(b"w", entry(FLOAT, [2**40], ONES))], CorruptionError, "wrong length"),
    ("shard not counted", [(b"w", entry(FLOAT, [2], ONES, shard=1))], CorruptionError, "expected shard below 1"),
    ("unknown type", [(b"w", entry(99, [2], ONES))], UnsupportedFormatError, "'w' has an unknown data type"),
    ("no type", [(b"w", entry(0, [2], ONES))], FormatError, "no data type"),
    ("no message", [(b"w", b"\x0a\xff")], FormatError, "entry of 'w'"),
    ("string shorter than its lengths", [(b"w", entry(STRING, [5], ONES))], CorruptionError, "too few bytes"),
    ("string without data", [(b"w", entry(STRING, [1], b""))], CorruptionError, "too few bytes"),
    (
        "slice without an entry",
        [(b"w", field(1, FLOAT) + field(2, shape(3)) + field(7, SLICE))],
        CorruptionError,
        "a slice of tensor 'w' has no entry",
    ),
    (
        "slice of another type",
        [(b"w", field(1, INT32) + field(2, shape(3)) + field(7, SLICE)), (SLICE_KEY, entry(FLOAT, [2], ONES))],
        CorruptionError,
        "entry of another kind",
    ),
    (
        "slice outside its tensor",
        [(b"w", field(1, FLOAT) + field(2, shape(1)) + field(7, SLICE)), (SLICE_KEY, entry(FLOAT, [2], ONES))],
        FormatError,
        "outside its tensor",
    ),
    (
        "slices that overlap",
        [(b"w", field(1, FLOAT) + field(2, shape(3)) + field(7, SLICE) * 2), (SLICE_KEY, entry(FLOAT, [2], ONES))],
        CorruptionError,
        "exactly once",
    ),
]


@pytest.mark.parametrize(("entries", "kind", "text"), [one[1:] for one in BAD_V2], ids=[one[0] for one in BAD_V2])
def test_bad_v2(tmp_path: Path, entries: list[tuple[bytes, bytes]], kind: type[FormatError], text: str) -> None:
    with pytest.raises(kind, match=text):
        load_checkpoint(write_v2(tmp_path, entries, ONES))


@pytest.mark.parametrize(
    ("more", "text"),
    [(field(2, 1), "big-endian"), (field(3, field(2, 2)), "newer reader"), (field(1, 10**6), "number of shards")],
)
def test_bad_headers(tmp_path: Path, more: bytes, text: str) -> None:
    with pytest.raises(FormatError, match=text):
        load_checkpoint(write_v2(tmp_path, [(b"w", entry(FLOAT, [2], ONES))], ONES, more=more))


def test_index_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(one_block([(b"w", entry(FLOAT, [2], ONES))]))
    with pytest.raises(CorruptionError, match="no header"):
        load_checkpoint(tmp_path / "m")


def test_each_version_under_the_name_of_the_other(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(Path(case("linear/tf0.12.1-v1").prefix).read_bytes())
    (tmp_path / "n").write_bytes(Path(case("linear/tf0.12.1-v2").prefix + ".index").read_bytes())
    with pytest.raises(FormatError, match="V1 checkpoint under the name of a V2 index"):
        load_checkpoint(tmp_path / "m")
    with pytest.raises(FormatError, match="index of a V2 checkpoint"):
        load_checkpoint(tmp_path / "n")


def test_missing_shard_is_named_with_what_it_holds(tmp_path: Path) -> None:
    entries = [(b"a", entry(FLOAT, [2], ONES)), (b"b", entry(FLOAT, [2], ONES, shard=1))]
    (tmp_path / "m.index").write_bytes(index(entries, num_shards=2))
    (tmp_path / "m.data-00000-of-00002").write_bytes(ONES)
    with pytest.raises(CheckpointNotFoundError, match=r"m.data-00001-of-00002 \(with 1 tensors, such as 'b'\)"):
        load_checkpoint(tmp_path / "m")


def test_shards_without_tensors_are_not_needed(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(index([(b"a", entry(FLOAT, [2], ONES))], num_shards=2))
    (tmp_path / "m.data-00000-of-00002").write_bytes(ONES)
    assert load_checkpoint(tmp_path / "m")["a"].read().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [1, 200])  # fewer bytes than a pointer has, and more
def test_data_file_that_is_a_pointer(size: int, tmp_path: Path) -> None:
    values = bytes(4 * size)
    prefix = write_v2(tmp_path, [(b"w", entry(FLOAT, [size], values))], b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CorruptionError, match=r"m.data-00000-of-00001: this is a Git LFS pointer.*git lfs pull"):
        load_checkpoint(prefix)
    assert "Git LFS pointer" in str(verify_checkpoint(prefix).damaged["w"])


FLOATS = field(5, ONES)
BAD_V1: list[tuple[str, int, tuple[int, ...], bytes, str]] = [
    ("too few floats", FLOAT, (3,), FLOATS, "expected 12 bytes, found 8"),
    ("too many floats", FLOAT, (1,), FLOATS, "expected 4 bytes, found 8"),
    ("no values", FLOAT, (2,), b"", "found 0"),
    ("values of another type", FLOAT, (2,), field(7, b"\x01\x01"), "found 0"),
    ("fewer varints than can be", INT32, (9,), field(7, b"\x01\x01"), "fewer values"),
    ("no varints", INT32, (9,), b"", "found 0"),
    ("too few bytes for the strings", STRING, (9,), field(8, b"ab"), "too few bytes"),
    ("a type V1 has not", VARIANT, (1,), b"", "V1 checkpoints cannot hold"),
    ("unpacked varints", INT32, (2,), field(7, b"\x01") + field(7, b"\x02"), "packed in one run"),
    ("unknown type", 77, (1,), b"", "unknown data type"),
    ("negative dimension", FLOAT, (-1,), b"", "shape is impossible"),
    ("no message", FLOAT, (1,), b"\x0a\x70", "not a protobuf message"),
]


@pytest.mark.parametrize(
    ("dtype", "sizes", "values", "text"), [one[1:] for one in BAD_V1], ids=[one[0] for one in BAD_V1]
)
def test_bad_v1(tmp_path: Path, dtype: int, sizes: tuple[int, ...], values: bytes, text: str) -> None:
    with pytest.raises(FormatError, match=text):
        load_checkpoint(write_v1(tmp_path / "m", dtype, sizes, values))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (INT32, field(7, b"\x01\x02\x03")),
        (INT32, field(7, b"\x01\x80")),
        (STRING, field(8, b"abc")),
        (STRING, field(8, b"") * 3),
    ],
)
def test_values_of_a_wrong_count_are_found_when_read(tmp_path: Path, dtype: int, values: bytes) -> None:
    tensor = load_checkpoint(write_v1(tmp_path / "m", dtype, (2,), values))["b"]
    with pytest.raises(CorruptionError, match="tensor b"):
        tensor.read()


def test_v1_metadata_that_lie(tmp_path: Path) -> None:
    meta = tensor_meta(b"b", FLOAT, (2,), (field(1, b""),))
    key, value = bytes.fromhex("00 62 0001 0101 80 7f"), saved_slice(b"b", FLOATS)
    cases = [
        ([(b"", metadata(meta))], "listed and not there"),
        ([(b"", metadata(meta)), (key, saved_slice(b"c", FLOATS))], "are of another"),
        ([(b"", metadata(meta)), (key, b"")], "no data under the key"),
        ([(b"", metadata(meta, meta)), (key, value)], "name a tensor twice"),
        ([(key, value)], "no metadata"),
        ([(b"", field(1, field(1, meta) + field(2, field(2, 9)))), (key, value)], "newer reader"),
    ]
    for entries, text in cases:
        (tmp_path / "m").write_bytes(one_block(entries))
        with pytest.raises(FormatError, match=text):
            load_checkpoint(tmp_path / "m")


def test_floats_in_several_runs(tmp_path: Path) -> None:
    """Proto readers must take a packed list in pieces; nothing asks for a copy."""
    path = write_v1(tmp_path / "m", FLOAT, (4,), FLOATS + field(5, struct.pack("<2f", 2.0, 3.0)))
    assert load_checkpoint(path)["b"].read().tolist() == [1.0, 1.0, 2.0, 3.0]


def test_shards_that_disagree(tmp_path: Path) -> None:
    write_v1(tmp_path / "m-00000-of-00002", FLOAT, (2,), FLOATS)
    write_v1(tmp_path / "m-00001-of-00002", INT32, (2,), field(7, b"\x01\x01"))
    with pytest.raises(CorruptionError, match="two shards disagree about tensor 'b'"):
        load_checkpoint(tmp_path / "m")


def test_the_same_tensor_in_two_shards(tmp_path: Path) -> None:
    for number in range(2):
        write_v1(tmp_path / f"m-0000{number}-of-00002", FLOAT, (2,), FLOATS)
    with pytest.raises(CorruptionError, match="exactly once"):
        load_checkpoint(tmp_path / "m")
