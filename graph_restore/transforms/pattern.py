"""Looking at a graph for a pattern: what an input comes from, and which value it always has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graph_restore.graph import Graph
from graph_restore.names import is_control, node_of, parse_tensor_name
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.draft import Tensor
from graph_restore.transforms.evaluation import LARGEST, Array, evaluate
from graph_restore.variables import VARIABLE_OPS

_DEPTH = 40  # of an expression of constants
PASSING = frozenset({"Identity", "StopGradient", "Snapshot", "PreventGradient", "EnsureShape"})
_TO_VARIABLE = frozenset(
    {"Identity", "ReadVariableOp", "Switch", "RefSwitch", "Enter", "RefEnter", "RefIdentity", "StopGradient", "Cast"}
)


class Pattern:
    """The nodes of a graph, asked questions."""

    def __init__(
        self, graph: Graph, nodes: Mapping[str, Any], payloads: Mapping[tuple[str, str], LazyTensor] | None = None
    ) -> None:
        self._graph = graph
        self.nodes = nodes
        self._payloads = payloads or {}

    def source(self, item: str, passing: Collection[str] = PASSING) -> Any:
        """The node an input comes from, seen through ops that pass their first input on; None where there is none."""
        for _ in range(len(self.nodes)):
            node = self.nodes.get(node_of(item))
            if node is None or node.op not in passing or not node.input or is_control(node.input[0]):
                return node
            item = node.input[0]
        return None

    def tensor(self, item: str, passing: Collection[str] = PASSING) -> Tensor:
        """The tensor an input is, seen through ops that pass their first input on."""
        for _ in range(len(self.nodes)):
            name, index = parse_tensor_name(item)
            node = self.nodes.get(name)
            if node is None or node.op not in passing or not node.input or is_control(node.input[0]):
                return name, index
            item = node.input[0]
        return parse_tensor_name(item)

    def inputs(self, node: Any) -> list[str]:
        """The data inputs of a node."""
        return [item for item in node.input if not is_control(item)]

    def variable(self, item: str) -> str | None:
        """The variable (its node, or the argument of a function that is its handle) an input is read from."""
        node = self.source(item, _TO_VARIABLE)
        if node is None or node.op in VARIABLE_OPS:
            return None if node is None else str(node.name)
        is_handle = node.op == "Placeholder" and node.attr["dtype"].type == 20
        return str(node.name) if is_handle else None

    def constant(self, item: str, depth: int = _DEPTH) -> Array | None:
        """The value an input always has, where numpy gives it exactly; None if there is none."""
        name, index = parse_tensor_name(item)
        node = self.nodes.get(name)
        if node is None or not depth:
            return None
        if node.op == "Const":
            payload = self._payloads.get(("", name))
            value = self._graph.value(node) if payload is None else payload
            return value.read() if value.nbytes <= LARGEST else None
        if node.op in ("Switch", "Enter"):
            return self.constant(node.input[0], depth - 1)
        values: list[Array] = []
        for other in self.inputs(node):
            operand = self.constant(other, depth - 1)
            if operand is None:
                return None
            values.append(operand)
        outputs = evaluate(node, values) if values else None
        return outputs[index] if outputs is not None and index < len(outputs) else None

    def number(self, item: str) -> float | None:
        """The one number an input always is; None if it is none."""
        value = self.constant(item)
        if value is None or value.size != 1 or value.dtype.kind not in "iuf":
            return None
        return float(value.reshape(-1)[0])
