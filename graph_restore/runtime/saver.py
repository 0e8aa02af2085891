"""Saver: `tf.compat.v1.train.Saver` over a restored model; saves as the original did, restores whatever we read.

This module imports TensorFlow; it is imported on first use only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from graph_restore.checkpoint import load_checkpoint
from graph_restore.errors import RestoreError
from graph_restore.model import Restoration
from graph_restore.names import node_of
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.importing import Imported
from graph_restore.runtime.live import LiveModel
from graph_restore.runtime.variables import LOCAL_COLLECTION
from graph_restore.variables import Variable

tf = tensorflow()


class Saver(tf.compat.v1.train.Saver):  # type: ignore[misc, name-defined]
    """Saves the restored variables under the keys that the original's checkpoints have, and restores them.

    Checkpoints are read by graph_restore: any path `load_checkpoint` takes, both versions, partitioned or not, with
    the options that were given to `restore_graph`. `restoration`: what the last restore did, None before.
    """

    def __init__(self, live: LiveModel, **arguments: Any) -> None:
        self._live = live
        self.restoration: Restoration | None = None
        super().__init__(**arguments)

    def restore(self, sess: Any, save_path: str | os.PathLike[str]) -> None:
        """Restore variables and saved tables in `sess` from the checkpoint at `save_path`.

        Variables the checkpoint does not hold stay as they are; `restoration` names them. Raises RestoreError when
        values do not fit, or when the checkpoint has none of the variables; CheckpointNotFoundError, FormatError.
        """
        if save_path is None:
            raise ValueError("there is no checkpoint path to restore from: None was given")
        restored = self._live.restore(sess, load_checkpoint(save_path)).restoration
        self.restoration = restored
        if restored is not None and not restored.restored:
            raise RestoreError(
                f"checkpoint {restored.checkpoint} has none of the graph's variables", missing=list(restored.missing)
            )


def make_saver(live: LiveModel, keyed: Iterable[Variable], saver_def: Any, max_to_keep: int) -> Saver | None:
    """The Saver of a live model; None when there is nothing to save.

    `keyed`: the model's variables with the keys they are saved under. With a `saver_def` the graph's own nodes save.
    """
    if saver_def is not None:
        return Saver(live, saver_def=_live_saver_def(saver_def, live.imported))
    groups: dict[str, list[Variable]] = {}
    for variable in keyed:
        if _is_saved(variable, live):
            groups.setdefault(variable.checkpoint_key or variable.name, []).append(variable)
    if not groups:
        return None
    members = {key: [live.variables[variable.name] for variable in group] for key, group in groups.items()}
    saved = {key: found if groups[key][0].slice is not None else found[0] for key, found in members.items()}
    return Saver(live, var_list=saved, max_to_keep=max_to_keep)


def _is_saved(variable: Variable, live: LiveModel) -> bool:
    """Whether the original saves it; without a saver in the graph, all variables that are not local."""
    if "checkpoint_key" in variable.authority:
        return True
    return not live.model.savers and LOCAL_COLLECTION not in variable.collections


def _live_saver_def(saver_def: Any, imported: Imported) -> Any:
    """The SaverDef with the names that its nodes have in the live graph."""
    live = tf.compat.v1.train.SaverDef.FromString(saver_def.SerializeToString())
    for field in ("filename_tensor_name", "save_tensor_name"):
        if getattr(live, field):
            setattr(live, field, imported.tensor(getattr(live, field)).name)
    if live.restore_op_name:
        live.restore_op_name = imported.operation(node_of(live.restore_op_name)).name
    return live
