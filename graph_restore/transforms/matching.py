"""Which tensor of a checkpoint belongs to which variable of a graph; see `restore` for the rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from graph_restore.checkpoint.objects import OBJECT_GRAPH_KEY, object_graph
from graph_restore.model import Model
from graph_restore.slices import TensorSlice
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.selection import Renamed
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


class Finder:
    """Where each variable's tensor is: (key, slice, authority) candidates, best first."""

    def __init__(self, tensors: Renamed, variables: list[Variable], savers: Any) -> None:
        self._tensors = tensors
        self._objects = object_graph({key: tensors[key][1] for key in (OBJECT_GRAPH_KEY,) if key in tensors})
        self._parts = _partitions(variables, tensors)
        self._averages = {v.moving_average_of: v for v in variables if v.moving_average_of is not None}
        self._others: dict[str, list[Any]] = {}
        self._restored: dict[str, str] = {}  # key to the variable that a restore op gives it to
        for saver in savers:
            for entry in saver.entries:
                self._others.setdefault(entry.variable, []).append(entry)
                if entry.authority == "restore op" and entry.variable is not None:
                    self._restored[entry.key] = entry.variable
        self.import_prefix = self._imported_under(variables)

    def find(self, variable: Variable) -> tuple[Variable, str | None]:
        """The variable with the key (and slice) under which the checkpoint has it, and the key's original name."""
        for key, box, authority in self._candidates(variable):
            if key in self._tensors:
                facts = {**variable.authority, "checkpoint_key": authority}
                return replace(variable, checkpoint_key=key, slice=box, authority=facts), self._tensors[key][0]
        return replace(variable, checkpoint_key=variable.checkpoint_key or variable.name), None

    def tensor(self, key: str) -> LazyTensor:
        return self._tensors[key][1]

    def average(self, variable: Variable) -> tuple[Variable, str] | None:
        """The variable with the key of its moving average, when the checkpoint has one."""
        shadow = self._averages.get(variable.name)
        keys = [f"{variable.checkpoint_key or variable.name}/ExponentialMovingAverage"]
        if shadow is not None:
            keys.insert(0, self.find(shadow)[0].checkpoint_key or shadow.name)
        for key in keys:
            if key in self._tensors:
                return replace(variable, checkpoint_key=key), self._tensors[key][0]
        return None

    def _candidates(self, variable: Variable) -> Iterator[tuple[str, TensorSlice | None, str]]:
        if variable.checkpoint_key is not None:
            yield variable.checkpoint_key, variable.slice, variable.authority["checkpoint_key"]
        yield variable.name, None, "name"
        key = self._objects.key_of_variable(variable.name) if self._objects is not None else None
        if key is not None and self._restored.get(key, variable.name) == variable.name:
            yield key, None, "object graph"
        if variable.name in self._parts:
            yield *self._parts[variable.name], "name"
        for entry in self._others.get(variable.name, ()):
            yield entry.key, entry.slice, entry.authority
        if self.import_prefix:
            yield variable.name.removeprefix(self.import_prefix), None, "name without the import prefix"

    def _imported_under(self, variables: list[Variable]) -> str:
        """The first scope, when every variable has it, none is found with it and all are without it."""
        scopes = {variable.name.partition("/")[0] + "/" for variable in variables if "/" in variable.name}
        if len(scopes) != 1 or not all("/" in variable.name for variable in variables) or self._others:
            return ""
        prefix = scopes.pop()
        known = [variable.name.removeprefix(prefix) in self._tensors for variable in variables]
        return prefix if all(known) and not any(key.startswith(prefix) for key in self._tensors) else ""


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
