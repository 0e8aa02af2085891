"""Which tensors stand for a variable: its reference or handle, passed on by ops that only pass things on.

A ref variable's reference goes through RefSwitch, RefEnter and their like, and comes out of every op that updates it; a
resource variable's handle through Identity, Switch, Enter, and calls that give it back. What takes such a tensor reads
or updates the variable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from graph_restore.dtypes import DataType
from graph_restore.errors import UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.names import parse_tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.returned import Returned, is_call
from graph_restore.variables import Variable

REF_PASSING = frozenset(
    {"RefSwitch", "RefEnter", "RefExit", "RefMerge", "RefNextIteration", "RefIdentity", "RefSelect"}
)
HANDLE_PASSING = frozenset({"Identity", "Switch", "Enter", "Exit", "Merge", "NextIteration", *REF_PASSING})
HANDLE_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd"})
INITIALISED_TESTS = frozenset({"IsVariableInitialized", "VarIsInitializedOp"})
_TWO_OUTPUTS = frozenset({"Switch", "RefSwitch"})


class Access(NamedTuple):
    """Input `position` of `node` takes a variable; `updates` whether it may change it."""

    variable: str
    node: str
    position: int
    updates: bool


@dataclass(frozen=True)
class Aliases:
    """Of all variables: the tensors that stand for each, and what takes them."""

    tensors: dict[Tensor, str]
    accesses: list[Access]
    merged: dict[str, str]  # variable to a node whose reference may be of that variable or of another


def share_handles(draft: Draft, variables: Iterable[Variable]) -> Draft:
    """The draft, in which VarHandleOps that name one variable, by `shared_name`, pass on the handle of one of them: the
    first with a value. A model that is imported twice by TensorFlow 1 has its variables so."""
    sharing: dict[bytes, list[Variable]] = {}
    for variable in variables:
        attrs = draft.nodes[variable.name].attr
        if variable.kind == "resource" and "shared_name" in attrs and attrs["shared_name"].s:
            sharing.setdefault(attrs["shared_name"].s, []).append(variable)
    for found in [found for found in sharing.values() if len(found) > 1]:
        owner = next((variable for variable in found if variable.value is not None), found[0])
        for variable in found:
            if variable is not owner and _same_resource(draft.nodes[variable.name], draft.nodes[owner.name]):
                node = NodeDef(name=variable.name, op="Identity", input=[owner.name])
                node.attr["T"].type = DataType.DT_RESOURCE
                draft.add(node)
    return draft


def _same_resource(one: Any, other: Any) -> bool:
    # get, since to index the map of a NodeDef is to add to it
    return all(one.attr.get(key) == other.attr.get(key) for key in ("container", "dtype", "shape")) and not one.input


def find_aliases(draft: Draft, variables: Iterable[Variable], values: Mapping[str, str] | None = None) -> Aliases:
    """The aliases of `variables` in the draft; `values`: node to the variable whose updated value it stands for."""
    variables = list(variables)
    consumers = _consumers(draft, {*(values or ()), *(variable.name for variable in variables)}, variables)
    tensors: dict[Tensor, str] = {}
    accesses: list[Access] = []
    merged: dict[str, str] = {}
    returned = Returned(draft.graph.functions)
    updated: dict[str, list[Tensor]] = {}
    for name, owner in (values or {}).items():
        updated.setdefault(owner, []).append((name, 0))
    for variable in variables:
        waiting: list[Tensor] = [(variable.name, 0), *updated.get(variable.name, ())]
        while waiting:
            tensor = waiting.pop()
            if tensor in tensors:
                if tensors[tensor] != variable.name:
                    merged.update({tensors[tensor]: tensor[0], variable.name: tensor[0]})
                continue
            tensors[tensor] = variable.name
            if tensor[0] not in consumers:
                consumers |= draft.consumers_of([tensor[0]])
            for node, position in consumers[tensor[0]]:
                if parse_tensor_name(node.input[position]) != tensor:
                    continue
                passes, updates = _role(draft, node, position, variable.kind)
                if passes:
                    waiting.extend((node.name, index) for index in range(2 if node.op in _TWO_OUTPUTS else 1))
                if variable.kind == "resource" and is_call(node, draft.graph.functions):
                    waiting.extend((node.name, index) for index in returned.outputs(node, position))
                if updates or not passes:
                    accesses.append(Access(variable.name, node.name, position, updates))
    return Aliases(tensors, accesses, merged)


def _consumers(draft: Draft, names: Collection[str], variables: Iterable[Variable]) -> dict[str, list[tuple[Any, int]]]:
    """The consumers of these nodes, and of all whose op may give a reference or handle that they take from there."""
    passing = HANDLE_PASSING if any(variable.kind == "resource" for variable in variables) else REF_PASSING
    found: dict[str, list[tuple[Any, int]]] = {}
    may_pass: dict[str, bool] = {}
    while names:
        new = draft.consumers_of(names)
        found |= new
        users = {user.name: user for taken in new.values() for user, _ in taken if user.name not in found}
        for user in users.values():
            if user.op not in may_pass:
                may_pass[user.op] = user.op in passing or _may_pass(draft, user)
        names = {name for name, user in users.items() if may_pass[user.op]}
    return found


def _may_pass(draft: Draft, node: Any) -> bool:
    """Whether nodes of this one's op give a reference or handle that they take, as far as the op alone tells."""
    op = draft.graph.ops.get(node.op)
    gives = op is not None and any(argument.is_ref for one in (op, *op.older) for argument in one.outputs)
    return gives or is_call(node, draft.graph.functions)


def _role(draft: Draft, node: Any, position: int, kind: str) -> tuple[bool, bool]:
    """(passes the reference or handle on, updates the variable)."""
    if kind == "resource":
        passes = node.op in HANDLE_PASSING
        reads = node.op in HANDLE_READS or node.op in INITIALISED_TESTS or node.op == "VariableShape"
        return passes, not (passes or reads or _calls_function(draft, node))
    if node.op in REF_PASSING:
        return True, False
    if not _takes_reference(draft, node, position) or node.op in INITIALISED_TESTS:
        return False, False
    return position == 0 and _gives_reference(draft, node), True


def may_update(graph: Graph, node: Any) -> bool:
    """Whether a node, by its op alone, may change a variable."""
    if node.op in REF_PASSING or node.op in INITIALISED_TESTS:
        return False
    op = graph.ops.get(node.op)
    if op is not None and any(argument.is_ref for argument in op.inputs):
        return not node.op.startswith("LookupTable")
    return node.op.startswith(("Assign", "Resource")) and node.op not in HANDLE_READS


def _calls_function(draft: Draft, node: Any) -> bool:
    """Whether a handle goes into a function's body here; what the body does with it is seen when it is changed."""
    return node.op in draft.graph.functions or any(
        value.HasField("func") or value.list.func for value in node.attr.values()
    )


def _takes_reference(draft: Draft, node: Any, position: int) -> bool:
    try:
        return bool(draft.graph.ops.is_ref_input(node, position))
    except UnsupportedFormatError:
        return False


def _gives_reference(draft: Draft, node: Any) -> bool:
    try:
        types = draft.graph.ops.output_types(node)
    except UnsupportedFormatError:
        return False
    return bool(types) and types[0] > DataType.DT_INVALID + 100
