"""Which tensor of a checkpoint belongs to which variable of a graph; see `restore` for the rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from graph_restore.checkpoint.objects import OBJECT_GRAPH_KEY, VALUE_SUFFIX, object_graph
from graph_restore.model import Model
from graph_restore.slices import TensorSlice
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.renaming import Renamed, Renaming
from graph_restore.variables import SaverMap, Variable, Variables, shapes_agree

_PART = re.compile(r"(.*)/part_(\d+)")


def choose_saver(model: Model, tensors: Renamed) -> tuple[SaverMap | None, list[str]]:
    """The saver that fits the checkpoint best, with a note when the graph has several."""
    if not model.savers:
        return None, []

    def fit(saver: SaverMap) -> tuple[int, int, int, bool]:
        present = [entry for entry in saver.entries if entry.key in tensors and entry.variable is not None]
        agreeing = [entry for entry in present if _agrees(model.variables, entry, tensors[entry.key][1])]
        absent = len(saver.keys - tensors.keys())
        return len(agreeing), -absent, len(present), saver.is_meta_graphs

    best = max(model.savers, key=fit)
    if len(model.savers) == 1:
        return best, []
    keys = len(best.keys & tensors.keys())
    return best, [f"of {len(model.savers)} savers the one of {best.filename_tensor} fits best ({keys} keys present)"]


def _agrees(variables: Variables, entry: Any, tensor: LazyTensor) -> bool:
    variable = variables.get(entry.variable)
    if variable is None:
        return False
    shape = entry.slice.lengths if entry.slice is not None else tensor.shape
    return shapes_agree(variable.shape, shape) and variable.data_type == tensor.data_type


class Match(NamedTuple):
    """A variable with the key and slice under which a source has it, the key's own name there, and its tensor."""

    variable: Variable
    key: str
    tensor: LazyTensor


class Finder:
    """Where one source has each variable's tensor. Candidates are (name, slice, authority), best first."""

    def __init__(
        self,
        tensors: Renamed,
        renaming: Renaming,
        variables: list[Variable],
        savers: Any,
        import_prefix: str,
        stood_for: Mapping[str, str],
    ) -> None:
        self._tensors = tensors
        self._own_names = {key: name for name, (key, _) in tensors.items()}
        self._objects = object_graph({key: tensors[key][1] for key in (OBJECT_GRAPH_KEY,) if key in tensors})
        self._full_names = self._renamed_full_names(renaming)
        self._parts = _partitions(variables, tensors)
        self._averages = {v.moving_average_of: v for v in variables if v.moving_average_of is not None}
        self._others: dict[str, list[Any]] = {}
        self._import_prefix = import_prefix
        self._stood_for = stood_for
        self._restored: dict[str, str] = {}  # key to the variable that a restore op gives it to
        for saver in savers:
            for entry in saver.entries:
                self._others.setdefault(entry.variable, []).append(entry)
                if entry.authority == "restore op" and entry.variable is not None:
                    self._restored[entry.key] = entry.variable

    def find(self, variable: Variable) -> Match | None:
        """The variable's tensor; None when this source has none."""
        for name, box, authority in self._candidates(variable):
            if name in self._tensors:
                known = (variable.checkpoint_key, variable.slice, variable.authority.get("checkpoint_key"))
                if known != (name, box, authority):
                    facts = {**variable.authority, "checkpoint_key": authority}
                    variable = variable.replaced(checkpoint_key=name, slice=box, authority=facts)
                return Match(variable, *self._tensors[name])
        return None

    def average(self, variable: Variable) -> Match | None:
        """The variable's moving average; None when this source has none."""
        shadow = self._averages.get(variable.name)
        names = [f"{variable.checkpoint_key or variable.name}/ExponentialMovingAverage"]
        if shadow is not None:
            found = self.find(shadow)
            shadow_key = found.variable.checkpoint_key if found else shadow.checkpoint_key
            names.insert(0, shadow_key or shadow.name)
        for name in names:
            if name in self._tensors:
                return Match(variable.replaced(checkpoint_key=name), *self._tensors[name])
        return None

    def _renamed_full_names(self, renaming: Renaming) -> dict[str, str]:
        """What the variables' full names in the object graph become, to their keys; none that two become."""
        found: dict[str, list[str]] = {}
        for name, key in (self._objects.full_names() if self._objects is not None else {}).items():
            found.setdefault(renaming.name(name), []).append(key)
        return {name: keys[0] for name, keys in found.items() if len(keys) == 1}

    def _candidates(self, variable: Variable) -> Iterator[tuple[str, TensorSlice | None, str]]:
        if variable.checkpoint_key is not None:
            yield variable.checkpoint_key, variable.slice, variable.authority["checkpoint_key"]
        yield variable.name, None, "name"
        yield f"{variable.name}:0", None, "name"  # as arrays are often kept, by the variables' own `name`
        if variable.checkpoint_key is not None and variable.checkpoint_key.endswith(VALUE_SUFFIX):
            yield variable.checkpoint_key.removesuffix(VALUE_SUFFIX), variable.slice, "path of the object"
        if self._objects is not None:
            names = [variable.name, *([self._stood_for[variable.name]] if variable.name in self._stood_for else [])]
            keys = [key for name in names for key in (self._full_names.get(name), self._objects.key_of_variable(name))]
            for key in keys:
                known = key is not None and key in self._own_names
                if known and self._may_share(str(key), variable):
                    yield self._own_names[str(key)], None, "object graph"
            renamed_path = variable.name + VALUE_SUFFIX
            if self._tensors.get(renamed_path, (renamed_path,))[0] != renamed_path:
                yield renamed_path, None, "object graph"
        if variable.name in self._parts:
            yield *self._parts[variable.name], "name"
        for entry in self._others.get(variable.name, ()):
            yield entry.key, entry.slice, entry.authority
        if variable.name in self._stood_for:
            yield self._stood_for[variable.name], None, "name"
        if self._import_prefix:
            yield variable.name.removeprefix(self._import_prefix), None, "name without the import prefix"

    def _may_share(self, key: str, variable: Variable) -> bool:
        """Whether a key that the object graph has under a variable's name is its own: not where a restore op gives it
        to another variable and it does not fit this one, as names such as `Variable` occur twice."""
        if self._restored.get(key, variable.name) == variable.name:
            return True
        tensor = self._tensors[self._own_names[key]][1]
        return variable.data_type == tensor.data_type and shapes_agree(variable.shape, tensor.shape)


