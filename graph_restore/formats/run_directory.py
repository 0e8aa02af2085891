"""A training run's directory: which of its files is the graph, and which the checkpoint."""

from __future__ import annotations

import os

from graph_restore.checkpoint import latest_checkpoint
from graph_restore.errors import FormatError
from graph_restore.formats.event_file import newest_event_file, runs
from graph_restore.formats.saved_model import find_saved_model
from graph_restore.formats.session_bundle import find_bundle
from graph_restore.storage.files import all_names, is_directory, is_file

GRAPH_NAMES = ("graph.pbtxt", "graph.pb")
_MOST = 100  # directories looked into, for the sake of a message
_GRAPH_FILES = "the .meta, .pb, .pbtxt or event file itself"


def find_graph(folder: str) -> tuple[str, str | None]:
    """(path of the graph file, prefix of the newest checkpoint or None) of a run directory.

    The graph is the `.meta` of the newest checkpoint, else `graph.pbtxt`, else the newest event file with a graph, else
    the only model file there is; FormatError that lists what the directory holds when there is none.
    """
    prefix = latest_checkpoint(folder)
    candidates = [prefix + ".meta"] if prefix is not None else []
    candidates += [os.path.join(folder, name) for name in GRAPH_NAMES]
    events = newest_event_file(folder)
    candidates += [events] if events is not None else []
    candidates += _only_graph_file(folder)
    path = next((candidate for candidate in candidates if is_file(candidate)), None)
    if path is None:
        listed = ", ".join(all_names(folder)[:12]) or "nothing"
        inside = [os.path.join(folder, name) for name in all_names(folder)]
        inside = [path for path in inside[:_MOST] if is_directory(path) and _holds_model(path)]
        raise FormatError(
            "no graph in this directory"
            + (f", only the checkpoint {os.path.basename(prefix)}, which goes second" if prefix is not None else "")
            + f"; pass {_what_to_pass(inside, runs(folder))}",
            path=folder,
            expected="saved_model.pb, export.meta, a checkpoint with its .meta, graph.pbtxt or an event file",
            found=listed,
        )
    return path, prefix


def _holds_model(folder: str) -> bool:
    """Whether a directory inside looks like what should have been passed, such as a version for serving."""
    if find_saved_model(folder) is not None or find_bundle(folder) is not None:
        return True
    return any(name.endswith(".meta") or name in GRAPH_NAMES for name in all_names(folder))


def _what_to_pass(models: list[str], found_runs: list[str]) -> str:
    if models:
        return f"the model in it, {models[-1]}"
    return f"a run in it, {' or '.join(found_runs)}" if found_runs else _GRAPH_FILES


def _only_graph_file(folder: str) -> list[str]:
    """The one file with a graph's suffix, when there is just one: then it cannot be the wrong one."""
    names = [name for name in all_names(folder) if name.endswith((".meta", ".pb", ".pbtxt"))]
    return [os.path.join(folder, names[0])] if len(names) == 1 else []
