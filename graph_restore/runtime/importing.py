"""A model's graph brought into a live TensorFlow graph, and which live operation each of its nodes became.

TensorFlow renames nodes whose names are taken; in a graph that was not empty, operations are those that the import
returned, never those of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import count
from typing import Any

from graph_restore.errors import UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.names import is_control, node_of, parse_tensor_name
from graph_restore.ops import op_table
from graph_restore.protos import GraphDef, NodeDef, OpList
from graph_restore.runtime.guard import tensorflow
from graph_restore.transforms.functions import renamed_functions


class Imported:
    """The live operations of a model, by node name; KeyError for what is not there.

    `renamed`: all of them, where their names may not be those of the nodes.
    """

    def __init__(self, graph: Any, renamed: Mapping[str, Any] | None) -> None:
        self.graph = graph
        self._find = graph.get_operation_by_name if renamed is None else renamed.__getitem__

    def operation(self, name: str) -> Any:
        """The tf.Operation of a node."""
        return self._find(node_of(name))

    def tensor(self, name: str) -> Any:
        """The tf.Tensor of a tensor name."""
        node, index = parse_tensor_name(name)
        return self._find(node).outputs[index]


def refuse_unknown_ops(graph: Graph) -> None:
    """UnsupportedFormatError that names every op which the TensorFlow that is running does not have."""
    functions = {function.signature.name for function in graph.library.function}
    users = {op: nodes[0].name for op, nodes in graph.by_op.items()}
    for function in graph.library.function:
        for node in function.node_def:
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
    nodes = list(graph.nodes) if scope or into.get_operations() else []
    with into.as_default(), tf.control_dependencies(None):
        found = tf.import_graph_def(
            graph.materialize(),
            input_map=input_map,
            return_elements=[*return_elements, *nodes],
            name=scope,
            producer_op_list=operation_list(graph),
        )
    asked = len(return_elements)
    return found[:asked], Imported(into, dict(zip(nodes, found[asked:])) or None)


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
    """Of the op list that came with a model, as TensorFlow takes it, the ops with an attr that today's may not know;
    None without any: TensorFlow then need not look at every attr of every node."""
    newer = [op for op in graph.op_list.op if _has_unknown_attrs(op)] if graph.op_list is not None else []
    if not newer:
        return None
    op_list = tensorflow().compat.v1.MetaGraphDef().meta_info_def.stripped_op_list
    op_list.MergeFromString(OpList(op=newer).SerializeToString())
    return op_list


def _has_unknown_attrs(op: Any) -> bool:
    """Whether an op has optional attrs that are no parameters of today's, nor found from the types of its inputs."""
    today = getattr(tensorflow().raw_ops, op.name, None)
    if today is None:
        return True
    inferred = {name for arg in op.input_arg for name in (arg.type_attr, arg.number_attr, arg.type_list_attr)}
    known = inferred | signature(today).parameters.keys()
    return any(attr.HasField("default_value") and attr.name not in known for attr in op.attr)


def check_elements(graph: Graph, return_elements: Sequence[str]) -> None:
    """NodeNotFoundError, with near names, when one of the elements asked for is not in the graph."""
    for name in return_elements:
        if is_control(name):
            raise ValueError(f"{name!r} is a control input; name an operation or a tensor")
        graph.node(name)
