"""migration_script: a program for one model: load, feed, restore, run and train it in today's TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

from graph_restore.api import load
from graph_restore.model import Model
from graph_restore.script.facts import facts_of
from graph_restore.script.text import PROGRAMS


def migration_script(
    model: Any,
    to: str = "tf2",
    *,
    fetches: str | Iterable[str] | None = None,
    feeds: str | Iterable[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    tags: Collection[str] | None = None,
    asset_dir: str | os.PathLike[str] | None = None,
) -> str:
    """The text of a Python program that runs as it is, and is to be changed: TensorFlow is not needed to write it.

    `to`: "tf2", a tf.Module that is trained with a GradientTape; or "tf1", a tf.Graph and a Session, trained with the
    graph's own train op where it has one. `model`: a path, or a Model that was loaded from one. `fetches`, `feeds`: as
    for `as_module`; each feed gets an array of its dtype and shape as an example, open sizes chosen. `checkpoint`: by
    default the one that belongs to the model. `tags`, `asset_dir`: as for `load` and `as_module`. Paths go into the
    program as they are given.

    Raises ValueError for another `to` or a Model that came from no file, CheckpointNotFoundError when there are
    variables and no checkpoint, and what `as_module` raises where it can be told beforehand.
    """
    if to not in PROGRAMS:
        raise ValueError(f"to is {' or '.join(map(repr, PROGRAMS))}, not {to!r}")
    loaded = model if isinstance(model, Model) else load(model, tags=tags)
    if not loaded.source.path:
        raise ValueError("the program has to load the model from somewhere: pass its path, not what is in memory")
    folder = None if asset_dir is None else os.fspath(asset_dir)
    path = None if checkpoint is None else os.fspath(checkpoint)
    names = [fetches] if isinstance(fetches, str) else fetches
    fed = [feeds] if isinstance(feeds, str) else feeds
    return PROGRAMS[to](facts_of(loaded, to, names, fed, path, folder))
