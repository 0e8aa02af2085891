"""Fetches that a frozen model cannot have: what trains, saves, sets up or reports gives no output of the model.

Scripts name `train_op`, the merged summary or every node of the graph among the outputs. Left away, each with a word:

1. ops without outputs (NoOp, SaveV2, ResourceApplyAdam ...), and summaries;
2. savers: ops that write or read checkpoints, and what only passes their names on or assigns what was read;
3. optimizers: ops that apply gradients, and updates that wait for those (the step counter that `minimize` returns);
4. initializers of variables, where anything else is fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from graph_restore.errors import FreezeError, UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.names import is_control, node_of, tensor_name
from graph_restore.savers import RESTORE_OPS, SAVE_OPS
from graph_restore.transforms.draft import Tensor

_SUMMARIES = ("Summary", "SummaryV2")
_FILES = frozenset({*SAVE_OPS, *RESTORE_OPS, "ShardedFilename", "ShardedFilespec", "MergeV2Checkpoints"})
_APPLIES = ("Apply", "SparseApply", "ResourceApply", "ResourceSparseApply")
_UPDATES = ("Assign", "AssignAdd", "AssignSub", "AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
_PASSING = ("Identity", "Const")


def without_training(graph: Graph, fetches: Sequence[Tensor], initializers: Collection[str]) -> dict[Tensor, str]:
    """The fetches that go, each with what it is; FreezeError when none would be left."""
    kinds = {tensor: _kind(graph, graph.nodes[tensor[0]]) for tensor in fetches}
    left = [tensor for tensor, kind in kinds.items() if not kind and tensor[0] not in initializers]
    if left:
        kinds.update({tensor: kind or "an initializer" for tensor, kind in kinds.items() if tensor not in left})
    found = {tensor: kind for tensor, kind in kinds.items() if kind}
    if fetches and len(found) == len(kinds):
        listed = "\n".join(f"  {tensor_name(*tensor)} is {kind}" for tensor, kind in found.items())
        raise FreezeError(
            f"none of the fetches is an output of the model; name what it computes:\n{listed}",
            nodes={tensor[0]: kind for tensor, kind in found.items()},
        )
    return found


def _kind(graph: Graph, node: Any) -> str:
    if node.op.endswith(_SUMMARIES):
        return f"a summary ({node.op})"
    if node.op in _FILES or _is_of_saver(graph, node):
        return f"part of a saver ({node.op})"
    if node.op.startswith(_APPLIES) or (node.op in (*_UPDATES, "NoOp") and _waits_for_training(graph, node)):
        return f"part of an optimizer ({node.op})"
    return f"an op without outputs ({node.op})" if _has_no_output(graph, node) else ""


def _has_no_output(graph: Graph, node: Any) -> bool:
    try:
        return not graph.ops.output_types(node)
    except UnsupportedFormatError:
        return False


def _is_of_saver(graph: Graph, node: Any) -> bool:
    sources = [graph.nodes.get(node_of(item)) for item in node.input if not is_control(item)]
    if node.op in _UPDATES:
        return any(source is not None and _from_file(graph, source) for source in sources[1:])
    waits = [graph.nodes.get(node_of(item)) for item in node.input if is_control(item)]
    return node.op in _PASSING and any(source is not None and source.op in _FILES for source in waits)


def _from_file(graph: Graph, node: Any) -> bool:
    for _ in range(len(graph.nodes)):
        if node is None or node.op in RESTORE_OPS:
            return node is not None
        if node.op not in ("Identity", "Reshape") or not node.input:
            return False
        node = graph.nodes.get(node_of(node.input[0]))
    return False


def _waits_for_training(graph: Graph, node: Any) -> bool:
    """Whether an op that applies gradients comes before the node. (The control edge is often on the value assigned.)"""
    waiting, seen = [node], {node.name}
    while waiting:
        current = waiting.pop()
        if current.op.startswith(_APPLIES):
            return True
        for name in map(node_of, current.input):
            source = graph.nodes.get(name)
            if source is not None and name not in seen:
                seen.add(name)
                waiting.append(source)
    return False
