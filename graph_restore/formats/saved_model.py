"""SavedModel: `saved_model.pb` or `.pbtxt` in a directory with `variables/` and `assets/`.

tensorflow/core/protobuf/saved_model.proto; several MetaGraphDefs, told apart by their sets of tags.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from graph_restore.errors import FormatError
from graph_restore.formats.graph_def import Scanned, scan
from graph_restore.formats.meta_graph import from_meta_graph
from graph_restore.formats.text import parse_text
from graph_restore.model import Model, ModelSource
from graph_restore.storage.files import is_file
from graph_restore.storage.source import Source

FILE_NAMES = ("saved_model.pb", "saved_model.pbtxt")
SERVE = frozenset({"serve"})


def find_saved_model(folder: str) -> str | None:
    """The path of the SavedModel file in `folder`, None if there is none."""
    paths = [os.path.join(folder, name) for name in FILE_NAMES]
    return next((path for path in paths if is_file(path)), None)


def read_saved_model(source: Source, text: bool, origin: ModelSource, tags: Collection[str] | None = None) -> Model:
    """The Model of the MetaGraphDef with exactly `tags`; by default the only one, else the one tagged `serve`.

    FormatError that lists the sets of tags when none, or more than one, is meant.
    """
    scanned = Scanned(parse_text(source, "SavedModel")) if text else scan(source, "SavedModel")
    number = _choose(scanned.message.meta_graphs, tags, source.name)
    return from_meta_graph(
        scanned.message.meta_graphs[number], scanned.of_graph(number), with_checkpoint(origin, source.name)
    )


def with_checkpoint(origin: ModelSource, path: str) -> ModelSource:
    """The origin with the checkpoint that belongs to a SavedModel file: `variables/variables` beside it."""
    folder = os.path.dirname(path)
    prefix = os.path.join(folder, "variables", "variables")
    has_variables = is_file(prefix + ".index") or is_file(prefix)
    return replace(origin, folder=folder, checkpoint=prefix if has_variables else None)


def _choose(meta_graphs: Any, tags: Collection[str] | None, path: str) -> int:
    sets = [frozenset(meta_graph.meta_info_def.tags) for meta_graph in meta_graphs]
    if not sets:
        raise FormatError("the SavedModel holds no MetaGraphDef", path=path)
    wanted = frozenset([tags] if isinstance(tags, str) else tags) if tags is not None else None
    matches = [number for number, found in enumerate(sets) if wanted is None or found == wanted]
    if wanted is None and len(matches) > 1:
        matches = [number for number, found in enumerate(sets) if found == SERVE]
    if len(matches) != 1:
        listed = "; ".join(",".join(sorted(found)) or "(none)" for found in sets)
        raise FormatError(
            "pass tags= to say which MetaGraphDef of the SavedModel is meant",
            path=path,
            expected=f"one of the tag sets: {listed}",
            found="no tags given" if wanted is None else ",".join(sorted(wanted)) or "(none)",
        )
    return matches[0]
