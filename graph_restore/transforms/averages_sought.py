"""The words for a batch norm whose moving averages are not found: where they were looked for, and what comes near."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graph_restore.graph import Graph
from graph_restore.names import node_of
from graph_restore.transforms.draft import Tensor
from graph_restore.transforms.moving_averages import FUSED, MovingAverage
from graph_restore.transforms.pattern import Pattern

_UPDATES = ("AssignSub", "AssignAdd", "AssignVariableOp")
_REDUCTIONS = ("Mean", "Sum", *sorted(FUSED))
_MOST_LISTED = 3


def none_found(pattern: Pattern, graph: Graph, core: Tensor, averages: Iterable[MovingAverage], where: str) -> str:
    """What to say where none of `averages` is one of `core`; `where` is "", or " in function f" that was searched."""
    near = [average for average in averages if _computed_from(pattern, average.value, core[0])]
    if near:
        listed = ", ".join(f"{one.variable} (by {one.update}) of {node_of(one.value)}" for one in near[:_MOST_LISTED])
        return f"no moving average is one of it as it is: there is {listed}, which is computed from it"
    text = f"no update{where or ' of the graph'} is found to be a moving average of it"
    updating = sorted(name for name, function in graph.functions.items() if any(_updates(n) for n in function.node_def))
    if where:
        return f"{text} (only that function was looked at)"
    return f"{text} (functions were not looked at: {', '.join(updating[:_MOST_LISTED])})" if updating else text


def _updates(node: Any) -> bool:
    return bool(node.op.startswith(_UPDATES))


def _computed_from(pattern: Pattern, item: str, wanted: str) -> bool:
    """Whether a tensor is computed from a statistic by other ways than another statistic, such as a later layer's."""
    waiting, seen = [node_of(item)], set()
    while waiting:
        name = waiting.pop()
        node = pattern.nodes.get(name)
        if name == wanted:
            return True
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op not in _REDUCTIONS:
            waiting.extend(node_of(other) for other in pattern.inputs(node))
    return False
