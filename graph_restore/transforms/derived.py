"""A graph whose nodes are changed copies of another's, each made when it is asked for.

Freezing ends in a change of nearly every node, and most frozen graphs are only written: nodes then go one by one
through a copy that lasts until they are encoded, and the graph is never whole in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Container, ItemsView, Iterator, Mapping, ValuesView
from functools import cached_property
from typing import Any

from graph_restore.graph import Graph, Payloads
from graph_restore.protos import GraphDef, NodeDef

_IN_TURN = 1000  # nodes that go through one copy: a message that is used again keeps what it ever held


class DerivedGraph(Graph):
    """The graph of `head`, a GraphDef without nodes, and copies of `nodes` (by name) to which `change`, which leaves
    their names and ops, was done. It becomes a message when it is looked at as a whole; until then `nodes` must stay as
    they are, as those of a graph do. `names_of`: as `Graph.names_of`."""

    def __init__(
        self,
        head: Any,
        nodes: Mapping[str, Any],
        change: Callable[[Any], None],
        names_of: Callable[[Container[str]], list[str]],
        payloads: Payloads,
        op_list: Any,
    ) -> None:
        self._head, self._former, self._change, self._names_of = head, nodes, change, names_of
        self.payloads = dict(payloads)
        self.op_list = op_list

    @cached_property
    def graph_def(self) -> Any:
        """The GraphDef, without the payloads."""
        result = self.head()
        for node in self._former.values():
            copy = result.node.add()
            copy.CopyFrom(node)
            self._change(copy)
        return result

    def pack(self) -> None:
        """Nothing: it is not a message, or had to become one."""

    @property
    def _is_made(self) -> bool:
        return "graph_def" in self.__dict__

    @property
    def library(self) -> Any:
        return self.graph_def.library if self._is_made else self._head.library

    @property
    def versions(self) -> Any:
        return self.graph_def.versions if self._is_made else self._head.versions

    def head(self) -> Any:
        if self._is_made:
            return super().head()
        result = GraphDef()
        result.CopyFrom(self._head)
        return result

    @property
    def nodes(self) -> Mapping[str, Any]:
        """NodeDefs by name, in order; those that are looked up one by one are made one by one."""
        return self._index.by_name if self._is_made else self._copies

    @cached_property
    def _copies(self) -> Mapping[str, Any]:
        return _Copies(self, self._former, self._change)

    def op_of(self, name: str) -> str | None:
        node = self._former.get(name)
        return None if node is None else str(node.op)

    def of_ops(self, ops: Container[str]) -> list[Any]:
        return [self.nodes[name] for name in self.names_of(ops)]

    def names_of(self, ops: Container[str]) -> list[str]:
        return self._names_of(ops)

    def _to_encode(self) -> Iterator[Any]:
        if self._is_made:
            yield from self.graph_def.node
            return
        for number, node in enumerate(self._former.values()):
            if number % _IN_TURN == 0:
                copy = NodeDef()
            copy.CopyFrom(node)
            self._change(copy)
            yield copy


class _Copies(Mapping[str, Any]):
    """The nodes of a DerivedGraph that is not made yet; to look at all of them makes it."""

    def __init__(self, graph: DerivedGraph, former: Mapping[str, Any], change: Callable[[Any], None]) -> None:
        self._graph, self._former, self._change = graph, former, change
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            copy = NodeDef()
            copy.CopyFrom(self._former[name])
            self._change(copy)
            self._made[name] = copy
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._former

    def __iter__(self) -> Iterator[str]:
        return iter(self._former)

    def __len__(self) -> int:
        return len(self._former)

    def items(self) -> ItemsView[str, Any]:
        self._graph.graph_def  # noqa: B018 - which makes it
        return self._graph.nodes.items()

    def values(self) -> ValuesView[Any]:
        self._graph.graph_def  # noqa: B018
        return self._graph.nodes.values()
