"""Session bundles, the exports of TensorFlow Serving before SavedModel: `export.meta` beside `export-00000-of-00001`.

Signatures and assets lie as Any messages in the collections `serving_signatures` and `serving_assets`
(tensorflow/contrib/session_bundle/manifest.proto). They are given as SignatureDefs, with the keys that SavedModel uses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from graph_restore.errors import FormatError
from graph_restore.graph import Graph
from graph_restore.names import parse_tensor_name
from graph_restore.protos import AssetFile, SignatureDef, Signatures
from graph_restore.storage.files import is_file

CLASSIFY, REGRESS, PREDICT = (f"tensorflow/serving/{name}" for name in ("classify", "regress", "predict"))
META_NAME = "export.meta"


def find_bundle(folder: str) -> str | None:
    """The path of a session bundle's graph in `folder`, None if it is no bundle."""
    path = os.path.join(folder, META_NAME)
    return path if is_file(path) else None


def bundle_signatures(graph: Graph, collections: Mapping[str, Any]) -> dict[str, Any]:
    """SignatureDefs of a session bundle: `serving_default` and the named ones; empty for any other model."""
    found: dict[str, Any] = {}
    for data in _packed(collections, "serving_signatures"):
        signatures = _parsed(Signatures, data)
        named = dict(signatures.named_signatures)
        if signatures.HasField("default_signature"):
            found["serving_default"] = _signature_def(graph, signatures.default_signature)
        inputs, outputs = named.get("inputs"), named.get("outputs")
        if inputs is not None and outputs is not None:  # the pair was the custom for Predict before SavedModel
            del named["inputs"], named["outputs"]
            generic = _generic(graph, inputs, outputs)
            found["predict" if "serving_default" in found else "serving_default"] = generic
        found.update({name: _signature_def(graph, signature) for name, signature in named.items()})
    return found


def bundle_assets(collections: Mapping[str, Any]) -> dict[str, str]:
    """Filename tensor to asset file name of a session bundle."""
    assets = [_parsed(AssetFile, data) for data in _packed(collections, "serving_assets")]
    return {asset.tensor_binding.tensor_name: asset.filename for asset in assets}


def _packed(collections: Mapping[str, Any], name: str) -> Iterator[bytes]:
    if name in collections:
        yield from (item.value for item in collections[name].any_list.value)


def _parsed(message_class: Any, data: bytes) -> Any:
    try:
        return message_class.FromString(data)
    except DecodeError as error:
        raise FormatError(f"a session bundle's {message_class.DESCRIPTOR.name} is damaged: {error}") from None


def _signature_def(graph: Graph, signature: Any) -> Any:
    kind = signature.WhichOneof("type")
    if kind == "generic_signature":
        # a generic signature does not tell inputs from outputs; what the graph feeds is an input
        bindings = {key: binding.tensor_name for key, binding in signature.generic_signature.map.items()}
        inputs = {key: name for key, name in bindings.items() if _is_input(graph, name)}
        return _filled(graph, PREDICT, inputs, {key: name for key, name in bindings.items() if key not in inputs})
    if kind == "regression_signature":
        regression = signature.regression_signature
        return _filled(
            graph, REGRESS, {"inputs": regression.input.tensor_name}, {"outputs": regression.output.tensor_name}
        )
    classification = signature.classification_signature
    outputs = {"classes": classification.classes.tensor_name, "scores": classification.scores.tensor_name}
    return _filled(graph, CLASSIFY, {"inputs": classification.input.tensor_name}, outputs)


def _generic(graph: Graph, inputs: Any, outputs: Any) -> Any:
    both = [
        {key: binding.tensor_name for key, binding in side.generic_signature.map.items()} for side in (inputs, outputs)
    ]
    return _filled(graph, PREDICT, *both)


def _is_input(graph: Graph, name: str) -> bool:
    node = graph.nodes.get(parse_tensor_name(name)[0])
    return node is not None and node.op.startswith("Placeholder")


def _filled(graph: Graph, method: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Any:
    signature = SignatureDef(method_name=method)
    for side, bindings in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for key, name in bindings.items():
            if name:
                side[key].name = name
                _describe(graph, side[key])
    return signature


def _describe(graph: Graph, info: Any) -> None:
    """dtype and, where the node states it, shape of a TensorInfo."""
    name, index = parse_tensor_name(info.name)
    node = graph.nodes.get(name)
    if node is None or node.op not in graph.ops:
        return
    types = graph.ops.output_types(node)
    if index < len(types):
        info.dtype = types[index] % 100
    if node.op.startswith("Placeholder") and "shape" in node.attr:
        info.tensor_shape.CopyFrom(node.attr["shape"].shape)
    else:
        info.tensor_shape.unknown_rank = True
