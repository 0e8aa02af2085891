"""Parts of a graph as functions: the bodies that functional While and If call.

In a function, inputs are `argument` or `node:output:index` (tensorflow/core/framework/function.proto); in a graph they
are `node:index`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graph_restore.dtypes import REF_OFFSET, DataType
from graph_restore.errors import UnsupportedFormatError
from graph_restore.names import is_control, node_of, parse_tensor_name
from graph_restore.protos import FunctionDef, NodeDef, TensorShapeProto
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.variables import RESOURCE_OPS

_DROPPED = ("_class", "_output_shapes")
_HANDLE_PASSING = ("Identity", "Switch", "Enter")


@dataclass(frozen=True)
class Body:
    """What a function is made of: `arguments`, the tensor that each stands for outside; inside, `inputs` gives the
    position of the argument that a tensor is; `nodes` by name; `results`, tensors."""

    arguments: Sequence[Tensor]
    inputs: Mapping[Tensor, int]
    nodes: Iterable[str]
    results: Sequence[Tensor]


def add_function(draft: Draft, scope: str, body: Body, extra: Sequence[Any] = ()) -> str:
    """Add the function of `body` to the draft; returns its name, which no other content has.

    `extra`: NodeDefs that are in the function alone.
    """
    function, own = FunctionDef(), {node.name: node for node in extra}
    inside = {name: draft.nodes[name] for name in body.nodes if name not in own} | own
    arguments = _argument_names(len(body.arguments), inside)
    spans = {name: _outputs(draft, node) for name, node in inside.items()}

    def spell(tensor: Tensor) -> str:
        position = body.inputs.get(tensor)
        return arguments[position] if position is not None else spans[tensor[0]][tensor[1]]

    for name, tensor in zip(arguments, body.arguments):
        argument = function.signature.input_arg.add(name=name, type=tensor_type(draft, tensor))
        _describe_handle(draft, tensor, argument)
    for node in inside.values():
        function.node_def.append(_inner_node(node, spell, inside))
    for number, result in enumerate(body.results):
        position = body.inputs.get(result)
        number_type = (
            function.signature.input_arg[position].type if position is not None else _type(draft, inside, result)
        )
        output = function.signature.output_arg.add(name=f"result{number}", type=number_type)
        if position is not None:
            output.handle_data.extend(function.signature.input_arg[position].handle_data)
        function.ret[output.name] = spell(result)
    function.signature.is_stateful = any(is_stateful(draft, node) for node in inside.values())
    payloads = {name: draft.payloads[("", name)] for name in inside if ("", name) in draft.payloads}
    function.signature.name = _unique_name(scope, function, payloads)
    draft.functions[function.signature.name] = function
    draft.payloads.update({(function.signature.name, name): value for name, value in payloads.items()})
    return str(function.signature.name)


def is_stateful(draft: Draft, node: Any) -> bool:
    """Whether running a node twice, or not at all, may make a difference."""
    if node.op in ("StatelessIf", "StatelessWhile"):
        return False
    op = draft.graph.ops.get(node.op)
    return op is None or op.is_stateful


def tensor_type(draft: Draft, tensor: Tensor) -> int:
    """The DataType of a tensor of the draft."""
    return _type(draft, draft.nodes, tensor)


def unknown_shapes(count: int) -> list[Any]:
    """Shapes of unknown rank."""
    return [TensorShapeProto(unknown_rank=True) for _ in range(count)]


def _type(draft: Draft, nodes: Mapping[str, Any], tensor: Tensor) -> int:
    types = draft.graph.ops.output_types(nodes[tensor[0]])
    if tensor[1] >= len(types):
        raise UnsupportedFormatError(f"node {tensor[0]} has {len(types)} outputs; output {tensor[1]} is taken")
    number = types[tensor[1]]
    return number - REF_OFFSET if number > REF_OFFSET else number


def _argument_names(count: int, taken: Iterable[str]) -> list[str]:
    prefix = "argument"
    while any(name.startswith(prefix) for name in taken):
        prefix += "x"
    return [f"{prefix}{number}" for number in range(count)]


def _outputs(draft: Draft, node: Any) -> list[str]:
    """The names in a function of each output of a node."""
    spans = draft.graph.ops.output_names(node)
    return [f"{node.name}:{output}:{index}" for output, _, count in spans for index in range(count)]


def _inner_node(node: Any, spell: Any, inside: Mapping[str, Any]) -> Any:
    copy = NodeDef()
    copy.CopyFrom(node)
    data = [spell(parse_tensor_name(item)) for item in node.input if not is_control(item)]
    controls = [item for item in node.input if is_control(item) and node_of(item) in inside]
    copy.input[:] = [*data, *dict.fromkeys(controls)]
    for name in _DROPPED:
        if name in copy.attr:
            del copy.attr[name]
    return copy


def _describe_handle(draft: Draft, tensor: Tensor, argument: Any) -> None:
    """Say of a handle what variable it is of: the gradient of a loop asks for dtype and shape."""
    if argument.type != DataType.DT_RESOURCE:
        return
    node = draft.nodes[tensor[0]]
    while node.op in _HANDLE_PASSING and node.input:
        node = draft.nodes[node_of(node.input[0])]
    if node.op in RESOURCE_OPS:
        argument.handle_data.add(dtype=node.attr["dtype"].type).shape.CopyFrom(node.attr["shape"].shape)


def _unique_name(scope: str, function: Any, payloads: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(function.SerializeToString(deterministic=True))
    for name, value in sorted(payloads.items()):
        digest.update(name.encode() + value.read().tobytes())
    words = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in scope)
    return f"__restored_{words}_{digest.hexdigest()[:16]}"
