"""Which tensors a model is saved as, and under which keys; `build_saver` and checkpoint export agree by this."""

from __future__ import annotations

from dataclasses import dataclass

from graph_restore.dtypes import DataType
from graph_restore.errors import RestoreError
from graph_restore.model import Model
from graph_restore.savers import saved_tables
from graph_restore.slices import TensorSlice
from graph_restore.tensors import LazyTensor
from graph_restore.variables import Variable

LOCAL_COLLECTION = "local_variables"
_HELD_FOR_TABLES = ("Tin", "Tout")


@dataclass(frozen=True)
class SavedTensor:
    """One tensor of a checkpoint: a variable's, or (without one) the keys (`output` 0) or values (1) of a `table`.

    `table`: the table's name in checkpoints. `value`: None when the model does not have it.
    """

    key: str
    data_type: DataType
    variable: Variable | None = None
    table: str = ""
    output: int = 0
    value: LazyTensor | None = None

    @property
    def name(self) -> str:
        """The variable's name, or the table's."""
        return self.table if self.variable is None else self.variable.name

    @property
    def slice(self) -> TensorSlice | None:
        """The part of the key's tensor that it is, if it is one."""
        return self.variable.slice if self.variable is not None else None

    @property
    def spec(self) -> str:
        """The slice as save and restore ops name it, spelt as TensorFlow 1 does."""
        if self.slice is None:
            return ""
        extents = ":".join(f"{start},{length}" for start, length in zip(self.slice.starts, self.slice.lengths))
        return " ".join([*map(str, self.slice.full_shape), extents])


def saved_tensors(model: Model) -> list[SavedTensor]:
    """What a saver of the model has to save, by key, slices in their order; RestoreError for two under one key."""
    saved = [one for one in model.variables if one.value is not None or LOCAL_COLLECTION not in one.collections]
    keys = _keys(model, saved)
    found = [SavedTensor(keys[one.name], one.data_type, one, value=one.value) for one in saved] + _of_tables(model)
    found.sort(key=lambda one: (one.key, one.slice.starts if one.slice is not None else ()))
    for one, two in zip(found, found[1:]):
        if one.key == two.key and (one.slice is None or two.slice is None or one.slice == two.slice):
            raise RestoreError(
                f"{one.name} and {two.name} would both be saved under the key {one.key}; rename one of them"
            )
    return found


def _keys(model: Model, variables: list[Variable]) -> dict[str, str]:
    """Variable name to key. A variable that took another one's tensor (its moving average) is saved under its own."""
    keys = {variable.name: variable.checkpoint_key or variable.name for variable in variables}
    own = {entry.variable: entry.key for saver in reversed(model.savers) for entry in saver.entries}
    users: dict[str, list[Variable]] = {}
    for variable in variables:
        if variable.slice is None:
            users.setdefault(keys[variable.name], []).append(variable)
    for sharing in users.values():
        if len(sharing) > 1:
            for variable in sharing:
                keys[variable.name] = own.get(variable.name, variable.name)
    return keys


def _of_tables(model: Model) -> list[SavedTensor]:
    found: dict[str, SavedTensor] = {}
    for table in saved_tables(model.graph):
        values = model.tables.get(table.table, (None, None))
        for output, (key, value) in enumerate(zip(table.keys, values)):
            number = model.graph.nodes[table.node].attr[_HELD_FOR_TABLES[output]].type
            found[key] = SavedTensor(key, DataType(number), None, table.name, output, value)
    return list(found.values())
