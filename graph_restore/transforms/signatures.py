"""Signatures of a model that is to be served: given, kept, or made from fetches and feeds.

Keys of a made one are node names, with `_k` for outputs past the first. See tensorflow/core/protobuf/meta_graph.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graph_restore.dtypes import REF_OFFSET
from graph_restore.errors import FreezeError, NodeNotFoundError, UnsupportedFormatError, counted
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import node_of, parse_tensor_name, tensor_name, tensor_names
from graph_restore.protos import SignatureDef
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.feeds import output_shape, resolve
from graph_restore.transforms.fetches import DEFAULT_SIGNATURE

PREDICT = "tensorflow/serving/predict"
Tensors = Mapping[str, str] | Iterable[str]


def make_signature(graph: Graph, inputs: Tensors, outputs: Tensors, method: str = PREDICT) -> Any:
    """The SignatureDef of these tensors: names, or key to name. dtype and shape are those the graph states.

    NodeNotFoundError for a name that the graph does not have.
    """
    signature = SignatureDef(method_name=method)
    for side, tensors in ((signature.inputs, inputs), (signature.outputs, outputs)):
        named = tensors if isinstance(tensors, Mapping) else keyed([tensors] if isinstance(tensors, str) else tensors)
        for key, name in named.items():
            _describe(graph, side[key], name)
    return signature


def keyed(tensors: Iterable[str]) -> dict[str, str]:
    """Key to tensor name: the node's name, `node_1` for its second output."""
    found: dict[str, str] = {}
    for name in tensors:
        node, index = parse_tensor_name(name)
        base = key = f"{node}_{index}" if index else node
        number = 0
        while key in found and found[key] != tensor_name(node, index):
            number += 1
            key = f"{base}_{number}"
        found[key] = tensor_name(node, index)
    return found


def _describe(graph: Graph, info: Any, name: str) -> None:
    node, index = graph.node(name), parse_tensor_name(name)[1]
    info.name = tensor_name(node.name, index)
    try:
        types = graph.ops.output_types(node)
    except UnsupportedFormatError:
        types = None  # an op that only its own library knows
    if types is not None and index >= len(types):
        raise NodeNotFoundError(f"node {node.name} ({node.op}) has {counted(len(types), 'output')}; there is no {name}")
    if types is not None:
        info.dtype = types[index] - REF_OFFSET if types[index] > REF_OFFSET else types[index]
    info.tensor_shape.CopyFrom(output_shape(node, index, graph.versions.producer))


def given_signatures(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """SignatureDefs of what a caller gave by name: SignatureDefs of any make, or {"inputs": ..., "outputs": ...} of
    tensor names or keys and tensor names."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if hasattr(value, "SerializeToString"):
            found[name] = SignatureDef.FromString(value.SerializeToString())
            resolve(graph, [*inputs_of(found[name]), *outputs_of(found[name])])
        elif isinstance(value, Mapping) and value.keys() <= {"inputs", "outputs", "method"} and "outputs" in value:
            method = value.get("method", PREDICT)
            found[name] = make_signature(graph, value.get("inputs", ()), value["outputs"], method)
        else:
            raise ValueError(
                f"signature {name!r} is a SignatureDef or {{'inputs': ..., 'outputs': ...}}, not {type(value).__name__}"
            )
        lacking = [node for node in unfed(graph, found[name]) if _is_bare(graph, node)]
        if lacking:
            raise FreezeError(
                f"signature {name!r} does not feed {', '.join(lacking)}, which its outputs need, so "
                "TensorFlow would not load it; add that to the inputs",
                nodes=dict.fromkeys(lacking, "not fed"),
            )
    return found


def kept_signatures(model: Model) -> dict[str, Any]:
    """The model's own signatures, when they say all that it was frozen to; else none."""
    outputs = {name for signature in model.signatures.values() for name in outputs_of(signature)}
    wanted = {tensor_name(*parse_tensor_name(name)) for name in model.fetches}
    return dict(model.signatures) if wanted <= outputs else {}


def inputs_of(signature: Any) -> list[str]:
    """The tensor names a signature is fed by, the parts of sparse and composite tensors too."""
    return [name for info in signature.inputs.values() for name in tensor_names(info)]


def outputs_of(signature: Any) -> list[str]:
    """The tensor names a signature fetches."""
    return [name for info in signature.outputs.values() for name in tensor_names(info)]


def still_valid(signatures: Mapping[str, Any], draft: Draft, before: Graph, graph: Graph) -> dict[str, Any]:
    """The signatures that a graph made of `before` still serves.

    One is left away when the graph lacks one of its tensors, and, with a note of the draft, when an output needs a
    placeholder that it does not feed and that was none: TensorFlow loads no SavedModel with such a one.
    """
    kept = {}
    for name, signature in signatures.items():
        tensors = [*inputs_of(signature), *outputs_of(signature)]
        gone = [tensor for tensor in tensors if node_of(tensor) not in graph.nodes]
        bare = [] if gone else [node for node in unfed(graph, signature) if not _is_bare(before, node)]
        bare = [node for node in bare if _is_bare(graph, node)]
        if not gone and not bare:
            kept[name] = signature
        elif bare:
            draft.note(f"signature {name} is left away: it does not feed {', '.join(bare)}, a placeholder now")
    return kept


def _is_bare(graph: Graph, name: str) -> bool:
    """Whether a node is a placeholder that must be fed."""
    node = graph.nodes.get(name)
    return node is not None and node.op in ("Placeholder", "PlaceholderV2")


def unfed(graph: Graph, signature: Any) -> list[str]:
    """The placeholders that a signature's outputs need and that are not among its inputs, in file order."""
    fed = {node_of(name) for name in inputs_of(signature)}
    needed: set[str] = set()
    waiting = [node_of(name) for name in outputs_of(signature)]
    while waiting:
        name = waiting.pop()
        if name not in needed and name not in fed and name in graph.nodes:
            needed.add(name)
            waiting.extend(node_of(item) for item in graph.nodes[name].input)
    return [name for name, node in graph.nodes.items() if name in needed and node.op.startswith("Placeholder")]


def default_only(signature: Any) -> dict[str, Any]:
    """The one signature, under the name that serving looks for."""
    if not signature.outputs:
        raise FreezeError("a signature needs outputs; pass fetches=")
    return {DEFAULT_SIGNATURE: signature}
