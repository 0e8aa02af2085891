"""What `restore` does to each variable, collected: its value, or why it has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.converted import ConvertedTensor
from graph_restore.checkpoint.objects import OBJECT_GRAPH_KEY, VALUE_SUFFIX
from graph_restore.dtypes import DataType, type_name
from graph_restore.errors import RestoreError
from graph_restore.model import Model, Restoration
from graph_restore.savers import table_keys
from graph_restore.slices import CutStrings, CutTensor, JoinedStrings, JoinedTensor, cut
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.guess import Guess, guess_further, guess_rename
from graph_restore.transforms.matching import Match
from graph_restore.transforms.renaming import Renamed
from graph_restore.variables import Variable, Variables, describe, shapes_agree


class Report:
    """Collects the variables with their values, and what is to be told of them.

    `tensors`: all that there is to restore from, by the names looked for. `sources`: where it is from. `renamed_by`:
    the steps of the `rename` that was given.
    """

    def __init__(self, tensors: Renamed, sources: Sequence[str], cast: bool, renamed_by: Sequence[Any] = ()) -> None:
        self._tensors, self._sources, self._cast_allowed = tensors, sources, cast
        self._renamed_by = renamed_by
        self._variables: list[Variable] = []
        self._keys: set[str] = set()
        self._missing_variables: dict[str, Variable] = {}
        self._restored: dict[str, str] = {}
        self._renamed: dict[str, str] = {}
        self.averaged: dict[str, str] = {}
        self._cast: dict[str, str] = {}
        self._joined: dict[str, int] = {}
        self._from: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._mismatched: dict[str, str] = {}
        self._details: dict[str, str] = {}

    def keep(self, variable: Variable) -> None:
        """A variable that was not selected."""
        self._variables.append(variable)

    def miss(self, variable: Variable) -> None:
        """A variable that no source has a tensor for."""
        lacking = variable.replaced(checkpoint_key=variable.checkpoint_key or variable.name)
        self._variables.append(lacking)
        self._details[variable.name] = variable.describe()
        self._missing[variable.name] = lacking.checkpoint_key or ""
        self._missing_variables[self._missing[variable.name]] = lacking

    def take(self, match: Match, source: int, *, average: bool = False) -> None:
        """A variable and what a source, given by its number, has for it."""
        variable, key, tensor = match
        self._details[variable.name] = variable.describe()
        self._keys.add(key)
        value = self._value(variable, key, tensor)
        self._variables.append(variable if value is None else variable.replaced(value=value))
        if value is None:
            return
        self._restored[variable.name] = key
        if average:
            self.averaged[variable.name] = key
        if variable.checkpoint_key != key:  # which is the name it was looked for
            self._renamed[variable.name] = key
        if len(self._sources) > 1:
            self._from[variable.name] = self._sources[source]

    def _value(self, variable: Variable, key: str, tensor: LazyTensor) -> LazyTensor | None:
        """The tensor as the variable's value; None, with a word, when shape or dtype disagree."""
        box = variable.slice
        if box is not None and box.full_shape != tensor.shape:
            self._disagree(variable, key, tensor, f"is slice {box} of another shape")
            return None
        part = cut(tensor, box) if box is not None else tensor
        if not shapes_agree(variable.shape, part.shape):
            self._disagree(variable, key, part, "has another shape")
            return None
        slices = _slices(part)
        if part.data_type != variable.data_type and not _same_numbers(part, variable):
            if not self._cast_allowed or DataType.DT_STRING in (part.data_type, variable.data_type):
                self._disagree(variable, key, part, "has another dtype")
                return None
            self._cast[variable.name] = _cast_text(part, variable)
        if slices > 1:
            self._joined[variable.name] = slices
        return part if part.data_type == variable.data_type else ConvertedTensor(part, variable.data_type)

    def _disagree(self, variable: Variable, key: str, tensor: LazyTensor, how: str) -> None:
        found = describe(tensor.data_type, tensor.shape)
        self._mismatched[variable.name] = f"graph {variable.describe()}, checkpoint {key} {found}: {how}"

    def finish(self, model: Model, notes: Sequence[str], strict: bool, on_mismatch: str) -> Model:
        """The model with values; RestoreError for what does not fit."""
        held = {table: keys for table, keys in table_keys(model.graph).items() if self._tensors.keys() >= set(keys)}
        tables = {table: (self._tensors[keys[0]][1], self._tensors[keys[1]][1]) for table, keys in held.items()}
        self._keys.update(self._tensors[key][0] for keys in held.values() for key in keys)
        taken = {*self._keys, OBJECT_GRAPH_KEY}
        unused = {key: tensor for key, tensor in self._tensors.values() if key not in taken}
        self._details.update({key: describe(tensor.data_type, tensor.shape) for key, tensor in unused.items()})
        report = Restoration(
            checkpoint=" and ".join(self._sources),
            restored=self._restored,
            renamed=self._renamed,
            averaged=self.averaged,
            cast=self._cast,
            joined=self._joined,
            sources=self._from,
            missing=self._missing,
            mismatched=self._mismatched,
            details=self._details,
            unused=tuple(unused),
            notes=(*notes, *self._local_notes()),
            guess=self._guess(unused),
        )
        if (self._mismatched and on_mismatch == "error") or (strict and self._missing):
            raise _error(report, strict)
        return replace(model, variables=Variables(self._variables), restoration=report, tables=tables)

    def _local_notes(self) -> list[str]:
        """What to do about variables that Savers leave out, such as those of tf.metrics."""
        local = [one.name for one in self._missing_variables.values() if "local_variables" in one.collections]
        if not local:
            return []
        shown = ", ".join(local[:3]) + (f" and {len(local) - 3} more" if len(local) > 3 else "")
        return [
            f"local variables are in no checkpoint: {shown}; graph_restore.initialize(model) gives them first values"
        ]

    def _guess(self, unused: Mapping[str, LazyTensor]) -> Guess | None:
        if not self._missing_variables or not unused:
            return None
        paths = {key.removesuffix(VALUE_SUFFIX): tensor for key, tensor in unused.items()}
        if not self._renamed_by:
            return guess_rename(self._missing_variables, paths, [key.removesuffix(VALUE_SUFFIX) for key in self._keys])
        names = {name.removesuffix(VALUE_SUFFIX): (key, one) for name, (key, one) in self._tensors.items()}
        named = {name: tensor for name, (key, tensor) in names.items() if key in unused}
        taken = [name for name, (key, _) in names.items() if key in self._keys]
        return guess_further(self._missing_variables, paths, named, taken, self._renamed_by)


