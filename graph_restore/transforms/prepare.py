"""prepare: a graph mended so that today's TensorFlow imports it, computing what it always did.

1. Functions of graphs before 1.0 are brought to today's form.
2. `_output_shapes`, written by the shape functions of old releases, is deleted from nodes and function bodies: today's
   TensorFlow compares it with its own and refuses the graph where they differ.
3. Devices are cleared if asked. 4. Colocations with nodes that are not there are dropped.
5. A VarHandleOp without shared_name gets its node name, as TensorFlow 1 took it; today all of them would be one
   variable. A shared_name that is taken already gets another, the same for every node that shares it.
6. Constants that name asset files which are not where they were are pointed to where they are.

`versions` is kept: ops that went away with a later producer version still run in a graph of an earlier one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from graph_restore.arrays import np
from graph_restore.graph import Graph, tensor_attr
from graph_restore.model import Model
from graph_restore.names import is_control, parse_tensor_name
from graph_restore.protos import GraphDef
from graph_restore.transforms.functions import modern_functions
from graph_restore.variables import RESOURCE_OPS

_TEXT_FILE_TABLES = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")
_ASSET_COLLECTION = "asset_filepaths"


def prepare(
    model: Model,
    *,
    clear_devices: bool = True,
    taken: Collection[str] = (),
    asset_folders: Collection[str] = (),
) -> Graph:
    """The model's graph, ready for import.

    `taken`: shared names of the variables that the graph it will be imported into has. `asset_folders`: where asset
    files are looked for, besides the places the model knows.
    """
    modern = modern_functions(model.graph)
    graph_def = GraphDef()
    graph_def.CopyFrom(modern.graph_def)
    graph = Graph(graph_def, modern.payloads, modern.op_list)
    _mend(graph.nodes.values(), graph.nodes, clear_devices)
    for function in graph.library.function:
        _mend(function.node_def, [node.name for node in function.node_def], clear_devices)
    _name_handles(graph.of_ops(RESOURCE_OPS), taken)
    for name, path in moved_assets(model, asset_folders).items():
        graph.payloads.pop(("", name), None)
        shape = modern.value(modern.nodes[name]).shape
        graph.nodes[name].attr["value"].CopyFrom(tensor_attr(np.full(shape, os.fsencode(path), object)))
    return graph


def _mend(nodes: Iterable[Any], names: Iterable[str], clear_devices: bool) -> None:
    locations = {b"loc:@" + name.encode() for name in names}
    for node in nodes:
        attrs = node.attr
        if "_output_shapes" in attrs:
            del attrs["_output_shapes"]
        if clear_devices and node.device:
            node.device = ""
        if "_class" in attrs and not locations.issuperset(attrs["_class"].list.s):
            _drop_dangling(node, locations)


def _drop_dangling(node: Any, locations: set[bytes]) -> None:
    kept = [item for item in node.attr["_class"].list.s if not item.startswith(b"loc:@") or item in locations]
    del node.attr["_class"]
    if kept:
        node.attr["_class"].list.s.extend(kept)


def _name_handles(handles: Collection[Any], taken: Collection[str]) -> None:
    used = {*taken, *(node.attr["shared_name"].s.decode("utf-8", "replace") for node in handles)}
    renamed: dict[str, str] = {}
    for node in handles:
        shared = node.attr["shared_name"].s.decode("utf-8", "replace")
        if not shared:
            node.attr["shared_name"].s = _free(node.name, used).encode()
        elif shared in taken:
            if shared not in renamed:
                renamed[shared] = _free(shared, used)
            node.attr["shared_name"].s = renamed[shared].encode()


def _free(name: str, used: set[str]) -> str:
    number, free = 0, name
    while free in used:
        number += 1
        free = f"{name}_{number}"
    used.add(free)
    return free


def moved_assets(model: Model, folders: Collection[str] = ()) -> dict[str, str]:
    """Const node to path of the file, for every asset that lies elsewhere than the Const says and was found.

    Looked for, in this order: where the model says (SavedModel); the recorded path; the asset's name in `folders`, in
    the model's folder and in `assets` there.
    """
    own = [model.source.folder] if model.source.folder else []
    places = [*folders, *(place for folder in own for place in (folder, os.path.join(folder, "assets")))]
    listed = {parse_tensor_name(tensor)[0]: path for tensor, path in model.assets.items()}
    found = {}
    for name in dict.fromkeys([*listed, *_asset_constants(model)]):
        recorded = _recorded_path(model.graph, name)
        if recorded is None:
            continue
        base = os.path.basename(recorded.replace("\\", "/"))
        candidates = [listed.get(name, ""), recorded, *(os.path.join(place, base) for place in places)]
        path = next((path for path in candidates if path and os.path.isfile(path)), recorded)
        if path != recorded:
            found[name] = os.path.abspath(path)
    return found


def _asset_constants(model: Model) -> Iterator[str]:
    """The nodes whose values are names of asset files, by collection or because a table is filled from them."""
    if _ASSET_COLLECTION in model.collections:
        for tensor in model.collections[_ASSET_COLLECTION].node_list.value:
            yield _source(model.graph, tensor)
    for node in model.graph.of_ops(_TEXT_FILE_TABLES):
        if len(node.input) > 1:
            yield _source(model.graph, node.input[1])


def _source(graph: Graph, tensor: str) -> str:
    """The node a tensor comes from, seen through Identity."""
    name = parse_tensor_name(tensor)[0]
    for _ in range(len(graph.nodes)):
        node = graph.nodes.get(name)
        if node is None or node.op != "Identity" or not node.input or is_control(node.input[0]):
            break
        name = parse_tensor_name(node.input[0])[0]
    return name


def _recorded_path(graph: Graph, name: str) -> str | None:
    node = graph.nodes.get(name)
    if node is None or node.op != "Const":
        return None
    value = graph.value(node).read()
    if value.size != 1 or value.dtype != object:
        return None
    return os.fsdecode(value.item())
