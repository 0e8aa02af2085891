"""What values can be transferred from: the tensors of a model or checkpoint that are weights, by variables' names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graph_restore.checkpoint.roles import roles
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.slices import TensorSlice, join
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.pairing import Item
from graph_restore.variables import Variable

_PART = re.compile(r"/part_\d+(?=/|$)")  # also within the name of a slot
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_COUNTERS = ("global_step", "beta1_power", "beta2_power")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Donors:
    """`values`: name to tensor, in the order of the model. `aside`: of those only for training, what they are. `graph`:
    the model's, None for a checkpoint alone."""

    values: Mapping[str, LazyTensor]
    aside: Mapping[str, str] = field(default_factory=dict)
    graph: Graph | None = None

    def items(self) -> list[Item]:
        """Names and shapes of the weights, without those that are aside."""
        return [Item(name, tensor.shape) for name, tensor in self.values.items() if name not in self.aside]


def of_model(model: Model) -> Donors:
    """Those of a model's variables that have values; partitioned ones put together."""
    values: dict[str, LazyTensor] = {}
    aside: dict[str, str] = {}
    parts: dict[str, list[tuple[TensorSlice, LazyTensor]]] = {}
    for variable in model.variables:
        if variable.value is None:
            continue
        name = variable.name if variable.slice is None else _PART.sub("", variable.name)
        if variable.slice is not None:
            parts.setdefault(name, []).append((variable.slice, variable.value))
        values[name] = variable.value
        what = _what(variable)
        aside.update({name: what} if what else {})
    for name, slices in parts.items():
        full_shape = slices[0][0].full_shape
        if sum(value.size for _, value in slices) == math.prod(full_shape):
            values[name] = join(name, slices[0][1].data_type, full_shape, slices)
        else:  # some were not restored
            aside[name] = f"{len(slices)} of its parts only"
    return Donors(values, aside, model.graph)


def _what(variable: Variable) -> str:
    if variable.is_slot:
        return f"a slot of {variable.slot_of}"
    if variable.moving_average_of is not None:
        return f"the moving average of {variable.moving_average_of}"
    return "a local variable" if "local_variables" in variable.collections else _counter(variable.name)


def _counter(name: str) -> str:
    return "a number of the training" if name.rpartition("/")[2] in _COUNTERS else ""


def of_tensors(tensors: Mapping[str, Any]) -> Donors:
    """Those of a checkpoint, a weights file or a mapping, in the order of their names, in which 10 comes after 9."""
    values = {str(key).removesuffix(_VALUE): tensors[key] for key in sorted(tensors, key=_natural)}
    aside: dict[str, str] = {}
    for key, role in roles(tensors).items():
        what = role.kind + (f" of {role.of}" if role.of else "") if role.kind != "variable" else _counter(key)
        aside.update({key.removesuffix(_VALUE): what} if what else {})
    return Donors(values, aside)


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in _DIGITS.split(name)]
