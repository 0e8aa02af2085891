"""Dropout taken out: where a graph multiplies by a random mask and divides by its rate, the input goes on as it is.

The mask is `floor(keep_prob + u)` up to TensorFlow 1.12, `u >= rate` from 1.13 on, u being uniform in [0, 1):

1. `x / keep_prob * mask` or `x * (1 / keep_prob) * mask`, the mask cast if need be;
2. `where(mask, x * scale, 0)`.
Both count only if the scale is the inverse of the share kept: otherwise the mean of the output is not the input, and
the model's own inference form is not known. What the mask is made of may come from outside of a loop: DropoutWrapper
with variational_recurrent has one u for all of its turns. See dropout in tensorflow/python/ops/nn_ops.py of those
releases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from graph_restore.protos import NodeDef
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.pattern import PASSING, Pattern

_UNIFORM = ("RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2")
_ADDS, _DIVISIONS, _SELECTS = ("Add", "AddV2"), ("Div", "RealDiv"), ("Select", "SelectV2")
_INVERSES = ("Inv", "Reciprocal")
_SEEN_THROUGH = frozenset({*PASSING, "Cast", "Enter"})
_TOLERANCE = 1e-2  # a half's 1 / 0.1 is off by that much


@dataclass(frozen=True)
class _Mask:
    """A random mask: the input that is the share kept, or else that which is the share dropped."""

    keep: str = ""
    rate: str = ""


def remove_dropout(draft: Draft, needed: Iterable[str]) -> list[str]:
    """Turn the last node of every dropout among `needed` into an Identity of what it drops from; gives their names."""
    pattern = Pattern(draft.graph, draft.nodes, draft.payloads)
    found = {}
    for name in needed:
        node = draft.nodes[name]
        kept = _dropped_from(pattern, node) if node.op == "Mul" or node.op in _SELECTS else None
        if kept is not None:
            found[name] = kept
    for name, kept in found.items():
        passer = NodeDef(name=name, op="Identity", device=draft.nodes[name].device, input=[kept])
        passer.attr["T"].CopyFrom(draft.nodes[name].attr["T"])
        draft.add(passer)
    return list(found)


def _dropped_from(pattern: Pattern, node: Any) -> str | None:
    """The input that dropout is applied to, if `node` is its last step."""
    inputs = pattern.inputs(node)
    if node.op in _SELECTS:
        mask = _mask(pattern, inputs[0])
        is_zero = mask is not None and _is_zero(pattern, inputs[2])
        return _scaled(pattern, inputs[1], mask) if mask is not None and is_zero else None
    for one, other in (inputs, inputs[::-1]):
        mask = _mask(pattern, other)
        kept = _scaled(pattern, one, mask) if mask is not None else None
        if kept is not None:
            return kept
    return None


def _is_zero(pattern: Pattern, item: str) -> bool:
    node, value = pattern.source(item), pattern.constant(item)
    return (node is not None and node.op == "ZerosLike") or (value is not None and not value.any())


def _mask(pattern: Pattern, item: str) -> _Mask | None:
    node = pattern.source(item, _SEEN_THROUGH)
    if node is None:
        return None
    if node.op == "Floor":
        added = pattern.source(node.input[0], _SEEN_THROUGH)
        if added is not None and added.op in _ADDS:
            for keep, uniform in (pattern.inputs(added), pattern.inputs(added)[::-1]):
                if _is_uniform(pattern, uniform):
                    return _Mask(keep=keep)
    if node.op == "GreaterEqual" and _is_uniform(pattern, node.input[0]):
        return _Mask(rate=node.input[1])
    if node.op == "Less" and _is_uniform(pattern, node.input[0]):
        return _Mask(keep=node.input[1])
    return None


def _is_uniform(pattern: Pattern, item: str) -> bool:
    """Whether an input is uniform in [0, 1): random_uniform writes `u * (max - min) + min`."""
    node = pattern.source(item, _SEEN_THROUGH)
    if node is not None and node.op in _ADDS:
        for product, low in (pattern.inputs(node), pattern.inputs(node)[::-1]):
            factor = pattern.source(product, _SEEN_THROUGH)
            if pattern.number(low) == 0 and factor is not None and factor.op == "Mul":
                return _is_uniform(pattern, product)
        return False
    if node is not None and node.op == "Mul":
        one, other = pattern.inputs(node)
        return (pattern.number(other) == 1 and _is_uniform(pattern, one)) or (
            pattern.number(one) == 1 and _is_uniform(pattern, other)
        )
    return node is not None and node.op in _UNIFORM


def _scaled(pattern: Pattern, item: str, mask: _Mask) -> str | None:
    """x, if the input is x divided by the share kept."""
    node = pattern.source(item)
    if node is None:
        return None
    if node.op in _DIVISIONS and _is_share_kept(pattern, node.input[1], mask):
        return str(node.input[0])
    if node.op == "Mul":
        for kept, scale in (pattern.inputs(node), pattern.inputs(node)[::-1]):
            if _is_inverse(pattern, scale, mask):
                return kept
    share = pattern.number(mask.keep) if mask.keep else pattern.number(mask.rate)
    return item if share == (1 if mask.keep else 0) else None


def _is_inverse(pattern: Pattern, item: str, mask: _Mask) -> bool:
    number, share = pattern.number(item), _number_kept(pattern, mask)
    if number is not None and share is not None:
        return abs(number * share - 1) < _TOLERANCE
    node = pattern.source(item, _SEEN_THROUGH)
    if node is not None and node.op in _DIVISIONS:
        return pattern.number(node.input[0]) == 1 and _is_share_kept(pattern, node.input[1], mask)
    return node is not None and node.op in _INVERSES and _is_share_kept(pattern, node.input[0], mask)


def _number_kept(pattern: Pattern, mask: _Mask) -> float | None:
    if mask.keep:
        return pattern.number(mask.keep)
    rate = pattern.number(mask.rate)
    return None if rate is None else 1 - rate


def _is_share_kept(pattern: Pattern, item: str, mask: _Mask) -> bool:
    """Whether an input is the share that the mask keeps: the same tensor, or the same number."""
    number, share = pattern.number(item), _number_kept(pattern, mask)
    if number is not None and share is not None:
        return abs(number - share) < _TOLERANCE * max(share, _TOLERANCE)
    same = pattern.tensor(item, _SEEN_THROUGH)
    if mask.keep:
        return same == pattern.tensor(mask.keep, _SEEN_THROUGH) or _is_rest(pattern, mask.keep, item)
    return _is_rest(pattern, item, mask.rate) or _is_rest(pattern, mask.rate, item)


def _is_rest(pattern: Pattern, item: str, other: str) -> bool:
    """Whether one input is 1 minus the other."""
    node = pattern.source(item, _SEEN_THROUGH)
    if node is None or node.op != "Sub" or pattern.number(node.input[0]) != 1:
        return False
    return pattern.tensor(node.input[1], _SEEN_THROUGH) == pattern.tensor(other, _SEEN_THROUGH)
