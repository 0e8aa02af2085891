"""Variables become Consts of the same name, and what reads them takes values.

1. Each variable that is still needed becomes a Const, its value left where it is on disk.
2. Reads of handles become Identity, gathers plain gathers; ops that pass references on become those that pass tensors.
3. A test whether a variable is initialised becomes true. What takes a handle and has no plain form is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import REF_OFFSET, DataType
from graph_restore.errors import FreezeError, UnsupportedFormatError, counted, near_names
from graph_restore.graph import tensor_attr
from graph_restore.model import Restoration
from graph_restore.names import is_control, node_of
from graph_restore.protos import NodeDef
from graph_restore.tensor_proto import head_of
from graph_restore.transforms.aliases import INITIALISED_TESTS, Aliases, find_aliases
from graph_restore.transforms.captures import Captures
from graph_restore.transforms.draft import Draft, Tensor, control_inputs
from graph_restore.transforms.hidden import check_nothing_lost
from graph_restore.transforms.returned import argument_of, is_call
from graph_restore.transforms.updates import Problems, Updates, Words
from graph_restore.variables import VARIABLE_OPS, Variable

_PLAIN = {
    "RefSwitch": "Switch", "RefMerge": "Merge", "RefEnter": "Enter", "RefExit": "Exit",
    "RefNextIteration": "NextIteration", "RefIdentity": "Identity",
}  # fmt: skip


def freeze_variables(
    draft: Draft,
    variables: list[Variable],
    targets: list[Tensor],
    roots: set[str],
    on_update: str,
    restoration: Restoration | None,
    uncertain: Problems,
    words: Words,
) -> None:
    """Leave no variable in a draft that has been cut to `roots`; FreezeError for what cannot be frozen. `restoration`:
    what gave the variables their values; `uncertain`: those known to have no certain value; `words`: what to call
    nodes that are not the user's."""
    present = {variable.name: variable for variable in variables}
    aliases = settle_updates(draft, variables, targets, roots, on_update, uncertain, words)
    needed = [variable for variable in variables if variable.name in draft.nodes]
    _require_values(needed, restoration)
    turn_readers(draft, aliases, present)
    for variable in needed:
        _turn_into_const(draft, variable)
    for name in draft.of_ops(("RefSelect",)):
        _turn_selection(draft, name, present)
    for name in [name for name in draft.of_ops(_PLAIN) if not _stays_reference(draft, draft.nodes[name])]:
        draft.change(name).op = _PLAIN[draft.nodes[name].op]
    if draft.takes_less():
        draft.keep(draft.ancestors(roots))


def settle_updates(
    draft: Draft,
    variables: Iterable[Variable],
    targets: Sequence[Tensor],
    roots: Collection[str],
    on_update: str,
    uncertain: Problems,
    words: Words,
    told: bool = True,
) -> Aliases:
    """Leave no update in a draft that has been cut to `roots` (see `updates`); the aliases of what is only read now."""
    present = list(variables)
    aliases = find_aliases(draft, present)
    updates = {access.node for access in aliases.accesses if access.updates}
    if not updates:
        return aliases
    former = dict(draft.nodes)
    values = Updates(draft, aliases, targets, present, uncertain=uncertain, words=words, told=told).settle(on_update)
    draft.keep(draft.ancestors(roots))
    check_nothing_lost(draft, former, updates - values.keys())
    read = [variable for variable in present if variable.name in draft.nodes or variable.name in values.values()]
    return find_aliases(draft, read, values)  # one that is overwritten first is read, and not needed itself


def _turn_selection(draft: Draft, name: str, variables: Mapping[str, Variable]) -> None:
    """A RefSelect of values: the one of that index, put together with the others. (No op selects from a list.)"""
    node = draft.nodes[name]
    index, *data = [item for item in node.input if not is_control(item)]
    values = [variables[node_of(item)].value for item in data if node_of(item) in variables]
    if len(values) < len(data) or len({value.shape for value in values if value is not None}) > 1:
        return  # left to the check of references, which names it
    number = node.attr["T"].type
    pack = draft.add(NodeDef(name=draft.free_name(f"{name}/values"), op="Pack", input=data))
    pack.attr["T"].type, pack.attr["N"].i = number, len(data)
    gather = NodeDef(name=name, op="Gather", device=node.device, input=[pack.name, index, *control_inputs(node)])
    gather.attr["Tparams"].type, gather.attr["Tindices"].type = number, DataType.DT_INT32
    draft.add(gather)


