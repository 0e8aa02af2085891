"""Leading an updated value to a read by the way the variable's reference or handle took.

Between a variable and a read in a cond or loop are Switches and Enters; the read runs in its branch only because its
input comes through them. They are copied for the new value, but for those whose branch the update is in itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from graph_restore.names import input_name, parse_tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.aliases import HANDLE_PASSING
from graph_restore.transforms.contexts import ENTERS, SWITCHES, Contexts
from graph_restore.transforms.draft import Draft, Tensor


class Reroute:
    """New ways through a draft, for updates of which each is given out once per op on the way."""

    def __init__(self, draft: Draft, contexts: Contexts) -> None:
        self._draft = draft
        self._contexts = contexts
        self._copies: dict[tuple[str, str], str] = {}

    def way(self, node: str, position: int, owners: Mapping[Tensor, str]) -> list[Tensor] | None:
        """What the reference at an input came through, nearest to the variable first; None where a Merge is on it."""
        steps: list[Tensor] = []
        name, index = parse_tensor_name(self._draft.nodes[node].input[position])
        while (name, index) in owners and self._draft.nodes[name].op in HANDLE_PASSING:
            steps.insert(0, (name, index))
            op = self._draft.nodes[name].op
            if op not in ("Identity", "RefIdentity", *SWITCHES, *ENTERS):
                return None
            name, index = parse_tensor_name(self._draft.nodes[name].input[0])
        return steps

    def lead(self, update: str, node: str, position: int, way: list[Tensor]) -> None:
        """Give an input the value of `update` by that way."""
        source = input_name(update)
        own = self._contexts.of(update).conds
        for name, index in way:
            passer = self._draft.nodes[name]
            context = self._contexts.of_edge(name, index)
            same_branch = not context.frames and context.conds <= own
            if passer.op in ENTERS or (passer.op in SWITCHES and not same_branch):
                source = input_name(self._copy(name, source), index)
        self._draft.change(node).input[position] = source

    def _copy(self, name: str, source: str) -> str:
        if (name, source) not in self._copies:
            copy = NodeDef()
            copy.CopyFrom(self._draft.nodes[name])
            copy.name = self._draft.free_name(f"{name}/updated")
            copy.input[0] = source
            self._draft.add(copy)
            self._copies[name, source] = copy.name
        return self._copies[name, source]
