"""Saver: `tf.compat.v1.train.Saver` over a restored model; saves as the original did, restores whatever we read.

This module imports TensorFlow; it is imported on first use only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from graph_restore.errors import RestoreError
from graph_restore.model import Model, Restoration
from graph_restore.names import node_of
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.importing import Imported
from graph_restore.runtime.live import LiveModel
from graph_restore.runtime.variables import LOCAL_COLLECTION, by_full_name
from graph_restore.savers import SAVE_OPS, SavedTable
from graph_restore.transforms.own_saver import own_saver
from graph_restore.transforms.saved_keys import saved_tensors
from graph_restore.variables import Variable, Variables

tf = tensorflow()


class Saver(tf.compat.v1.train.Saver):  # type: ignore[misc, name-defined]
    """Saves the restored variables under the keys that the original's checkpoints have, and restores them.

    Checkpoints are read by graph_restore: any path `restore` takes, both versions, partitioned or not, with
    the options that were given to `restore_graph`.

    `restoration`: what the last restore did, None before. `variables`: the live variables by name, with a
    PartitionedVariable in place of its parts, by the name of the whole.
    """

    def __init__(self, live: LiveModel, **arguments: Any) -> None:
        self._live = live
        self.restoration: Restoration | None = None
        self.variables: Mapping[str, Any] = by_full_name(live.variables.values())
        super().__init__(**arguments)

    def save(self, sess: Any, save_path: Any, *arguments: Any, **named: Any) -> Any:
        """As TensorFlow's; the folder is made if it is not there, also for version 1, whose nodes do not do so."""
        folder = os.path.dirname(os.fspath(save_path))
        if folder:
            tf.io.gfile.makedirs(folder)
        return super().save(sess, save_path, *arguments, **named)

    def restore(self, sess: Any, save_path: Any) -> None:
        """Restore variables and saved tables in `sess` from the checkpoint at `save_path` (or a mapping to arrays).

        Variables the checkpoint does not hold stay as they are, with a warning. Raises RestoreError when
        values do not fit, or when the checkpoint has none of the variables; CheckpointNotFoundError, FormatError.
        """
        if save_path is None:
            raise ValueError("there is no checkpoint path to restore from: None was given")
        restored = self._live.restore(sess, save_path)
        self.restoration = report = restored.restoration
        if report is not None and not report.restored:
            raise RestoreError(f"{report.checkpoint} has none of the graph's variables", missing=list(report.missing))
        self._live.report(self._live.lacking(restored), "stay as they are")


def make_saver(live: LiveModel, saved_variables: Iterable[Variable], saver_def: Any, max_to_keep: int) -> Saver | None:
    """The Saver of a live model; None when there is nothing to save.

    `saved_variables`: what `what_is_saved` gives. With a `saver_def` the graph's own nodes save.
    """
    if saver_def is not None:
        return Saver(live, saver_def=_live_saver_def(saver_def, live.imported), max_to_keep=max_to_keep)
    saved: dict[str, Any] = {table.name: _table_saveable(table, live.imported) for table in live.tables}
    groups: dict[str, list[Variable]] = {}
    for variable in saved_variables:
        groups.setdefault(variable.checkpoint_key or variable.name, []).append(variable)
    for key, group in groups.items():
        members = [live.variables[variable.name] for variable in group]
        saved[key] = members if group[0].slice is not None else members[0]
    if not saved:
        return None
    return Saver(live, var_list=saved, max_to_keep=max_to_keep)


def own_saver_def(model: Model, saved_variables: list[Variable]) -> Any:
    """The SaverDef of nodes of the graph that save just these variables; None when it has none."""
    try:
        return own_saver(model, saved_tensors(replace(model, variables=Variables(saved_variables))), SAVE_OPS)
    except RestoreError:  # two variables of one key
        return None


def what_is_saved(model: Model, keyed: Variables) -> list[Variable]:
    """The variables that the original saves; without a saver in the graph, all that are not local. `keyed`: the model's
    with the keys they are saved under."""
    return [
        variable
        for variable in keyed
        if "checkpoint_key" in variable.authority or (not model.savers and LOCAL_COLLECTION not in variable.collections)
    ]


def _live_saver_def(saver_def: Any, imported: Imported) -> Any:
    """The SaverDef with the names that its nodes have in the live graph."""
    live = tf.compat.v1.train.SaverDef.FromString(saver_def.SerializeToString())
    for field in ("filename_tensor_name", "save_tensor_name"):
        if getattr(live, field):
            setattr(live, field, imported.tensor(getattr(live, field)).name)
    if live.restore_op_name:
        live.restore_op_name = imported.operation(node_of(live.restore_op_name)).name
    return live


def _table_saveable(table: SavedTable, imported: Imported) -> Any:
    """What a Saver needs to save a table's keys and values, and to restore them with the graph's own import node."""
    saveable_object, save_spec = _saveable_classes()
    fill = imported.operation(table.node)
    handle, keys, values = fill.inputs[:3]
    export = tf.raw_ops.LookupTableExportV2 if handle.dtype == tf.resource else tf.raw_ops.LookupTableExport
    content = export(table_handle=handle, Tkeys=keys.dtype, Tvalues=values.dtype)
    fill_again = tf.raw_ops.LookupTableImportV2 if handle.dtype == tf.resource else tf.raw_ops.LookupTableImport

    def restore(self: Any, restored_tensors: Any, restored_shapes: Any) -> Any:
        return fill_again(table_handle=handle, keys=restored_tensors[0], values=restored_tensors[1])

    specs = [save_spec(tensor, "", key) for tensor, key in zip((content.keys, content.values), table.keys)]
    return type("RestoredTable", (saveable_object,), {"restore": restore})(handle, specs, table.name)


@cache
def _saveable_classes() -> tuple[Any, Any]:
    """TensorFlow's SaveableObject and SaveSpec, learnt from a throw-away table."""
    with tf.Graph().as_default():
        tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        saveable = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.SAVEABLE_OBJECTS)[0]
    return type(saveable).__bases__[0], type(saveable.specs[0])
