"""TensorFlow, imported when a live feature is first used, or an error that says what to install."""

from __future__ import annotations

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
