"""V2 checkpoints, "tensor bundles": `p.index`, a table of entries, and the data in `p.data-0000i-of-0000n`.

    index    := table of "" -> header, tensor name -> entry, slice key -> entry of a slice
    data     := the tensors' contents, one after the other in any order: little endian, row-major
    strings  := varint length of each, masked crc of the lengths (4 bytes), then the bytes of each

An entry gives shard, offset, size and checksum. A partitioned tensor's entry lists its slices instead, and each slice
has an entry under its ordered-code key. The format is that of tensorflow/core/util/tensor_bundle/tensor_bundle.cc.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.messages import (
    BundleEntry,
    decode_entry,
    decode_header,
    decode_text,
    is_v1_metadata,
)
from graph_restore.checkpoint.partial import OpaqueTensor, assemble
from graph_restore.checkpoint.sniff import describe_file, refuse_stand_in
from graph_restore.dtypes import DataType
from graph_restore.errors import CheckpointNotFoundError, CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.storage.coding import Window
from graph_restore.storage.crc32c import extend, mask
from graph_restore.storage.extent import Checksum, Extent
from graph_restore.storage.files import is_file, open_source
from graph_restore.storage.ordered_code import encode_slice_key
from graph_restore.storage.source import Source
from graph_restore.storage.table import Table
from graph_restore.tensors import ContentTensor, LazyTensor, StringTensor, VarintTensor, check_rank

_OPAQUE = (DataType.DT_RESOURCE, DataType.DT_VARIANT)
_UINT32_MAX = (1 << 32) - 1


def shard_path(prefix: str, shard: int, count: int) -> str:
    """The name of a V2 checkpoint's data file."""
    return f"{prefix}.data-{shard:05d}-of-{count:05d}"


def read_bundle(prefix: str) -> tuple[dict[str, LazyTensor], list[str]]:
    """(tensors by name, files they lie in, the index first) of the V2 checkpoint at `prefix`.

    All entries are checked against the sizes of the files. FormatError where they cannot be; CheckpointNotFoundError
    naming the data files that are missing.
    """
    path = prefix + ".index"
    table = Table(open_source(path))
    values = {key: value.read() if isinstance(value, Extent) else value for key, value in table.entries()}
    count = _shard_count(values.pop(b"", None), path)
    entries = {key: decode_entry(value, _shown(key), path) for key, value in values.items()}
    shards = _Shards(prefix, count, entries)
    whole, parts = _split(entries, path)
    tensors: dict[str, LazyTensor] = {}
    for name, entry in whole.items():
        if entry.slices:
            tensors[name] = _joined(name, entry, parts, shards)
        else:
            tensors[name] = shards.tensor(name, entry)
    return tensors, [path, *shards.paths]


def _shown(key: bytes) -> str:
    return decode_text(key) if key[:1] != b"\x00" else "slice key " + key.hex()


def _shard_count(header: bytes | None, path: str) -> int:
    if header is None:
        raise CorruptionError("the index of a V2 checkpoint has no header", path=path)
    if header and is_v1_metadata(header):
        raise FormatError("this table is a V1 checkpoint under the name of a V2 index; rename it", path=path)
    decoded = decode_header(header, path)
    if decoded.big_endian:
        raise UnsupportedFormatError(
            "a big-endian checkpoint, written on a machine of that kind; load and save it there, or convert it",
            path=path,
            expected="endianness LITTLE",
            found="BIG",
        )
    if not 0 <= decoded.num_shards <= 99999:
        raise FormatError("impossible number of shards", path=path, found=decoded.num_shards)
    return decoded.num_shards


def _split(entries: dict[bytes, BundleEntry], path: str) -> tuple[dict[str, BundleEntry], dict[bytes, BundleEntry]]:
    """(entries of tensors by name, entries of slices by key); CorruptionError when a listed slice has no entry."""
    keys: set[bytes] = set()
    for key, entry in entries.items():
        for part in entry.slices:
            slice_key = encode_slice_key(decode_text(key), part.starts, part.lengths)
            if slice_key not in entries:
                raise CorruptionError(
                    f"a slice of tensor {_shown(key)!r} has no entry of its own",
                    path=path,
                    expected=f"starts {part.starts}, lengths {part.lengths}",
                )
            keys.add(slice_key)
    whole = {decode_text(key): entry for key, entry in entries.items() if key not in keys}
    return whole, {key: entries[key] for key in keys}


