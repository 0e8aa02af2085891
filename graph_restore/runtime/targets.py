"""What values can be transferred to: the variables of modules, of Keras models and layers, of lists, of live graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.errors import GraphRestoreError
from graph_restore.runtime.guard import tensorflow
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.pairing import Item
from graph_restore.variables import Shape, describe


@dataclass(frozen=True)
class Target:
    """A variable and the path it is known under."""

    name: str
    variable: Any

    @property
    def data_type(self) -> DataType:
        """The type of its values."""
        dtype = tensorflow().dtypes.as_dtype(self.variable.dtype)
        return DataType(dtype.base_dtype.as_datatype_enum)

    @property
    def shape(self) -> Shape:
        """Its shape, as far as it is known."""
        shape = tensorflow().TensorShape(self.variable.shape)
        return None if shape.rank is None else tuple(shape.as_list())

    @property
    def described(self) -> str:
        """dtype and shape as text."""
        return describe(self.data_type, self.shape)

    @property
    def item(self) -> Item:
        """Its name and shape."""
        return Item(self.name, self.shape)

    @property
    def is_in_graph(self) -> bool:
        """Whether it is part of a graph, so that its value lies in a session."""
        return not _is_keras(self.variable) and hasattr(self.variable, "graph")

    def assign(self, value: LazyTensor, session: Any) -> None:
        """Give it the value."""
        tf = tensorflow()
        dtype = tf.dtypes.as_dtype(int(self.data_type))
        array = value.read()
        array = array.view(dtype.as_numpy_dtype) if dtype.is_quantized else array
        if self.is_in_graph:
            self.variable.load(array, session)
        else:
            self.variable.assign(array if _is_keras(self.variable) else tf.constant(array, dtype))


def targets_of(target: Any) -> list[Target]:
    """Every variable of a target in the order in which it was made, each once and under a name of its own.

    TypeError for what has no variables; GraphRestoreError for a Keras model or layer that is not built.
    """
    found: dict[int, tuple[str, Any]] = {}
    for name, variable in _walk(target, "", set()):
        found.setdefault(id(variable), (name.removesuffix(":0"), variable))
    if not found:
        raise GraphRestoreError(
            f"{type(target).__name__} has no variables yet: call it once, or build it, so that they are made"
        )
    names: dict[str, int] = {}
    targets = []
    for name, variable in found.values():
        names[name] = names.get(name, 0) + 1
        targets.append(Target(name if names[name] == 1 else f"{name} ({names[name]})", variable))
    return targets


def is_variable(value: Any) -> bool:
    """Whether it is one variable, of TensorFlow or of Keras."""
    return isinstance(value, tensorflow().Variable) or _is_keras(value)


def is_layer(value: Any) -> bool:
    """Whether it is something that holds variables: a module, a Keras model or layer, a list of such."""
    return not is_variable(value) and (
        isinstance(value, tensorflow().Module | list | tuple | Mapping) or _has_weights(value)
    )


def _is_keras(value: Any) -> bool:
    """Whether it is a variable of Keras 3, which is none of TensorFlow's but holds one."""
    named = hasattr(value, "path") and hasattr(value, "assign") and hasattr(value, "shape")
    return named and type(value).__module__.startswith("keras.")


def _has_weights(value: Any) -> bool:
    return isinstance(getattr(value, "weights", None), list) and hasattr(value, "build")


def _walk(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """(path, variable) of all that is inside; the path is Keras's own, or that of attributes, keys and positions."""
    if is_variable(value):
        yield name or _own_name(value), value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if _has_weights(value):
        yield from ((_own_name(weight), weight) for weight in value.weights)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, _joined(name, str(key)), seen)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for number, inner in enumerate(value):
            yield from _walk(inner, "" if not name and is_variable(inner) else _joined(name, str(number)), seen)
    elif isinstance(value, tensorflow().Module):
        bookkeeping = getattr(type(value), "_TF_MODULE_IGNORED_PROPERTIES", ())  # TensorFlow's own, on every module
        for attribute, inner in vars(value).items():
            is_own = attribute not in bookkeeping and not attribute.startswith("_self_")
            if is_own and (is_variable(inner) or is_layer(inner)):
                yield from _walk(inner, _joined(name, attribute.lstrip("_")), seen)
    elif not name:
        raise TypeError(
            "values are transferred to a tf.Module, a Keras model or layer, a variable, or a list or dict of these; "
            f"found {value!r:.80}"
        )


def _own_name(variable: Any) -> str:
    return str(variable.path if _is_keras(variable) else variable.name)


def _joined(name: str, part: str) -> str:
    return f"{name}/{part}" if name else part
