"""load and export: recognise what is asked for, hand it to the room that does it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from importlib import import_module
from typing import Any

from graph_restore.checkpoint import latest_checkpoint, load_checkpoint
from graph_restore.checkpoint.listing import is_table
from graph_restore.errors import CheckpointNotFoundError, FormatError, UnsupportedFormatError, warn
from graph_restore.formats.event_file import accumulated, read_event_file
from graph_restore.formats.graph_def import scan, write_graph_def, write_graph_def_text
from graph_restore.formats.memmapped import read_memmapped, write_memmapped
from graph_restore.formats.meta_graph import from_graph, read_meta_graph
from graph_restore.formats.run_directory import find_graph
from graph_restore.formats.saved_model import find_saved_model, read_saved_model
from graph_restore.formats.session_bundle import META_NAME, find_bundle
from graph_restore.formats.text import parse_text
from graph_restore.graph import Graph
from graph_restore.model import Model, ModelSource
from graph_restore.recognise import recognise
from graph_restore.storage import files
from graph_restore.storage.output import Progress
from graph_restore.storage.source import BytesSource, Source

__all__ = ["export", "load", "load_checkpoint"]

_MESSAGES = ("GraphDef", "MetaGraphDef", "SavedModel")
_CHECKPOINT_FILE = re.compile(r"\.index$|(?:\.data)?-\d{5}-of-\d{5}$")
_SHARDS = re.compile(r"-\?{5}-of-\d{5}$")
_DATA_SHARD = re.compile(r"\.data-\d{5}-of-\d{5}$")


def load(source: Any, *, tags: Collection[str] | None = None) -> Model:
    """The Model in `source`: a path (file or directory), bytes, a GraphDef, MetaGraphDef or SavedModel message, or a
    TensorBoard EventAccumulator that has been reloaded.

    A path may lead into an archive (`run.zip/model.ckpt.meta`, `run.tar.gz/model`) or, with fsspec, to a store
    (`gs://`, `s3://`, `http://` ...). The prefix of a checkpoint means its `.meta`. What a file is, is told by its
    content. Large constants stay in it, so it must not change while the Model is used.
    `tags` chooses the MetaGraphDef of a SavedModel, [] the one without tags. No values are attached to variables; see
    `restore`.

    Raises FormatError (or its UnsupportedFormatError, CorruptionError) when it is no model, naming what it is;
    FileNotFoundError when nothing is there.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        return _read(BytesSource(bytes(source)), ModelSource(), tags)
    message_name = getattr(getattr(source, "DESCRIPTOR", None), "name", None)
    if message_name in _MESSAGES:
        return _read(BytesSource(source.SerializeToString(), f"<{message_name}>"), ModelSource(), tags, message_name)
    path = files.plain_path(source)
    if files.is_accumulator(source):
        checkpoint = latest_checkpoint(path) if files.is_directory(path) else None
        return replace(load(accumulated(source)), source=ModelSource(path, "message", checkpoint, path))
    return _load_path(path, tags)


def _load_path(path: str, tags: Collection[str] | None) -> Model:
    if files.is_directory(path):
        return _load_directory(path, tags)
    if not files.exists(path):
        meta = _SHARDS.sub("", path) + ".meta"
        if files.is_file(meta):
            return _load_path(meta, tags)  # a checkpoint's prefix was given, or what Savers call one of V1 shards
        if os.path.islink(path):
            raise FileNotFoundError(f"{path}: a link to {os.readlink(path)}, which is not there; copy the file itself")
        raise FileNotFoundError(
            f"{path or 'the empty path'}: no such file or directory; pass a .meta, .pb, .pbtxt, event file or directory"
        )
    if files.is_file(path + ".meta") and is_table(path):
        return _load_path(path + ".meta", tags)  # a V1 checkpoint is a file of the prefix's name
    folder = os.path.dirname(path)
    return _read(files.open_source(path), ModelSource(path, checkpoint=_checkpoint_beside(path), folder=folder), tags)


def _load_directory(path: str, tags: Collection[str] | None) -> Model:
    saved_model, bundle = find_saved_model(path), find_bundle(path)
    if saved_model is not None:
        return _read(files.open_source(saved_model), ModelSource(path, folder=path), tags)
    if bundle is not None:
        origin = ModelSource(path, checkpoint=_checkpoint_beside(bundle), folder=path)
        return _read(files.open_source(bundle), origin, tags)
    graph, checkpoint = find_graph(path)
    return _read(files.open_source(graph), ModelSource(graph, checkpoint=checkpoint, folder=path), tags)


def _checkpoint_beside(path: str) -> str | None:
    """The checkpoint a `.meta` belongs to: its own prefix. Whether it is there is found out when it is wanted."""
    return path[: -len(".meta")] if path.endswith(".meta") else None


def _read(source: Source, origin: ModelSource, tags: Collection[str] | None, message: str | None = None) -> Model:
    origin = replace(origin, file=source.name if origin.path else "")
    kind = recognise(source) if message is None else None
    name = message or (kind.message if kind is not None else "")
    text = kind is not None and kind.text
    if tags is not None and name != "SavedModel":
        raise FormatError(
            f"tags choose a MetaGraphDef of a SavedModel; this is none, but of the kind {name}: leave them out",
            path=source.name,
        )
    if name == "SavedModel":
        return read_saved_model(source, text, _with_format(origin, "saved_model"), tags)
    if name == "MetaGraphDef":
        bundle = os.path.basename(source.name) == META_NAME
        form = "session_bundle" if bundle else "meta_graph_text" if text else "meta_graph"
        return read_meta_graph(source, text, _with_format(origin, form))
    if name == "GraphDef":
        origin = _with_format(origin, "graph_def_text" if text else "graph_def")
        if text:
            return from_graph(Graph(parse_text(source, "GraphDef")), origin, {})
        scanned = scan(source, "GraphDef")
        return from_graph(Graph(scanned.message, scanned.of_graph()), origin, {})
    if name == "Memmapped":
        return read_memmapped(source, _with_format(origin, "memmapped"))
    if name == "Event":
        return read_event_file(source, _with_format(origin, "event_file"))
    if name == "Checkpoint":
        raise UnsupportedFormatError(_without_graph(source.name), path=source.name)
    raise UnsupportedFormatError("this is a `checkpoint` state file; pass the directory it lies in", path=source.name)


