"""Which value goes to which variable: by a mapping, by names, or as proposed; and whether it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graph_restore.errors import RestoreError, did_you_mean
from graph_restore.runtime.targets import Target, is_layer, is_variable, targets_of
from graph_restore.tensors import CastTensor, LazyTensor
from graph_restore.transforms.cells import Cell, keras_cells, old_cells
from graph_restore.transforms.donors import Donors
from graph_restore.transforms.forget_bias import forget_bias_of
from graph_restore.transforms.pairing import Item, propose, role
from graph_restore.transforms.recurrent import gru_weights, lstm_weights, made_cell
from graph_restore.transforms.renaming import Rename, Renaming
from graph_restore.variables import describe, shapes_agree


@dataclass(frozen=True)
class Assignment:
    """`value` for `target`, made of the tensors `sources`; `how` the two came together. `key`, `target_key`: what a
    mapping says for it."""

    sources: tuple[str, ...]
    target: Target
    value: LazyTensor
    how: str
    key: str
    target_key: str

    @property
    def source(self) -> str:
        """The sources as text."""
        return " and ".join(self.sources)


@dataclass
class Plan:
    """Assignments, and what is to be said of the rest."""

    pairs: list[Assignment] = field(default_factory=list)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Assignments:
    """Makes plans for the values `donors` and the variables `targets`."""

    def __init__(self, donors: Donors, targets: list[Target], cast: bool, forget_bias: float | None) -> None:
        self.donors, self.targets, self.cast, self.forget_bias = donors, targets, cast, forget_bias
        self._by_name = {target.name: target for target in targets}
        self._plan = Plan()
        self._wrong: dict[str, str] = {}  # source to what is wrong with where it is to go

    def automatic(self) -> Plan:
        """Pairs as names, shapes and order propose them; what does not fit is no pair."""
        sources, targets = self.donors.items(), [target.item for target in self.targets]
        new = keras_cells(targets)
        old = old_cells(sources) if new else []
        self._cells(old, new if old else [], certain=False)
        taken = {name for cell in (*old, *(new if old else [])) for name in cell.parts}
        found = propose(
            [item for item in sources if item.name not in taken], [item for item in targets if item.name not in taken]
        )
        for pair in found.pairs:
            self._pair(pair.source, self._by_name[pair.target], pair.how)
        self._plan.ambiguous.update(found.ambiguous)
        self._plan.notes += [f"{source} is left out: {text}" for source, text in self._wrong.items()]
        return self._plan

    def renamed(self, rename: Rename) -> Plan:
        """Every weight whose name, renamed, is that of a target."""
        renaming = Renaming(rename)
        for name in self.donors.values:
            found = self._named(renaming.name(name))
            if len(found) == 1 and name not in self.donors.aside:
                self._pair(name, found[0], "by name")
            elif found and name not in self.donors.aside:
                self._wrong[name] = f"{renaming.name(name)} could be {' or '.join(one.name for one in found)}"
        self._plan.notes += renaming.notes(self.donors.values)
        if not self._plan.pairs and not self._wrong:
            shown = ", ".join(list(self._by_name)[:4])
            names = ", ".join(item.name for item in self.donors.items()[:4])
            raise RestoreError(
                f"no name of the source ({names}, ...) is one of the target ({shown}, ...); pass a mapping, rename=, "
                "or 'auto' for proposals",
                missing=list(self._by_name),
                unused=list(self.donors.values),
            )
        return self._checked()

    def mapped(self, mapping: Mapping[str, Any]) -> Plan:
        """What a mapping says, all of it."""
        for key, goal in mapping.items():
            if key in self.donors.values and not self._is_scope(goal):
                self._one(key, goal)
            elif key == "" or key.endswith("/") or (is_layer(goal) and key not in self.donors.values):
                self._scope(key if key == "" or key.endswith("/") else f"{key}/", goal)
            else:
                scope = any(name.startswith(f"{key}/") for name in self.donors.values)
                hint = f"; it is a scope, write {key + '/'!r}" if scope else did_you_mean(key, self.donors.values)
                self._wrong[key] = f"the source has no such variable{hint}"
        return self._checked()

    @staticmethod
    def _is_scope(goal: Any) -> bool:
        return (isinstance(goal, str) and (goal == "" or goal.endswith("/"))) or is_layer(goal)

    def _one(self, name: str, goal: Any) -> None:
        if is_variable(goal):
            found = [target for target in self.targets if target.variable is goal]
        elif isinstance(goal, str):
            found = self._named(goal)
        else:
            raise TypeError(f"a mapping leads to variables, layers, or names of these, not to {goal!r:.80}")
        if len(found) == 1:
            self._pair(name, found[0], "as mapped")
        elif found:
            self._wrong[name] = f"{goal} could be {' or '.join(target.name for target in found)}"
        else:
            near = did_you_mean(goal, self._by_name) if isinstance(goal, str) else ""
            self._wrong[name] = f"the target has no variable {goal if isinstance(goal, str) else 'like that'}{near}"

    def _named(self, name: str) -> list[Target]:
        """The target of that path; else those whose paths end so."""
        name = name.removesuffix(":0")
        if name in self._by_name:
            return [self._by_name[name]]
        return [target for path, target in self._by_name.items() if path.endswith(f"/{name}")]

    def _scope(self, scope: str, goal: Any) -> None:
        sources = [item for item in self.donors.items() if item.name.startswith(scope)]
        targets, start = self._inside(goal)
        if not sources or not targets:
            side, names = ("source", self.donors.values) if not sources else ("target", self._by_name)
            where = scope if not sources else goal
            self._wrong[scope] = f"the {side} has no weights in {where}{did_you_mean(str(where), list(names))}"
            return
        items = [target.item for target in targets]
        new = keras_cells(items)
        old = old_cells(sources) or [cell for cell in old_cells(sources, named=False) if not cell.odd]
        if new and old:
            self._cells(old, new, certain=True)
            of_cells = {name for cell in (*old, *new) for name in cell.parts}
            odd = {cell.scope for cell in old if cell.odd}
            sources = [item for item in sources if item.name not in of_cells and item.scope not in odd]
            items = [item for item in items if item.name not in of_cells]
        self._within(sources, items, scope, start)

    def _inside(self, goal: Any) -> tuple[list[Target], str]:
        """The targets of a scope or layer, and what their paths have in common."""
        if isinstance(goal, str):
            start = goal if any(name.startswith(goal) for name in self._by_name) else ""
            if not start and goal:
                starts = {name[: name.find(f"/{goal}") + 1] + goal for name in self._by_name if f"/{goal}" in name}
                start = starts.pop() if len(starts) == 1 else goal
            return [target for target in self.targets if target.name.startswith(start)], start
        inside = {id(target.variable) for target in targets_of(goal)}
        found = [target for target in self.targets if id(target.variable) in inside]
        scopes = [target.name.rpartition("/")[0] + "/" for target in found]
        start = min(scopes, key=len, default="")
        return found, start if all(scope.startswith(start) for scope in scopes) else ""

    def _within(self, sources: Sequence[Item], targets: Sequence[Item], scope: str, start: str) -> None:
        """Pair what lies in a scope by the rest of the names, of which the last part says the role."""
        wanted: dict[str, list[Item]] = {}
        for item in targets:
            wanted.setdefault(_rest(item.name, start), []).append(item)
        roles = [role(item.name) for item in targets]
        for item in sources:
            found = wanted.get(_rest(item.name, scope), [])
            if not found and roles.count(role(item.name)) == 1:
                alike = [one for one in sources if role(one.name) == role(item.name)]
                found = [one for one in targets if role(one.name) == role(item.name)] if len(alike) == 1 else []
            if len(found) == 1:
                self._pair(item.name, self._by_name[found[0].name], "by scope")
            else:
                listed = ", ".join(one.name for one in targets)
                self._wrong[item.name] = f"nothing in {start or 'the target'} is certainly for it, of {listed}"

    def _cells(self, old: list[Cell], new: list[Cell], certain: bool) -> None:
        """Pair recurrent cells of one kind and size: as many on both sides, in order; with `certain` one of each."""
        for cell in [*old, *new]:
            if cell.odd:
                self._wrong[cell.scope or cell.parts[0]] = cell.odd
        groups: dict[tuple[str, int, int], tuple[list[Cell], list[Cell]]] = {}
        for side, cells in enumerate((old, new)):
            for cell in cells:
                if not cell.odd:
                    groups.setdefault((cell.kind, cell.inputs, cell.units), ([], []))[side].append(cell)
        for (kind, _, _), (here, there) in groups.items():
            if here and len(here) == len(there) and not (certain and len(here) > 1):
                for number, (source, target) in enumerate(zip(here, there)):
                    order = f", {len(here)} such: number {number + 1} in order" if len(here) > 1 else ""
                    self._cell(source, target, f"{kind} cell, gates put in Keras's order{order}")
            elif here and there:
                names = [cell.scope for cell in here]
                self._plan.ambiguous.update({name: names for cell in there for name in cell.parts})
                if certain:
                    self._wrong[names[0]] = f"{len(here)} cells for {len(there)} layers; map each by itself"

    def _cell(self, source: Cell, target: Cell, how: str) -> None:
        added = self._forget_bias(source) if source.kind == "LSTM" else 0.0
        if added is None:
            self._wrong[source.scope] = (
                "its cell adds a forget bias as it runs, which Keras's LSTM has in its bias, and no graph tells which; "
                "pass forget_bias=1.0, or whatever the cell was made with"
            )
            return
        tensors = [self.donors.values[name] for name in source.parts]
        targets = [self._by_name[name] for name in target.parts]
        shapes = [target.shape for target in targets]
        made = made_cell(
            [tuple(size or 0 for size in shape or ()) for shape in shapes],
            tensors,
            gru_weights if source.kind == "GRU" else lambda kernel, bias: lstm_weights(kernel, bias, added),
        )
        how += f", forget bias {added:g}" if source.kind == "LSTM" else ""
        for one, value in zip(targets, made):
            self._give(source.parts, one, value, how, f"{source.scope}/", f"{target.scope}/")

    def _forget_bias(self, cell: Cell) -> float | None:
        """What the caller says that the cell adds to its forget gate, else what its graph does."""
        if self.forget_bias is not None or self.donors.graph is None:
            return self.forget_bias
        return forget_bias_of(self.donors.graph, cell.parts[0])

    def _pair(self, name: str, target: Target, how: str) -> None:
        self._give((name,), target, self.donors.values[name], how, name, target.name)

    def _give(
        self, sources: tuple[str, ...], target: Target, value: LazyTensor, how: str, key: str, target_key: str
    ) -> None:
        """One assignment, when the tensor fits the variable."""
        fits = shapes_agree(target.shape, value.shape)
        same_type = value.data_type == target.data_type
        numbers = value.dtype.kind != "O" and target.data_type.name != "DT_STRING"
        twice = [pair.source for pair in self._plan.pairs if pair.target.name == target.name]
        if twice:
            self._wrong[sources[0]] = f"{target.name} gets the value of {twice[0]} already"
        elif not fits or not (same_type or (self.cast and numbers)):
            found, wanted = describe(value.data_type, value.shape), target.described
            advice = "; pass cast=True to convert it" if fits and numbers else ""
            self._wrong[sources[0]] = f"is {found}, and {target.name} is {wanted}{advice}"
        else:
            given = value if same_type else CastTensor(value, int(target.data_type))
            self._plan.pairs.append(Assignment(sources, target, given, how, key, target_key))

    def _checked(self) -> Plan:
        """The plan, or one RestoreError with all that is wrong with it."""
        if self._wrong:
            listed = "\n".join(f"  {name}: {text}" for name, text in self._wrong.items())
            raise RestoreError(
                f"{len(self._wrong)} variables cannot be transferred, and none was:\n{listed}", mismatched=self._wrong
            )
        return self._plan


def _rest(name: str, scope: str) -> str:
    """The name within a scope, its last part as the role it says."""
    rest = name[len(scope) :]
    return rest[: len(rest) - len(rest.rpartition("/")[2])] + role(rest)
