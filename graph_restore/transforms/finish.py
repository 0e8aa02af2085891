"""The last steps of freezing: what no longer holds is dropped, and the result is tested.

1. What names nodes that are gone, or states what no longer holds, is dropped: `_class`, `_output_shapes`, devices.
2. A variable op left over, an input that names nothing, a value where a reference must be: an error, never a result.
3. So is a resource that holds what was trained and is neither variable nor table: an ensemble of trees, statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from graph_restore.dtypes import REF_OFFSET
from graph_restore.errors import FreezeError, NodeNotFoundError
from graph_restore.graph import Graph
from graph_restore.names import is_control, node_of
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.functions import reachable_functions
from graph_restore.variables import VARIABLE_OPS, Variables

_HOLDERS = "ResourceHandleOp"  # BoostedTreesEnsemble..., QuantileStream..., FertileStats..., StatsAccumulatorTensor...


def finished(draft: Draft, kept: Variables, keep_devices: bool) -> Graph:
    """The draft as a clean graph that surely has no variable but those kept and no dangling input."""
    graph = draft.finish_changed(_Cleaner(draft, keep_devices))
    left = [name for name in draft.of_ops(VARIABLE_OPS) if kept.get(name) is None]
    if left:
        raise FreezeError(
            f"variables are left in the graph: {', '.join(left)}; this is a defect, please report it with the model",
            variables=left,
        )
    nodes = draft.nodes
    if not all(map(nodes.__contains__, chain.from_iterable(draft.sources()))):
        name, item = next((name, item) for name in nodes for item in draft.inputs(name) if node_of(item) not in nodes)
        raise NodeNotFoundError(f"node {name} takes {item}, which the graph does not have")
    _check_references(draft, graph)
    graph = reachable_functions(graph)
    _check_resources(nodes[name] for name in draft.of_ops({op for op in draft.ops() if op.endswith(_HOLDERS)}))
    for function in graph.library.function:
        _check_resources(function.node_def)
        for node in function.node_def:
            if node.op in VARIABLE_OPS:
                raise FreezeError(
                    f"function {function.signature.name} makes a variable of its own, {node.name}; feed what it gives",
                    nodes={f"{function.signature.name}/{node.name}": "a variable made in a function"},
                )
    return graph


class _Cleaner:
    """Called with a node of a graph that is being made, drops attrs that no longer hold, reference types, and (unless
    kept) devices."""

    def __init__(self, draft: Draft, keep_devices: bool) -> None:
        self._draft, self._keep_devices = draft, keep_devices
        self._types: dict[str, list[str] | None] = {}

    def __call__(self, node: Any) -> None:
        op, attrs = node.op, node.attr
        if op not in self._types:
            self._types[op] = _type_attrs(self._draft, op)
        kinds = self._types[op]
        if "_output_shapes" in attrs:
            if op == "Placeholder":
                _keep_shape(node)
            del attrs["_output_shapes"]
        if "_class" in attrs:
            keep_living(node, self._draft.nodes)
        for key in list(attrs) if kinds is None else kinds:
            if key in attrs and (value := attrs[key]).type > REF_OFFSET:
                value.type -= REF_OFFSET
        if not self._keep_devices and node.device:
            node.device = ""


def _type_attrs(draft: Draft, name: str) -> list[str] | None:
    """The attrs of an op that are a type; None where its definition does not tell of all."""
    op = draft.graph.ops.get(name)
    if op is None or draft.function(name) is not None:
        return None
    return sorted({key for one in (op, *op.older) for key, attr in one.attrs.items() if attr.type == "type"})


def _keep_shape(node: Any) -> None:
    """A placeholder's shape, which graphs before TensorFlow 1.0 state only in `_output_shapes`."""
    stated = node.attr["_output_shapes"].list.shape
    if stated and stated[0].dim and not node.attr["shape"].shape.dim:
        node.attr["shape"].shape.CopyFrom(stated[0])


def keep_living(node: Any, nodes: Mapping[str, Any]) -> None:
    """Keep only the colocations (`loc:@node`) with nodes that are still there."""
    listed = node.attr["_class"].list.s[:]
    kept = [item for item in listed if item.decode("utf-8", "replace").removeprefix("loc:@") in nodes]
    if not kept:
        del node.attr["_class"]
    elif len(kept) < len(listed):
        node.attr["_class"].list.s[:] = kept


def _check_resources(nodes: Iterable[Any]) -> None:
    """FreezeError for boosted trees, forests and the like, whose content only ops of theirs take from a checkpoint."""
    for node in nodes:
        if node.op.endswith(_HOLDERS):
            raise FreezeError(
                f"{node.name} ({node.op}) holds what was trained in a form that no constant has; feed what is computed "
                "from it, or keep the model as a SavedModel for the TensorFlow that made it",
                nodes={node.name: "a resource that is neither variable nor table"},
            )


def _check_references(draft: Draft, graph: Graph) -> None:
    """FreezeError for a node that must be given a reference and is given the value of a variable, or a feed."""
    ops = draft.graph.ops
    known = {name: op for name in draft.ops() if (op := ops.get(name)) is not None}
    taking = {name for name, op in known.items() if any(argument.is_ref for argument in op.inputs)}
    for node in map(graph.nodes.__getitem__, draft.of_ops(taking)):
        sources = [node_of(item) for item in node.input if not is_control(item)]
        for position, source in enumerate(sources):
            if ops.is_ref_input(node, position) and draft.nodes[source].op in ("Const", "Placeholder"):
                raise FreezeError(
                    f"{node.name} ({node.op}) must be given a variable's reference, and {source} is no variable once "
                    "the graph is frozen or fed; feed its outputs, or fetch something before it",
                    nodes={node.name: f"takes the reference of {source}"},
                )
