"""Which constants may lie in read-only memory.

TensorFlow lets an op write its result over an input that nothing else holds. A Const is held by its own node; an
ImmutableConst is not, and so `Mul`, `Rsqrt` and their like would write into the mapped file and end the process. Only
constants may be mapped that nothing but the ops below takes, directly or through ops that hand the same memory on.
"""

from __future__ import annotations

from graph_restore.graph import Graph
from graph_restore.names import is_control, parse_tensor_name

_ALL: frozenset[int] = frozenset(range(32))
# op -> the inputs that its kernels read and never write over
_READERS: dict[str, frozenset[int]] = {
    **dict.fromkeys(
        (
            "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "SparseMatMul", "SparseTensorDenseMatMul",
            "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInput",
            "Conv3DBackpropInputV2", "Dilation2D", "Gather", "GatherV2", "GatherNd", "Shape", "ShapeN", "Size", "Rank",
        ),
        _ALL,
    ),
    "BiasAdd": frozenset({1}),
    "BiasAddV1": frozenset({1}),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), frozenset({1, 2})),
    "LSTMBlockCell": frozenset(range(3, 8)),
    **dict.fromkeys(("BlockLSTM", "BlockLSTMV2"), frozenset(range(4, 9))),
    "GRUBlockCell": frozenset(range(2, 6)),
}  # fmt: skip
# ops whose outputs may be the memory of an input, all of it or a part
_PASSING = frozenset(
    {
        "Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "Reshape", "ExpandDims", "Squeeze",
        "Enter", "Exit", "Switch", "Merge", "NextIteration", "Transpose", "ConjugateTranspose", "Split", "SplitV",
        "Slice", "StridedSlice", "Unpack", "Pack", "ConcatV2", "Concat", "Tile", "Pad", "PadV2", "BroadcastTo", "Cast",
        "Bitcast", "EnsureShape", "PlaceholderWithDefault",
    }
)  # fmt: skip


def may_be_mapped(graph: Graph, name: str) -> bool:
    """Whether nothing that may write takes the memory of node `name`, and nothing hands it out of the graph."""
    waiting, seen = [name], set()
    while waiting:
        node_name = waiting.pop()
        if node_name in seen:
            continue
        seen.add(node_name)
        takers = [
            (user, sum(not is_control(item) for item in user.input[:position]))
            for user, position in graph.consumers.get(node_name, ())
            if parse_tensor_name(user.input[position])[1] >= 0
        ]
        if not takers:
            return False  # it is fetched, or used by nothing at all
        for user, position in takers:
            if user.op in _PASSING:
                waiting.append(user.name)
            elif position not in _READERS.get(user.op, frozenset()):
                return False
    return True
