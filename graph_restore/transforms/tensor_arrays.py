"""modern_tensor_arrays: TensorArray ops of TensorFlow before 1.0 in the form that functions take.

The ops named V2 hand their array on as a string, those named V3 as a resource; otherwise they are the same. A graph
keeps its version, so a session still runs the old ones, but tf.saved_model.load makes functions, which are new graphs,
and the gradients of the old ones, which TensorFlow builds of new ones, do not take their strings.
"""

from __future__ import annotations

from graph_restore.dtypes import DataType
from graph_restore.graph import Graph
from graph_restore.names import parse_tensor_name
from graph_restore.transforms.aliases import HANDLE_PASSING
from graph_restore.transforms.draft import Draft

_MAKERS = ("TensorArrayV2", "TensorArrayGradV2")
_TWO_OUTPUTS = ("Switch",)


def with_modern_arrays(graph: Graph) -> Graph:
    """The graph with arrays that gradients can be built of; itself if it has no old ones."""
    if not any(op.startswith("TensorArray") and op.endswith("V2") for op in graph.by_op):
        return graph
    draft = Draft(graph)
    modern_tensor_arrays(draft)
    return draft.finish()


def modern_tensor_arrays(draft: Draft) -> None:
    """Turn every V2 op of a TensorArray into its V3 form, and what passes the array on with it."""
    old = [name for name, node in draft.nodes.items() if node.op.startswith("TensorArray") and node.op.endswith("V2")]
    if not old:
        return
    consumers = draft.consumers()
    waiting = [(name, 0) for name in old if draft.nodes[name].op in _MAKERS]
    passing = set()
    while waiting:
        tensor = waiting.pop()
        for user, position in consumers[tensor[0]]:
            takes = parse_tensor_name(user.input[position]) == tensor
            if takes and user.op in HANDLE_PASSING and user.name not in passing:
                passing.add(user.name)
                waiting += [(user.name, index) for index in range(2 if user.op in _TWO_OUTPUTS else 1)]
    for name in old:
        draft.change(name).op = f"{draft.nodes[name].op[:-2]}V3"
    for name in passing:
        draft.change(name).attr["T"].type = DataType.DT_RESOURCE
