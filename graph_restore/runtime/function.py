"""A blueprint made into one concrete function, on variables and tables that it is given.

A function is watched by gradient tapes only if its graph knows its variables: `watch_variable` and `variables`, which
are not documented, do that; without them every gradient would be None.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graph_restore.graph import Graph
from graph_restore.names import node_of, parse_tensor_name, tensor_name
from graph_restore.protos import GraphDef
from graph_restore.runtime.blueprint import Blueprint
from graph_restore.runtime.gradients import register_gradients
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.handles import tell_handles
from graph_restore.runtime.importing import operation_list
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.aliases import may_update
from graph_restore.transforms.calls import OWN_GRADIENT
from graph_restore.transforms.contexts import Context, Contexts
from graph_restore.transforms.functionalize import LEFT
from graph_restore.transforms.functions import renamed_functions


@dataclass(frozen=True)
class Function:
    """A callable that gives the results by name; None for nodes without outputs, which run all the same."""

    call: Callable[..., Sequence[Any]]
    keys: Sequence[str]
    actions: frozenset[str]

    def __call__(self, *tensors: Any) -> dict[str, Any]:
        """The results of a call with tensors in the order of the feeds."""
        found = dict(zip(self.keys, self.call(*tensors)))
        return {key: None if key in self.actions else value for key, value in found.items()}


def make_function(blueprint: Blueprint, variables: Mapping[str, Any], tables: Mapping[str, Any]) -> Function:
    """The function of a blueprint; `variables` (tf.Variable) and `tables` (tf.lookup) by node name."""
    register_gradients()
    graph = renamed_functions(blueprint.graph, uuid.uuid4().hex[:12])
    builder = _Builder(replace(blueprint, graph=graph), variables, tables)
    call = tensorflow().compat.v1.wrap_function(builder.build, signature=[feed.spec() for feed in blueprint.feeds])
    call.graph.variables = list(variables.values())
    left = [note for note in blueprint.notes if LEFT in note or OWN_GRADIENT in note]
    return Function(_without_gradient(call, left) if left else call, blueprint.keys, builder.actions)


def _without_gradient(call: Callable[..., Sequence[Any]], left: Sequence[str]) -> Callable[..., Sequence[Any]]:
    """The function, whose gradient is an error, InvalidArgumentError, when it runs: saving a module builds it."""
    tf = tensorflow()

    def run(*tensors: Any) -> tuple[Sequence[Any], Callable[..., Any]]:
        def gradient(*_: Any, variables: Any = None) -> Any:
            message = f"there is no gradient of this model: {'; '.join(left)}"
            with tf.control_dependencies([tf.debugging.Assert(False, [message])]):
                found = [tf.zeros_like(tensor) for tensor in tensors]
                return found if variables is None else (found, [tf.zeros_like(variable) for variable in variables])

        return call(*tensors), gradient

    wrapped: Callable[..., Sequence[Any]] = tf.custom_gradient(run)
    return wrapped


def constant(value: LazyTensor) -> Any:
    """A tf.Tensor of a value: TensorFlow's quantised types are plain integers elsewhere."""
    tf = tensorflow()
    dtype = tf.dtypes.as_dtype(int(value.data_type))
    array = value.read()
    return tf.constant(array.view(dtype.as_numpy_dtype) if dtype.is_quantized else array, dtype)


_STATEFUL_CALLS = ("If", "While", "Case")
_TABLE_CHANGES = ("LookupTableInsert", "LookupTableRemove", "LookupTableImport")


@dataclass
class _Builder:
    """Imports a graph where a function is being built."""

    blueprint: Blueprint
    variables: Mapping[str, Any]
    tables: Mapping[str, Any]
    actions: frozenset[str] = frozenset()

    def build(self, *tensors: Any) -> list[Any]:
        """The results, one for each key; for a node without outputs, a tensor that is there once it ran."""
        given = self._given(tensors)
        remaining = _without(self.blueprint.graph, {node_of(name) for name in given})
        inputs = [item for node in remaining.nodes.values() for item in node.input]
        used = {tensor_name(*parse_tensor_name(item)) for item in inputs}
        wanted = {key: self._element(key) for key in self.blueprint.keys if self._element(key) not in given}
        found = tensorflow().graph_util.import_graph_def(
            remaining.materialize(),
            input_map={name: tensor for name, tensor in given.items() if name in used},
            return_elements=list(wanted.values()),
            name="",
            producer_op_list=operation_list(remaining),
        )
        elements = dict(zip(wanted, found))
        tell_handles(tensorflow().compat.v1.get_default_graph())
        self._keep_running(remaining)
        self.actions = frozenset(key for key, element in elements.items() if not hasattr(element, "dtype"))
        return [self._result(key, elements, given) for key in self.blueprint.keys]

    def _keep_running(self, graph: Graph) -> None:
        """Make what changes variables run in every call: a function that calls this one may drop its results."""
        function = tensorflow().compat.v1.get_default_graph()
        contexts = Contexts(graph.nodes)
        for name, node in graph.nodes.items():
            changes = node.op in _STATEFUL_CALLS or may_update(graph, node) or node.op.startswith(_TABLE_CHANGES)
            if changes and contexts.of(name) == Context():
                function.control_outputs.append(function.get_operation_by_name(name))

    def _given(self, tensors: Sequence[Any]) -> dict[str, Any]:
        """What stands for feeds, variables and tables, by tensor name."""
        function = tensorflow().compat.v1.get_default_graph()
        given = {self._fed(feed.name): tensor for feed, tensor in zip(self.blueprint.feeds, tensors)}
        for name, variable in self.variables.items():
            given[tensor_name(name)] = function.capture(variable.handle)
            function.watch_variable(variable)
        for name, table in self.tables.items():
            given[tensor_name(name)] = function.capture(table.resource_handle)
        return given

    def _fed(self, feed: str) -> str:
        """The placeholder that a feed became: itself, or one for each output where a node has several."""
        node, index = parse_tensor_name(feed)
        inner, fed = f"{node}/{index}", self.blueprint.graph.nodes.get(node)
        is_one_of_several = fed is not None and fed.op == "IdentityN" and inner in fed.input
        return tensor_name(inner) if is_one_of_several else tensor_name(node, index)

    def _element(self, key: str) -> str:
        graph = self.blueprint.graph
        name = tensor_name(*parse_tensor_name(key))
        node = graph.nodes.get(node_of(key))
        return node_of(key) if node is not None and not graph.ops.output_types(node) else name

    def _result(self, key: str, elements: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        tf = tensorflow()
        if key not in elements:
            return tf.identity(given[self._element(key)])
        if key in self.actions:
            with tf.control_dependencies([elements[key]]):
                return tf.constant(True)
        elements[key].set_shape(self.blueprint.shapes[self.blueprint.keys.index(key)])
        return elements[key]


def _without(graph: Graph, names: set[str]) -> Graph:
    """The graph without the nodes that something else stands for, and without colocations, some being with these."""
    result = GraphDef(versions=graph.versions, library=graph.library)
    result.node.extend(node for name, node in graph.nodes.items() if name not in names)
    gone = {f"^{name}" for name in names}
    for node in result.node:
        if "_class" in node.attr:
            del node.attr["_class"]
        if gone.intersection(node.input):
            node.input[:] = [item for item in node.input if item not in gone]
    payloads = {key: value for key, value in graph.payloads.items() if key[0] or key[1] not in names}
    return Graph(result, payloads, graph.op_list)
