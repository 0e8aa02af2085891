"""load and export: recognise what is asked for, hand it to the room that does it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from graph_restore.checkpoint import load_checkpoint, save_checkpoint
from graph_restore.errors import CheckpointNotFoundError, FormatError, RestoreError, UnsupportedFormatError
from graph_restore.formats.event_file import read_event_file
from graph_restore.formats.graph_def import scan
from graph_restore.formats.meta_graph import from_graph, read_meta_graph
from graph_restore.formats.recognise import recognise
from graph_restore.formats.run_directory import find_graph
from graph_restore.formats.saved_model import find_saved_model, read_saved_model
from graph_restore.formats.session_bundle import META_NAME, find_bundle
from graph_restore.formats.text import parse_text, print_text
from graph_restore.graph import Graph
from graph_restore.model import Model, ModelSource
from graph_restore.slices import TensorSlice, join
from graph_restore.storage import files
from graph_restore.storage.output import AtomicFile, Progress
from graph_restore.storage.source import BytesSource, Source
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.saved_keys import saved_tensors

__all__ = ["export", "load", "load_checkpoint"]

PROTOBUF_LIMIT = (1 << 31) - 1  # bytes; protobuf refuses to read a longer message
_TEXT_LIMIT = 64 << 20  # bytes of content in a .pbtxt, which is about four times as long
_MESSAGES = ("GraphDef", "MetaGraphDef", "SavedModel")


def load(source: Any, *, tags: Collection[str] | None = None) -> Model:
    """The Model in `source`: a path (file or directory), bytes, or a GraphDef, MetaGraphDef or SavedModel message.

    What a file is, is told by its content. Large constants stay in it, so it must not change while the Model is used.
    `tags` chooses the MetaGraphDef of a SavedModel. No values are attached to variables; see `restore`.

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
    return _load_path(files.plain_path(source), tags)


def _load_path(path: str, tags: Collection[str] | None) -> Model:
    if files.is_directory(path):
        return _load_directory(path, tags)
    if not files.exists(path):
        if files.is_file(path + ".meta"):
            return _load_path(path + ".meta", tags)  # a checkpoint prefix was given
        raise FileNotFoundError(
            f"{path}: no such file or directory; pass a .meta, .pb, .pbtxt, event file or directory"
        )
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
        raise FormatError("tags choose a MetaGraphDef of a SavedModel; this is none", path=source.name, found=name)
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
    if name == "Event":
        return read_event_file(source, _with_format(origin, "event_file"))
    raise UnsupportedFormatError(
        "this is a checkpoint's values, without a graph; pass its .meta or the directory to load, and this file to "
        "load_checkpoint"
        if name == "Checkpoint"
        else "this is a `checkpoint` state file; pass the directory it lies in",
        path=source.name,
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

    `format`: "graph_def" (.pb) or "graph_def_text" (.pbtxt), from the suffix by default; or "checkpoint": the values of
    its variables, under their checkpoint keys, at the prefix `path`, with the `options` of `save_checkpoint`. Large
    values go from the files they lie in to the new ones, their checksums tested on the way; `progress` is called with
    bytes written.

    Raises UnsupportedFormatError before anything is written when a graph would pass protobuf's 2 GiB, CorruptionError
    when a checksum is wrong; an existing file then stays as it was.
    """
    path = os.fspath(path)
    if format is None:
        format = "graph_def_text" if path.endswith((".pbtxt", ".prototxt", ".txt")) else "graph_def"
    if format == "checkpoint":
        save_checkpoint(path, variable_values(model), progress=progress, **options)
        return
    if format not in _WRITERS:
        known = " or ".join(sorted([*_WRITERS, "checkpoint"]))
        raise UnsupportedFormatError("no such output format", path=path, expected=known, found=format)
    if options:
        raise TypeError(f"{format} takes no option {', '.join(options)}")
    _WRITERS[format](model.graph, path, progress)


def variable_values(model: Model) -> dict[str, LazyTensor]:
    """Checkpoint key to value of a restored model's variables and saved tables, as the saver of `build_saver` has them;
    the slices of partitioned ones put together.

    RestoreError that names the variables without a value.
    """
    tensors = saved_tensors(model)
    without = [tensor.name for tensor in tensors if tensor.value is None]
    if without or not tensors:
        raise RestoreError(
            f"{model.source} has {len(without) or 'no'} variables"
            + (f" without a value: {', '.join(without[:8])}; restore or initialize them first" if without else ""),
            missing=without,
        )
    whole: dict[str, LazyTensor] = {}
    slices: dict[str, list[tuple[TensorSlice, LazyTensor]]] = {}
    for tensor in tensors:
        if tensor.slice is not None and tensor.value is not None:
            slices.setdefault(tensor.key, []).append((tensor.slice, tensor.value))
        elif tensor.value is not None:
            whole[tensor.key] = tensor.value
    for key, parts in slices.items():
        whole[key] = join(key, parts[0][1].data_type, parts[0][0].full_shape, parts)
    return whole


def _write_binary(graph: Graph, path: str, progress: Progress | None) -> None:
    encoded = graph.encode()
    if encoded.length > PROTOBUF_LIMIT:
        raise UnsupportedFormatError(
            "the frozen graph would pass protobuf's limit of 2 GiB and nothing could read it; freeze fewer fetches, or "
            "keep graph and checkpoint apart",
            path=path,
            expected=f"at most {PROTOBUF_LIMIT} bytes",
            found=encoded.length,
        )
    with AtomicFile(path, progress) as file:
        file.write_all(encoded.parts())


def _write_text(graph: Graph, path: str, progress: Progress | None) -> None:
    length = graph.encode().length
    if length > _TEXT_LIMIT:
        raise UnsupportedFormatError(
            "too large for protobuf text; write a .pb",
            path=path,
            expected=f"at most {_TEXT_LIMIT} bytes",
            found=length,
        )
    with AtomicFile(path, progress) as file:
        file.write(print_text(graph.materialize()).encode())


_WRITERS = {"graph_def": _write_binary, "graph_def_text": _write_text}
