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
from dataclasses import dataclass

from graph_restore.errors import FreezeError
from graph_restore.names import input_name, parse_tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.aliases import INITIALISED_TESTS, Access, Aliases
from graph_restore.transforms.contexts import ENTERS, EXITS, MERGES, NEXT_ITERATIONS, SWITCHES, Context, Contexts
from graph_restore.transforms.draft import Draft, Tensor, control_inputs
from graph_restore.variables import Variable

_VALUE_FORMS = {
    "Assign": "Identity", "AssignVariableOp": "Identity",
    "AssignAdd": "Add", "AssignAddVariableOp": "Add",
    "AssignSub": "Sub", "AssignSubVariableOp": "Sub",
}  # fmt: skip
_VIEWS = frozenset(
    {
        "Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient", "Bitcast", "Snapshot",
        "CheckNumerics", "IdentityN", "Slice", "Split", "Unpack", "PlaceholderWithDefault", "EnsureShape",
        "StridedSlice", *SWITCHES, *MERGES, *ENTERS, *EXITS, *NEXT_ITERATIONS,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Use:
    """A read of a variable and a node that uses the value read ("" for a fetch)."""

    access: Access
    site: str
    context: Context


class Updates:
    """The updates in a draft that has been cut to its fetches."""

    def __init__(
        self, draft: Draft, aliases: Aliases, fetches: Iterable[Tensor], variables: Iterable[Variable]
    ) -> None:
        self._draft = draft
        self._aliases = aliases
        self._fetches = list(fetches)
        self._variables = {variable.name: variable for variable in variables}
        self._contexts = Contexts(draft.nodes)
        self._consumers = draft.consumers()
        self._updates: dict[str, list[Access]] = {}
        for access in aliases.accesses:
            if access.updates:
                self._updates.setdefault(access.variable, []).append(access)
        self._ancestors: dict[str, set[str]] = {}
        self._removed: dict[str, list[str]] = {}
        self._uses: dict[str, list[Use]] = {name: self._uses_of(name) for name in self._updates}

    def settle(self, on_update: str) -> dict[str, str]:
        """Rewrite the draft so that no update is left; FreezeError for what has no certain result.

        Returns node name to variable of the updates that became the variable's new value.
        """
        if not self._updates:
            return {}
        kept, valued = self._that_matter()
        problems: dict[str, tuple[str, str]] = {}
        sources: dict[tuple[str, int], str] = {}
        for variable in {self._variable_of(name) for name in kept}:
            try:
                sources.update(self._ordered(variable, kept, valued))
            except _Unordered as problem:
                problems[variable] = (problem.text, problem.node)
        if problems and on_update != "initial":
            raise FreezeError(
                "\n".join(text for text, _ in problems.values())
                + "\npass on_update='initial' to freeze the restored value of each, or fetch something else",
                nodes={node: text for text, node in problems.values()},
            )
        for variable, (text, _) in problems.items():
            self._draft.note(f"{text}; the restored value of {variable} is used, as on_update='initial' asks")
        values: dict[str, str] = {}
        for accesses in self._updates.values():
            for access in accesses:
                if access.node in kept and access.variable not in problems:
                    self._turn_into_value(access)
                    values[access.node] = access.variable
                else:
                    self._drop(access, told=access.variable in problems)
        for (node, position), source in sources.items():
            self._draft.change(node).input[position] = input_name(source, 0)
        self._forget_removed()
        return values

    def _variable_of(self, update: str) -> str:
        return next(name for name, accesses in self._updates.items() if any(item.node == update for item in accesses))

    def _before(self, one: str, other: str) -> bool:
        """Whether there is a path from `one` to `other`."""
        if other not in self._ancestors:
            self._ancestors[other] = self._draft.ancestors([other])
        return one != other and one in self._ancestors[other]

    def _that_matter(self) -> tuple[set[str], set[str]]:
        """(updates that matter, nodes whose value the fetches or such an update use)."""
        kept: set[str] = set()
        roots = {name for name, _ in self._fetches}
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
        context = self._contexts.of(update.node)
        for use in self._uses[update.variable]:
            if (
                self._counts(use, valued)
                and not use.context.excludes(context)
                and not self._before(use.site, update.node)
            ):
                return True
        return any(
            other.node in kept
            and other.node != update.node
            and not self._before(other.node, update.node)
            and not self._contexts.of(other.node).excludes(context)
            for other in self._updates[update.variable]
        )

    def _counts(self, use: Use, valued: set[str]) -> bool:
        return use.site == "" or use.site in valued

    def _uses_of(self, variable: str) -> list[Use]:
        """Every place where the variable's value is used, reads that are only passed on followed to their end."""
        uses = [use for access in self._reads(variable) for use in self._followed(access)]
        for node, index in self._fetches:  # the reference itself may be a fetch
            if self._aliases.tensors.get((node, index)) == variable and not self._is_update(node):
                uses.append(Use(Access(variable, node, -1, False), "", self._contexts.of_edge(node, index)))
        return uses

    def _is_update(self, node: str) -> bool:
        return any(access.updates and access.node == node for access in self._aliases.accesses)

    def _reads(self, variable: str) -> list[Access]:
        return [
            access
            for access in self._aliases.accesses
            if access.variable == variable
            and not access.updates
            and self._draft.nodes[access.node].op not in INITIALISED_TESTS
        ]

    def _followed(self, access: Access) -> list[Use]:
        node = self._draft.nodes[access.node]
        copies = self._variables[access.variable].kind == "resource"
        if copies or node.op not in _VIEWS:
            return [Use(access, access.node, self._contexts.of(access.node))]
        uses: list[Use] = []
        waiting = [(access.node, index, Context()) for index in self._outputs(access.node) or {0}]
        seen: set[tuple[str, int, Context]] = set()
        while waiting:
            step = waiting.pop()
            if step in seen:
                continue
            seen.add(step)
            name, index, way = step
            context = self._contexts.of_edge(name, index).under(way)  # the conds on the way hold past their Merge
            if (name, index) in self._fetches:
                uses.append(Use(access, "", context))
            for consumer, position in self._consumers.get(name, ()):
                if parse_tensor_name(consumer.input[position]) != (name, index):
                    continue
                if consumer.op in _VIEWS:
                    waiting.extend((consumer.name, output, context) for output in self._outputs(consumer.name) or {0})
                else:
                    uses.append(Use(access, consumer.name, self._contexts.of(consumer.name).under(context)))
        return uses

    def _outputs(self, name: str) -> set[int]:
        """The outputs of a node that something takes, as a range up to the last of them."""
        taken = [
            index
            for consumer, position in self._consumers.get(name, ())
            for source, index in [parse_tensor_name(consumer.input[position])]
            if source == name
        ]
        taken += [index for source, index in self._fetches if source == name]
        return set(range(max(taken, default=-1) + 1))

    def _ordered(self, variable: str, kept: set[str], valued: set[str]) -> dict[tuple[str, int], str]:
        """(node, input position) to the update whose value it takes; _Unordered where no order is certain."""
        updates = [access for access in self._updates[variable] if access.node in kept]
        for update in updates:
            self._check_update(update)
        sources: dict[tuple[str, int], str] = {}
        for use in self._uses[variable]:
            if self._counts(use, valued):
                latest = self._latest(use.access, use.site, use.context, updates)
                if latest is not None and use.access.position >= 0:
                    sources[use.access.node, use.access.position] = latest
        for update in updates:
            latest = self._latest(update, update.node, self._contexts.of(update.node), updates)
            if latest is not None and _VALUE_FORMS[self._draft.nodes[update.node].op] != "Identity":
                sources[update.node, update.position] = latest
        return sources

    def _check_update(self, update: Access) -> None:
        node = self._draft.nodes[update.node]
        if node.op not in _VALUE_FORMS:
            raise _Unordered(
                f"{node.name} ({node.op}) updates {update.variable} and its result is used; no value can stand for it",
                node.name,
            )
        if self._contexts.of(update.node).frames:
            raise _Unordered(
                f"{node.name} ({node.op}) updates {update.variable} in a while loop and "
                f"{self._reader(update)} uses the variable",
                node.name,
            )

    def _reader(self, update: Access) -> str:
        sites = [use.site or use.access.node for use in self._uses[update.variable] if use.site != update.node]
        return sites[0] if sites else "its own output"

    def _latest(self, access: Access, site: str, context: Context, updates: list[Access]) -> str | None:
        """The update whose value an access takes, None for the restored value."""
        before: list[str] = []
        for update in updates:
            own = self._contexts.of(update.node)
            if update.node == access.node or own.excludes(context):
                continue
            if self._before(update.node, access.node) or (access.position < 0 and self._before(update.node, site)):
                if not own.conds <= context.conds:
                    raise self._unordered(update, access, site, "only in one branch of a cond")
                before.append(update.node)
            elif site != update.node and (not site or not self._before(site, update.node)):
                raise self._unordered(update, access, site, "without an order between them")
        if not before:
            return None
        last = [name for name in before if all(other == name or self._before(other, name) for other in before)]
        if not last:
            raise _Unordered(
                f"{' and '.join(before)} update {access.variable} before {access.node} reads it, in no certain order",
                before[0],
            )
        return last[0]

    def _unordered(self, update: Access, access: Access, site: str, how: str) -> _Unordered:
        op = self._draft.nodes[update.node].op
        reader = site or access.node
        return _Unordered(
            f"{update.node} ({op}) updates {update.variable} and {reader} uses it, {how}: the result is not certain",
            update.node,
        )

    def _turn_into_value(self, access: Access) -> None:
        node = self._draft.nodes[access.node]
        data = [item for item in node.input if not item.startswith("^")]
        value = NodeDef(name=node.name, op=_VALUE_FORMS[node.op], device=node.device)
        value.input.extend(data[1:2] if value.op == "Identity" else data[:2])
        value.input.extend(control_inputs(node))
        value.attr["T"].type = self._variables[access.variable].data_type
        self._draft.add(value)
        self._draft.note(f"{node.name} ({node.op}) is replaced by the value it gives in the first run")

    def _drop(self, access: Access, told: bool) -> None:
        node = self._draft.nodes[access.node]
        context = self._contexts.of(access.node)
        takers = [(user, position) for user, position in self._consumers.get(node.name, ())]
        used_as_value = any(not user.input[position].startswith("^") for user, position in takers)
        if not told:
            self._draft.note(f"{node.name} ({node.op}) is dropped: nothing fetched depends on its update")
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
