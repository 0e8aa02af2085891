"""Lookup tables of a live graph: which nodes fill them, once, and which fill them from a checkpoint.

A table made from constants or a file is filled by an InitializeTable op, or (from TensorFlow 1.15 on) by a
LookupTableImport of constants. A LookupTableImport fed by a restore op belongs to a saver instead: the table's keys
and values are tensors of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import parse_tensor_name, tensor_name
from graph_restore.savers import RESTORE_OPS

_INITIALIZERS = (
    "InitializeTable", "InitializeTableV2", "InitializeTableFromTextFile", "InitializeTableFromTextFileV2",
)  # fmt: skip
_IMPORTS = ("LookupTableImport", "LookupTableImportV2")
_COLLECTION = "table_initializer"


@dataclass(frozen=True)
class SavedTable:
    """A table whose content is in checkpoints: run `node`, feeding its two tensors with those of the two keys."""

    node: str
    tensors: tuple[str, str]
    keys: tuple[str, str]

    @property
    def name(self) -> str:
        """The table's name in checkpoints, `seen` of `seen-keys` and `seen-values`."""
        return self.keys[0].removesuffix("-keys")


def table_initializers(model: Model) -> list[str]:
    """The nodes to run once: those that fill tables, and whatever else is in the collection of table initializers."""
    graph, listed = model.graph, model.collections.get(_COLLECTION)
    saved = {table.node for table in saved_tables(graph)}
    found = [node.name for node in graph.graph_def.node if node.op in _INITIALIZERS or node.op in _IMPORTS]
    members = [parse_tensor_name(name)[0] for name in listed.node_list.value] if listed is not None else []
    return [name for name in dict.fromkeys([*found, *members]) if name in graph.nodes and name not in saved]


def saved_tables(graph: Graph) -> list[SavedTable]:
    """The tables that savers of the graph restore."""
    return list(_saved_tables(graph))


def _saved_tables(graph: Graph) -> Iterator[SavedTable]:
    for node in graph.graph_def.node:
        if node.op in _IMPORTS and len(node.input) >= 3:
            sources = [_restored(graph, name) for name in node.input[1:3]]
            if sources[0] is not None and sources[1] is not None:
                tensors, keys = zip(sources[0], sources[1])
                yield SavedTable(node.name, (tensors[0], tensors[1]), (keys[0], keys[1]))


def _restored(graph: Graph, name: str) -> tuple[str, str] | None:
    """(tensor, checkpoint key) when a tensor comes straight from a restore op."""
    source, index = parse_tensor_name(name)
    node = graph.nodes.get(source)
    if node is None or node.op not in RESTORE_OPS or len(node.input) < 2:
        return None
    keys = graph.constant(node.input[1])
    if keys is None or index >= keys.size or not isinstance(keys.flat[index], bytes):
        return None
    return tensor_name(source, index), keys.flat[index].decode("utf-8", "replace")
