"""Graph: a GraphDef with an index, its large constants left on disk.

The nodes are NodeDef messages. A Const (of the graph or of a function in its library) whose value is large has only
dtype and shape in its `value` attr; the value is in `payloads` under (function name or "", node name). A Graph leaves
by `encode`, which splices the payloads back in, or by `materialize`, which makes a complete GraphDef.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from graph_restore import tensor_proto
from graph_restore.errors import FormatError, NodeNotFoundError, did_you_mean
from graph_restore.names import node_of, parse_tensor_name
from graph_restore.ops import OpTable, op_table
from graph_restore.protos import FunctionDef, GraphDef, NodeDef
from graph_restore.storage.coding import encode_header
from graph_restore.storage.extent import Extent
from graph_restore.tensor_proto import Encoded, concatenated, message_field
from graph_restore.tensors import LazyTensor

Payloads = Mapping[tuple[str, str], LazyTensor]


class Graph:
    """A GraphDef and what is asked of it. Treated as a value: transforms make a new one.

    `graph_def` is a message of graph_restore.protos; `payloads` the values that are not in it; `op_list` the
    stripped op list of the MetaGraph it came from, which takes precedence over the op table.
    """

    def __init__(self, graph_def: Any, payloads: Payloads | None = None, op_list: Any = None) -> None:
        self.graph_def = graph_def
        self.payloads: dict[tuple[str, str], LazyTensor] = dict(payloads or {})
        self.op_list = op_list

    @cached_property
    def nodes(self) -> dict[str, Any]:
        """NodeDefs by name, in file order; FormatError when a name occurs twice."""
        nodes = {node.name: node for node in self.graph_def.node}
        if len(nodes) != len(self.graph_def.node):
            seen: set[str] = set()
            twice = [node.name for node in self.graph_def.node if node.name in seen or seen.add(node.name)]  # type: ignore[func-returns-value]
            raise FormatError(f"node names occur twice, so the graph cannot be run: {', '.join(sorted(twice)[:5])}")
        return nodes

    @cached_property
    def by_op(self) -> dict[str, list[Any]]:
        """NodeDefs by op, each op's in file order."""
        found: dict[str, list[Any]] = {}
        for node in self.graph_def.node:
            found.setdefault(node.op, []).append(node)
        return found

    @cached_property
    def functions(self) -> dict[str, Any]:
        """FunctionDefs of the library by name."""
        return {function.signature.name: function for function in self.graph_def.library.function}

    @cached_property
    def consumers(self) -> dict[str, list[tuple[Any, int]]]:
        """Node name to the (NodeDef, input position) pairs that take any of its outputs, control inputs too."""
        return consumers(self.nodes)

    @cached_property
    def ops(self) -> OpTable:
        """The op table, with the definitions that came with the model first and its functions as ops."""
        table = op_table()
        if self.op_list is not None and self.op_list.op:
            table = table.with_op_list(self.op_list)
        functions = [function.signature for function in self.graph_def.library.function]
        if functions:
            from graph_restore.protos import OpList

            table = table.with_op_list(OpList(op=functions))
        return table

    def node(self, name: str) -> Any:
        """The NodeDef that `name` (node or tensor) is of; NodeNotFoundError with near names."""
        node_name = parse_tensor_name(name)[0]
        if node_name not in self.nodes:
            raise NodeNotFoundError(
                f"the graph has no node {node_name!r}"
                + (did_you_mean(node_name, self.nodes) or "; `graph-restore inspect` lists inputs and outputs")
            )
        return self.nodes[node_name]

    def value(self, node: Any, function: str = "") -> LazyTensor:
        """The value of a Const node, wherever it is."""
        payload = self.payloads.get((function, node.name))
        if payload is not None:
            return payload
        return tensor_proto.from_message(node.attr["value"].tensor, node.name)

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The array that tensor `name` always is, seen through Identity; None if it is no Const."""
        node = self.nodes.get(parse_tensor_name(name)[0])
        for _ in range(len(self.nodes)):
            if node is None or node.op not in ("Identity", "Const") or not name or name.startswith("^"):
                return None
            if node.op == "Const":
                return self.value(node).read()
            node = self.nodes.get(parse_tensor_name(node.input[0])[0]) if node.input else None
        return None

    def replaced(self, nodes: Iterable[Any], payloads: Payloads) -> Graph:
        """A graph of these nodes and payloads, with this one's library, versions and op list."""
        result = GraphDef()
        result.MergeFrom(_without_nodes(self.graph_def))
        result.node.extend(nodes)
        return Graph(result, payloads, self.op_list)

    def encode(self) -> Encoded:
        """The serialized GraphDef, complete, as a stream of bytes and stretches of the files payloads lie in."""
        pieces: list[bytes | Encoded] = list(_encode_nodes(self.graph_def.node, self.payloads, "", 1))
        rest = _without_nodes(self.graph_def)
        if any(function for function, _ in self.payloads):
            library = rest.library
            pieces += message_field(2, self._encode_library(library))
            rest.ClearField("library")
        pieces.append(rest.SerializeToString(deterministic=True))
        return concatenated(pieces)

    def write(self, file: Any) -> None:
        """Append the serialized GraphDef to a storage.output.AtomicFile, payloads spliced and checked."""
        file.write_all(self.encode().parts())

    def materialize(self) -> Any:
        """A complete GraphDef in memory: TensorFlow's class when TensorFlow is imported, else ours."""
        data = b"".join(
            chunk for part in self.encode().parts() for chunk in (part.chunks() if isinstance(part, Extent) else [part])
        )
        tensorflow = sys.modules.get("tensorflow")
        compat = getattr(tensorflow, "compat", None)
        return (compat.v1.GraphDef if compat is not None else GraphDef).FromString(data)

    def _encode_library(self, library: Any) -> Encoded:
        pieces: list[bytes | Encoded] = []
        for function in library.function:
            name = function.signature.name
            rest = FunctionDef()
            rest.CopyFrom(function)
            rest.ClearField("node_def")
            body = [rest.SerializeToString(deterministic=True)]
            pieces += message_field(1, concatenated([*body, *_encode_nodes(function.node_def, self.payloads, name, 3)]))
        rest_of_library = type(library)()
        rest_of_library.CopyFrom(library)
        rest_of_library.ClearField("function")
        return concatenated([*pieces, rest_of_library.SerializeToString(deterministic=True)])


