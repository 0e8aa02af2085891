"""In-graph updates of variables that the fetches would run: what their first run computes, without variables.

1. An update matters when its output is used as a value, or when a read that the fetches use is not certain to come
   before it. One that does not matter is dropped, with a word.
2. A read that the graph orders after an update takes the updated value: Assign becomes its value, AssignAdd an Add,
   AssignSub a Sub, under the update's name.
3. A read not ordered against an update that matters, an update in a while loop, one under a cond that the read is not
   under, and an update that no value can stand for make a FreezeError naming both nodes. `on_update="initial"` gives
   every read of that variable the restored value instead.

"Before" is a path of data or control edges. A ref variable's read is a view of its buffer, so what counts there is
where the value is used, not where it is read; a resource variable's read is a copy.
"""

from __future__ import annotations

from collections.abc import Iterable

from graph_restore.dtypes import DataType
from graph_restore.errors import FreezeError
from graph_restore.protos import NodeDef
from graph_restore.transforms.aliases import Access, Aliases
from graph_restore.transforms.contexts import Context, Contexts
from graph_restore.transforms.draft import Draft, Tensor, control_inputs
from graph_restore.transforms.hidden import hidden_users
from graph_restore.transforms.order import Order
from graph_restore.transforms.reroute import Reroute
from graph_restore.transforms.uses import Use, Uses
from graph_restore.variables import Variable

_VALUE_FORMS = {
    "Assign": "Identity", "AssignVariableOp": "Identity",
    "AssignAdd": "Add", "AssignAddVariableOp": "Add",
    "AssignSub": "Sub", "AssignSubVariableOp": "Sub",
}  # fmt: skip
Problems = dict[str, tuple[str, str]]  # variable to what is not certain of it, and the node
Words = dict[str, tuple[str, str]]  # node that is not the user's to the user's node it stands for, and what to call it
_LATE_TYPES = frozenset({DataType.DT_UINT16, DataType.DT_UINT32, DataType.DT_UINT64})  # AddV2 has them, Add has not


