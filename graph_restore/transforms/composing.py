"""Composer: nodes made in the place of one node, in a graph or in a function's body.

    make = Composer(node, free_name, table)
    shape = make("Shape", "images", T=DataType.DT_FLOAT)     what comes back names output 0, as inputs are written there
    make.last("Reshape", "images", shape, T=..., Tshape=...)  takes the name of the node it stands for

Constants get a control input on what the node took, so that inside a loop or cond they are in the node's frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, from_numpy
from graph_restore.graph import tensor_attr
from graph_restore.names import is_control, node_of
from graph_restore.ops import OpTable
from graph_restore.protos import NodeDef


class Composer:
    """Makes `nodes`, named after the node they stand for."""

    def __init__(self, node: Any, free_name: Callable[[str], str], ops: OpTable, function: bool = False) -> None:
        """`free_name` gives a name that no other node has; `function`: whether the node is in a function's body."""
        self.nodes: list[Any] = []
        self._owner = node
        self._free_name = free_name
        self._taken: set[str] = set()
        self._ops = ops
        self._function = function

    @property
    def inputs(self) -> list[str]:
        """The data inputs of the node that is replaced."""
        return [name for name in self._owner.input if not is_control(name)]

    def type(self, attr: str) -> DataType:
        """A type attr of the node that is replaced."""
        return DataType(self._owner.attr[attr].type)

    def text(self, attr: str) -> str:
        """A string attr of the node that is replaced, "" if it has none."""
        return str(self._owner.attr[attr].s.decode()) if attr in self._owner.attr else ""

    def __call__(self, op: str, *inputs: str, **attrs: Any) -> str:
        """A new node; returns the name of its output 0."""
        return self._output(self._add(self._name(op), op, inputs, attrs), 0)

    def constant(self, value: Any) -> str:
        """A new Const of an array, or of Python integers as int32; returns the name of its output."""
        array = np.asarray(value, None if isinstance(value, np.ndarray) else np.int32)
        node = self._add(self._name("Const"), "Const", (), {"dtype": from_numpy(array.dtype)})
        node.attr["value"].CopyFrom(tensor_attr(array))
        if not self._function and self.inputs:
            node.input.append(f"^{node_of(self.inputs[0])}")
        return self._output(node, 0)

    def output(self, name: str, index: int) -> str:
        """Another output of the node whose output 0 is called `name`."""
        made = next(node for node in self.nodes if node.name == name.partition(":")[0])
        return self._output(made, index)

    def last(self, op: str, *inputs: str, **attrs: Any) -> None:
        """The node that takes the place, and the name, of the one that is replaced."""
        node = self._add(str(self._owner.name), op, inputs, attrs)
        node.device = self._owner.device
        node.input.extend(name for name in self._owner.input if is_control(name))

    def _name(self, op: str) -> str:
        """A name below the owner's that no node has, those made before included."""
        wanted, number = f"{self._owner.name}/{op}", 0
        free = self._free_name(wanted)
        while free in self._taken:
            number += 1
            free = self._free_name(f"{wanted}_{number}")
        self._taken.add(free)
        return free

    def _add(self, name: str, op: str, inputs: tuple[str, ...], attrs: dict[str, Any]) -> Any:
        node = NodeDef(name=name, op=op, input=inputs)
        for key, value in attrs.items():
            _set(node.attr[key], value)
        self.nodes.append(node)
        return node

    def _output(self, node: Any, index: int) -> str:
        if not self._function:
            return f"{node.name}:{index}" if index else str(node.name)
        output, first, _ = next(span for span in self._ops.output_names(node) if span[1] <= index < span[1] + span[2])
        return f"{node.name}:{output}:{index - first}"


def _set(attr: Any, value: Any) -> None:
    if isinstance(value, DataType):
        attr.type = value
    elif isinstance(value, bool):
        attr.b = value
    elif isinstance(value, int):
        attr.i = value
    elif isinstance(value, str):
        attr.s = value.encode()
    elif isinstance(value, list):
        attr.list.type.extend(value)
    else:
        attr.CopyFrom(value)