def _stays_reference(draft: Draft, node: Any) -> bool:
    """Whether an op that passes references on passes one that is no variable's: old stacks and tables are references
    as well."""
    seen = set()
    while node.op in {*_PLAIN, *_PLAIN.values()} and node.name not in seen:  # some may be turned already
        seen.add(node.name)
        node = draft.nodes[node_of(node.input[0])]
    try:
        return draft.graph.ops.output_types(node)[0] > REF_OFFSET
    except (UnsupportedFormatError, IndexError):
        return False


def variables_in(draft: Draft, variables: Iterable[Variable]) -> list[Variable]:
    """Those of the variables that a draft still has, and as variables."""
    names = set(draft.of_ops(VARIABLE_OPS))
    return [variable for variable in variables if variable.name in names]


def _require_values(needed: list[Variable], restoration: Restoration | None) -> None:
    """FreezeError that names every needed variable without a value, and what the checkpoint has instead."""
    without = [variable for variable in needed if variable.value is None]
    if not without:
        return
    lines = [f"  {variable.name}: {_why_none(variable, restoration)}" for variable in without]
    if restoration is None:
        where, advice = " (restore the model first)", []
    else:
        where = f" in {restoration.checkpoint}" if restoration.checkpoint else ""
        advice = [str(restoration.guess)] if restoration.guess is not None else []
        uncertain = all("value" in variable.authority for variable in without)
        own = "pass on_update='initial' to take the restored value"
        instead = own if uncertain else "pass rename= or another checkpoint to restore"
        advice.append(f"{instead}, or feed what they compute")
        if restoration.guess is None and not uncertain:
            advice += _first_values(without)
    have = "has" if len(without) == 1 else "have"
    first = f"{counted(len(without), 'variable')} that the fetches need {have} no value{where}:"
    raise FreezeError(
        "\n".join([first, *lines, *advice]),
        variables=[variable.name for variable in without],
    )


def _why_none(variable: Variable, restoration: Restoration | None) -> str:
    key = variable.checkpoint_key or variable.name
    if "value" in variable.authority:
        return variable.authority["value"]
    if restoration is None:
        return f"no value, expected under key {key}"
    if variable.name not in restoration.missing and variable.name not in restoration.mismatched:
        return "left out, by include= or exclude="
    near = near_names(key, restoration.unused)
    return f"no value, expected under key {key}" + (f"; near: {', '.join(near)}" if near else "")


def _first_values(without: list[Variable]) -> list[str]:
    """A sentence for variables that no checkpoint holds, as those of tf.metrics, and others with an initializer."""
    local = sum("local_variables" in variable.collections for variable in without)
    if not any(variable.initial_value is not None for variable in without):
        return []
    which = f"{local} of them are local variables, which Savers leave out; " if local else ""
    return [f"{which}graph_restore.initialize(model) gives first values to those whose initializers are constant"]


def _turn_into_const(draft: Draft, variable: Variable) -> None:
    assert variable.value is not None
    const = NodeDef.FromString(_const_attrs(variable.data_type, variable.value.shape))
    const.name, device = variable.name, draft.nodes[variable.name].device
    if device:
        const.device = device
    draft.add(const)
    draft.payloads[("", variable.name)] = variable.value


@lru_cache(1024)
def _const_attrs(number: int, shape: tuple[int, ...]) -> bytes:
    """A serialized Const without a name, whose value is elsewhere: most variables have the shape of another."""
    const = NodeDef(op="Const")
    const.attr["dtype"].type = number
    const.attr["value"].tensor.MergeFromString(head_of(number, shape))
    data: bytes = const.SerializeToString()
    return data


