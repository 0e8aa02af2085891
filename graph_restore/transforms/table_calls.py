"""Tables that are filled inside a function, as the init functions of SavedModels that TensorFlow 2 writes do.

    hash_table -> StatefulPartitionedCall(handle, ...)      in its body: LookupTableImportV2(handle, keys, values)

The op in the body is copied out into the graph, with what it takes: arguments are the call's inputs, Consts are copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graph_restore.protos import NodeDef
from graph_restore.savers import RESTORE_OPS
from graph_restore.transforms.draft import Draft, add_const
from graph_restore.transforms.returned import is_call


def lift_filler(draft: Draft, call: Any, position: int, fills: Callable[[str], bool]) -> str | None:
    """The name of a copy, in the graph, of the node that fills in its body the table that input `position` of `call`
    is; None when the body has no such node, or one whose inputs are computed there. `fills`: by op."""
    function = draft.graph.functions.get(call.attr["f"].func.name if "f" in call.attr else call.op)
    if function is None or not is_call(call, draft.graph.functions):
        return None
    arguments = [argument.name for argument in function.signature.input_arg]
    if position >= len(arguments):
        return None
    for node in function.node_def:
        if fills(node.op) and node.input and node.input[0] == arguments[position]:
            inputs = [_outside(draft, call, function, name) for name in node.input if not name.startswith("^")]
            if None not in inputs:
                copy = NodeDef()
                copy.CopyFrom(node)
                copy.name = draft.free_name(f"{call.name}/{node.name}")
                del copy.input[:]
                copy.input.extend(name for name in inputs if name is not None)
                return str(draft.add(copy).name)
    return None


def _outside(draft: Draft, call: Any, function: Any, name: str) -> str | None:
    """What a name in the body is in the graph: the call's input, or a copy of a Const; None for anything else."""
    arguments = [argument.name for argument in function.signature.input_arg]
    if name in arguments:
        return str(call.input[arguments.index(name)])
    node = next((node for node in function.node_def if node.name == name.partition(":")[0]), None)
    if node is None or node.op in RESTORE_OPS:
        return None
    if node.op == "Identity" and node.input:
        return _outside(draft, call, function, node.input[0])
    if node.op != "Const":
        return None
    return add_const(draft, f"{call.name}/{node.name}", draft.graph.value(node, function.signature.name))
