"""A `checkpoint` state file after its directory was moved: where its checkpoints lie now, and the file made right.

Old Savers wrote absolute paths, and TensorFlow finds nothing under them on another machine. Relative ones survive.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from graph_restore.checkpoint.listing import is_pattern, is_table, shard_sets
from graph_restore.checkpoint.state import STATE_NAME, _quoted, is_state_file, places, read_state
from graph_restore.errors import CheckpointNotFoundError, UnsupportedFormatError
from graph_restore.storage import files
from graph_restore.storage.output import AtomicFile

_TIMESTAMP = re.compile(rb"\s*(?:all_model_checkpoint_timestamps|last_preserved_timestamp)\s*:")


@dataclass(frozen=True)
class Relocated:
    """A recorded path, and the relative one it should be: None when the checkpoint is not in the directory.

    `found` is where TensorFlow, too, finds it as recorded.
    """

    recorded: str
    relative: str | None
    found: bool

    @property
    def changes(self) -> bool:
        """Whether the file should say something else."""
        return self.relative is not None and self.relative != self.recorded


@dataclass(frozen=True)
class Relocation:
    """The state file `path`; `newest` and `all` are its paths as recorded and as they should be."""

    path: str
    newest: Relocated
    all: tuple[Relocated, ...]

    @property
    def changes(self) -> bool:
        """Whether there is anything to repair."""
        return any(one.changes for one in (self.newest, *self.all))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        described = [{"recorded": one.recorded, "relative": one.relative, "found": one.found} for one in self.all]
        return {"path": self.path, "newest": vars(self.newest), "all": described, "changes": self.changes}


def find_relocation(directory: str | os.PathLike[str]) -> Relocation:
    """How the state file in `directory` should read, all its paths relative; nothing is written.

    A path that leads to a checkpoint outside the directory is left alone. CheckpointNotFoundError when there is no
    state file, FormatError when it names no checkpoint.
    """
    folder = files.plain_path(directory)
    path = os.path.join(folder, STATE_NAME) if files.is_directory(folder) else folder
    if not is_state_file(path):
        raise CheckpointNotFoundError(f"no state file {path}; give the directory in which a Saver wrote one")
    state = read_state(path)
    place = os.path.dirname(path)
    return Relocation(path, _relocated(state.newest, place), tuple(_relocated(one, place) for one in state.all))


def apply_relocation(relocation: Relocation) -> None:
    """Write the repaired paths into the state file, which is replaced at once; its timestamps stay as they are.

    UnsupportedFormatError when it lies in a store or an archive.
    """
    if not files.is_local(relocation.path):
        raise UnsupportedFormatError(
            "stores and archives are never written to; repair the file in a copy on a disk", path=relocation.path
        )
    with open(relocation.path, "rb") as file:
        kept = [line for line in file.read().splitlines() if _TIMESTAMP.match(line)]
    lines = [b"model_checkpoint_path: " + _quoted(_wanted(relocation.newest))]
    lines += [b"all_model_checkpoint_paths: " + _quoted(_wanted(one)) for one in relocation.all]
    with AtomicFile(relocation.path) as output:
        output.write(b"".join(line + b"\n" for line in (*lines, *kept)))


def _wanted(path: Relocated) -> str:
    return path.recorded if path.relative is None else path.relative


def _relocated(recorded: str, directory: str) -> Relocated:
    first, *others = places(recorded, directory)
    if _exists(first):
        if not os.path.isabs(recorded):
            return Relocated(recorded, recorded, True)
        relative = _relative(first, directory)
        return Relocated(recorded, None if relative.startswith(os.pardir + os.sep) else relative, True)
    place = next(filter(_exists, others), None)
    return Relocated(recorded, None if place is None else _relative(place, directory), False)


def _relative(path: str, directory: str) -> str:
    folder, base = os.path.split(path)
    if files.is_local(path):
        folder, directory = os.path.realpath(folder or "."), os.path.realpath(directory or ".")
    relative = os.path.relpath(folder, directory)
    return base if relative == "." else os.path.join(relative, base)


def _exists(prefix: str) -> bool:
    if is_pattern(prefix):
        shards = shard_sets(prefix[: -len("-?????-of-00001")])
        return int(prefix[-5:]) in shards
    return files.is_file(prefix + ".index") or is_table(prefix)
