"""The train op that a graph has: its collection `train_op`, else the one node that waits for all its optimizers."""

from __future__ import annotations

from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import node_of

_COLLECTION = "train_op"
_APPLIES = ("Apply", "SparseApply", "ResourceApply", "ResourceSparseApply")


def own_train_op(model: Model) -> str | None:
    """The node to run for a step of training; None when there is none, or several."""
    graph = model.graph
    if _COLLECTION in model.collections:
        named = [node_of(name) for name in model.collections[_COLLECTION].node_list.value]
        known = [name for name in named if name in graph.nodes]
        if len(known) == 1:
            return known[0]
    applies = {name for name, node in graph.nodes.items() if node.op.startswith(_APPLIES)}
    if not applies:
        return None
    waiting = {name: _after(graph, name) for name in applies}
    ends = [name for name in set.intersection(*waiting.values()) if not graph.consumers[name]]
    return ends[0] if len(ends) == 1 else None


def _after(graph: Graph, name: str) -> set[str]:
    """The node and all that need it."""
    seen, queue = {name}, [name]
    while queue:
        for user, _ in graph.consumers[queue.pop()]:
            if user.name not in seen:
                seen.add(user.name)
                queue.append(user.name)
    return seen
