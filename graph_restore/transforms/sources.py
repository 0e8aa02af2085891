"""What values are restored from: any form of `checkpoint` that `restore` takes, as a list of sources.

source := path | Checkpoint | mapping from key to array | list of sources, the first that has a tensor winning
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graph_restore.checkpoint import Checkpoint
from graph_restore.checkpoint.objects import OBJECT_GRAPH_KEY
from graph_restore.checkpoint.opening import load_tensors
from graph_restore.errors import CheckpointNotFoundError
from graph_restore.model import Model
from graph_restore.storage import files
from graph_restore.tensors import LazyTensor, lazy
from graph_restore.transforms.renaming import Renamed

GIVEN = "the values given"


@dataclass(frozen=True)
class Source:
    """Named tensors, a name for where they come from, and what their reader had to say."""

    name: str
    tensors: Mapping[str, LazyTensor]
    notes: Sequence[str] = field(default=())


def open_sources(model: Model, checkpoint: Any) -> list[Source]:
    """The sources that `checkpoint` means, in order of precedence; for None the checkpoint of the model itself.

    CheckpointNotFoundError for None and a bare graph; TypeError or ValueError for what is no source.
    """
    if checkpoint is None:
        if model.source.checkpoint is None:
            raise CheckpointNotFoundError(
                f"{model.source}: a bare graph has no checkpoint of its own; pass the checkpoint's prefix or directory"
            )
        checkpoint = model.source.checkpoint
    if isinstance(checkpoint, list | tuple):
        if not checkpoint:
            raise ValueError("an empty list of checkpoints; leave it out for the model's own")
        return [source for item in checkpoint for source in open_sources(model, item)]
    return [_opened(checkpoint)]


def opened(checkpoint: Any) -> Any:
    """What a path leads to, a Checkpoint or a Source, so that it is looked for once; anything else as it is."""
    if files.is_accumulator(checkpoint):
        checkpoint = files.plain_path(checkpoint)
    if not isinstance(checkpoint, str | os.PathLike):
        return checkpoint
    tensors = load_tensors(checkpoint)
    return tensors if isinstance(tensors, Checkpoint) else Source(os.fspath(checkpoint), tensors)


def _opened(given: Any) -> Source:
    checkpoint = opened(given)
    if isinstance(checkpoint, Source):
        return checkpoint
    if isinstance(checkpoint, Checkpoint):
        return Source(checkpoint.prefix, checkpoint, checkpoint.notes)
    if not isinstance(checkpoint, Mapping):
        raise TypeError(
            "values are restored from a path, a Checkpoint, a mapping from names to arrays, or a list of these; "
            f"found {checkpoint!r:.80}"
        )
    return Source(GIVEN, {str(key): lazy(str(key), value) for key, value in checkpoint.items()})


def merged(sources: Sequence[Source], renamed: Sequence[Renamed]) -> tuple[Renamed, list[str]]:
    """All tensors under the names that variables have, each from the first source; notes of those that have it too."""
    found: dict[str, tuple[str, LazyTensor]] = {}
    notes: list[str] = []
    for source, tensors in zip(sources, renamed):
        hidden = sum(name in found for name in tensors if name != OBJECT_GRAPH_KEY)
        if hidden:
            notes.append(f"{hidden} keys of {source.name} are also in an earlier source and taken from there")
        found = {**tensors, **found}
    return found, notes
