"""One run of a restored model in a TensorFlow session of its own, and nothing more than its outputs need."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graph_restore.errors import GraphRestoreError
from graph_restore.graph import Graph, tensor_attr
from graph_restore.model import Model
from graph_restore.names import node_of, tensor_name
from graph_restore.protos import NodeDef
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.restore_graph import restore_graph
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.feeds import resolve
from graph_restore.transforms.pipelines import cut_fed_pipelines
from graph_restore.transforms.prepare import moved_assets
from graph_restore.transforms.table_fillers import table_initializers
from graph_restore.transforms.unsafe import unsafe_nodes
from graph_restore.variables import Variables

Array = np.ndarray[Any, Any]
_FROM_FILE = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")
_SEED = 1


def cut(model: Model, fetches: Sequence[str], fed: Sequence[str], asset_dir: str | None) -> Model:
    """The model with only what `fetches` and `fed` need, and what fills its tables and variables without a value."""
    draft = Draft(model.graph)
    cut_fed_pipelines(draft, resolve(model.graph, fed))
    roots = {node_of(name) for name in (*fetches, *fed)}
    needed = draft.ancestors(roots)
    roots |= set(needed_fillers(model, needed))
    for variable in model.variables:
        if variable.name in needed and variable.value is None and variable.initializer is not None:
            roots.add(variable.initializer)
    for name, path in moved_assets(model, _folders(model, asset_dir)).items():
        draft.add(_string_const(draft.nodes[name], model.graph, path))
    draft.keep(draft.ancestors(roots))
    graph = draft.finish()
    variables = Variables(variable for variable in model.variables if variable.name in draft.nodes)
    return replace(model, graph=graph, variables=variables, savers=(), saver_def=None, collections={}, signatures={})


def needed_fillers(model: Model, needed: set[str]) -> list[str]:
    """The nodes that fill those tables which are among `needed`."""
    nodes = model.graph.nodes
    return [name for name in table_initializers(model) if nodes[name].input and node_of(nodes[name].input[0]) in needed]


def _string_const(node: Any, graph: Graph, text: str) -> Any:
    const = NodeDef()
    const.CopyFrom(node)
    const.attr["value"].CopyFrom(tensor_attr(np.full(graph.value(node).shape, os.fsencode(text), object)))
    return const


def refuse_unsafe(model: Model, fetches: Sequence[str], fed: Iterable[str], asset_dir: str | None) -> None:
    """GraphRestoreError that lists what would run and do more than compute. `model` is cut already; tables that are
    filled from a file of its own, beside it, its checkpoint or in `asset_dir`, may read that file."""
    graph = model.graph
    fillers = table_initializers(model)
    initializers = [variable.initializer for variable in model.variables if variable.initializer in graph.nodes]
    extra = [(name, -1) for name in (*fillers, *initializers) if name is not None]
    found = unsafe_nodes(graph, [*resolve(graph, fetches), *extra], resolve(graph, fed))
    for name in fillers:
        if name in found and _reads_own_file(model, graph.nodes[name], asset_dir):
            del found[name]
    if found:
        listed = "; ".join(f"{name} ({what})" for name, what in found.items())
        tables = [name for name in found if name in graph.nodes and graph.nodes[name].op in _FROM_FILE]
        folder = ", or asset_dir= with the directory of its vocabulary, to have that read and no more" if tables else ""
        raise GraphRestoreError(
            f"{model.source} is not run: {listed}. If you trust the model, pass allow_unsafe_ops=True{folder}; "
            "else fetch something before these, or feed what they give"
        )


def _reads_own_file(model: Model, filler: Any, asset_dir: str | None) -> bool:
    if filler.op not in _FROM_FILE or len(filler.input) < 2:
        return False
    recorded = model.graph.constant(filler.input[1])
    if recorded is None or recorded.size != 1:
        return False
    path = os.path.abspath(os.fsdecode(recorded.item()))
    return any(path.startswith(os.path.abspath(folder) + os.sep) for folder in _folders(model, asset_dir))


def _folders(model: Model, asset_dir: str | None) -> list[str]:
    own = model.restoration.checkpoint if model.restoration is not None else ""
    return [folder for folder in (asset_dir, model.source.folder, os.path.dirname(own)) if folder]


def seeded(graph: Graph) -> tuple[Graph, list[str]]:
    """(the graph with a seed for every random op that has none, by its name; the names of these)."""
    result = graph.replaced(graph.graph_def.node, graph.payloads)
    names = []
    for nodes in (result.graph_def.node, *(function.node_def for function in result.graph_def.library.function)):
        for node in nodes:
            op = graph.ops.get(node.op)
            if op is None or not op.is_stateful or not {"seed", "seed2"} <= op.attrs.keys():
                continue
            if not node.attr["seed"].i and not node.attr["seed2"].i:
                node.attr["seed"].i, node.attr["seed2"].i = _SEED, zlib.crc32(node.name.encode()) >> 1
                names.append(str(node.name))
    return result, names


def run_once(model: Model, fetches: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of the first run after restoring; GraphRestoreError with TensorFlow's reason when it fails."""
    tf = tensorflow()
    tables = [name for name in model.tables if name in model.graph.nodes]
    elements = [*fetches, *feeds, *map(tensor_name, tables)]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            found, _ = restore_graph(model, return_elements=elements)
            assert found is not None
            tensors = dict(zip(elements, found))
            for name in tables:
                _fill(session, tensors[tensor_name(name)], *(part.read() for part in model.tables[name]))
            given = {tensors[name]: _fitting(array, tensors[name].dtype) for name, array in feeds.items()}
            return [np.asarray(value) for value in session.run([tensors[name] for name in fetches], given)]
        except (tf.errors.OpError, ValueError, TypeError) as error:
            if isinstance(error, GraphRestoreError):
                raise
            raise GraphRestoreError(
                f"{model.source} cannot be run with these feeds ({', '.join(feeds) or 'none'}): {_reason(error)}"
            ) from error


def _fill(session: Any, table: Any, keys: Array, values: Array) -> None:
    """Put the content that a checkpoint holds into a mutable table."""
    tf = tensorflow()
    is_handle = table.dtype == tf.resource
    make = tf.raw_ops.LookupTableImportV2 if is_handle else tf.raw_ops.LookupTableImport
    # through placeholders, since the keys of a dense table come as they were saved, of a rank that is refused otherwise
    parts = [tf.compat.v1.placeholder(tf.as_dtype(part.dtype)) for part in (keys, values)]
    session.run(make(table_handle=table, keys=parts[0], values=parts[1]), dict(zip(parts, (keys, values))))


def _fitting(array: Array, dtype: Any) -> Array:
    """The array as TensorFlow wants it: quantised numbers and bfloat16 may come as plain bytes or integers."""
    wanted = dtype.as_numpy_dtype
    return array.view(wanted) if dtype.is_quantized or array.dtype.kind == "V" else array


def _reason(error: Exception) -> str:
    """The sentence of a TensorFlow error, without the stack around it."""
    text = str(getattr(error, "message", error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [number for number, line in enumerate(lines) if line.startswith("Node: ")]
    return (
        lines[marked[0] + 1] if marked and marked[0] + 1 < len(lines) else lines[0] if lines else type(error).__name__
    )
