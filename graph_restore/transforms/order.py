"""Which node certainly runs before which, among conds and loops.

A node waits for all of its inputs, so most paths of edges are an order. Two kinds of Merge wait for less:

1. The Merge of a cond goes on with the first branch that comes: it is after what every branch is after, branches that
   the conds of the two nodes rule out left aside.
2. The Merge of a loop first goes on with what enters the loop; its back edge is an order only for what leaves the loop.

Inside one loop nothing is before anything: the next turn of the one comes after this turn of the other.
"""

from __future__ import annotations

from typing import Any

from graph_restore.names import is_control, node_of, parse_tensor_name
from graph_restore.transforms.contexts import MERGES, NEXT_ITERATIONS, Cond, Contexts
from graph_restore.transforms.draft import Draft


class Order:
    """The order of the nodes of a draft, as it is when this is made."""

    def __init__(self, draft: Draft, contexts: Contexts) -> None:
        self._draft = draft
        self._nodes = dict(draft.nodes)
        self._contexts = contexts
        self._consumers = draft.consumers()
        self._ancestors: dict[str, set[str]] = {}
        self._known: dict[tuple[str, str], bool] = {}

    def before(self, one: str, other: str) -> bool:
        """Whether `one`, when it runs, is done before `other` starts; False for the same node."""
        if one == other or one not in self._nodes or other not in self._nodes or one not in self._needed_by(other):
            return False
        if (one, other) not in self._known:
            self._known[one, other] = not self.share_a_loop(one, other) and self._leads_to(one, other, leaving=True)
        return self._known[one, other]

    def share_a_loop(self, one: str, other: str) -> bool:
        """Whether both nodes are in the same while loop."""
        ours, theirs = self._contexts.of(one).frames, self._contexts.of(other).frames
        return bool(ours and theirs) and ours[0] == theirs[0]

    def _needed_by(self, name: str) -> set[str]:
        if name not in self._ancestors:
            self._ancestors[name] = self._draft.ancestors([name])
        return self._ancestors[name]

    def _leads_to(self, one: str, other: str, leaving: bool) -> bool:
        """Whether `other` waits for `one`; `leaving`: along back edges of the loops that `one` is in as well."""
        area = self._needed_by(other)
        assumed = self._contexts.of(one).conds | self._contexts.of(other).conds
        loops = set(self._contexts.of(one).frames) if leaving else set()
        reached, waiting = {one}, [one]
        while waiting:
            for user, _ in self._consumers[waiting.pop()]:
                if user.name in area and user.name not in reached and self._waits(user, reached, assumed, loops):
                    reached.add(user.name)
                    waiting.append(user.name)
        return other in reached

    def _waits(self, node: Any, reached: set[str], assumed: frozenset[Cond], loops: set[str]) -> bool:
        if node.op not in MERGES or any(is_control(item) and node_of(item) in reached for item in node.input):
            return True
        data = [item for item in node.input if not is_control(item)]
        back = [item for item in data if self._op(item) in NEXT_ITERATIONS]
        entering = [item for item in data if item not in back]
        if all(node_of(item) in reached or self._ruled_out(item, assumed) for item in entering):
            return any(node_of(item) in reached for item in entering)
        return any(node_of(item) in reached and self._carries(node.name, node_of(item), loops) for item in back)

    def _carries(self, merge: str, back: str, loops: set[str]) -> bool:
        """Whether a loop variable is handed from turn to turn, so that what leaves the loop comes after every turn."""
        frames = self._contexts.of(merge).frames
        return bool(frames) and frames[-1] in loops and self._leads_to(merge, back, leaving=False)

    def _ruled_out(self, item: str, assumed: frozenset[Cond]) -> bool:
        conds = self._contexts.of_edge(*parse_tensor_name(item)).conds
        return any((predicate, 1 - branch) in assumed for predicate, branch in conds)

    def _op(self, item: str) -> str:
        node = self._nodes.get(node_of(item))
        return str(node.op) if node is not None else ""
