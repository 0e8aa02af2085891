"""Writing a frozen model: the export, what goes with it, and the lines that say what was done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from graph_restore.api import export
from graph_restore.cli.progress import progress
from graph_restore.cli.tables import described, rows
from graph_restore.errors import GraphRestoreError, TensorFlowRequiredError
from graph_restore.model import Model
from graph_restore.storage.output import AtomicFile, is_stream
from graph_restore.storage.source import FileSource
from graph_restore.summary import frozen_variables, placeholders


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


def refuse_header(path: str, output: str) -> None:
    """GraphRestoreError when the header would take the place of `output` or of a file that is no such header."""
    if os.path.realpath(path) == os.path.realpath(output):
        raise GraphRestoreError(f"{path} is the frozen model's own name; give --ops-header another")
    source = FileSource(path) if os.path.isfile(path) else None
    if source and source.size and b"OPS_TO_REGISTER" not in source.pread(0, min(source.size, 4096)):
        raise GraphRestoreError(
            f"{path} is there already and is no header of ops; give --ops-header another, or --force"
        )


def refuse_to_verify(path: str) -> None:
    """GraphRestoreError where what is written to `path` cannot be read again, to be compared with the model."""
    if is_stream(path):
        raise GraphRestoreError(f"{path} keeps nothing that could be verified; write to a file, or leave --verify out")


def total_size(path: str) -> int:
    """The bytes of a file, or of all files in a directory."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def sized(path: str) -> str:
    """A path and how much was written there, which a device does not tell."""
    return path if is_stream(path) else f"{path}, {total_size(path):,} bytes"


def write_kept(frozen: Model, prefix: str, overwrite: bool) -> str | None:
    """Write the values of variables that were kept as a checkpoint; its prefix, None when there are none."""
    if not len(frozen.variables):
        return None
    if os.path.exists(f"{prefix}.index") and not overwrite:
        raise GraphRestoreError(f"a checkpoint is at {prefix}; give another --kept-checkpoint, or pass --force")
    export(frozen, prefix, "checkpoint", overwrite=overwrite)
    return prefix


def report(before: Model, frozen: Model, path: str, kept: str | None = None, *, inline: bool = True) -> None:
    """Print what was done, to stderr where the model itself may go to stdout; `kept`: the checkpoint of the variables
    that were kept; `inline`: how tables are filled."""
    variables = frozen_variables(before, frozen)
    facts = {
        "wrote": f"{sized(path)}, {len(frozen.graph.nodes)} nodes",
        "fetches": ", ".join(frozen.fetches) or "none",
        "feeds": ", ".join(described(tensor) for tensor in placeholders(frozen)) or "none",
        "variables": f"{len(variables)} frozen, {_others(before, frozen, len(variables))}",
    }
    if kept is not None:
        facts["checkpoint"] = f"{kept}, of the variables kept; to be restored by {_restore_op(frozen)}"
    if frozen.init_op is not None:
        need = "need not be run: look-ups fill their tables" if inline else "to be run once before the first fetch"
        facts["init_op"] = f"{frozen.init_op}, {need}"
    stream = sys.stderr if is_stream(path) else sys.stdout
    stream.writelines(line + "\n" for line in rows(facts.items()))


def _others(before: Model, frozen: Model, number: int) -> str:
    kept = len(frozen.variables)
    return (f"{kept} kept, " if kept else "") + f"{len(before.variables) - number - kept} not needed"


def _restore_op(frozen: Model) -> str:
    return str(frozen.saver_def.restore_op_name)
