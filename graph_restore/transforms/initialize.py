"""initialize: first values for variables that no checkpoint holds, where their initializers are constant.

1. An initializer's value is worked out with numpy from Consts and the few ops that TF1's initializers are made of:
   Fill, zeros, ones, Cast, Reshape and simple arithmetic. A random or fed one has no certain value and is listed.
2. The value of another variable (`initialized_value`, a slot made like its variable, a moving average's shadow) is that
   variable's restored value, or else its own first value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, numpy_dtype
from graph_restore.errors import GraphRestoreError
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import is_control, parse_tensor_name
from graph_restore.savers import variable_of
from graph_restore.tensors import FilledTensor, LazyTensor, StringArrayTensor, lazy
from graph_restore.transforms.aliases import INITIALISED_TESTS
from graph_restore.variables import VARIABLE_OPS, Variable, Variables, shapes_agree

_LARGEST = 64 << 20  # bytes of a value worked out in memory; larger ones are Fills or other variables' values
Array: TypeAlias = "np.ndarray[Any, Any]"


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
            except RecursionError:
                raise _NotConstant("its initializer is too long a chain, or needs itself") from None
            except IndexError:
                raise _NotConstant("its initializer has an op that lacks inputs") from None
            except (GraphRestoreError, ValueError) as error:
                raise _NotConstant(str(error)) from None
            finally:
                self._open.discard(variable.name)
        return self._known[variable.name]

    def _fitting(self, variable: Variable, value: LazyTensor) -> LazyTensor:
        if value.data_type != variable.data_type:
            raise _NotConstant(f"its initializer is of type {value.data_type.name}")
        if not shapes_agree(variable.shape, value.shape):
            raise _NotConstant(f"its initializer is of shape {list(value.shape)}")
        return value

    def _tensor(self, name: str) -> LazyTensor:
        """The value of a tensor; large ones are never worked out in memory."""
        node_name, index = parse_tensor_name(name)
        node = self._graph.nodes.get(node_name)
        if node is None or index != 0:
            raise _NotConstant(f"{name} is no constant")
        if node.op in VARIABLE_OPS:
            return self.of(self._variables[node_name])
        if node.op == "Const":
            return self._graph.value(node)
        inputs = [item for item in node.input if not is_control(item)]
        if node.op in _PASSING:
            return self._tensor(inputs[0])
        if node.op == "Merge":
            return self.of(self._variables[self._initialized_value(node)])
        if node.op in _FROM_SHAPE:
            return _FROM_SHAPE[node.op](node, self._tensor(inputs[0]))
        if node.op == "Fill":
            return self._filled(node, inputs)
        return self._computed(node, [self._array(item) for item in inputs])

    def _array(self, name: str) -> Array:
        tensor = self._tensor(name)
        if tensor.nbytes > _LARGEST:
            raise _NotConstant(f"{name} is too large to compute with")
        return tensor.read()

    def _initialized_value(self, node: Any) -> str:
        """The variable whose value a cond gives if the variable is initialised, as `initialized_value()` does.

        Newer releases rewrite such conds for moving averages, and then the branch taken holds another one.
        """
        for item in node.input:
            switch, index = self._behind(item, ("Identity", "ReadVariableOp"))
            if switch is None or switch.op not in ("Switch", "RefSwitch") or index != 1:
                continue  # output 1 is the one taken when the test holds
            test, _ = self._behind(switch.input[1], ("Identity",))
            inner, _ = self._behind(switch.input[0], ("Identity",))
            nested = inner is not None and inner.op == "Merge"
            read = self._initialized_value(inner) if nested else variable_of(self._graph, switch.input[0])
            tested = test is not None and test.op in INITIALISED_TESTS and variable_of(self._graph, test.input[0])
            if read is not None and read == tested:
                return read
        raise _NotConstant(f"{node.name} depends on a cond")

    def _behind(self, name: str, passing: tuple[str, ...]) -> tuple[Any, int]:
        """The node, and its output, that a tensor comes from through ops that only pass it on."""
        for _ in range(len(self._graph.nodes)):
            node_name, index = parse_tensor_name(name)
            node = self._graph.nodes.get(node_name)
            if node is None or node.op not in passing:
                return node, index
            name = node.input[0]
        return None, 0

    def _filled(self, node: Any, inputs: list[str]) -> LazyTensor:
        shape, value = self._array(inputs[0]), self._array(inputs[1])
        if value.dtype == object:
            _test_size(node, shape.tolist(), 8)
            return StringArrayTensor(node.name, np.full(shape, value.item(), object))
        values = value.reshape(1)[: math.prod(shape.tolist())]
        return FilledTensor(node.name, node.attr["T"].type, tuple(shape.tolist()), values)

    def _computed(self, node: Any, inputs: list[Array]) -> LazyTensor:
        function = _functions().get(node.op)
        if function is None:
            raise _NotConstant(f"{node.name} is a {node.op}")
        try:
            value = np.asarray(function(node, *inputs))
        except (TypeError, ValueError, IndexError) as error:
            raise _NotConstant(f"{node.name} ({node.op}): {error}") from None
        return lazy(node.name, value)


def _cast(node: Any, value: Array) -> Array:
    target = DataType(node.attr["DstT"].type)
    if target is DataType.DT_BFLOAT16:
        raise ValueError("old releases cut where new ones round")
    return value.astype(numpy_dtype(target))


def _test_size(node: Any, shape: Sequence[int], width: int) -> None:
    """_NotConstant for a result that is too large to be made in memory, before it is made."""
    if math.prod(shape) * width > _LARGEST:
        raise _NotConstant(f"{node.name} is too large to compute")


def _like(number: int) -> Callable[[Any, LazyTensor], LazyTensor]:
    """ZerosLike and OnesLike: the number in a tensor's type and shape, whatever its values."""

    def filled(node: Any, tensor: LazyTensor) -> LazyTensor:
        if tensor.data_type is DataType.DT_STRING:
            raise ValueError(f"{node.name} is of strings")
        values = np.full(min(tensor.size, 1), number, tensor.dtype)
        return FilledTensor(node.name, tensor.data_type, tensor.shape, values)

    return filled


