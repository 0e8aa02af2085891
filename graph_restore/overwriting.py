"""What a frozen model must not be written over."""

from __future__ import annotations

import os

from graph_restore.api import load
from graph_restore.errors import GraphRestoreError
from graph_restore.model import Model
from graph_restore.recognise import recognise
from graph_restore.storage.source import FileSource

_GRAPH_ENDINGS = (".pb", ".pbtxt", ".prototxt")


def refuse_to_overwrite(path: str, model: Model, advice: str = "; write somewhere else, or remove it first") -> None:
    """GraphRestoreError when `path` is empty or a directory, belongs to a checkpoint, or is no file that freezing left.

    What is there may be replaced when it is a graph without variables, other than the one that `model` was read from:
    then freezing wrote it before; also a .pb that is no model at all. `advice`: what to do, as the end of a sentence.
    """
    if not path:
        raise GraphRestoreError("the name of the output is empty; give the name of a file to write")
    if os.path.isdir(path) or path.endswith(os.sep):
        raise GraphRestoreError(
            f"{path} is a directory; give the name of a file to write, such as {os.path.join(path, 'frozen.pb')}"
        )
    if os.path.exists(path + ".index"):
        raise GraphRestoreError(f"{path} is the prefix of a checkpoint{advice}")
    if not os.path.isfile(path) or not os.path.getsize(path):
        return
    if model.source.file and os.path.exists(model.source.file) and os.path.samefile(model.source.file, path):
        raise GraphRestoreError(f"{path} is the model itself{advice}")
    held = _held(path)
    if held is not None:
        raise GraphRestoreError(f"{path} is there already and holds {held}{advice}")


def _held(path: str) -> str | None:
    """What must be kept of an existing file, in words; None when nothing."""
    try:
        kind = recognise(FileSource(path)).message
        if kind == "GraphDef":
            return "a graph with variables" if len(load(path).variables) else None
    except GraphRestoreError:
        return None if path.endswith(_GRAPH_ENDINGS) else "no graph"
    return {"Checkpoint": "a checkpoint", "CheckpointState": "the state of checkpoints"}.get(kind, f"a {kind}")
