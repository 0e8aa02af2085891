"""What given constants settle in a graph: which tensors have a known value, and which never get one.

1. Known values spread through ops that numpy does exactly (see `evaluation`), through Switch, Enter and And/Or where
   one side decides (`loose`: the other side's shape is that of the result). They are values "if the tensor gets one
   at all": a branch may still not run.
2. A Switch whose predicate is known never fills its other output. What takes such a dead tensor, or waits for a dead
   node, is dead; a Merge needs one of its inputs only; a ControlTrigger is never dead. A Merge that waits for what is
   dead is `odd`: TensorFlow counts that among its dead inputs, and whether it runs depends on their number.
   (tensorflow/core/common_runtime/propagator_state.cc.)
3. A loop is left to run: the predicate of its Switches is never taken for known, nor what goes round in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graph_restore.arrays import np
from graph_restore.names import input_name, is_control, node_of, parse_tensor_name
from graph_restore.transforms.contexts import ENTERS, EXITS, MERGES, NEXT_ITERATIONS, SWITCHES
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.evaluation import LARGEST, Array, evaluate
from graph_restore.transforms.feeds import SCALAR_SHAPES_SINCE

_DECIDES = {"LogicalAnd": False, "LogicalOr": True}
_OF_ANY_SHAPE = frozenset({"LogicalNot", "LogicalAnd", "LogicalOr", "Identity"})


class Liveness:
    """Known values and dead tensors among the nodes `needed` of a draft, from the Consts `seeds`."""

    def __init__(self, draft: Draft, seeds: Iterable[str], needed: Iterable[str], opened: Collection[str] = ()) -> None:
        """`opened`: calls that stand for what the branch taken returns, which may be constant."""
        self._draft = draft
        self._opened = opened
        self._seeds = set(seeds)
        self._states_scalars = draft.graph.versions.producer >= SCALAR_SHAPES_SINCE
        self.order = in_order({name: draft.nodes[name] for name in draft.nodes if name in set(needed)})
        self.known: dict[Tensor, Array] = {}
        self.loose: set[Tensor] = set()  # known in value, not in shape
        self.taken: dict[str, int] = {}  # Switch to the output that its known predicate fills
        self.dead: set[str] = set()
        self.odd: set[str] = set()
        self.sure: set[str] = set()  # nodes that run, come what may, outside loops
        for name in self.order:
            self._visit(draft.nodes[name])

    def is_dead(self, tensor: Tensor) -> bool:
        """Whether a tensor (index -1: the end of a node) never comes."""
        name, index = tensor
        return name in self.dead or (index >= 0 and name in self.taken and index != self.taken[name])

    def is_sure(self, tensor: Tensor) -> bool:
        """Whether a tensor comes in every run, outside loops."""
        name, index = tensor
        unsettled = self._op(name) in SWITCHES and name not in self.taken and index >= 0
        return name in self.sure and not unsettled and not self.is_dead(tensor)

    def value(self, item: str) -> Array | None:
        """The known value of an input, one that is a small Const included."""
        tensor = parse_tensor_name(item)
        while tensor not in self.known and self._op(tensor[0]) == "Identity" and not is_control(item):
            item = self._draft.nodes[tensor[0]].input[0]
            tensor = parse_tensor_name(item)
        if tensor in self.known or self._op(tensor[0]) != "Const":
            return self.known.get(tensor)
        value = self._draft.payloads.get(("", tensor[0]))
        value = self._draft.graph.value(self._draft.nodes[tensor[0]]) if value is None else value
        return value.read() if value.nbytes <= LARGEST else None

    def _visit(self, node: Any) -> None:
        inputs = [parse_tensor_name(item) for item in node.input]
        if node.op in MERGES:
            coming = [item for item in inputs if item[1] >= 0 and self._op(item[0]) not in NEXT_ITERATIONS]
            alive = [item for item in coming if not self.is_dead(item)]
            controls = [item for item in inputs if item[1] < 0]
            if not alive:
                self.dead.add(node.name)
            elif any(self.is_dead(item) for item in controls):
                self.odd.add(node.name)
            elif any(self.is_sure(item) for item in alive) and all(self.is_sure(item) for item in controls):
                self.sure.add(node.name)
            if len(alive) == 1 and len(coming) == len([item for item in inputs if item[1] >= 0]):
                self._pass_on(node, alive[0], [0], self.value(input_name(*alive[0])))
            return
        if node.op != "ControlTrigger" and any(self.is_dead(item) for item in inputs):
            self.dead.add(node.name)
            return
        if node.op not in (*ENTERS, *EXITS) and all(self.is_sure(item) for item in inputs):
            self.sure.add(node.name)
        self._work_out(node, inputs)

    def _work_out(self, node: Any, inputs: list[Tensor]) -> None:
        data = [item for item in node.input if not is_control(item)]
        if node.name in self._seeds:
            self.known[node.name, 0] = self._draft.graph.value(node).read()
        elif node.op in SWITCHES:
            pred = self.known.get(inputs[1])
            if pred is not None and self._op(inputs[1][0]) != "LoopCond":
                self.taken[node.name] = int(bool(pred.item()))
            self._pass_on(node, inputs[0], [0, 1])
        elif node.op == "Enter":
            self._pass_on(node, inputs[0], [0])
        elif node.op == "IdentityN":
            for index, item in enumerate(data):
                opened = self.value(item) if node.name in self._opened else None
                self._pass_on(node, parse_tensor_name(item), [index], opened)
        elif node.name in self._opened or any(parse_tensor_name(item) in self.known for item in data):
            self._evaluate(node, data)

    def _pass_on(self, node: Any, source: Tensor, outputs: list[int], value: Array | None = None) -> None:
        value = self.known.get(source, value)
        if value is not None:
            self.known.update({(node.name, index): value for index in outputs})
            self.loose.update((node.name, index) for index in outputs if source in self.loose)

    def _evaluate(self, node: Any, data: list[str]) -> None:
        values = [self.value(item) for item in data]
        decisive = _DECIDES.get(node.op)
        if decisive is not None and any(value is not None and _all_are(value, decisive) for value in values):
            self.known[node.name, 0] = np.asarray(decisive)
            if not all(self._is_scalar(item) for item in data):
                self.loose.add((node.name, 0))
            return
        if any(parse_tensor_name(item) in self.loose for item in data):
            if node.op not in _OF_ANY_SHAPE:
                return
            self.loose.add((node.name, 0))
        outputs = evaluate(node, values) if all(value is not None for value in values) else None  # type: ignore[arg-type]
        for index, value in enumerate(outputs or ()):
            self.known[node.name, index] = value

    def _is_scalar(self, item: str) -> bool:
        tensor = parse_tensor_name(item)
        value = self.value(item)
        if value is not None:
            return value.shape == () and tensor not in self.loose
        node = self._draft.nodes.get(tensor[0])
        if node is None or node.op != "Placeholder" or "shape" not in node.attr:
            return False
        stated = node.attr["shape"].shape
        return self._states_scalars and not stated.unknown_rank and not stated.dim

    def _op(self, name: str) -> str:
        return str(self._draft.nodes[name].op) if name in self._draft.nodes else ""


def _all_are(value: Array, wanted: bool) -> bool:
    return value.shape == () and bool(value) is wanted


def in_order(nodes: Mapping[str, Any]) -> list[str]:
    """The names of nodes, each after its inputs but for the back edges of loops; those in other cycles last."""
    waiting: dict[str, int] = {}
    users: dict[str, list[str]] = {}
    for name, node in nodes.items():
        sources = {node_of(item) for item in node.input} & nodes.keys()
        if node.op in MERGES:
            sources = {source for source in sources if nodes[source].op not in NEXT_ITERATIONS}
        waiting[name] = len(sources)
        for source in sources:
            users.setdefault(source, []).append(name)
    ready = [name for name, count in reversed(waiting.items()) if not count]
    found: list[str] = []
    while ready:
        name = ready.pop()
        found.append(name)
        for user in users.get(name, ()):
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    return found + [name for name in nodes if waiting[name] > 0]
