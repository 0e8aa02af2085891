"""write_events: a model written to be looked at in TensorBoard, which `start_tensorboard` starts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from graph_restore.api import load
from graph_restore.checkpoint.streaming import pieces
from graph_restore.errors import GraphRestoreError, GraphRestoreWarning, PackageRequiredError
from graph_restore.formats.event_file import EventWriter
from graph_restore.formats.meta_graph import encode_meta_graph
from graph_restore.formats.summaries import Histogram, histogram_summary, number_summary
from graph_restore.model import Model
from graph_restore.runtime.session import with_values
from graph_restore.storage.extent import Extent
from graph_restore.storage.output import AtomicFile, local_path
from graph_restore.tensor_proto import Encoded
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.selection import Selected, Selection
from graph_restore.transforms.viewing import Viewed, for_viewing
from graph_restore.variables import Variable

# One name, so that writing again replaces the file; the time in it is the earliest, so that where a run's own event
# files come to lie beside it, `load` takes the graph from these.
FILE_NAME = "events.out.tfevents.0000000001.graph_restore"


def write_events(
    model: Any,
    logdir: str | os.PathLike[str],
    *,
    checkpoint: Any = None,
    histograms: bool = True,
    include: Selection = None,
    exclude: Selection = None,
) -> str:
    """Write an event file into `logdir`, for TensorBoard, and give its path. TensorFlow is not needed.

    `model`: a Model, or anything `load` takes. In the file are its graph, with the shapes of variables, placeholders
    and constants; its MetaGraph, where it has collections, signatures or a saver; and of each variable with a value a
    histogram, or the number itself for a single one, under the variable's name, at the step that `global_step` has.
    Values are the model's, those of `checkpoint`, or those that belong to its source; they are read piece by piece.
    `include`, `exclude`: of which variables, as for `restore`; `histograms=False`: of none.

    Constants over a kilobyte are left out of the graph, and NaN and infinities of the histograms, with a
    GraphRestoreWarning. A file that this function wrote before is replaced; with other event files in `logdir` it
    raises GraphRestoreError, as TensorBoard shows one graph for each directory.
    """
    found = with_values(load(model), checkpoint)
    folder = local_path(logdir)
    _refuse_strangers(folder)
    viewed = for_viewing(found)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, FILE_NAME)
    with AtomicFile(path) as file:
        writer = EventWriter(file)
        writer.add(graph_def=_bytes(viewed.graph.encode()))
        if found.collections or found.signatures or found.saver_def is not None:
            writer.add(meta_graph_def=_bytes(encode_meta_graph(replace(found, graph=viewed.graph))))
        step, left_out = _step(found), []
        for variable in _chosen(found, include, exclude) if histograms else ():
            assert variable.value is not None
            summary, lost = _summary(variable.name, variable.value)
            if summary is not None:
                writer.add(step, summary=summary)
            left_out += [f"{variable.name} ({lost:,})"] if lost else []
    _warn(viewed, left_out)
    if histograms and len(found.variables) and all(variable.value is None for variable in found.variables):
        text = f"{found.source}: no variable has a value, so there are no histograms; pass a checkpoint"
        warnings.warn(text, GraphRestoreWarning, stacklevel=2)
    return path


def _refuse_strangers(folder: str) -> None:
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    others = [name for name in names if "tfevents" in name and name != FILE_NAME and not name.startswith(".")]
    if others:
        raise GraphRestoreError(
            f"{folder} holds event files of its own, {others[0]} among them, and TensorBoard shows one graph for each "
            f"directory; write to another one, such as {os.path.join(folder, 'restored')}"
        )


def _bytes(encoded: Encoded) -> bytes:
    return b"".join(part.read() if isinstance(part, Extent) else part for part in encoded.parts())


def _chosen(model: Model, include: Selection, exclude: Selection) -> Iterator[Variable]:
    """The variables with values that are wanted; strings and complex numbers have no histogram."""
    wanted = Selected("include", include, default=True)
    left_out = Selected("exclude", exclude, default=False)
    for note in (*wanted.notes(model.variables), *left_out.notes(model.variables)):
        warnings.warn(note, GraphRestoreWarning, stacklevel=3)
    for variable in model.variables:
        value = variable.value
        has_numbers = value is not None and value.size and value.dtype.kind not in "Oc"
        if has_numbers and wanted(variable) and not left_out(variable):
            yield variable


def _summary(tag: str, value: LazyTensor) -> tuple[Any, int]:
    """(the summary of a value, or None if there is no number in it; how many were left out)."""
    if not value.shape:
        return number_summary(tag, float(value.read())), 0
    histogram = Histogram()
    for piece in pieces(value):
        histogram.add(piece)
    return histogram_summary(tag, histogram) if histogram.count else None, histogram.left_out


def _step(model: Model) -> int:
    """The value of the step counter: the variable in the collection `global_step`, else of that name; 0 without one."""
    counters = [variable for variable in model.variables if variable.value is not None and variable.value.size == 1]
    for is_counter in (lambda v: "global_step" in v.collections, lambda v: v.name.rpartition("/")[2] == "global_step"):
        for variable in filter(is_counter, counters):
            assert variable.value is not None
            if variable.value.dtype.kind in "iu":
                return int(variable.value.read().item())
    return 0


def _warn(viewed: Viewed, left_out: list[str]) -> None:
    if viewed.count:
        text = f"{viewed.count} constants, {viewed.nbytes:,} bytes, are left out of the graph: it is to be looked at"
        warnings.warn(text, GraphRestoreWarning, stacklevel=3)
    if left_out:
        text = f"NaN and infinities are left out of the histograms of {', '.join(left_out)}"
        warnings.warn(text, GraphRestoreWarning, stacklevel=3)


def start_tensorboard(logdir: str, port: int | None = None) -> subprocess.Popen[bytes]:
    """Start the installed TensorBoard on `logdir`, on this machine's own address; the process, which runs until it is
    ended. `port`: by default its own choice, 0 for any free one. PackageRequiredError where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise PackageRequiredError("TensorBoard is not installed: pip install tensorboard")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir]
    return subprocess.Popen([*command, *([] if port is None else ["--port", str(port)])])
