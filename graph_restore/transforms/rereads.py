"""Reads of reference variables that must be done anew where their value is used, once the variable is a resource.

The read of a reference is a view: what it holds is settled where it is used. A use that may come after an update which
did not come before the read sees that update; a resource variable's read, a copy, would not. `find_rereads` finds these
uses, each with the way its value took from the variable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graph_restore.errors import UpgradeError
from graph_restore.names import parse_tensor_name
from graph_restore.transforms.aliases import INITIALISED_TESTS, Access, Aliases
from graph_restore.transforms.contexts import MERGES, NEXT_ITERATIONS, SWITCHES, Contexts
from graph_restore.transforms.draft import Draft, Tensor, control_inputs
from graph_restore.transforms.order import Order
from graph_restore.transforms.uses import Use, Uses
from graph_restore.variables import Variable

_ONE_WAY = frozenset({*MERGES, *NEXT_ITERATIONS, "Exit", "RefExit"})


@dataclass(frozen=True)
class Reread:
    """Input `site_position` of `site` takes, by way of `steps`, what `access` reads at its input `position`.

    `steps`: (node, input position) of the nodes from `access` on; `outputs`: the output of each that is taken;
    `waits`: control inputs, on all that the site waits for.
    """

    variable: str
    access: str
    position: int
    steps: tuple[tuple[str, int], ...]
    outputs: tuple[int, ...]
    site: str
    site_position: int
    waits: tuple[str, ...]


class Reach:
    """Which nodes wait for a node, worked out once for each."""

    def __init__(self, consumers: Mapping[str, list[tuple[Any, int]]]) -> None:
        self._consumers = consumers
        self._known: dict[str, set[str]] = {}

    def of(self, name: str) -> set[str]:
        """The nodes that may wait for `name`."""
        if name not in self._known:
            found: set[str] = set()
            waiting = [name]
            while waiting:
                for user, _ in self._consumers[waiting.pop()]:
                    if user.name not in found:
                        found.add(user.name)
                        waiting.append(user.name)
            self._known[name] = found
        return self._known[name]


def find_rereads(
    draft: Draft, aliases: Aliases, variables: Mapping[str, Variable], value_merges: set[str]
) -> list[Reread]:
    """The uses to be read again; UpgradeError where one cannot be."""
    updates: dict[str, set[str]] = {}
    for access in aliases.accesses:
        if access.updates:
            updates.setdefault(access.variable, set()).add(access.node)
    if not updates:
        return []
    return list(_Finder(draft, aliases, variables, updates, value_merges).find())


class _Finder:
    def __init__(
        self,
        draft: Draft,
        aliases: Aliases,
        variables: Mapping[str, Variable],
        updates: Mapping[str, set[str]],
        value_merges: set[str],
    ) -> None:
        self._draft = draft
        self._updates = updates
        self._value_merges = value_merges
        self._consumers = draft.consumers()
        self._uses = Uses(draft, aliases, [], variables)
        self._aliases = aliases
        self._contexts = Contexts(draft.nodes, changing=self._uses.views(updates))
        self._order = Order(draft, self._contexts)
        self._reached = Reach(self._consumers).of

    def find(self) -> Iterator[Reread]:
        """Every use that an update may come before without coming before its read."""
        for variable, updates in self._updates.items():
            touched = set().union(*map(self._reached, updates))
            for use in self._uses.of(variable, self._contexts) if touched else ():
                if use.site in touched and use.site != use.access.node:
                    late = [name for name in updates if use.site in self._reached(name) and not self._first(name, use)]
                    late = [name for name in late if not self._contexts.of(name).excludes(use.context)]
                    if late and self._draft.nodes[use.access.node].op not in INITIALISED_TESTS:
                        yield from self._again(use, late[0])

    def _first(self, update: str, use: Use) -> bool:
        """Whether the read certainly comes after the update, so that a copy holds what it made."""
        source = parse_tensor_name(self._draft.nodes[use.access.node].input[use.access.position])[0]
        return source == update or self._order.before(update, use.access.node)

    def _again(self, use: Use, update: str) -> Iterator[Reread]:
        access, site = use.access, self._draft.nodes[use.site]
        if parse_tensor_name(self._draft.nodes[access.node].input[access.position])[0] in self._value_merges:
            raise self._refusal(use, update, "the read comes through a RefMerge")
        for site_position, tensor in enumerate(self._draft.data_inputs(site)):
            way = self._way(access, tensor)
            if way is not None:
                steps = [(name, position) for name, position, _ in way]
                for name, _ in steps:
                    if self._draft.nodes[name].op in _ONE_WAY or self._calls(self._draft.nodes[name]):
                        raise self._refusal(use, update, f"the value passes {name} ({self._draft.nodes[name].op})")
                self._check_branches(use, update, [self._draft.nodes[name].op for name, _ in steps])
                others = [f"^{name}" for other, (name, _) in enumerate(self._draft.data_inputs(site))
                          if other != site_position and name not in {step for step, _ in steps}]  # fmt: skip
                waits = tuple(dict.fromkeys([*others, *control_inputs(site)]))
                outputs = tuple(output for _, _, output in way)
                taken = (access.variable, access.node, access.position)
                yield Reread(*taken, tuple(steps), outputs, site.name, site_position, waits)

    def _calls(self, node: Any) -> bool:
        return node.op.startswith("TensorArray") or any(value.HasField("func") for value in node.attr.values())

    def _check_branches(self, use: Use, update: str, ops: list[str]) -> None:
        """A Switch or Enter must come before all that computes: the handle goes through it, the value may not."""
        plain = False
        for op in ops:
            if plain and (op in SWITCHES or op == "Enter"):
                raise self._refusal(use, update, f"the value passes a {op} after it was changed")
            plain = plain or op not in ("Identity", "Switch", "Enter")

    def _way(self, access: Access, tensor: Tensor) -> list[tuple[str, int, int]] | None:
        """(node, input position, output) from the access to a tensor, None when the tensor does not come from it."""
        if tensor[0] == access.node:
            return [(access.node, access.position, tensor[1])]
        seen: set[str] = set()
        ways: list[tuple[Tensor, list[tuple[str, int, int]]]] = [(tensor, [])]
        while ways:
            (name, index), way = ways.pop()
            if name in seen or name not in self._uses_views(access.variable):
                continue
            seen.add(name)
            for position, source in enumerate(self._draft.data_inputs(self._draft.nodes[name])):
                longer = [(name, position, index), *way]
                if source[0] == access.node:
                    return [(access.node, access.position, source[1]), *longer]
                ways.append((source, longer))
        return None

    def _uses_views(self, variable: str) -> set[str]:
        return self._uses.views([variable])

    def _refusal(self, use: Use, update: str, why: str) -> UpgradeError:
        text = (
            f"{update} ({self._draft.nodes[update].op}) updates {use.access.variable} between {use.access.node}, which "
            f"reads it, and {use.site}, which uses what was read; {why}, so the order cannot be kept"
        )
        return UpgradeError(text, nodes={update: "updates", use.access.node: "reads", use.site: "uses"})
