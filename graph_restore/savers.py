"""The savers in a graph: which checkpoint key belongs to which variable, read off the save and restore ops.

    Const tensor_names, shape_and_slices -> RestoreV2 -> (Identity, Reshape ...) -> Assign -> variable     restore side
    variable (or a read of it) -> SaveV2 <- Const tensor_names, shape_and_slices                           save side

The names in these Consts stay true when the graph's own names were changed (imported under a prefix), and they are
the only place where custom names and slices stand in a bare GraphDef. Ops: tensorflow/core/ops/io_ops.cc.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graph_restore.errors import FormatError
from graph_restore.graph import Graph
from graph_restore.names import is_control, parse_tensor_name, tensor_name
from graph_restore.slices import TensorSlice
from graph_restore.variables import VARIABLE_OPS, SaverEntry, SaverMap

_SEEN_THROUGH = {
    "Identity", "RefIdentity", "ReadVariableOp", "Enter", "RefEnter", "Switch", "RefSwitch", "Exit", "RefExit", "Cast",
    "Reshape", "StopGradient",
}  # fmt: skip
_VALUE_CARRIERS = {"Identity", "Reshape", "Cast", "Bitcast", "Squeeze", "ExpandDims"}
RESTORE_OPS = {"RestoreV2", "Restore", "RestoreSlice"}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
SAVE_OPS = {"SaveV2": 3, "SaveSlices": 3, "Save": 2}  # op: position of the first tensor saved
_READS_OR_WRITES = {*RESTORE_OPS, *SAVE_OPS}
ASSIGN_OPS = {"Assign", "AssignVariableOp"}
TABLE_IMPORTS = {"LookupTableImport", "LookupTableImportV2"}

_Takers = dict[tuple[str, int], list[str]]


@dataclass(frozen=True)
class SavedTable:
    """A table whose content is in checkpoints: run `node`, feeding its two tensors with those of the two keys.

    `table`: the node name of the table.
    """

    node: str
    table: str
    tensors: tuple[str, str]
    keys: tuple[str, str]

    @property
    def name(self) -> str:
        """The table's name in checkpoints, `seen` of `seen-keys` and `seen-values`."""
        return self.keys[0].removesuffix("-keys")


def find_savers(graph: Graph, saver_def: Any = None) -> list[SaverMap]:
    """Every saver of the graph, the one `saver_def` names first, then by the number of keys, most first."""
    entries: dict[str, dict[tuple[str, str | None, TensorSlice | None], SaverEntry]] = {}
    takers = _takers(graph)
    for node in graph.of_ops(_READS_OR_WRITES):
        filename = filename_tensor(graph, node)
        for entry in _restored(graph, node, takers) if node.op in RESTORE_OPS else _saved(graph, node):
            known = entries.setdefault(filename, {})
            identity = (entry.key, entry.variable, entry.slice)
            if identity not in known or known[identity].authority == "save op":
                known[identity] = entry
    for filename, entry in _in_functions(graph):
        entries.setdefault(filename, {})[(entry.key, entry.variable, entry.slice)] = entry
    named = parse_tensor_name(saver_def.filename_tensor_name)[0] if saver_def is not None else None
    savers = [
        SaverMap(filename, tuple(known.values()), parse_tensor_name(filename)[0] == named)
        for filename, known in entries.items()
    ]
    return sorted(savers, key=lambda saver: (not saver.is_meta_graphs, -len(saver.entries)))


def variable_of(graph: Graph, name: str) -> str | None:
    """The variable node that tensor `name` is, or is a plain read of; None if there is none."""
    nodes = graph.nodes
    for _ in range(len(nodes)):
        owner = name if name in nodes else parse_tensor_name(name)[0]
        node = nodes.get(owner)
        if node is None:
            return None
        op = node.op
        if op in VARIABLE_OPS:
            return owner
        if op not in _SEEN_THROUGH or not node.input or is_control(name):
            return None
        name = node.input[0]
    return None


def _restored(graph: Graph, node: Any, takers: _Takers) -> Iterator[SaverEntry]:
    name = node.name
    for index, (key, spec) in enumerate(keys_of(graph, node)):
        for target, through in _assigned(graph, (name, index), takers):
            yield SaverEntry(key, variable_of(graph, target), spec, "restore op", through)


