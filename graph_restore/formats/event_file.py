"""Event files: TFRecords of Event messages, among them the graphs that TensorBoard shows.

Summaries are passed over without being decoded: of each record only the fields' numbers and lengths are looked at
(tensorflow/core/util/event.proto: graph_def = 4, meta_graph_def = 9, both serialized messages as bytes).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from graph_restore.errors import FormatError, warn
from graph_restore.formats.graph_def import scan
from graph_restore.formats.meta_graph import from_graph, from_meta_graph
from graph_restore.graph import Graph
from graph_restore.model import Model, ModelSource
from graph_restore.storage.coding import BYTES, Window
from graph_restore.storage.files import all_names
from graph_restore.storage.records import RecordFile
from graph_restore.storage.source import Source

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


def newest_event_file(folder: str) -> str | None:
    """The event file in `folder` that was begun last, by the time in its name; None if there is none."""
    named = [(int(match[1]), name) for name in all_names(folder) if (match := _NAME.match(name))]
    return os.path.join(folder, max(named)[1]) if named else None