def _joined(name: str, entry: BundleEntry, parts: dict[bytes, BundleEntry], shards: _Shards) -> LazyTensor:
    slices = []
    for extents in entry.slices:
        part = parts[encode_slice_key(name, extents.starts, extents.lengths)]
        box = extents.within(entry.shape)
        if part.shape != box.lengths or part.data_type != entry.data_type or part.slices:
            raise CorruptionError(
                f"slice {box} of tensor {name!r} has an entry of another kind",
                path=shards.prefix + ".index",
                expected=f"{entry.data_type.name} {list(box.lengths)}",
                found=f"{part.data_type.name} {list(part.shape)}",
            )
        slices.append((box, shards.tensor(name, part)))
    return assemble(name, entry.data_type, entry.shape, slices)


class _Shards:
    """The data files of a bundle; only those that tensors lie in must be there."""

    def __init__(self, prefix: str, count: int, entries: dict[bytes, BundleEntry]) -> None:
        self.prefix = prefix
        used: dict[int, list[bytes]] = {}
        for key, entry in entries.items():
            if entry.size and not entry.slices:
                used.setdefault(entry.shard, []).append(key)
        if used and max(used) >= count:
            raise CorruptionError(
                f"tensor {_shown(used[max(used)][0])!r} lies in a shard that cannot be",
                path=prefix + ".index",
                expected=f"shard below {count}",
                found=max(used),
            )
        names = {shard: shard_path(prefix, shard, count) for shard in sorted(used)}
        missing = [shard for shard, path in names.items() if not is_file(path)]
        if missing:
            raise CheckpointNotFoundError(_missing_text(prefix, count, names, {s: used[s] for s in missing}))
        self._sources: dict[int, Source] = {shard: open_source(path) for shard, path in names.items()}
        for source in self._sources.values():
            refuse_stand_in(source)
        self.paths = list(names.values())

    def tensor(self, name: str, entry: BundleEntry) -> LazyTensor:
        """The tensor an entry describes, its place checked against the size of the file."""
        if entry.data_type in _OPAQUE:
            return OpaqueTensor(name, entry.data_type, entry.shape)
        extent = self._extent(name, entry)
        if entry.data_type is DataType.DT_STRING:
            return BundleStrings(name, entry.shape, extent)
        return ContentTensor(name, entry.data_type, entry.shape, [extent] if extent else [])

    def _extent(self, name: str, entry: BundleEntry) -> Extent | None:
        if not entry.size:
            return None
        source = self._sources[entry.shard]
        if entry.offset + entry.size > source.size:
            what = describe_file(source.name)
            hint = f"it is {what}" if what else "it was cut short, or is of another checkpoint"
            raise CorruptionError(
                f"the data file is shorter than tensor {name!r} needs; {hint}",
                path=source.name,
                offset=entry.offset,
                expected=f"{entry.offset + entry.size} bytes or more",
                found=source.size,
            )
        checksum = Checksum(entry.offset, entry.size, entry.crc, f"tensor {name}")
        return Extent(source, entry.offset, entry.size, checksum)


def _missing_text(prefix: str, count: int, names: dict[int, str], lost_keys: dict[int, list[bytes]]) -> str:
    lost = [
        f"{names[shard]} (with {len(keys)} tensors, such as {_shown(min(keys))!r})" for shard, keys in lost_keys.items()
    ]
    return (
        f"checkpoint {prefix} is incomplete: its index counts {count} data file{'' if count == 1 else 's'}, and these "
        f"are missing: {', '.join(lost)}; copy them beside {prefix}.index"
    )


