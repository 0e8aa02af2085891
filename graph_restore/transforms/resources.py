"""Resource variables in place of the reference variables of TensorFlow 1, in the graph alone.

1. `Variable` and `VariableV2` become `VarHandleOp`. One that is fetched itself stays fetchable: its name goes to a
   ReadVariableOp, and the handle is called `<name>/handle`.
2. An Identity of a reference becomes a ReadVariableOp of the same name. Any other op that takes a reference as a value
   gets a ReadVariableOp before it, which waits for all that the op waits for.
3. Updates take their resource forms: Assign* become Assign*VariableOp, Scatter* ResourceScatter*, Apply* and
   SparseApply* ResourceApply* and ResourceSparseApply*. These have no output: where the output of the old op is
   fetched, or is all there is of it, its name goes to a read that comes after the update `<name>/update`.
4. RefSwitch, RefEnter and their like pass the handle on, as Switch and Enter.
5. A reference is a view of the buffer, a read of a resource variable a copy. A read whose value is used after an update
   that did not come before the read is done once more where it is used (see `rereads`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.errors import UpgradeError
from graph_restore.model import Model
from graph_restore.names import input_name, node_of, parse_tensor_name
from graph_restore.ops import op_table
from graph_restore.protos import NodeDef
from graph_restore.transforms.aliases import INITIALISED_TESTS, REF_PASSING, Aliases, find_aliases
from graph_restore.transforms.contexts import NEXT_ITERATIONS
from graph_restore.transforms.draft import Draft, Tensor, control_inputs
from graph_restore.transforms.feeds import resolve
from graph_restore.transforms.functions import modern_functions
from graph_restore.transforms.rereads import Reach, Reread, find_rereads
from graph_restore.transforms.resource_forms import (
    handle_shape,
    take_twin,
    twin,
    upgraded,
    upgraded_collection,
    upgraded_saver,
)
from graph_restore.transforms.signatures import outputs_of
from graph_restore.variables import Variable, Variables


def upgrade_variables(model: Model, fetches: str | Iterable[str] = ()) -> Model:
    """The model with resource variables in place of reference ones; the model itself when it has none.

    `fetches`: names that must stay fetchable though they are a variable's or an update's own; those of the model and
    its signatures are kept in any case. Values, checkpoint keys and all other names stay as they are.

    Raises UpgradeError, naming the nodes, for what has no form with resource variables, or would compute something
    else; NodeNotFoundError for fetches that are not there.
    """
    references = [variable for variable in model.variables if variable.kind == "ref"]
    if not references:
        return model
    graph = modern_functions(model.graph)
    signed = [name for signature in model.signatures.values() for name in outputs_of(signature)]
    known = [name for name in (*model.fetches, *signed) if node_of(name) in graph.nodes]
    given = [fetches] if isinstance(fetches, str) else list(fetches)
    upgrade = _Upgrade(Draft(graph), references, {name for name, _ in resolve(graph, [*given, *known])})
    upgrade.run()
    handles = upgrade.handles
    return replace(
        model,
        graph=upgrade.draft.finish(),
        variables=Variables(upgraded(variable, handles) for variable in model.variables),
        collections={name: upgraded_collection(value, handles) for name, value in model.collections.items()},
        savers=tuple(upgraded_saver(saver, handles) for saver in model.savers),
        notes=(*model.notes, f"{len(references)} reference variables became resource variables"),
    )


class _Upgrade:
    """The change of one draft."""

    def __init__(self, draft: Draft, references: list[Variable], wanted: set[str]) -> None:
        self.draft = draft
        self._former = dict(draft.nodes)
        self._variables = {variable.name: variable for variable in references}
        self._wanted = wanted
        self._aliases: Aliases = find_aliases(draft, references)
        self._updates_of: dict[str, list[str]] = {}
        for access in self._aliases.accesses:
            if access.updates:
                self._updates_of.setdefault(access.variable, []).append(access.node)
        self._updates = {name for names in self._updates_of.values() for name in names}
        self._consumers = draft.consumers()
        self._reach = Reach(self._consumers)
        self.handles = {name: draft.free_name(f"{name}/handle") if name in wanted else name for name in self._variables}
        self._shared_reads: dict[tuple[str, tuple[str, ...]], str] = {}
        self._value_merges = {name for name, node in draft.nodes.items() if self._merges_values(node)}

    def run(self) -> None:
        """Change everything; UpgradeError before anything of use is lost."""
        self._refuse()
        rereads = find_rereads(self.draft, self._aliases, self._variables, self._value_merges)
        for access in self._aliases.accesses:
            source = parse_tensor_name(self._former[access.node].input[access.position])
            if not access.updates and source[0] not in self._value_merges:
                self._turn_read(access.node, access.position, access.variable)
        for reread in rereads:
            self._read_again(reread)
        for (name, _), owner in self._aliases.tensors.items():
            if self._former[name].op in REF_PASSING:
                self._turn_passing(name, owner)
        for name in [name for name in self._former if name in self._updates]:
            self._turn_update(name)
        for variable in self._variables.values():
            self._turn_variable(variable)

    def _refuse(self) -> None:
        wrong = {}
        for name in self._variables:
            if self._former[name].op == "AutoReloadVariable":
                wrong[name] = "AutoReloadVariable has no resource form"
        for name in self._updates:
            node = self._former[name]
            form = op_table().get(twin(node.op))
            if form is None or form.until:
                wrong[name] = f"{node.op} has no resource form"
            for position, item in enumerate(self.draft.data_inputs(node)):
                if self.draft.graph.ops.is_ref_input(node, position) and item not in self._aliases.tensors:
                    wrong[name] = f"input {position} of {node.op} is a reference to something that is no variable"
        for name, _ in self._aliases.tensors:
            if self._former[name].op == "RefSelect":
                wrong[name] = "RefSelect has no resource form"
        if wrong:
            listed = "; ".join(f"{name}: {reason}" for name, reason in wrong.items())
            raise UpgradeError(f"variables cannot be upgraded: {listed}; cut the graph to what you need", nodes=wrong)

    def _merges_values(self, node: Any) -> bool:
        """Whether a RefMerge ends a cond and is only read: then it merges what its branches read."""
        if node.op != "RefMerge" or (node.name, 0) not in self._aliases.tensors:
            return False
        if any(self._former[node_of(item)].op in NEXT_ITERATIONS for item in node.input):
            return False
        for user, position in self._consumers[node.name]:
            takes = parse_tensor_name(user.input[position]) == (node.name, 0)
            updates = user.name in self._updates and self._is_reference(user, position)
            if takes and (user.op in REF_PASSING or updates):
                return False
        return True

    def _is_reference(self, node: Any, position: int) -> bool:
        return bool(self.draft.graph.ops.is_ref_input(node, position))

    def _handle(self, tensor: Tensor) -> tuple[Tensor, list[str]]:
        """(the handle that stands for a reference, control inputs on the updates it came through)."""
        waits: list[str] = []
        name, index = tensor
        while name in self._updates:
            waits.append(f"^{name}")
            name, index = parse_tensor_name(self._former[name].input[0])
        return ((self.handles[name], 0) if name in self.handles else (name, index)), waits

    def _turn_read(self, name: str, position: int, owner: str) -> None:
        node = self.draft.change(name)
        source = parse_tensor_name(self._former[name].input[position])
        handle, waits = self._handle(source)
        number = self._variables[owner].data_type
        if node.op in INITIALISED_TESTS:
            _become(node, "VarIsInitializedOp", {})
        elif node.op == "Identity":
            _become(node, "ReadVariableOp", {"dtype": number})
        elif node.op == "Gather" and position == 0:
            indices, validate = node.attr["Tindices"].type, node.attr["validate_indices"]
            _become(node, "ResourceGather", {"dtype": number, "Tindices": indices})
            node.attr["validate_indices"].b = validate.b if validate.HasField("b") else True
        else:
            node.input[position] = self._read(handle, owner, [*waits, *self._waits_of(name, position, owner)])
            return
        node.input[position] = input_name(*handle)
        node.input.extend(wait for wait in waits if wait not in node.input)

    def _waits_of(self, name: str, position: int, owner: str) -> list[str]:
        """What a read for an input of a node must wait for: what the node waits for, if the variable is updated."""
        node = self._former[name]
        updates = self._updates_of.get(owner, ())
        if not any(name in self._reach.of(update) for update in updates) or node.op in ("Enter", "Merge"):
            return control_inputs(node)
        others = [
            f"^{source}"
            for other, (source, index) in enumerate(self.draft.data_inputs(node))
            if other != position and (source, index) not in self._aliases.tensors
        ]
        return list(dict.fromkeys([*others, *control_inputs(node)]))

    def _read(self, handle: Tensor, owner: str, waits: list[str]) -> str:
        key = (input_name(*handle), tuple(waits))
        if key not in self._shared_reads:
            inputs = dict.fromkeys([key[0], *waits])
            read = NodeDef(name=self.draft.free_name(f"{owner}/Read"), op="ReadVariableOp", input=inputs)
            read.attr["dtype"].type = self._variables[owner].data_type
            self._shared_reads[key] = self.draft.add(read).name
        return self._shared_reads[key]

    def _read_again(self, reread: Reread) -> None:
        """A copy of the way from a variable to a use, with the read where the use is."""
        source, waits = self._handle(parse_tensor_name(self._former[reread.access].input[reread.position]))
        is_handle = True
        for (name, position), output in zip(reread.steps, reread.outputs):
            copy = NodeDef()
            copy.CopyFrom(self._former[name])
            if is_handle and copy.op == "Identity":
                waits += control_inputs(copy)
                continue
            copy.name = self.draft.free_name(f"{name}/again")
            if is_handle and copy.op in ("Switch", "Enter"):
                copy.attr["T"].type = DataType.DT_RESOURCE
                copy.input.extend(wait for wait in waits if wait not in copy.input)
                waits = []
            elif is_handle:
                source, is_handle = (self._read(source, reread.variable, [*waits, *reread.waits]), 0), False
            copy.input[position] = input_name(*source)
            self._forget_shape(self.draft.add(copy))
            source = (copy.name, output)
        if is_handle:
            source = (self._read(source, reread.variable, [*waits, *reread.waits]), 0)
        self.draft.change(reread.site).input[reread.site_position] = input_name(*source)

    def _turn_passing(self, name: str, owner: str) -> None:
        node = self.draft.change(name)
        if not node.op.startswith("Ref"):
            return  # done: a Switch has two outputs
        values = name in self._value_merges
        node.op = node.op.removeprefix("Ref")
        node.attr["T"].type = self._variables[owner].data_type if values else DataType.DT_RESOURCE
        for position, item in enumerate(self._former[name].input):
            tensor = parse_tensor_name(item)
            if tensor not in self._aliases.tensors:
                continue
            handle, waits = self._handle(tensor)
            if values and tensor[0] not in self._value_merges:
                node.input[position] = self._read(handle, owner, waits)
            elif not values:
                node.input[position] = self._passed(handle, waits) if node.op == "Merge" else input_name(*handle)
                node.input.extend(waits if node.op != "Merge" else ())
        self._forget_shape(node)

    def _passed(self, handle: Tensor, waits: list[str]) -> str:
        """A handle that waits for updates."""
        if not waits:
            return input_name(*handle)
        node = NodeDef(
            name=self.draft.free_name(f"{waits[0][1:]}/handle"), op="Identity", input=[input_name(*handle), *waits]
        )
        node.attr["T"].type = DataType.DT_RESOURCE
        return str(self.draft.add(node).name)

    def _turn_update(self, name: str) -> None:
        node = self.draft.change(name)
        former, number = self._former[name], 0
        for position, item in enumerate(former.input):
            tensor = parse_tensor_name(item)
            if tensor in self._aliases.tensors and self._is_reference(former, position):
                handle, waits = self._handle(tensor)
                number = number or self._variables[self._aliases.tensors[tensor]].data_type
                node.input[position] = input_name(*handle)
                node.input.extend(wait for wait in waits if wait not in node.input)
        gives_reference = (name, 0) in self._aliases.tensors
        handle, _ = self._handle((name, 0)) if gives_reference else (("", 0), [])
        take_twin(node, number)
        self._forget_shape(node)
        if gives_reference and self._stays_fetchable(name):
            update = NodeDef()
            update.CopyFrom(node)
            update.name = self.draft.free_name(f"{name}/update")
            self.draft.add(update)
            read = NodeDef(name=name, op="ReadVariableOp", input=[input_name(*handle), f"^{update.name}"])
            read.attr["dtype"].type = number
            read.device = node.device
            self.draft.add(read)

    def _stays_fetchable(self, name: str) -> bool:
        owner = self._variables[self._aliases.tensors[name, 0]]
        return name in self._wanted or (not self._consumers[name] and name != owner.initializer)

    def _turn_variable(self, variable: Variable) -> None:
        former = self._former[variable.name]
        handle = NodeDef(name=self.handles[variable.name], op="VarHandleOp", device=former.device)
        handle.input.extend(control_inputs(former))
        for name in ("container", "_class"):
            if name in former.attr:
                handle.attr[name].CopyFrom(former.attr[name])
        handle.attr["shared_name"].s = former.attr["shared_name"].s or variable.name.encode()
        handle.attr["dtype"].type = variable.data_type
        handle.attr["shape"].shape.CopyFrom(handle_shape(variable))
        self.draft.add(handle)
        if handle.name != variable.name:
            read = NodeDef(name=variable.name, op="ReadVariableOp", input=[handle.name], device=former.device)
            read.attr["dtype"].type = variable.data_type
            self.draft.add(read)

    def _forget_shape(self, node: Any) -> None:
        if "_output_shapes" in node.attr:
            del node.attr["_output_shapes"]


def _become(node: Any, op: str, types: Mapping[str, int]) -> None:
    node.op = op
    for name in [name for name in node.attr if name not in ("_class", "_gradient_op_type")]:
        del node.attr[name]
    for name, number in types.items():
        node.attr[name].type = number
