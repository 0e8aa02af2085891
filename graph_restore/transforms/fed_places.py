"""Where what is fed lies: in a branch of a cond, or in a while loop of TensorFlow 1.

1. A queue or an iterator in a branch gives its value there only. The placeholder that takes its place lies outside, as
   every placeholder does, and is handed into the branch by Switches, as TensorFlow hands in what a branch takes from
   outside: without them a Merge would find a value on both of its sides, and take either.
2. Any other tensor in a branch that is fed has that value whatever the predicate says, as in TensorFlow; a note says so
   where that makes the outcome of the cond uncertain.
3. In a loop there is a value at every turn, and a placeholder has one: an error, unless nothing of the loop is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graph_restore.dtypes import REF_OFFSET
from graph_restore.errors import FreezeError
from graph_restore.names import input_name, is_control, parse_tensor_name, tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.contexts import ENTERS, EXITS, NEXT_ITERATIONS, SWITCHES, Cond, Contexts
from graph_restore.transforms.draft import Draft, Tensor

INPUT_PIPELINES = frozenset(
    {
        "QueueDequeue", "QueueDequeueV2", "QueueDequeueMany", "QueueDequeueManyV2", "QueueDequeueUpTo",
        "QueueDequeueUpToV2", "IteratorGetNext", "IteratorGetNextSync", "ReaderRead", "ReaderReadV2", "ReaderReadUpTo",
        "ReaderReadUpToV2", "Unstage", "RecordInput",
    }
)  # fmt: skip
_LOOP_PARTS = frozenset({*ENTERS, *EXITS, *NEXT_ITERATIONS, "LoopCond"})
_MOST_LISTED = 4
_DEEPEST = 50  # loops in loops; more of them is no graph that TensorFlow made
OUTLIVING = (
    "as in TensorFlow it has that value whatever the predicate says, and what the cond gives is uncertain where the "
    "other branch is taken; feed what the cond gives instead"
)

Gate = tuple[str, int]  # the predicate, as a Switch takes it, and the branch


class Places:
    """The places of a draft's nodes as they are now, whatever is done to the draft later."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._nodes = dict(draft.nodes)
        self._contexts = Contexts(self._nodes)
        self._has_conds = bool(draft.of_ops(SWITCHES))
        self._has_loops = bool(draft.of_ops(ENTERS))

    def frames(self, tensor: Tensor) -> tuple[str, ...]:
        """The loops in which a tensor has its value, outermost first."""
        return self._contexts.of_edge(*tensor).frames if self._has_loops else ()

    def gates(self, name: str) -> list[Gate]:
        """The predicates and branches under which a node runs, outermost first; to be asked before the node is cut."""
        conds = self._contexts.of(name).conds if self._has_conds else frozenset()
        if not conds:
            return []
        found: dict[Cond, tuple[int, str]] = {}
        above = self._draft.ancestors([name])
        for switch in [other for other in self._draft.of_ops(SWITCHES) if other in above]:
            outer = self._contexts.of(switch).conds
            for branch in (0, 1):
                for cond in (self._contexts.of_edge(switch, branch).conds - outer) & conds:
                    gate = (len(outer), self._nodes[switch].input[1])
                    found[cond] = min(found.get(cond, gate), gate)
        return [(predicate, cond[1]) for cond, (_, predicate) in sorted(found.items(), key=lambda item: item[1])]

    def outlives(self, name: str, fetches: Iterable[Tensor]) -> bool:
        """Whether a fetch that needs a node lies outside of a branch that the node is in."""
        if not self._has_conds or not (conds := self._contexts.of(name).conds):
            return False
        outside = [one for one, index in fetches if not conds <= self._contexts.of_edge(one, index).conds]
        return name in self._draft.ancestors(outside)

    def is_left(self, frames: tuple[str, ...], needed: set[str]) -> bool:
        """Whether parts of the loops, those in them and at their edges, are among `needed`."""
        for name in [name for name in self._draft.of_ops(_LOOP_PARTS) if name in needed and name in self._nodes]:
            around = (self._contexts.of(name).frames, self.frames((name, 0)))
            if any(one and one == frames[: len(one)] for one in around):
                return True
        return False

    def outcome(self, frames: tuple[str, ...]) -> str:
        """What an outermost loop gives, for the text of an error."""
        exits = [name for name in self._draft.of_ops(EXITS) if self._contexts.of(name).frames[:1] == frames[:1]]
        exits = [tensor_name(name) for name in exits if not self.frames((name, 0))]
        more = ", ..." if len(exits) > _MOST_LISTED else ""
        return f"what the loop gives ({', '.join(exits[:_MOST_LISTED])}{more})" if exits else "what the loop gives"


