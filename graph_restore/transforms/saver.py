"""build_saver: the save and restore nodes of a Saver, as TensorFlow 1 makes them, for a graph that has none.

    filename/input -> filename -> Const -> SaveV2 <- reads of the variables, names, slices
                                  Const -> control_dependency (^SaveV2)               the save tensor
                                  Const -> RestoreV2 -> Assign ...                    (Identity -> AssignVariableOp)
                                           restore_all (^Assign ...)                  the restore op

1. Saved are all variables but those of the collection `local_variables` that have no value, and the tables that savers
   of the graph save; under the variable's checkpoint key, its name where it has none.
2. A partitioned variable is one key with a slice for each part.
3. The graph's own saver is kept if it is of version 2 and saves exactly that.
See BaseSaverBuilder in tensorflow/python/training/saver.py, and tensorflow/core/protobuf/saver.proto.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType
from graph_restore.errors import RestoreError
from graph_restore.graph import tensor_attr
from graph_restore.model import Model
from graph_restore.names import input_name, tensor_name
from graph_restore.protos import NodeDef, SaverDef
from graph_restore.savers import find_savers, saved_tables
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.own_saver import own_saver
from graph_restore.transforms.saved_keys import SavedTensor, saved_tensors
from graph_restore.variables import Variable, Variables

_CPU = "/device:CPU:0"


def build_saver(model: Model) -> Model:
    """The model with a `saver_def` whose nodes are in its graph, and with the keys it saves under in its variables.

    A saver of the graph that saves all variables, in version 2, is taken as it is; else the nodes of a new one are
    added under `save/`, or `save_1/` and so on where that is taken. Nothing else is changed; values stay attached.

    Raises RestoreError when there are no variables, or two of them would be saved under one key.
    """
    tensors = saved_tensors(model)
    if not any(tensor.variable is not None for tensor in tensors):
        raise RestoreError(f"{model.source} has no variables, so there is nothing for a saver to save")
    found = own_saver(model, tensors)
    if found is not None:
        return replace(model, saver_def=found, savers=tuple(find_savers(model.graph, found)))
    builder = _Builder(model)
    saver_def = builder.build(tensors)
    graph = builder.draft.finish()
    return replace(
        model,
        graph=graph,
        saver_def=saver_def,
        savers=tuple(find_savers(graph, saver_def)),
        variables=_keyed(model.variables, tensors),
    )


def _keyed(variables: Variables, tensors: Iterable[SavedTensor]) -> Variables:
    keys = {tensor.variable.name: tensor.key for tensor in tensors if tensor.variable is not None}
    return Variables(_with_key(one, keys[one.name]) if one.name in keys else one for one in variables)


def _with_key(variable: Variable, key: str) -> Variable:
    authority = {**variable.authority, "checkpoint_key": "restore op"}
    return replace(variable, checkpoint_key=key, authority=authority)


class _Builder:
    """The nodes of one saver, made in a draft."""

    def __init__(self, model: Model) -> None:
        self.draft = Draft(model.graph)
        self._tables = {table.name: table for table in saved_tables(model.graph)}
        self._scope = self._free_scope()
        self._assigned: list[str] = []
        self._made: Counter[str] = Counter()

    def _free_scope(self) -> str:
        """TensorFlow compares scopes without regard to case."""
        taken = {part for name in self.draft.nodes for part in [name.split("/")[0].lower()]}
        number, scope = 0, "save"
        while scope in taken:
            number += 1
            scope = f"save_{number}"
        return scope

    def build(self, tensors: list[SavedTensor]) -> Any:
        """Add all nodes; the SaverDef that names them."""
        self._const("filename/input", "model")
        self._add("filename", "PlaceholderWithDefault", ["filename/input"], dtype=DataType.DT_STRING)
        self._add("Const", "PlaceholderWithDefault", ["filename"], dtype=DataType.DT_STRING)
        for name in ("filename", "Const"):
            self.draft.nodes[self._name(name)].attr["shape"].shape.SetInParent()
        self._save(tensors)
        self._restore(tensors)
        return SaverDef(
            filename_tensor_name=tensor_name(self._name("Const")),
            save_tensor_name=tensor_name(self._name("control_dependency")),
            restore_op_name=self._name("restore_all"),
            max_to_keep=5,
            keep_checkpoint_every_n_hours=10000.0,
            version=SaverDef.V2,
        )

    def _save(self, tensors: list[SavedTensor]) -> None:
        inputs = self._named("SaveV2", tensors, "")
        node = self._add("SaveV2", "SaveV2", inputs)
        node.attr["dtypes"].list.type.extend(tensor.data_type for tensor in tensors)
        node.input.extend(self._saved(tensor) for tensor in tensors)
        written = self._add("control_dependency", "Identity", ["Const"], T=DataType.DT_STRING)
        written.input.append(f"^{node.name}")
        written.attr["_class"].list.s.append(f"loc:@{self._name('Const')}".encode())

    def _saved(self, tensor: SavedTensor) -> str:
        """The input of SaveV2: a reference itself, a read of a handle, an output of a table's export."""
        variable = tensor.variable
        if variable is None:
            return self._exported(tensor)
        if variable.kind == "ref":
            return variable.name
        return str(self._next("ReadVariableOp", [variable.name], variable, dtype=variable.data_type).name)

    def _exported(self, tensor: SavedTensor) -> str:
        table = self._tables[tensor.table]
        name = self._name(f"{tensor.table}_export")
        if name not in self.draft.nodes:
            fill = self.draft.nodes[table.node]
            node = self._node(name, fill.op.replace("Import", "Export"), [table.table])
            node.input[0] = fill.input[0]
            node.attr["Tkeys"].type, node.attr["Tvalues"].type = fill.attr["Tin"].type, fill.attr["Tout"].type
        return input_name(name, tensor.output)

    def _restore(self, tensors: list[SavedTensor]) -> None:
        node = self._add("RestoreV2", "RestoreV2", self._named("RestoreV2", tensors, _CPU), _CPU)
        node.attr["dtypes"].list.type.extend(tensor.data_type for tensor in tensors)
        contents: dict[str, dict[int, str]] = {}
        for index, tensor in enumerate(tensors):
            value = input_name(node.name, index)
            if tensor.variable is None:
                contents.setdefault(tensor.table, {})[tensor.output] = value
            elif tensor.variable.kind == "ref":
                self._assign(tensor.variable, value)
            else:
                self._assign_handle(tensor.variable, value)
        for table, values in contents.items():
            self._import(table, values)
        self._add("restore_all", "NoOp", []).input.extend(f"^{name}" for name in self._assigned)

    def _assign(self, variable: Variable, value: str) -> None:
        node = self._next("Assign", [variable.name, value], variable, T=variable.data_type)
        known = variable.shape is not None and None not in variable.shape
        node.attr["use_locking"].b, node.attr["validate_shape"].b = True, known
        node.attr["_class"].list.s.append(f"loc:@{variable.name}".encode())
        self._assigned.append(node.name)

    def _assign_handle(self, variable: Variable, value: str) -> None:
        held = self._next("Identity", [value], variable, T=variable.data_type)
        node = self._next("AssignVariableOp", [variable.name, held.name], variable, dtype=variable.data_type)
        self._assigned.append(node.name)

    def _import(self, name: str, values: Mapping[int, str]) -> None:
        """A table is filled anew from its keys (0) and values (1), as its own saver does."""
        own = self.draft.nodes[self._tables[name].node]
        node = self._node(self._name(f"{name}_import"), own.op, [own.input[0], values[0], values[1]])
        for attr in ("Tin", "Tout"):
            node.attr[attr].CopyFrom(own.attr[attr])
        self._assigned.append(node.name)

    def _named(self, op: str, tensors: list[SavedTensor], device: str) -> list[str]:
        """The first three inputs of a save or restore op."""
        names = np.array([tensor.key.encode() for tensor in tensors], object)
        slices = np.array([tensor.spec.encode() for tensor in tensors], object)
        self._const(f"{op}/tensor_names", names, device)
        self._const(f"{op}/shape_and_slices", slices, device)
        return ["Const", f"{op}/tensor_names", f"{op}/shape_and_slices"]

    def _const(self, name: str, value: Any, device: str = "") -> None:
        node = self._add(name, "Const", [], device, dtype=DataType.DT_STRING)
        node.attr["value"].CopyFrom(tensor_attr(value))

    def _add(self, name: str, op: str, inputs: list[str], device: str = "", **types: int) -> Any:
        """A node of the saver whose inputs are nodes of the saver."""
        node = self._node(self._name(name), op, [self._name(item) for item in inputs], **types)
        node.device = device
        return node

    def _next(self, op: str, inputs: list[str], variable: Variable, **types: int) -> Any:
        """The next of the nodes that there is one of for each variable, `Assign`, `Assign_1` ..., on its device."""
        number = self._made[op]
        self._made[op] += 1
        node = self._node(self._name(f"{op}_{number}" if number else op), op, inputs, **types)
        node.device = self.draft.nodes[variable.name].device
        return node

    def _node(self, name: str, op: str, inputs: Iterable[str], **types: int) -> Any:
        node = NodeDef(name=name, op=op, input=inputs)
        for attr, number in types.items():
            node.attr[attr].type = number
        return self.draft.add(node)

    def _name(self, name: str) -> str:
        return f"{self._scope}/{name}"