def _saved(graph: Graph, node: Any) -> Iterator[SaverEntry]:
    tensors = [name for name in node.input if not is_control(name)][SAVE_OPS[node.op] :]
    for tensor, (key, spec) in zip(tensors, keys_of(graph, node)):
        yield SaverEntry(key, variable_of(graph, tensor), spec, "save op")


def _in_functions(graph: Graph) -> Iterator[tuple[str, SaverEntry]]:
    """(filename tensor, entry) of the restore functions that TensorFlow 2 puts into SavedModels.

    The call's inputs are the file name and handles; in the body, RestoreV2 feeds AssignVariableOps on the arguments.
    """
    for node, function in _restoring_calls(graph):
        filename = tensor_name(*parse_tensor_name(node.input[0]))
        arguments = {argument.name: name for argument, name in zip(function.signature.input_arg, node.input)}
        for key, argument in _restored_in(graph, function):
            if argument in arguments:
                owner = variable_of(graph, arguments[argument])
                yield filename, SaverEntry(key, owner, None, "restore op", node.name)


def _restoring_calls(graph: Graph) -> Iterator[tuple[Any, Any]]:
    """(call, function) of every call of a function that restores."""
    for node in [node for op in _CALLS for node in graph.by_op.get(op, ())]:
        function = graph.functions.get(node.attr["f"].func.name)
        if function is not None and any(inner.op == "RestoreV2" for inner in function.node_def):
            yield node, function


def _restored_in(graph: Graph, function: Any) -> Iterator[tuple[str, str]]:
    """(key, argument) of every AssignVariableOp in a function's body that takes a restored value."""
    nodes = {node.name: node for node in function.node_def}
    for node in function.node_def:
        if node.op == "AssignVariableOp" and len(node.input) > 1:
            key = _key_in(graph, function, nodes, node.input[1])
            if key is not None:
                yield key, node.input[0]


def _key_in(graph: Graph, function: Any, nodes: dict[str, Any], value: str) -> str | None:
    """The checkpoint key that a tensor of a function's body is restored from."""
    source = nodes.get(value.partition(":")[0])
    while source is not None and source.op in _VALUE_CARRIERS:
        value = source.input[0]
        source = nodes.get(value.partition(":")[0])
    if source is None or source.op != "RestoreV2":
        return None
    names = nodes.get(source.input[1].partition(":")[0])
    index = value.rpartition(":")[2]  # RestoreV2:tensors:3
    if names is None or names.op != "Const" or not index.isdigit():
        return None
    keys = graph.value(names, function.signature.name).read().ravel()
    return bytes(keys[int(index)]).decode("utf-8", "replace") if int(index) < keys.size else None


def keys_of(graph: Graph, node: Any) -> list[tuple[str, TensorSlice | None]]:
    """(key, slice) of every tensor a save or restore op names; empty when the names are no constants."""
    names = graph.strings(node.input[1]) if len(node.input) > 1 else None
    if names is None:
        return []
    keys = [name.decode("utf-8", "replace") for name in names]
    has_specs = node.op in ("RestoreV2", "RestoreSlice", "SaveV2", "SaveSlices") and len(node.input) > 2
    specs = graph.strings(node.input[2]) if has_specs else None
    if specs is None:
        return [(key, None) for key in keys]
    return [(key, _slice(spec)) for key, spec in zip(keys, specs)]


def _slice(spec: bytes) -> TensorSlice | None:
    """A `shape_and_slices` entry; one that covers the whole tensor is no slice."""
    if not spec:
        return None  # as most have it
    try:
        box = TensorSlice.parse(spec.decode())
    except (FormatError, UnicodeDecodeError):
        return None  # V1 savers write such texts for whole tensors of unknown shape
    return None if box is None or box.whole else box