def _error(report: Restoration, strict: bool) -> RestoreError:
    lines = [f"  {name}: {text}" for name, text in report.mismatched.items()]
    lines += list(_missing_lines(report)) if strict else []
    return RestoreError(
        f"{report.checkpoint} does not fit the graph ({len(lines)} variables):\n"
        + "\n".join(lines)
        + "\npass on_mismatch='skip', cast=True, rename= or exclude= to restore the rest, or another checkpoint",
        missing=list(report.missing),
        mismatched=report.mismatched,
        unused=report.unused,
    )


def _missing_lines(report: Restoration) -> Iterator[str]:
    nearest = report.nearest()
    for name, key in report.missing.items():
        near = f"; near names: {', '.join(nearest[name])}" if nearest.get(name) else ""
        yield f"  {name}: no key {key} in the checkpoint{near}"
    if report.guess is not None:
        yield f"  {report.guess}"


def _slices(tensor: LazyTensor) -> int:
    """How many slices of a partitioned tensor the values lie in; 1 for one that is whole."""
    if isinstance(tensor, JoinedTensor | JoinedStrings):
        return len(tensor.slices)
    if isinstance(tensor, CutTensor | CutStrings) and isinstance(tensor.tensor, JoinedTensor | JoinedStrings):
        return sum(box.meets(tensor.box) for box, _ in tensor.tensor.slices)
    return 1


def _cast_text(tensor: LazyTensor, variable: Variable) -> str:
    safe = np.can_cast(tensor.dtype, variable.dtype, "safe")
    inexact = tensor.dtype.kind in "iu" and tensor.dtype.itemsize == 8 and variable.dtype.kind in "fc"
    loss = "" if safe and not inexact else "; precision or range may be lost"
    return f"{type_name(tensor.data_type)} to {type_name(variable.data_type)}{loss}"


def _same_numbers(tensor: LazyTensor, variable: Variable) -> bool:
    """Whether the types differ only in what the numbers stand for (qint8 and int8), as when arrays were given."""
    quantised = variable.data_type.name.startswith("DT_Q") or tensor.data_type.name.startswith("DT_Q")
    return quantised and tensor.dtype == variable.dtype
