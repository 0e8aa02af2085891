"""A model built into a live graph: prepared, imported, and given live variables with the nodes that set them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.runtime.collections import restore_collections
from graph_restore.runtime.gradients import forget_numbered_gradients, register_gradients
from graph_restore.runtime.guard import tensorflow, uncollected
from graph_restore.runtime.handles import tell_handles
from graph_restore.runtime.importing import Imported, import_graph
from graph_restore.runtime.live import LiveModel
from graph_restore.runtime.variables import RestoredVariable, add_to_collections, make_setters, make_variable
from graph_restore.savers import saved_tables
from graph_restore.transforms.calls import CALLS, without_calls
from graph_restore.transforms.prepare import prepare
from graph_restore.transforms.table_fillers import table_initializers
from graph_restore.transforms.tensor_arrays import with_modern_arrays
from graph_restore.transforms.training import is_trainable, updated_variables
from graph_restore.variables import RESOURCE_OPS, Variables


@dataclass(frozen=True)
class Wanted:
    """How the import is to be done."""

    graph: Any
    scope: str
    input_map: Mapping[str, Any] | None
    return_elements: Sequence[str]
    trainable: bool | str
    collections: Sequence[str] | None
    clear_devices: bool


@uncollected()
def build(
    model: Model,
    keyed: Variables,
    wanted: Wanted,
    folders: Sequence[str],
    options: Mapping[str, Any],
    own: bool = False,
) -> tuple[list[Any], LiveModel]:
    """Import the graph and make its variables: (the elements asked for, the live model). `own`: the model is nobody
    else's, so that its graph need not be at hand."""
    tf = tensorflow()
    graph = prepare(model, clear_devices=wanted.clear_devices, taken=_shared_names(wanted.graph), asset_folders=folders)
    forget_numbered_gradients(graph)
    graph = without_calls(with_modern_arrays(graph), {*CALLS, *graph.functions})
    tables, fillers = saved_tables(model.graph), table_initializers(model)
    if own:
        model.graph.pack()
    found, imported = import_graph(graph, wanted.graph, wanted.scope, wanted.input_map, wanted.return_elements)
    with tf.control_dependencies(None), wanted.graph.device(None), wanted.graph.name_scope(None):
        setters = make_setters(model.savers, graph, keyed, imported)
        variables = _variables(keyed, graph, imported, setters, wanted)
        restore_collections(model, graph, imported)
    register_gradients()
    if graph.functions:
        tell_handles(wanted.graph)
    return found, LiveModel(model, imported, variables, setters, tables, fillers, options)


def _variables(
    keyed: Variables, graph: Graph, imported: Imported, setters: Mapping[str, Any], wanted: Wanted
) -> dict[str, RestoredVariable]:
    updated = updated_variables(graph)
    made: dict[str, RestoredVariable] = {}
    for variable in keyed:
        trainable = is_trainable(variable, wanted.trainable, updated)
        made[variable.name] = make_variable(variable, graph, imported, setters[variable.name], trainable)
        add_to_collections(made[variable.name], wanted.graph, wanted.collections, trainable)
    return made


def _shared_names(graph: Any) -> set[str]:
    """The shared names that resource variables of a live graph have."""
    handles = [operation for operation in graph.get_operations() if operation.type in RESOURCE_OPS]
    return {operation.get_attr("shared_name").decode("utf-8", "replace") for operation in handles}
