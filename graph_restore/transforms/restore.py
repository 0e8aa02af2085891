"""restore: values for variables, from a checkpoint, with a report of what fitted.

1. The saver of the graph whose keys the checkpoint holds decides which key belongs to which variable: most keys, then
   agreeing shapes, then the MetaGraph's own. A variable it does not name is looked for under its own name, under its
   name in an object-based checkpoint, then under another saver's key.
2. A partition `<name>/part_<i>` of which no slice is known is cut from the tensor `<name>` in order.
3. A tensor whose shape or dtype disagrees is a mismatch; all of them make one RestoreError.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graph_restore.checkpoint import Checkpoint, load_checkpoint
from graph_restore.checkpoint.objects import OBJECT_GRAPH_KEY
from graph_restore.discovery import with_saver
from graph_restore.dtypes import DataType, type_name
from graph_restore.errors import CheckpointNotFoundError, RestoreError, did_you_mean
from graph_restore.model import Model, Restoration
from graph_restore.savers import saved_tables
from graph_restore.slices import cut
from graph_restore.tensors import CastTensor, LazyTensor, lazy
from graph_restore.transforms.guess import Guess, guess_rename
from graph_restore.transforms.matching import Finder, choose_saver
from graph_restore.transforms.selection import Rename, Selection, renamer, selector
from graph_restore.variables import Variable, Variables, describe, shapes_agree

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

    `checkpoint`: a path, a Checkpoint, a mapping from key to array, or a list of these, the first that has a key
    winning; by default the one that belongs to the model's source. `include`, `exclude`: which variables to restore
    (see `selection`). `rename`: checkpoint key to variable name (see `selection`), or "auto" for the one systematic
    change that makes every name fit. `moving_averages`: take the averaged values for variables that have them.
    `cast`: convert numbers of another dtype. `strict`: a selected variable without a tensor is an error.
    `on_mismatch`: "error" or "skip".

    Raises RestoreError with all that is missing (if `strict`) or mismatched; CheckpointNotFoundError for a bare graph
    without `checkpoint`.
    """
    if on_mismatch not in ("error", "skip"):
        raise ValueError(f"on_mismatch is 'error' or 'skip', not {on_mismatch!r}")
    tensors, name, notes = _tensors(model, checkpoint)
    if rename == "auto":
        rename, guessed = _guessed(model, tensors, include, exclude)
        notes = [*notes, guessed]
    renamed = renamer(rename)(tensors)
    saver, choice = choose_saver(model, renamed)
    variables = with_saver(model.variables, saver)
    finder = Finder(renamed, variables, model.savers)
    chosen, left_out = selector(include, default=True), selector(exclude, default=False)
    if finder.import_prefix:
        choice = [*choice, f"the graph has no saver; names are looked for without their scope {finder.import_prefix}"]
    report = _Report(name, [*notes, *choice], cast)
    for variable in variables:
        if not chosen(variable) or left_out(variable):
            report.keep(variable)
        elif moving_averages and (average := finder.average(variable)) is not None:
            report.average(variable, average)
        else:
            report.take(variable, finder.find(variable))
    return report.finish(model, tensors, strict, on_mismatch)


def _guessed(model: Model, tensors: Tensors, include: Selection, exclude: Selection) -> tuple[Rename, str]:
    """The rename that makes everything fit, when there is just one; RestoreError when it is not certain."""
    report = restore(model, tensors, include=include, exclude=exclude, on_mismatch="skip").restoration
    assert report is not None
    if not report.missing:
        return None, "rename='auto' changed nothing: no name is missing"
    if report.guess is None or not report.guess.certain:
        raise RestoreError(
            f"rename='auto': no one change of names fits; the nearest: {report.guess or 'none'}",
            missing=list(report.missing),
            unused=report.unused,
        )
    return report.guess.rename, f"rename='auto': {report.guess}"


def _tensors(model: Model, checkpoint: Any) -> tuple[Tensors, str, list[str]]:
    """The tensors to restore from, a name for them, and what their reader had to say."""
    if checkpoint is None:
        if model.source.checkpoint is None:
            raise CheckpointNotFoundError(
                f"{model.source}: a bare graph has no checkpoint of its own; pass the checkpoint's prefix or directory"
            )
        checkpoint = model.source.checkpoint
    if isinstance(checkpoint, list | tuple):
        return _in_order([_tensors(model, item) for item in checkpoint])
    if isinstance(checkpoint, str | os.PathLike):
        checkpoint = load_checkpoint(checkpoint)
    if isinstance(checkpoint, Checkpoint):
        return checkpoint, checkpoint.prefix, list(checkpoint.notes)
    return {str(key): lazy(str(key), value) for key, value in checkpoint.items()}, "the values given", []


