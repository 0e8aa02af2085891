"""Shapes that a graph leaves open and that its weights tell: what a placeholder is multiplied or convolved with, and
what of a size of its own its rows are added to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graph_restore.graph import Graph
from graph_restore.names import is_control, node_of
from graph_restore.transforms.feeds import output_shape
from graph_restore.variables import VARIABLE_OPS, Shape, shape_of

_PASSING = ("Identity", "Cast", "Relu", "Neg", "StopGradient")
_READS = ("Identity", "ReadVariableOp", "Enter", "RefEnter", "Cast", "Rsqrt", "Sqrt", "Reciprocal", "Neg", "Exp")
_PAIRS = ("Mul", "Add", "AddV2", "Sub", "RealDiv", "Div", "BiasAdd", "SquaredDifference")
# op to the axis of its second input that meets the last one of its first; both inputs have the same rank
_INNER = {"MatMul": -2, "BatchMatMul": -2, "BatchMatMulV2": -2, "Conv2D": -2}
# ops that keep the first axis of their first input, and its rank
_KEEPING_ROWS = {
    *_PASSING, *_INNER, "BiasAdd", "BiasAddV1", "Tanh", "Sigmoid", "Elu", "Selu", "Relu6", "LeakyRelu", "Softplus",
    "Softmax", "LogSoftmax", "Exp", "Log", "Sqrt", "Square", "Abs", "MaxPool", "AvgPool", "LRN", "FusedBatchNorm",
    "FusedBatchNormV2", "FusedBatchNormV3", "DepthwiseConv2dNative", "CheckNumerics",
}  # fmt: skip
_ROW_PAIRS = {*_PAIRS, "Maximum", "Minimum", "Pow"} - {"BiasAdd"}
_GATHERS = ("Gather", "GatherV2", "ResourceGather")
_MOST_STEPS = 12
Sizes = Sequence[int | None]


def needed_shape(graph: Graph, name: str, variables: Mapping[str, Shape]) -> Shape:
    """The shape that a tensor must have for what takes it, as far as that tells: its rank, or a likely one, and its
    last size; None where nothing tells. `variables`: the shapes of those that have values."""
    waiting, seen = [name], {name}
    while waiting:
        current = waiting.pop()
        for user, position in graph.consumers[current]:
            shape = _shape(graph, user, position, variables)
            if shape is not None:
                return shape
            if user.op in _PASSING and user.name not in seen:
                seen.add(user.name)
                waiting.append(user.name)
    return None


def needed_rows(graph: Graph, name: str, rank: int, variables: Mapping[str, Shape]) -> int | None:
    """The size that the first axis of a tensor must have, where it meets, in an addition or such, what has one of its
    own; None where nothing tells. `rank`: the tensor's."""
    waiting, seen = [name], {name}
    while waiting:
        current = waiting.pop()
        for user, position in graph.consumers[current]:
            if user.op in _ROW_PAIRS:
                sizes = _weights(graph, user.input[1 - position], variables, _MOST_STEPS) if position < 2 else ()
                if len(sizes) == rank and sizes[0] not in (None, 1):
                    return sizes[0]
            elif user.op not in _KEEPING_ROWS or position or user.attr["transpose_a"].b or user.attr["adj_x"].b:
                continue
            if user.name not in seen:
                seen.add(user.name)
                waiting.append(user.name)
    return None


def _shape(graph: Graph, user: Any, position: int, variables: Mapping[str, Shape]) -> Shape:
    """The shape that an op needs at an input."""
    if user.attr["data_format"].s == b"NCHW":
        return None
    if user.op in _PAIRS and position < 2:
        sizes = _weights(graph, user.input[1 - position], variables, _MOST_STEPS)
        return (*[None] * max(len(sizes) - 1, 1), sizes[-1]) if sizes else None
    turned = user.attr["transpose_a"].b or user.attr["adj_x"].b
    if user.op not in _INNER or position != 0 or turned:
        return None
    sizes = _weights(graph, user.input[1], variables, _MOST_STEPS)
    turned = user.attr["transpose_b"].b or user.attr["adj_y"].b
    return (*[None] * (len(sizes) - 1), sizes[-1 if turned else _INNER[user.op]]) if len(sizes) > 1 else None


def _weights(graph: Graph, name: str, variables: Mapping[str, Shape], steps: int) -> Sizes:
    """The sizes of a variable or constant, seen through what reads it and works on its elements; none elsewhere."""
    node = graph.nodes.get(node_of(name))
    if node is None or is_control(name) or not steps:
        return ()
    if node.op == "Const":
        return shape_of(node.attr["value"].tensor.tensor_shape) or ()
    if node.op in VARIABLE_OPS:
        return variables.get(node.name) or shape_of(output_shape(node, 0)) or ()
    if node.op in _GATHERS:
        table, indices = (_weights(graph, item, variables, steps - 1) for item in node.input[:2])
        return (*indices, *table[1:]) if table and indices else ()
    count = 1 if node.op in _READS else 2 if node.op in _PAIRS else 0
    found = [_weights(graph, item, variables, steps - 1) for item in node.input[:count]]
    return max(found, key=len, default=())
