"""Functions of calls that stay, made anew for the arguments that are known.

1. The function of a call, every branch of an If or Case, cond and body of a While, gets a copy in which the known
   arguments are Consts and what they settle is settled.
2. Arguments that no copy uses any more are given no longer, so that a variable which only a dead branch reads is not
   needed. A While keeps an argument that its body changes, or whose last value is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graph_restore.names import input_name, is_control, parse_tensor_name
from graph_restore.transforms.bodies import Body
from graph_restore.transforms.constants import constant_node
from graph_restore.transforms.draft import Draft, Tensor, control_inputs
from graph_restore.transforms.evaluation import Array

LOOPS = ("While", "StatelessWhile")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
Fold = Callable[[Draft, set[str], list[Tensor], set[str]], None]
Taken = tuple[set[int], int]


def called_functions(node: Any, library: Mapping[str, Any]) -> list[Any]:
    """The NameAttrLists (for an op that is a function: the node itself) that name what a call runs."""
    if node.op in library:
        return [node]
    if node.op in LOOPS:
        return [node.attr["cond"].func, node.attr["body"].func]
    if node.op in ("If", "StatelessIf"):
        return [node.attr["then_branch"].func, node.attr["else_branch"].func]
    if node.op in ("Case", "StatelessCase"):
        return list(node.attr["branches"].list.func)
    return [node.attr["f"].func] if node.op in ("PartitionedCall", "StatefulPartitionedCall") else []


def specialise(draft: Draft, node: Any, known: Mapping[int, Array], taken: Taken, fold: Fold) -> dict[str, str]:
    """Give a call functions made for its `known` arguments; gives inputs elsewhere in the graph that are now others.

    `taken`: the outputs of the call that are used, and the last one that has to keep its index.
    """
    called = called_functions(node, draft.graph.functions)
    bodies = [Body(draft, _name(item)) for item in called]
    if node.op in LOOPS:
        same = [position for position in range(len(bodies[1].returned)) if _returns_argument(bodies[1], position)]
        known = {position: value for position, value in known.items() if position in same}
    if not known:
        return {}
    for body in bodies:
        _settle(body, known, fold)
    used = _used(node, bodies, taken)
    changed = draft.change(node.name)
    for item, body in zip(called_functions(changed, draft.graph.functions), bodies):
        outputs = used if node.op in LOOPS and body is bodies[1] else None
        function = body.finish(_free_name(draft, body), used, outputs)
        _take_over(draft, body, function)
        if item is changed:
            changed.op = function.signature.name
        else:
            item.name = function.signature.name
    return _give_only(changed, used, len(bodies[0].arguments))


def _name(item: Any) -> str:
    return str(item.op if hasattr(item, "op") else item.name)


def _settle(body: Body, known: Mapping[int, Array], fold: Fold) -> None:
    given = set()
    for position, value in known.items():
        name = body.arguments[position]
        body.draft.add(constant_node(name, body.function.signature.input_arg[position].type, value))
        given.add(name)
    fold(body.draft, given, body.returned, body.runs)
    body.arguments = [name if name not in given else f"{name} (known)" for name in body.arguments]


def _used(node: Any, bodies: list[Body], outputs: Taken) -> list[int]:
    """The positions of the arguments that some function still uses, and, of a loop, whose last value matters."""
    needed = [body.roots() for body in bodies]
    count = len(bodies[0].arguments)
    if node.op not in LOOPS:
        return [position for position in range(count) if _is_needed(position, bodies, needed)]
    taken, last = outputs
    cond, body = bodies
    kept = []
    for position in range(count):
        passed = body.returned[position][0] == body.function.signature.input_arg[position].name
        elsewhere = _uses_beside_return(body, position)
        in_cond = cond.arguments[position] in needed[0]
        if position <= last or position in taken or not passed or elsewhere or in_cond:
            kept.append(position)
    return kept


def _is_needed(position: int, bodies: list[Body], needed: list[set[str]]) -> bool:
    return any(body.arguments[position] in names for body, names in zip(bodies, needed))


def _uses_beside_return(body: Body, position: int) -> bool:
    """Whether anything but its own place among what the body returns takes an argument."""
    name = body.arguments[position]
    roots = {source for index, (source, _) in enumerate(body.returned) if index != position} | body.runs
    return name in body.draft.ancestors(roots)


def _returns_argument(body: Body, position: int) -> bool:
    """Whether a loop's body gives an argument back as it came, through Identity at most."""
    name, index = body.returned[position]
    while body.draft.nodes[name].op == "Identity" and not index:
        name, index = parse_tensor_name(body.draft.nodes[name].input[0])
    if name == body.arguments[position]:
        body.returned[position] = (name, 0)
        return True
    return False


def _free_name(draft: Draft, body: Body) -> str:
    number, base = 1, str(body.function.signature.name)
    while f"{base}_settled_{number}" in {**draft.graph.functions, **draft.functions, **body.draft.functions}:
        number += 1
    return f"{base}_settled_{number}"


def _take_over(draft: Draft, body: Body, function: Any) -> None:
    """Put a new function, and those made for its own calls, into the draft."""
    name = function.signature.name
    draft.functions.update(body.draft.functions)
    draft.functions[name] = function
    for (owner, node), value in body.draft.payloads.items():
        if owner in body.draft.functions or not owner:
            draft.payloads[owner or name, node] = value


def _give_only(node: Any, used: list[int], count: int) -> dict[str, str]:
    """Drop a call's other inputs; gives the outputs of a While that are now others."""
    data = [item for item in node.input if not is_control(item)]
    first = len(data) - count
    node.input[:] = [*data[:first], *(data[first + position] for position in used), *control_inputs(node)]
    for name in ("Tin", "T"):
        if name in node.attr:
            types = node.attr[name].list.type
            types[:] = [types[position] for position in used]
    if node.op not in LOOPS:
        return {}
    shapes = list(node.attr["output_shapes"].list.shape) if "output_shapes" in node.attr else []
    if shapes:
        kept = [shapes[position] for position in used]
        del node.attr["output_shapes"]
        node.attr["output_shapes"].list.shape.extend(kept)
    return {input_name(node.name, old): input_name(node.name, new) for new, old in enumerate(used) if old != new}
