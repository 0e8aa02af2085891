"""Draft: a graph under change, inside one transform.

Nodes are copied before they are changed, so that the graph a transform was given stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from graph_restore.errors import warn
from graph_restore.graph import Graph, consumers, consumers_of, sources
from graph_restore.names import is_control, node_of, parse_tensor_name
from graph_restore.protos import NodeDef, TensorProto
from graph_restore.tensor_proto import encode_head
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.derived import DerivedGraph

Tensor = tuple[str, int]  # node name and output index


class Draft:
    """The nodes of a graph by name, in file order, with the payloads, functions and notes that a transform makes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: dict[str, Any] = dict(graph.nodes.items())
        self.payloads: dict[tuple[str, str], LazyTensor] = dict(graph.payloads)
        self.notes: list[str] = []
        self.functions: dict[str, Any] = {}
        self._own: set[str] = set()

    def note(self, text: str) -> None:
        """Tell the caller: in the result's notes, and as a GraphRestoreWarning."""
        self.notes.append(text)
        warn(text)

    def change(self, name: str) -> Any:
        """The NodeDef of that name, as a copy that may be changed."""
        if name not in self._own:
            copy = NodeDef()
            copy.CopyFrom(self.nodes[name])
            self.nodes[name] = copy
            self._own.add(name)
        return self.nodes[name]

    def add(self, node: Any) -> Any:
        """A node of this transform's making, new or in place of the one of that name."""
        if node.name in self.nodes:
            self.payloads.pop(("", node.name), None)
        self.nodes[node.name] = node
        self._own.add(node.name)
        return node

    def function(self, name: str) -> Any:
        """The FunctionDef of that name, one of this transform's making first; None where there is none."""
        return self.functions.get(name) or self.graph.functions.get(name)

    def free_name(self, name: str) -> str:
        """`name`, or `name_1` and so on where that is taken."""
        number, free = 0, name
        while free in self.nodes:
            number += 1
            free = f"{name}_{number}"
        return free

    def keep(self, names: set[str]) -> None:
        """Drop every node that is not in `names`."""
        self.nodes = {name: node for name, node in self.nodes.items() if name in names}
        self.payloads = {key: value for key, value in self.payloads.items() if key[0] or key[1] in names}

    def inputs(self, name: str) -> Sequence[str]:
        """What the node of that name takes now, as NodeDef.input has it."""
        return list(self.nodes[name].input[:])

    def sources(self) -> list[Sequence[str]]:
        """For each node, in order, the names of the nodes that it takes its inputs from now, one for each."""
        own, known = self._own_sources(), self.graph.sources
        if not own:
            return list(map(known.__getitem__, self.nodes))
        return [own[name] if name in own else known[name] for name in self.nodes]

    def _own_sources(self) -> dict[str, Sequence[str]]:
        return {name: sources(self.nodes[name].input[:]) for name in self._own if name in self.nodes}

    def ops(self) -> set[str]:
        """The ops of the nodes, and perhaps of some that are gone."""
        return {*self.graph.by_op, *(self.nodes[name].op for name in self._own if name in self.nodes)}

    def of_ops(self, ops: Container[str]) -> list[str]:
        """The names of the nodes of any of these ops, in the draft's order."""
        nodes, own = self.nodes, self._own
        found = [name for name in self.graph.names_of(ops) if name in nodes and name not in own]
        changed = {name for name in own if name in nodes and nodes[name].op in ops}
        if not changed:
            return found  # a draft keeps the order of its graph
        changed.update(found)
        return [name for name in nodes if name in changed]

    def ancestors(
        self, roots: Iterable[str], data_only: bool = False, stop: Callable[[Any], bool] | None = None
    ) -> set[str]:
        """The nodes that `roots` need, themselves included; not past nodes for which `stop` holds."""
        own, known, nodes = self._own_sources(), self.graph.sources, self.nodes
        found: set[str] = set()
        reached = nodes.keys() & roots
        while reached:
            found |= reached
            passed = [name for name in reached if not stop(nodes[name])] if stop is not None else reached
            if data_only:
                taken: Iterable[Iterable[str]] = map(data_nodes, map(nodes.__getitem__, passed))
            else:
                taken = [own[name] if name in own else known[name] for name in passed]
            reached = nodes.keys() & set(chain.from_iterable(taken)).difference(found)
        return found

    def takes_less(self) -> bool:
        """Whether a node takes less than it took in the graph, so that others may have become of no use."""
        before, own = self.graph.nodes, self._own_sources()
        return any(name in before and not set(self.graph.sources[name]) <= set(now) for name, now in own.items())

    def consumers(self) -> dict[str, list[tuple[Any, int]]]:
        """Node name to the (NodeDef, input position) pairs that take any of its outputs, as the draft is now."""
        return consumers(self.nodes, self.sources())

    def consumers_of(self, names: Collection[str]) -> dict[str, list[tuple[Any, int]]]:
        """The same for the nodes of these names only."""
        return consumers_of(names, self.nodes, self.sources())

    def data_inputs(self, node: Any) -> list[Tensor]:
        """The tensors a node takes."""
        return [parse_tensor_name(item) for item in node.input if not is_control(item)]

    def with_functions(self) -> Draft:
        """A draft whose graph has the functions this one made, so that their calls can be looked into."""
        if not self.functions:
            return self
        result = Draft(self.finish())
        result.notes = self.notes
        return result

    def finish(self) -> Graph:
        """The draft as a Graph."""
        graph_def = self._head()
        graph_def.node.extend(self.nodes.values())
        return Graph(graph_def, self.payloads, self.graph.op_list)

    def finish_changed(self, change: Callable[[Any], None]) -> Graph:
        """The same with a change, which leaves names and ops, done to each node; the draft is not to be used on."""
        return DerivedGraph(self._head(), self.nodes, change, self.of_ops, self.payloads, self.graph.op_list)

    def _head(self) -> Any:
        """A GraphDef that has all but the nodes."""
        head = self.graph.head()
        library = head.library.function
        for position in reversed(range(len(library))):
            if library[position].signature.name in self.functions:
                del library[position]
        library.extend(self.functions.values())
        return head


def control_inputs(node: Any) -> list[str]:
    """The control inputs of a node, `^` included."""
    return [item for item in node.input if is_control(item)]


def data_nodes(node: Any) -> Iterator[str]:
    """The names of the nodes a node takes tensors from."""
    return data_sources(node.input)


def data_sources(inputs: Iterable[str]) -> Iterator[str]:
    """The names of the nodes that tensors among inputs come from."""
    return (node_of(item) for item in inputs if not is_control(item))


def add_const(draft: Draft, name: str, tensor: LazyTensor) -> str:
    """A new Const node holding `tensor`; returns its name."""
    node = NodeDef(name=draft.free_name(name), op="Const")
    node.attr["dtype"].type = tensor.data_type
    node.attr["value"].tensor.CopyFrom(TensorProto.FromString(encode_head(tensor)))
    draft.add(node)
    draft.payloads[("", node.name)] = tensor
    return str(node.name)
