"""Handles that calls give back: outputs of a function, If, Case or While that are a handle the call was given.

TensorFlow makes such outputs when it takes gradients: the forward function returns what the backward one needs, the
handles of variables among it. A While gives every argument back at its own position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ARGUMENTS_FROM = {"If": 1, "StatelessIf": 1, "Case": 1, "StatelessCase": 1}
LOOPS = frozenset({"While", "StatelessWhile"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", *_ARGUMENTS_FROM, *LOOPS})
PASSING = frozenset({"Identity"})


def is_call(node: Any, functions: Mapping[str, Any]) -> bool:
    """Whether a node calls functions in a way that handles can be replaced by values."""
    return node.op in _CALLS or node.op in functions


def argument_of(node: Any, position: int) -> int:
    """The function argument that input `position` of a call is; -1 for the predicate of a cond."""
    return position - _ARGUMENTS_FROM.get(node.op, 0)


def called(node: Any) -> list[Any]:
    """The NameAttrLists of the functions a call runs."""
    found = [value.func for _, value in sorted(node.attr.items()) if value.HasField("func")]
    return found + [item for _, value in sorted(node.attr.items()) for item in value.list.func]


class Returned:
    """Which outputs of a call are which of its inputs, for calls of one library's functions."""

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self._functions = functions
        self._known: dict[tuple[str, int], frozenset[int]] = {}

    def outputs(self, node: Any, position: int) -> frozenset[int]:
        """The outputs of a call that are, in any of the functions it may run, the handle it takes at `position`."""
        if node.op in LOOPS:
            return frozenset({position})
        names = [item.name for item in called(node)] if node.op in _CALLS else [node.op]
        argument = argument_of(node, position)
        return frozenset().union(*(self._of(name, argument) for name in names)) if argument >= 0 else frozenset()

    def spread(self, function: Any, handles: Mapping[str, int]) -> dict[str, int]:
        """`handles` (arguments of a function, each with a number) with every tensor of its body that is one of them."""
        users: dict[str, list[tuple[Any, int]]] = {}
        for node in function.node_def:
            if node.op in PASSING or is_call(node, self._functions):
                for position, item in enumerate(node.input):
                    users.setdefault(item, []).append((node, position))
        found, waiting = dict(handles), list(handles)
        while waiting:
            item = waiting.pop()
            for node, position in users.get(item, ()):
                for output in self._spelled(node, position):
                    if output not in found:
                        found[output] = found[item]
                        waiting.append(output)
        return found

    def _spelled(self, node: Any, position: int) -> Iterable[str]:
        """The outputs of a node in a body that are its input `position`, as bodies spell them."""
        if node.op in PASSING:
            return [f"{node.name}:output:0"]
        if node.op in _CALLS:
            return [f"{node.name}:output:{index}" for index in self.outputs(node, position)]
        signature = self._functions[node.op].signature
        return [f"{node.name}:{signature.output_arg[index].name}:0" for index in self.outputs(node, position)]

    def _of(self, name: str, argument: int) -> frozenset[int]:
        if (name, argument) not in self._known:
            self._known[name, argument] = frozenset()  # of a function that calls itself
            function = self._functions.get(name)
            if function is not None and argument < len(function.signature.input_arg):
                found = self.spread(function, {function.signature.input_arg[argument].name: 0})
                outputs = enumerate(function.signature.output_arg)
                same = frozenset(index for index, output in outputs if function.ret[output.name] in found)
                self._known[name, argument] = same
        return self._known[name, argument]
