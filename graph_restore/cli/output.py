"""Writing a frozen model: what must not be overwritten, the export, and the lines that say what was done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from graph_restore.api import export
from graph_restore.cli.progress import progress
from graph_restore.cli.tables import described, rows
from graph_restore.errors import FormatError, GraphRestoreError, TensorFlowRequiredError
from graph_restore.formats.recognise import recognise
from graph_restore.model import Model
from graph_restore.storage.output import AtomicFile
from graph_restore.storage.source import FileSource
from graph_restore.summary import frozen_variables, placeholders

_CHECKPOINT_ENDINGS = (".index", ".meta")


def refuse_to_overwrite(path: str, inputs: Iterable[str | None], directory: bool = False) -> None:
    """GraphRestoreError when `path` is a directory, a file of a checkpoint, or one of the inputs.

    `directory`: a new directory is to be written, and one that is there is seen to when it is.
    """
    if directory:
        return
    if os.path.isdir(path):
        raise GraphRestoreError(f"{path} is a directory; give the name of a file to write, such as {path}/frozen.pb")
    if os.path.exists(path + ".index") or (os.path.exists(path) and _of_checkpoint(path)):
        raise GraphRestoreError(f"{path} belongs to a checkpoint; write somewhere else, or pass --force")
    for name in inputs:
        if name is not None and os.path.exists(name) and os.path.exists(path) and os.path.samefile(name, path):
            raise GraphRestoreError(f"{path} is the model itself; write somewhere else, or pass --force")


def _of_checkpoint(path: str) -> bool:
    if path.endswith(_CHECKPOINT_ENDINGS) or ".data-" in os.path.basename(path):
        return True
    try:
        return recognise(FileSource(path)).message in ("Checkpoint", "CheckpointState")
    except FormatError:
        return False


def write(model: Model, path: str, format: str | None = None, **options: Any) -> None:
    """Export, with a progress bar where that is of use. `format` and `options` are those of `export`."""
    with progress(model) as advance:
        export(model, path, format, progress=advance, **options)


def write_ops_header(model: Model, path: str, note: Callable[[str], None]) -> None:
    """Write `ops_to_register.h`, with the classes of kernels where TensorFlow is there to name them."""
    from graph_restore.cpp import ops_header

    kernels = None
    try:
        from graph_restore.runtime.kernels import kernel_classes

        kernels = kernel_classes(model.graph)
    except TensorFlowRequiredError:
        note(f"{path} chooses ops only: kernels are named by TensorFlow, which is not installed")
    with AtomicFile(path) as file:
        file.write(ops_header(model.graph, kernels).encode())


def total_size(path: str) -> int:
    """The bytes of a file, or of all files in a directory."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def report(before: Model, frozen: Model, path: str) -> None:
    """Print what was done."""
    variables = frozen_variables(before, frozen)
    facts = {
        "wrote": f"{path}, {total_size(path):,} bytes, {len(frozen.graph.graph_def.node)} nodes",
        "fetches": ", ".join(frozen.fetches) or "none",
        "feeds": ", ".join(described(tensor) for tensor in placeholders(frozen.graph)) or "none",
        "variables": f"{len(variables)} frozen, {len(before.variables) - len(variables)} not needed",
    }
    if frozen.init_op is not None:
        facts["init_op"] = f"{frozen.init_op}, to be run once before the first fetch"
    sys.stdout.writelines(line + "\n" for line in rows(facts.items()))