def check_fetches(places: Places, draft: Draft, fetches: Sequence[Tensor]) -> None:
    """FreezeError for a fetch that lies in a loop, which has no one value that could be given."""
    if not draft.of_ops(ENTERS) or not _may_lie_in_loops(draft, [name for name, _ in fetches]):
        return
    for tensor in fetches:
        if frames := places.frames(tensor):
            name = tensor[0]
            raise FreezeError(
                f"{tensor_name(*tensor)} ({draft.nodes[name].op}) is fetched and lies in the while loop {frames[-1]}, "
                f"where it has a value at every turn, and a fetch has one; fetch {places.outcome(frames)}",
                nodes={name: "is fetched and lies in a while loop"},
            )


def _may_lie_in_loops(draft: Draft, names: Iterable[str]) -> bool:
    """Whether a way back from what these nodes give comes to the entrance of a loop that it did not come into by its
    exit: a small part of the work of knowing which loop."""
    sources = dict(zip(draft.nodes, draft.sources()))
    waiting = [(name, 0) for name in names]
    seen: set[tuple[str, int]] = set()
    while waiting:
        name, depth = place = waiting.pop()
        if place in seen or name not in sources:
            continue
        seen.add(place)
        op = draft.nodes[name].op
        depth += (op in EXITS) - (op in ENTERS)
        if not 0 <= depth <= _DEEPEST:
            return True
        waiting.extend([(source, depth) for source in sources[name]])
    return False


def check_feeds(places: Places, draft: Draft, feeds: Iterable[Tensor], needed: set[str]) -> None:
    """FreezeError for a feed that lies in a loop parts of which are still needed."""
    for tensor in feeds:
        frames = places.frames(tensor)
        if frames and tensor[0] in needed and places.is_left(frames, needed):
            raise FreezeError(
                f"{tensor_name(*tensor)} is fed and lies in the while loop {frames[-1]}, where it has a value at every "
                f"turn, and a feed has one, outside; feed {places.outcome(frames)}, or fetch something before the loop",
                nodes={tensor[0]: "is fed and lies in a while loop"},
            )


def check_pipeline(places: Places, node: Any) -> None:
    """FreezeError for a queue or an iterator in a loop, which gives something else at every turn."""
    if frames := places.frames((node.name, 0)):
        raise FreezeError(
            f"{node.name} ({node.op}) takes something new at every turn of the while loop {frames[-1]}, and a "
            f"placeholder in its place would give all turns the same; feed {places.outcome(frames)}, or fetch "
            "something before the loop",
            nodes={node.name: "an input pipeline in a while loop"},
        )


def hand_into_branch(draft: Draft, name: str, gates: Sequence[Gate]) -> None:
    """Let everything that takes a node which was cut take it through a Switch for each of `gates`."""
    if not gates:
        return
    led: dict[int, str] = {}
    users = draft.consumers_of([name])[name]
    outputs = sorted({max(parse_tensor_name(user.input[position])[1], 0) for user, position in users})
    for index in outputs:
        led[index] = _led(draft, (name, index), gates)
    for user, position in users:
        item = user.input[position]
        index = parse_tensor_name(item)[1]
        draft.change(user.name).input[position] = f"^{led[0]}" if is_control(item) else led[index]


def _led(draft: Draft, tensor: Tensor, gates: Sequence[Gate]) -> str:
    """A node that has the value of a tensor where the gates are open, and is dead elsewhere."""
    node = draft.nodes[tensor[0]]
    number = node.attr["T"].list.type[tensor[1]] if node.op == "IdentityN" else node.attr["dtype"].type
    source = input_name(*tensor)
    for predicate, branch in gates:
        switch = NodeDef(name=draft.free_name(f"{tensor[0]}/Switch"), op="Switch", input=[source, predicate])
        switch.attr["T"].type = number - REF_OFFSET if number > REF_OFFSET else number
        source = input_name(draft.add(switch).name, branch)
    inside = NodeDef(name=draft.free_name(f"{tensor[0]}/in_branch"), op="Identity", input=[source])
    inside.attr["T"].type = switch.attr["T"].type
    return str(draft.add(inside).name)
