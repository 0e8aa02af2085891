"""MetaGraphDef (.meta): a graph with its collections, saver and signatures, lifted to a Model.

tensorflow/core/protobuf/meta_graph.proto. What the file says of versions is kept as text and never parsed: names such
as `0.12.head` occur.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from graph_restore.discovery import find_variables
from graph_restore.formats.graph_def import scan
from graph_restore.formats.session_bundle import bundle_assets, bundle_signatures
from graph_restore.formats.text import parse_text
from graph_restore.graph import Graph, Payloads
from graph_restore.model import Model, ModelSource
from graph_restore.names import parse_tensor_name
from graph_restore.ops import op_table
from graph_restore.protos import AssetFileDef, MetaGraphDef
from graph_restore.savers import find_savers
from graph_restore.storage.coding import encode_header
from graph_restore.storage.source import Source
from graph_restore.tensor_proto import Encoded, concatenated, message_field

INIT_OPS = ("saved_model_main_op", "legacy_init_op", "serving_init_op")
INIT_OP_SIGNATURE = "__saved_model_init_op"
_RELEASE = re.compile(r"\d+\.\d+\.\d+(-rc\d+)?")


def read_meta_graph(source: Source, text: bool, origin: ModelSource) -> Model:
    """The Model of a MetaGraphDef file, binary or text."""
    if text:
        return from_meta_graph(parse_text(source, "MetaGraphDef"), {}, origin)
    scanned = scan(source, "MetaGraphDef")
    return from_meta_graph(scanned.message, scanned.of_graph(), origin)


def from_meta_graph(meta_graph: Any, payloads: Payloads, origin: ModelSource) -> Model:
    """The Model of a MetaGraphDef message whose large constants may have been cut out."""
    info = meta_graph.meta_info_def
    graph = Graph(meta_graph.graph_def, payloads, info.stripped_op_list)
    saver_def = meta_graph.saver_def if meta_graph.HasField("saver_def") else None
    collections = dict(meta_graph.collection_def)
    signatures = dict(meta_graph.signature_def) or bundle_signatures(graph, collections)
    init_op = _init_op(collections, signatures)
    return replace(
        from_graph(graph, origin, collections, saver_def),
        signatures={name: value for name, value in signatures.items() if name != INIT_OP_SIGNATURE},
        assets=_assets(meta_graph, collections, origin),
        meta_info=info,
        init_op=init_op if init_op in graph.nodes else None,
        source=replace(origin, tensorflow_version=info.tensorflow_version, tags=tuple(info.tags)),
    )


def from_graph(graph: Graph, origin: ModelSource, collections: Mapping[str, Any], saver_def: Any = None) -> Model:
    """The Model of a graph and whatever collections and saver_def are known."""
    savers = find_savers(graph, saver_def)
    variables = find_variables(graph, collections, savers)
    return Model(graph, variables, origin, saver_def=saver_def, collections=collections, savers=tuple(savers))


def _init_op(collections: Mapping[str, Any], signatures: Mapping[str, Any]) -> str | None:
    if INIT_OP_SIGNATURE in signatures:
        outputs = signatures[INIT_OP_SIGNATURE].outputs
        return next((parse_tensor_name(info.name)[0] for info in outputs.values()), None)
    for name in INIT_OPS:
        if name in collections and collections[name].node_list.value:
            return parse_tensor_name(collections[name].node_list.value[0])[0]
    return None


def _assets(meta_graph: Any, collections: Mapping[str, Any], origin: ModelSource) -> dict[str, str]:
    """Filename tensor to path of every asset the file lists, in the `assets` folder beside it."""
    listed = list(meta_graph.asset_file_def)
    if not listed and "saved_model_assets" in collections:
        for item in collections["saved_model_assets"].any_list.value:
            asset = AssetFileDef()
            if item.type_url.endswith("AssetFileDef"):
                asset.MergeFromString(item.value)
                listed.append(asset)
    found = {asset.tensor_info.name: asset.filename for asset in listed} or bundle_assets(collections)
    folder = os.path.join(origin.folder or "", "assets")
    # an asset is a name inside assets/; whatever path a file gives, nothing outside that folder is opened
    return {tensor: os.path.join(folder, os.path.basename(name)) for tensor, name in found.items()}


def encode_meta_graph(model: Model, tags: Iterable[str] = ()) -> Encoded:
    """The serialized MetaGraphDef of a model, as a stream of bytes and stretches of the files its values lie in.

    The list of ops is the model's own, and the newest known definition for the ops it does not describe: importers drop
    attrs by it that they do not know and that have the default. A version of TensorFlow that is no release is left out.
    """
    rest = MetaGraphDef(saver_def=model.saver_def)
    for name, collection in model.collections.items():
        rest.collection_def[name].CopyFrom(collection)
    for name, signature in model.signatures.items():
        rest.signature_def[name].CopyFrom(signature)
    for asset in asset_files(model.assets):
        rest.asset_file_def.add().CopyFrom(asset)
    info = encode_header(1, len(data := _meta_info(model, tags).SerializeToString(deterministic=True))) + data
    return concatenated([info, *message_field(2, model.graph.encode()), rest.SerializeToString(deterministic=True)])


def asset_files(assets: Mapping[str, str]) -> Iterator[Any]:
    """An AssetFileDef for each filename tensor, with the name its file has in `assets`."""
    names = asset_names(assets)
    for tensor, path in assets.items():
        asset = AssetFileDef(filename=names[path])
        asset.tensor_info.name = tensor
        yield asset


def asset_names(assets: Mapping[str, str]) -> dict[str, str]:
    """Path to file name of every asset: its own, or with a number where another file has that one."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(assets.values()):
        base = name = os.path.basename(path)
        number = 0
        while name in found.values():
            number += 1
            name = f"{base}_{number}"
        found[path] = name
    return found


def _meta_info(model: Model, tags: Iterable[str]) -> Any:
    info = MetaGraphDef.MetaInfoDef()
    if model.meta_info is not None:
        info.CopyFrom(model.meta_info)
    if not _RELEASE.fullmatch(info.tensorflow_version):
        info.ClearField("tensorflow_version")  # such as 0.12.head, which importers cannot parse
    del info.tags[:]
    info.tags.extend(tags)
    described = {op.name for op in info.stripped_op_list.op}
    functions = {function.signature.name for function in model.graph.library.function}
    for name in sorted(_ops(model.graph) - described - functions):
        op_def = op_table().op_def(name)
        if op_def is not None:
            info.stripped_op_list.op.add().CopyFrom(op_def)
    return info


def _ops(graph: Graph) -> set[str]:
    nodes = [graph.graph_def.node, *(function.node_def for function in graph.library.function)]
    return {node.op for body in nodes for node in body}
