"""Constants that `unfreeze` made variables get their names back when the graph is frozen again.

`unfreeze` calls the handle `w/variable`, with the shared_name `w`, and its read `w`, so that tensor `w:0` is the value.
By the rules of freezing that gives a Const `w/variable` and an Identity `w`; here the Const takes the Identity's place
and name. No other program calls a read by the name its variable is shared under.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from graph_restore.names import input_name, node_of, parse_tensor_name
from graph_restore.transforms.draft import Draft, control_inputs
from graph_restore.variables import RESOURCE_OPS


def name_former_constants(draft: Draft, roots: Collection[str]) -> None:
    """Put the constants under their former names; `roots`: the nodes that have to stay."""
    taken: dict[str, str] = {}
    for node in draft.graph.by_op.get("ReadVariableOp", ()):
        handle = _former_handle(draft, node)
        if handle and _take_place(draft, handle, node.name):
            taken[handle] = node.name
    if taken:
        plain = {handle: name for handle, name in taken.items() if not draft.nodes[name].input}
        _lead_users(draft, plain)
        draft.keep(draft.ancestors(roots))


def _former_handle(draft: Draft, node: Any) -> str:
    """The handle that a read of that kind reads; "" for any other read."""
    if node.name not in draft.nodes:
        return ""
    handle = draft.graph.nodes.get(node_of(node.input[0]))
    if handle is None or handle.op not in RESOURCE_OPS or "shared_name" not in handle.attr:
        return ""
    return str(handle.name) if handle.attr["shared_name"].s == node.name.encode() else ""


def _take_place(draft: Draft, handle: str, read: str) -> bool:
    """Make the Identity `read` the Const `handle`; whether it is one."""
    const, identity = draft.nodes.get(handle), draft.nodes[read]
    if const is None or const.op != "Const" or identity.op != "Identity" or node_of(identity.input[0]) != handle:
        return False
    value = draft.payloads.get(("", handle))
    made = type(const)()
    made.CopyFrom(const)
    made.name = read
    made.input.extend(control_inputs(identity))
    draft.add(made)
    if value is not None:
        draft.payloads["", read] = value
    return True


def _lead_users(draft: Draft, taken: dict[str, str]) -> None:
    """Whatever else takes the handle's Const takes the former constant; it would be in the file twice otherwise. One
    that waits for others is left to those that took it: it may be in a branch."""
    for name in list(draft.nodes):
        for position, item in enumerate(draft.nodes[name].input):
            source, index = parse_tensor_name(item)
            if source in taken:
                draft.change(name).input[position] = input_name(taken[source], index)
