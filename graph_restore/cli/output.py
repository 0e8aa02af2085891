"""Writing a frozen model: what must not be overwritten, the export, and the lines that say what was done."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from graph_restore.api import export
from graph_restore.cli.progress import progress
from graph_restore.cli.tables import described, rows
from graph_restore.errors import FormatError, GraphRestoreError
from graph_restore.formats.recognise import recognise
from graph_restore.model import Model
from graph_restore.storage.source import FileSource
from graph_restore.summary import frozen_variables, placeholders

_CHECKPOINT_ENDINGS = (".index", ".meta")


def refuse_to_overwrite(path: str, inputs: Iterable[str | None]) -> None:
    """GraphRestoreError when `path` is a directory, a file of a checkpoint, or one of the inputs."""
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


def write(frozen: Model, path: str, format: str | None = None) -> None:
    """Export, with a progress bar where that is of use. `format`: as for `export`."""
    with progress(frozen.graph) as advance:
        export(frozen, path, format, progress=advance)


def report(before: Model, frozen: Model, path: str) -> None:
    """Print what was done."""
    variables = frozen_variables(before, frozen)
    facts = {
        "wrote": f"{path}, {os.path.getsize(path):,} bytes, {len(frozen.graph.graph_def.node)} nodes",
        "fetches": ", ".join(frozen.fetches) or "none",
        "feeds": ", ".join(described(tensor) for tensor in placeholders(frozen.graph)) or "none",
        "variables": f"{len(variables)} frozen, {len(before.variables) - len(variables)} not needed",
    }
    if frozen.init_op is not None:
        facts["init_op"] = f"{frozen.init_op}, to be run once before the first fetch"
    sys.stdout.writelines(line + "\n" for line in rows(facts.items()))
