"""modernize: ops that today's TensorFlow lacks, written with ops that it has.

1. GatherTree and Resampler: see `gather_tree`, `resampler`.
2. ImageProjectiveTransform is ImageProjectiveTransformV2 with an output as large as its input.
3. CompareAndBitpack: eight comparisons make a byte, the first its highest bit.
Each was compared with the op itself in the last TensorFlow that had it. Other such ops stay, and `replacement` tells
what is known of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.transforms.composing import Composer
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.functions import modern_functions
from graph_restore.transforms.gather_tree import gather_tree
from graph_restore.transforms.resampler import resampler

_INT, _BOOL = DataType.DT_INT32, DataType.DT_BOOL


def modernize(model: Model, ops: Collection[str] | None = None) -> Model:
    """The model with ops that today's TensorFlow lacks rewritten where that is possible (see `REWRITTEN`), in functions
    too; only those in `ops` if given. Node names and outputs stay; `notes` tells what was rewritten.

    ValueError for a name in `ops` that is not in REWRITTEN.
    """
    unknown = sorted(set(ops or ()) - REWRITTEN.keys())
    if unknown:
        raise ValueError(f"no way to rewrite {', '.join(unknown)} is known; known: {', '.join(sorted(REWRITTEN))}")
    wanted = set(REWRITTEN if ops is None else ops)
    graph = modern_functions(model.graph)
    found = [(node.op, node.name) for node in graph.of_ops(wanted)]
    for function in graph.library.function:
        name = function.signature.name
        found += [(node.op, f"{name}/{node.name}") for node in function.node_def if node.op in wanted]
    if not found:
        return model
    library: dict[str, Any] = {}
    changed = _in_functions(_in_graph(graph, wanted, library), wanted, library)
    changed.graph_def.library.function.extend(
        function for name, function in library.items() if name not in changed.functions
    )
    notes = [
        f"{op} is written with other ops: {', '.join(name for other, name in found if other == op)}"
        for op in dict.fromkeys(op for op, _ in found)
    ]
    return replace(
        model,
        graph=Graph(changed.graph_def, changed.payloads, changed.op_list),
        notes=(*model.notes, *notes),
    )


def _in_graph(graph: Graph, wanted: set[str], library: dict[str, Any]) -> Graph:
    draft = Draft(graph)
    for node in [node for node in draft.nodes.values() if node.op in wanted]:
        make = Composer(node, draft.free_name, graph.ops)
        _compose(make, node.op, library)
        for made in make.nodes:
            draft.add(made)
    return draft.finish()


def _in_functions(graph: Graph, wanted: set[str], library: dict[str, Any]) -> Graph:
    """The graph, which is changed: bodies name the outputs of nodes as ops do, so that these names change too."""
    for function in graph.library.function:
        taken = {node.name for node in function.node_def}

        def free_name(name: str, taken: set[str] = taken) -> str:
            return next(
                free for free in (name, *(f"{name}_{n}" for n in range(1, len(taken) + 2))) if free not in taken
            )

        for node in [node for node in function.node_def if node.op in wanted]:
            make = Composer(node, free_name, graph.ops, function=True)
            before = graph.ops.output_names(node)[0][0]
            _compose(make, node.op, library)
            after = graph.ops.output_names(make.nodes[-1])[0][0]
            function.node_def.remove(node)
            function.node_def.extend(make.nodes)
            taken.update(made.name for made in make.nodes)
            _rename(function, f"{node.name}:{before}:0", f"{node.name}:{after}:0")
    return graph


def _rename(function: Any, before: str, after: str) -> None:
    for node in function.node_def:
        for position, name in enumerate(node.input):
            if name == before:
                node.input[position] = after
    for output, name in function.ret.items():
        if name == before:
            function.ret[output] = after


def _compose(make: Composer, op: str, library: dict[str, Any]) -> None:
    library.update({function.signature.name: function for function in REWRITTEN[op](make)})


def _image_projective_transform(make: Composer) -> list[Any]:
    images, transforms = make.inputs
    dtype = make.type("dtype")
    shape = make("Shape", images, T=dtype, out_type=_INT)
    ends = [make.constant([number]) for number in (1, 3, 1)]
    size = make("StridedSlice", shape, *ends, T=_INT, Index=_INT)
    how = make.text("interpolation") or "NEAREST"  # TensorFlow 1.0 had no other way
    make.last("ImageProjectiveTransformV2", images, transforms, size, dtype=dtype, interpolation=how)
    return []


def _compare_and_bitpack(make: Composer) -> list[Any]:
    values, threshold = make.inputs
    dtype = make.type("T")
    bits = values if dtype == _BOOL else make("Greater", values, threshold, T=dtype)
    zero, last = make.constant(0), make.constant([-1])
    shape = make("Shape", bits, T=_BOOL, out_type=_INT)
    outer = make("StridedSlice", shape, make.constant([0]), last, make.constant([1]), T=_INT, Index=_INT)
    width = make("StridedSlice", shape, last, make.constant([0]), make.constant([1]), T=_INT, Index=_INT, end_mask=1)
    count = make("FloorDiv", width, make.constant([8]), T=_INT)
    split = make("ConcatV2", outer, count, make.constant([8]), zero, N=3, T=_INT, Tidx=_INT)
    whole = make("Cast", make("Reshape", bits, split, T=_BOOL, Tshape=_INT), SrcT=_BOOL, DstT=_INT)
    weights = make.constant(np.array([128, 64, 32, 16, 8, 4, 2, 1], np.int32))
    total = make("Sum", make("Mul", whole, weights, T=_INT), last, T=_INT, Tidx=_INT)
    make.last("Cast", total, SrcT=_INT, DstT=DataType.DT_UINT8)
    return []


REWRITTEN: dict[str, Callable[[Composer], list[Any]]] = {
    "GatherTree": gather_tree,
    "Resampler": resampler,
    "ImageProjectiveTransform": _image_projective_transform,
    "CompareAndBitpack": _compare_and_bitpack,
}
# what is known of other ops that are gone, by name or by tf.contrib module
_KNOWN = {
    "ZeroInitializer": "sets a variable to zeros: not needed once the variable is restored or frozen",
    "ZeroVarInitializer": "sets a variable to zeros: not needed once the variable is restored or frozen",
    "MaskedMatmul": "the rows and columns that the mask names, gathered, multiplied and summed",
    "AdjustHsvInYiq": "a product of the colours with one 3x3 matrix",
    "SparseFeatureCross": "SparseCross makes such crosses with other hashes: the model must be trained again",
    "SparseFeatureCrossV2": "SparseCross makes such crosses with other hashes: the model must be trained again",
    "CudnnRNNParamsFromCanonical": "CudnnRNNCanonicalToParams",
    "SlideDataset": "WindowDataset; or feed what the iterator gives",
    "SloppyInterleaveDataset": "ParallelInterleaveDatasetV4; or feed what the iterator gives",
    "DecodeAudio": "decode before, and feed the samples",
    "DecodeAudioV2": "decode before, and feed the samples",
    "DecodeVideo": "decode before, and feed the frames",
    "DecodeLibsvm": "decode before, and feed the features",
    "tensorflow.contrib.memory_stats": "reports memory: cut it away",
    "tensorflow.contrib.cloud": "reads from a store: feed what it gives",
    "tensorflow.contrib.bigtable": "reads from a store: feed what it gives",
    "tensorflow.contrib.rpc": "asks another machine: feed what it gives",
    "tensorflow.contrib.hadoop": "feed what the iterator gives",
    "tensorflow.contrib.kafka": "feed what the iterator gives",
    "tensorflow.contrib.kinesis": "feed what the iterator gives",
    "tensorflow.contrib.ignite": "feed what the iterator gives",
    "tensorflow.contrib.nccl": "sums over devices: of training only",
    "tensorflow.contrib.tpu": "of a TPU: fetch what the model computes outside of it",
}


def replacement(op: str, contrib_module: str = "") -> str:
    """What may stand for an op that is gone: "rewritten by modernize", a hint, or ""."""
    if op in REWRITTEN:
        return "rewritten by modernize"
    return _KNOWN.get(op) or _KNOWN.get(contrib_module, "")
