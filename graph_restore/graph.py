"""Graph: a GraphDef with an index, its large constants left on disk.

The nodes are NodeDef messages. A Const (of the graph or of a function in its library) whose value is large has only
dtype and shape in its `value` attr; the value is in `payloads` under (function name or "", node name). A Graph leaves
by `encode`, which splices the payloads back in, or by `materialize`, which makes a complete GraphDef.
"""

from __future__ import annotations

import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

from graph_restore import tensor_proto
from graph_restore.arrays import np
from graph_restore.errors import FormatError, NodeNotFoundError, did_you_mean
from graph_restore.names import node_of, parse_tensor_name
from graph_restore.ops import OpTable, op_table
from graph_restore.protos import FunctionDef, GraphDef, NodeDef
from graph_restore.storage.coding import encode_header
from graph_restore.storage.extent import Extent
from graph_restore.tensor_proto import Encoded, concatenated, message_field
from graph_restore.tensors import LazyTensor, StringTensor

Payloads = Mapping[tuple[str, str], LazyTensor]
_FOUND_IN_IT = {"nodes", "by_op", "sources", "functions", "consumers", "_index", "ops"}


class Graph:
    """A GraphDef and what is asked of it. Treated as a value: transforms make a new one.

    `graph_def` is a message of graph_restore.protos; `payloads` the values that are not in it; `op_list` the
    stripped op list of the MetaGraph it came from, which takes precedence over the op table.
    """

    def __init__(self, graph_def: Any, payloads: Payloads | None = None, op_list: Any = None) -> None:
        self._message = graph_def
        self._packed = b""
        self.payloads: dict[tuple[str, str], LazyTensor] = dict(payloads or {})
        self.op_list = op_list

    @property
    def graph_def(self) -> Any:
        """The GraphDef, without the payloads."""
        if self._message is None:
            self._message = GraphDef.FromString(zlib.decompress(self._packed))
        return self._message

    def pack(self) -> None:
        """Hold the GraphDef as compressed bytes, a fiftieth of its memory, until it is looked at again."""
        if self._message is not None:
            self._packed = zlib.compress(self._message.SerializeToString(), 1)
            self._message = None
            for name in _FOUND_IN_IT & self.__dict__.keys():
                del self.__dict__[name]

    @property
    def library(self) -> Any:
        """The FunctionDefLibrary."""
        return self.graph_def.library

    @property
    def versions(self) -> Any:
        """The VersionDef."""
        return self.graph_def.versions

    @cached_property
    def nodes(self) -> Mapping[str, Any]:
        """NodeDefs by name, in file order; FormatError when a name occurs twice."""
        nodes = self._index.by_name
        if len(nodes) != len(self._index.listed):
            counts = Counter(node.name for node in self._index.listed)
            twice = sorted(name for name, count in counts.items() if count > 1)
            raise FormatError(f"node names occur twice, so the graph cannot be run: {', '.join(twice[:5])}")
        return nodes

    @cached_property
    def by_op(self) -> dict[str, list[Any]]:
        """NodeDefs by op, each op's in file order."""
        listed = self._index.listed
        return {op: [listed[position] for position in found] for op, found in self._index.positions.items()}

    def op_of(self, name: str) -> str | None:
        """The op of the node of that name; None where there is none."""
        node = self.nodes.get(name)
        return None if node is None else str(node.op)

    def of_ops(self, ops: Container[str]) -> list[Any]:
        """The NodeDefs of any of these ops, in file order."""
        return list(map(self._index.listed.__getitem__, self._index.of_ops(ops)))

    def names_of(self, ops: Container[str]) -> list[str]:
        """The names of the nodes of any of these ops, in file order."""
        return list(map(self._index.names.__getitem__, self._index.of_ops(ops)))

    @cached_property
    def sources(self) -> Mapping[str, Sequence[str]]:
        """The names of the nodes that each node takes its inputs from, one for each; found when first asked for."""
        return _Sources(self.nodes)

    @cached_property
    def functions(self) -> dict[str, Any]:
        """FunctionDefs of the library by name."""
        return {function.signature.name: function for function in self.library.function}

    @cached_property
    def consumers(self) -> dict[str, list[tuple[Any, int]]]:
        """Node name to the (NodeDef, input position) pairs that take any of its outputs, control inputs too."""
        return consumers(self.nodes, map(self.sources.__getitem__, self.nodes))

    @cached_property
    def _index(self) -> _Index:
        return _indexed(self.graph_def.node)

    @cached_property
    def ops(self) -> OpTable:
        """The op table, with the definitions that came with the model first and its functions as ops."""
        table = op_table()
        if self.op_list is not None and self.op_list.op:
            table = table.with_op_list(self.op_list)
        functions = [function.signature for function in self.library.function]
        if functions:
            from graph_restore.protos import OpList

            table = table.with_op_list(OpList(op=functions))
        return table

    def node(self, name: str) -> Any:
        """The NodeDef that `name` (node or tensor) is of; NodeNotFoundError with near names."""
        node_name = parse_tensor_name(name)[0]
        if node_name not in self.nodes:
            raise NodeNotFoundError(
                f"the graph has no node {node_name!r}"
                + (did_you_mean(node_name, self.nodes) or "; `graph-restore inspect` lists inputs and outputs")
            )
        return self.nodes[node_name]

    def value(self, node: Any, function: str = "") -> LazyTensor:
        """The value of a Const node, wherever it is."""
        payload = self.payloads.get((function, node.name))
        if payload is not None:
            return payload
        return tensor_proto.from_message(node.attr["value"].tensor, node.name)

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The array that tensor `name` always is, seen through Identity; None if it is no Const."""
        node = self._const(name)
        return self.value(node).read() if node is not None else None

    def strings(self, name: str) -> list[bytes] | None:
        """The strings that tensor `name` always has, in order; None if it is no Const of strings."""
        node = self._const(name)
        tensor = self.value(node) if node is not None else None
        return list(tensor.strings()) if isinstance(tensor, StringTensor) else None

    def _const(self, name: str) -> Any | None:
        """The Const that a tensor comes from, through nothing but Identities."""
        node = self.nodes.get(parse_tensor_name(name)[0])
        for _ in range(len(self.nodes)):
            if node is None or node.op not in ("Identity", "Const") or not name or name.startswith("^"):
                return None
            if node.op == "Const":
                return node
            node = self.nodes.get(parse_tensor_name(node.input[0])[0]) if node.input else None
        return None

    def replaced(self, nodes: Iterable[Any], payloads: Payloads) -> Graph:
        """A graph of copies of these nodes and payloads, with this one's library, versions and op list."""
        result = self.head()
        result.node.extend(nodes)
        return Graph(result, payloads, self.op_list)

    def head(self) -> Any:
        """A GraphDef that has all but the nodes."""
        return _without_nodes(self.graph_def)

    def encode(self) -> Encoded:
        """The serialized GraphDef, complete, as a stream of bytes and stretches of the files payloads lie in."""
        pieces: list[bytes | Encoded] = list(_encode_nodes(self._to_encode(), self.payloads, "", 1))
        rest = self.head()
        if any(function for function, _ in self.payloads):
            library = rest.library
            pieces += message_field(2, self._encode_library(library))
            rest.ClearField("library")
        pieces.append(rest.SerializeToString(deterministic=True))
        return concatenated(pieces)

    def _to_encode(self) -> Iterator[Any]:
        """The nodes, each of which is done with when the next one is taken."""
        yield from self.graph_def.node

    def write(self, file: Any) -> None:
        """Append the serialized GraphDef to a storage.output.AtomicFile, payloads spliced and checked."""
        file.write_all(self.encode().parts())

    def materialize(self) -> Any:
        """A complete GraphDef in memory: TensorFlow's class when TensorFlow is imported, else ours."""
        data = b"".join(
            chunk for part in self.encode().parts() for chunk in (part.chunks() if isinstance(part, Extent) else [part])
        )
        tensorflow = sys.modules.get("tensorflow")
        compat = getattr(tensorflow, "compat", None)
        return (compat.v1.GraphDef if compat is not None else GraphDef).FromString(data)

    def _encode_library(self, library: Any) -> Encoded:
        pieces: list[bytes | Encoded] = []
        for function in library.function:
            name = function.signature.name
            rest = FunctionDef()
            rest.CopyFrom(function)
            rest.ClearField("node_def")
            body = [rest.SerializeToString(deterministic=True)]
            pieces += message_field(1, concatenated([*body, *_encode_nodes(function.node_def, self.payloads, name, 3)]))
        rest_of_library = type(library)()
        rest_of_library.CopyFrom(library)
        rest_of_library.ClearField("function")
        return concatenated([*pieces, rest_of_library.SerializeToString(deterministic=True)])


