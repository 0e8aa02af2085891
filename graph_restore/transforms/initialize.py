"""initialize: first values for variables that no checkpoint holds, where their initializers are constant.

1. An initializer's value is worked out with numpy from Consts and the few ops that TF1's initializers are made of:
   Fill, zeros, ones, Cast, Reshape and simple arithmetic. A random or fed one has no certain value and is listed.
2. The value of another variable (`initialized_value`, a slot made like its variable, a moving average's shadow) is that
   variable's restored value, or else its own first value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from graph_restore.dtypes import DataType, numpy_dtype
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import is_control, parse_tensor_name
from graph_restore.savers import variable_of
from graph_restore.tensors import ArrayTensor, FilledTensor, LazyTensor, StringArrayTensor
from graph_restore.transforms.aliases import INITIALISED_TESTS
from graph_restore.variables import Variable, Variables

_LARGEST = 64 << 20  # bytes of a value worked out in memory; larger ones are Fills or other variables' values
Array = np.ndarray[Any, Any]


def initialize(model: Model) -> Model:
    """The model with a value for each variable that had none and whose initializer is constant.

    `notes` of the result names the variables that were given their first value, and those that stay without one, each
    with the reason. Nothing that had a value is changed.
    """
    initial = _InitialValues(model)
    variables, given, left = [], [], []
    for variable in model.variables:
        if variable.value is None:
            try:
                value = initial.of(variable)
                variable = replace(variable, value=value, authority={**variable.authority, "value": "initializer"})
                given.append(variable.name)
            except _NotConstant as reason:
                left.append(f"{variable.name} ({reason})")
        variables.append(variable)
    notes = [f"{len(given)} variables have their first value: {', '.join(given)}"] if given else []
    notes += [f"{len(left)} variables stay without a value: {', '.join(left)}"] if left else []
    return replace(model, variables=Variables(variables), notes=(*model.notes, *notes))


class _NotConstant(Exception):
    """An initializer whose value is not certain; the text says why."""


class _InitialValues:
    """First values, each worked out once."""

    def __init__(self, model: Model) -> None:
        self._graph: Graph = model.graph
        self._variables = model.variables
        self._known: dict[str, LazyTensor] = {}
        self._open: set[str] = set()

    def of(self, variable: Variable) -> LazyTensor:
        """The restored value of a variable, else its first one; _NotConstant when that is not certain."""
        if variable.value is not None:
            return variable.value
        if variable.name not in self._known:
            if variable.initial_value is None:
                raise _NotConstant("no initializer in the graph")
            if variable.name in self._open:
                raise _NotConstant("its initializer needs itself")
            self._open.add(variable.name)
            try:
                self._known[variable.name] = self._fitting(variable, self._tensor(variable.initial_value))
            finally:
                self._open.discard(variable.name)
        return self._known[variable.name]

    def _fitting(self, variable: Variable, value: LazyTensor) -> LazyTensor:
        if value.data_type != variable.data_type:
            raise _NotConstant(f"its initializer is of type {value.data_type.name}")
        return value

    def _tensor(self, name: str) -> LazyTensor:
        """The value of a tensor; large ones are never worked out in memory."""
        node_name, index = parse_tensor_name(name)
        owner = variable_of(self._graph, name)
        if owner is not None:
            return self.of(self._variables[owner])
        node = self._graph.nodes.get(node_name)
        if node is None or index != 0:
            raise _NotConstant(f"{name} is no constant")
        if node.op == "Const":
            return self._graph.value(node)
        inputs = [item for item in node.input if not is_control(item)]
        if node.op in ("Identity", "StopGradient", "PlaceholderWithDefault"):
            return self._tensor(inputs[0])
        if node.op == "Merge":
            return self._initialized_value(node, inputs)
        if node.op == "Fill":
            return self._filled(node, inputs)
        return self._computed(node, [self._array(item) for item in inputs])

    def _array(self, name: str) -> Array:
        tensor = self._tensor(name)
        if tensor.nbytes > _LARGEST:
            raise _NotConstant(f"{name} is too large to compute with")
        return tensor.read()

    def _initialized_value(self, node: Any, inputs: list[str]) -> LazyTensor:
        """`initialized_value()`: a cond on whether a variable is initialised gives that variable's value."""
        for item in inputs:
            source = self._graph.nodes.get(parse_tensor_name(item)[0])
            while source is not None and source.op in ("Identity", "Switch", "RefSwitch", "ReadVariableOp"):
                if source.op.endswith("Switch"):
                    test = self._origin(source.input[1])
                    owner = variable_of(self._graph, test.input[0]) if test is not None else None
                    if test is not None and test.op in INITIALISED_TESTS and owner is not None:
                        return self.of(self._variables[owner])
                source = self._graph.nodes.get(parse_tensor_name(source.input[0])[0])
        raise _NotConstant(f"{node.name} depends on a cond")

    def _origin(self, name: str) -> Any:
        node = self._graph.nodes.get(parse_tensor_name(name)[0])
        while node is not None and node.op == "Identity" and node.input:
            node = self._graph.nodes.get(parse_tensor_name(node.input[0])[0])
        return node

    def _filled(self, node: Any, inputs: list[str]) -> LazyTensor:
        shape, value = self._array(inputs[0]), self._array(inputs[1])
        if value.dtype == object:
            return StringArrayTensor(node.name, np.full(shape, value.item(), object))
        return FilledTensor(node.name, node.attr["T"].type, tuple(shape.tolist()), value.reshape(1))

    def _computed(self, node: Any, inputs: list[Array]) -> LazyTensor:
        function = _OPS.get(node.op)
        if function is None:
            raise _NotConstant(f"{node.name} is a {node.op}")
        try:
            value = np.asarray(function(node, *inputs))
        except (TypeError, ValueError, IndexError) as error:
            raise _NotConstant(f"{node.name} ({node.op}): {error}") from None
        if value.nbytes > _LARGEST:
            raise _NotConstant(f"{node.name} is too large to compute")
        return ArrayTensor(node.name, value)


def _cast(node: Any, value: Array) -> Array:
    target = DataType(node.attr["DstT"].type)
    if target is DataType.DT_BFLOAT16:
        raise ValueError("old releases cut where new ones round")
    return value.astype(numpy_dtype(target))


def _zeros_like(node: Any, value: Array) -> Array:
    return np.zeros_like(value)


def _ones_like(node: Any, value: Array) -> Array:
    return np.ones_like(value)


def _range(ends: list[Any], dtype: Any) -> Array:
    return np.arange(*ends, dtype=dtype)


_OPS: dict[str, Callable[..., Array]] = {
    "Cast": _cast,
    "ZerosLike": _zeros_like,
    "OnesLike": _ones_like,
    "Reshape": lambda node, value, shape: value.reshape(shape),
    "ExpandDims": lambda node, value, axis: np.expand_dims(value, int(axis)),
    "Shape": lambda node, value: np.asarray(value.shape, np.int64 if node.attr["out_type"].type == 9 else np.int32),
    "Pack": lambda node, *values: np.stack(values, node.attr["axis"].i),
    "ConcatV2": lambda node, *values: np.concatenate(values[:-1], int(values[-1])),
    "Range": lambda node, *ends: _range([end.item() for end in ends], ends[0].dtype),
    "Transpose": lambda node, value, order: value.transpose(order),
    "Add": lambda node, one, two: one + two,
    "AddV2": lambda node, one, two: one + two,
    "Sub": lambda node, one, two: one - two,
    "Mul": lambda node, one, two: one * two,
    "Neg": lambda node, value: -value,
    "Sqrt": lambda node, value: np.sqrt(value),
}
