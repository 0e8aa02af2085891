"""The saver that a graph has already, where it will do: known by its ops, also without a SaverDef."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import is_control, node_of, parse_tensor_name, tensor_name
from graph_restore.protos import SaverDef
from graph_restore.savers import RESTORE_OPS, SAVE_OPS, TABLE_IMPORTS, filename_tensor, keys_of
from graph_restore.transforms.saved_keys import SavedTensor
from graph_restore.variables import SaverMap

_VERSION_1 = {"SaveSlices", "Save"}
_OF_SHARDS = {"MergeV2Checkpoints", "ShardedFilespec"}
_FILE_NAMES = {"Identity", "ShardedFilespec"}  # the second in version 1


def own_saver(model: Model, tensors: Iterable[SavedTensor], save_ops: Collection[str] = ("SaveV2",)) -> Any:
    """The SaverDef of a saver in the graph that saves exactly `tensors`, with one of `save_ops`; None without one."""
    wanted = list(tensors)
    for saver in model.savers:
        nodes = [
            node
            for node in model.graph.of_ops({*RESTORE_OPS, *SAVE_OPS})
            if filename_tensor(model.graph, node) == saver.filename_tensor
        ]
        if {node.op for node in nodes} - RESTORE_OPS <= {*save_ops} and _saves(model.graph, saver, nodes, wanted):
            found = _saver_def(model.graph, saver, nodes)
            known = model.saver_def
            if found is not None and known is not None and saver.is_meta_graphs:
                found.max_to_keep = known.max_to_keep
                found.keep_checkpoint_every_n_hours = known.keep_checkpoint_every_n_hours
            if found is not None:
                return found
    return None


def _saves(graph: Graph, saver: SaverMap, nodes: list[Any], wanted: list[SavedTensor]) -> bool:
    """Whether these save and restore ops both name what is wanted and nothing else."""
    keys = {(tensor.key, tensor.slice) for tensor in wanted}
    for ops in (set(SAVE_OPS), RESTORE_OPS):
        if {pair for node in nodes if node.op in ops for pair in keys_of(graph, node)} != keys:
            return False
    restored = {(entry.key, entry.variable) for entry in saver.entries if entry.authority == "restore op"}
    return all((tensor.key, tensor.variable.name) in restored for tensor in wanted if tensor.variable is not None)


def _saver_def(graph: Graph, saver: SaverMap, nodes: list[Any]) -> Any:
    saves = {node.name for node in nodes if node.op in SAVE_OPS}
    restores = {node.name for node in nodes if node.op in RESTORE_OPS}
    written = next(_written(graph, saver.filename_tensor, saves), None)
    groups = list(_restore_all(graph, saver, restores))
    if written is None or not groups:
        return None
    return SaverDef(
        filename_tensor_name=saver.filename_tensor,
        save_tensor_name=tensor_name(written),
        restore_op_name=groups[-1],  # those of shards and devices come before the one that groups them
        max_to_keep=5,
        keep_checkpoint_every_n_hours=10000.0,
        sharded=len(saves) > 1 or bool(list(_after(graph, saves, _OF_SHARDS))),
        version=SaverDef.V1 if any(node.op in _VERSION_1 for node in nodes) else SaverDef.V2,
    )


def _written(graph: Graph, filename: str, saves: set[str]) -> Iterator[str]:
    """Identities of the file name, or names of all its shards, that wait for all save ops."""
    for node in graph.of_ops(_FILE_NAMES):
        passes = bool(node.input) and tensor_name(*parse_tensor_name(node.input[0])) == filename
        if passes and saves <= _before(graph, node.name):
            yield node.name


def _restore_all(graph: Graph, saver: SaverMap, restores: set[str]) -> Iterator[str]:
    """NoOps that wait for what the saver restores, all of it and nothing else."""
    wanted = {entry.restored_by for entry in saver.entries if entry.restored_by}
    wanted |= set(_after(graph, restores, TABLE_IMPORTS))
    for node in graph.of_ops({"NoOp"}):
        if _grouped(graph, node.name) == wanted:
            yield node.name


def _grouped(graph: Graph, name: str) -> set[str]:
    """What a NoOp waits for, seen through other NoOps."""
    found: set[str] = set()
    waiting, seen = [name], set()
    while waiting:
        node = graph.nodes.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op == "NoOp":
            waiting.extend(item[1:] for item in node.input if is_control(item))
        else:
            found.add(node.name)
    return found


def _after(graph: Graph, names: set[str], ops: Collection[str]) -> Iterator[str]:
    """The nodes of these ops that any of `names` leads to."""
    return (node.name for node in graph.of_ops(ops) if not names.isdisjoint(_before(graph, node.name)))


def _before(graph: Graph, name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        node = graph.nodes.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node_of(item) for item in node.input)
    return found