def import_prefix(variables: list[Variable], tensors: Renamed, savers: Any) -> str:
    """The first scope, when every variable has it, no tensor does and each is there without it; "" otherwise."""
    scopes = {variable.name.partition("/")[0] + "/" for variable in variables if "/" in variable.name}
    if len(scopes) != 1 or not all("/" in variable.name for variable in variables):
        return ""
    if any(saver.entries for saver in savers):
        return ""
    prefix = scopes.pop()
    known = [variable.name.removeprefix(prefix) in tensors for variable in variables]
    return prefix if all(known) and not any(name.startswith(prefix) for name in tensors) else ""


def _partitions(variables: list[Variable], tensors: Mapping[str, Any]) -> dict[str, tuple[str, TensorSlice]]:
    """Slices of variables `<name>/part_<i>` whose sizes, put after each other, make the tensor `<name>`."""
    parts: dict[str, list[tuple[int, Variable]]] = {}
    for variable in variables:
        match = _PART.fullmatch(variable.name)
        if match and match[1] in tensors and variable.checkpoint_key is None:
            parts.setdefault(match[1], []).append((int(match[2]), variable))
    found: dict[str, tuple[str, TensorSlice]] = {}
    for base, members in parts.items():
        full = tensors[base][1].shape
        ordered = [variable for _, variable in sorted(members, key=lambda pair: pair[0])]
        shapes = [variable.shape for variable in ordered]
        for axis in range(len(full)):
            if all(shape is not None and _fits(shape, full, axis) for shape in shapes):
                sizes = [shape[axis] or 0 for shape in shapes if shape is not None]
                if sum(sizes) == full[axis]:
                    found.update(_boxes(base, ordered, sizes, full, axis))
                    break
    return found


def _fits(shape: tuple[int | None, ...], full: tuple[int, ...], axis: int) -> bool:
    return len(shape) == len(full) and shape[:axis] + shape[axis + 1 :] == full[:axis] + full[axis + 1 :]


def _boxes(
    base: str, variables: list[Variable], sizes: list[int], full: tuple[int, ...], axis: int
) -> Iterator[tuple[str, tuple[str, TensorSlice]]]:
    start = 0
    for variable, size in zip(variables, sizes):
        starts, lengths = [0] * len(full), list(full)
        starts[axis], lengths[axis] = start, size
        start += size
        yield variable.name, (base, TensorSlice(full, tuple(starts), tuple(lengths)))
