"""Which variable is the moving average of which tensor, told by the ops that update it, never by names.

With V the variable, m what is averaged and any share c:

1. `AssignSub(V, (V - m) * c)`, as assign_moving_average, ExponentialMovingAverage and Keras write it;
2. `AssignAdd(V, (m - V) * c)`;
3. `Assign(V, V * d + m * c)`, the shares known to add up to 1 or one of them written as 1 minus the other; `Assign(V,
   V - (V - m) * c)`;
4. `Assign(V, m)` where m comes from a fused batch norm that is given V itself (it does the averaging inside);
5. zero debias: `AssignSub(V, V - B / n)`, since 1.14 `Assign(V, B / n)`, where B is a variable that case 1 finds: m is
   averaged by V, not by B.
Cases 1 to 4 for reference and for resource variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graph_restore.transforms.pattern import PASSING, Pattern

FUSED = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_SUBTRACTS, _ADDS = ("AssignSub", "AssignSubVariableOp"), ("AssignAdd", "AssignAddVariableOp")
_ASSIGNS = ("Assign", "AssignVariableOp")
_PLUS, _QUOTIENTS = ("Add", "AddV2"), ("Div", "RealDiv")
_SEEN_THROUGH = frozenset({*PASSING, "Cast", "Switch"})
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class MovingAverage:
    """`variable` averages the tensor `value` (an input as nodes spell it) by the op `update`."""

    variable: str
    value: str
    update: str


def moving_averages(pattern: Pattern) -> list[MovingAverage]:
    """Every moving average that the graph updates."""
    found = []
    corrected: list[tuple[str, str, str]] = []
    for node in pattern.nodes.values():
        if node.op not in (*_SUBTRACTS, *_ADDS, *_ASSIGNS) or len(pattern.inputs(node)) < 2:
            continue
        variable = pattern.variable(node.input[0])
        value = _averaged(pattern, node, variable) if variable is not None else None
        if variable is not None and value is not None:
            found.append(MovingAverage(variable, value, node.name))
        biased = _corrected(pattern, node, variable) if variable is not None else None
        if variable is not None and biased is not None:
            corrected.append((variable, biased, node.name))
    for variable, biased, update in corrected:
        own = [average for average in found if average.variable == biased]
        found = [average for average in found if average.variable != biased]
        found += [MovingAverage(variable, average.value, update) for average in own]
    return found


def _averaged(pattern: Pattern, node: Any, variable: str) -> str | None:
    change = pattern.source(node.input[1], _SEEN_THROUGH)
    if change is None:
        return None
    if node.op in _SUBTRACTS:
        return _share_of_difference(pattern, change, variable, first=0)
    if node.op in _ADDS:
        return _share_of_difference(pattern, change, variable, first=1)
    return _new_value(pattern, node, change, variable)


def _is_variable(pattern: Pattern, item: str, variable: str) -> bool:
    return pattern.variable(item) == variable


def _share_of_difference(pattern: Pattern, node: Any, variable: str, first: int) -> str | None:
    """m, if the node is (V - m) * c, or with `first` 1 (m - V) * c."""
    if node.op != "Mul":
        return None
    for item in pattern.inputs(node):
        difference = pattern.source(item, _SEEN_THROUGH)
        is_difference = difference is not None and difference.op == "Sub"
        if is_difference and _is_variable(pattern, difference.input[first], variable):
            return str(difference.input[1 - first])
    return None


def _new_value(pattern: Pattern, assign: Any, node: Any, variable: str) -> str | None:
    if node.op in FUSED:
        return str(assign.input[1]) if any(_is_variable(pattern, item, variable) for item in node.input[3:5]) else None
    if node.op == "Sub" and _is_variable(pattern, node.input[0], variable):
        step = pattern.source(node.input[1], _SEEN_THROUGH)
        return _share_of_difference(pattern, step, variable, first=0) if step is not None else None
    if node.op not in _PLUS:
        return None
    for kept, new in (pattern.inputs(node), pattern.inputs(node)[::-1]):
        step = pattern.source(new, _SEEN_THROUGH)
        if _is_variable(pattern, kept, variable) and step is not None:
            return _share_of_difference(pattern, step, variable, first=1)
        value = _weighted(pattern, kept, new, variable)
        if value is not None:
            return value
    return None


def _weighted(pattern: Pattern, kept: str, new: str, variable: str) -> str | None:
    """m, for the terms V * d and m * c."""
    old, fresh = pattern.source(kept, _SEEN_THROUGH), pattern.source(new, _SEEN_THROUGH)
    if old is None or fresh is None or old.op != "Mul" or fresh.op != "Mul":
        return None
    shares = [other for item, other in _both_ways(pattern, old) if _is_variable(pattern, item, variable)]
    for value, share in _both_ways(pattern, fresh):
        if shares and _add_up(pattern, shares[0], share):
            return value
    return None


def _both_ways(pattern: Pattern, node: Any) -> list[tuple[str, str]]:
    one, other = pattern.inputs(node)
    return [(one, other), (other, one)]


def _add_up(pattern: Pattern, one: str, other: str) -> bool:
    """Whether two shares add up to 1, by their values or as one is written."""
    numbers = pattern.number(one), pattern.number(other)
    if numbers[0] is not None and numbers[1] is not None:
        return abs(numbers[0] + numbers[1] - 1) < _TOLERANCE
    for share, rest in ((one, other), (other, one)):
        node = pattern.source(share, _SEEN_THROUGH)
        is_rest = node is not None and node.op == "Sub" and pattern.number(node.input[0]) == 1
        if is_rest and pattern.tensor(node.input[1], _SEEN_THROUGH) == pattern.tensor(rest, _SEEN_THROUGH):
            return True
    return False


def _corrected(pattern: Pattern, node: Any, variable: str) -> str | None:
    """The variable B, if the node is AssignSub(V, V - B / n) or Assign(V, B / n)."""
    quotient = pattern.source(node.input[1], _SEEN_THROUGH)
    if node.op in _SUBTRACTS and quotient is not None and quotient.op == "Sub":
        whole, part = pattern.inputs(quotient)
        quotient = pattern.source(part, _SEEN_THROUGH) if _is_variable(pattern, whole, variable) else None
    elif node.op not in _ASSIGNS:
        return None
    if quotient is None or quotient.op not in _QUOTIENTS:
        return None
    biased = pattern.source(quotient.input[0], {*_SEEN_THROUGH, *_SUBTRACTS})
    return pattern.variable(quotient.input[0]) or (pattern.variable(biased.name) if biased is not None else None)
