"""Which constants have to stay constants, and why.

1. In a while loop: a variable would have to be led in.
2. What fills a table: it is filled once, perhaps before variables have values.
3. Initial values of variables, and what GuaranteeConst promises never to change.
4. Shapes, axes, indices and ranges: TensorFlow looks at their values when the graph is made. An input is one when no
   output of the op has its type (`Tshape`, `Tidx`); for floating-point numbers only `Range` and its like.
5. What only control inputs name has no value that is used.
"""

from __future__ import annotations

from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.errors import UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.names import is_control, node_of
from graph_restore.savers import ASSIGN_OPS
from graph_restore.transforms.contexts import Contexts

_PASSING = frozenset({"Identity", "Enter", "Switch", "StopGradient"})
_TABLE_OPS = ("InitializeTable", "LookupTableImport", "LookupTableInsert")
_MEASURES = frozenset({"Range", "LinSpace"})
FLOATS = frozenset({DataType.DT_HALF, DataType.DT_BFLOAT16, DataType.DT_FLOAT, DataType.DT_DOUBLE})


class Constness:
    """Asked for one constant of a graph after the other."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._contexts = Contexts(graph.nodes)

    def reason(self, node: Any) -> str | None:
        """Why the Const `node` has to stay one, in words; None when it need not."""
        if any(is_control(item) for item in node.input) and self._contexts.of(node.name).frames:
            return "they are in while loops"
        return self.reason_of_use(node)

    def reason_of_use(self, node: Any) -> str | None:
        """The same, wherever the Const is."""
        users = self._users(node.name)
        if not users and self._graph.consumers[node.name]:
            return "only control inputs name them"
        for user, position in users:
            reason = self._reason_of_use(node, user, position)
            if reason is not None:
                return reason
        return None

    def _users(self, name: str) -> list[tuple[Any, int]]:
        """What takes the value, seen through nodes that only pass it on."""
        found: list[tuple[Any, int]] = []
        waiting, seen = [name], set()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            for user, position in self._graph.consumers[current]:
                if is_control(user.input[position]):
                    continue
                if user.op in _PASSING and node_of(user.input[0]) == current:
                    waiting.append(user.name)
                found.append((user, position))
        return found

    def _reason_of_use(self, node: Any, user: Any, position: int) -> str | None:
        if user.op.startswith(_TABLE_OPS):
            return "tables are filled from them"
        if user.op in ASSIGN_OPS:
            return "they are values that the graph gives to variables"
        if user.op == "GuaranteeConst":
            return "the graph guarantees that they never change"
        if user.op in _MEASURES:
            return "they are shapes, axes, indices or ranges"
        if user.op not in _PASSING and node.attr["dtype"].type not in FLOATS and not self._passes_type(user, position):
            return "they are shapes, axes, indices or ranges"
        return None

    def _passes_type(self, user: Any, position: int) -> bool:
        """Whether an output of the op has the type attr of this input, as `T` of Add and `Tparams` of Gather."""
        op = self._graph.ops.get(user.op)
        if op is None:
            return False
        try:
            spans = op.input_names(user)
        except UnsupportedFormatError:
            return False
        name = next((name for name, first, count in spans if first <= position < first + count), "")
        types = {argument.name: argument.type_attr for argument in op.inputs}
        return bool(types.get(name)) and types[name] in {argument.type_attr for argument in op.outputs}