def consumers(nodes: Mapping[str, Any]) -> dict[str, list[tuple[Any, int]]]:
    """Node name to the (NodeDef, input position) pairs among `nodes` that take any of its outputs, control inputs too;
    every node has an entry."""
    found: dict[str, list[tuple[Any, int]]] = {name: [] for name in nodes}
    for node in nodes.values():
        for position, item in enumerate(node.input):
            found.setdefault(node_of(item), []).append((node, position))
    return found


def _without_nodes(graph_def: Any) -> Any:
    rest = GraphDef()
    for field, value in graph_def.ListFields():
        if field.name != "node":
            getattr(rest, field.name).CopyFrom(value) if field.message_type else setattr(rest, field.name, value)
    return rest


def _encode_nodes(nodes: Iterable[Any], payloads: Payloads, function: str, number: int) -> Iterator[bytes | Encoded]:
    for node in nodes:
        payload = payloads.get((function, node.name))
        if payload is None:
            data = node.SerializeToString(deterministic=True)
            yield encode_header(number, len(data)) + data
        else:
            yield from message_field(number, _encode_const(node, payload))


def _encode_const(node: Any, payload: LazyTensor) -> Encoded:
    rest = NodeDef()
    rest.CopyFrom(node)
    del rest.attr["value"]
    value = concatenated(message_field(8, tensor_proto.encode(payload)))
    entry = concatenated([encode_header(1, 5) + b"value", *message_field(2, value)])
    return concatenated([rest.SerializeToString(deterministic=True), *message_field(5, entry)])


def tensor_attr(value: Any) -> Any:
    """An AttrValue that holds a small value in memory as a tensor."""
    from graph_restore.protos import AttrValue, TensorProto

    return AttrValue(tensor=TensorProto.FromString(tensor_proto.encode_value("", value)))
