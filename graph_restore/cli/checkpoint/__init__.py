"""`graph-restore checkpoint`: looking at checkpoints and making others of them, one module a verb."""

from __future__ import annotations

import click

from graph_restore.cli.verbs import Verbs

VERBS = ("ls", "cat", "diff", "convert", "edit", "verify", "paths")


class _Verbs(Verbs):
    package, verbs = __name__, VERBS


@click.group("checkpoint", cls=_Verbs)
def command() -> None:
    """Look at checkpoints, compare, convert, edit and verify them.

    CHECKPOINT is a prefix, any of its files, its directory, a .npz or .safetensors file, or a directory of .npy files;
    also inside an archive (run.zip/model.ckpt) or in a store (s3://bucket/run/model.ckpt). Nothing is edited in place.

    \b
    Example: graph-restore checkpoint ls run/model.ckpt-1000 'conv*' --stats
             graph-restore checkpoint convert run/model.ckpt-1000 -o model.safetensors
    """
