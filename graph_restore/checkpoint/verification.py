"""Every checksum of every file of a checkpoint; all damaged tensors are named, not only the first.

1. Of a V2 checkpoint every entry of the index is taken by itself: its data file, its place in it, its checksum.
2. Of a V1 file every slice is taken by itself: the table block it lies in and that block's checksum.
3. What no checksum covers (shapes against lengths, overlaps of slices) is tested by loading the checkpoint at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from graph_restore.checkpoint.checkpoint import load_checkpoint
from graph_restore.checkpoint.messages import BundleEntry, decode_entry, decode_header, decode_metadata, decode_text
from graph_restore.checkpoint.opening import weights_format
from graph_restore.checkpoint.paths import CheckpointFiles, find_checkpoint
from graph_restore.checkpoint.sniff import refuse_stand_in
from graph_restore.checkpoint.v2 import BundleStrings, shard_path
from graph_restore.dtypes import DataType
from graph_restore.errors import CheckpointNotFoundError, CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.storage import files
from graph_restore.storage.extent import Checksum, Extent
from graph_restore.storage.ordered_code import encode_slice_key
from graph_restore.storage.output import Progress
from graph_restore.storage.source import BytesSource, Source
from graph_restore.storage.table import Table
from graph_restore.tensors import StringTensor

_Part = tuple[str, Extent | StringTensor | Exception]


@dataclass
class Verification:
    """What was read of the checkpoint `prefix`: `tensors` names, `bytes` in `seconds`.

    `damaged`: name of a tensor (or file) to what is wrong with it, one message a slice.
    """

    prefix: str
    version: int
    tensors: int = 0
    bytes: int = 0
    seconds: float = 0.0
    damaged: dict[str, list[str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damaged

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        return {"ok": self.ok, **vars(self)}


def verify_checkpoint(path: str | os.PathLike[str], progress: Progress | None = None) -> Verification:
    """Read all of a checkpoint and compare its checksums; `progress` is called with the number of bytes just read.

    Damage is what comes back, not an error. CheckpointNotFoundError when there is no checkpoint at `path`,
    UnsupportedFormatError for a .npz or .safetensors file.
    """
    if weights_format(files.plain_path(path)) is not None:
        raise UnsupportedFormatError("only checkpoints have checksums to verify; these files have none", path=str(path))
    found = find_checkpoint(path)
    result = Verification(found.prefix, found.version)
    start = time.perf_counter()
    names: set[str] = set()
    for name, part in _parts(found):
        names.add(name)
        try:
            _read(part, result, progress)
        except (FormatError, CheckpointNotFoundError) as error:
            result.damaged.setdefault(name, []).append(str(error))
    result.tensors = len(names - set(found.files))
    if result.ok:
        try:
            load_checkpoint(path)
        except FormatError as error:
            result.damaged[found.prefix] = [str(error)]
    result.seconds = time.perf_counter() - start
    return result


def _read(part: Extent | StringTensor | Exception, result: Verification, progress: Progress | None) -> None:
    if isinstance(part, Exception):
        raise part
    for chunk in part.strings() if isinstance(part, StringTensor) else part.chunks():
        result.bytes += len(chunk)
        if progress is not None:
            progress(len(chunk))


def _parts(found: CheckpointFiles) -> Iterator[_Part]:
    """(name, what to read) of every stretch that has a checksum; the name is the file's where the file is damaged."""
    for path in found.files:
        try:
            yield from _index_parts(path, found.prefix) if found.version == 2 else _table_parts(path)
        except FormatError as error:
            yield path, error


def _index_parts(path: str, prefix: str) -> Iterator[_Part]:
    entries = {key: v.read() if isinstance(v, Extent) else v for key, v in Table(files.open_source(path)).entries()}
    count = decode_header(entries.pop(b"", b""), path).num_shards
    decoded = {key: decode_entry(value, decode_text(key), path) for key, value in entries.items()}
    names = {
        encode_slice_key(decode_text(key), part.starts, part.lengths): decode_text(key)
        for key, entry in decoded.items()
        for part in entry.slices
    }
    shards: dict[int, Source | Exception] = {}
    for key, entry in sorted(decoded.items(), key=lambda item: (item[1].shard, item[1].offset)):
        name = names.get(key) or decode_text(key)
        if entry.size and not entry.slices:
            if entry.shard not in shards:
                shards[entry.shard] = _shard(shard_path(prefix, entry.shard, count))
            yield name, _stretch(name, entry, shards[entry.shard])
        else:
            yield name, _inline(b"")


def _shard(path: str) -> Source | Exception:
    if files.is_file(path):
        source = files.open_source(path)
        try:
            refuse_stand_in(source)
        except FormatError as error:
            return error
        return source
    return CheckpointNotFoundError(f"{path}: the data file is missing; copy it beside the index")


def _inline(data: bytes) -> Extent:
    return Extent(BytesSource(data), 0, len(data))


def _stretch(name: str, entry: BundleEntry, source: Source | Exception) -> Extent | StringTensor | Exception:
    if isinstance(source, Exception):
        return source
    if entry.offset + entry.size > source.size:
        return CorruptionError(
            "the data file is too short; it was cut short, or is of another checkpoint",
            path=source.name,
            offset=entry.offset,
            expected=f"{entry.offset + entry.size} bytes or more",
            found=source.size,
        )
    checksum = Checksum(entry.offset, entry.size, entry.crc, f"tensor {name}")
    extent = Extent(source, entry.offset, entry.size, checksum)
    if entry.data_type is not DataType.DT_STRING:
        return extent
    try:
        return BundleStrings(name, entry.shape, extent)
    except FormatError as error:
        return error


def _table_parts(path: str) -> Iterator[_Part]:
    table = Table(files.open_source(path))
    metadata = table.get(b"")
    data = metadata.read() if isinstance(metadata, Extent) else metadata
    if data is None:
        raise FormatError("a table, but no V1 checkpoint: it has no metadata", path=path)
    values = _intact_values(table)
    for meta in decode_metadata(data, path):
        for part in meta.slices:
            key = encode_slice_key(meta.name, part.starts, part.lengths)
            yield meta.name, _value(table, key, values, path)


def _intact_values(table: Table) -> dict[bytes, Extent]:
    """All values, where none of the blocks read on the way is damaged; else those before the damage."""
    values: dict[bytes, Extent] = {}
    try:
        for key, value in table.entries(inline=-1):
            if isinstance(value, Extent):
                values[key] = value
    except FormatError:
        pass  # the values behind are looked up one by one, and those in the damaged block named
    return values


def _value(table: Table, key: bytes, values: dict[bytes, Extent], path: str) -> Extent | Exception:
    if key in values:
        return values[key]
    try:
        found = table.get(key)
    except FormatError as error:
        return error
    if found is None:
        return CorruptionError("a slice that the metadata list is not there", path=path)
    return found if isinstance(found, Extent) else _inline(found)  # bytes were verified on the way
