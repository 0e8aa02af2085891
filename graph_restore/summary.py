"""What a model or checkpoint holds, and how the two fit, as plain dicts for json and for printing.

`summarise` looks at a path; `summarise_model`, `summarise_checkpoint` and `summarise_fit` at what was read already.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from graph_restore.api import load
from graph_restore.checkpoint import Checkpoint, find_checkpoint, latest_checkpoint, load_checkpoint
from graph_restore.dtypes import type_name
from graph_restore.errors import CheckpointNotFoundError, FormatError, UnsupportedFormatError
from graph_restore.formats.event_file import event_graphs
from graph_restore.formats.run_directory import find_graph
from graph_restore.formats.saved_model import find_saved_model
from graph_restore.formats.session_bundle import find_bundle
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import node_of, parse_tensor_name, tensor_name
from graph_restore.recognise import recognise
from graph_restore.storage import files
from graph_restore.transforms.fetches import candidate_fetches
from graph_restore.variables import Shape, shape_of

_DATA_FILE = re.compile(r"\.data-\d{5}-of-\d{5}$")
_PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")


def summarise(path: str | os.PathLike[str], *, tags: Collection[str] | None = None) -> dict[str, Any]:
    """`summarise_checkpoint` or `summarise_model` of what lies at `path`; "kind" says which.

    A prefix means the checkpoint, its `.meta` the model; a directory the model in it, if there is one. Errors are
    those of `load` and `load_checkpoint`.
    """
    name = files.plain_path(path)
    if tags is None and _is_checkpoint(name):
        return summarise_checkpoint(load_checkpoint(name))
    return summarise_model(load(name, tags=tags))


def _is_checkpoint(path: str) -> bool:
    if files.is_directory(path):
        return not _has_graph(path) and latest_checkpoint(path) is not None
    if not files.exists(path):
        try:
            return bool(find_checkpoint(path).files)
        except CheckpointNotFoundError:
            return False
    if _DATA_FILE.search(path):
        return True
    try:
        return recognise(files.open_source(path)).message in ("Checkpoint", "CheckpointState")
    except FormatError:
        return False


def _has_graph(folder: str) -> bool:
    if find_saved_model(folder) or find_bundle(folder):
        return True
    try:
        return bool(find_graph(folder))
    except FormatError:
        return False


def summarise_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Prefix, version, files, total bytes, and every tensor's name, dtype, shape, bytes and number of slices."""
    tensors = [
        {
            "name": name,
            "dtype": type_name(tensor.data_type),
            "shape": list(tensor.shape),
            "bytes": tensor.nbytes,
            "slices": len(checkpoint.slices(name)),
        }
        for name, tensor in checkpoint.items()
    ]
    return {
        "kind": "checkpoint",
        "prefix": checkpoint.prefix,
        "version": checkpoint.version,
        "files": list(checkpoint.files),
        "shards": len(checkpoint.files) - (checkpoint.version == 2),  # the first file of V2 is the index
        "bytes": sum(tensor["bytes"] for tensor in tensors),
        "tensors": tensors,
        "notes": list(checkpoint.notes),
    }


def summarise_model(model: Model) -> dict[str, Any]:
    """Everything `graph-restore inspect` tells of a model.

    "outputs" are those of the signatures, else the tensors that look like it ("outputs_from" says which). "ops" counts
    the nodes of the graph and of its functions; "gone_ops" are those today's TensorFlow lacks, with the last release
    that had them and the tf.contrib module, both empty for a custom op. "checkpoint" is None when the model has none.
    """
    graph = model.graph
    ops = _count_ops(graph)
    inputs, outputs = _bound(model, "inputs"), _bound(model, "outputs")
    return {
        "kind": "model",
        "path": model.source.path,
        "format": model.source.format,
        "tensorflow_version": model.source.tensorflow_version,
        "producer": graph.versions.producer,
        "min_consumer": graph.versions.min_consumer,
        "tags": list(model.source.tags),
        "nodes": len(graph.graph_def.node),
        "signatures": {name: _signature(value) for name, value in sorted(model.signatures.items())},
        "inputs": inputs or placeholders(model),
        "outputs": outputs or [describe_tensor(graph, name) for name in candidate_fetches(graph)],
        "outputs_from": "signatures" if outputs else "candidates",
        "variables": [variable.to_dict() for variable in model.variables],
        "ops": ops,
        "gone_ops": _gone_ops(graph, ops),
        "functions": list(graph.functions),
        "assets": dict(model.assets),
        "init_op": model.init_op,
        "collections": sorted(model.collections),
        "checkpoint": _checkpoint_of(model),
        "graphs": _graphs_in_events(model),
    }


def placeholders(model: Model) -> list[dict[str, Any]]:
    """Name, dtype and shape of every placeholder, in file order, but for those of savers."""
    of_savers = _file_names(model)
    found = [describe_tensor(model.graph, tensor_name(node.name)) for node in model.graph.of_ops(_PLACEHOLDERS)]
    return [tensor for tensor in found if tensor["name"] not in of_savers]


