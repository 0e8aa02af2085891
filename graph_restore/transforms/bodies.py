"""A function's body as a graph that can be changed, and back.

In the graph every argument is a Placeholder of its name, and inputs are spelled as in graphs, `node:3`; in a
FunctionDef they are `argument` or `node:output:index`. See tensorflow/core/framework/function.proto.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from graph_restore.errors import FreezeError, UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.names import input_name, is_control, parse_tensor_name
from graph_restore.protos import FunctionDef, GraphDef, NodeDef
from graph_restore.transforms.draft import Draft, Tensor


class Body:
    """The body of a library function, as a draft of its own.

    `arguments`: the names of its Placeholders. `returned`: what it returns, in the signature's order. `runs`: the nodes
    that a call runs whether or not what they give is used.
    """

    def __init__(self, outer: Draft, name: str) -> None:
        self.function = outer.function(name)
        self.arguments = [str(argument.name) for argument in self.function.signature.input_arg]
        graph = _as_graph(outer, self.function)
        self.draft = Draft(graph)
        spelled = _spellings(graph, self.function)
        self.returned: list[Tensor] = [
            parse_tensor_name(spelled[self.function.ret[output.name]]) for output in self.function.signature.output_arg
        ]
        self.runs = {str(node) for node in self.function.control_ret.values()}
        self.runs |= {node.name for node in self.function.node_def if _is_stateful(graph, node)}

    def roots(self) -> set[str]:
        """The nodes that what it returns and what it runs need, as the draft is now."""
        return self.draft.ancestors({name for name, _ in self.returned} | self.runs)

    def finish(self, name: str, arguments: Collection[int], outputs: Collection[int] | None = None) -> Any:
        """The body as a FunctionDef `name` with these of its arguments and outputs only."""
        function = FunctionDef()
        function.CopyFrom(self.function)
        function.signature.name = name
        for field in ("node_def", "ret", "control_ret", "arg_attr", "resource_arg_unique_id"):
            function.ClearField(field)
        self._rename_settled(function.signature)
        _keep_some(function.signature.input_arg, arguments)
        for new, old in enumerate(sorted(arguments)):
            if old in self.function.arg_attr:
                function.arg_attr[new].CopyFrom(self.function.arg_attr[old])
            if old in self.function.resource_arg_unique_id:
                function.resource_arg_unique_id[new] = self.function.resource_arg_unique_id[old]
        needed = self.roots()
        spans = {node: _spans(self.draft.graph, self.draft.nodes[node]) for node in needed - set(self.arguments)}
        for node in (node for node in self.draft.nodes.values() if node.name in spans):
            copy = function.node_def.add()
            copy.CopyFrom(node)
            inputs = [
                item if is_control(item) else _in_function(*parse_tensor_name(item), spans) for item in node.input
            ]
            copy.input[:] = inputs
        for output, (source, index) in zip(function.signature.output_arg, self.returned):
            function.ret[output.name] = _in_function(source, index, spans)
        self._keep_controls(function, spans)
        if outputs is not None:
            for position, output in enumerate(self.function.signature.output_arg):
                if position not in outputs:
                    del function.ret[output.name]
            _keep_some(function.signature.output_arg, outputs)
        return function

    def _rename_settled(self, signature: Any) -> None:
        """Arguments whose Placeholder became another node leave their name to that node."""
        for argument, name in zip(signature.input_arg, self.arguments):
            if argument.name != name:
                argument.name = self.draft.free_name(f"{argument.name}_unused")

    def _keep_controls(self, function: Any, kept: Collection[str]) -> None:
        names = {key: node for key, node in self.function.control_ret.items() if node in kept}
        for key, node in names.items():
            function.control_ret[key] = node
        left = [name for name in function.signature.control_output if name in names]
        function.signature.control_output[:] = left


def _as_graph(outer: Draft, function: Any) -> Graph:
    graph_def = GraphDef()
    graph_def.library.CopyFrom(outer.graph.library)
    graph_def.library.function.extend(outer.functions.values())
    graph_def.versions.CopyFrom(outer.graph.versions)
    for argument in function.signature.input_arg:
        node = graph_def.node.add(name=argument.name, op="Placeholder")
        node.attr["dtype"].type = argument.type
    graph_def.node.extend(function.node_def)
    name = function.signature.name
    payloads = {**outer.graph.payloads, **outer.payloads}
    own = {("", node): value for (owner, node), value in payloads.items() if owner == name}
    graph = Graph(graph_def, {**{key: value for key, value in payloads.items() if key[0]}, **own}, outer.graph.op_list)
    spelled = _spellings(graph, function)
    for node in graph_def.node:
        node.input[:] = [item if is_control(item) else spelled[item] for item in node.input]
    return graph


def _spellings(graph: Graph, function: Any) -> dict[str, str]:
    """A function's spelling of each tensor to that of graphs."""
    spelled = {str(argument.name): str(argument.name) for argument in function.signature.input_arg}
    for node in function.node_def:
        try:
            spans = graph.ops.output_names(node)
        except UnsupportedFormatError as error:
            raise FreezeError(
                f"in function {function.signature.name}: {error}", nodes={node.name: "an op that is not known"}
            ) from None
        for output, first, count in spans:
            for index in range(count):
                spelled[f"{node.name}:{output}:{index}"] = input_name(node.name, first + index)
    return spelled


def _spans(graph: Graph, node: Any) -> list[tuple[str, int, int]]:
    copy = NodeDef()
    copy.CopyFrom(node)
    return graph.ops.output_names(copy)


def _in_function(name: str, index: int, spans: dict[str, list[tuple[str, int, int]]]) -> str:
    if index < 0:
        return input_name(name, index)
    for output, first, count in spans.get(name, ()):
        if first <= index < first + count:
            return f"{name}:{output}:{index - first}"
    return name


def _keep_some(arguments: Any, positions: Collection[int]) -> None:
    for position in reversed(range(len(arguments))):
        if position not in positions:
            del arguments[position]


def _is_stateful(graph: Graph, node: Any) -> bool:
    op = graph.ops.get(node.op)
    return op is None or bool(op.is_stateful)
