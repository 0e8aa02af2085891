"""restore: values for variables, from a checkpoint, with a report of what fitted.

1. The saver of the graph whose keys the checkpoint holds decides which key belongs to which variable: most keys, then
   agreeing shapes, then the MetaGraph's own. A variable it does not name is looked for under its own name, under its
   name in an object-based checkpoint, then under another saver's key.
2. A partition `<name>/part_<i>` of which no slice is known is cut from the tensor `<name>` in order.
3. A tensor whose shape or dtype disagrees is a mismatch; all of them make one RestoreError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from graph_restore.checkpoint import Checkpoint, load_checkpoint
from graph_restore.discovery import with_saver
from graph_restore.dtypes import DataType
from graph_restore.errors import CheckpointNotFoundError, FormatError, RestoreError, near_names
from graph_restore.model import Model, Restoration
from graph_restore.protos import TrackableObjectGraph
from graph_restore.slices import TensorSlice, cut
from graph_restore.tensors import CastTensor, LazyTensor, lazy
from graph_restore.transforms.selection import Rename, Selection, renamer, selector
from graph_restore.variables import SaverMap, Shape, Variable, Variables, describe

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_PART = re.compile(r"(.*)/part_(\d+)")
Tensors = Mapping[str, LazyTensor]


def restore(
    model: Model,
    checkpoint: Any = None,
    *,
    include: Selection = None,
    exclude: Selection = None,
    rename: Rename = None,
    moving_averages: bool = False,
    cast: bool = False,
    strict: bool = False,
    on_mismatch: str = "error",
) -> Model:
    """The model with values attached to its variables (LazyTensors; nothing is read) and `restoration` filled in.

    `checkpoint`: a path, a Checkpoint, or a mapping from key to array; by default the one that belongs to the model's
    source. `include`, `exclude`: which variables to restore (see `selection`). `rename`: checkpoint key to variable
    name. `moving_averages`: take the averaged values for variables that have them. `cast`: convert numbers of another
    dtype. `strict`: a selected variable without a tensor is an error. `on_mismatch`: "error" or "skip".

    Raises RestoreError with all that is missing (if `strict`) or mismatched; CheckpointNotFoundError for a bare graph
    without `checkpoint`.
    """
    if on_mismatch not in ("error", "skip"):
        raise ValueError(f"on_mismatch is 'error' or 'skip', not {on_mismatch!r}")
    tensors, name, notes = _tensors(model, checkpoint)
    renamed = renamer(rename)(tensors)
    saver, choice = _choose_saver(model, renamed)
    variables = with_saver(model.variables, saver)
    finder = _Finder(renamed, variables, model.savers)
    chosen, left_out = selector(include, default=True), selector(exclude, default=False)
    report = _Report(name, [*notes, *choice], cast)
    for variable in variables:
        if not chosen(variable) or left_out(variable):
            report.keep(variable)
        elif moving_averages and (average := finder.average(variable)) is not None:
            report.average(variable, average)
        else:
            report.take(variable, finder.find(variable))
    return report.finish(model, tensors, strict, on_mismatch)


def _tensors(model: Model, checkpoint: Any) -> tuple[Tensors, str, list[str]]:
    """The tensors to restore from, a name for them, and what their reader had to say."""
    if checkpoint is None:
        if model.source.checkpoint is None:
            raise CheckpointNotFoundError(
                f"{model.source}: a bare graph has no checkpoint of its own; pass the checkpoint's prefix or directory"
            )
        checkpoint = model.source.checkpoint
    if isinstance(checkpoint, str | os.PathLike):
        checkpoint = load_checkpoint(checkpoint)
    if isinstance(checkpoint, Checkpoint):
        return checkpoint, checkpoint.prefix, list(checkpoint.notes)
    return {str(key): lazy(str(key), value) for key, value in checkpoint.items()}, "the values given", []


def _choose_saver(model: Model, tensors: Mapping[str, Any]) -> tuple[SaverMap | None, list[str]]:
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
    return _shapes_agree(variable.shape, shape) and variable.data_type == tensor.data_type


def _shapes_agree(declared: Shape, found: tuple[int, ...]) -> bool:
    return declared is None or (
        len(declared) == len(found) and all(size in (None, other) for size, other in zip(declared, found))
    )


class _Finder:
    """Where each variable's tensor is: (key, slice, authority) candidates, best first."""

    def __init__(self, tensors: Mapping[str, tuple[str, LazyTensor]], variables: list[Variable], savers: Any) -> None:
        self._tensors = tensors
        self._full_names = _object_names(tensors)
        self._parts = _partitions(variables, tensors)
        self._averages = {v.moving_average_of: v for v in variables if v.moving_average_of is not None}
        self._others: dict[str, list[Any]] = {}
        for saver in savers:
            for entry in saver.entries:
                self._others.setdefault(entry.variable, []).append(entry)
        self._prefix = self._import_prefix(variables)

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
        if variable.name in self._full_names:
            yield self._full_names[variable.name], None, "object graph"
        if variable.name in self._parts:
            yield *self._parts[variable.name], "name"
        for entry in self._others.get(variable.name, ()):
            yield entry.key, entry.slice, entry.authority
        if self._prefix:
            yield variable.name.removeprefix(self._prefix), None, "name without the import prefix"

    def _import_prefix(self, variables: list[Variable]) -> str:
        """The first scope, when every variable has it, none is found with it and all are without it."""
        scopes = {variable.name.partition("/")[0] + "/" for variable in variables if "/" in variable.name}
        if len(scopes) != 1 or not all("/" in variable.name for variable in variables) or self._others:
            return ""
        prefix = scopes.pop()
        known = [variable.name.removeprefix(prefix) in self._tensors for variable in variables]
        return prefix if all(known) and not any(key.startswith(prefix) for key in self._tensors) else ""


