"""unfreeze: constants of a frozen graph made variables again, so that it can be trained further.

    kind="resource"                                     kind="ref"
    w/variable  VarHandleOp, shared_name w              w           VariableV2
    w           ReadVariableOp                          w/read      Identity, taken by all that took w
    w/Assign    AssignVariableOp <- w/initial_value     w/Assign    Assign <- w/initial_value

1. In both forms tensor `w:0` is the value still, to be fetched and fed, and the checkpoint key is `w`. Freezing gives
   the Const `w` back (see `former`).
2. What a graph cannot have as a variable stays a Const, with a word: Consts in loops, the content of tables, initial
   values of other variables, and shapes, axes and indices (see `constness`). Function bodies are left as they are.
3. A control input of the Const, which says in which branch of a cond it runs, becomes one of the read.
4. What holds floating-point numbers is trainable, but for the moving statistics of batch normalisation.
5. `init` groups the initializers; a saver is added (see `saver`), and VariableDefs in the collections.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from graph_restore.arrays import np
from graph_restore.discovery import TRAINABLE_COLLECTION
from graph_restore.dtypes import DataType
from graph_restore.errors import GraphRestoreError
from graph_restore.graph import Graph, tensor_attr
from graph_restore.model import Model
from graph_restore.names import parse_tensor_name, tensor_name
from graph_restore.protos import NodeDef
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.constness import FLOATS, Constness
from graph_restore.transforms.definitions import GLOBAL_COLLECTION, with_definitions
from graph_restore.transforms.draft import Draft, control_inputs
from graph_restore.transforms.saver import build_saver
from graph_restore.transforms.selection import Selected, Selection
from graph_restore.variables import Variable, Variables

_STATISTICS = ("moving_mean", "moving_variance")
_STATISTICS_OF_NORM = (3, 4)  # the inputs of FusedBatchNorm that training does not touch
_MOST_NAMED = 8


def unfreeze(
    model: Model,
    *,
    kind: str = "resource",
    min_size: int | None = None,
    include: Selection = None,
    exclude: Selection = None,
    initializers: str = "values",
) -> Model:
    """The model with variables in the place of its constants, each with the constant's value, and with a saver.

    `kind`: "resource" (VarHandleOp) or "ref" (VariableV2). `min_size`: the fewest elements; by default any array, but
    no scalar. `include`, `exclude`: names, globs and the other forms that `restore` takes, of constants; without
    `include` all that hold floating-point numbers. `initializers`: "values", initializers with the constants' values;
    or "zeros", which keeps the graph small: then the checkpoint must be restored.

    `export(..., format="checkpoint")` writes the values under the constants' names; `freeze` gives the constants back.
    A model without such constants comes back as it is, with a note; GraphRestoreError when `include` asks for some.
    """
    if kind not in _FORMS or initializers not in ("values", "zeros"):
        raise ValueError("kind is 'resource' or 'ref', and initializers 'values' or 'zeros'")
    draft = Draft(model.graph)
    constness, made = Constness(model.graph), []
    kept: dict[str, list[str]] = {}
    for node in list(_chosen(model.graph, min_size, include, exclude)):
        reason = constness.reason(node)
        if reason is None:
            made.append(_Turned(draft, node, initializers).turn(kind))
        else:
            kept.setdefault(reason, []).append(node.name)
    for reason, names in kept.items():
        draft.note(f"{_listed(names)} stay constants: {reason}")
    if not made:
        return _as_it_was(model, draft, include)
    group = NodeDef(name=draft.free_name("init"), op="NoOp", input=[f"^{variable.initializer}" for variable in made])
    draft.add(group)
    unfrozen = replace(
        model,
        graph=draft.finish(),
        variables=Variables([*model.variables, *made]),
        collections=with_definitions(model.collections, made),
        restoration=None,  # it told of the variables that were frozen
        notes=(*model.notes, *draft.notes),
    )
    return build_saver(unfrozen)


def _chosen(graph: Graph, min_size: int | None, include: Selection, exclude: Selection) -> Iterable[Any]:
    wanted, left_out = Selected("include", include, default=True), Selected("exclude", exclude, default=False)
    for node in graph.graph_def.node:
        if node.op != "Const" or (include is None and node.attr["dtype"].type not in FLOATS):
            continue
        value = graph.value(node)
        smallest = 1 if min_size is None else min_size
        scalar = not value.shape and min_size is None and include is None
        described = Variable(node.name, "resource", value.data_type, value.shape)
        if value.size >= smallest and not scalar and wanted(described) and not left_out(described):
            yield node


def _as_it_was(model: Model, draft: Draft, include: Selection) -> Model:
    """The model with a note; GraphRestoreError when constants were asked for and none is there."""
    text = f"{model.source} has no constant to make a variable of; see min_size= and include="
    if include is not None:
        raise GraphRestoreError("; ".join([text, *draft.notes]))
    draft.note(text)
    return replace(model, notes=(*model.notes, *draft.notes))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


class _Turned:
    """One constant on its way to be a variable."""

    def __init__(self, draft: Draft, node: Any, initializers: str) -> None:
        self._draft = draft
        self._node = node
        self._value: LazyTensor = draft.graph.value(node)
        self._zeros = initializers == "zeros"

    def turn(self, kind: str) -> Variable:
        """Put the variable's nodes into the draft."""
        name, initial = self._node.name, self._initial_value()
        owner, read, assign = _FORMS[kind](self, initial)
        trainable = self._is_trained()
        return Variable(
            owner,
            kind,
            self._value.data_type,
            self._value.shape,
            checkpoint_key=name,
            initializer=assign,
            initial_value=tensor_name(initial),
            snapshot=tensor_name(read),
            trainable=trainable,
            collections=(GLOBAL_COLLECTION, TRAINABLE_COLLECTION) if trainable else (GLOBAL_COLLECTION,),
            value=self._value,
        )

    def _is_trained(self) -> bool:
        users = self._draft.graph.consumers[self._node.name]
        statistics = self._node.name.rpartition("/")[2] in _STATISTICS or any(
            user.op.startswith("FusedBatchNorm") and position in _STATISTICS_OF_NORM for user, position in users
        )
        return self._value.data_type in FLOATS and not statistics

    def resource(self, initial: str) -> tuple[str, str, str]:
        """(handle, read, initializer) as nodes; the read has the constant's name."""
        name, controls = self._node.name, control_inputs(self._node)
        handle = self._add(self._free("variable"), "VarHandleOp", [], dtype=self._value.data_type)
        handle.attr["shared_name"].s = name.encode()
        self._give_shape(handle)
        self._add(name, "ReadVariableOp", [handle.name, *controls], dtype=self._value.data_type)
        assign = self._add(
            self._free("Assign"), "AssignVariableOp", [handle.name, initial], dtype=self._value.data_type
        )
        return handle.name, name, assign.name

    def reference(self, initial: str) -> tuple[str, str, str]:
        """(variable, read, initializer); the variable has the constant's name."""
        name, controls = self._node.name, control_inputs(self._node)
        read = self._add(self._free("read"), "Identity", [name, *controls], T=self._value.data_type)
        for user, position in self._draft.graph.consumers[name]:
            if parse_tensor_name(user.input[position])[1] == 0:
                self._draft.change(user.name).input[position] = read.name
        variable = self._add(name, "VariableV2", [], dtype=self._value.data_type)
        self._give_shape(variable)
        assign = self._add(self._free("Assign"), "Assign", [name, initial], T=self._value.data_type)
        assign.attr["use_locking"].b = assign.attr["validate_shape"].b = True
        for node in (read, assign):
            node.attr["_class"].list.s.append(f"loc:@{name}".encode())
        return name, read.name, assign.name

    def _initial_value(self) -> str:
        name = self._free("initial_value")
        if self._zeros:
            return self._filled(name)
        const = NodeDef()
        const.CopyFrom(self._node)
        del const.input[:]
        for attr in [attr for attr in const.attr if attr not in ("dtype", "value")]:
            del const.attr[attr]
        const.name = name
        payload = self._draft.payloads.get(("", self._node.name))
        self._draft.add(const)
        if payload is not None:
            self._draft.payloads["", name] = payload
        return name

    def _filled(self, name: str) -> str:
        shape = self._constant(f"{name}/shape", np.array(self._value.shape, np.int32), DataType.DT_INT32)
        empty = b"" if self._value.data_type is DataType.DT_STRING else 0
        zero = self._constant(f"{name}/zero", empty, self._value.data_type)
        self._add(name, "Fill", [shape, zero], T=self._value.data_type)
        return name

    def _constant(self, name: str, value: Any, number: int) -> str:
        node = self._add(self._draft.free_name(name), "Const", [], dtype=number)
        array = value if isinstance(value, bytes) else np.asarray(value).astype(self._dtype(number))
        node.attr["value"].CopyFrom(tensor_attr(array))
        node.attr["value"].tensor.dtype = number
        return str(node.name)

    def _dtype(self, number: int) -> Any:
        return np.int32 if number == DataType.DT_INT32 else self._value.dtype

    def _give_shape(self, node: Any) -> None:
        for size in self._value.shape:
            node.attr["shape"].shape.dim.add(size=size)
        node.attr["shape"].shape.SetInParent()
        node.attr["container"].s = b""

    def _free(self, part: str) -> str:
        return self._draft.free_name(f"{self._node.name}/{part}")

    def _add(self, name: str, op: str, inputs: list[str], **types: int) -> Any:
        node = NodeDef(name=name, op=op, input=inputs, device=self._node.device)
        for attr, number in types.items():
            node.attr[attr].type = number
        return self._draft.add(node)


_FORMS = {"resource": _Turned.resource, "ref": _Turned.reference}
