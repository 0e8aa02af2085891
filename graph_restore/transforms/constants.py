"""constants=: placeholders that always have one value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, numpy_dtype, type_name
from graph_restore.errors import FreezeError
from graph_restore.graph import Graph, tensor_attr
from graph_restore.names import node_of, parse_tensor_name, tensor_name, tensor_names
from graph_restore.protos import NodeDef
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.feeds import output_shape
from graph_restore.variables import Shape, shapes_agree


def set_constants(draft: Draft, constants: Mapping[str, Any]) -> set[str]:
    """Turn placeholders into Consts; gives their node names. FreezeError for what is none or cannot have the value."""
    done = set()
    for name, value in constants.items():
        node = draft.graph.node(name)
        _check_placeholder(node, name)
        number = node.attr["dtype"].type
        array = _fitting(node, value, draft.graph.versions.producer)
        draft.add(constant_node(node.name, number, array))
        done.add(node.name)
    return done


def _check_placeholder(node: Any, name: str) -> None:
    """FreezeError unless `name`, as it was given, is the one output of a placeholder."""
    index = parse_tensor_name(name)[1]
    if not node.op.startswith("Placeholder"):
        reason = f"{node.name} is a {node.op}"
    elif index < 0:
        reason = f"{name!r} is how a control input is written, which has no value: write {node.name!r}"
    elif index:
        reason = f"{node.name} ({node.op}) has one output, and {name!r} would be another: write {node.name!r}"
    else:
        return
    raise FreezeError(f"constants= takes placeholders; {reason}", nodes={node.name: "no output of a placeholder"})


def not_constant(names: Sequence[str], constants: Mapping[str, Any]) -> list[str]:
    """Those of the tensors `names` that are no output of a placeholder in `constants`."""
    given = {node_of(name) for name in constants}
    return [name for name in names if node_of(name) not in given]


def without_constants(signatures: Mapping[str, Any], constants: Mapping[str, Any]) -> dict[str, Any]:
    """The signatures without the inputs that are constant now."""
    result = {}
    for name, signature in signatures.items():
        result[name] = type(signature)()
        result[name].CopyFrom(signature)
        for key, info in signature.inputs.items():
            if not not_constant(tensor_names(info), constants):
                del result[name].inputs[key]
    return result


def constant_values(graph: Graph, constants: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Tensor name to value of `constants`, as `set_constants` understands them."""
    draft = Draft(graph)
    names = set_constants(draft, constants)
    result = draft.finish()
    return {tensor_name(name): result.value(result.nodes[name]).read() for name in names}


def constant_node(name: str, data_type: int, value: Any, controls: Sequence[str] = ()) -> Any:
    """A Const node of a small value."""
    const = NodeDef(name=name, op="Const", input=controls)
    const.attr["dtype"].type = data_type
    array = value if data_type == DataType.DT_STRING else np.asarray(value).astype(numpy_dtype(data_type))
    const.attr["value"].CopyFrom(tensor_attr(array))
    return const


def _fitting(node: Any, value: Any, producer: int) -> Any:
    """The value in the placeholder's type; text is read as JSON where the placeholder does not take strings."""
    number = node.attr["dtype"].type
    is_text = number == DataType.DT_STRING
    found = np.asarray(value, object) if is_text else _converted(node, value, numpy_dtype(number))
    stated = _stated_shape(node, producer)
    if not shapes_agree(stated, found.shape):
        raise FreezeError(
            f"{node.name} cannot be {value!r}: a value of shape {list(stated or ())} is expected, and "
            f"{list(found.shape)} is given",
            nodes={node.name: "another shape"},
        )
    return value if is_text else found


def _stated_shape(node: Any, producer: int) -> Shape:
    shape = output_shape(node, 0, producer)
    return None if shape.unknown_rank else tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)


def _converted(node: Any, value: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(json.loads(value.lower()) if isinstance(value, str) else value)
        if array.dtype.kind not in "biufcV":
            raise ValueError
        converted = array.astype(dtype)
        exact = array.dtype.kind in "fcV" and converted.dtype.kind in "fcV"
        if not exact and not (converted.astype(array.dtype) == array).all():
            raise ValueError
    except (ValueError, TypeError):
        raise FreezeError(
            f"{node.name} is a placeholder of {type_name(node.attr['dtype'].type)}, and cannot be {value!r}",
            nodes={node.name: "another type"},
        ) from None
    return converted