class Updates:
    """The updates in a draft that has been cut to its fetches."""

    def __init__(
        self,
        draft: Draft,
        aliases: Aliases,
        fetches: Iterable[Tensor],
        variables: Iterable[Variable],
        *,
        uncertain: Problems | None = None,
        words: Words | None = None,
        told: bool = True,
    ) -> None:
        """`uncertain`: variables known to have no certain value; `settle` adds those that it finds. `words`: what to
        call nodes that are not the user's. `told`: say what is done in notes."""
        self._words = words or {}
        self._uncertain = {} if uncertain is None else uncertain
        self._told = told
        self._draft = draft
        self._aliases = aliases
        self._fetches = list(fetches)
        self._variables = {variable.name: variable for variable in variables}
        self._consumers = draft.consumers()
        self._updates: dict[str, list[Access]] = {}
        for access in aliases.accesses:
            if access.updates:
                self._updates.setdefault(access.variable, []).append(access)
        self._removed: dict[str, list[str]] = {}
        uses = Uses(draft, aliases, self._fetches, self._variables)
        self._contexts = Contexts(draft.nodes, changing=uses.views(self._updates))
        self._order = Order(draft, self._contexts)
        self._ways = Reroute(draft, self._contexts)
        self._uses: dict[str, list[Use]] = {name: uses.of(name, self._contexts) for name in self._updates}

    def settle(self, on_update: str) -> dict[str, str]:
        """Rewrite the draft so that no update is left; FreezeError for what has no certain result.

        Returns node name to variable of the updates that became the variable's new value.
        """
        if not self._updates:
            return {}
        kept, valued = self._that_matter()
        problems = self._uncertain
        sources: dict[tuple[str, int], tuple[str, list[Tensor]]] = {}
        for variable in sorted({self._variable_of(name) for name in kept} - problems.keys()):
            try:
                sources.update(self._ordered(variable, kept, valued))
            except _Unordered as problem:
                problems[variable] = (problem.text, self._owner(problem.node))
        if problems and on_update != "initial":
            raise FreezeError(
                "\n".join(text for text, _ in problems.values())
                + "\npass on_update='initial' to freeze the restored value of each, or fetch something else",
                nodes={node: text for text, node in problems.values()},
            )
        for variable, (text, _) in problems.items():
            self._note(f"{text}; the restored value of {variable} is used, as on_update='initial' asks")
        values: dict[str, str] = {}
        for name, access in self._first_accesses().items():
            if name in kept and access.variable not in problems:
                self._turn_into_value(access)
                values[name] = access.variable
            else:
                self._drop(access, told=access.variable in problems)
        for (node, position), (update, way) in sources.items():
            self._ways.lead(update, node, position, way)
        self._forget_removed()
        return values

    def that_matter(self) -> set[str]:
        """The updates that the fetches may see."""
        return self._that_matter()[0]

    def _named(self, name: str) -> str:
        return self._words[name][1] if name in self._words else f"{name} ({self._draft.nodes[name].op})"

    def _owner(self, name: str) -> str:
        return self._words[name][0] if name in self._words else name

    def _note(self, text: str) -> None:
        if self._told:
            self._draft.note(text)

    def _first_accesses(self) -> dict[str, Access]:
        """Updating node to its first input that takes a variable: an optimizer's Apply op takes its slots as well."""
        found: dict[str, Access] = {}
        accesses = [access for accesses in self._updates.values() for access in accesses]
        for access in sorted(accesses, key=lambda access: -access.position):
            found[access.node] = access
        return found

    def _variable_of(self, update: str) -> str:
        return next(name for name, accesses in self._updates.items() if any(item.node == update for item in accesses))

    def _that_matter(self) -> tuple[set[str], set[str]]:
        """(updates that matter, nodes whose value the fetches or such an update use)."""
        kept: set[str] = set()
        roots = {name for name, _ in self._fetches} | hidden_users(self._draft, self._aliases)
        while True:
            valued = self._draft.ancestors(roots, data_only=True)
            left = [item for items in self._updates.values() for item in items if item.node not in kept]
            new = {item.node for item in left if item.node in valued or self._is_seen(item, valued, kept)}
            if not new:
                return kept, valued
            kept |= new
            roots |= new

    def _is_seen(self, update: Access, valued: set[str], kept: set[str]) -> bool:
        """Whether a use that counts, or another update that matters, may come after this update."""
        if update.variable in self._aliases.merged:
            return True
        context = self._contexts.of(update.node)
        for use in self._uses[update.variable]:
            if (
                self._counts(use, valued)
                and use.site != update.node
                and not use.context.excludes(context)
                and not self._order.before(use.site, update.node)
            ):
                return True
        return any(
            other.node in kept
            and other.node != update.node
            and not self._order.before(other.node, update.node)
            and not self._contexts.of(other.node).excludes(context)
            for other in self._updates[update.variable]
        )

    def _counts(self, use: Use, valued: set[str]) -> bool:
        return use.site == "" or use.site in valued

    def _ordered(
        self, variable: str, kept: set[str], valued: set[str]
    ) -> dict[tuple[str, int], tuple[str, list[Tensor]]]:
        """(node, input position) to the update whose value it takes and the way there; _Unordered where no order is
        certain."""
        updates = [access for access in self._updates[variable] if access.node in kept]
        if variable in self._aliases.merged:
            node = self._aliases.merged[variable]
            raise _Unordered(f"{updates[0].node} updates {variable}, and {node} may be it or another variable", node)
        for update in updates:
            self._check_update(update)
        sources: dict[tuple[str, int], tuple[str, list[Tensor]]] = {}
        for use in self._uses[variable]:
            if self._counts(use, valued):
                latest = self._latest(use.access, use.site, use.context, updates)
                if latest is not None and use.access.position >= 0:
                    sources[use.access.node, use.access.position] = (latest, self._way(use.access, latest))
        for update in updates:
            latest = self._latest(update, update.node, self._contexts.of(update.node), updates)
            if latest is not None and _VALUE_FORMS[self._draft.nodes[update.node].op] != "Identity":
                sources[update.node, update.position] = (latest, self._way(update, latest))
        return sources

    def _way(self, access: Access, update: str) -> list[Tensor]:
        way = self._ways.way(access.node, access.position, self._aliases.tensors)
        if way is None:
            raise _Unordered(
                f"{self._named(update)} updates {access.variable}, and {access.node} reads it through a Merge; no "
                "value can stand for it there",
                update,
            )
        return way

    def _check_update(self, update: Access) -> None:
        node = self._draft.nodes[update.node]
        if node.op not in _VALUE_FORMS:
            raise _Unordered(
                f"{self._named(node.name)} updates {update.variable} and its result is used; no value can stand for it",
                node.name,
            )
        if self._contexts.of(update.node).frames:
            raise _Unordered(
                f"{self._named(node.name)} updates {update.variable} in a while loop and "
                f"{self._reader(update)} uses the variable",
                node.name,
            )

    def _reader(self, update: Access) -> str:
        sites = [use.site or use.access.node for use in self._uses[update.variable] if use.site != update.node]
        return self._owner(sites[0]) if sites else "its own output"

    def _latest(self, access: Access, site: str, context: Context, updates: list[Access]) -> str | None:
        """The update whose value an access takes, None for the restored value."""
        before: list[str] = []
        for update in updates:
            own = self._contexts.of(update.node)
            if update.node == access.node or own.excludes(context):
                continue
            reader = site if access.position < 0 else access.node
            if self._order.before(update.node, access.node) or self._order.before(update.node, reader):
                if not own.conds <= context.conds:
                    raise self._unordered(update, access, site, "only in one branch of a cond")
                before.append(update.node)
            elif site != update.node and (not site or not self._order.before(site, update.node)):
                raise self._unordered(update, access, site, "without an order between them")
        if not before:
            return None
        last = [name for name in before if all(other == name or self._order.before(other, name) for other in before)]
        if not last:
            raise _Unordered(
                f"{' and '.join(map(self._named, before))} update {access.variable} before {self._owner(access.node)} "
                "reads it, in no certain order",
                before[0],
            )
        return last[0]

    def _unordered(self, update: Access, access: Access, site: str, how: str) -> _Unordered:
        use = f" for {site}" if site not in ("", access.node) else ""
        reader = self._owner(access.node)
        return _Unordered(
            f"{self._named(update.node)} updates {update.variable} and {reader} reads it{use}, {how}: "
            "the result is not certain",
            update.node,
        )

    def _turn_into_value(self, access: Access) -> None:
        node, named = self._draft.nodes[access.node], self._named(access.node)
        data = [item for item in node.input if not item.startswith("^")]
        data_type = self._variables[access.variable].data_type
        op = _VALUE_FORMS[node.op]
        op = "AddV2" if op == "Add" and data_type in _LATE_TYPES else op
        value = NodeDef(name=node.name, op=op, device=node.device)
        value.input.extend(data[1:2] if value.op == "Identity" else data[:2])
        value.input.extend(control_inputs(node))
        value.attr["T"].type = data_type
        self._draft.add(value)
        self._note(f"{named} is replaced by the value it gives in the first run")

    def _drop(self, access: Access, told: bool) -> None:
        node = self._draft.nodes[access.node]
        context = self._contexts.of(access.node)
        takers = [(user, position) for user, position in self._consumers.get(node.name, ())]
        used_as_value = any(not user.input[position].startswith("^") for user, position in takers)
        if not told:
            self._note(f"{self._named(node.name)} is dropped: nothing fetched depends on its update")
        if used_as_value or context.conds or context.frames or (node.name, 0) in self._fetches:
            stand_in = NodeDef(name=node.name, op="Identity", device=node.device)
            stand_in.input.extend([node.input[access.position], *control_inputs(node)])
            stand_in.attr["T"].type = self._variables[access.variable].data_type
            self._draft.add(stand_in)
            return
        self._removed[f"^{node.name}"] = control_inputs(node)
        del self._draft.nodes[node.name]

    def _forget_removed(self) -> None:
        """What waited for a removed update waits for what that one waited for."""
        for name, node in list(self._draft.nodes.items()) if self._removed else ():
            if any(item in self._removed for item in node.input):
                data = [item for item in node.input if not item.startswith("^")]
                controls = [other for item in control_inputs(node) for other in self._instead(item)]
                self._draft.change(name).input[:] = [*data, *dict.fromkeys(controls)]

    def _instead(self, item: str) -> list[str]:
        if item not in self._removed:
            return [item]
        return [other for control in self._removed[item] for other in self._instead(control)]


class _Unordered(Exception):
    """An update that a use is not ordered against; `node` is the update."""

    def __init__(self, text: str, node: str) -> None:
        super().__init__(text)
        self.text, self.node = text, node
