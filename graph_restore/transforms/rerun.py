"""A restored model as it is after nodes of its graph have been run: `init`, or a SavedModel's init op.

rerun_initializers:
1. Only the Assigns that give variables their first values are understood; any other update is refused.
2. The first values are those of `initialize`, so they must be certain: random ones are refused.
3. A first value that is read off a variable which is initialised in the same run could be its old or its new value:
   refused as well.
What fills tables is left out: a frozen graph fills its tables itself.

after_init_op: TensorFlow's loaders run the init op (main_op, legacy_init_op) of a SavedModel once its variables are
restored. An Assign there of a value that is certain gives the variable that value; after anything else that updates a
variable there its value is not certain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from graph_restore.errors import FreezeError, warn
from graph_restore.model import Model
from graph_restore.names import node_of, parse_tensor_name, tensor_name
from graph_restore.transforms.aliases import find_aliases
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.initialize import initialize
from graph_restore.transforms.open_calls import node_updates
from graph_restore.transforms.returned import is_call
from graph_restore.variables import Variable, Variables

_RUN_ON_LOADING = frozenset({"saved_model", "session_bundle"})
_ASSIGNS = frozenset({"Assign", "AssignVariableOp"})


def rerun_initializers(model: Model, nodes: Iterable[str]) -> tuple[Model, list[str]]:
    """(the model with first values for the variables that running `nodes` initialises, the names of these).

    NodeNotFoundError for a node the graph does not have; FreezeError, naming node and variable, where running them
    does more than that or a first value is not certain.
    """
    draft = Draft(model.graph)
    needed = draft.ancestors([model.graph.node(name).name for name in nodes])
    names = _initialised(draft, model, needed)
    for name in names:
        _refuse_race(draft, model, name, names)
    emptied = [replace(one, value=None) if one.name in names else one for one in model.variables]
    first = initialize(replace(model, variables=Variables(emptied)))
    lacking = [name for name in names if first.variables[name].value is None]
    if lacking:
        raise FreezeError(
            f"the initializer nodes set variables whose first value is not certain: {', '.join(lacking)}; "
            f"leave them out to freeze the checkpoint's values ({first.notes[-1]})",
            variables=lacking,
        )
    chosen = [first.variables[one.name] if one.name in names else one for one in model.variables]
    return replace(model, variables=Variables(chosen)), names


def _initialised(draft: Draft, model: Model, needed: set[str]) -> list[str]:
    """The variables that nodes among `needed` give their first values; FreezeError for another update."""
    found: dict[str, None] = {}
    for access in find_aliases(draft, model.variables).accesses:
        node = draft.nodes[access.node]
        if access.node not in needed or not (access.updates or is_call(node, draft.graph.functions)):
            continue
        if model.variables[access.variable].initializer != access.node:
            raise FreezeError(
                f"the initializer nodes run {access.node} ({node.op}) on variable {access.variable}, which is not its "
                "initializer; leave it out to freeze the checkpoint's value",
                nodes={access.node: f"changes {access.variable} and is not its initializer"},
            )
        found[access.variable] = None
    return list(found)


def _refuse_race(draft: Draft, model: Model, name: str, names: list[str]) -> None:
    value = model.variables[name].initial_value
    read = draft.ancestors([node_of(value)]) & set(names) - {name} if value is not None else set()
    if read:
        raise FreezeError(
            f"the initializer nodes set {name} from {', '.join(sorted(read))}, which they set too, in no certain order",
            variables=[name, *sorted(read)],
        )


def after_init_op(model: Model, keep_uncertain: bool = True, tell: bool = True) -> Model:
    """A restored SavedModel with the values that variables have once its init op has run; any other model as it is.

    Where such a value is not certain the variable keeps the restored one; without `keep_uncertain` it has none, and its
    `authority` says why, unless its own initializer is what runs: no one trains what loading makes random again. What
    is no longer as restored, or perhaps should not be, is told by notes and, unless `tell` is False, by a
    GraphRestoreWarning.
    """
    if model.init_op is None or model.restoration is None or model.source.format not in _RUN_ON_LOADING:
        return model
    draft = Draft(model.graph)
    updates = _updates(draft, model, draft.ancestors([model.init_op]))
    if not updates:
        return model
    values = _values_set(draft, model, updates)
    reasons = {name: _reason(model, nodes) for name, nodes in updates.items() if name not in values}
    restored = {one.name for one in model.variables if one.value is not None}
    kept = {
        name for name in reasons if name in restored and (keep_uncertain or _only_initialised(model, updates, name))
    }
    dropped = {name: why for name, why in reasons.items() if name not in kept and not keep_uncertain}
    changed = [_updated(one, values.get(one.name), dropped.get(one.name)) for one in model.variables]
    replaced = [name for name in values if name in restored]
    notes = [f"{name} has its restored value, but {why}" for name, why in reasons.items() if name in kept]
    if replaced:
        notes.append(f"the init op {model.init_op}, which TensorFlow runs on loading, sets {', '.join(replaced)}")
    for note in notes if tell else ():
        warn(note)
    return replace(model, variables=Variables(changed), notes=(*model.notes, *notes))


def _only_initialised(model: Model, updates: dict[str, list[Any]], name: str) -> bool:
    return [node.name for node in updates[name]] == [model.variables[name].initializer]


def _updated(variable: Variable, value: Any, reason: str | None) -> Variable:
    if value is not None:
        return replace(variable, value=value, authority={**variable.authority, "value": "init op"})
    if reason is None:
        return variable
    return replace(variable, value=None, authority={**variable.authority, "value": reason})


def _reason(model: Model, nodes: list[Any]) -> str:
    ops = ", ".join(f"{node.name} ({node.op})" for node in nodes)
    return f"the init op {model.init_op}, which TensorFlow runs on loading, updates it by {ops}, to what is not certain"


def _updates(draft: Draft, model: Model, needed: set[str]) -> dict[str, list[Any]]:
    """Variable to the nodes among `needed` that may change it."""
    known: dict[str, bool] = {}
    updating = {name for name in needed if node_updates(draft, draft.nodes[name], known)}
    found: dict[str, list[Any]] = {}
    if updating:
        for access in find_aliases(draft, model.variables).accesses:
            node = draft.nodes[access.node]
            if access.node in updating and (access.updates or is_call(node, draft.graph.functions)):
                found.setdefault(access.variable, []).append(node)
    return found


def _values_set(draft: Draft, model: Model, updates: dict[str, list[Any]]) -> dict[str, Any]:
    """The certain values among those that variables are updated to: of one Assign, in no branch, of a value that
    depends on no variable which is updated as well."""
    assigns = {}
    for name, nodes in updates.items():
        if len(nodes) == 1 and nodes[0].op in _ASSIGNS and len(nodes[0].input) > 1:
            node = nodes[0]
            value = draft.ancestors([node_of(node.input[1])])
            if not updates.keys() & (value - {name}) and not _in_branch(draft, node.name):
                assigns[name] = node
    first = initialize(replace(model, variables=Variables(_to_be_set(one, assigns) for one in model.variables)))
    return {name: first.variables[name].value for name in assigns if first.variables[name].value is not None}


def _to_be_set(variable: Variable, assigns: dict[str, Any]) -> Variable:
    """The variable with the value of its Assign as its first one."""
    if variable.name not in assigns:
        return variable
    return replace(variable, value=None, initial_value=tensor_name(*parse_tensor_name(assigns[variable.name].input[1])))


def _in_branch(draft: Draft, name: str) -> bool:
    """Whether a node runs on one side of a Switch only."""
    needed = draft.ancestors([name], stop=lambda node: node.op in ("Merge", "RefMerge"))
    return any(draft.nodes[one].op in ("Switch", "RefSwitch") for one in needed)
