"""Named tensors on disk: checkpoints of both versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graph_restore.checkpoint.checkpoint import Checkpoint, load_checkpoint
from graph_restore.checkpoint.paths import CheckpointFiles, find_checkpoint, latest_checkpoint

if TYPE_CHECKING:
    from graph_restore.checkpoint.contents import list_tensors, read_part
    from graph_restore.checkpoint.conversion import convert, write_tensors
    from graph_restore.checkpoint.difference import compare
    from graph_restore.checkpoint.editing import edit
    from graph_restore.checkpoint.opening import load_tensors
    from graph_restore.checkpoint.relocation import apply_relocation, find_relocation
    from graph_restore.checkpoint.saving import save_checkpoint
    from graph_restore.checkpoint.state import write_state
    from graph_restore.checkpoint.verification import verify_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointFiles",
    "apply_relocation",
    "compare",
    "convert",
    "edit",
    "find_checkpoint",
    "find_relocation",
    "latest_checkpoint",
    "list_tensors",
    "load_checkpoint",
    "load_tensors",
    "read_part",
    "save_checkpoint",
    "verify_checkpoint",
    "write_state",
    "write_tensors",
]

# what is done with checkpoints, imported on first use: loading a model needs none of it
_MODULES = {
    "list_tensors": "contents", "read_part": "contents", "compare": "difference", "edit": "editing",
    "convert": "conversion", "load_tensors": "opening", "write_tensors": "conversion",
    "save_checkpoint": "saving", "write_state": "state",
    "find_relocation": "relocation", "apply_relocation": "relocation", "verify_checkpoint": "verification",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
