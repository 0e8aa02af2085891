"""Functions of graphs older than TensorFlow 1.0, brought to the form every later TensorFlow reads.

Until 0.12 a FunctionDef had `node` (field 2), each with the names of what it returns (`ret`) and `arg`s that are such
names; from 1.0 on it has `node_def`, whose inputs are `argument`, or `node:output:index`, and `ret`, a map from the
signature's outputs to such names. See the comments in tensorflow/core/framework/function.proto of both releases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graph_restore.errors import UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.protos import FunctionDef, GraphDef, NodeDef


def modern_functions(graph: Graph) -> Graph:
    """The graph with every function in today's form; the graph itself when they all are.

    UnsupportedFormatError when an op in a function is known neither to the model's op list nor to the op table.
    """
    if not any(function.node for function in graph.library.function):
        return graph
    result = GraphDef()
    result.CopyFrom(graph.graph_def)
    for function in result.library.function:
        if function.node:
            function.CopyFrom(_modern(graph, function))
    return Graph(result, graph.payloads, graph.op_list)


def _modern(graph: Graph, function: Any) -> Any:
    modern = FunctionDef()
    modern.CopyFrom(function)
    modern.ClearField("node")
    tensors = {argument.name: [argument.name] for argument in function.signature.input_arg}
    owners: dict[str, str] = {}
    for node in function.node:
        name = _node_name(node)
        owners.update(dict.fromkeys([*node.ret, name], name))
        tensors.update(zip(node.ret, _outputs(graph, function, node, name)))
    for node in function.node:
        inputs = [name for argument in node.arg for name in _meant(tensors, argument)]
        controls = ["^" + owners.get(dependency, dependency) for dependency in node.dep]
        modern.node_def.add(name=_node_name(node), op=node.op, input=[*inputs, *controls])
        for key, value in node.attr.items():
            modern.node_def[-1].attr[key].CopyFrom(value)
    for output in function.signature.output_arg:
        modern.ret[output.name] = _meant(tensors, output.name)[0]
    return modern


def _meant(tensors: Mapping[str, list[str]], argument: str) -> list[str]:
    """The tensors that an old name stands for: all of a list, or with `:index` one of it."""
    if argument in tensors:
        return tensors[argument]
    name, _, index = argument.rpartition(":")
    listed = tensors.get(name, [])
    return [listed[int(index)]] if index.isdigit() and int(index) < len(listed) else [argument]


def _node_name(node: Any) -> str:
    """The name of its first output, which old functions knew nodes by; without outputs, its op and dependencies."""
    return str(node.ret[0]) if node.ret else f"{node.op}_{'_'.join(node.dep) or 'node'}"


def _outputs(graph: Graph, function: Any, node: Any, name: str) -> list[list[str]]:
    """`name:output:index` for every output of a node: old functions had one name for all tensors of a list."""
    plain = NodeDef(name=name, op=node.op)
    for key, value in node.attr.items():
        plain.attr[key].CopyFrom(value)
    try:
        spans = graph.ops.output_names(plain)
    except UnsupportedFormatError as error:
        raise UnsupportedFormatError(
            f"function {function.signature.name} cannot be brought to today's form: {error}"
        ) from None
    return [[f"{name}:{output}:{index}" for index in range(count)] for output, _, count in spans]


def reachable_functions(graph: Graph) -> Graph:
    """The graph with only the library functions that its nodes can call, their gradients, and their alternatives.

    Functions that nothing calls may hold variables and ops that today's TensorFlow lacks, and one unknown op makes an
    import fail.
    """
    library = graph.library
    if not library.function:
        return graph
    called = called_by(graph, graph.graph_def.node)
    if len(called) == len(library.function) and not _has_stale_attrs(library):
        return graph
    result = GraphDef()
    result.CopyFrom(graph.graph_def)
    del result.library.function[:]
    for function in library.function:
        if function.signature.name in called:
            kept = result.library.function.add()
            kept.CopyFrom(function)
            _drop_stale(kept)
    gradients = [item for item in library.gradient if item.function_name in called]
    del result.library.gradient[:]
    result.library.gradient.extend(gradients)
    payloads = {key: value for key, value in graph.payloads.items() if not key[0] or key[0] in called}
    return Graph(result, payloads, graph.op_list)


def _has_stale_attrs(library: Any) -> bool:
    return any("_output_shapes" in node.attr for function in library.function for node in function.node_def)


def _drop_stale(function: Any) -> None:
    for node in function.node_def:
        if "_output_shapes" in node.attr:
            del node.attr["_output_shapes"]


def called_by(graph: Graph, nodes: Iterable[Any]) -> set[str]:
    """The library functions that nodes call, directly or through others; their gradients and alternatives as well."""
    functions = graph.functions
    interfaces: dict[bytes, list[str]] = {}
    for name, function in functions.items():
        interfaces.setdefault(
            function.attr["api_implements"].s if "api_implements" in function.attr else b"", []
        ).append(name)
    gradients = {item.function_name: item.gradient_func for item in graph.library.gradient}
    waiting = [name for node in nodes for name in _names_called(node)]
    called: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in called or name not in functions:
            continue
        called.add(name)
        function = functions[name]
        waiting.extend(other for node in function.node_def for other in _names_called(node))
        waiting.extend(_names_in(function.attr))
        waiting.extend([gradients[name]] if name in gradients else [])
        if "api_implements" in function.attr:
            waiting.extend(interfaces[function.attr["api_implements"].s])
    return called


def _names_called(node: Any) -> list[str]:
    return [str(node.op), *_names_in(node.attr)]


def _names_in(attrs: Any) -> list[str]:
    found = []
    for value in attrs.values():
        if value.HasField("func"):
            found.append(value.func.name)
            found += _names_in(value.func.attr)
        for item in value.list.func:
            found.append(item.name)
            found += _names_in(item.attr)
        if value.HasField("s") and value.s and value.s.isascii():
            found.append(value.s.decode())  # forward and backward functions are named by string attrs
    return found


def renamed_functions(graph: Graph, suffix: str) -> Graph:
    """The graph with `suffix` at the end of the name of each function of its library, and wherever it is called.

    Programs that execute eagerly have one library for all graphs, where a name may not stand for two functions;
    TensorFlow's gradients of conds and loops add more, named after those.
    """
    if not graph.functions:
        return graph
    names = {name: f"{name}_{suffix}" for name in graph.functions}
    result = GraphDef()
    result.CopyFrom(graph.graph_def)
    for node in result.node:
        _rename_calls(node, names)
    for function in result.library.function:
        function.signature.name = names.get(function.signature.name, function.signature.name)
        _rename_in(function.attr, names)
        for node in function.node_def:
            _rename_calls(node, names)
    for gradient in result.library.gradient:
        gradient.function_name = names.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = names.get(gradient.gradient_func, gradient.gradient_func)
    payloads = {(names.get(name, name), node): value for (name, node), value in graph.payloads.items()}
    return Graph(result, payloads, graph.op_list)


def _rename_calls(node: Any, names: Mapping[str, str]) -> None:
    node.op = names.get(node.op, node.op)
    _rename_in(node.attr, names)


def _rename_in(attrs: Any, names: Mapping[str, str]) -> None:
    for key, value in attrs.items():
        for function in ([value.func] if value.HasField("func") else []) + list(value.list.func):
            function.name = names.get(function.name, function.name)
            _rename_in(function.attr, names)
        if key.endswith("_function_name") and value.s.decode("utf-8", "replace") in names:
            value.s = names[value.s.decode()].encode()
