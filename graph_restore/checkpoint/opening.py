"""Named tensors from whatever holds some, wherever it lies: checkpoints, .npz, .safetensors, directories of .npy."""

from __future__ import annotations

import os
from collections.abc import Mapping

from graph_restore.checkpoint.checkpoint import load_checkpoint
from graph_restore.checkpoint.paths import find_checkpoint
from graph_restore.errors import CheckpointNotFoundError, GraphRestoreError
from graph_restore.storage import files
from graph_restore.tensors import LazyTensor

Tensors = Mapping[str, LazyTensor]

_SUFFIXES = {".npz": "npz", ".safetensors": "safetensors"}
_START = 64  # bytes that tell what a file is


def load_tensors(path: str | os.PathLike[str]) -> Tensors:
    """The tensors of a .npz or .safetensors file, a directory of .npy files, or of whatever `load_checkpoint` takes;
    values stay on disk.

    A directory is one of .npy files if it has no checkpoint. A file of another suffix is told by its content. Raises
    what `load_checkpoint` raises; FileNotFoundError for a .npz or .safetensors file that is not there.
    """
    name = files.plain_path(path)
    kind = weights_format(name)
    if kind == "npz":
        from graph_restore.checkpoint.npz import read_npz  # most runs need no zipfile

        return read_npz(name)
    if kind == "safetensors":
        from graph_restore.checkpoint.safetensors import read_safetensors

        return read_safetensors(name)
    if kind == "npy":
        from graph_restore.checkpoint.npy_directory import read_directory

        return read_directory(name)
    return load_checkpoint(name)


def weights_format(path: str) -> str | None:
    """ "npz" or "safetensors" for such a file, "npy" for a directory of such files, None for what can only be a
    checkpoint."""
    if os.path.isdir(path):
        return "npy" if _is_npy_directory(path) else None
    kind = _SUFFIXES.get(os.path.splitext(path)[1].lower())
    if kind is not None:
        return None if files.is_file(path + ".index") and not files.is_file(path) else kind
    return _told_by_content(path) if files.is_file(path) else None


def files_of(path: str | os.PathLike[str], tensors: Tensors) -> list[str]:
    """The files that `load_tensors` read `tensors` from."""
    return list(getattr(tensors, "files", [os.fspath(path)]))


def _is_npy_directory(path: str) -> bool:
    """Whether a directory has files of tensors, and no checkpoint."""
    try:
        find_checkpoint(path)
    except CheckpointNotFoundError:
        from graph_restore.checkpoint.npy_directory import npy_files  # most runs need none of it

        return bool(npy_files(path))
    except GraphRestoreError:
        return False  # which reading it will tell
    return False


def _told_by_content(path: str) -> str | None:
    start = files.read_start(path, _START)
    if start.startswith(b"PK\x03\x04"):  # a local header, at 26 the length of the name that follows its 30 bytes
        name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
        return "npz" if name.endswith(b".npy") else None
    header = int.from_bytes(start[:8], "little")
    return "safetensors" if start[8:10] in (b'{"', b"{}") and 2 <= header < 1 << 32 else None
