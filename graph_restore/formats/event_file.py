"""Event files: TFRecords of Event messages, among them the graphs that TensorBoard shows.

Summaries are passed over without being decoded: of each record only the fields' numbers and lengths are looked at
(tensorflow/core/util/event.proto: graph_def = 4, meta_graph_def = 9, both serialized messages as bytes).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graph_restore.errors import FormatError, warn
from graph_restore.formats.graph_def import scan
from graph_restore.formats.meta_graph import from_graph, from_meta_graph
from graph_restore.graph import Graph
from graph_restore.model import Model, ModelSource
from graph_restore.protos import Event
from graph_restore.storage.coding import BYTES, Window
from graph_restore.storage.files import all_names, is_directory, open_source
from graph_restore.storage.output import AtomicFile
from graph_restore.storage.records import RecordFile, write_record
from graph_restore.storage.source import Source

VERSION = "brain.Event:2"
_GRAPHS = {4: "GraphDef", 9: "MetaGraphDef"}
_NAME = re.compile(r".*tfevents\.(\d+)")


@dataclass(frozen=True)
class StoredGraph:
    """A graph in an event file: what message it is and where its bytes lie."""

    source: Source
    kind: str
    offset: int
    length: int

    def read(self, origin: ModelSource) -> Model:
        """The graph as a Model."""
        scanned = scan(self.source, self.kind, self.offset, self.length)
        if self.kind == "MetaGraphDef":
            return from_meta_graph(scanned.message, scanned.of_graph(), origin)
        return from_graph(Graph(scanned.message, scanned.of_graph()), origin, {})


def event_graphs(source: Source) -> list[StoredGraph]:
    """Every graph_def and meta_graph_def of an event file, in order; records that hold one have their checksum tested.

    CorruptionError for damage anywhere before the last record; a last record cut short is left out, with a warning.
    """
    records = RecordFile(source)
    graphs = list(_graphs(source, records))
    if records.truncated_at is not None:
        warn(
            f"{source.name} ends within the record at byte {records.truncated_at}: its writer was killed, or the file "
            "was cut short; a graph in that record or after it is lost"
        )
    return graphs


def _graphs(source: Source, records: RecordFile) -> Iterator[StoredGraph]:
    window = Window(source)
    for record in records:
        for field in window.fields(record.offset, record.offset + record.length):
            if field.number in _GRAPHS and field.wire_type == BYTES:
                for _ in record.extent.chunks():
                    pass  # the checksum is tested after the last chunk
                yield StoredGraph(source, _GRAPHS[field.number], field.offset, field.length)


def read_event_file(source: Source, origin: ModelSource) -> Model:
    """The last graph of the file: the last meta_graph_def, since it knows more, unless a graph_def came after it
    with other nodes."""
    graphs = event_graphs(source)
    if not graphs:
        raise FormatError(
            "the event file holds no graph; pass the event file that was written first, the .meta, or graph.pbtxt",
            path=source.name,
        )
    metas = [graph for graph in graphs if graph.kind == "MetaGraphDef"]
    if not metas:
        return graphs[-1].read(origin)
    model = metas[-1].read(origin)
    later = graphs[graphs.index(metas[-1]) + 1 :]
    if later:
        last = later[-1].read(origin)
        if set(last.graph.nodes) - set(model.graph.nodes):
            return last
    return model


def accumulated(accumulator: Any) -> Any:
    """The newest graph that TensorBoard's EventAccumulator has, as a message: its MetaGraph when that holds the same
    nodes, since it knows more. FormatError when it has none."""
    try:
        graph_def = accumulator.Graph()
    except ValueError as error:
        raise FormatError(f"the EventAccumulator has no graph; was Reload() called? ({error})") from None
    try:
        meta_graph = accumulator.MetaGraph()
    except ValueError:
        return graph_def
    names = {node.name for node in meta_graph.graph_def.node}
    return meta_graph if all(node.name in names for node in graph_def.node) else graph_def


def event_files(folder: str) -> list[str]:
    """The event files in `folder`, those begun last first, by the time in their names."""
    named = [(int(match[1]), name) for name in all_names(folder) if (match := _NAME.match(name))]
    return [os.path.join(folder, name) for _, name in sorted(named, reverse=True)]


def newest_event_file(folder: str) -> str | None:
    """The event file in `folder` that was begun last of those with a graph (training that goes on begins another, often
    without one); the last of all where none has one, None if there is no event file."""
    paths = event_files(folder)
    holding = (path for path in paths if len(paths) == 1 or _holds_graph(open_source(path)))
    return next(holding, next(iter(paths), None))


def _holds_graph(source: Source) -> bool:
    try:
        return next(_graphs(source, RecordFile(source)), None) is not None
    except FormatError:
        return True  # whoever reads it is told of the damage


def runs(folder: str) -> list[str]:
    """The directories directly in `folder` that hold event files: a TensorBoard log directory has one for each run."""
    inside = [os.path.join(folder, name) for name in all_names(folder)]
    return [path for path in inside if is_directory(path) and event_files(path)]


class EventWriter:
    """Events appended to a file, each a record; the first says which version of the format they have."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file
        self.add(file_version=VERSION)

    def add(self, step: int = 0, **what: Any) -> None:
        """Append an Event with one of the fields of tensorflow/core/util/event.proto, of now and of `step`."""
        event = Event(wall_time=time.time(), step=step, **what)
        write_record(self._file, event.SerializeToString(deterministic=True))
