"""save_checkpoint: tensors to a checkpoint of either version, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from graph_restore.checkpoint.install import existing_files, install, staging
from graph_restore.checkpoint.paths import find_checkpoint
from graph_restore.checkpoint.state import STATE_NAME, is_state_file, places, read_state, write_state
from graph_restore.checkpoint.write_plan import divide, make_pieces
from graph_restore.checkpoint.write_v1 import check_pieces, write_tables
from graph_restore.checkpoint.write_v2 import write_bundle
from graph_restore.errors import GraphRestoreError
from graph_restore.storage.output import Progress, local_path, refuse_special


def save_checkpoint(
    prefix: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    version: int = 2,
    shards: int | None = None,
    shard_bytes: int | None = None,
    keep_slices: bool = False,
    state: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Saves `tensors` as the checkpoint `prefix` and gives the path TensorFlow restores from.

    That is `prefix` itself, or for V1 in several shards the pattern `prefix-?????-of-00002`.

    `tensors`: names to LazyTensors (a Checkpoint is such a mapping) or to anything numpy makes an array of; strings are
    arrays of bytes or text. Content on disk goes from file to file in pieces, its checksums tested on the way.
    `version`: 2 (`prefix.index` and `prefix.data-*`), or 1, for programs made with TensorFlow before 0.12.
    `shards`, `shard_bytes`: into how many files, or files of at most what size; a tensor or slice is never divided.
    `keep_slices`: partitioned tensors stay in the slices they lie in (also those that `slices.join` puts together);
    they are made whole by default, and a Saver of a partitioned variable restores either.
    `state`: records it as the newest in the `checkpoint` file beside it. `overwrite`: replaces the checkpoint, of
    either version, that is at `prefix`. `progress`: called with the number of bytes just written.

    New files take their names when all are written, the index last. Until then, and after any error, the old ones
    stay. The directory is made if there is none.

    Raises UnsupportedFormatError before anything is written for what the version cannot hold (tensors past 2 GiB in V1
    later), GraphRestoreError when a checkpoint is there already, CorruptionError when a checksum is wrong.
    """
    path = local_path(prefix)
    refuse_special(path, "a checkpoint is several files")
    if version not in (1, 2):
        raise ValueError(f"checkpoints have version 1 or 2, found {version!r}")
    if version == 1 and not os.path.basename(path):
        raise ValueError(f"a V1 checkpoint is a file and needs a name; {path!r} names a directory")
    pieces = make_pieces(tensors, keep_slices)
    if version == 1:
        check_pieces(pieces)
    groups = divide(pieces, shards, shard_bytes)
    _refuse_existing(path, version, overwrite)
    directory, base = os.path.split(path)
    os.makedirs(directory or ".", exist_ok=True)
    with staging(path) as stage:
        write = write_bundle if version == 2 else write_tables
        written = write(os.path.join(stage, base), groups, progress)
        _refuse_existing(path, version, overwrite)  # again: writing may have taken long
        install(written, directory or ".", existing_files(path, version))
    saved = f"{path}-?????-of-{len(groups):05d}" if version == 1 and len(groups) > 1 else path
    if state:
        write_state(directory or ".", saved, [*_recorded(directory), saved])
    return saved


def _refuse_existing(path: str, version: int, overwrite: bool) -> None:
    there = existing_files(path, version)
    if there and not overwrite:
        shown = ", ".join(there[:4]) + (f" and {len(there) - 4} more" if len(there) > 4 else "")
        raise GraphRestoreError(
            f"a checkpoint is at {path} already: {shown}; pass overwrite=True to replace it, or take another prefix"
        )


def _recorded(directory: str) -> list[str]:
    """Prefixes of the checkpoints that the directory's state file names and that are there."""
    path = os.path.join(directory, STATE_NAME)
    if not is_state_file(path):
        return []
    found = []
    for recorded in read_state(path).all:
        place = next(filter(_is_checkpoint, places(recorded, directory)), None)
        if place is not None:
            found.append(place)
    return found


def _is_checkpoint(prefix: str) -> bool:
    try:
        there = os.path.isfile(prefix + ".index")
        return there or (not os.path.isdir(prefix) and bool(find_checkpoint(prefix).files))
    except GraphRestoreError:
        return False
