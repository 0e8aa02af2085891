"""What an old LSTM cell adds to its forget gate: no variable, but a constant of the graph.

    variable -> read -> MatMul -> BiasAdd -> Split, of which output 2 is the forget gate -> Add(constant) -> Sigmoid

tensorflow/python/ops/rnn_cell_impl.py. Releases before 1.0 multiply and add in the same way, under other names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graph_restore.graph import Graph
from graph_restore.names import input_name, parse_tensor_name

_READS = ("Identity", "ReadVariableOp", "Enter", "RefEnter")
_GATES, _FORGET = 4, 2


def forget_bias_of(graph: Graph, kernel: str) -> float | None:
    """The forget bias of the cell whose kernel is this variable; None where the graph does not certainly tell."""
    found = set()
    for product in _users(graph, kernel, ("MatMul",), _READS):
        for split in _users(graph, product.name, ("Split",), ("BiasAdd", "Add", "AddV2")):
            if split.attr["num_split"].i != _GATES:
                return None
            found.add(_added(graph, split.name))
    return found.pop() if len(found) == 1 else None


def _users(graph: Graph, name: str, ops: tuple[str, ...], passing: tuple[str, ...]) -> Iterator[Any]:
    """The nodes of these ops that a node reaches through nodes of the `passing` ops."""
    waiting, seen = [name], {name}
    while waiting:
        for user, _ in graph.consumers.get(waiting.pop(), ()):
            if user.op in ops:
                yield user
            elif user.op in passing and user.name not in seen:
                seen.add(user.name)
                waiting.append(user.name)


def _added(graph: Graph, split: str) -> float | None:
    """What is added to the forget gate before its sigmoid; 0 where nothing is, None where it is no constant."""
    gate = input_name(split, _FORGET)
    users = [user for user, _ in graph.consumers[split] if gate in user.input]
    users = [user for user in users if user.op in ("Add", "AddV2", "Sigmoid")]
    if len(users) != 1:
        return None
    if users[0].op == "Sigmoid":
        return 0.0
    others = [item for item in users[0].input[:2] if parse_tensor_name(item) != (split, _FORGET)]
    constant = graph.constant(others[0]) if len(others) == 1 else None
    is_gate = any(user.op == "Sigmoid" for user, _ in graph.consumers[users[0].name])
    return float(constant) if constant is not None and constant.size == 1 and is_gate else None
