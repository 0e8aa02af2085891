"""Layer norms that TensorFlow itself computes otherwise once their weights are constant.

On CPUs with oneDNN the graph optimizer of TensorFlow 2.21 puts one kernel in place of the ops of a layer norm
(tf.nn.moments over the last axis, tf.nn.batch_normalization) whose scale and offset are Consts, and that kernel's
epsilon is 0.001 whatever the graph says. Of an axis given as -1 it takes no notice. The variables' own graph is not
rewritten, so outputs change when it is frozen, by any tool.
"""

from __future__ import annotations

from typing import Any

from graph_restore.errors import counted
from graph_restore.names import is_control, node_of
from graph_restore.transforms.draft import Draft

_KERNELS_EPSILON = 0.001
_PASSING = frozenset({"Identity", "StopGradient"})
_MOST_LISTED = 3


def warn_of_layer_norms(draft: Draft) -> None:
    """A note that names the layer norms of the draft that TensorFlow would compute with another epsilon."""
    found = [name for name in draft.of_ops({"Rsqrt"}) if _is_changed(draft, draft.nodes[name])]
    if found:
        listed = ", ".join(found[:_MOST_LISTED]) + (", ..." if len(found) > _MOST_LISTED else "")
        draft.note(
            f"{counted(len(found), 'layer norm')} ({listed}) not of epsilon {_KERNELS_EPSILON}: TensorFlow 2.21 "
            "on CPUs takes that for frozen ones over the last axis; set TF_ENABLE_ONEDNN_OPTS=0 where the graph runs"
        )


def _is_changed(draft: Draft, root: Any) -> bool:
    """Whether an Rsqrt is that of a layer norm: of the mean square difference over an axis given from the front."""
    total = _taken(draft, root, 0)
    if total is None or total.op not in ("Add", "AddV2"):
        return False
    terms = [_taken(draft, total, 0), _taken(draft, total, 1)]
    variance = next((node for node in terms if node is not None and node.op == "Mean"), None)
    epsilon = next((node for node in terms if node is not None and node.op == "Const"), None)
    if variance is None or epsilon is None:
        return False
    differences, axis = _taken(draft, variance, 0), _constant(draft, _taken(draft, variance, 1))
    if differences is None or differences.op != "SquaredDifference" or axis is None or axis <= 0:
        return False
    value = _constant(draft, epsilon)
    return value is not None and abs(value - _KERNELS_EPSILON) > 1e-6


def _taken(draft: Draft, node: Any, position: int) -> Any:
    """The node that a data input comes from, seen through Identities; None where there is no such input."""
    for _ in range(len(draft.nodes)):
        if position >= len(node.input) or is_control(node.input[position]):
            return None
        node, position = draft.nodes.get(node_of(node.input[position])), 0
        if node is None or node.op not in _PASSING:
            return node
    return None


def _constant(draft: Draft, node: Any) -> float | None:
    """The element of a Const with one, of the graph that the draft began with."""
    if node is None or node.op != "Const" or node.name not in draft.graph.nodes:
        return None
    value = draft.graph.value(draft.graph.nodes[node.name])
    return float(value.read().item()) if value.size == 1 else None
