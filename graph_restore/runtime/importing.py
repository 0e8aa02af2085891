"""A model's graph brought into a live TensorFlow graph, and which live operation each of its nodes became.

Operations are looked up by what the import returned, never by name: TensorFlow renames nodes whose names are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from graph_restore.errors import UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.names import is_control, node_of, parse_tensor_name
from graph_restore.ops import op_table
from graph_restore.protos import GraphDef, NodeDef
from graph_restore.runtime.guard import tensorflow
from graph_restore.transforms.functions import renamed_functions


class Imported:
    """The live operations of a model, by node name."""

    def __init__(self, graph: Any, operations: Mapping[str, Any]) -> None:
        self.graph = graph
        self._operations = operations

    def __contains__(self, name: str) -> bool:
        return node_of(name) in self._operations

    def operation(self, name: str) -> Any:
        """The tf.Operation of a node."""
        return self._operations[node_of(name)]

    def tensor(self, name: str) -> Any:
        """The tf.Tensor of a tensor name."""
        node, index = parse_tensor_name(name)
        return self._operations[node].outputs[index]


def refuse_unknown_ops(graph: Graph) -> None:
    """UnsupportedFormatError that names every op which the TensorFlow that is running does not have."""
    functions = {function.signature.name for function in graph.library.function}
    nodes = list(graph.nodes.values())
    for function in graph.library.function:
        nodes += function.node_def
    users: dict[str, str] = {}
    for node in nodes:
        users.setdefault(node.op, node.name)
    unknown = [op for op in users if op not in functions and _may_be_gone(op) and not _is_registered(op)]
    if unknown:
        listed = "; ".join(f"{op} ({_history(op)}node {users[op]})" for op in unknown)
        raise UnsupportedFormatError(
            f"TensorFlow {tensorflow().__version__} does not have {len(unknown)} of the graph's ops: {listed}. "
            "If the outputs you need do not depend on them, freeze the model to these first "
            "(graph_restore.freeze(model, fetches=[...]), no TensorFlow needed); for a custom op, call "
            "tf.load_op_library before"
        )


def _may_be_gone(name: str) -> bool:
    if hasattr(tensorflow().raw_ops, name):
        return False  # without a look into the table
    op = op_table().get(name)
    return op is None or op.until != ""


def _is_registered(op: str) -> bool:
    tf = tensorflow()
    probe = tf.compat.v1.GraphDef.FromString(GraphDef(node=[NodeDef(name="probe", op=op)]).SerializeToString())
    try:
        with tf.Graph().as_default():
            tf.import_graph_def(probe, name="")
    except (ValueError, tf.errors.OpError) as error:
        return "not registered" not in str(error)  # it is there, and asks for inputs or attrs
    return True


def _history(name: str) -> str:
    op = op_table().get(name)
    if op is None:
        return "never a part of TensorFlow, "
    if op.contrib_module:
        return f"{op.contrib_module}, until {op.contrib_until}, "
    return f"until {op.until}, "


def import_graph(
    graph: Graph, into: Any, scope: str, input_map: Mapping[str, Any] | None, return_elements: Sequence[str]
) -> tuple[list[Any], Imported]:
    """Import into a tf.Graph; the elements asked for, and all operations.

    `graph` has been through `prepare`. Attrs that today's ops lack are dropped where they have the default which the
    MetaGraph's op list gives.
    """
    tf = tensorflow()
    graph = _with_free_function_names(graph, into)
    names = list(graph.nodes)
    with into.as_default(), tf.control_dependencies(None):
        found = tf.import_graph_def(
            graph.materialize(),
            input_map=input_map,
            return_elements=[*return_elements, *names],
            name=scope,
            producer_op_list=operation_list(graph),
        )
    asked = len(return_elements)
    return found[:asked], Imported(into, dict(zip(names, found[asked:])))


def _with_free_function_names(graph: Graph, into: Any) -> Graph:
    """The graph with functions of other names where the live graph has some of theirs: two programs number them alike.

    Also the same model's twice, since TensorFlow changes functions when it takes gradients.
    """
    taken = {function.signature.name for function in into.as_graph_def().library.function} if graph.functions else set()
    if taken.isdisjoint(graph.functions):
        return graph
    suffix = next(str(n) for n in count(1) if taken.isdisjoint(f"{name}_{n}" for name in graph.functions))
    return renamed_functions(graph, suffix)


def operation_list(graph: Graph) -> Any:
    """The op list that came with a model, as TensorFlow takes it; None without one."""
    if graph.op_list is None or not graph.op_list.op:
        return None
    op_list = tensorflow().compat.v1.MetaGraphDef().meta_info_def.stripped_op_list
    op_list.MergeFromString(graph.op_list.SerializeToString())
    return op_list


def check_elements(graph: Graph, return_elements: Sequence[str]) -> None:
    """NodeNotFoundError, with near names, when one of the elements asked for is not in the graph."""
    for name in return_elements:
        if is_control(name):
            raise ValueError(f"{name!r} is a control input; name an operation or a tensor")
        graph.node(name)
