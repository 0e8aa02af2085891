"""Finding the variables of a graph, by authority, best first:

1. restore ops (then save ops) of the savers in the graph: checkpoint key and slice;
2. VariableDefs in collections: initializer, initial value, snapshot, trainable, slice;
3. topology: the variable op, the Assign that initialises it, its read, its initial value;
4. optimizer ops: trainable, slots; updates of moving averages; names only where nothing else tells.

Each fact keeps the authority it came from. Works on a bare GraphDef as well; names such as `<variable>/Assign` decide
only between candidates the topology leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from graph_restore.dtypes import DataType, data_type
from graph_restore.graph import Graph
from graph_restore.names import is_control, parse_tensor_name, tensor_name
from graph_restore.protos import VariableDef
from graph_restore.savers import ASSIGN_OPS, restore_nodes, variable_of
from graph_restore.slices import TensorSlice
from graph_restore.variables import REF_OPS, VARIABLE_OPS, SaverEntry, SaverMap, Shape, Variable, Variables, shape_of

TRAINABLE_COLLECTION = "trainable_variables"
_SLOT_NAMES = frozenset((
    "Adam", "Adam_1", "adam_m", "adam_v", "Momentum", "Adagrad", "RMSProp", "RMSProp_1", "RMSProp_2", "Ftrl", "Ftrl_1",
    "Adadelta", "Adadelta_1", "AdaMax", "AdaMax_1", "LARSOptimizer", "lamb_m", "lamb_v",
))  # fmt: skip
_READS = ("Identity", "ReadVariableOp")
AVERAGE_NAME = "ExponentialMovingAverage"
_BLANK = Variable("", "", DataType.DT_INVALID, None)


def find_variables(graph: Graph, collections: Mapping[str, Any], savers: Sequence[SaverMap]) -> Variables:
    """Every variable op of the graph, in file order, with all that is known of it."""
    parsed: dict[bytes, Any] = {}
    defined = {name: _variable_defs(collection, parsed) for name, collection in collections.items()}
    definitions = _definitions(parsed.values())
    memberships = _memberships(collections, defined)
    topology = _Topology(graph, savers)
    entries = _entries(savers[0] if savers else None)
    found = []
    for node in graph.of_ops(VARIABLE_OPS):
        variable = _from_attributes(node)
        _from_saver(variable, entries.get(variable.name))
        _from_definition(variable, definitions.get(variable.name), memberships.get(variable.name, ()))
        topology.complete(variable)
        found.append(variable)
    _optimizer_facts(graph, found, bool(memberships))
    return Variables(found)


def with_saver(variables: Iterable[Variable], saver: SaverMap | None) -> list[Variable]:
    """The variables with keys and slices as one saver has them."""
    entries = _entries(saver)
    result = []
    for variable in variables:
        entry = entries.get(variable.name)
        if entry is not None and not _agrees(variable, entry):
            variable = variable.replaced(authority=dict(variable.authority))
            _from_saver(variable, entry)
        result.append(variable)
    return result


def _entries(saver: SaverMap | None) -> dict[str | None, SaverEntry]:
    """The first entry of each variable."""
    return {entry.variable: entry for entry in reversed(saver.entries)} if saver is not None else {}


def _learn(variable: Variable, authority: str, **facts: Any) -> None:
    """Add facts to a variable that is being made here; nobody else has it yet, so it need not be made anew for each."""
    variable.__dict__.update(facts)
    variable.__dict__["authority"].update(dict.fromkeys(facts, authority))


def _from_attributes(node: Any) -> Variable:
    kind = "ref" if node.op in REF_OPS else "resource"
    number = data_type(node.attr["dtype"].type)
    known = {"name": node.name, "kind": kind, "data_type": number, "shape": _declared_shape(node)}
    return _BLANK.replaced(**known, authority={"shape": "attribute"})


def _declared_shape(node: Any) -> Shape:
    """The shape attr; for the old op Variable, rank 0 there means unknown, and `_output_shapes` may know better."""
    declared = node.attr["shape"].shape
    if node.op == "Variable" and not declared.dim:
        shapes = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
        return shape_of(shapes[0]) if shapes else None
    return shape_of(declared)


def _from_saver(variable: Variable, entry: SaverEntry | None) -> None:
    if entry is not None and not _agrees(variable, entry):
        _learn(variable, entry.authority, checkpoint_key=entry.key, slice=entry.slice)


def _agrees(variable: Variable, entry: SaverEntry) -> bool:
    known = (variable.checkpoint_key, variable.slice, variable.authority.get("checkpoint_key"))
    return known == (entry.key, entry.slice, entry.authority)


def _definitions(parsed: Iterable[Any]) -> dict[str, Any]:
    """VariableDefs by the node name of their variable, the fullest where there are several."""
    found: dict[str, Any] = {}
    for definition in parsed:
        if definition is not None:
            name = parse_tensor_name(definition.variable_name)[0]
            if name not in found or definition.ByteSize() > found[name].ByteSize():
                found[name] = definition
    return found


def _variable_defs(collection: Any, parsed: dict[bytes, Any]) -> list[Any]:
    """The VariableDefs among the items of a collection; `parsed`: those of other collections, and these then."""
    for data in collection.bytes_list.value:
        if data not in parsed:  # most are in several collections
            parsed[data] = _variable_def(data)
    return [parsed[data] for data in collection.bytes_list.value if parsed[data] is not None]


def _variable_def(data: bytes) -> Any:
    """A VariableDef if the bytes of a collection item are one; queue runners and contexts lie in collections too."""
    try:
        definition = VariableDef.FromString(data)
    except Exception:  # protobuf's DecodeError has no public base that all its implementations share
        return None
    looks_right = definition.variable_name and (definition.initializer_name or definition.snapshot_name)
    return definition if looks_right else None


def _memberships(collections: Mapping[str, Any], defined: Mapping[str, Iterable[Any]]) -> dict[str, tuple[str, ...]]:
    """Node name to the collections it is in, whether listed as VariableDef or (before 1.4) by tensor name."""
    found: dict[str, list[str]] = {}
    for name in sorted(collections):
        members = {*(definition.variable_name for definition in defined[name]), *collections[name].node_list.value}
        for node in {parse_tensor_name(member)[0] for member in members}:
            found.setdefault(node, []).append(name)
    return {node: tuple(names) for node, names in found.items()}


def _from_definition(variable: Variable, definition: Any, collections: tuple[str, ...]) -> None:
    facts: dict[str, Any] = {}
    if collections:
        facts["collections"] = collections
    if definition is not None:
        facts["trainable"] = TRAINABLE_COLLECTION in collections
        facts["initializer"] = parse_tensor_name(definition.initializer_name)[0] or None
        facts["snapshot"] = definition.snapshot_name or None
        facts["initial_value"] = definition.initial_value_name or None
        if variable.slice is None and variable.checkpoint_key is None and definition.save_slice_info_def.full_name:
            part = definition.save_slice_info_def
            box = TensorSlice(tuple(part.full_shape), tuple(part.var_offset), tuple(part.var_shape))
            facts.update(checkpoint_key=part.full_name, slice=None if box.whole else box)
    _learn(variable, "collection", **{name: fact for name, fact in facts.items() if fact is not None})


class _Topology:
    """Initializers and reads, found by what feeds an Assign and by which node runs it; looked for when first asked
    for, as collections tell of most."""

    def __init__(self, graph: Graph, savers: Iterable[SaverMap]) -> None:
        self._graph = graph
        self._savers = list(savers)

    @cached_property
    def _assigns(self) -> dict[str, list[Any]]:
        """The Assigns of each variable that no saver runs."""
        found: dict[str, list[Any]] = {}
        restored_by = restore_nodes(self._savers)
        for node in self._graph.of_ops(ASSIGN_OPS):
            if node.input and node.name not in restored_by:
                found.setdefault(variable_of(self._graph, node.input[0]) or "", []).append(node)
        return found

    @cached_property
    def _reads(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for node in self._graph.of_ops(_READS):
            for source in node.input[:1]:
                found.setdefault(parse_tensor_name(source)[0], []).append(node)
        return found

    def complete(self, variable: Variable) -> None:
        """Fill in initializer, initial value, snapshot and, for an old scalar, shape."""
        if variable.initializer is None:
            assign = self._initializer(variable.name)
            if assign is not None:
                _learn(variable, "topology", initializer=assign.name)
        node = self._graph.nodes.get(variable.initializer or "")
        if variable.shape is None and node is not None and self._is_scalar(variable.name, node):
            _learn(variable, "topology", shape=())
        if variable.initial_value is None and node is not None and len(node.input) > 1:
            _learn(variable, "topology", initial_value=tensor_name(*parse_tensor_name(node.input[1])))
        if variable.snapshot is None:
            read = self._read(variable.name)
            if read is not None:
                _learn(variable, "topology", snapshot=tensor_name(read.name))

    def _is_scalar(self, name: str, assign: Any) -> bool:
        """Whether an op Variable of rank 0, so of unknown shape, is a scalar: TensorFlow refuses to assign it anything
        else while `validate_shape` holds, and turned that off where the shape was truly unknown."""
        is_old = self._graph.nodes[name].op == "Variable" and assign.op == "Assign"
        return is_old and ("validate_shape" not in assign.attr or bool(assign.attr["validate_shape"].b))

    def _initializer(self, name: str) -> Any:
        """The Assign whose value needs no placeholder and not the variable itself; best by group, then by name."""
        candidates = [node for node in self._assigns.get(name, ()) if not self._is_update(node, name)]
        ranked = sorted(
            candidates,
            key=lambda node: (
                -self._run_by_groups.get(node.name, 0),
                node.name != f"{name}/Assign",
                not node.name.endswith("Assign"),
            ),
        )
        return ranked[0] if ranked else None

    def _is_update(self, node: Any, name: str) -> bool:
        """Whether what an Assign writes comes from the variable itself, a feed, or another variable as it is now."""
        waiting, seen = [node.input[1]] if len(node.input) > 1 else [], set()
        copied = variable_of(self._graph, node.input[1]) if waiting else None
        if copied is not None and node.name not in self._run_by_groups:
            return True
        while waiting:
            source = self._graph.nodes.get(parse_tensor_name(waiting.pop())[0])
            if source is None or source.name in seen:
                continue
            seen.add(source.name)
            if source.name == name or source.op == "Placeholder":
                return True
            if source.op not in VARIABLE_OPS:
                waiting.extend(item for item in source.input if not is_control(item))
        return False

    def _read(self, name: str) -> Any:
        reads = self._reads.get(name, [])
        if len(reads) == 1:
            return reads[0]
        usual = (f"{name}/read", f"{name}/Read/ReadVariableOp")
        return max(
            reads,
            key=lambda node: (node.name in usual, len(self._graph.consumers.get(node.name, ()))),
            default=None,
        )

    @cached_property
    def _run_by_groups(self) -> dict[str, int]:
        """Assign nodes that a NoOp runs together with those of other variables, as `init` does; with how many."""
        members: dict[str, int] = {}
        all_assigns = {node.name: target for target, nodes in self._assigns.items() for node in nodes}
        for node in self._graph.by_op.get("NoOp", ()):
            run = [item[1:] for item in node.input if is_control(item) and item[1:] in all_assigns]
            if run and len({all_assigns[name] for name in run}) == len(run):
                members.update({name: max(len(run), members.get(name, 0)) for name in run})
        return members


def _optimizer_facts(graph: Graph, variables: list[Variable], has_collections: bool) -> None:
    """Fill in what the graph trains, slots and moving averages."""
    names = {variable.name for variable in variables}
    trained, slots = _optimized(graph)
    averages = dict(_averages(graph))
    for variable in variables:
        if variable.name in slots:
            _learn(variable, "optimizer op", slot_of=slots[variable.name][0], slot=slots[variable.name][1])
        elif (base := _base_by_name(variable.name, names, _SLOT_NAMES)) is not None:
            _learn(variable, "name", slot_of=base[0], slot=base[1])
        if variable.name in averages:
            _learn(variable, "topology", moving_average_of=averages[variable.name])
        elif (base := _base_by_name(variable.name, names, (AVERAGE_NAME,))) is not None:
            _learn(variable, "name", moving_average_of=base[0])
        if variable.trainable is None and has_collections:
            _learn(variable, "collection", trainable=TRAINABLE_COLLECTION in variable.collections)
    if trained:
        _training(graph, variables, trained)


def _training(graph: Graph, variables: list[Variable], trained: set[str]) -> None:
    """Fill in `trainable` as the optimizer tells: one that has slots is trained too, though no Apply op takes it where
    its gradients are sparse; one that is scattered into without having slots may be."""
    trained = trained | {variable.slot_of for variable in variables if variable.slot_of is not None}
    unsure = _scattered(graph) - {variable.name for variable in variables if variable.is_slot} - trained
    for variable in variables:
        if variable.trainable is None and variable.name not in unsure:
            _learn(variable, "optimizer op", trainable=variable.name in trained)


def _scattered(graph: Graph) -> set[str | None]:
    scatters = _of_kind(graph, "Scatter", "ResourceScatter")
    return {variable_of(graph, node.input[0]) for node in scatters if node.input}


def _of_kind(graph: Graph, *prefixes: str) -> Iterator[Any]:
    """The nodes whose op begins so."""
    return (node for op, nodes in graph.by_op.items() if op.startswith(prefixes) for node in nodes)


def _base_by_name(name: str, names: set[str], endings: Iterable[str]) -> tuple[str, str] | None:
    """(variable, ending) when the name is that of a variable with one of the endings TF1 gives to slots."""
    base, _, last = name.rpartition("/")
    if last in endings:
        if base in names:
            return base, last
        scoped = [other for other in names if base.endswith("/" + other)]  # slots made under an optimizer's scope
        if scoped:
            return max(scoped, key=len), last
    return None


def _optimized(graph: Graph) -> tuple[set[str], dict[str, tuple[str, str]]]:
    """Variables that Apply ops train, and slot to (variable, slot name) from the ops' further ref or handle inputs."""
    trained: set[str] = set()
    slots: dict[str, tuple[str, str]] = {}
    uses: Counter[str] = Counter()
    for node in _of_kind(graph, "Apply", "SparseApply", "ResourceApply", "ResourceSparseApply"):
        op = graph.ops.get(node.op)
        target = variable_of(graph, node.input[0]) if node.input else None
        if op is None or target is None:
            continue
        trained.add(target)
        for argument, name in zip(op.inputs[1:], node.input[1:]):
            other = variable_of(graph, name) if argument.is_ref or argument.type == 20 else None
            if other is not None:
                slots[other] = (target, argument.name)
                uses[other] += 1
    return trained, {slot: owner for slot, owner in slots.items() if uses[slot] == 1}


def _averages(graph: Graph) -> Iterator[tuple[str, str]]:
    """(shadow, variable) of `shadow -= (shadow - variable) * (1 - decay)`, as ExponentialMovingAverage writes it."""
    for node in [*graph.by_op.get("AssignSub", ()), *graph.by_op.get("AssignSubVariableOp", ())]:
        if len(node.input) < 2:
            continue
        shadow = variable_of(graph, node.input[0])
        product = graph.nodes.get(parse_tensor_name(node.input[1])[0])
        for factor in product.input if product is not None and product.op == "Mul" else ():
            difference = graph.nodes.get(parse_tensor_name(factor)[0])
            if difference is not None and difference.op == "Sub" and shadow is not None:
                sides = [variable_of(graph, name) for name in difference.input if not is_control(name)]
                if shadow in sides and None not in sides and len(set(sides)) == 2:
                    yield shadow, str(next(side for side in sides if side != shadow))
