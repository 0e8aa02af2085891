"""The contexts of conds and while loops, as TensorFlow 1 lists them: gradients of a graph need them.

1. A cond is what runs under one output of a Switch: a predicate and a branch; conds with one predicate are one. A loop
   is what is between the Enters of a frame and its Exits; both belong to it. They are nested as the graph nests them.
2. A Switch whose one output is used belongs to that branch; one that feeds both lies outside, as the first of a cond.
3. A loop without a LoopCond and a loop variable, or with two, gets no context, nor does what is in it.
4. That a loop was built with `back_prop=False` or `swap_memory=True` is in no graph: it is taken from what the
   MetaGraph lists, if there is one.
See tensorflow/python/ops/control_flow_ops.py and tensorflow/core/protobuf/control_flow.proto.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graph_restore.errors import UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.names import parse_tensor_name, tensor_name
from graph_restore.protos import CondContextDef, WhileContextDef
from graph_restore.transforms.contexts import ENTERS, EXITS, MERGES, NEXT_ITERATIONS, SWITCHES

COND, WHILE = "cond_context", "while_context"
_Step = tuple[str, int]  # predicate node and branch; frame name and -1
_Path = tuple[_Step, ...]
_DEEPEST = 64  # contexts in each other


def flow_contexts(graph: Graph, known: Mapping[str, Any] | None = None) -> dict[str, list[Any]]:
    """The CondContextDefs and WhileContextDefs of a graph, by the name of their collection; inner ones in outer ones.

    `known`: the collections that the graph came with.
    """
    if not any(graph.by_op.get(op) for op in (*SWITCHES, *ENTERS)):
        return {}
    tree = _grown(graph, _Paths(graph))
    settings = _settings(known or {})
    found: dict[str, list[Any]] = {}
    for definition in _definitions(graph, tree, settings):
        kind = COND if isinstance(definition, CondContextDef) else WHILE
        found.setdefault(kind, []).append(definition)
    return found


def loops_without_gradient(known: Mapping[str, Any]) -> frozenset[str]:
    """The frames of the loops that collections say were built with `back_prop=False`."""
    return frozenset(name for name, context in _settings(known).items() if not context.back_prop)


class _Paths:
    """The contexts that every node is in, outermost first."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._inside: dict[str, _Path] = {}  # of what comes in
        self._used = self._used_outputs()
        for name in graph.nodes:
            self._work_out(name)

    def of(self, name: str) -> _Path:
        """Those of a node; () for the outermost."""
        node, path = self._graph.nodes[name], self._inside[name]
        if node.op in ENTERS:
            return (*path, (node.attr["frame_name"].s.decode("utf-8", "replace"), -1))
        used = self._used.get(name, set())
        if node.op in SWITCHES and len(used) == 1 and not self._is_of_loop(node):
            return self._under(name, next(iter(used)))
        return path

    def _under(self, switch: str, output: int) -> _Path:
        """What runs under an output of a Switch; a Switch that waits for its own branch makes no other."""
        path = self._inside[switch]
        step = (_root(self._graph, self._graph.nodes[switch].input[1]), output)
        return path if step in path else (*path, step)

    def _used_outputs(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for node in self._graph.graph_def.node:
            for item in node.input:
                name, index = parse_tensor_name(item)
                source = self._graph.nodes.get(name)
                if index >= 0 and source is not None and source.op in SWITCHES:
                    found.setdefault(name, set()).add(index)
        return found

    def _work_out(self, name: str) -> None:
        """Depth first without recursion: graphs are deeper than Python's stack."""
        waiting, opened = [name], set[str]()
        while waiting:
            current = waiting[-1]
            if current in self._inside:
                waiting.pop()
                continue
            sources = self._sources(current)
            missing = [source for source, _ in sources if source not in self._inside and source not in opened]
            if missing and current not in opened:
                opened.add(current)
                waiting.extend(missing)
                continue
            paths = [self._given(source, index) for source, index in sources if source in self._inside]
            self._inside[current] = self._combined(current, paths)
            waiting.pop()

    def _sources(self, name: str) -> list[tuple[str, int]]:
        nodes = self._graph.nodes
        found = [parse_tensor_name(item) for item in nodes[name].input]
        return [item for item in found if item[0] in nodes and nodes[item[0]].op not in NEXT_ITERATIONS]

    def _combined(self, name: str, paths: list[_Path]) -> _Path:
        if self._graph.nodes[name].op in MERGES and len(paths) > 1:
            return _common(paths)
        return max(paths, key=len, default=())

    def _given(self, name: str, index: int) -> _Path:
        """Those in which an output has a value."""
        node, path = self._graph.nodes[name], self.of(name)
        if node.op in EXITS:
            outer = next((at for at in range(len(path) - 1, -1, -1) if path[at][1] < 0), 0)
            return path[:outer]
        if node.op in SWITCHES and index >= 0 and not self._is_of_loop(node):
            return self._under(name, index)
        return path[:_DEEPEST]

    def _is_of_loop(self, switch: Any) -> bool:
        if len(switch.input) < 2:
            return True
        predicate = self._graph.nodes.get(parse_tensor_name(switch.input[1])[0])
        return predicate is not None and predicate.op == "LoopCond"


def _root(graph: Graph, item: str) -> str:
    """The node of a predicate, seen through the Identity that every cond puts before it."""
    name = parse_tensor_name(item)[0]
    for _ in range(len(graph.nodes)):
        node = graph.nodes.get(name)
        if node is None or node.op != "Identity" or not node.input:
            break
        name = parse_tensor_name(node.input[0])[0]
    return name


def _common(paths: list[_Path]) -> _Path:
    """What several have in common from the outermost on."""
    shortest = min(paths, key=len)
    for at, step in enumerate(shortest):
        if any(path[at] != step for path in paths):
            return shortest[:at]
    return shortest


@dataclass
class _Branch:
    """One context: the names of the nodes in it but not in a deeper one, in the order of the graph."""

    step: _Step
    members: list[str] = field(default_factory=list)
    inner: dict[_Step, _Branch] = field(default_factory=dict)


def _grown(graph: Graph, paths: _Paths) -> _Branch:
    tree = _Branch(("", -1))
    for name in graph.nodes:
        branch = tree
        for step in paths.of(name):
            branch = branch.inner.setdefault(step, _Branch(step))
        branch.members.append(name)
    return tree


def _definitions(graph: Graph, tree: _Branch, settings: Mapping[str, Any]) -> Iterator[Any]:
    for branch in tree.inner.values():
        definition = _loop(graph, branch, settings) if branch.step[1] < 0 else _cond(graph, branch)
        if definition is None:
            continue
        definition.values_def.values.extend(_values(graph, branch))
        for inner in _definitions(graph, branch, settings):
            nested = definition.nested_contexts.add()
            (nested.cond_ctxt if isinstance(inner, CondContextDef) else nested.while_ctxt).CopyFrom(inner)
        yield definition


def _values(graph: Graph, branch: _Branch) -> Iterator[str]:
    """The tensors that a context knows: what its nodes give, and what comes out of loops in it."""
    for name in branch.members:
        yield from (tensor_name(name, index) for index in range(output_count(graph, graph.nodes[name])))
    for step, inner in branch.inner.items():
        if step[1] < 0:
            yield from (tensor_name(name) for name in inner.members if graph.nodes[name].op in EXITS)


def output_count(graph: Graph, node: Any) -> int:
    """How many tensors a node gives."""
    try:
        return len(graph.ops.output_types(node))
    except UnsupportedFormatError:  # a custom op; most have one
        return 1


def _cond(graph: Graph, branch: _Branch) -> Any:
    """The context of a branch; None when nothing but what its inner ones hold is in it."""
    nodes = [graph.nodes[name] for name in branch.members]
    # its own before those outside: these take the predicate as it is, not as an outer context gives it
    switches = [node for node in nodes if node.op in SWITCHES and len(node.input) > 1]
    switches += [switch for node in nodes for switch in _switched(graph, node)]
    predicates = [switch.input[1] for switch in switches if _root(graph, switch.input[1]) == branch.step[0]]
    inner = [node for node in nodes if node.op not in SWITCHES and output_count(graph, node)]
    pivots = [node for node in inner if node.op == "Identity" and any(_switched(graph, node))] or inner
    if not predicates or not nodes:
        return None
    pivot = tensor_name(pivots[0].name) if pivots else tensor_name(nodes[0].name, branch.step[1])
    return CondContextDef(
        context_name=f"{pivot.rpartition('/')[0]}/cond_text".lstrip("/"),
        pred_name=tensor_name(*parse_tensor_name(predicates[0])),
        pivot_name=pivot,
        branch=branch.step[1],
    )


def _switched(graph: Graph, node: Any) -> Iterator[Any]:
    """The Switches that a node takes something from."""
    for item in node.input:
        source = graph.nodes.get(parse_tensor_name(item)[0])
        if source is not None and source.op in SWITCHES and len(source.input) > 1:
            yield source


def _loop(graph: Graph, branch: _Branch, settings: Mapping[str, Any]) -> Any:
    nodes = [graph.nodes[name] for name in branch.members]
    conditions = [node for node in nodes if node.op == "LoopCond"]
    merges = [node for node in nodes if node.op in MERGES and _turns(graph, node)]
    if len(conditions) != 1 or not merges:
        return None
    condition = conditions[0].name
    switches = {node.name for node in nodes if node.op in SWITCHES and _takes(node, 1, {condition})}
    kept = [node.name for node in nodes if node.op == "Identity" and _takes(node, 0, switches)]
    entering = {parse_tensor_name(item)[0] for merge in merges for item in merge.input}
    enters = [node for node in nodes if node.op in ENTERS and node.name in entering]
    if not kept or not enters:
        return None
    known = settings.get(branch.step[0])
    return WhileContextDef(
        context_name=branch.step[0],
        parallel_iterations=int(enters[0].attr["parallel_iterations"].i) or 10,
        back_prop=known.back_prop if known is not None else True,
        swap_memory=known.swap_memory if known is not None else False,
        pivot_name=tensor_name(condition),
        pivot_for_pred_name=tensor_name(merges[0].name),
        pivot_for_body_name=tensor_name(kept[0]),
        loop_exit_names=[tensor_name(node.name) for node in nodes if node.op in EXITS],
        loop_enter_names=[tensor_name(node.name) for node in enters],
    )


def _takes(node: Any, position: int, sources: Collection[str]) -> bool:
    return len(node.input) > position and parse_tensor_name(node.input[position])[0] in sources


def _turns(graph: Graph, merge: Any) -> bool:
    """Whether a Merge is a loop variable."""
    sources = [graph.nodes.get(parse_tensor_name(item)[0]) for item in merge.input]
    return any(source is not None and source.op in NEXT_ITERATIONS for source in sources)


def _settings(known: Mapping[str, Any]) -> dict[str, Any]:
    """The WhileContextDefs that a MetaGraph lists, by name, inner ones too."""
    listed = known[WHILE].bytes_list.value if WHILE in known else []
    waiting = []
    for data in listed:
        try:
            waiting.append(WhileContextDef.FromString(data))
        except Exception:  # protobuf's DecodeError has no public base that all its implementations share
            continue
    found: dict[str, Any] = {}
    while waiting:
        context = waiting.pop()
        if isinstance(context, WhileContextDef):
            found.setdefault(context.context_name, context)
        for nested in context.nested_contexts:
            waiting.append(nested.while_ctxt if nested.HasField("while_ctxt") else nested.cond_ctxt)
    return found