def _in_order(sources: list[tuple[Tensors, str, list[str]]]) -> tuple[Tensors, str, list[str]]:
    """Several sources as one: a key is taken from the first that has it, with a note where others have it too."""
    merged: dict[str, LazyTensor] = {}
    notes: list[str] = []
    for tensors, name, own in sources:
        hidden = sum(key in merged for key in tensors)
        notes += own + (
            [f"{hidden} keys of {name} are also in an earlier source and taken from there"] if hidden else []
        )
        merged = {**tensors, **merged}
    return merged, " and ".join(name for _, name, _ in sources), notes


class _Report:
    """Collects what was done to each variable."""

    def __init__(self, checkpoint: str, notes: list[str], cast: bool) -> None:
        self._checkpoint, self._notes, self._cast = checkpoint, notes, cast
        self._variables: list[Variable] = []
        self._restored: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._mismatched: dict[str, str] = {}
        self._details: dict[str, str] = {}

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
        held = [table for table in saved_tables(model.graph) if all(key in tensors for key in table.keys)]
        tables = {table.table: (tensors[table.keys[0]], tensors[table.keys[1]]) for table in held}
        taken = {*self._restored.values(), OBJECT_GRAPH_KEY, *(key for table in held for key in table.keys)}
        for name in self._mismatched:
            del self._restored[name]
        unused = tuple(key for key in tensors if key not in taken)
        self._details.update({key: describe(tensors[key].data_type, tensors[key].shape) for key in unused})
        if (self._mismatched and on_mismatch == "error") or (strict and self._missing):
            raise self._error(tensors, unused, strict)
        report = Restoration(
            self._checkpoint,
            self._restored,
            self._missing,
            unused,
            self._mismatched,
            self._details,
            tuple(self._notes),
            self._guess({key: tensors[key] for key in unused}, [key for key in tensors if key in taken]),
        )
        return replace(model, variables=Variables(self._variables), restoration=report, tables=tables)

    def _guess(self, unused: Tensors, taken: list[str]) -> Guess | None:
        missing = {self._missing[one.name]: one for one in self._variables if one.name in self._missing}
        return guess_rename(missing, unused, taken) if missing and unused else None

    def _with_value(self, variable: Variable, tensor: LazyTensor) -> Variable:
        box = variable.slice
        if box is not None and box.full_shape != tensor.shape:
            self._disagree(variable, tensor, f"is slice {box} of another shape")
            return variable
        part = cut(tensor, box) if box is not None else tensor
        if not shapes_agree(variable.shape, part.shape):
            self._disagree(variable, part, "has another shape")
        elif part.data_type == variable.data_type:
            return replace(variable, value=part)
        elif _same_numbers(part, variable):
            return replace(variable, value=CastTensor(part, variable.data_type))
        elif self._cast and DataType.DT_STRING not in (part.data_type, variable.data_type):
            self._notes.append(_cast_note(part, variable))
            return replace(variable, value=CastTensor(part, variable.data_type))
        else:
            self._disagree(variable, part, "has another dtype")
        return variable

    def _disagree(self, variable: Variable, tensor: LazyTensor, how: str) -> None:
        found = describe(tensor.data_type, tensor.shape)
        key = self._restored[variable.name]
        self._mismatched[variable.name] = f"graph {variable.describe()}, checkpoint {key} {found}: {how}"

    def _error(self, tensors: Tensors, unused: tuple[str, ...], strict: bool) -> RestoreError:
        lines = [f"  {name}: {text}" for name, text in self._mismatched.items()]
        if strict:
            for name, key in self._missing.items():
                lines.append(f"  {name}: no key {key} in the checkpoint{did_you_mean(key, unused or tensors)}")
        return RestoreError(
            f"{self._checkpoint} does not fit the graph ({len(lines)} variables):\n"
            + "\n".join(lines)
            + "\npass on_mismatch='skip', cast=True, rename= or exclude= to restore the rest, or another checkpoint",
            missing=list(self._missing),
            mismatched=self._mismatched,
            unused=unused,
        )


def _cast_note(tensor: LazyTensor, variable: Variable) -> str:
    safe = np.can_cast(tensor.dtype, variable.dtype, "safe")
    inexact = tensor.dtype.kind in "iu" and tensor.dtype.itemsize == 8 and variable.dtype.kind in "fc"
    loss = "" if safe and not inexact else "; precision or range may be lost"
    return f"{variable.name} is cast from {type_name(tensor.data_type)} to {type_name(variable.data_type)}{loss}"


def _same_numbers(tensor: LazyTensor, variable: Variable) -> bool:
    """Whether the types differ only in what the numbers stand for (qint8 and int8), as when arrays were given."""
    quantised = variable.data_type.name.startswith("DT_Q") or tensor.data_type.name.startswith("DT_Q")
    return quantised and tensor.dtype == variable.dtype