class _Index(NamedTuple):
    """Nodes in file order, held as a message makes a new object for each that is not; their names; nodes by name; and
    where in the lists those of each op are."""

    listed: list[Any]
    names: list[str]
    by_name: dict[str, Any]
    positions: dict[str, list[int]]

    def of_ops(self, ops: Container[str]) -> list[int]:
        """Where the nodes of any of these ops are."""
        return sorted(chain.from_iterable(found for op, found in self.positions.items() if op in ops))


def _indexed(nodes: Iterable[Any]) -> _Index:
    """All that an index tells of a node is asked at once: to come to a node is what takes time."""
    listed: list[Any] = []
    names: list[str] = []
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for position, node in enumerate(nodes):
        listed.append(node)
        names.append(node.name)
        positions[node.op].append(position)
    return _Index(listed, names, dict(zip(names, listed)), dict(positions))


class _Sources(dict[str, Sequence[str]]):
    """Asking a message for its inputs makes new text each time, and passes over the graph ask often."""

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self._nodes = nodes

    def __missing__(self, name: str) -> Sequence[str]:
        found = self[name] = sources(self._nodes[name].input[:])
        return found


def sources(inputs: Sequence[str]) -> Sequence[str]:
    """The names of the nodes that inputs come from, one for each."""
    text = " ".join(inputs)
    if ":" not in text and "^" not in text:  # as most have it: output 0, no control inputs
        return inputs
    return [node_of(item) for item in inputs]


