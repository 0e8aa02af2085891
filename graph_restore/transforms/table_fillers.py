"""Lookup tables of a whole graph: which nodes fill them, once, and which fill them from a checkpoint.

A table made from constants or a file is filled by an InitializeTable op, or (from TensorFlow 1.15 on) by a
LookupTableImport of constants. A LookupTableImport fed by a restore op belongs to a saver instead: the table's keys
and values are tensors of the checkpoint.
"""

from __future__ import annotations

from graph_restore.model import Model
from graph_restore.names import parse_tensor_name
from graph_restore.savers import TABLE_IMPORTS, saved_tables

_INITIALIZERS = (
    "InitializeTable", "InitializeTableV2", "InitializeTableFromTextFile", "InitializeTableFromTextFileV2",
)  # fmt: skip
TABLE_COLLECTION = "table_initializer"


def table_initializers(model: Model) -> list[str]:
    """The nodes to run once: those that fill tables, and whatever else is in the collection of table initializers."""
    graph, listed = model.graph, model.collections.get(TABLE_COLLECTION)
    saved = {table.node for table in saved_tables(graph)}
    found = graph.names_of({*_INITIALIZERS, *TABLE_IMPORTS})
    members = [parse_tensor_name(name)[0] for name in listed.node_list.value] if listed is not None else []
    return [name for name in dict.fromkeys([*found, *members]) if name in graph.nodes and name not in saved]
