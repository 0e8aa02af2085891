"""Binary GraphDefs, and the messages that hold them, read without their large constants.

The wire format is walked by field; what is small is given to protobuf, and each Const value above a few kilobytes is
cut out and left in the file:

    SavedModel.meta_graphs(2) > MetaGraphDef.graph_def(2) > GraphDef.node(1) or .library(2).function(1).node_def(3)
      > NodeDef.attr(5) "value" > AttrValue.tensor(8) > TensorProto
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from graph_restore import protos
from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError
from graph_restore.formats.text import print_text
from graph_restore.graph import Graph
from graph_restore.storage.coding import BYTES, Field, Window, encode_header
from graph_restore.storage.output import AtomicFile, Progress
from graph_restore.storage.source import Source
from graph_restore.tensor_proto import Encoded, encode_head, scan_tensor_proto
from graph_restore.tensors import LazyTensor

PAYLOAD_FROM = 4096  # bytes; a smaller TensorProto stays in its node
PROTOBUF_LIMIT = (1 << 31) - 1  # bytes; protobuf refuses to read a longer message
_TEXT_LIMIT = 64 << 20  # bytes of content in a .pbtxt, which is about four times as long

_INNER = {
    "SavedModel": {2: "MetaGraphDef"},
    "MetaGraphDef": {2: "GraphDef"},
    "GraphDef": {1: "NodeDef", 2: "FunctionDefLibrary"},
    "FunctionDefLibrary": {1: "FunctionDef"},
    "FunctionDef": {3: "NodeDef"},
    "NodeDef": {5: "AttrEntry"},
    "AttrEntry": {2: "AttrValue"},
    "AttrValue": {8: "TensorProto"},
}


@dataclass
class Scanned:
    """A parsed message whose large constants were cut out.

    `payloads` are keyed by (number of the MetaGraphDef in a SavedModel, function name or "", node name).
    """

    message: Any
    payloads: dict[tuple[int, str, str], LazyTensor] = field(default_factory=dict)

    def of_graph(self, number: int = 0) -> dict[tuple[str, str], LazyTensor]:
        """The payloads of one graph, as Graph takes them."""
        return {(function, node): value for (graph, function, node), value in self.payloads.items() if graph == number}


def scan(source: Source, kind: str, offset: int = 0, length: int | None = None) -> Scanned:
    """The message of type `kind` ("GraphDef", "MetaGraphDef", "SavedModel") in a stretch of `source`.

    FormatError when the bytes are no such message.
    """
    end = source.size if length is None else offset + length
    scanner = _Scanner(source)
    parts, message = scanner.parts(kind, offset, end), getattr(protos, kind)()
    try:
        for part in parts:
            message.MergeFromString(part)
    except FormatError:
        raise
    except Exception as error:  # protobuf's DecodeError has no public base that all its implementations share
        raise FormatError(f"not a {kind}: {error}", path=source.name, offset=offset) from None
    return Scanned(message, scanner.payloads)


class _Scanner:
    """Walks a message; remembers in which graph, function and node it is."""

    def __init__(self, source: Source) -> None:
        self._window = Window(source)
        self.payloads: dict[tuple[int, str, str], LazyTensor] = {}
        self._graph = -1
        self._function = self._node = ""

    def parts(self, kind: str, offset: int, end: int) -> Iterator[bytes]:
        """The same as `remainder`, as messages that make it up when they are merged in order: so there is no time when
        all of a graph is held beside what is parsed from it."""
        if end - offset <= PAYLOAD_FROM or kind not in ("MetaGraphDef", "GraphDef"):
            yield b"".join(self.remainder(kind, offset, end))
            return
        self._count(kind)
        if kind == "GraphDef":
            yield from self._runs(kind, offset, end)
            return
        done = offset
        for item in list(self._window.fields(offset, end)):
            if item.number == 2 and item.wire_type == BYTES and item.length > PAYLOAD_FROM:
                yield self._window.bytes_at(done, item.start - done)
                for part in self.parts("GraphDef", item.offset, item.end):
                    yield encode_header(item.number, len(part)) + part
                done = item.end
        yield self._window.bytes_at(done, end - done)

    def _count(self, kind: str) -> None:
        if kind == "MetaGraphDef" or (kind == "GraphDef" and self._graph < 0):
            self._graph += 1

    def remainder(self, kind: str, offset: int, end: int) -> list[bytes]:
        """The message of this kind, in pieces, without the constants that were cut out of it."""
        self._count(kind)
        if end - offset <= PAYLOAD_FROM:
            return [self._window.bytes_at(offset, end - offset)]
        if kind == "TensorProto":
            return [self._cut(offset, end)]
        if kind == "SavedModel":  # whose MetaGraphDefs are counted, short ones too
            return list(self._cut_fields(kind, list(self._window.fields(offset, end)), end))
        if not self._enter(kind, offset, end):
            return [self._window.bytes_at(offset, end - offset)]
        pieces = list(self._runs(kind, offset, end))
        if kind == "FunctionDef":
            self._function = ""
        return pieces

    def _runs(self, kind: str, offset: int, end: int) -> Iterator[bytes]:
        """The same, with fields that are too short to be cut, as nearly all nodes are, taken many at a time."""
        while offset < end:
            after = self._window.past_short(offset, end, PAYLOAD_FROM)
            if after > offset:
                yield self._window.bytes_at(offset, after - offset)
            for item in self._window.fields(after, end):
                yield from self._cut_fields(kind, [item], item.end)
                after = item.end
                break
            offset = after

    def _cut_fields(self, kind: str, fields: list[Field], end: int) -> Iterator[bytes]:
        """The same for fields that are known, those with nothing to cut all at once."""
        done = fields[0].start if fields else end
        for item in fields:
            inner = _INNER[kind].get(item.number) if item.wire_type == BYTES else None
            if inner is None or (item.length <= PAYLOAD_FROM and inner != "MetaGraphDef"):
                continue
            if item.start > done:
                yield self._window.bytes_at(done, item.start - done)
            done = item.end
            pieces = self.remainder(inner, item.offset, item.end)
            yield b"".join((encode_header(item.number, sum(map(len, pieces))), *pieces))
        if end > done:
            yield self._window.bytes_at(done, end - done)

    def _enter(self, kind: str, offset: int, end: int) -> bool:
        """Note the name of the node or function that lies there; False when it holds no value to cut."""
        if kind == "NodeDef":
            self._node = self._text(offset, end)
        elif kind == "FunctionDef":
            signature = self._first(offset, end)
            self._function = self._text(signature.offset, signature.end) if signature else ""
        elif kind == "AttrEntry":
            return self._text(offset, end) == "value"
        return True

    def _first(self, offset: int, end: int) -> Field | None:
        """The field 1 of a message, most often its name, and nearly always at its start."""
        return next((item for item in self._window.fields(offset, end) if item.number == 1), None)

    def _text(self, offset: int, end: int) -> str:
        for item in self._window.fields(offset, end):
            if item.number == 1 and item.wire_type == BYTES:
                return self._window.bytes_at(item.offset, item.length).decode("utf-8", "replace")
        return ""

    def _cut(self, offset: int, end: int) -> bytes:
        try:
            tensor = scan_tensor_proto(self._node, self._window.source, offset, end)
        except CorruptionError:
            raise
        except UnsupportedFormatError:  # a resource handle or variant: nothing to stream, and protobuf can hold it
            return self._window.bytes_at(offset, end - offset)
        self.payloads[(max(self._graph, 0), self._function, self._node)] = tensor
        return encode_head(tensor)


def write_graph_def(graph: Graph, path: str, progress: Progress | None = None) -> None:
    """Write a binary GraphDef; UnsupportedFormatError past 2 GiB, before anything is written."""
    encoded = graph.encode()
    check_length(encoded, path)
    with AtomicFile(path, progress) as file:
        file.write_all(encoded.parts())


def is_too_long(encoded: Encoded) -> bool:
    """Whether a message would be longer than protobuf reads."""
    return encoded.length > PROTOBUF_LIMIT


def check_length(encoded: Encoded, path: str) -> None:
    """UnsupportedFormatError with the ways out when a message would be longer than protobuf reads."""
    if is_too_long(encoded):
        raise UnsupportedFormatError(
            "the graph would pass protobuf's limit of 2 GiB and nothing could read it; write a memmapped package "
            "(.pbmm), or a SavedModel (format='saved_model'), which keeps the values of variables apart",
            path=path,
            expected=f"at most {PROTOBUF_LIMIT} bytes",
            found=encoded.length,
        )


def write_graph_def_text(graph: Graph, path: str, progress: Progress | None = None) -> None:
    """Write a GraphDef as protobuf text; UnsupportedFormatError when it would be very large."""
    length = graph.encode().length
    if length > _TEXT_LIMIT:
        raise UnsupportedFormatError(
            "too large for protobuf text; write a .pb",
            path=path,
            expected=f"at most {_TEXT_LIMIT} bytes",
            found=length,
        )
    with AtomicFile(path, progress) as file:
        file.write(print_text(graph.materialize()).encode())
