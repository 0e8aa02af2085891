"""TensorFlow, imported when a live feature is first used, or an error that says what to install; and its many objects
kept out of the way of Python's garbage collector while graphs are built."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from graph_restore.errors import TensorFlowRequiredError


@cache
def tensorflow() -> Any:
    """The tensorflow module; TensorFlowRequiredError when it cannot be imported."""
    try:
        import tensorflow as module  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError as error:
        raise TensorFlowRequiredError(
            f"live graphs need TensorFlow, which cannot be imported here ({error}): "
            "pip install 'graph-restore[tensorflow]', or 'graph-restore[tensorflow-cpu]' for a machine without a GPU"
        ) from error
    return module


@contextmanager
def uncollected() -> Iterator[None]:
    """Within the block nothing is looked through for unreachable cycles.

    A graph that is built lives on, and makes Python look several times through all objects there are, which with
    TensorFlow are a million: a third of the time it takes to import 5,000 nodes. Works as a decorator too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
