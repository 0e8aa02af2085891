"""for_viewing: a graph as TensorBoard shows it: shapes on its edges, no large constants.

1. A Const of more than a kilobyte keeps dtype and shape; in place of its value is `<stripped 4000000 bytes>`, which
   TensorFlow and this package refuse to read. Strings are kept up to a megabyte: savers' names are among them.
2. Variables, what reads them, placeholders and constants state their shape in `_output_shapes`, which TensorBoard
   writes beside the edges; a variable's is that of its value where the graph knows less. What was stated before stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.errors import UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import parse_tensor_name
from graph_restore.protos import AttrValue, GraphDef, TensorProto
from graph_restore.tensor_proto import stripped
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.feeds import output_shape
from graph_restore.variables import REF_OPS, Shape, Variable

_MOST, _MOST_OF_STRINGS = 1 << 10, 1 << 20  # bytes
_SHAPES = "_output_shapes"
_READS = ("Identity", "RefIdentity", "ReadVariableOp")


@dataclass(frozen=True)
class Viewed:
    """The graph, how many constants lost their values, and the bytes these had."""

    graph: Graph
    count: int
    nbytes: int


def for_viewing(model: Model) -> Viewed:
    """The model's graph for TensorBoard; it can be looked at, not run."""
    graph_def = GraphDef()
    graph_def.CopyFrom(model.graph.graph_def)
    payloads, lost = dict(model.graph.payloads), []
    for function, node in _constants(graph_def):
        tensor = _value(model.graph, node, function)
        if tensor is not None and tensor.nbytes > (_MOST_OF_STRINGS if _is_string(tensor) else _MOST):
            node.attr["value"].CopyFrom(AttrValue(tensor=TensorProto.FromString(stripped(tensor))))
            payloads.pop((function, node.name), None)
            lost.append(tensor.nbytes)
    graph = Graph(graph_def, payloads, model.graph.op_list)
    for name, shape in _shapes(model):
        node = graph.nodes[name]
        if _SHAPES not in node.attr:
            _state(node, shape)
    return Viewed(graph, len(lost), sum(lost))


def _constants(graph_def: Any) -> Iterator[tuple[str, Any]]:
    """(function or "", node) of every Const."""
    bodies = [("", graph_def.node), *((one.signature.name, one.node_def) for one in graph_def.library.function)]
    for function, nodes in bodies:
        for node in nodes:
            if node.op == "Const" and "value" in node.attr:
                yield function, node


def _value(graph: Graph, node: Any, function: str) -> LazyTensor | None:
    payload = graph.payloads.get((function, node.name))
    if payload is not None or node.attr["value"].tensor.ByteSize() <= _MOST:
        return payload
    try:
        return graph.value(node, function)
    except UnsupportedFormatError:  # a handle or a variant
        return None


def _is_string(tensor: LazyTensor) -> bool:
    return tensor.data_type is DataType.DT_STRING


def _shapes(model: Model) -> Iterator[tuple[str, Shape]]:
    """(node, shape of its first output) of those whose shape is certain."""
    graph = model.graph
    for variable in model.variables:
        shape = variable.value.shape if variable.value is not None else variable.shape
        if shape is not None:
            yield from ((name, shape) for name in _showing(graph, variable))
    for node in graph.graph_def.node:
        if node.op == "Const" and "value" in node.attr:
            yield node.name, tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)
        elif node.op.startswith("Placeholder"):
            stated = output_shape(node, 0, graph.versions.producer)
            if not stated.unknown_rank:
                yield node.name, tuple(dim.size for dim in stated.dim)


def _showing(graph: Graph, variable: Variable) -> Iterator[str]:
    """A reference variable, and what only reads a variable of either kind: the handle itself has no shape."""
    if graph.node(variable.name).op in REF_OPS:
        yield variable.name
    for user, position in graph.consumers[variable.name]:
        if user.op in _READS and position == 0 and parse_tensor_name(user.input[0])[1] == 0:
            is_read = user.op != "Identity" or graph.node(variable.name).op in REF_OPS
            if is_read:
                yield user.name


def _state(node: Any, shape: Shape) -> None:
    proto = node.attr[_SHAPES].list.shape.add()
    for size in shape or ():
        proto.dim.add().size = -1 if size is None else size