def turn_readers(draft: Draft, aliases: Aliases, variables: Mapping[str, Variable]) -> None:
    """Give every node that takes or passes a handle or reference its form for plain tensors."""
    calls: dict[str, dict[int, int]] = {}
    for access in aliases.accesses:
        variable = variables[access.variable]
        node = draft.nodes[access.node]
        if node.op in INITIALISED_TESTS:
            _turn_into_true(draft, node)
        elif is_call(node, draft.graph.functions):
            calls.setdefault(node.name, {})[argument_of(node, access.position)] = variable.data_type
        elif variable.kind == "resource":
            _turn_handle_reader(draft, node, variable)
    _turn_calls(draft, calls)
    for (name, _), owner in aliases.tensors.items():
        variable = variables[owner]
        if variable.kind == "resource" and name != owner and _passes_one_on(draft, name):
            draft.change(name).attr["T"].type = variable.data_type


def _passes_one_on(draft: Draft, name: str) -> bool:
    node = draft.nodes[name]
    return "T" in node.attr and not is_call(node, draft.graph.functions)


def _turn_calls(draft: Draft, calls: Mapping[str, Mapping[int, int]]) -> None:
    """Give calls that take handles functions that take values."""
    captures = Captures(draft.graph.functions, draft.payloads)
    for name, types in calls.items():
        captures.turn(draft.change(name), types)
    draft.functions.update(captures.functions)
    draft.payloads.update(captures.payloads)


def _turn_into_true(draft: Draft, node: Any) -> None:
    true = NodeDef(name=node.name, op="Const", device=node.device, input=control_inputs(node))
    true.attr["dtype"].type = DataType.DT_BOOL
    true.attr["value"].CopyFrom(tensor_attr(np.bool_(True)))
    draft.add(true)


def _turn_handle_reader(draft: Draft, node: Any, variable: Variable) -> None:
    changed = draft.change(node.name)  # attrs are read off the copy: asking a message for one that is not set sets it
    indices = changed.attr["Tindices"].type if "Tindices" in changed.attr else DataType.DT_INVALID
    if node.op == "ReadVariableOp":
        _become(changed, "Identity", {"T": variable.data_type})
    elif node.op == "ResourceGather":
        if changed.attr["batch_dims"].i:
            axis = draft.free_name(f"{node.name}/axis")
            const = NodeDef(name=axis, op="Const")
            const.attr["dtype"].type = DataType.DT_INT32
            const.attr["value"].CopyFrom(tensor_attr(np.int32(changed.attr["batch_dims"].i)))
            draft.add(const)
            batch_dims = changed.attr["batch_dims"].i
            changed.input.insert(2, axis)
            _become(
                changed, "GatherV2", {"Tparams": variable.data_type, "Tindices": indices, "Taxis": DataType.DT_INT32}
            )
            changed.attr["batch_dims"].i = batch_dims
        else:
            _become(changed, "Gather", {"Tparams": variable.data_type, "Tindices": indices})
    elif node.op == "ResourceGatherNd":
        _become(changed, "GatherNd", {"Tparams": variable.data_type, "Tindices": indices})
    elif node.op == "VariableShape":
        out_type = changed.attr["out_type"].type or DataType.DT_INT32
        _become(changed, "Shape", {"T": variable.data_type, "out_type": out_type})
    elif node.op not in ("Add", "AddV2", "Sub"):  # those are updates that were turned into their values
        raise FreezeError(
            f"{node.name} ({node.op}) takes the handle of variable {variable.name}, and no op on its value can stand "
            "for that; feed its outputs, or fetch something before it",
            nodes={node.name: f"takes the handle of {variable.name}"},
        )


def _become(node: Any, op: str, types: Mapping[str, int]) -> None:
    node.op = op
    for name in [name for name in node.attr if name != "_class" and not name.startswith("_output")]:
        del node.attr[name]
    for name, number in types.items():
        node.attr[name].type = number
