"""`graph-restore checkpoint`: looking at checkpoints and making others of them, one module a verb."""

from __future__ import annotations

from importlib import import_module

import click

VERBS = ("ls", "cat", "diff", "convert", "edit", "verify", "paths")


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        found: click.Command = import_module(f"graph_restore.cli.checkpoint.{cmd_name}").command
        return found


@click.group("checkpoint", cls=_Verbs)
def command() -> None:
    """Look at checkpoints, compare, convert, edit and verify them.

    CHECKPOINT is a prefix, any of its files, its directory, or a .npz or .safetensors file; also inside an
    archive (run.zip/model.ckpt) or in a store (s3://bucket/run/model.ckpt). Nothing is edited in place.

    \b
    Example: graph-restore checkpoint ls run/model.ckpt-1000 'conv*' --stats
             graph-restore checkpoint convert run/model.ckpt-1000 -o model.safetensors
    """
