"""Writes V2 checkpoints; v2.py tells the format. Tensors lie back to back in each data file, in the order given."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from graph_restore.arrays import np
from graph_restore.checkpoint.encoding import encode_bundle_entry, encode_bundle_header, encode_text, encode_varints
from graph_restore.checkpoint.messages import BundleEntry
from graph_restore.checkpoint.v2 import _length_bytes, shard_path
from graph_restore.checkpoint.write_plan import Piece
from graph_restore.errors import CorruptionError
from graph_restore.storage.crc32c import extend, mask
from graph_restore.storage.extent import Checksum, Extent
from graph_restore.storage.output import AtomicFile, Progress
from graph_restore.storage.table import TableWriter
from graph_restore.tensors import ContentTensor, LazyTensor, StringTensor

_AT_ONCE = 1 << 16  # string lengths encoded at a time


def write_bundle(prefix: str, shards: Sequence[Sequence[Piece]], progress: Progress | None = None) -> list[str]:
    """Writes the V2 checkpoint `prefix` and gives the names of its files, the index last.

    Content is copied as it is, its checksums tested on the way: CorruptionError when one is wrong, or when a tensor has
    another length than its shape asks for.
    """
    paths = [shard_path(prefix, shard, len(shards)) for shard in range(len(shards))]
    entries: dict[bytes, BundleEntry] = {}
    parted: dict[str, list[Piece]] = {}
    for shard, (path, pieces) in enumerate(zip(paths, shards)):
        with AtomicFile(path, progress) as file:
            for piece in pieces:
                if piece.box:
                    parted.setdefault(piece.name, []).append(piece)
                key = piece.slice_key if piece.box else encode_text(piece.name)
                entries[key] = _write_tensor(file, piece.tensor, shard)
    for name, parts in parted.items():
        slices = tuple(part.extents for part in parts)
        entries[encode_text(name)] = BundleEntry(parts[0].tensor.data_type, parts[0].shape, 0, 0, 0, 0, slices)
    _write_index(prefix + ".index", len(shards), entries, progress)
    return [*paths, prefix + ".index"]


def _write_index(path: str, num_shards: int, entries: dict[bytes, BundleEntry], progress: Progress | None) -> None:
    with AtomicFile(path, progress) as file:
        writer = TableWriter(file)
        writer.add(b"", encode_bundle_header(num_shards))
        for key in sorted(entries):
            writer.add(key, encode_bundle_entry(entries[key]))
        writer.finish()


def _write_tensor(file: AtomicFile, tensor: LazyTensor, shard: int) -> BundleEntry:
    offset = file.size
    if isinstance(tensor, StringTensor):
        crc = _write_strings(file, tensor)
    else:
        spliced = _splice(file, tensor)
        crc = _copy(file, tensor) if spliced is None else spliced
    return BundleEntry(tensor.data_type, tensor.shape, shard, offset, file.size - offset, crc, ())


def _splice(file: AtomicFile, tensor: LazyTensor) -> int | None:
    """Copies content that a checksum of its own vouches for, which is tested on the way and so need not be made."""
    if not isinstance(tensor, ContentTensor) or len(tensor.extents) != 1:
        return None
    check = _own_checksum(tensor.extents[0])
    if check is None:
        return None
    file.splice(tensor.extents[0])
    return check.masked_crc


def _own_checksum(extent: Extent) -> Checksum | None:
    check = extent.checksum
    return check if check and (check.offset, check.length) == (extent.offset, extent.length) else None


def _copy(file: AtomicFile, tensor: LazyTensor) -> int:
    crc = count = 0
    for chunk in tensor.chunks():
        crc = extend(crc, chunk)
        count += len(chunk)
        file.write(chunk)
    _check_length(tensor, tensor.nbytes, count)
    return mask(crc)


def _write_strings(file: AtomicFile, tensor: StringTensor) -> int:
    lengths = tensor.lengths()
    for start in range(0, lengths.size, _AT_ONCE):
        file.write(encode_varints(lengths[start : start + _AT_ONCE].astype(np.uint64)))
    crc = extend(0, _length_bytes(lengths))
    checksum = struct.pack("<I", mask(crc))
    file.write(checksum)
    crc, count = extend(crc, checksum), 0
    for string in tensor.strings():
        crc = extend(crc, string)
        count += len(string)
        file.write(string)
    _check_length(tensor, int(lengths.sum()), count)
    return mask(crc)


def _check_length(tensor: LazyTensor, expected: int, found: int) -> None:
    if found != expected:
        raise CorruptionError(
            f"tensor {tensor.name} has a wrong length; it changed while it was read", expected=expected, found=found
        )