class BundleStrings(StringTensor):
    """Strings of a V2 checkpoint. The checksum covers the lengths as uint32, their checksum, and the bytes."""

    def __init__(self, name: str, shape: tuple[int, ...], extent: Extent | None) -> None:
        super().__init__(name, DataType.DT_STRING, shape)
        self._extent = extent
        if (extent.length if extent else 0) < (self.size + 4 if extent or self.size else 0):
            raise CorruptionError(
                f"string tensor {name!r} has too few bytes for its shape {list(shape)}",
                path=extent.source.name if extent else None,
                offset=extent.offset if extent else None,
                expected=f"{self.size + 4} or more",
                found=extent.length if extent else 0,
            )

    def lengths(self) -> np.ndarray[Any, Any]:
        return self._head()[0]

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        check_rank(self)
        width = math.prod(self.shape[1:])
        values = np.empty((stop - start) * width, object)
        if values.size and self._extent is not None:
            lengths, position = self._head()
            position += 4 + int(lengths[: start * width].sum())
            window = Window(self._extent.source)
            for number, length in enumerate(lengths[start * width : stop * width].tolist()):
                values[number] = window.bytes_at(position, length)
                position += length
        return values.reshape(stop - start, *self.shape[1:])

    def strings(self, verify: bool = True) -> Iterator[bytes]:
        if self._extent is None:
            return
        lengths, position = self._head()
        region, source = self._extent.checksum, self._extent.source
        window = Window(source)
        lengths_crc = extend(0, _length_bytes(lengths))
        stored = source.pread(position, 4)
        if verify and mask(lengths_crc) != int.from_bytes(stored, "little"):
            raise CorruptionError(
                f"checksum of the lengths of tensor {self.name} does not match", path=source.name, offset=position
            )
        crc, position = extend(lengths_crc, stored), position + 4
        for length in lengths.tolist():
            string = window.bytes_at(position, length)
            crc = extend(crc, string) if verify else crc
            position += length
            yield string
        if verify and region is not None and mask(crc) != region.masked_crc:
            raise CorruptionError(
                f"checksum of tensor {self.name} does not match; the file is damaged, take another copy of it",
                path=source.name,
                offset=region.offset,
                expected=f"crc32c {region.masked_crc:#010x}",
                found=f"{mask(crc):#010x}",
            )

    def _head(self) -> tuple[np.ndarray[Any, Any], int]:
        """(lengths, offset of their checksum); CorruptionError unless they fill the tensor's bytes exactly."""
        extent = self._extent
        if extent is None:
            return np.zeros(0, np.int64), 0
        end = self._lengths_end(extent)
        varints = Extent(extent.source, extent.offset, end - extent.offset)
        if not self.size:
            lengths = np.zeros(0, np.uint64)
        else:
            lengths = VarintTensor(self.name, DataType.DT_UINT64, (self.size,), varints).read()
        space = extent.offset + extent.length - end - 4
        if space < 0 or lengths.max(initial=0) > space or sum(lengths.tolist()) != space:
            raise CorruptionError(
                f"the lengths of string tensor {self.name} do not fill its bytes",
                path=extent.source.name,
                offset=extent.offset,
                expected=f"{space} bytes",
                found=sum(lengths.tolist()),
            )
        return lengths.astype(np.int64), end

    def _lengths_end(self, extent: Extent) -> int:
        """Where the last length ends."""
        left, position = self.size, extent.offset
        for chunk in extent.source.chunks(extent.offset, extent.length if left else 0):
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) < 0x80)
            if ends.size >= left:
                return position + int(ends[left - 1]) + 1
            left -= ends.size
            position += len(chunk)
        if left:
            raise CorruptionError(f"the lengths of string tensor {self.name} do not end", path=extent.source.name)
        return position


def _length_bytes(lengths: np.ndarray[Any, Any]) -> bytes:
    """The lengths as the checksum counts them: 4 bytes each, 8 for those that need them."""
    if lengths.max(initial=0) <= _UINT32_MAX:
        return lengths.astype("<u4").tobytes()
    return b"".join(length.to_bytes(4 if length <= _UINT32_MAX else 8, "little") for length in lengths.tolist())
