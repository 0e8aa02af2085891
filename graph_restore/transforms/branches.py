"""The conds of TensorFlow 1 (Switch, Merge) turned into functional If.

1. The nodes of a branch are those that run under a predicate's Switch; a Merge of the two branches ends them.
2. Merges whose branches share nodes become outputs of one If. What the branches take from outside, through Switches or
   not, are its inputs; what they wait for outside, it waits for.
3. A cond stays as it is when something but its Merges takes a node of a branch, or when its inputs need its outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType
from graph_restore.graph import tensor_attr
from graph_restore.names import input_name, is_control, node_of, parse_tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.contexts import NEXT_ITERATIONS
from graph_restore.transforms.cut_functions import Body, add_function, is_stateful, tensor_type, unknown_shapes
from graph_restore.transforms.draft import Draft, Tensor, control_inputs

Condition = tuple[Tensor, int]  # a predicate and the branch taken
_FREE = frozenset[Condition]()


@dataclass
class _Cond:
    """Merges that end one cond: the predicate, where it runs, and for each branch its nodes and Switches."""

    predicate: Tensor
    outer: frozenset[Condition]
    merges: list[str]
    branches: tuple[set[str], set[str]]
    switches: set[str] = field(default_factory=set)
    constants: set[str] = field(default_factory=set)  # from outside, copied into the branches

    @property
    def nodes(self) -> set[str]:
        return self.branches[0] | self.branches[1]


def turn_conds(draft: Draft, region: set[str], targets: Iterable[str], pseudo: Mapping[str, str]) -> set[str]:
    """Turn the conds among the nodes of `region`, inner ones first; returns the names that were added to it.

    `targets`: nodes taken from outside the region. `pseudo`: nodes of the region that belong to a loop itself, by
    kind: "header" for its Merges, "switch" for its Switches.
    """
    added: set[str] = set()
    given_up: set[str] = set()
    while True:
        region |= added
        conds = _Region(draft, region, pseudo)
        found = [cond for cond in conds.conds() if not given_up & set(cond.merges)]
        if not found:
            return added
        deepest = max(len(cond.outer) for cond in found)
        for cond in found:
            if len(cond.outer) < deepest:
                continue
            if conds.is_closed(cond, set(targets)) and not conds.needs_itself(cond):
                added |= _turn(draft, cond, conds)
                region -= cond.nodes
            else:
                given_up |= set(cond.merges)


class _Region:
    """The conditions that nodes of a region run under."""

    def __init__(self, draft: Draft, region: set[str], pseudo: Mapping[str, str]) -> None:
        self._draft = draft
        self._region = {name for name in region if name in draft.nodes}
        self._pseudo = pseudo
        self._conditions: dict[str, frozenset[Condition]] = {}
        for name in self._region:
            if name not in self._conditions:
                self._work_out(name)
        self._consumers = draft.consumers()

    def conditions(self, name: str) -> frozenset[Condition]:
        """Those a node runs under."""
        return self._conditions.get(name, _FREE)

    def of_edge(self, item: str) -> frozenset[Condition]:
        """Those under which an input has a value."""
        name, index = parse_tensor_name(item)
        if index >= 0 and self.is_switch(name):
            return self.conditions(name) | {(self.predicate(name), index)}
        return self.conditions(name)

    def is_switch(self, name: str) -> bool:
        """Whether a node is the Switch of a cond of the region."""
        return name in self._region and self._draft.nodes[name].op == "Switch" and name not in self._pseudo

    def predicate(self, switch: str) -> Tensor:
        """The predicate of a Switch, seen through Identity."""
        tensor = parse_tensor_name(self._draft.nodes[switch].input[1])
        while self._draft.nodes[tensor[0]].op == "Identity" or (self.is_switch(tensor[0])):
            tensor = parse_tensor_name(self._draft.nodes[tensor[0]].input[0])
        return tensor

    def _inputs(self, name: str) -> list[str]:
        return [] if self._pseudo.get(name) == "header" else list(self._draft.nodes[name].input)

    def _work_out(self, name: str) -> None:
        waiting = [name]
        while waiting:
            current = waiting[-1]
            missing = [
                source
                for source in map(node_of, self._inputs(current))
                if source in self._region and source not in self._conditions
            ]
            if missing and current not in self._conditions:
                self._conditions[current] = _FREE  # until all inputs are known
                waiting += missing
                continue
            waiting.pop()
            incoming = [self.of_edge(item) for item in self._inputs(current)]
            self._conditions[current] = _FREE
            if incoming and self._is_merge(current):
                self._conditions[current] = frozenset.intersection(*incoming)
            elif incoming:
                self._conditions[current] = frozenset.union(*incoming)

    def _is_merge(self, name: str) -> bool:
        return self._draft.nodes[name].op == "Merge" and name not in self._pseudo

    def conds(self) -> list[_Cond]:
        """The conds of the region, those that share nodes put together."""
        found: list[_Cond] = []
        for name in [name for name in self._draft.nodes if name in self._region and self._is_merge(name)]:
            cond = self._ended_by(name)
            if cond is None:
                continue
            for other in [other for other in found if self._same(cond, other)]:
                found.remove(other)
                cond = _Cond(
                    cond.predicate,
                    cond.outer,
                    [*other.merges, *cond.merges],
                    (cond.branches[0] | other.branches[0], cond.branches[1] | other.branches[1]),
                    cond.switches | other.switches,
                    cond.constants | other.constants,
                )
            found.append(cond)
        return found

    def _same(self, one: _Cond, other: _Cond) -> bool:
        same = (one.predicate, one.outer) == (other.predicate, other.outer)
        return same and bool(one.nodes & other.nodes or one.switches & other.switches)

    def _ended_by(self, merge: str) -> _Cond | None:
        data = [item for item in self._draft.nodes[merge].input if not is_control(item)]
        if len(data) != 2 or len(data) != len(self._draft.nodes[merge].input):
            return None
        edges = [self.of_edge(item) for item in data]
        for predicate, branch in sorted(edges[0] - edges[1]):
            outer = edges[0] - {(predicate, branch)}
            if edges[1] == outer | {(predicate, 1 - branch)}:
                sides = {branch: data[0], 1 - branch: data[1]}
                cond = _Cond(predicate, outer, [merge], (set(), set()))
                for side in (0, 1):
                    self._collect(cond, side, sides[side])
                return cond
        return None

    def _collect(self, cond: _Cond, side: int, item: str) -> None:
        condition = (cond.predicate, side)
        waiting = [item]
        while waiting:
            name, index = parse_tensor_name(waiting.pop())
            if name in cond.branches[side]:
                continue
            if condition in self.conditions(name):
                cond.branches[side].add(name)
                waiting += self._draft.nodes[name].input
            elif index >= 0 and self.is_switch(name) and self.predicate(name) == cond.predicate:
                cond.switches.add(name)
            elif index >= 0 and self._draft.nodes[name].op == "Const" and ("", name) not in self._draft.payloads:
                cond.constants.add(name)

    def is_closed(self, cond: _Cond, targets: set[str]) -> bool:
        """Whether nothing but the Merges takes what is in the branches."""
        inside = cond.nodes | set(cond.merges)
        for name in cond.nodes:
            users = [user.name for user, _ in self._consumers.get(name, ())]
            if name in targets or any(user in self._draft.nodes and user not in inside for user in users):
                return False
        return bool(cond.switches)

    def needs_itself(self, cond: _Cond) -> bool:
        """Whether an input of the cond needs one of its outputs, be it by way of a loop that stays as it is."""
        merges = set(cond.merges)
        outside = {
            node_of(item) for name in cond.nodes | cond.switches for item in self._draft.nodes[name].input
        } - cond.nodes
        seen: set[str] = set()
        waiting = list(outside)
        while waiting:
            name = waiting.pop()
            if name in merges:
                return True
            if name not in seen and self._draft.nodes[name].op not in NEXT_ITERATIONS:
                seen.add(name)
                waiting += map(node_of, self._inputs(name))
        return False


def _turn(draft: Draft, cond: _Cond, region: _Region) -> set[str]:
    """Put an If in the place of a cond; returns the names of new nodes."""
    for side in (0, 1):
        for name in [name for name in cond.branches[side] if region.is_switch(name)]:
            if region.predicate(name) == cond.predicate:
                _pass_on(draft, name, side)
    arguments: dict[Tensor, int] = {}
    inputs: tuple[dict[Tensor, int], dict[Tensor, int]] = ({}, {})
    waits: dict[str, None] = {}
    for side in (0, 1):
        for item in _taken(draft, cond, side):
            name, index = parse_tensor_name(item)
            if name in cond.branches[side] or (index >= 0 and name in cond.constants):
                continue
            if index < 0:
                waits[item] = None
            else:
                source = parse_tensor_name(draft.nodes[name].input[0]) if name in cond.switches else (name, index)
                inputs[side][name, index] = arguments.setdefault(source, len(arguments))
    node = NodeDef(name=draft.free_name(f"{cond.merges[0]}/If"), op="StatelessIf")
    switch = next(name for name in sorted(cond.switches) if region.conditions(name) == cond.outer)
    node.input.extend([draft.nodes[switch].input[1], *(input_name(*tensor) for tensor in arguments), *waits])
    branches = [_branch(draft, cond, side, list(arguments), inputs[side], node.name) for side in (0, 1)]
    if any(is_stateful(draft, draft.nodes[name]) for name in cond.nodes):
        node.op = "If"
    node.attr["Tcond"].type = DataType.DT_BOOL
    node.attr["Tin"].list.type.extend(tensor_type(draft, tensor) for tensor in arguments)
    node.attr["Tin"].list.SetInParent()
    types = [draft.nodes[merge].attr["T"].type for merge in cond.merges]
    node.attr["Tout"].list.type.extend([*types, DataType.DT_INT32])
    node.attr["else_branch"].func.name, node.attr["then_branch"].func.name = branches
    node.attr["output_shapes"].list.shape.extend(unknown_shapes(len(types) + 1))
    node.attr["_lower_using_switch_merge"].b = True
    draft.add(node)
    for position, merge in enumerate(cond.merges):
        draft.add(_output(node.name, merge, position, len(types), types[position]))
    for name in cond.nodes:
        del draft.nodes[name]
    used = {node_of(item) for other in draft.nodes.values() for item in other.input}
    for name in cond.switches - used:
        del draft.nodes[name]
    return {node.name}


def _pass_on(draft: Draft, switch: str, side: int) -> None:
    """Turn a Switch that is in a branch itself, where it has no choice, into an Identity."""
    for user, position in draft.consumers()[switch]:
        if parse_tensor_name(user.input[position]) == (switch, side):
            draft.change(user.name).input[position] = switch
    former = draft.nodes[switch]
    node = NodeDef(name=switch, op="Identity", input=[former.input[0], *control_inputs(former)], device=former.device)
    node.attr["T"].CopyFrom(former.attr["T"])
    draft.add(node)


def _taken(draft: Draft, cond: _Cond, side: int) -> Iterator[str]:
    """Every input that a branch, or a Merge from it, takes."""
    for name in sorted(cond.branches[side]):
        yield from draft.nodes[name].input
    for merge in cond.merges:
        yield _merged(draft, cond, merge, side)


def _merged(draft: Draft, cond: _Cond, merge: str, side: int) -> str:
    """The input of a Merge that comes from a branch."""
    first, second = draft.nodes[merge].input[:2]
    name, index = parse_tensor_name(first)
    from_first = name in cond.branches[side] or (name in cond.switches and index == side)
    return str(first if from_first else second)


def _branch(
    draft: Draft, cond: _Cond, side: int, arguments: list[Tensor], inputs: Mapping[Tensor, int], name: str
) -> str:
    number = NodeDef(name=draft.free_name("branch_number"), op="Const")
    number.attr["dtype"].type = DataType.DT_INT32
    number.attr["value"].CopyFrom(tensor_attr(np.int32(side)))
    results = [parse_tensor_name(_merged(draft, cond, merge, side)) for merge in cond.merges]
    inside = cond.branches[side] | cond.constants
    nodes = [node for node in draft.nodes if node in inside]
    body = Body(arguments, inputs, nodes, [*results, (number.name, 0)])
    return add_function(draft, f"{name}_{('else', 'then')[side]}", body, [number])


def _output(name: str, merge: str, position: int, last: int, number: int) -> Any:
    """What a Merge becomes: the output, and the number of the branch it came from."""
    output = NodeDef(name=merge, op="IdentityN", input=[input_name(name, position), input_name(name, last)])
    output.attr["T"].list.type.extend([number, DataType.DT_INT32])
    return output
