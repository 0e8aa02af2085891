"""What values do that no data edge shows: they go into stacks, queues and functions, and decide which branch runs.

A value pushed on a Stack comes out at another node, ordered by control edges alone; the gradient of a loop gets the
values of its forward pass so. A predicate reaches the constants of a branch by a control edge from the branch's Switch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graph_restore.errors import FreezeError
from graph_restore.names import node_of
from graph_restore.transforms.aliases import Aliases
from graph_restore.transforms.contexts import SWITCHES
from graph_restore.transforms.draft import Draft, data_nodes

_KEEPING = ("StackPush", "Queue", "TensorArray", "LookupTable", "Accumulator", "SparseAccumulator", "Barrier")
_KEPT_FOR_OTHERS = ("StackPush", "QueueEnqueue", "Stage", "MapStage", "OrderedMapStage", "BarrierInsert")


def hidden_users(draft: Draft, aliases: Aliases) -> set[str]:
    """Nodes whose inputs matter whether or not anything takes their outputs, the readers of variables aside."""
    own = {access.node for access in aliases.accesses} | {name for name, _ in aliases.tensors}
    ops = draft.graph.ops
    stateful = {node.op: (op := ops.get(node.op)) is None or op.is_stateful for node in draft.nodes.values()}
    found = {name for name, node in draft.nodes.items() if stateful[node.op] or node.op.startswith(_KEEPING)}
    predicates = {node_of(node.input[1]) for node in draft.nodes.values() if node.op in SWITCHES}
    return (found - own) | predicates


def keeps_for_others(node: Any) -> bool:
    """Whether a node puts its input where other nodes find it, at a time that no edge tells."""
    return str(node.op).startswith(_KEPT_FOR_OTHERS)


def check_nothing_lost(draft: Draft, former: Mapping[str, Any], dropped: Iterable[str]) -> None:
    """FreezeError where with the updates `dropped` went what fills a stack or queue that is still needed."""
    for name, node in former.items():
        if name not in draft.nodes and keeps_for_others(node) and any(item in draft.nodes for item in data_nodes(node)):
            raise FreezeError(
                f"{name} ({node.op}) is needed by an update alone ({', '.join(sorted(dropped))}), and fills what the "
                "fetches use; feed what takes it out again",
                nodes={name: "is lost with an update"},
            )