def _object_names(tensors: Mapping[str, tuple[str, LazyTensor]]) -> dict[str, str]:
    """Variable name to key of an object-based checkpoint (tensorflow/core/protobuf/trackable_object_graph.proto)."""
    if OBJECT_GRAPH_KEY not in tensors:
        return {}
    data = tensors[OBJECT_GRAPH_KEY][1].read().ravel()
    try:
        graph = TrackableObjectGraph.FromString(data[0]) if data.size else TrackableObjectGraph()
    except Exception:  # protobuf's DecodeError has no public base that all its implementations share
        raise FormatError("the checkpoint's object graph is damaged", found=OBJECT_GRAPH_KEY) from None
    return {
        attribute.full_name: attribute.checkpoint_key
        for node in graph.nodes
        for attribute in node.attributes
        if attribute.full_name
    }


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


class _Report:
    """Collects what was done to each variable."""

    def __init__(self, checkpoint: str, notes: list[str], cast: bool) -> None:
        self._checkpoint, self._notes, self._cast = checkpoint, notes, cast
        self._variables: list[Variable] = []
        self._restored: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._mismatched: dict[str, str] = {}
        self._details: dict[str, str] = {}
        self._tensors: Tensors = {}

    def keep(self, variable: Variable) -> None:
        """A variable that was not selected."""
        self._variables.append(variable)

    def average(self, variable: Variable, found: tuple[Variable, str]) -> None:
        """A variable that takes its moving average."""
        self._notes.append(f"{variable.name} takes its moving average, {found[1]}")
        self.take(variable, found)

    def take(self, variable: Variable, found: tuple[Variable, str | None]) -> None:
        """A variable and the key its tensor was found under, or None."""
        self._variables.append(found[0])
        self._details[variable.name] = variable.describe()
        if found[1] is None:
            self._missing[variable.name] = found[0].checkpoint_key or variable.name
        else:
            self._restored[variable.name] = found[1]

    def finish(self, model: Model, tensors: Tensors, strict: bool, on_mismatch: str) -> Model:
        """The model with values; RestoreError for what does not fit."""
        for number, variable in enumerate(self._variables):
            if variable.name in self._restored:
                self._variables[number] = self._with_value(variable, tensors[self._restored[variable.name]])
        for name in self._mismatched:
            del self._restored[name]
        unused = tuple(key for key in tensors if key not in set(self._restored.values()) and key != OBJECT_GRAPH_KEY)
        self._details.update({key: describe(tensors[key].data_type, tensors[key].shape) for key in unused})
        if (self._mismatched and on_mismatch == "error") or (strict and self._missing):
            raise self._error(tensors, unused, strict)
        report = Restoration(
            self._checkpoint, self._restored, self._missing, unused, self._mismatched, self._details, tuple(self._notes)
        )
        return replace(model, variables=Variables(self._variables), restoration=report)

    def _with_value(self, variable: Variable, tensor: LazyTensor) -> Variable:
        box = variable.slice
        if box is not None and box.full_shape != tensor.shape:
            self._disagree(variable, tensor, f"is slice {box} of another shape")
            return replace(variable, value=None)
        part = cut(tensor, box) if box is not None else tensor
        if not _shapes_agree(variable.shape, part.shape):
            self._disagree(variable, part, "has another shape")
        elif part.data_type != variable.data_type and not _same_numbers(part, variable):
            if not self._cast or DataType.DT_STRING in (part.data_type, variable.data_type):
                self._disagree(variable, part, "has another dtype")
                return variable
            self._notes.append(f"{variable.name} is cast: {describe(part.data_type, part.shape)} to {variable.dtype}")
            return replace(variable, value=CastTensor(part, variable.data_type))
        else:
            return replace(variable, value=part)
        return variable

    def _disagree(self, variable: Variable, tensor: LazyTensor, how: str) -> None:
        found = describe(tensor.data_type, tensor.shape)
        key = self._restored[variable.name]
        self._mismatched[variable.name] = f"graph {variable.describe()}, checkpoint {key} {found}: {how}"

    def _error(self, tensors: Tensors, unused: tuple[str, ...], strict: bool) -> RestoreError:
        lines = [f"  {name}: {text}" for name, text in self._mismatched.items()]
        if strict:
            for name, key in self._missing.items():
                near = near_names(key, unused or tensors)
                lines.append(
                    f"  {name}: no key {key} in the checkpoint" + (f"; near: {', '.join(near)}" if near else "")
                )
        return RestoreError(
            f"{self._checkpoint} does not fit the graph ({len(lines)} variables):\n"
            + "\n".join(lines)
            + "\npass on_mismatch='skip', cast=True, rename= or exclude= to restore the rest, or another checkpoint",
            missing=list(self._missing),
            mismatched=self._mismatched,
            unused=unused,
        )


def _same_numbers(tensor: LazyTensor, variable: Variable) -> bool:
    """Whether the types differ only in what the numbers stand for (qint8 and int8), as when arrays were given."""
    quantised = variable.data_type.name.startswith("DT_Q") or tensor.data_type.name.startswith("DT_Q")
    return quantised and tensor.dtype == variable.dtype
