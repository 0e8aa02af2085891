"""TensorArrays turned into lists that are values, so that loops that fill and read them can be differentiated.

A TensorArray is a resource; what orders its use is a float, the flow, that every op takes and gives. A tensor list is
the flow itself: the value that each op takes and gives.

1. Every op on an array becomes that on a list, taking the list where it took the flow; what passes the flow on passes
   the list on.
2. TensorFlow's gradient of TensorListGather loses all but one of what comes back for an index that is there twice; so
   what is gathered is that of distinct indices, and an ordinary Gather repeats it.
3. An array whose flow or handle goes anywhere else (to a gradient, a fetch) stays an array, in its newest form: the
   ops of old graphs (string handles) are not allowed in functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType
from graph_restore.graph import tensor_attr
from graph_restore.names import input_name, is_control, node_of, parse_tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.draft import Draft, Tensor, control_inputs
from graph_restore.transforms.tensor_arrays import modern_tensor_arrays

_CREATORS = ("TensorArray", "TensorArrayV2", "TensorArrayV3")
_FLOW_PASSING = frozenset({"Enter", "Exit", "Merge", "Switch", "NextIteration", "Identity"})
_HANDLE_PASSING = frozenset({"Enter", "RefEnter", "Switch", "RefSwitch", "Identity", "RefIdentity"})
_GIVES_FLOW = frozenset({"Write", "Scatter", "Split", "Unpack"})
_KINDS = _GIVES_FLOW | {"Read", "Gather", "Concat", "Size", "Close", "Pack"}


def turn_tensor_arrays(draft: Draft, targets: Iterable[Tensor]) -> None:
    """Turn every TensorArray of the draft that can be turned; bring the others to their newest form."""
    fetched = set(targets)
    for name in [name for name, node in draft.nodes.items() if node.op in _CREATORS]:
        array = _Array(draft, name)
        if array.understood and not fetched & array.flows and not fetched & array.handles:
            array.turn()
    modern_tensor_arrays(draft)


def kind_of(op: str) -> str:
    """ "Write" of TensorArrayWrite, TensorArrayWriteV2 and V3; "" for another op."""
    word = op.removeprefix("TensorArray") if op.startswith("TensorArray") else ""
    word = word[:-2] if word.endswith(("V2", "V3")) else word
    return word if word in _KINDS else ""


class _Array:
    """One array: the tensors that are its handle or its flow, and the nodes that work on it."""

    def __init__(self, draft: Draft, name: str) -> None:
        self._draft = draft
        self._name = name
        self._consumers = draft.consumers()
        self.understood = True
        self.handles = self._handles()
        self._ops = [node.name for node, _ in self._takers(self.handles)]
        self.flows: set[Tensor] = set()
        if self.understood:
            self._find_flows()

    def _takers(self, tensors: set[Tensor]) -> Iterator[tuple[Any, int]]:
        for tensor in tensors:
            for node, position in self._consumers[tensor[0]]:
                passing = node.op in _HANDLE_PASSING
                if parse_tensor_name(node.input[position]) == tensor and not passing:
                    yield node, position

    def _handles(self) -> set[Tensor]:
        found: set[Tensor] = set()
        waiting: list[Tensor] = [(self._name, 0)]
        while waiting:
            tensor = waiting.pop()
            if tensor in found:
                continue
            found.add(tensor)
            for node, position in self._consumers[tensor[0]]:
                if parse_tensor_name(node.input[position]) != tensor:
                    continue
                if node.op in _HANDLE_PASSING and position == 0:
                    waiting += [(node.name, index) for index in range(2 if "Switch" in node.op else 1)]
                elif not kind_of(node.op) or position != 0:
                    self.understood = False
        return found

    def _find_flows(self) -> None:
        sources = {(self._name, 1)} if self._draft.nodes[self._name].op == "TensorArrayV3" else set()
        for name in self._ops:
            node = self._draft.nodes[name]
            if kind_of(node.op) in _GIVES_FLOW:
                sources.add((name, 0))
        for name in self._ops:
            if kind_of(self._draft.nodes[name].op) != "Close":
                self._trace_back(self._draft.data_inputs(self._draft.nodes[name])[-1], sources)
        self._trace_forward(sources)

    def _trace_back(self, flow: Tensor, sources: set[Tensor]) -> None:
        """Find where a flow starts; before TensorFlow 1.0 it is a constant."""
        waiting, seen = [flow], set()
        while waiting:
            tensor = waiting.pop()
            node = self._draft.nodes[tensor[0]]
            if tensor in sources or tensor in seen:
                continue
            seen.add(tensor)
            if node.op in _FLOW_PASSING:
                inputs = self._draft.data_inputs(node)
                waiting += inputs if node.op == "Merge" else inputs[:1]
            elif node.op == "Const":
                sources.add(tensor)
            else:
                self.understood = False

    def _trace_forward(self, sources: set[Tensor]) -> None:
        waiting = list(sources)
        while waiting:
            tensor = waiting.pop()
            if tensor in self.flows:
                continue
            self.flows.add(tensor)
            for node, position in self._consumers[tensor[0]]:
                if parse_tensor_name(node.input[position]) != tensor or is_control(node.input[position]):
                    continue
                if node.op in _FLOW_PASSING and (position == 0 or node.op == "Merge"):
                    waiting += [(node.name, index) for index in range(2 if node.op == "Switch" else 1)]
                elif node.name not in self._ops or position != len(self._draft.data_inputs(node)) - 1:
                    self.understood = False
        for name, _ in self.flows:
            node = self._draft.nodes[name]
            if node.op == "Merge" and any(tensor not in self.flows for tensor in self._draft.data_inputs(node)):
                self.understood = False

    def turn(self) -> None:
        """Make it a list."""
        creator = self._draft.nodes[self._name]
        dtype, shape = creator.attr["dtype"].type, _element_shape(creator)
        dynamic = creator.attr["dynamic_size"].b
        size, waits = creator.input[0], control_inputs(creator)
        starts = {tensor for tensor in self.flows if self._draft.nodes[tensor[0]].op == "Const"}
        starts |= {(self._name, 1)} & self.flows
        shape_node = self._constant(f"{self._name}/element_shape", shape, size)
        reserve = NodeDef(name=self._name, op="TensorListReserve", input=[shape_node, size, *waits])
        reserve.attr["element_dtype"].type = dtype
        reserve.attr["shape_type"].type = DataType.DT_INT32
        for name, _ in self.flows:
            if self._draft.nodes[name].op in _FLOW_PASSING:
                self._draft.change(name).attr["T"].type = DataType.DT_VARIANT
        for tensor in starts:
            self._replace(tensor, (self._name, 0))
        for name in self._ops:
            self._turn_op(name, dtype, dynamic, shape)
        self._draft.add(reserve)
        for name in {name for name, _ in self.handles} - {self._name}:
            self._drop(name)

    def _replace(self, old: Tensor, new: Tensor) -> None:
        for node, position in self._consumers[old[0]]:
            if parse_tensor_name(node.input[position]) == old:
                self._draft.change(node.name).input[position] = input_name(*new)

    def _drop(self, name: str) -> None:
        """Remove what passed the handle on; what waited for it waits for the array."""
        instead = f"^{self._name}"
        for node, _ in self._consumers[name]:
            if node.name in self._draft.nodes and f"^{name}" in self._draft.nodes[node.name].input:
                changed = self._draft.change(node.name)
                changed.input[:] = [instead if item == f"^{name}" else item for item in changed.input]
        del self._draft.nodes[name]

    def _turn_op(self, name: str, dtype: int, dynamic: bool, shape: Any) -> None:
        node = self._draft.nodes[name]
        kind, waits = kind_of(node.op), control_inputs(node)
        _, *others, flow = [item for item in node.input if not is_control(item)] + ([""] if kind == "Close" else [])
        changed = NodeDef(name=name, device=node.device)
        op, inputs = _LIST_OPS[kind]
        given = dict(zip(_ARGUMENTS[kind], others), flow=flow)
        if "shape" in inputs:
            given["shape"] = self._constant(f"{name}/element_shape", shape, flow)
        if "leading" in inputs:
            given["leading"] = self._constant(f"{name}/leading_dims", np.zeros([0], np.int64), flow)
        changed.op = op
        changed.input.extend([*(given[word] for word in inputs), *waits])
        for attr, value in _ATTRS.get(kind, {"element_dtype": dtype}).items():
            changed.attr[attr].type = value or dtype
        if kind == "Write" and dynamic:
            changed.attr["resize_if_index_out_of_bounds"].b = True
        if kind == "Gather" and self._draft.nodes[node_of(given["index"])].op != "Range":
            self._repeat(changed, dtype)
        self._draft.add(changed)

    def _repeat(self, gather: Any, dtype: int) -> None:
        """Make a gather one of distinct indices, under another name; its own is that of an op that repeats them."""
        name, index = gather.name, gather.input[1]
        distinct = NodeDef(name=self._draft.free_name(f"{name}/distinct"), op="Unique", input=[index])
        distinct.attr["T"].type = distinct.attr["out_idx"].type = _INT32
        gather.name, gather.input[1] = self._draft.free_name(f"{name}/gather"), distinct.name
        axis = self._constant(f"{name}/axis", np.int32(0), index)
        repeated = NodeDef(name=name, op="GatherV2", input=[gather.name, input_name(distinct.name, 1), axis])
        repeated.attr["Tparams"].type = dtype
        repeated.attr["Tindices"].type = repeated.attr["Taxis"].type = _INT32
        for node in (distinct, repeated):
            self._draft.add(node)

    def _constant(self, name: str, value: Any, beside: str) -> str:
        """A new Const in the loop and branch that the tensor `beside` is in."""
        node = NodeDef(name=self._draft.free_name(name), op="Const", input=[f"^{node_of(beside)}"])
        node.attr["dtype"].type = DataType.DT_INT64 if value.dtype == np.int64 else DataType.DT_INT32
        node.attr["value"].CopyFrom(tensor_attr(value))
        return str(self._draft.add(node).name)


def _element_shape(creator: Any) -> Any:
    """The element shape of an array as the list ops take it; -1 where it is not known."""
    shape = creator.attr["element_shape"].shape if "element_shape" in creator.attr else None
    known = shape is not None and not shape.unknown_rank and (shape.dim or creator.op == "TensorArrayV3")
    return np.array([dim.size for dim in shape.dim], np.int32) if shape is not None and known else np.int32(-1)


_ARGUMENTS = {
    "Write": ("index", "value"), "Read": ("index",), "Gather": ("index",), "Scatter": ("index", "value"),
    "Split": ("value", "lengths"), "Unpack": ("value",), "Concat": (), "Size": (), "Pack": (), "Close": (),
}  # fmt: skip
_LIST_OPS = {
    "Write": ("TensorListSetItem", ("flow", "index", "value")),
    "Read": ("TensorListGetItem", ("flow", "index", "shape")),
    "Gather": ("TensorListGather", ("flow", "index", "shape")),
    "Scatter": ("TensorListScatterIntoExistingList", ("flow", "value", "index")),
    "Split": ("TensorListSplit", ("value", "shape", "lengths")),
    "Unpack": ("TensorListFromTensor", ("value", "shape")),
    "Concat": ("TensorListConcatV2", ("flow", "shape", "leading")),
    "Size": ("TensorListLength", ("flow",)),
    "Pack": ("TensorListStack", ("flow", "shape")),
    "Close": ("NoOp", ()),
}  # fmt: skip
_INT32 = int(DataType.DT_INT32)
_ATTRS: dict[str, dict[str, int]] = {  # 0 stands for the dtype of the elements
    "Split": {"element_dtype": 0, "shape_type": _INT32},
    "Unpack": {"element_dtype": 0, "shape_type": _INT32},
    "Concat": {"element_dtype": 0, "shape_type": _INT32},
    "Size": {},
    "Close": {},
}
