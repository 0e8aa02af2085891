"""Where in the control flow a node runs: under which conds, and in which while loops.

A cond is a pair (predicate node, branch taken); a node runs only when all of its conds hold. Merge ends a cond, Exit a
loop. The Switch of a while loop (its predicate is a LoopCond) is no cond, and a predicate that lies in a loop makes
none: it has another value in every turn. A predicate that may change while the graph runs (a variable that is updated)
is known by its Switch, since another Switch may see another value.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from graph_restore.names import parse_tensor_name

Cond = tuple[str, int]
SWITCHES = ("Switch", "RefSwitch")
MERGES = ("Merge", "RefMerge")
ENTERS = ("Enter", "RefEnter")
EXITS = ("Exit", "RefExit")
NEXT_ITERATIONS = ("NextIteration", "RefNextIteration")
_SAME_VALUE = ("Identity", *SWITCHES, *ENTERS)


@dataclass(frozen=True)
class Context:
    """The conds a node runs under and the loops (frame names) it is in, outermost first."""

    conds: frozenset[Cond] = frozenset()
    frames: tuple[str, ...] = ()

    def excludes(self, other: Context) -> bool:
        """Whether the two never run both: some cond takes another branch."""
        return any((predicate, 1 - branch) in other.conds for predicate, branch in self.conds)

    def under(self, outer: Context) -> Context:
        """This context where the conds of `outer` hold as well."""
        return Context(self.conds | outer.conds, self.frames)


class Contexts:
    """The context of every node of a graph, worked out once."""

    def __init__(self, nodes: Mapping[str, Any], changing: Set[str] = frozenset()) -> None:
        """`changing`: nodes whose value may be another each time it is used."""
        self._nodes = nodes
        self._changing = changing
        self._known: dict[str, Context] = {}

    def of(self, name: str) -> Context:
        """The context a node runs in."""
        if name not in self._known:
            self._work_out(name)
        return self._known[name]

    def of_edge(self, source: str, index: int) -> Context:
        """The context in which output `index` of `source` has a value."""
        return self._out(self._nodes[source], index, self.of(source)) if source in self._nodes else Context()

    def _work_out(self, name: str) -> None:
        """Depth first without recursion: graphs are deeper than Python's stack."""
        waiting = [name]
        open_nodes: set[str] = set()
        while waiting:
            current = waiting[-1]
            if current in self._known:
                waiting.pop()
                continue
            missing = [
                source
                for source, _ in self._inputs(self._nodes[current])
                if source not in self._known and source not in open_nodes
            ]
            if missing and current not in open_nodes:
                open_nodes.add(current)
                waiting.extend(missing)
                continue
            self._known[current] = self._combine(self._nodes[current])
            open_nodes.discard(current)
            waiting.pop()

    def _inputs(self, node: Any) -> list[tuple[str, int]]:
        inputs = [parse_tensor_name(item) for item in node.input]
        if node.op in MERGES:  # the back edge of a loop says nothing about where the Merge is
            inputs = [item for item in inputs if self._op(item[0]) not in NEXT_ITERATIONS]
        return [item for item in inputs if item[0] in self._nodes]

    def _op(self, name: str) -> str:
        return str(self._nodes[name].op) if name in self._nodes else ""

    def _combine(self, node: Any) -> Context:
        incoming = [
            self._out(self._nodes[source], index, self._known[source])
            for source, index in self._inputs(node)
            if source in self._known
        ]
        if not incoming:
            return Context()
        frames = max((context.frames for context in incoming), key=len)
        conds = [context.conds for context in incoming]
        return Context(frozenset.intersection(*conds) if node.op in MERGES else frozenset.union(*conds), frames)

    def _out(self, node: Any, index: int, context: Context) -> Context:
        if node.op in ENTERS:
            return Context(context.conds, (*context.frames, node.attr["frame_name"].s.decode("utf-8", "replace")))
        if node.op in EXITS:
            return Context(context.conds, context.frames[:-1])
        if node.op in SWITCHES and index >= 0:
            predicate = self._root(node.input[1])
            if predicate in self._changing:
                predicate = str(node.name)
            elif self._op(predicate) == "LoopCond" or self._known.get(predicate, Context()).frames:
                return context
            return Context(context.conds | {(predicate, index)}, context.frames)
        return context

    def _root(self, name: str) -> str:
        """The node a predicate comes from, seen through ops that pass the value on as it is."""
        source = parse_tensor_name(name)[0]
        while self._op(source) in _SAME_VALUE and self._nodes[source].input:
            source = parse_tensor_name(self._nodes[source].input[0])[0]
        return source
