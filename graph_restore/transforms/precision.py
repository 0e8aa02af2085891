"""Weights stored in half precision: half the file, the same types to the outside.

    w  Const float32        becomes        w/float16  Const float16 -> w  Cast to float32

1. Taken are the floating-point arrays that were variables, and other Consts from 1024 elements on; no scalars, and
   nothing that has to be a constant where it is used (see `constness`).
2. Tensor `w:0` keeps its name and type, so nothing else of the graph changes.
3. Every value is looked at once: where a finite one would become infinite the Const stays as it is, with a word.
Values are rounded to nearest, ties to even, as TensorFlow's Cast does; they are converted as they are written.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.streaming import pieces
from graph_restore.dtypes import DataType, numpy_dtype, type_name
from graph_restore.model import Model
from graph_restore.names import node_of
from graph_restore.protos import NodeDef, TensorProto
from graph_restore.tensor_proto import encode_head
from graph_restore.tensors import CastTensor, LazyTensor
from graph_restore.transforms.constness import Constness
from graph_restore.transforms.draft import Draft
from graph_restore.variables import Variables

PRECISIONS = {"float16": DataType.DT_HALF, "bfloat16": DataType.DT_BFLOAT16}
_WIDER = (DataType.DT_FLOAT, DataType.DT_DOUBLE)
_LARGE = 1024  # elements


def reduce_precision(model: Model, precision: str, variables: Variables) -> Model:
    """The frozen model with its weights stored as `precision`, "float16" or "bfloat16".

    `variables`: those the model had before it was frozen. `notes` names what stays as it is because it would lose its
    range, and what holds NaNs.
    """
    number = PRECISIONS[precision]
    draft, constness = Draft(model.graph), Constness(model.graph)
    weights = {node_of(name) for variable in variables for name in (variable.name, variable.snapshot or "")}
    stored = 0
    for node in model.graph.graph_def.node:
        if node.op == "Const" and _is_weight(model, node, weights) and constness.reason_of_use(node) is None:
            value = model.graph.value(node)
            if _fits(draft, node.name, value, number):
                _store(draft, node, CastTensor(value, number), precision)
                stored += 1
    draft.note(f"{stored} constants are stored as {precision}, and cast back where they are used")
    return replace(model, graph=draft.finish(), notes=(*model.notes, *draft.notes))


def is_half_weight(cast: Any, source: Any) -> bool:
    """Whether these are a Cast and a Const that together are a weight stored in half precision, as made here."""
    if source.op != "Const" or source.attr["dtype"].type not in PRECISIONS.values():
        return False
    return cast.attr["DstT"].type in _WIDER and len(source.attr["value"].tensor.tensor_shape.dim) > 0


def _is_weight(model: Model, node: Any, weights: Collection[str]) -> bool:
    if node.attr["dtype"].type not in _WIDER:
        return False
    value = model.graph.value(node)
    return bool(value.shape) and value.size >= (1 if node.name in weights else _LARGE)


def _fits(draft: Draft, name: str, value: LazyTensor, number: DataType) -> bool:
    """Whether no finite value becomes infinite; a note where one does, where there are NaNs, where all becomes zero."""
    lost = nan = vanished = nonzero = 0
    target = numpy_dtype(number)
    for piece in pieces(value):
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            half = piece.astype(target).astype(np.float32)
        lost += int(np.count_nonzero(np.isinf(half) & np.isfinite(piece)))
        nan += int(np.count_nonzero(np.isnan(piece)))
        nonzero += int(np.count_nonzero(piece))
        vanished += int(np.count_nonzero((half == 0) & (piece != 0)))
    kind = type_name(number)
    if lost:
        draft.note(f"{name} stays {type_name(value.data_type)}: {lost} of its values are out of the range of {kind}")
        return False
    if vanished and vanished == nonzero:
        draft.note(f"{name} stays {type_name(value.data_type)}: all its values are too small for {kind}")
        return False
    if vanished:
        draft.note(f"{name}: {vanished} of its values are too small for {kind} and become 0")
    if nan:
        draft.note(f"{name} holds {nan} NaNs, which stay NaN")
    return True


def _store(draft: Draft, node: Any, value: LazyTensor, precision: str) -> None:
    const = NodeDef(name=draft.free_name(f"{node.name}/{precision}"), op="Const", device=node.device, input=node.input)
    const.attr["dtype"].type = value.data_type
    const.attr["value"].tensor.CopyFrom(TensorProto.FromString(encode_head(value)))
    cast = NodeDef(name=node.name, op="Cast", device=node.device, input=[const.name])
    cast.attr["SrcT"].type, cast.attr["DstT"].type = value.data_type, node.attr["dtype"].type
    draft.add(cast)
    draft.add(const)
    draft.payloads["", const.name] = value
