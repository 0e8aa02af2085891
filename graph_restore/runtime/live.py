"""LiveModel: a model together with what it became in a TensorFlow graph, and how values get into a session of it.

Values are read by our own checkpoint reader and fed a batch at a time, so that they are never all in memory, and so
that every checkpoint we read can be restored, whatever today's TensorFlow makes of it; but for those that the graph's
own nodes can restore.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graph_restore.errors import GraphRestoreError, GraphRestoreWarning
from graph_restore.model import Model
from graph_restore.runtime.importing import Imported
from graph_restore.runtime.initialise import initialise_variables, run_initializers
from graph_restore.runtime.native_restore import Assigns, native_assigns, restore_natively
from graph_restore.runtime.variables import RestoredVariable, Setter
from graph_restore.savers import SavedTable
from graph_restore.tensors import LazyTensor, StringTensor
from graph_restore.transforms.restore import restore
from graph_restore.transforms.sources import opened
from graph_restore.variables import Variable

_BATCH_BYTES = 64 << 20
_BATCH_COUNT = 256


@dataclass
class LiveModel:
    """A model in a live graph. `variables` and `setters` by the node names of the model; `tables`: those its savers
    restore; `fillers`: the nodes that fill the others; `options` are restore's."""

    model: Model
    imported: Imported
    variables: Mapping[str, RestoredVariable]
    setters: Mapping[str, Setter]
    tables: Sequence[SavedTable]
    fillers: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)

    def restore(
        self, session: Any, checkpoint: Any, restored: Model | None = None, ways: Assigns | None = None
    ) -> Model:
        """Restore variables and saved tables from whatever `restore` takes; the model with its report.

        `restored`: what `restore` gave, if it was asked before; `ways`: what `native_assigns` did.
        """
        if session.graph is not self.imported.graph:
            raise GraphRestoreError(
                "the session runs another graph than the one restore_graph imported into; make it with "
                "tf.compat.v1.Session(graph=...) or inside `with graph.as_default():`"
            )
        checkpoint = opened(checkpoint)
        restored = restored or restore(self.model, checkpoint, **self.options)
        ways = native_assigns(checkpoint, restored) if ways is None else ways
        done = restore_natively(session, checkpoint, ways, self.imported, self.setters)
        self.assign(session, [variable for variable in restored.variables if variable.name not in done])
        self._fill_tables(session, restored)
        return restored

    def assign(self, session: Any, variables: Iterable[Variable]) -> None:
        """Give variables their `value`s."""
        for batch in _batches((variable.name, variable.value) for variable in variables if variable.value is not None):
            setters = [self.setters[name] for name, _ in batch]
            feeds = {setter.tensor: setter.feed(value.read()) for setter, (_, value) in zip(setters, batch)}
            session.run([setter.operation for setter in setters], feeds)

    def _fill_tables(self, session: Any, restored: Model) -> None:
        """Fill the tables whose keys and values the checkpoint has."""
        for table in self.tables:
            if table.table in restored.tables:
                tensors = [self.imported.tensor(name) for name in table.tensors]
                values = [content.read() for content in restored.tables[table.table]]
                session.run(self.imported.operation(table.node), dict(zip(tensors, values)))

    def fill_own_tables(self, session: Any) -> None:
        """Fill the mutable tables whose keys and values the model brought with it."""
        for table in self.tables:
            if table.table in self.model.tables:
                tensors = [self.imported.tensor(name) for name in table.tensors]
                values = [tensor.read() for tensor in self.model.tables[table.table]]
                session.run(self.imported.operation(table.node), dict(zip(tensors, values)))

    def initialise(self, session: Any, restored: Model) -> None:
        """Fill tables and give first values to variables that got none; a warning lists what could not be done."""
        failed = self._run_table_initializers(session)
        valued = {variable.name for variable in restored.variables if variable.value is not None}
        names = {self.imported.operation(name).name: name for name in self.variables}
        missing = {live: self.variables[name] for live, name in names.items() if name not in valued}
        result = initialise_variables(session, missing, {live for live, name in names.items() if name in valued})
        if result.overwritten:
            again = {names[live] for live in result.overwritten}
            self.assign(session, [variable for variable in restored.variables if variable.name in again])
        done = {names[live] for live in result.done}
        self.report([name for name in self.lacking(restored) if name in done], "were initialised")
        _warn_of_failed({**failed, **result.failed})

    def initialise_tables(self, session: Any) -> None:
        """Fill the tables that the graph itself can fill; a warning lists those it cannot."""
        _warn_of_failed(self._run_table_initializers(session))

    def _run_table_initializers(self, session: Any) -> dict[str, str]:
        tables = {name: self.imported.operation(name) for name in self.fillers}
        return run_initializers(session, tables)

    def lacking(self, restored: Model) -> list[str]:
        """The variables that a checkpoint should hold, going by the savers, and does not hold, or not as they are."""
        report = restored.restoration
        if report is None:
            return []
        saved = {entry.variable for saver in self.model.savers for entry in saver.entries}
        missing = [name for name in report.missing if name in saved or not self.model.savers]
        return [*missing, *report.mismatched]

    def report(self, names: Sequence[str], what_happened: str) -> None:
        """Warn of variables that a checkpoint does not hold."""
        if names:
            _warn(f"{len(names)} variables are not in the checkpoint and {what_happened}: {', '.join(names)}")


def _batches(values: Iterable[tuple[str, Any]]) -> Iterator[list[tuple[str, LazyTensor]]]:
    batch: list[tuple[str, LazyTensor]] = []
    size = 0
    for name, value in values:
        length = 32 * value.size if isinstance(value, StringTensor) else value.nbytes
        if batch and (size + length > _BATCH_BYTES or len(batch) == _BATCH_COUNT):
            yield batch
            batch, size = [], 0
        batch.append((name, value))
        size += length
    if batch:
        yield batch


def _warn_of_failed(failed: Mapping[str, str]) -> None:
    if failed:
        listed = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        _warn(f"{len(failed)} variables or tables have no value yet: {listed}")


def _warn(text: str) -> None:
    warnings.warn(text, GraphRestoreWarning, stacklevel=2)
