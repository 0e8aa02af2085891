"""Partial freezing: some variables stay, the rest become constants.

1. A variable that is kept stays as it is, and so do its reads and updates: they run in the frozen graph as before.
2. Its initializer stays where that needs no other variable and no input; else there is none any more.
3. A part of a partitioned variable whose other parts are not kept is saved under its own name.
4. A saver for those that are left is added; with `export(..., format="checkpoint")` their values are written for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from graph_restore.discovery import find_variables
from graph_restore.errors import FreezeError, NodeNotFoundError, did_you_mean
from graph_restore.model import Model
from graph_restore.transforms.definitions import with_definitions
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.selection import Selected, Selection
from graph_restore.variables import VARIABLE_OPS, Variable, Variables

_INPUTS = ("Placeholder", "Queue", "Iterator", "OneShotIterator")


def kept_variables(model: Model, selection: Selection) -> Variables:
    """The variables that are to stay; NodeNotFoundError for a name or glob that is of none."""
    if selection is None:
        return Variables()
    for one in [selection] if isinstance(selection, str) else selection if isinstance(selection, Iterable) else ():
        if isinstance(one, str) and not any(map(Selected("keep_variables", one, default=False), model.variables)):
            known = did_you_mean(one, model.variables.names())
            raise NodeNotFoundError(f"keep_variables: the graph has no variable {one!r}{known}")
    chosen = Selected("keep_variables", selection, default=False)
    return Variables(variable for variable in model.variables if chosen(variable))


def others(variables: Variables, kept: Variables) -> Variables:
    """The variables that are to be frozen."""
    if not len(kept):
        return variables
    names = set(kept.names())
    return Variables(variable for variable in variables if variable.name not in names)


def initializer_nodes(draft: Draft, kept: Variables, roots: Iterable[str], targets: Iterable[Tensor]) -> set[str]:
    """The initializers that stay: those of kept variables that `roots` need. FreezeError for a handle as a target."""
    if not len(kept):
        return set()
    handles = {variable.name for variable in kept if variable.kind == "resource"}
    for name, _ in targets:
        if name in handles and draft.nodes[name].op in VARIABLE_OPS:
            raise FreezeError(
                f"{name} is kept, and a resource variable's tensor is a handle; fetch a read, {kept[name].snapshot}",
                nodes={name: "the handle of a variable"},
            )
    needed = draft.ancestors(roots)
    names = [one.initializer for one in kept if one.name in needed and one.initializer in draft.nodes]
    return {name for name in names if name is not None and _stands_alone(draft, name)}


def _stands_alone(draft: Draft, initializer: str) -> bool:
    nodes = [draft.nodes[name] for name in draft.ancestors([initializer])]
    own = sum(node.op in VARIABLE_OPS for node in nodes)
    return own == 1 and not any(node.op.startswith(_INPUTS) for node in nodes)


def with_kept(frozen: Model, kept: Variables) -> Model:
    """The frozen model with what is known of the variables that were kept, a saver, and a note on those not needed."""
    if not len(kept):
        return frozen
    nodes = frozen.graph.nodes
    left = [one for one in kept if one.name in nodes and nodes[one.name].op in VARIABLE_OPS]
    gone = [one.name for one in kept if one.name not in nodes]
    notes = [f"{', '.join(gone)}: kept variables that the fetches do not need are not there"] if gone else []
    whole = [_alone(one) if one.name in _lonely(left) else one for one in left]
    frozen = replace(frozen, variables=Variables(whole), notes=(*frozen.notes, *notes))
    if not left:
        return frozen
    from graph_restore.transforms.saver import build_saver  # most runs keep none

    saved = build_saver(frozen)
    found = find_variables(saved.graph, {}, saved.savers)
    variables = [_as_found(one, found[one.name]) for one in saved.variables]
    return replace(saved, variables=Variables(variables), collections=with_definitions({}, variables))


def _lonely(variables: list[Variable]) -> set[str]:
    """The parts of partitioned variables that are there without the other parts."""
    parts: dict[str | None, list[Variable]] = {}
    for variable in variables:
        if variable.slice is not None:
            parts.setdefault(variable.checkpoint_key, []).append(variable)
    found: set[str] = set()
    for members in parts.values():
        boxes = [one.slice for one in members if one.slice is not None]
        if sum(math.prod(box.lengths) for box in boxes) != math.prod(boxes[0].full_shape):
            found |= {one.name for one in members}
    return found


def _alone(variable: Variable) -> Variable:
    return replace(variable, checkpoint_key=variable.name, slice=None)


def _as_found(variable: Variable, found: Variable) -> Variable:
    """The variable with the nodes that are still there for it."""
    return replace(variable, initializer=found.initializer, initial_value=found.initial_value, snapshot=found.snapshot)