def _without_graph(path: str) -> str:
    """What to do with a file of a checkpoint that was given as the model."""
    meta = _CHECKPOINT_FILE.sub("", path) + ".meta"
    what = "a data shard of a checkpoint" if _DATA_SHARD.search(path) else "a checkpoint's values"
    if files.is_file(meta):
        return f"this is {what}, without a graph; pass the .meta beside it as the model, {meta}"
    return (
        f"this is {what}, without a graph; pass the .meta of that checkpoint, or the .pb or .pbtxt of its graph, as "
        "the model, and this second, as the checkpoint (it is read alone by load_checkpoint(path))"
    )


def _with_format(origin: ModelSource, name: str) -> ModelSource:
    return replace(origin, format=name)


def own_checkpoint(model: Model) -> str:
    """The path of the checkpoint that belongs to a model; CheckpointNotFoundError for a bare graph."""
    if model.source.checkpoint is None:
        raise CheckpointNotFoundError(
            f"{model.source}: a bare graph has no checkpoint of its own; pass the checkpoint's prefix or directory"
        )
    return model.source.checkpoint


def export(
    model: Model,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> None:
    """Write a model to `path`, whole or not at all.

    `format`, told by the suffix when it is not given:

    - "graph_def" (.pb, and any suffix that is nobody's) and "graph_def_text" (.pbtxt): the graph.
    - "memmapped" (.pbmm): the graph, its large constants in regions that TensorFlow's C++ maps, of any size;
      `min_bytes` says how large they are at least.
    - "saved_model": a directory; `fetches`, `feeds` or `signatures`, `tags` and more as `write_saved_model` takes them.
    - "meta_graph" (.meta): a MetaGraph and its checkpoint, as `write_meta_graph` does it.
    - "checkpoint": the values of its variables alone, under their keys, at the prefix `path`, with the `options` of
      `save_checkpoint`.

    Large values go from the files they lie in to the new ones, their checksums tested on the way; `progress` is called
    with bytes written. What was at `path` stays until all is written, and after any error.

    A graph without its variables' values gives a GraphRestoreWarning when there are any.

    Raises UnsupportedFormatError before anything is written when a graph would pass protobuf's 2 GiB, or when the
    suffix is that of another format (.onnx, .tflite, .h5 ...) and `format` is not given, CorruptionError
    when a checksum is wrong, GraphRestoreError when a directory or checkpoint is there already.
    """
    path = os.fspath(path)
    format = format or _format_of(path)
    if format in _GRAPH_WRITERS:
        _warn_of_values(model, path)
        _GRAPH_WRITERS[format](model.graph, path, progress=progress, **options)
    elif format in _MODEL_WRITERS:
        write = getattr(import_module("graph_restore.outputs"), _MODEL_WRITERS[format])  # most runs need none of it
        write(model, path, progress=progress, **options)
    else:
        known = " or ".join(sorted([*_GRAPH_WRITERS, *_MODEL_WRITERS]))
        raise UnsupportedFormatError("no such output format", path=path, expected=known, found=format)


def _format_of(path: str) -> str:
    """The format that a suffix asks for; UnsupportedFormatError for that of files which are not written here."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _FOREIGN:
        raise UnsupportedFormatError(f"no {suffix} files are written here; {_FOREIGN[suffix]}", path=path)
    return _SUFFIXES.get(suffix, "graph_def")


def _warn_of_values(model: Model, path: str) -> None:
    """A graph alone has no room for the values of variables; a frozen one's have been told where they go."""
    held = sum(variable.value is not None for variable in model.variables)
    if held and not model.fetches:
        warn(
            f"{path} holds the graph alone, without the values of its {held} variables; freeze the model first, or "
            "export it with the format meta_graph, saved_model or checkpoint"
        )


_SUFFIXES = {
    ".pbtxt": "graph_def_text", ".prototxt": "graph_def_text", ".txt": "graph_def_text",
    ".pbmm": "memmapped", ".meta": "meta_graph",
}  # fmt: skip
_GRAPH = "freeze the model, write a .pb or a SavedModel, and convert that"
_WEIGHTS = 'for the values alone write a checkpoint (format="checkpoint"), which `graph-restore checkpoint convert` '
_FOREIGN = {
    ".onnx": f"{_GRAPH} with tf2onnx", ".tflite": f"{_GRAPH} with TensorFlow's converter",
    ".mlmodel": f"{_GRAPH} with coremltools",
    **dict.fromkeys((".npz", ".safetensors"), _WEIGHTS + "then makes such a file of"),
    **dict.fromkeys((".npy", ".h5", ".hdf5", ".keras", ".pt", ".pth", ".pkl"),
                    _WEIGHTS + "turns into .npz or .safetensors for other programs"),
}  # fmt: skip
_GRAPH_WRITERS: dict[str, Callable[..., None]] = {
    "graph_def": write_graph_def,
    "graph_def_text": write_graph_def_text,
    "memmapped": write_memmapped,
}
_MODEL_WRITERS = {
    "saved_model": "write_saved_model",
    "meta_graph": "write_meta_graph",
    "checkpoint": "write_checkpoint",
}
