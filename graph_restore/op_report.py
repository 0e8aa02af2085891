"""Which ops a graph has, which of them TensorFlow has no longer, and which outputs do without these.

As plain dicts, for json and for printing. What the outputs need is found first: an op that none of them needs is no
obstacle, since freezing to them leaves it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import tensor_name
from graph_restore.ops import op_table
from graph_restore.transforms.feeds import resolve
from graph_restore.transforms.fetches import candidate_fetches
from graph_restore.transforms.functions import modern_functions, reachable_functions
from graph_restore.transforms.modernize import replacement
from graph_restore.transforms.signatures import outputs_of
from graph_restore.transforms.unsafe import danger, running_nodes


def report_ops(model: Model, fetches: Iterable[str] | None = None) -> dict[str, Any]:
    """Every op of the graph and of its functions, by name, and every output with those it needs that are gone.

    Of an op: "nodes" (how many, functions included), "since" and "until" (first and last release known here that has
    it; until "" while the newest has it; both "" for a custom op), "contrib_module" and "contrib_until", "custom",
    "gone", "deprecated_in" (the GraphDef version from which on new graphs may not use it, or None), "replacement" (what
    is known of one, for ops that are gone), "unsafe" (what it does besides computing). Of an output: "needs", the ops
    that are gone; [] when it survives without them. Outputs are `fetches`, else those of the signatures, else the
    candidates.
    """
    graph = modern_functions(model.graph)
    ops = [_op(graph, name, count) for name, count in sorted(_counted(graph, graph.graph_def.node).items())]
    gone = {op["name"] for op in ops if op["gone"]}
    return {
        "kind": "ops",
        "path": model.source.path,
        "tensorflow": op_table().versions[-1],
        "producer": graph.versions.producer,
        "ops": ops,
        "outputs": [
            {"name": name, "needs": sorted(gone & _needed(graph, name))} for name in _outputs(model, graph, fetches)
        ],
    }


def _counted(graph: Graph, nodes: Iterable[Any]) -> Counter[str]:
    """Ops of nodes and of every function of the library; calls of functions by their names are no ops."""
    counts = Counter(node.op for node in nodes)
    for function in graph.library.function:
        counts.update(node.op for node in function.node_def)
    return Counter({name: count for name, count in counts.items() if name not in graph.functions})


def _op(graph: Graph, name: str, count: int) -> dict[str, Any]:
    op = op_table().get(name)
    custom = op is None
    gone = custom or bool(op is not None and op.until)
    return {
        "name": name,
        "nodes": count,
        "since": "" if op is None else op.since,
        "until": "" if op is None else op.until,
        "contrib_module": "" if op is None else op.contrib_module,
        "contrib_until": "" if op is None else op.contrib_until,
        "custom": custom,
        "gone": gone,
        "deprecated_in": None if op is None else op.deprecated_in,
        "replacement": replacement(name, "" if op is None else op.contrib_module) if gone else "",
        "unsafe": danger(name),
    }


def _outputs(model: Model, graph: Graph, fetches: Iterable[str] | None) -> list[str]:
    if fetches is None:
        signatures = model.signatures.values()
        fetches = [name for value in signatures for name in outputs_of(value)]
        fetches = fetches or candidate_fetches(graph)
    return [tensor_name(*tensor) for tensor in resolve(graph, fetches)]


def _needed(graph: Graph, output: str) -> set[str]:
    """The ops that run when an output is fetched."""
    running = running_nodes(graph, resolve(graph, [output]))
    return set(_counted(reachable_functions(graph.replaced(running, {})), running))