def _takers(graph: Graph) -> _Takers:
    """Tensor to the names of the Assigns whose restored value it is, and of the nodes that pass it on."""
    found: _Takers = {}
    reached = {node.name for node in graph.of_ops(RESTORE_OPS)}
    waiting: list[tuple[str, str]] = []
    for op in (*sorted(ASSIGN_OPS), *sorted(_VALUE_CARRIERS)) if reached else ():
        position = 1 if op in ASSIGN_OPS else 0
        taken = [(node.name, node.input) for node in graph.by_op.get(op, ())]
        waiting += [(name, inputs[position]) for name, inputs in taken if len(inputs) > position]
    for distance in range(8):  # as far as the values go; every other Identity is left alone, but for very long ways
        taking = [(name, item) for name, item in waiting if distance == 7 or item.partition(":")[0] in reached]
        for name, item in taking:
            found.setdefault(parse_tensor_name(item), []).append(name)
        reached = {name for name, _ in taking}
        if not reached:
            break
        waiting = [pair for pair in waiting if pair[0] not in reached]
    return found


def _assigned(graph: Graph, tensor: tuple[str, int], takers: _Takers) -> Iterator[tuple[str, str]]:
    """(target tensor, assigning node) of every Assign that a restored value reaches."""
    waiting, seen = list(takers.get(tensor, ())), set()
    while waiting:
        taker = waiting.pop()
        if taker in seen:
            continue
        seen.add(taker)
        if graph.nodes[taker].op in ASSIGN_OPS:
            yield graph.nodes[taker].input[0], taker
        else:
            waiting.extend(takers.get((taker, 0), ()))


def filename_tensor(graph: Graph, node: Any) -> str:
    """The tensor that a save or restore op has its file name from: a Const or placeholder, seen through the ops that
    make shard names."""
    name = node.input[0] if node.input else ""
    for _ in range(len(graph.nodes)):
        source = graph.nodes.get(parse_tensor_name(name)[0])
        if source is None or source.op not in ("ShardedFilename", "StringJoin", "Identity", "ShardedFilespec", "Add"):
            break
        inputs = [item for item in source.input if not is_control(item)]
        if not inputs:
            break
        name = inputs[0]
    return tensor_name(*parse_tensor_name(name)) if name else ""


def restore_nodes(savers: list[SaverMap]) -> set[str]:
    """The nodes that assign restored values, so that they are not taken for initializers."""
    return {entry.restored_by for saver in savers for entry in saver.entries if entry.restored_by}


def saved_tables(graph: Graph) -> list[SavedTable]:
    """The tables that savers of the graph restore."""
    return list(_saved_tables(graph))


def table_keys(graph: Graph) -> dict[str, tuple[str, str]]:
    """Table node to the checkpoint keys of its keys and values, of tables that functions restore, as TensorFlow 2 has
    it, too."""
    found = {table.table: table.keys for table in _saved_tables(graph)}
    for call, function in _restoring_calls(graph):
        arguments = {argument.name: name for argument, name in zip(function.signature.input_arg, call.input)}
        nodes = {node.name: node for node in function.node_def}
        for node in function.node_def:
            if node.op in TABLE_IMPORTS and len(node.input) >= 3 and node.input[0] in arguments:
                keys, values = (_key_in(graph, function, nodes, name) for name in node.input[1:3])
                if keys is not None and values is not None:
                    found.setdefault(parse_tensor_name(arguments[node.input[0]])[0], (keys, values))
    return found


def _saved_tables(graph: Graph) -> Iterator[SavedTable]:
    for node in [node for op in sorted(TABLE_IMPORTS) for node in graph.by_op.get(op, ())]:
        if len(node.input) >= 3:
            sources = [_restored_tensor(graph, name) for name in node.input[1:3]]
            if sources[0] is not None and sources[1] is not None:
                tensors, keys = zip(sources[0], sources[1])
                table = parse_tensor_name(node.input[0])[0]
                yield SavedTable(node.name, table, (tensors[0], tensors[1]), (keys[0], keys[1]))


def _restored_tensor(graph: Graph, name: str) -> tuple[str, str] | None:
    """(tensor, checkpoint key) when a tensor comes straight from a restore op."""
    source, index = parse_tensor_name(name)
    node = graph.nodes.get(source)
    if node is None or node.op not in RESTORE_OPS or len(node.input) < 2:
        return None
    keys = graph.constant(node.input[1])
    if keys is None or index >= keys.size or not isinstance(keys.flat[index], bytes):
        return None
    return tensor_name(source, index), keys.flat[index].decode("utf-8", "replace")
