"""with_collections: the variables of a graph listed as TensorFlow 1 wants them, so that import_meta_graph finds them.

1. Every variable gets a VariableDef in each collection it is in; `variables` or `local_variables` at least.
2. A VariableDef names nodes: an initializer and a read that the graph lacks are added. The added initializer sets
   zeros, since what the variable began with is not known; a note names these variables.
3. Variables that were listed by name alone (before TensorFlow 1.4) get VariableDefs; today's TensorFlow needs them.
4. Nodes that fill look-up tables are listed in `table_initializer`.
5. The contexts of conds and while loops, which gradients need, are listed as the graph shows them.
6. What a collection says of nodes that are not in the graph is dropped.

Graphs without collections: what a saver names or a checkpoint has is global, the rest is local.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType
from graph_restore.errors import CorruptionError
from graph_restore.graph import Graph, tensor_attr
from graph_restore.model import Model
from graph_restore.names import is_control, node_of, parse_tensor_name, tensor_name
from graph_restore.protos import CollectionDef, NodeDef, VariableDef
from graph_restore.savers import variable_of
from graph_restore.storage.coding import BYTES, Window
from graph_restore.storage.source import BytesSource
from graph_restore.tensor_proto import encode_head
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.definitions import set_slice_info
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.flow_contexts import COND, WHILE, flow_contexts, output_count
from graph_restore.transforms.table_fillers import TABLE_COLLECTION, table_initializers
from graph_restore.transforms.training import is_trainable, updated_variables
from graph_restore.variables import Variable

GLOBAL, LOCAL, TRAINABLE = "variables", "local_variables", "trainable_variables"
VARIABLE_COLLECTIONS = (
    GLOBAL, LOCAL, TRAINABLE, "model_variables", "moving_average_variables", "metric_variables", "global_step",
)  # fmt: skip
_LARGEST_CONST = 1 << 10  # elements; more zeros are made by a Fill, so that the graph's memory does not hold them


def with_collections(model: Model, quiet: bool = False) -> Model:
    """The model with collections that are complete and name only what is in the graph.

    `quiet`: say nothing of initializers that were added, as to a graph that was cut on purpose.
    """
    draft = Draft(model.graph)
    saved = {entry.variable for saver in model.savers for entry in saver.entries}
    updated = updated_variables(model.graph)
    listed: dict[str, list[bytes]] = {name: [] for name in VARIABLE_COLLECTIONS}
    zeros = []
    for variable in model.variables:
        definition = _definition(draft, variable, is_trainable(variable, True, updated))
        if definition.initializer_name not in model.graph.nodes:
            zeros.append(variable.name)
        for name in _collections_of(variable, bool(definition.trainable), variable.name in saved):
            listed[name].append(definition.SerializeToString(deterministic=True))
    if zeros and not quiet:
        draft.note(f"{len(zeros)} variables have no initializer in the graph and get one of zeros: {', '.join(zeros)}")
    graph = draft.finish()
    collections = {name: found for name, found in _kept(model.collections, graph)}
    for name, items in listed.items():
        if items:
            collections[name] = CollectionDef(bytes_list=CollectionDef.BytesList(value=items))
    for name, contexts in flow_contexts(graph, model.collections).items():
        items = [context.SerializeToString(deterministic=True) for context in contexts]
        collections[name] = CollectionDef(bytes_list=CollectionDef.BytesList(value=items))
    fillers = table_initializers(model)
    if fillers:
        collections[TABLE_COLLECTION] = CollectionDef(node_list=CollectionDef.NodeList(value=fillers))
    return replace(model, graph=graph, collections=collections, notes=(*model.notes, *draft.notes))


def _collections_of(variable: Variable, trainable: bool, saved: bool) -> list[str]:
    names = [name for name in VARIABLE_COLLECTIONS if name in variable.collections]
    if GLOBAL not in names and LOCAL not in names:
        known = bool(variable.collections) and "metric_variables" not in names
        is_global = saved or known or variable.value is not None
        names.insert(0, GLOBAL if is_global else LOCAL)
    if trainable and TRAINABLE not in names:
        names.append(TRAINABLE)
    return names


def _definition(draft: Draft, variable: Variable, trainable: bool) -> Any:
    """The VariableDef; the nodes it names are in the draft afterwards."""
    definition = VariableDef(
        variable_name=tensor_name(variable.name),
        is_resource=variable.kind == "resource",
        trainable=trainable,
        snapshot_name=_snapshot(draft, variable),
    )
    assign = draft.nodes.get(variable.initializer or "")
    assign = _zeros(draft, variable) if assign is None or len(assign.input) < 2 else assign
    definition.initializer_name = assign.name
    definition.initial_value_name = tensor_name(*parse_tensor_name(assign.input[1]))
    set_slice_info(definition, variable)
    return definition


def _snapshot(draft: Draft, variable: Variable) -> str:
    """The tensor that reads the variable whenever it is run: the graph's, unless that one waits for something."""
    op = "ReadVariableOp" if variable.kind == "resource" else "Identity"
    node = draft.nodes.get(node_of(variable.snapshot or ""))
    if node is not None and node.name in draft.graph.nodes:
        plain = node.op == op and list(node.input) in ([variable.name], [tensor_name(variable.name)])
        listed = variable.authority.get("snapshot") == "collection" and not any(map(is_control, node.input))
        if plain or (listed and variable_of(draft.graph, node.name) == variable.name):
            return tensor_name(*parse_tensor_name(variable.snapshot or ""))
    usual = f"{variable.name}/Read/ReadVariableOp" if variable.kind == "resource" else f"{variable.name}/read"
    read = NodeDef(name=draft.free_name(usual), op=op, input=[variable.name])
    read.attr["dtype" if variable.kind == "resource" else "T"].type = variable.data_type
    return tensor_name(draft.add(read).name)


