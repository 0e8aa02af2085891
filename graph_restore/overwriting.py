"""What a frozen model must not be written over.

`graph-restore freeze` spares whatever freezing did not leave (`refuse_to_overwrite`). TensorFlow's freeze_graph
replaces its output, so the command of that name spares only its inputs (`refuse_inputs`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from graph_restore.api import load
from graph_restore.checkpoint.opening import files_of, load_tensors
from graph_restore.errors import FreezeError, GraphRestoreError
from graph_restore.model import Model
from graph_restore.recognise import recognise
from graph_restore.storage.source import FileSource
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.tables import FROM_FILE, find_asset

_GRAPH_ENDINGS = (".pb", ".pbtxt", ".prototxt")


def refuse_to_overwrite(path: str, model: Model, advice: str = "; write somewhere else, or remove it first") -> None:
    """GraphRestoreError when `path` is empty or a directory, belongs to a checkpoint, or is no file that freezing left.

    What is there may be replaced when it is a graph without variables, other than the one that `model` was read from:
    then freezing wrote it before; also a .pb that is no model at all. `advice`: what to do, as the end of a sentence.
    """
    _refuse_place(path, advice)
    if not os.path.isfile(path) or not os.path.getsize(path):
        return
    if model.source.file and os.path.exists(model.source.file) and os.path.samefile(model.source.file, path):
        raise GraphRestoreError(f"{path} is the model itself{advice}")
    held = _held(path)
    if held is not None:
        raise GraphRestoreError(f"{path} is there already and holds {held}{advice}")


def refuse_inputs(path: str, model: Model, *given: str | None) -> None:
    """GraphRestoreError when `path` is empty, a directory or a checkpoint's prefix, or a file that `model` was made
    from: its graph, its checkpoint, a vocabulary, or one of `given`. Any other file may be replaced."""
    _refuse_place(path, "; write somewhere else")
    if not os.path.isfile(path):
        return
    for what, file in _inputs(model, given):
        if os.path.exists(file) and os.path.samefile(file, path):
            raise GraphRestoreError(f"{path} is {what} that is to be frozen; write somewhere else")


def _inputs(model: Model, given: tuple[str | None, ...]) -> Iterator[tuple[str, str]]:
    """(what it is, path) of the files that a model was made from."""
    yield from (("the model", file) for file in (model.source.file, model.source.path) if file)
    yield from (("among the files", file) for file in given if file)
    prefix = model.restoration.checkpoint if model.restoration is not None else ""
    if prefix:
        yield "the state of the checkpoint", os.path.join(os.path.dirname(prefix), "checkpoint")
        with suppress(GraphRestoreError, OSError):  # of values that were given by other means than a file
            yield from (("a file of the checkpoint", file) for file in files_of(prefix, load_tensors(prefix)))
    yield from (("a file of the model", file) for file in model.assets.values())
    draft = Draft(model.graph)
    for node in model.graph.of_ops(FROM_FILE):
        with suppress(FreezeError, IndexError):  # of one that is nowhere, so that it was not read
            yield "a vocabulary of the model", find_asset(draft, model, node.input[1], None, node.name)


def _refuse_place(path: str, advice: str) -> None:
    if not path:
        raise GraphRestoreError("the name of the output is empty; give the name of a file to write")
    if os.path.isdir(path) or path.endswith(os.sep):
        raise GraphRestoreError(
            f"{path} is a directory; give the name of a file to write, such as {os.path.join(path, 'frozen.pb')}"
        )
    if os.path.exists(path + ".index"):
        raise GraphRestoreError(f"{path} is the prefix of a checkpoint{advice}")


def _held(path: str) -> str | None:
    """What must be kept of an existing file, in words; None when nothing."""
    try:
        kind = recognise(FileSource(path)).message
        if kind == "GraphDef":
            return "a graph with variables" if len(load(path).variables) else None
    except GraphRestoreError:
        return None if path.endswith(_GRAPH_ENDINGS) else "no graph"
    return {"Checkpoint": "a checkpoint", "CheckpointState": "the state of checkpoints"}.get(kind, f"a {kind}")
