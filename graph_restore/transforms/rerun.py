"""rerun_initializers: a restored model as it is after nodes of its graph have been run, such as `init`.

1. Only the Assigns that give variables their first values are understood; any other update is refused.
2. The first values are those of `initialize`, so they must be certain: random ones are refused.
3. A first value that is read off a variable which is initialised in the same run could be its old or its new value:
   refused as well.
What fills tables is left out: a frozen graph fills its tables itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from graph_restore.errors import FreezeError
from graph_restore.model import Model
from graph_restore.names import node_of
from graph_restore.transforms.aliases import find_aliases
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.initialize import initialize
from graph_restore.transforms.returned import is_call
from graph_restore.variables import Variables


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
