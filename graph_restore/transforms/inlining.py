"""A call of a function replaced by the nodes of its body.

1. Body node `n` of a call `c` becomes `c/n`; `c` itself becomes the Identity (IdentityN, NoOp) of what the function
   returns, and waits for every stateful node of the body, all of which a call runs.
2. Body nodes that take nothing else of the body wait for what the call waited for.
Inputs in a body are `argument`, `node:output:index` or `^node`; see tensorflow/core/framework/function.proto.
"""

from __future__ import annotations

from typing import Any

from graph_restore.errors import FreezeError, UnsupportedFormatError
from graph_restore.names import input_name, is_control
from graph_restore.protos import NodeDef
from graph_restore.transforms.draft import Draft, control_inputs


def can_inline(draft: Draft, name: str) -> bool:
    """Whether a function's body stands for itself: it exists, and leaves no attr to its callers."""
    function = draft.function(name)
    if function is None or len(function.ret) != len(function.signature.output_arg):
        return False
    takes_lists = any(argument.number_attr or argument.type_list_attr for argument in function.signature.input_arg)
    left = any(value.placeholder for node in function.node_def for value in node.attr.values())
    known = all(node.op in draft.graph.ops for node in function.node_def)
    return known and not (takes_lists or left)


def inline(draft: Draft, call: Any, name: str, arguments: list[str]) -> list[str]:
    """Replace node `call` by the body of function `name` on these inputs; gives the names of the new nodes."""
    function = draft.function(name)
    prefix = _free_scope(draft, call.name)
    names = {node.name: f"{prefix}/{node.name}" for node in function.node_def}
    tensors = dict(zip((argument.name for argument in function.signature.input_arg), arguments))
    for node in function.node_def:
        tensors.update(_outputs(draft, function, node, names[node.name]))
    waits = control_inputs(call)
    for node in function.node_def:
        _add_body_node(draft, name, node, names, tensors, waits)
    returned = [tensors[function.ret[output.name]] for output in function.signature.output_arg]
    runs = [*function.control_ret.values(), *(node.name for node in function.node_def if _is_stateful(draft, node))]
    types = [output.type for output in function.signature.output_arg]
    _stand_for(draft, call, returned, types, [*waits, *dict.fromkeys(f"^{names[item]}" for item in runs)])
    return list(names.values())


def _free_scope(draft: Draft, name: str) -> str:
    taken = {other.rpartition("/")[0] for other in draft.nodes}
    scope, number = name, 0
    while scope in taken:
        number += 1
        scope = f"{name}_{number}"
    return scope


def _outputs(draft: Draft, function: Any, node: Any, new_name: str) -> dict[str, str]:
    """`node:output:index` to the graph's name, for every output of a body node."""
    try:
        spans = draft.graph.ops.output_names(node)
    except UnsupportedFormatError as error:
        raise FreezeError(f"in function {function.signature.name}, {error}", nodes={node.name: "unknown op"}) from None
    return {
        f"{node.name}:{output}:{index}": input_name(new_name, first + index)
        for output, first, count in spans
        for index in range(count)
    }


def _add_body_node(
    draft: Draft, function: str, node: Any, names: dict[str, str], tensors: dict[str, str], waits: list[str]
) -> None:
    copy = NodeDef()
    copy.CopyFrom(node)
    copy.name = names[node.name]
    copy.input[:] = [f"^{names[item[1:]]}" if is_control(item) else tensors[item] for item in node.input]
    if not any(is_control(item) or ":" in item for item in node.input):
        copy.input.extend(waits)
    for key in ("_class", "_output_shapes"):  # `_class` names nodes of the body
        if key in copy.attr:
            del copy.attr[key]
    draft.add(copy)
    if (function, node.name) in draft.payloads:
        draft.payloads["", copy.name] = draft.payloads[function, node.name]


def _is_stateful(draft: Draft, node: Any) -> bool:
    op = draft.graph.ops.get(node.op)
    return op is None or bool(op.is_stateful)


def _stand_for(draft: Draft, call: Any, returned: list[str], types: list[int], controls: list[str]) -> None:
    op = "NoOp" if not returned else "Identity" if len(returned) == 1 else "IdentityN"
    stand_in = NodeDef(name=call.name, op=op, input=[*returned, *controls])
    if op == "Identity":
        stand_in.attr["T"].type = types[0]
    elif op == "IdentityN":
        stand_in.attr["T"].list.type.extend(types)
    draft.add(stand_in)
