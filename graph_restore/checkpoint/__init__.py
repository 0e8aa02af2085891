"""Named tensors on disk: checkpoints of both versions."""

from __future__ import annotations

from graph_restore.checkpoint.checkpoint import Checkpoint, load_checkpoint
from graph_restore.checkpoint.paths import CheckpointFiles, find_checkpoint, latest_checkpoint

__all__ = ["Checkpoint", "CheckpointFiles", "find_checkpoint", "latest_checkpoint", "load_checkpoint"]