def _shape(node: Any, tensor: LazyTensor) -> LazyTensor:
    is_long = "out_type" in node.attr and node.attr["out_type"].type == DataType.DT_INT64
    return lazy(node.name, np.array(tensor.shape, np.int64 if is_long else np.int32))


def _range(node: Any, start: Array, limit: Array, delta: Array) -> Array:
    if start.dtype.kind not in "iu":
        raise ValueError("releases round it differently")
    ends = range(start.item(), limit.item(), delta.item())
    _test_size(node, [len(ends)], start.itemsize)
    return np.array(ends, start.dtype)


def _arithmetic(function: Callable[[Array, Array], Array]) -> Callable[[Any, Array, Array], Array]:
    def computed(node: Any, one: Array, two: Array) -> Array:
        _test_size(node, np.broadcast_shapes(one.shape, two.shape), one.itemsize)
        return function(one, two)

    return computed


_PASSING = {"Identity", "StopGradient", "PlaceholderWithDefault", "ReadVariableOp"}
_FROM_SHAPE = {"Shape": _shape, "ZerosLike": _like(0), "OnesLike": _like(1)}


@cache
def _functions() -> dict[str, Callable[..., Array]]:
    """What works each op out; made when first asked for, since it takes numpy."""
    return {
        "Cast": _cast,
        "Reshape": lambda node, value, shape: value.reshape(shape),
        "ExpandDims": lambda node, value, axis: np.expand_dims(value, int(axis)),
        "Pack": lambda node, *values: np.stack(values, node.attr["axis"].i if "axis" in node.attr else 0),
        "ConcatV2": lambda node, *values: np.concatenate(values[:-1], int(values[-1])),
        "Range": _range,
        "Transpose": lambda node, value, order: value.transpose(order),
        "Add": _arithmetic(np.add),
        "AddV2": _arithmetic(np.add),
        "Sub": _arithmetic(np.subtract),
        "Mul": _arithmetic(np.multiply),
        "Neg": lambda node, value: -value,
        "Sqrt": lambda node, value: np.sqrt(value),
    }
