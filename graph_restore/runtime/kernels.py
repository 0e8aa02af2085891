"""The kernels that the TensorFlow at hand would run a graph's nodes with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graph_restore.graph import Graph
from graph_restore.protos import NodeDef
from graph_restore.runtime.guard import tensorflow


def kernel_classes(graph: Graph) -> dict[str, list[str]]:
    """Op to the C++ classes of the CPU kernels for its nodes, sorted; none for an op that has no kernel of its own."""
    tensorflow()
    from tensorflow.python.util import _pywrap_kernel_registry as registry

    bodies = [graph.graph_def.node, *(function.node_def for function in graph.library.function)]
    found: dict[str, set[str]] = {}
    for node in _without_values(node for body in bodies for node in body):
        name = registry.TryFindKernelClass(node.SerializeToString())
        found.setdefault(node.op, set()).update([name.decode()] if name else [])
    return {op: sorted(names) for op, names in found.items()}


def _without_values(nodes: Iterable[Any]) -> Iterable[Any]:
    for node in nodes:
        bare = NodeDef(name=node.name, op=node.op, device="/cpu:0")
        for key, value in node.attr.items():
            if value.WhichOneof("value") != "tensor":
                bare.attr[key].CopyFrom(value)
        yield bare
