"""MODEL and CHECKPOINT as the verbs take them: read, restored, and told apart when they were swapped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from graph_restore.api import load
from graph_restore.errors import FormatError
from graph_restore.model import Model
from graph_restore.recognise import recognise
from graph_restore.storage import files
from graph_restore.transforms.initialize import initialize
from graph_restore.transforms.restore import restore

OF_RESTORE = ("include", "exclude", "rename", "moving_averages", "cast", "on_mismatch")


def load_model(path: str, checkpoint: str | None, tags: list[str] | None) -> Model:
    """The model at `path`; UsageError when that is a checkpoint's file and `checkpoint` the model."""
    try:
        return load(path, tags=tags)
    except FormatError as error:
        if checkpoint is not None and _is_model(checkpoint):
            raise click.UsageError(f"{error}. {checkpoint} is a model: MODEL comes first, CHECKPOINT second") from None
        raise


def load_restored(path: str, checkpoint: str | None, tags: list[str] | None, choices: Mapping[str, Any]) -> Model:
    """The model with values, from `checkpoint` or its own, as the options of `restore` among `choices` say; of one
    without variables, and without a checkpoint, the model itself."""
    model = load_model(path, checkpoint, tags)
    if checkpoint is not None or len(model.variables):
        model = restore(model, checkpoint, **{name: choices[name] for name in OF_RESTORE})
    return initialize(model) if choices["initialize"] else model


def _is_model(path: str) -> bool:
    name = files.plain_path(path)
    try:
        return files.is_file(name) and recognise(files.open_source(name)).message not in (
            "Checkpoint",
            "CheckpointState",
        )
    except FormatError:
        return False
