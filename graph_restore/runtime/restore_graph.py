"""restore_graph: a graph and a checkpoint of TensorFlow 1 brought to life in a graph of today's TensorFlow."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from graph_restore.api import load
from graph_restore.discovery import find_variables
from graph_restore.errors import GraphRestoreError, GraphRestoreWarning, RestoreError
from graph_restore.model import Model
from graph_restore.protos import SaverDef
from graph_restore.runtime.building import Wanted, build
from graph_restore.runtime.guard import tensorflow, uncollected
from graph_restore.runtime.importing import check_elements, refuse_unknown_ops
from graph_restore.runtime.live import LiveModel
from graph_restore.runtime.native_restore import Assigns, native_assigns
from graph_restore.savers import find_savers
from graph_restore.transforms.modernize import modernize
from graph_restore.transforms.renaming import Rename
from graph_restore.transforms.rerun import after_init_op
from graph_restore.transforms.restore import restore
from graph_restore.transforms.selection import Selection
from graph_restore.transforms.sources import opened
from graph_restore.variables import Variables


@uncollected()
def restore_graph(
    graph_def: Any,
    save_path: Any = None,
    saver_def: Any = None,
    input_map: Mapping[str, Any] | None = None,
    return_elements: Sequence[str] | None = None,
    op_dict: Any = None,
    trainable: bool | str = True,
    collections: Sequence[str] | None = None,
    *,
    import_scope: str = "",
    session: Any = None,
    clear_devices: bool = True,
    initialize_missing: bool = True,
    asset_dir: str | os.PathLike[str] | None = None,
    include: Selection = None,
    exclude: Selection = None,
    rename: Rename = None,
    moving_averages: bool = False,
    cast: bool = False,
    strict: bool = False,
    on_mismatch: str = "error",
) -> tuple[list[Any] | None, Any]:
    """Import a graph into the default graph, with variables, and restore them in the session: (elements, saver).

        with tf.Graph().as_default(), tf.compat.v1.Session():
            (x, y), saver = restore_graph(graph_def, "run/model.ckpt-1000", return_elements=["x:0", "y:0"])

    `graph_def`: anything `graph_restore.load` takes (a Model with values brings them along), or a TensorBoard
    EventAccumulator. `save_path`: a checkpoint as
    `restore` takes it; with it, variables are restored in `session` (by default the default session), those it does
    not hold are initialised unless `initialize_missing` is False, and tables are filled: the model runs. Without a
    session nothing is restored, and a GraphRestoreWarning gives the line to run. `saver_def`: the saver of the graph
    to use. `input_map`, `return_elements`: as for tf.import_graph_def; `op_dict` is ignored, as there.

    `trainable`: True puts into TRAINABLE_VARIABLES what the graph says is trained or, where it does not say, float
    variables that are no slot, moving average or counter; "infer" only what the graph says; False nothing.
    `collections`: where to put the variables, instead of those they were in (GLOBAL_VARIABLES if not known).
    `import_scope`: a name scope for all nodes. `clear_devices`: forget the devices of the machine that trained.
    `asset_dir`: where vocabularies and other assets are that moved. The others are those of `restore`.

    `elements` is a list in the order asked for, None when `return_elements` is None. `saver` saves and restores under
    the original's checkpoint keys; None when there are no variables.

    Raises GraphRestoreError in eager mode, UnsupportedFormatError for ops that the running TensorFlow does not have,
    NodeNotFoundError for elements that are not there, and what `load` and `restore` raise; all before the graph is
    touched.
    """
    if isinstance(return_elements, str):
        raise TypeError(f"return_elements is a list of names; write [{return_elements!r}]")
    tensorflow()
    options: dict[str, Any] = {
        "include": include, "exclude": exclude, "rename": rename, "moving_averages": moving_averages, "cast": cast,
        "strict": strict, "on_mismatch": on_mismatch,
    }  # fmt: skip
    graph, running, session = _surroundings(session)
    own = not isinstance(graph_def, Model)
    model = modernize(_with_saver_def(_apart(load(graph_def)) if own else graph_def, saver_def))
    checkpoint = opened(save_path)
    restored = None if checkpoint is None else restore(model, checkpoint, **options)  # before anything is built
    _refuse_strangers(restored)
    keyed = _with_keys(model, checkpoint, restored if not any((include, exclude, rename, moving_averages)) else None)
    elements = list(return_elements or ())
    check_elements(model.graph, elements)
    refuse_unknown_ops(model.graph)
    folders = _asset_folders(asset_dir, checkpoint)
    used = _own_saver(model, keyed) if saver_def is None else model.saver_def
    ways = None if restored is None else native_assigns(checkpoint, restored)
    wanted = Wanted(graph, import_scope, input_map, elements, trainable, collections, clear_devices)
    with running:
        found, live = build(model, keyed, wanted, folders, options, own)
        saver = _saver(live, keyed, used)
        if session is not None:
            _fill(live, session, checkpoint, restored, ways, initialize_missing, saver)
        elif checkpoint is not None or _has_values(model):
            warnings.warn(_line_to_run(save_path, model), GraphRestoreWarning, stacklevel=3)
    return (None if return_elements is None else found), saver


def _surroundings(session: Any) -> tuple[Any, AbstractContextManager[Any], Any]:
    """The graph to import into, a context in which it is the default, and the session, if there is one for it."""
    tf = tensorflow()
    if session is not None:
        return session.graph, session.graph.as_default(), session
    if tf.executing_eagerly():
        raise GraphRestoreError(
            "restore_graph builds a graph, and TensorFlow executes eagerly here. Call it inside\n"
            "    with tf.Graph().as_default(), tf.compat.v1.Session():\n"
            "        elements, saver = graph_restore.restore_graph(...)"
        )
    graph, session = tf.compat.v1.get_default_graph(), tf.compat.v1.get_default_session()
    return graph, nullcontext(), session if session is not None and session.graph is graph else None


def _with_saver_def(model: Model, saver_def: Any) -> Model:
    """The model with the saver that is to be used put first."""
    if saver_def is None:
        return model
    own = SaverDef.FromString(saver_def.SerializeToString())
    for name in (own.filename_tensor_name, own.save_tensor_name, own.restore_op_name):
        if name:
            model.graph.node(name)
    savers = find_savers(model.graph, own)
    variables = find_variables(model.graph, model.collections, savers)
    return replace(model, saver_def=own, savers=tuple(savers), variables=variables)


def _with_keys(model: Model, checkpoint: Any, restored: Model | None) -> Variables:
    """The model's variables with the keys that they are saved under, as a checkpoint confirms where one is given.

    `restored`: the model restored from it, if under its own names.
    """
    if checkpoint is None:
        return model.variables
    found = restored or restore(model, checkpoint, on_mismatch="skip")
    return Variables(variable.replaced(value=None) for variable in found.variables)


def _asset_folders(asset_dir: str | os.PathLike[str] | None, checkpoint: Any) -> list[str]:
    folders = [os.fspath(asset_dir)] if asset_dir is not None else []
    prefix = getattr(checkpoint, "prefix", None)
    return [*folders, os.path.dirname(prefix)] if isinstance(prefix, str) else folders


def _apart(model: Model) -> Model:
    """The model with copies of what came in one message with its graph, whose memory is kept or given back whole."""
    info = _copy(model.meta_info)
    if model.graph.op_list is not None:
        model.graph.op_list = _copy(model.graph.op_list) if info is None else info.stripped_op_list
    return replace(
        model,
        signatures={name: _copy(signature) for name, signature in model.signatures.items()},
        saver_def=_copy(model.saver_def),
        collections={name: _copy(collection) for name, collection in model.collections.items()},
        meta_info=info,
    )


def _copy(message: Any) -> Any:
    if message is None:
        return None
    result = type(message)()
    result.CopyFrom(message)
    return result


def _own_saver(model: Model, keyed: Variables) -> Any:
    """The SaverDef of a saver that the graph has and that will do, if any."""
    from graph_restore.runtime.saver import own_saver_def, what_is_saved

    return own_saver_def(model, what_is_saved(model, keyed)) if len(keyed) else None


def _saver(live: LiveModel, keyed: Variables, saver_def: Any) -> Any:
    """The saver, of the nodes that `saver_def` names if it is given; None when the graph has no variables."""
    from graph_restore.runtime.saver import make_saver, what_is_saved

    if not len(keyed):
        return None
    known = live.model.saver_def
    with tensorflow().control_dependencies(None), live.imported.graph.device(None):
        return make_saver(
            live, what_is_saved(live.model, keyed), saver_def, known.max_to_keep if known is not None else 5
        )


def _fill(
    live: LiveModel,
    session: Any,
    checkpoint: Any,
    restored: Model | None,
    ways: Assigns | None,
    initialize_missing: bool,
    saver: Any,
) -> None:
    """Restore from a checkpoint, else from the values that the model brought with it, if any."""
    if checkpoint is not None:
        restored = live.restore(session, checkpoint, restored, ways)
    elif _has_values(live.model):
        restored = live.model
        live.assign(session, restored.variables)
        live.fill_own_tables(session)
    else:
        return
    before, restored = restored.variables, after_init_op(restored)
    live.assign(session, [one for one in restored.variables if one.value is not before[one.name].value])
    if saver is not None:
        saver.restoration = restored.restoration
    if initialize_missing:
        live.initialise(session, restored)
    else:
        live.report(live.lacking(restored), "have no value yet")


def _refuse_strangers(restored: Model | None) -> None:
    """RestoreError when nothing of a checkpoint fits: the model would run on random values."""
    report = restored.restoration if restored is not None else None
    if report is not None and report.missing and report.unused and not report.restored:
        raise RestoreError(f"this is the checkpoint of another model: {report}", missing=list(report.missing))


def _has_values(model: Model) -> bool:
    """Whether the model brings values: restored, initialized, or those of constants that were made variables."""
    return model.restoration is not None or any(variable.value is not None for variable in model.variables)


def _line_to_run(save_path: Any, model: Model) -> str:
    own = model.restoration.checkpoint if model.restoration is not None else ""
    path = os.fspath(save_path) if isinstance(save_path, str | os.PathLike) else own
    return (
        "no session runs the default graph, so nothing was restored; once there is one, run "
        f"saver.restore(sess, {repr(path) if path else 'values'})"
    )
