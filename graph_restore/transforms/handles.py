"""use_handles: reference variables made resource ones, where that changes nothing.

1. Only a variable that nothing in the graph updates is changed; then it does not matter when it is read. One that is
   updated, or whose reference may also be another variable's, keeps its reference.
2. The variable op becomes a VarHandleOp of the same name. A read (Identity) becomes a ReadVariableOp of the same name;
   what takes the reference itself takes a new read `<name>/Read/ReadVariableOp`.
3. Ops that pass a reference on (RefSwitch, RefEnter ...) pass that read on instead, and become Switch, Enter ...

tf.saved_model.load finds resource variables only; a model that keeps references runs there too, and lists none.
(`resources` changes every variable or, where one has no resource form, none; here each is looked at alone, and no read
is moved, so that a model is served at all.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from graph_restore.dtypes import REF_OFFSET
from graph_restore.names import parse_tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.aliases import REF_PASSING, find_aliases
from graph_restore.transforms.draft import Draft
from graph_restore.variables import Variable

_TESTS = {"IsVariableInitialized": "VarIsInitializedOp"}


def use_handles(draft: Draft, variables: Iterable[Variable]) -> list[Variable]:
    """The variables, those that could be changed being of kind "resource" now; the draft has their new nodes."""
    present = list(variables)
    references = [variable for variable in present if variable.kind == "ref"]
    aliases = find_aliases(draft, references)
    kept = {access.variable for access in aliases.accesses if access.updates} | set(aliases.merged)
    kept |= {variable.name for variable in references if draft.nodes[variable.name].op == "AutoReloadVariable"}
    changed = {variable.name for variable in references} - kept
    passing = [(name, owner) for (name, _), owner in aliases.tensors.items() if owner in changed and name != owner]
    for name, _ in passing:
        _pass_values(draft, name)
    users = draft.consumers()
    result = []
    for variable in present:
        if variable.name in changed:
            snapshot = _change(draft, variable, users[variable.name])
            authority = {**variable.authority, "snapshot": "topology"}
            variable = replace(variable, kind="resource", snapshot=snapshot, authority=authority)
        result.append(variable)
    if kept:
        draft.note(f"{len(kept)} variables keep their references, as the graph updates them: {', '.join(sorted(kept))}")
    return result


def _pass_values(draft: Draft, name: str) -> None:
    node = draft.nodes[name]
    if node.op in REF_PASSING:
        node = draft.change(name)
        node.op = node.op.removeprefix("Ref")
    for key, value in list(node.attr.items()):
        if value.type > REF_OFFSET:
            draft.change(name).attr[key].type = value.type - REF_OFFSET


def _change(draft: Draft, variable: Variable, users: list[tuple[Any, int]]) -> str:
    """Turn one variable into a handle; gives the tensor that reads it."""
    old = draft.nodes[variable.name]
    handle = NodeDef(name=variable.name, op="VarHandleOp", device=old.device, input=old.input)
    handle.attr["dtype"].type = variable.data_type
    shape = handle.attr["shape"].shape
    if variable.shape is None:
        shape.unknown_rank = True
    else:
        shape.SetInParent()
        for size in variable.shape:
            shape.dim.add(size=-1 if size is None else size)
    for key in ("container", "shared_name"):
        handle.attr[key].s = old.attr[key].s if key in old.attr else b""
    handle.attr["shared_name"].s = handle.attr["shared_name"].s or variable.name.encode()
    draft.add(handle)
    reads = ""
    for user, position in users:
        node = draft.nodes[user.name]
        if node.op == "Identity" and position == 0 and parse_tensor_name(node.input[0]) == (variable.name, 0):
            _become(draft, user.name, "ReadVariableOp", variable.data_type)
            reads = reads or (user.name if len(node.input) == 1 else "")
        elif node.op in _TESTS:
            _become(draft, user.name, _TESTS[node.op], 0)
    plain = reads or _new_read(draft, variable)
    for user, position in users:
        node = draft.nodes[user.name]
        takes = not node.input[position].startswith("^")
        if takes and node.op not in ("ReadVariableOp", *_TESTS.values()):
            draft.change(user.name).input[position] = plain
    return f"{plain}:0"


def _new_read(draft: Draft, variable: Variable) -> str:
    read = NodeDef(name=draft.free_name(f"{variable.name}/Read/ReadVariableOp"), op="ReadVariableOp")
    read.input.append(variable.name)
    read.attr["dtype"].type = variable.data_type
    return str(draft.add(read).name)


def _become(draft: Draft, name: str, op: str, data_type: int) -> None:
    node = draft.change(name)
    node.op = op
    for key in [key for key in node.attr if key != "_class"]:
        del node.attr[key]
    if data_type:
        node.attr["dtype"].type = data_type
