"""Whatever the bytes, loading and reading a checkpoint gives values or one of the package's errors."""

from __future__ import annotations

import io
import shutil
import warnings
from pathlib import Path
from random import Random

import pytest
from corpus import case

from graph_restore.checkpoint import load_checkpoint
from graph_restore.checkpoint.messages import _plain_entry
from graph_restore.errors import CheckpointNotFoundError, FormatError, GraphRestoreWarning
from graph_restore.protos import BundleEntryProto
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import FileSource
from graph_restore.storage.table import Table, TableWriter

FILES = [
    ("dtypes/tf1.15.5-v1", ""),
    ("partitioned/tf0.12.1-v1", ""),
    ("scalars_and_empty/tf0.12.1-v1", ""),
    ("dtypes/tf1.15.5-v2", ".index"),
    ("dtypes/tf1.15.5-v2", ".data-00000-of-00001"),
    ("partitioned/tf1.4.1-v2", ".index"),
]
TABLES = [one for one in FILES if not one[1].startswith(".data")]


def read_all(path: Path) -> bool:
    """Whether everything could be read; the errors that may come out are those below."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphRestoreWarning)
        try:
            for tensor in load_checkpoint(path).values():
                tensor.read()
        except (FormatError, CheckpointNotFoundError):
            return False
    return True


def copy(identity: str, directory: Path) -> Path:
    prefix = Path(case(identity).prefix)
    for path in prefix.parent.glob(prefix.name + "*"):
        shutil.copyfile(path, directory / path.name)
    return directory / prefix.name


def mutate(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 3)):
        position = random.randrange(len(changed)) if changed else 0
        kind = random.randrange(4)
        if kind == 0 and changed:
            changed[position] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
        elif kind == 1:
            changed[position : position + random.randint(1, 9)] = b""
        elif kind == 2:
            changed[position:position] = random.randbytes(random.randint(1, 9))
        elif changed:
            changed[position : position + 10] = b"\xff" * 9 + b"\x01"
    return bytes(changed)


@pytest.mark.parametrize(("identity", "suffix"), FILES)
def test_damaged_files(tmp_path: Path, identity: str, suffix: str) -> None:
    prefix = copy(identity, tmp_path)
    target = Path(str(prefix) + suffix)
    data, random = target.read_bytes(), Random(identity + suffix)
    assert read_all(prefix)
    for _ in range(120):
        target.write_bytes(mutate(data, random))
        read_all(prefix)


@pytest.mark.parametrize(("identity", "suffix"), FILES)
def test_files_cut_short(tmp_path: Path, identity: str, suffix: str) -> None:
    prefix = copy(identity, tmp_path)
    target = Path(str(prefix) + suffix)
    data = target.read_bytes()
    for length in range(0, len(data), 1 + len(data) // 150):
        target.write_bytes(data[:length])
        assert not read_all(prefix)


@pytest.mark.parametrize(("identity", "suffix"), TABLES)
def test_damaged_entries_under_right_checksums(tmp_path: Path, identity: str, suffix: str) -> None:
    prefix = copy(identity, tmp_path)
    target = Path(str(prefix) + suffix)
    random = Random(identity)
    entries = {
        key: value.read() if isinstance(value, Extent) else value for key, value in Table(FileSource(target)).entries()
    }
    refused = 0
    for _ in range(250):
        changed = dict(entries)
        key = random.choice([*entries, b""])
        value = changed.pop(key)
        if random.random() < 0.2:
            key = mutate(key, random)
        else:
            value = mutate(value, random)
        changed[key] = value
        file = io.BytesIO()
        writer = TableWriter(file)
        for item in sorted(changed.items()):
            writer.add(*item)
        writer.finish()
        target.write_bytes(file.getvalue())
        refused += not read_all(prefix)
    assert refused > 50


def _numbers(random: Random) -> list[int]:
    return [random.choice([0, 1, 7, 127, 128, 1 << 20, (1 << 31) - 1, 1 << 40, -1]) for _ in range(4)]


def test_entries_read_without_protobuf_are_those_that_protobuf_reads() -> None:
    random, plain = Random(5), 0
    for _ in range(2000):
        entry = BundleEntryProto(dtype=random.choice([0, 1, 23, 101]), crc32c=random.choice([0, 53, 1 << 31]))
        shard, entry.offset, entry.size, _ = _numbers(random)
        entry.shard_id = min(shard, (1 << 31) - 1)
        for size in _numbers(random)[: random.randrange(5)]:
            entry.shape.dim.add(size=size, name=random.choice(["", "", "", "batch"]))
        entry.shape.unknown_rank = random.random() < 0.1
        if random.random() < 0.1:
            entry.slices.add().extent.add(start=1, length=2)
        data = bytearray(entry.SerializeToString())
        if data and random.random() < 0.5:
            data[random.randrange(len(data))] = random.randrange(256)
        found = _plain_entry(bytes(data))
        if found is not None:
            plain += 1
            parsed = BundleEntryProto.FromString(bytes(data))
            assert found[1:6] == (
                tuple(dim.size for dim in parsed.shape.dim), parsed.shard_id, parsed.offset, parsed.size, parsed.crc32c
            )  # fmt: skip
            assert (found[0], found[6]) == (parsed.dtype, tuple(parsed.slices))
    assert plain > 200
