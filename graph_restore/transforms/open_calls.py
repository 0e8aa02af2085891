"""Calls of functions that update variables, opened: their bodies stand in the graph, where updates can be settled.

1. A call that runs in any case (in no cond, no loop) of a function in which a variable is updated is replaced by the
   nodes of that function, and so are such calls within.
2. A call runs when all its inputs are there: the nodes of the body that take nothing else of it wait for those.
3. What cannot be opened is left to `carried_updates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graph_restore.names import is_control, node_of
from graph_restore.transforms.aliases import may_update
from graph_restore.transforms.contexts import Context, Contexts
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.inlining import can_inline, inline
from graph_restore.transforms.returned import called
from graph_restore.variables import VARIABLE_OPS

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_MOST_ROUNDS = 100  # a function that calls itself would take any number
_WITHOUT_EFFECT = VARIABLE_OPS | {"Const", "Placeholder", "PlaceholderWithDefault"}


def open_updating_calls(draft: Draft, targets: Iterable[Tensor]) -> None:
    """Open the calls that `targets` need whose functions update variables."""
    if not draft.graph.functions:
        return
    needed = draft.ancestors(name for name, _ in targets)
    updating: dict[str, bool] = {}
    waiting = [name for name in draft.nodes if name in needed and _function_of(draft, draft.nodes[name], updating)]
    for _ in range(_MOST_ROUNDS):
        if not waiting:
            return
        contexts = Contexts(draft.nodes)
        made: list[str] = []
        for name in waiting:
            node = draft.nodes[name]
            function = _function_of(draft, node, updating)
            if function is not None and contexts.of(name) == Context() and can_inline(draft, function):
                data = [item for item in node.input if not is_control(item)]
                sources = dict.fromkeys(node_of(item) for item in data)
                late = [f"^{source}" for source in sources if draft.nodes[source].op not in _WITHOUT_EFFECT]
                changed = draft.change(name)
                changed.input.extend(item for item in late if item not in changed.input)
                made += inline(draft, changed, function, data)
        waiting = [name for name in made if _function_of(draft, draft.nodes[name], updating)]


def _function_of(draft: Draft, node: Any, updating: dict[str, bool]) -> str | None:
    """The function a node calls, if that updates a variable."""
    if node.op in _CALLS:
        name = str(node.attr["f"].func.name)
    elif node.op in draft.graph.functions:
        name = str(node.op)
    else:
        return None
    return name if updates_variables(draft, name, updating) else None


def updates_variables(draft: Draft, name: str, known: dict[str, bool]) -> bool:
    """Whether function `name`, or one it calls, has an op that may update a variable."""
    function = draft.function(name)
    if name not in known:
        known[name] = False  # of a function that calls itself
        nodes = function.node_def if function is not None else ()
        known[name] = any(node_updates(draft, node, known) for node in nodes)
    return known[name]


def node_updates(draft: Draft, node: Any, known: dict[str, bool]) -> bool:
    functions: Mapping[str, Any] = draft.graph.functions
    names = [item.name for item in called(node)] + ([node.op] if node.op in functions else [])
    return may_update(draft.graph, node) or any(updates_variables(draft, name, known) for name in names)
