"""Of which variables the handles are that functions take: `handle_data` of their arguments (op_def.proto).

TensorFlow writes it since 2.3. Functions of older graphs have none, and the gradient of a cond within a loop, which
makes zeros like each variable that one branch alone reads, asks for it.

1. What a call gives a function is followed from the variable's node, through Identity and what loops pass on.
2. A function that is called with several variables is told what they agree in: shapes that differ are not told, nor
   is anything of dtypes that differ.
3. What a function says already is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.graph import Graph
from graph_restore.names import is_control, parse_tensor_name
from graph_restore.protos import GraphDef
from graph_restore.transforms.returned import LOOPS, PASSING, Returned, argument_of, called, is_call
from graph_restore.variables import RESOURCE_OPS

_Given = dict[int, int]  # argument position to the number of a variable


def with_handle_types(graph: Graph) -> Graph:
    """The graph with the arguments and results of its functions described that are handles of variables; the graph
    itself where there is nothing to say."""
    if not any(_undescribed(function.signature.input_arg) for function in graph.graph_def.library.function):
        return graph
    calls = _Calls(graph)
    for node in graph.nodes.values():
        if is_call(node, graph.functions):
            calls.follow(node, {place: v for place, item in enumerate(node.input) if (v := calls.variable(item)) >= 0})
    if not calls.told:
        return graph
    result = GraphDef()
    result.CopyFrom(graph.graph_def)
    for function in result.library.function:
        for position, numbers in calls.told.get(function.signature.name, {}).items():
            _describe(function, position, [calls.variables[number] for number in sorted(numbers)], calls.returned)
    return Graph(result, graph.payloads, graph.op_list)


class _Calls:
    """Which variables each argument of each function is given the handle of."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.returned = Returned(graph.functions)
        self.variables = [node for node in graph.nodes.values() if node.op in RESOURCE_OPS]
        self._numbers = {node.name: number for number, node in enumerate(self.variables)}
        self._seen: set[tuple[str, tuple[tuple[int, int], ...]]] = set()
        self.told: dict[str, dict[int, set[int]]] = {}

    def variable(self, item: str) -> int:
        """The number of the variable whose handle a tensor of the graph is, -1 for none."""
        while not is_control(item):
            name, index = parse_tensor_name(item)
            node = self._graph.nodes.get(name)
            if node is None or name in self._numbers:
                break
            if node.op in PASSING:
                index = 0
            elif node.op not in LOOPS:
                break
            item = node.input[index]
        return self._numbers.get(parse_tensor_name(item)[0], -1)

    def follow(self, node: Any, taken: Mapping[int, int]) -> None:
        """Note what a call gives its functions: `taken`, input position to the number of a variable."""
        given = {argument_of(node, position): number for position, number in taken.items()}
        for name in [item.name for item in called(node)] or [node.op]:
            self._visit(name, given)

    def _visit(self, name: str, given: _Given) -> None:
        key = (name, tuple(sorted(given.items())))
        function = self._graph.functions.get(name)
        if function is None or not given or key in self._seen:
            return
        self._seen.add(key)
        arguments = function.signature.input_arg
        given = {position: number for position, number in given.items() if 0 <= position < len(arguments)}
        for position, number in given.items():
            self.told.setdefault(name, {}).setdefault(position, set()).add(number)
        handles = {arguments[position].name: number for position, number in given.items()}
        found = self.returned.spread(function, handles)
        for node in function.node_def:
            if is_call(node, self._graph.functions):
                self.follow(node, {place: found[item] for place, item in enumerate(node.input) if item in found})


def _undescribed(arguments: Iterable[Any]) -> bool:
    return any(item.type == DataType.DT_RESOURCE and not item.handle_data for item in arguments)


def _describe(function: Any, position: int, variables: list[Any], returned: Returned) -> None:
    """Say in a function's signature what an argument is the handle of, and the results that are the argument."""
    argument = function.signature.input_arg[position]
    dtypes = {node.attr["dtype"].type for node in variables}
    if not _undescribed([argument]) or len(dtypes) > 1:
        return
    shapes = [node.attr["shape"].shape for node in variables]
    data = argument.handle_data.add(dtype=dtypes.pop())
    if all(shape == shapes[0] for shape in shapes):
        data.shape.CopyFrom(shapes[0])
    else:
        data.shape.unknown_rank = True
    same = returned.spread(function, {argument.name: position})
    for output in function.signature.output_arg:
        if function.ret[output.name] in same and not output.handle_data:
            output.handle_data.add().CopyFrom(data)
