"""Restoring by the graph's own restore nodes: as fast as TensorFlow itself, for what TensorFlow can read.

Taken are variables whose value is the tensor that a RestoreV2 of the graph names, from a checkpoint of version 2 on a
disk. Renamed, averaged and cast values, and other checkpoints, are read by graph_restore and fed (see `live`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from graph_restore.checkpoint import Checkpoint
from graph_restore.model import Model, Restoration
from graph_restore.names import parse_tensor_name, tensor_name
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.importing import Imported
from graph_restore.runtime.variables import Setter
from graph_restore.savers import filename_tensor, keys_of

Assigns = Mapping[str, Mapping[str, str]]


def native_assigns(checkpoint: Any, restored: Model) -> Assigns:
    """File name tensor to the variables that TensorFlow can restore through it, each with its Assign."""
    if not _is_readable(checkpoint) or restored.restoration is None:
        return {}
    return _assigns(restored, checkpoint)


def restore_natively(
    session: Any, checkpoint: Any, ways: Assigns, imported: Imported, setters: Mapping[str, Setter]
) -> set[str]:
    """Restore in `session` what TensorFlow can; the names of the variables that have their value then."""
    found: set[str] = set()
    for filename, assigns in ways.items():
        names = {name for name, node in assigns.items() if imported.operation(node) is setters[name].operation}
        operations = [setters[name].operation for name in sorted(names)]
        try:
            session.run(operations, {imported.tensor(filename): checkpoint.prefix})
        except tensorflow().errors.OpError:  # graph_restore then says what is wrong with the checkpoint, if anything is
            continue
        found |= names
    return found


def _is_readable(checkpoint: Any) -> bool:
    version_2 = isinstance(checkpoint, Checkpoint) and checkpoint.version == 2
    return version_2 and bool(os.path.basename(checkpoint.prefix)) and os.path.exists(f"{checkpoint.prefix}.index")


def _assigns(restored: Model, checkpoint: Checkpoint) -> dict[str, dict[str, str]]:
    assert restored.restoration is not None
    graph, found = restored.graph, dict[str, dict[str, str]]()
    sources = {}
    for node in graph.by_op.get("RestoreV2", ()):
        keys = keys_of(graph, node)
        direct = filename_tensor(graph, node) == tensor_name(*parse_tensor_name(node.input[0]))
        if direct and keys and all(key in checkpoint for key, _ in keys):
            sources.update({(node.name, index): key for index, (key, _) in enumerate(keys)})
    for saver in restored.savers:
        for entry in saver.entries:
            assign = graph.nodes.get(entry.restored_by)
            if assign is None or not _is_plain(restored.restoration, entry.variable, entry.key):
                continue
            source = assign
            while source.op != "RestoreV2" and source.input and source.op in ("Assign", "AssignVariableOp", "Identity"):
                tensor = parse_tensor_name(source.input[0 if source.op == "Identity" else 1])
                source = graph.nodes[tensor[0]]
            if source.op == "RestoreV2" and sources.get(tensor) == entry.key:
                found.setdefault(saver.filename_tensor, {})[str(entry.variable)] = assign.name
    return found


def _is_plain(report: Restoration, variable: str | None, key: str) -> bool:
    """Whether a variable's value is the tensor of a key, as it is."""
    if variable is None or report.restored.get(variable) != key:
        return False
    return variable not in report.cast and variable not in report.averaged
