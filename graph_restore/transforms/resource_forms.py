"""What becomes of a variable's ops, and of what is said about it, when it becomes a resource variable (`resources`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graph_restore.names import node_of, tensor_name
from graph_restore.ops import op_table
from graph_restore.protos import CollectionDef, TensorShapeProto, VariableDef
from graph_restore.variables import SaverMap, Shape, Variable

_TWINS = {"Assign": "AssignVariableOp", "AssignAdd": "AssignAddVariableOp", "AssignSub": "AssignSubVariableOp"}


def upgraded(variable: Variable, handles: Mapping[str, str]) -> Variable:
    related = {
        field: handles.get(name, name)
        for field in ("slot_of", "moving_average_of")
        if (name := getattr(variable, field)) is not None
    }
    if variable.name not in handles:
        return replace(variable, **related)
    key = variable.checkpoint_key or (variable.name if handles[variable.name] != variable.name else None)
    return replace(variable, name=handles[variable.name], kind="resource", checkpoint_key=key, **related)


def upgraded_collection(collection: Any, handles: Mapping[str, str]) -> Any:
    """A CollectionDef whose VariableDefs say what their variables are now."""
    changed = CollectionDef()
    changed.CopyFrom(collection)
    for position, data in enumerate(changed.bytes_list.value):
        try:
            definition = VariableDef.FromString(data)
        except Exception:  # protobuf's DecodeError has no public base that all its implementations share
            continue
        handle = handles.get(node_of(definition.variable_name))
        if handle is not None and (definition.initializer_name or definition.snapshot_name):
            definition.variable_name = tensor_name(handle)
            definition.is_resource = True
            changed.bytes_list.value[position] = definition.SerializeToString()
    return changed


def upgraded_saver(saver: SaverMap, handles: Mapping[str, str]) -> SaverMap:
    """A saver's map with the names of handles for those of variables."""
    entries = (entry._replace(variable=handles.get(entry.variable or "", entry.variable)) for entry in saver.entries)
    return replace(saver, entries=tuple(entries))


def handle_shape(variable: Variable) -> Any:
    shape: Shape = variable.value.shape if variable.shape is None and variable.value is not None else variable.shape
    message = TensorShapeProto(unknown_rank=shape is None)
    for size in shape or ():
        message.dim.add(size=-1 if size is None else size)
    return message


def twin(op: str) -> str:
    return _TWINS.get(op, f"Resource{op}")


def take_twin(node: Any, number: int) -> None:
    """Give an update its resource form, with those of its attrs that this one has."""
    form = op_table()[twin(node.op)]
    node.op = form.name
    kept = {*form.attrs, "_class"}
    for name in [name for name in node.attr if name not in kept]:
        del node.attr[name]
    if "dtype" in form.attrs:
        node.attr["dtype"].type = number
    if "validate_shape" in node.attr:
        del node.attr["validate_shape"]  # the handle's shape is what counts now
