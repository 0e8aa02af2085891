"""The last steps of freezing: what no longer holds is dropped, and the result is tested.

1. What names nodes that are gone, or states what no longer holds, is dropped: `_class`, `_output_shapes`, devices.
2. A variable op left over, an input that names nothing, a value where a reference must be: an error, never a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graph_restore.dtypes import REF_OFFSET
from graph_restore.errors import FreezeError, NodeNotFoundError
from graph_restore.graph import Graph
from graph_restore.names import node_of
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.functions import reachable_functions
from graph_restore.variables import VARIABLE_OPS, Variables


def clean(draft: Draft, keep_devices: bool) -> None:
    """Drop attrs that no longer hold, reference types, and (unless kept) devices."""
    for name in list(draft.nodes):
        node = draft.nodes[name]
        stale = [key for key in ("_class", "_output_shapes") if key in node.attr]
        references = [key for key, value in node.attr.items() if value.type > REF_OFFSET]
        if stale or references or (node.device and not keep_devices):
            changed = draft.change(name)
            if "_output_shapes" in changed.attr:
                _keep_shape(changed)
                del changed.attr["_output_shapes"]
            if "_class" in changed.attr:
                keep_living(changed, draft.nodes)
            for key in references:
                changed.attr[key].type -= REF_OFFSET
            if not keep_devices:
                changed.device = ""


def _keep_shape(node: Any) -> None:
    """A placeholder's shape, which graphs before TensorFlow 1.0 state only in `_output_shapes`."""
    stated = node.attr["_output_shapes"].list.shape if node.op == "Placeholder" else ()
    if stated and stated[0].dim and not node.attr["shape"].shape.dim:
        node.attr["shape"].shape.CopyFrom(stated[0])


def keep_living(node: Any, nodes: Mapping[str, Any]) -> None:
    """Keep only the colocations (`loc:@node`) with nodes that are still there."""
    kept = [
        item for item in node.attr["_class"].list.s if item.decode("utf-8", "replace").removeprefix("loc:@") in nodes
    ]
    del node.attr["_class"]
    if kept:
        node.attr["_class"].list.s.extend(kept)


def checked(draft: Draft, kept: Variables) -> Graph:
    """The draft as a graph that surely has no variable but those kept and no dangling input."""
    left = [one.name for one in draft.nodes.values() if one.op in VARIABLE_OPS and kept.get(one.name) is None]
    if left:
        raise FreezeError(
            f"variables are left in the graph: {', '.join(left)}; this is a defect, please report it with the model",
            variables=left,
        )
    for node in draft.nodes.values():
        for item in node.input:
            if node_of(item) not in draft.nodes:
                raise NodeNotFoundError(f"node {node.name} takes {item}, which the graph does not have")
        _check_references(draft, node)
    graph = reachable_functions(draft.finish())
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if node.op in VARIABLE_OPS:
                raise FreezeError(
                    f"function {function.signature.name} makes a variable of its own, {node.name}; feed what it gives",
                    nodes={f"{function.signature.name}/{node.name}": "a variable made in a function"},
                )
    return graph


def _check_references(draft: Draft, node: Any) -> None:
    """FreezeError for a node that must be given a reference and is given the value of a variable, or a feed."""
    op = draft.graph.ops.get(node.op)
    if op is None or not any(argument.is_ref for argument in op.inputs):
        return
    for position, item in enumerate(draft.data_inputs(node)):
        if draft.graph.ops.is_ref_input(node, position) and draft.nodes[item[0]].op in ("Const", "Placeholder"):
            raise FreezeError(
                f"{node.name} ({node.op}) must be given a variable's reference, and {item[0]} is no variable once the "
                "graph is frozen or fed; feed its outputs, or fetch something before it",
                nodes={node.name: f"takes the reference of {item[0]}"},
            )


def still_valid(signatures: Mapping[str, Any], graph: Graph) -> dict[str, Any]:
    """The signatures all of whose tensors the frozen graph has."""
    return {
        name: signature
        for name, signature in signatures.items()
        if all(node_of(info.name) in graph.nodes for info in [*signature.inputs.values(), *signature.outputs.values()])
    }
