"""VariableDefs: what collections say of variables, so that TensorFlow finds them again when it imports a MetaGraph.

See tensorflow/core/framework/variable.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graph_restore.discovery import TRAINABLE_COLLECTION
from graph_restore.names import tensor_name
from graph_restore.protos import CollectionDef, VariableDef
from graph_restore.variables import Variable

GLOBAL_COLLECTION = "variables"


def with_definitions(collections: Mapping[str, Any], variables: Iterable[Variable]) -> dict[str, Any]:
    """The collections with a VariableDef added for each variable, to those it is in, or is in by default.

    TensorFlow wants an initializer and a read; a variable that lacks one of them is left out.
    """
    added: dict[str, list[bytes]] = {}
    for variable in variables:
        if variable.initializer is not None and variable.snapshot is not None:
            for name in variable.collections or _usual(variable):
                added.setdefault(name, []).append(_definition(variable).SerializeToString())
    found = dict(collections)
    for name, definitions in added.items():
        collection = CollectionDef()
        collection.CopyFrom(found.get(name, collection))
        collection.bytes_list.value.extend(definitions)
        found[name] = collection
    return found


def set_slice_info(definition: Any, variable: Variable) -> None:
    """Say in a VariableDef which part of a partitioned variable this one is, if it is a part."""
    if variable.slice is not None:
        part = definition.save_slice_info_def
        part.full_name = variable.checkpoint_key or variable.name
        part.full_shape.extend(variable.slice.full_shape)
        part.var_offset.extend(variable.slice.starts)
        part.var_shape.extend(variable.slice.lengths)


def _usual(variable: Variable) -> list[str]:
    return [GLOBAL_COLLECTION, *([TRAINABLE_COLLECTION] if variable.trainable else [])]


def _definition(variable: Variable) -> Any:
    definition = VariableDef(
        variable_name=tensor_name(variable.name),
        initial_value_name=variable.initial_value,
        initializer_name=variable.initializer,
        snapshot_name=variable.snapshot,
        is_resource=variable.kind == "resource",
        trainable=bool(variable.trainable),
    )
    set_slice_info(definition, variable)
    return definition
