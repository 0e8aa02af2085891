"""freeze: a graph without variables that computes what the first run after restoring would.

1. Functions older than TensorFlow 1.0 are brought to today's form; the graph is cut at the feeds and to the fetches;
   what given constants settle is settled (see `conditions`), and training forms are turned if asked (see `inference`).
2. In-graph updates, those in functions too (see `open_calls` and `carried_updates`), are settled (see `updates`), so
   that every variable left is only read.
3. Each variable becomes a Const of the same name, its value left where it is on disk; reads of handles become Identity,
   gathers plain gathers; ops that pass references on become those that pass tensors on.
4. Tables get Const keys and values and are initialised by their look-ups (see `tables`).
5. What names nodes that are gone, or states what no longer holds, is dropped: `_class`, `_output_shapes`, devices.
6. A variable op left over, or an input that names nothing, is an error, never a result.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from graph_restore.errors import FreezeError
from graph_restore.model import Model, require_model
from graph_restore.names import tensor_name
from graph_restore.storage.files import is_directory
from graph_restore.transforms.aliases import share_handles
from graph_restore.transforms.carried_updates import carry_updates
from graph_restore.transforms.conditions import fold_conditions
from graph_restore.transforms.constants import not_constant, set_constants, without_constants
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.feeds import cut_feeds, resolve
from graph_restore.transforms.fetches import choose
from graph_restore.transforms.finish import finished
from graph_restore.transforms.former import name_former_constants
from graph_restore.transforms.functions import modern_functions
from graph_restore.transforms.inference import turn_to_inference
from graph_restore.transforms.layer_norms import warn_of_layer_norms
from graph_restore.transforms.open_calls import open_updating_calls
from graph_restore.transforms.partial import initializer_nodes, kept_variables, others, with_kept
from graph_restore.transforms.pipelines import cut_pipelines
from graph_restore.transforms.precision import PRECISIONS, reduce_precision
from graph_restore.transforms.rerun import after_init_op
from graph_restore.transforms.selection import Selection
from graph_restore.transforms.signatures import still_valid
from graph_restore.transforms.tables import init_node, inline_tables, table_initializers
from graph_restore.transforms.training_fetches import without_training
from graph_restore.transforms.values import freeze_variables, variables_in
from graph_restore.variables import Variables

_TABLE_MODES = ("inline", "init_op")


def freeze(
    model: Model,
    fetches: str | Iterable[str] | None = None,
    feeds: str | Iterable[str] | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
    inference: bool = False,
    tables: str = "inline",
    asset_dir: str | None = None,
    on_update: str = "error",
    keep_devices: bool = False,
    precision: str | None = None,
    keep_variables: Selection = None,
) -> Model:
    """A model whose graph computes `fetches` from `feeds` without variables, values still on disk.

    `fetches`, `feeds`: node or tensor names; by default the signature's, else the one sensible candidate; what trains,
    saves or reports is no output and is left away. `constants`: placeholder to the value it always has; branches that
    are not taken then are gone. `inference`: batch norm and dropout in training form take their inference form.
    `tables`: "inline" lets look-ups initialise their tables, "init_op" leaves that to the result's `init_op`.
    `asset_dir`: where vocabulary files are now. `on_update`: "error", or "initial" to take restored values where an
    update in the graph makes the result uncertain. `keep_devices`: keep node devices. `precision`: "float16" or
    "bfloat16" to store weights so, inputs and outputs staying as they are (see `precision`). `keep_variables`: those
    that stay variables, in the forms that `restore` takes for `include` (see `partial`).

    Every choice is told by a GraphRestoreWarning and in the result's `notes`. Raises FreezeError for what cannot be
    frozen without changing the result, NodeNotFoundError for names the graph does not have.
    """
    _check_arguments(model, tables, on_update, precision, asset_dir)
    model = after_init_op(model, on_update == "initial")
    kept, graph = kept_variables(model, keep_variables), modern_functions(model.graph)
    chosen, fed = choose(model, fetches, feeds)
    draft, targets = share_handles(Draft(graph), others(model.variables, kept)), resolve(graph, chosen)
    sources = resolve(graph, _without_constants(fed, constants or {}, feeds is not None))
    targets = _outputs(draft, targets, model.variables) if fetches is not None else targets
    given = set_constants(draft, constants or {})
    cut_feeds(draft, sources, targets, keep_defaults=feeds is None)
    open_updating_calls(draft, targets)
    fold_conditions(draft, given - {name for name, _ in sources}, targets)
    draft = draft.with_functions()
    draft = turn_to_inference(draft, graph.nodes, model.variables, targets) if inference else draft
    cut_pipelines(draft, targets)
    roots = {name for name, _ in [*targets, *sources]}
    needed = draft.ancestors(roots)
    fillers = table_initializers(draft, model, needed)
    inline_tables(draft, model, fillers, tables == "inline", asset_dir)
    roots |= {name for names in fillers.values() for name in names}
    roots |= initializer_nodes(draft, kept, roots, targets)
    draft.keep(draft.ancestors(roots) if fillers or len(kept) else needed)
    draft = _without_variables(draft, model, kept, targets, roots, on_update)
    init_op = init_node(draft, model.init_op, fillers)
    frozen = finished(draft, kept, keep_devices)
    result = replace(
        model,
        graph=frozen,
        variables=Variables(),
        savers=(),
        saver_def=None,
        collections={},
        assets={},
        tables={},
        signatures=still_valid(without_constants(model.signatures, constants or {}), draft, graph, frozen),
        init_op=init_op,
        fetches=tuple(tensor_name(*tensor) for tensor in targets),
        feeds=tuple(tensor_name(*tensor) for tensor in sources),
        notes=(*model.notes, *draft.notes),
    )
    return with_kept(reduce_precision(result, precision, model.variables) if precision is not None else result, kept)


def _check_arguments(model: Any, tables: str, on_update: str, precision: str | None, asset_dir: str | None) -> None:
    require_model(model)
    if tables not in _TABLE_MODES or on_update not in ("error", "initial"):
        raise ValueError(f"tables is one of {_TABLE_MODES} and on_update 'error' or 'initial'")
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision is one of {list(PRECISIONS)}, not {precision!r}")
    if asset_dir is not None and not is_directory(asset_dir):
        raise NotADirectoryError(errno.ENOTDIR, "asset_dir is no directory", asset_dir)


def _without_constants(fed: list[str], constants: Mapping[str, Any], asked_for: bool) -> list[str]:
    """The feeds that are not given a constant; FreezeError when some were asked for by name and are."""
    free = not_constant(fed, constants)
    both = [name for name in fed if name not in free]
    if both and asked_for:
        raise FreezeError(
            f"{', '.join(both)}: among the feeds and given a constant; leave it out of feeds, or out of constants",
            nodes=dict.fromkeys(both, "fed and constant"),
        )
    return free


def _without_variables(
    draft: Draft, model: Model, kept: Variables, targets: list[Tensor], roots: set[str], on_update: str
) -> Draft:
    present = variables_in(draft, others(model.variables, kept))
    carried = carry_updates(draft, present, targets)
    told = (carried.problems, carried.words)
    freeze_variables(carried.draft, present, targets, roots, on_update, model.restoration, *told)
    carried.check(carried.draft)
    name_former_constants(carried.draft, roots)
    warn_of_layer_norms(carried.draft)
    return carried.draft


def _outputs(draft: Draft, targets: list[Tensor], variables: Variables) -> list[Tensor]:
    """The fetches without savers, optimizers and summaries, each of which is told."""
    initializers = {variable.initializer for variable in variables if variable.initializer is not None}
    dropped = without_training(draft.graph, targets, initializers)
    for tensor, kind in dropped.items():
        draft.note(f"fetch {tensor_name(*tensor)} is left away: it is {kind}, not an output of the model")
    return [tensor for tensor in targets if tensor not in dropped]