def frozen_variables(before: Model, after: Model) -> list[str]:
    """Names of the variables of `before` that are constants in `after`, which was frozen from it."""
    constant, op_of = {"Const", "Cast"}, after.graph.op_of  # a Cast is of one that is stored in half precision
    return [
        v.name
        for v in before.variables
        if op_of(v.name) in constant or (v.snapshot and op_of(node_of(v.snapshot)) in constant)
    ]


def summarise_fit(restored: Model) -> dict[str, Any]:
    """What `restore` reported, with "variables" (their number), "near" (missing variable to near unused keys) and
    "fits": whether no tensor disagrees and at least one fitted, if the model has variables at all."""
    report = restored.restoration
    if report is None:
        raise ValueError("the model has not been restored; call restore first")
    nothing = not report.restored and len(restored.variables) > 0
    return {
        "model": str(restored.source),
        **report.to_dict(),
        "variables": len(restored.variables),
        "near": {name: found for name, found in report.nearest().items() if found},
        "fits": not report.mismatched and not nothing,
    }


def _file_names(model: Model) -> set[str]:
    """Tensors through which a saver is told its file: `save/Const`, and the `save/filename` it takes by default."""
    found: set[str] = set()
    for saver in model.savers:
        name = saver.filename_tensor
        node = model.graph.nodes.get(node_of(name))
        found.update([name, *(tensor_name(node_of(item)) for item in (node.input if node is not None else ()))])
    return found


def _bound(model: Model, side: str) -> list[dict[str, Any]]:
    """The inputs or outputs of all signatures, each tensor once."""
    bound = [getattr(value, side) for _, value in sorted(model.signatures.items())]
    infos = [info for tensors in bound for _, info in sorted(tensors.items()) if info.name]
    return list({info.name: _info(info) for info in infos}.values())


def _signature(value: Any) -> dict[str, Any]:
    return {
        "method": value.method_name,
        "inputs": {key: _info(info) for key, info in sorted(value.inputs.items())},
        "outputs": {key: _info(info) for key, info in sorted(value.outputs.items())},
    }


def _info(info: Any) -> dict[str, Any]:
    shape = shape_of(info.tensor_shape) if info.HasField("tensor_shape") else None
    return _described(info.name, info.dtype, shape)


def describe_tensor(graph: Graph, name: str) -> dict[str, Any]:
    """Name, dtype ("" when not known) and shape (None likewise) of a tensor as far as its node states them."""
    node, index = graph.node(name), parse_tensor_name(name)[1]
    try:
        number = graph.ops.output_types(node)[index]
    except (UnsupportedFormatError, IndexError):
        number = 0
    shapes = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
    if index < len(shapes):
        return _described(name, number, shape_of(shapes[index]))
    return _described(name, number, _stated_shape(graph, node))


def _stated_shape(graph: Graph, node: Any) -> Shape:
    """A placeholder's shape attr. Up to producer 21 rank 0 there means unknown (core/ops/array_ops.cc)."""
    if node.op not in _PLACEHOLDERS or "shape" not in node.attr:
        return None
    shape = shape_of(node.attr["shape"].shape)
    old = node.op == "Placeholder" and graph.versions.producer <= 21
    return None if old and shape == () else shape


def _described(name: str, number: int, shape: Shape) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": type_name(number % 100) if number else "",
        "shape": None if shape is None else list(shape),
    }


def _count_ops(graph: Graph) -> dict[str, int]:
    counts = Counter(node.op for node in graph.graph_def.node)
    for function in graph.library.function:
        counts.update(node.op for node in (*function.node_def, *function.node))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _gone_ops(graph: Graph, ops: Iterable[str]) -> dict[str, dict[str, str]]:
    return {name: {"until": until, "contrib_module": module} for name, until, module in _lacking(graph, ops)}


def _lacking(graph: Graph, ops: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """(op, last release that had it, contrib module) of ops that the newest release of the table does not have."""
    for name in ops:
        op = graph.ops.get(name)
        if op is None:
            yield name, "", ""
        elif op.until or (not op.since and name not in graph.functions):
            yield name, op.until, op.contrib_module


def _checkpoint_of(model: Model) -> dict[str, Any] | None:
    """The checkpoint that belongs to the model, without its tensors; with "error" when it is not there or damaged."""
    if model.source.checkpoint is None:
        return None
    try:
        found = summarise_checkpoint(load_checkpoint(model.source.checkpoint))
    except (CheckpointNotFoundError, FormatError) as error:
        return {"prefix": model.source.checkpoint, "error": str(error)}
    return {**found, "tensors": len(found["tensors"])}


def _graphs_in_events(model: Model) -> list[dict[str, Any]]:
    """Kind, bytes and nodes of every graph in an event file, in order; empty for any other model."""
    if model.source.format != "event_file":
        return []
    return [
        {"kind": stored.kind, "bytes": stored.length, "nodes": len(stored.read(model.source).graph.graph_def.node)}
        for stored in event_graphs(files.open_source(model.source.file))
    ]
