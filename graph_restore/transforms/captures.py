"""Variables read inside function bodies: their handles, given to a call as arguments, become their values.

1. A call (PartitionedCall, If, Case, While, a function used as an op) that takes the handle of a variable gets a copy
   of its function in which that argument is a plain tensor: reads of the handle become Identity, gathers plain
   gathers, calls within are treated alike. One copy serves every call that gives the same arguments values.
2. A handle that a function returns is returned as its value (see `returned`); branches of a cond must agree in that,
   and the body of a While must return what it was given.
3. An op that only a handle will do for, a function that calls itself: refused, with the function and the node named.
   (Updates in a body were taken out before, see `carried_updates`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType
from graph_restore.errors import FreezeError
from graph_restore.graph import tensor_attr
from graph_restore.protos import FunctionDef
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.constants import constant_node
from graph_restore.transforms.returned import LOOPS, PASSING, Returned, argument_of, called, is_call

_PLAIN_READS = {"ResourceGather": "Gather", "ResourceGatherNd": "GatherNd", "VariableShape": "Shape"}

Types = Mapping[int, int]  # argument position to the DataType of the value it becomes


class Captures:
    """Functions whose handle arguments became values, made as they are asked for."""

    def __init__(self, functions: Mapping[str, Any], payloads: Mapping[tuple[str, str], LazyTensor]) -> None:
        self._functions = dict(functions)
        self._returned = Returned(functions)
        self._payloads = payloads
        self._made: dict[tuple[str, tuple[tuple[int, int], ...]], str] = {}
        self._open: list[str] = []
        self.functions: dict[str, Any] = {}
        self.payloads: dict[tuple[str, str], LazyTensor] = {}

    def turn(self, node: Any, types: Types) -> None:
        """Change a call in place so that the arguments in `types` are values; FreezeError where that cannot be."""
        given = [self._returned.outputs(node, position + _offset(node)) for position in types]
        for one in called(node):
            one.name = self._with_values(one.name, types)
        if node.op in self._functions:
            node.op = self._with_values(node.op, types)
        for attr in [name for name in ("Tin", "T") if name in node.attr]:
            listed = node.attr[attr].list.type
            for position in [position for position in types if position < len(listed)]:
                listed[position] = types[position]
        for index in sorted(set().union(*given)):
            self._change_output(node, index)

    def _change_output(self, node: Any, index: int) -> None:
        """Output `index` of a call is a value now: of one type, whichever function runs."""
        names = [_body(node).name] if node.op in LOOPS else [one.name for one in called(node)] or [node.op]
        outputs = [self._functions[name].signature.output_arg[index] for name in names]
        number = outputs[0].type
        given = node.attr["T"].list.type[index] if node.op in LOOPS and "T" in node.attr else number
        if any(output.type != given for output in outputs):
            raise FreezeError(
                f"{node.name} ({node.op}) gives a variable's handle in one branch or turn and something else in "
                "another; feed what it gives",
                nodes={node.name: "gives a variable's handle"},
            )
        if "Tout" in node.attr:
            node.attr["Tout"].list.type[index] = number
        shapes = node.attr["output_shapes"].list.shape if "output_shapes" in node.attr else ()
        if index < len(shapes):
            shapes[index].Clear()
            shapes[index].unknown_rank = True

    def _with_values(self, name: str, types: Types) -> str:
        """The name of the copy of function `name` whose arguments in `types` are values."""
        wanted = (name, tuple(sorted(types.items())))
        if wanted in self._made:
            return self._made[wanted]
        if name not in self._functions:
            raise FreezeError(
                f"the graph calls function {name}, which its library does not have", nodes={name: "missing"}
            )
        if name in self._open:
            raise FreezeError(
                f"function {name} calls itself with a variable's handle; that cannot be frozen",
                nodes={name: "recursive"},
            )
        self._open.append(name)
        copy = FunctionDef()
        copy.CopyFrom(self._functions[name])
        copy.signature.name = self._free_name(name)
        self._change(copy, types)
        self._open.pop()
        self.functions[copy.signature.name] = self._functions[copy.signature.name] = copy
        for (function, node), value in self._payloads.items():
            if function == name:
                self.payloads[(copy.signature.name, node)] = value
        self._made[wanted] = str(copy.signature.name)
        return self._made[wanted]

    def _free_name(self, name: str) -> str:
        number = 1
        while f"{name}_frozen_{number}" in self._functions:
            number += 1
        return f"{name}_frozen_{number}"

    def _change(self, function: Any, types: Types) -> None:
        handles: dict[str, int] = {}
        for position, number in types.items():
            argument = function.signature.input_arg[position]
            argument.type = number
            argument.ClearField("handle_data")
            handles[argument.name] = number
            if position in function.arg_attr:
                del function.arg_attr[position]
            if position in function.resource_arg_unique_id:
                del function.resource_arg_unique_id[position]
        handles = self._returned.spread(function, handles)
        renamed: dict[str, str] = {}
        added: list[Any] = []
        for node in function.node_def:
            self._change_node(function.signature.name, node, handles, renamed, added)
        function.node_def.extend(added)
        for node in function.node_def:
            node.input[:] = [renamed.get(item, item) for item in node.input]
        for output in function.signature.output_arg:
            source = function.ret[output.name]
            function.ret[output.name] = renamed.get(source, source)
            if source in handles:
                output.type = handles[source]
                output.ClearField("handle_data")

    def _change_node(
        self, function: str, node: Any, handles: Mapping[str, int], renamed: dict[str, str], added: list[Any]
    ) -> None:
        taken = {position: handles[item] for position, item in enumerate(node.input) if item in handles}
        if not taken:
            return
        number = next(iter(taken.values()))
        if node.op == "ReadVariableOp":
            _become(node, "Identity", {"T": number})
            renamed[f"{node.name}:value:0"] = f"{node.name}:output:0"
        elif node.op in PASSING:
            _become(node, node.op, {"T": number})
        elif node.op in _PLAIN_READS:
            axis = _become_plain_read(node, number)
            added.extend([axis] if axis is not None else [])
        elif node.op == "VarIsInitializedOp":
            _become_true(node)
            renamed[f"{node.name}:is_initialized:0"] = f"{node.name}:output:0"
        elif is_call(node, self._functions):
            self.turn(node, {argument_of(node, position): number for position, number in taken.items()})
        else:
            raise _refusal(function, node.name, f"({node.op}) takes the handle of a variable and no value will do")


def _offset(node: Any) -> int:
    """The input of a call that is the first argument of its functions."""
    return -argument_of(node, 0)


def _body(node: Any) -> Any:
    return next((value.func for name, value in node.attr.items() if name == "body"), None)


def _become(node: Any, op: str, types: Mapping[str, int]) -> None:
    node.op = op
    for name in list(node.attr):
        del node.attr[name]
    for name, number in types.items():
        node.attr[name].type = number


def _become_true(node: Any) -> None:
    node.input[:] = [item for item in node.input if item.startswith("^")]
    _become(node, "Const", {"dtype": DataType.DT_BOOL})
    node.attr["value"].CopyFrom(tensor_attr(np.bool_(True)))


def _become_plain_read(node: Any, number: int) -> Any:
    """Change a read in place; gives the Const of the axis that a gather with batch dimensions takes, or None."""
    indices, out_type = node.attr["Tindices"].type, node.attr["out_type"].type or DataType.DT_INT32
    batch_dims = node.attr["batch_dims"].i
    if node.op == "VariableShape":
        _become(node, "Shape", {"T": number, "out_type": out_type})
    elif batch_dims:
        axis = constant_node(f"{node.name}/batch_axis", DataType.DT_INT32, batch_dims)
        node.input.insert(2, f"{axis.name}:output:0")
        _become(node, "GatherV2", {"Tparams": number, "Tindices": indices, "Taxis": DataType.DT_INT32})
        node.attr["batch_dims"].i = batch_dims
        return axis
    else:
        _become(node, _PLAIN_READS[node.op], {"Tparams": number, "Tindices": indices})
    return None


def _refusal(function: str, node: str, why: str) -> FreezeError:
    name = function.rpartition("_frozen_")[0] or function
    return FreezeError(f"in function {name}, {node} {why}; feed what the call gives", nodes={f"{name}/{node}": why})