def _zeros(draft: Draft, variable: Variable) -> Any:
    """A new node that assigns zeros; where the shape is not known, what is fed."""
    value = _initial_value(draft, variable, draft.free_name(f"{variable.name}/Initializer/zeros"))
    is_ref = variable.kind == "ref"
    node = NodeDef(name=draft.free_name(f"{variable.name}/Assign"), op="Assign" if is_ref else "AssignVariableOp")
    node.input.extend([variable.name, draft.add(value).name])
    node.attr["T" if is_ref else "dtype"].type = variable.data_type
    if is_ref:
        node.attr["validate_shape"].b = variable.shape is not None
    return draft.add(node)


def _initial_value(draft: Draft, variable: Variable, name: str) -> Any:
    shape = variable.value.shape if variable.value is not None else variable.shape
    if shape is None or None in shape:
        placeholder = NodeDef(name=name, op="Placeholder")
        placeholder.attr["dtype"].type = variable.data_type
        placeholder.attr["shape"].shape.unknown_rank = True
        return placeholder
    sizes = tuple(size or 0 for size in shape)
    if np.prod(sizes, dtype=object) <= _LARGEST_CONST:
        return _zero_const(name, variable.data_type, sizes)
    dims = NodeDef(name=draft.free_name(f"{name}/shape"), op="Const")
    dims.attr["dtype"].type = DataType.DT_INT32
    dims.attr["value"].CopyFrom(tensor_attr(np.array(sizes, np.int32)))
    scalar = _zero_const(draft.free_name(f"{name}/Const"), variable.data_type, ())
    fill = NodeDef(name=name, op="Fill", input=[draft.add(dims).name, draft.add(scalar).name])
    fill.attr["T"].type = variable.data_type
    return fill


def _zero_const(name: str, data_type: DataType, shape: tuple[int, ...]) -> Any:
    """A Const that states no values, which means zeros (empty strings)."""
    const = NodeDef(name=name, op="Const")
    const.attr["dtype"].type = data_type
    const.attr["value"].tensor.MergeFromString(encode_head(LazyTensor(name, data_type, shape)))
    return const


def _kept(collections: Mapping[str, Any], graph: Graph) -> Iterator[tuple[str, Any]]:
    """The collections that list neither variables nor contexts, as far as what they name is there."""
    for name, collection in collections.items():
        if name in (*VARIABLE_COLLECTIONS, COND, WHILE):
            continue
        kept = CollectionDef()
        kept.CopyFrom(collection)
        if collection.WhichOneof("kind") == "node_list":
            listed = [item for item in collection.node_list.value if node_of(item) in graph.nodes]
            kept.node_list.value[:] = [item if _is_there(graph, item) else node_of(item) for item in listed]
        if any(value.value for _, value in kept.ListFields()):
            yield name, kept


def _is_there(graph: Graph, item: str) -> bool:
    """Whether a node still gives the tensor named: the update of a resource variable gives none."""
    node, index = parse_tensor_name(item)
    return ":" not in item or index < output_count(graph, graph.nodes[node])


def named_nodes(messages: Iterable[bytes], nodes: Container[str]) -> set[str]:
    """Those of the nodes that serialized messages name, at any depth.

    Any string that is a node's name counts: what kind of message a collection holds, only its program knows.
    """
    found: set[str] = set()
    waiting = list(messages)
    while waiting:
        data = waiting.pop()
        name = node_of(data.decode("utf-8", "replace"))
        if name in nodes:
            found.add(name)
            continue
        with suppress(CorruptionError):  # a string, or numbers
            fields = [field for field in Window(BytesSource(data)).fields(0, len(data)) if field.wire_type == BYTES]
            waiting.extend(data[field.offset : field.end] for field in fields)
    return found
