"""Named tensors from one format to another: checkpoints of both versions, .npz, .safetensors, directories of .npy.

The format of an output is told by its name:

    out.npz, out.safetensors     that format
    out/                         a directory of .npy files
    any other name               a checkpoint of that prefix
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from graph_restore.checkpoint.install import existing_files, staging
from graph_restore.checkpoint.objects import OBJECT_GRAPH_KEY
from graph_restore.checkpoint.opening import Tensors, files_of, load_tensors
from graph_restore.errors import GraphRestoreError, warn
from graph_restore.storage.output import Progress, is_stream, local_path, refuse_special

_WRITERS = {".npz": ("npz", "write_npz"), ".safetensors": ("safetensors", "write_safetensors")}  # module, function
_FILES = re.compile(r"\.(?:index|meta|data-\d{5}-of-\d{5})$")
_STRANGERS = {".npy", ".h5", ".hdf5", ".keras", ".pt", ".pth", ".pb", ".pbtxt", ".onnx", ".tflite", ".json", ".csv"}


def output_format(output: str) -> str:
    """What a name asks for: ".npz", ".safetensors", "directory" or "checkpoint".

    GraphRestoreError for no name at all, that of a file inside a checkpoint, or of a format that is not written.
    """
    if not output:
        raise GraphRestoreError("the output has no name; give the prefix of a checkpoint, or a file to write")
    if output.endswith(("/", os.sep)):
        return "directory"
    suffix = os.path.splitext(output)[1].lower()
    if suffix in _WRITERS:
        return suffix
    if _FILES.search(output):
        prefix = _FILES.sub("", output)
        raise GraphRestoreError(f"{output} is the name of one of a checkpoint's files; give its prefix, {prefix}")
    if suffix in _STRANGERS:
        raise GraphRestoreError(
            f"{output}: no {suffix} files are written; take .npz, .safetensors, a directory (with / at the end), "
            "or the prefix of a checkpoint"
        )
    if os.path.isdir(output):
        raise GraphRestoreError(f"{output} is a directory; for .npy files in it write {output}/, else give a prefix")
    return "checkpoint"


def write_tensors(
    tensors: Tensors,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    sources: Iterable[str] = (),
    progress: Progress | None = None,
    **options: Any,
) -> str:
    """Write `tensors` under a name that tells the format; gives the path to load them from.

    `options` are those of `save_checkpoint` and are for checkpoints only (ValueError). `sources`: files that must stay
    as they are. GraphRestoreError when one of them would be replaced, or when there is an output already and not
    `overwrite`; UnsupportedFormatError naming all tensors that the format cannot hold.
    """
    name = local_path(output)
    kind = output_format(name)
    tensors = for_format(tensors, kind)
    _check_free(name, kind, options.get("version", 2), overwrite, list(sources))
    if kind == "checkpoint":
        from graph_restore.checkpoint.saving import save_checkpoint  # each run writes one format

        return save_checkpoint(name, tensors, overwrite=overwrite, progress=progress, **options)
    if options:
        raise ValueError(f"{', '.join(options)} concern checkpoints only, and {name} is none")
    if kind == "directory":
        _fill(name, tensors, progress)
    else:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        module, function = _WRITERS[kind]
        getattr(import_module(f"graph_restore.checkpoint.{module}"), function)(tensors, name, progress)
    return name


def for_format(tensors: Tensors, kind: str) -> Tensors:
    """The tensors that an output of that format is to have: .safetensors, which has no strings, does without the object
    graph, which is no weight; a GraphRestoreWarning tells it.
    """
    if kind != ".safetensors" or OBJECT_GRAPH_KEY not in tensors or len(tensors) == 1:
        return tensors
    warn(f"{OBJECT_GRAPH_KEY}, which tells objects and their tensors, is left out: safetensors files have no strings")
    return {name: tensor for name, tensor in tensors.items() if name != OBJECT_GRAPH_KEY}


def convert(source: str | os.PathLike[str], output: str | os.PathLike[str], **options: Any) -> str:
    """Copy all tensors of `source` to another format; gives the path to load them from.

    `options` and errors are those of `write_tensors`. A checkpoint gets one shard and whole tensors unless told.
    """
    tensors = load_tensors(source)
    return write_tensors(tensors, output, sources=files_of(source, tensors), **options)


def _check_free(output: str, kind: str, version: int, overwrite: bool, sources: list[str]) -> None:
    there = _existing(output, kind, version)
    kept = {os.path.realpath(path) for path in sources}
    for path in there:
        if kind != "directory" and os.path.realpath(path) in kept:
            raise GraphRestoreError(f"{output} is the source itself, which is never changed; write to another place")
    inside = os.path.join(os.path.realpath(output), "")
    own = [path for path in kept if kind == "directory" and path.endswith(".npy") and path.startswith(inside)]
    if own:
        raise GraphRestoreError(f"{output} holds the source, {own[0]}, which is never changed; write to another place")
    if there and not overwrite:
        more = f" and {len(there) - 1} more are" if len(there) > 1 else " is"
        raise GraphRestoreError(f"{there[0]}{more} there already; pass overwrite=True to replace it")


def _existing(output: str, kind: str, version: int) -> list[str]:
    if kind == "checkpoint":
        return existing_files(output, version)
    if kind == "directory":
        return [os.path.join(output, name) for name in sorted(os.listdir(output))] if os.path.isdir(output) else []
    return [output] if os.path.lexists(output) and not is_stream(output) else []


def _fill(directory: str, tensors: Tensors, progress: Progress | None) -> None:
    """Into a new directory all files at once; into one that is there, file by file."""
    from graph_restore.checkpoint.npy import write_directory

    place = directory.rstrip("/" + os.sep) or directory
    refuse_special(place, "a file is made for each tensor")
    if os.path.isdir(place):
        write_directory(tensors, place, progress)
        return
    os.makedirs(os.path.dirname(os.path.abspath(place)), exist_ok=True)
    with staging(place) as stage:
        whole = os.path.join(stage, "tensors")
        os.mkdir(whole)
        write_directory(tensors, whole, progress, fresh=True)
        os.rename(whole, place)
