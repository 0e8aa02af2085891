"""The while loops of TensorFlow 1 (Enter, Merge, LoopCond, Switch, NextIteration, Exit) turned into functional While.

    Enter -> Merge -> Switch -> (body) -> NextIteration -> Merge         Switch:0 -> Exit
             Merge -> (condition) -> LoopCond -> Switch

1. A loop variable is a Merge; what enters only to be used, an invariant, becomes one that each turn hands on.
2. The function of the condition holds what LoopCond needs, that of the body what the NextIterations need.
3. While is laid out as TensorFlow's own gradient of it expects (python/ops/while_v2.py): a counter of turns and the
   greatest number of them come first.
4. An Exit becomes an Identity of its name, or a StopGradient if the loop was built to have no gradient. Inner loops
   come first.
5. A loop that is not built so, or has a Stack in it (its gradient is in the graph), stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType
from graph_restore.graph import tensor_attr
from graph_restore.names import input_name, is_control, node_of, parse_tensor_name
from graph_restore.protos import NodeDef, TensorShapeProto
from graph_restore.transforms.branches import turn_conds
from graph_restore.transforms.contexts import Contexts
from graph_restore.transforms.cut_functions import Body, add_function, is_stateful, tensor_type, unknown_shapes
from graph_restore.transforms.draft import Draft, Tensor, control_inputs

_PARALLEL = 10  # TensorFlow's default for parallel_iterations


class NotTurned(Exception):
    """A loop that must stay as it is; the text says why."""


@dataclass
class _Loop:
    """The nodes of a frame by what they do. Loop variables are in the order of their Merges."""

    frame: str
    members: set[str]
    condition: str
    merges: list[str]
    enters: list[str]  # of the loop variables
    backs: list[str]  # NextIteration of each
    switches: dict[str, int]  # Switch to loop variable
    exits: dict[str, int]
    invariants: list[str]
    has_gradient: bool = True


def turn_loops(draft: Draft, targets: set[str], constant: Collection[str] = ()) -> dict[str, str]:
    """Turn the loops of a draft that was cut to `targets`; frame name to reason for those that stay.

    `constant`: the frames through which no gradient is to flow.
    """
    left: dict[str, str] = {}
    while True:
        contexts = Contexts(draft.nodes)
        frames = {contexts.of(name).frames for name, node in draft.nodes.items() if node.op == "LoopCond"}
        waiting = [frame for frame in frames if frame and "/".join(frame) not in left]
        if not waiting:
            return left
        deepest = max(map(len, waiting))
        for frame in sorted(frame for frame in waiting if len(frame) == deepest):
            try:
                loop = _understand(draft, contexts, frame)
                loop.has_gradient = frame[-1] not in constant
                _turn(draft, loop, targets)
            except NotTurned as reason:
                left["/".join(frame)] = str(reason)


def _understand(draft: Draft, contexts: Contexts, frame: tuple[str, ...]) -> _Loop:
    members = {name for name in draft.nodes if contexts.of(name).frames == frame}
    by_op: dict[str, list[str]] = {}
    for name in [name for name in draft.nodes if name in members]:
        by_op.setdefault(draft.nodes[name].op, []).append(name)
    stacks = [name for op, names in by_op.items() if op.startswith(("Stack", "TensorArrayGrad")) for name in names]
    if stacks:
        raise NotTurned(f"{stacks[0]} keeps values for the gradient that is in the graph")
    conditions = by_op.get("LoopCond", [])
    if len(conditions) != 1:
        raise NotTurned(f"it has {len(conditions)} conditions")
    enters = _enters(draft, contexts, frame)
    merges = [name for name in by_op.get("Merge", []) if enters & set(map(node_of, draft.nodes[name].input))]
    loop = _Loop(frame[-1], members, conditions[0], merges, [], [], {}, {}, [])
    for merge in merges:
        entering, back = _entrance(draft, merge, enters)
        loop.enters.append(entering)
        loop.backs.append(back)
    for name in by_op.get("Switch", []):
        if node_of(draft.nodes[name].input[1]) == conditions[0]:
            source = parse_tensor_name(draft.nodes[name].input[0])
            if source[0] not in merges or source[1] != 0:
                raise NotTurned(f"{name} takes {input_name(*source)}, which is no loop variable")
            loop.switches[name] = merges.index(source[0])
    for name in by_op.get("Exit", []):
        source = parse_tensor_name(draft.nodes[name].input[0])
        if source[0] not in loop.switches or source[1] != 0:
            raise NotTurned(f"{name} takes {input_name(*source)}, which is no loop variable")
        loop.exits[name] = loop.switches[source[0]]
    loop.invariants = _invariants(draft, enters, set(merges))
    return loop


def _enters(draft: Draft, contexts: Contexts, frame: tuple[str, ...]) -> set[str]:
    return {
        name for name, node in draft.nodes.items() if node.op == "Enter" and contexts.of_edge(name, 0).frames == frame
    }


def _entrance(draft: Draft, merge: str, enters: set[str]) -> tuple[str, str]:
    """(Enter, NextIteration) of a loop variable."""
    sources = [node_of(item) for item in draft.nodes[merge].input if not is_control(item)]
    entering = [name for name in sources if name in enters]
    back = [name for name in sources if draft.nodes[name].op == "NextIteration"]
    if len(sources) != 2 or len(entering) != 1 or len(back) != 1 or control_inputs(draft.nodes[back[0]]):
        raise NotTurned(f"{merge} is not the Merge of one Enter and one NextIteration")
    return entering[0], back[0]


def _invariants(draft: Draft, enters: set[str], merges: set[str]) -> list[str]:
    _copy_constants(draft, enters)
    taken: set[str] = set()
    for node in draft.nodes.values():
        if node.name not in merges:
            taken |= {node_of(item) for item in node.input if not is_control(item)}
    return [name for name in draft.nodes if name in enters and name in taken and draft.nodes[name].op == "Enter"]


def _copy_constants(draft: Draft, enters: set[str]) -> None:
    """Turn what brings a small constant into the loop into that constant: known values tell shapes."""
    consumers = draft.consumers()
    for name in enters:
        source = draft.nodes[node_of(draft.nodes[name].input[0])]
        if source.op == "Const" and ("", source.name) not in draft.payloads and _only_used(draft, name, consumers):
            copy = NodeDef()
            copy.CopyFrom(source)
            copy.name, copy.input[:] = name, []
            draft.add(copy)


def _only_used(draft: Draft, name: str, consumers: Any) -> bool:
    """Whether an Enter starts no loop variable."""
    return all(draft.nodes[user.name].op != "Merge" for user, _ in consumers[name])


def _turn(draft: Draft, loop: _Loop, targets: set[str]) -> None:
    pseudo = dict.fromkeys([*loop.merges], "header") | dict.fromkeys(loop.switches, "switch")
    ends = {node_of(draft.nodes[name].input[0]) for name in (*loop.backs, loop.condition)}
    loop.members |= turn_conds(draft, loop.members, targets | ends, pseudo)
    condition = _closure(draft, loop, [draft.nodes[loop.condition].input[0]])
    body = _closure(draft, loop, [draft.nodes[name].input[0] for name in loop.backs])
    twice = [name for name in condition & body if is_stateful(draft, draft.nodes[name])]
    if twice:
        raise NotTurned(f"{twice[0]} ({draft.nodes[twice[0]].op}) is part of its condition and of its body")
    if targets & (condition | body):
        raise NotTurned(f"{sorted(targets & (condition | body))[0]} in it is fetched")
    _put_while(draft, loop, condition, body)


def _closure(draft: Draft, loop: _Loop, ends: list[str]) -> set[str]:
    """The nodes of the loop that tensors need, loop variables and invariants aside."""
    given = {*loop.merges, *loop.switches, *loop.invariants, *loop.enters}
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        item = waiting.pop()
        name, index = parse_tensor_name(item)
        if name in found or name in given:
            if name in loop.switches and index == 0:
                raise NotTurned(f"{item} leaves the loop otherwise than by an Exit")
            if name in loop.merges and index > 0:
                raise NotTurned(f"{item}, which tells first turns from others, is used")
            continue
        node = draft.nodes[name]
        if name == loop.condition and index < 0:
            continue
        if name not in loop.members and not (node.op == "Const" and not node.input):
            raise NotTurned(f"{name} ({node.op}) is used in it and is not part of it")
        if node.op in ("NextIteration", "Exit"):
            raise NotTurned(f"{name} is waited for in it")
        found.add(name)
        waiting += node.input
    return found


def _put_while(draft: Draft, loop: _Loop, condition: set[str], body: set[str]) -> None:
    entering = [parse_tensor_name(draft.nodes[name].input[0]) for name in (*loop.enters, *loop.invariants)]
    name = draft.free_name(f"{loop.condition.rpartition('/')[0] or loop.condition}/While")
    counter, limit = (_number(draft, f"{name}/{word}", value, entering[0])
                      for word, value in (("loop_counter", 0), ("maximum_iterations", -1)))  # fmt: skip
    arguments: list[Tensor] = [(counter, 0), (limit, 0), *entering]
    inputs: dict[Tensor, int] = {(merge, 0): 2 + number for number, merge in enumerate(loop.merges)}
    inputs |= {(switch, 1): 2 + number for switch, number in loop.switches.items()}
    first = 2 + len(loop.merges)
    inputs |= {(enter, 0): first + number for number, enter in enumerate(loop.invariants)}
    condition_function = add_function(
        draft, f"{name}_cond", Body(arguments, inputs, [node for node in draft.nodes if node in condition],
                                    [parse_tensor_name(draft.nodes[loop.condition].input[0])])
    )  # fmt: skip
    body_function = _body_function(draft, loop, name, arguments, inputs, body)
    node = NodeDef(name=name, op="StatelessWhile", input=[input_name(*tensor) for tensor in arguments])
    if any(is_stateful(draft, draft.nodes[inner]) for inner in condition | body):
        node.op = "While"
    waits = [item for enter in (*loop.enters, *loop.invariants) for item in control_inputs(draft.nodes[enter])]
    node.input.extend(dict.fromkeys(waits))
    node.attr["T"].list.type.extend(tensor_type(draft, tensor) for tensor in arguments)
    node.attr["cond"].func.name, node.attr["body"].func.name = condition_function, body_function
    shapes = [TensorShapeProto(), TensorShapeProto(), *unknown_shapes(len(entering))]
    node.attr["output_shapes"].list.shape.extend(shapes)
    node.attr["parallel_iterations"].i = _parallel(draft, loop)
    node.attr["_lower_using_switch_merge"].b = True
    draft.add(node)
    for leaving, number in loop.exits.items():
        op = "Identity" if loop.has_gradient else "StopGradient"
        output = NodeDef(name=leaving, op=op, input=[input_name(name, 2 + number)])
        output.attr["T"].type = tensor_type(draft, entering[number])
        draft.add(output)
    gone = condition | body | {*loop.merges, *loop.switches, *loop.backs, *loop.enters, *loop.invariants}
    for inner in gone | {loop.condition}:
        if inner in loop.members or draft.nodes[inner].op == "Enter":
            del draft.nodes[inner]


def _parallel(draft: Draft, loop: _Loop) -> int:
    node = draft.nodes[loop.enters[0]]
    return int(node.attr["parallel_iterations"].i) if "parallel_iterations" in node.attr else _PARALLEL


def _body_function(
    draft: Draft, loop: _Loop, name: str, arguments: list[Tensor], inputs: dict[Tensor, int], body: set[str]
) -> str:
    """The body, with what counts the turns."""
    one = NodeDef(name=draft.free_name("turn"), op="Const")
    one.attr["dtype"].type = DataType.DT_INT32
    one.attr["value"].CopyFrom(tensor_attr(np.int32(1)))
    turns = NodeDef(name=draft.free_name("turns"), op="AddV2", input=[input_name(*arguments[0]), one.name])
    turns.attr["T"].type = DataType.DT_INT32
    inputs = {**inputs, arguments[0]: 0, arguments[1]: 1}
    condition = [draft.nodes[loop.condition]] if loop.condition in body else []
    extra = [one, turns, *(_plain(node) for node in condition)]
    results: list[Tensor] = [(turns.name, 0), arguments[1]]
    results += [parse_tensor_name(draft.nodes[back].input[0]) for back in loop.backs]
    results += [(enter, 0) for enter in loop.invariants]
    nodes = [node for node in draft.nodes if node in body and node != loop.condition]
    return add_function(draft, f"{name}_body", Body(arguments, inputs, nodes, results), extra)


def _plain(condition: Any) -> Any:
    """LoopCond as the Identity it is."""
    node = NodeDef(name=condition.name, op="Identity", input=condition.input)
    node.attr["T"].type = DataType.DT_BOOL
    return node


def _number(draft: Draft, name: str, value: int, beside: Tensor) -> str:
    """A Const in the loop and branch that a tensor is in."""
    node = NodeDef(name=draft.free_name(name), op="Const", input=[f"^{beside[0]}"])
    node.attr["dtype"].type = DataType.DT_INT32
    node.attr["value"].CopyFrom(tensor_attr(np.int32(value)))
    return str(draft.add(node).name)