def consumers(nodes: Mapping[str, Any], taken: Iterable[Sequence[str]]) -> dict[str, list[tuple[Any, int]]]:
    """Node name to the (NodeDef, input position) pairs among `nodes` that take any of its outputs, control inputs too;
    every node has an entry. `taken`: for each of `nodes`, the names of those it takes its inputs from."""
    found: dict[str, list[tuple[Any, int]]] = {name: [] for name in nodes}
    for node, sources in zip(nodes.values(), taken):
        for position, source in enumerate(sources):
            if source in found:
                found[source].append((node, position))
            else:
                found[source] = [(node, position)]
    return found


def consumers_of(
    names: Collection[str], nodes: Mapping[str, Any], taken: Iterable[Sequence[str]]
) -> dict[str, list[tuple[Any, int]]]:
    """The same for the nodes of these names only."""
    found: dict[str, list[tuple[Any, int]]] = {name: [] for name in names}
    takes_none = found.keys().isdisjoint
    for node, sources in zip(nodes.values(), taken):
        if not takes_none(sources):
            for position, source in enumerate(sources):
                if source in found:
                    found[source].append((node, position))
    return found


def _without_nodes(graph_def: Any) -> Any:
    rest = GraphDef()
    for field, value in graph_def.ListFields():
        if field.name != "node":
            getattr(rest, field.name).CopyFrom(value) if field.message_type else setattr(rest, field.name, value)
    return rest


def _encode_nodes(nodes: Iterable[Any], payloads: Payloads, function: str, number: int) -> Iterator[bytes | Encoded]:
    held = {name for owner, name in payloads if owner == function}
    plain: list[bytes] = []
    for node in nodes:
        if held and node.name in held:
            tensor = tensor_proto.encode(payloads[(function, node.name)])
            yield b"".join((*plain, _const_before(node, tensor.length, number)))
            yield tensor
            plain = []
        else:
            data = node.SerializeToString(deterministic=True)
            plain += (encode_header(number, len(data)), data)
    yield b"".join(plain)


def _const_before(node: Any, length: int, number: int) -> bytes:
    """All of a Const node, as field `number` of a message, but the TensorProto of that length which ends it."""
    rest = NodeDef()
    rest.CopyFrom(node)
    del rest.attr["value"]
    tensor = encode_header(8, length)
    value = encode_header(1, 5) + b"value" + encode_header(2, len(tensor) + length) + tensor
    before: bytes = rest.SerializeToString(deterministic=True) + encode_header(5, len(value) + length) + value
    return encode_header(number, len(before) + length) + before


def tensor_attr(value: Any) -> Any:
    """An AttrValue that holds a small value in memory as a tensor."""
    from graph_restore.protos import AttrValue, TensorProto

    return AttrValue(tensor=TensorProto.FromString(tensor_proto.encode_value("", value)))
