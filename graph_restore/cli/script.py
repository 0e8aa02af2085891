"""`graph-restore script`: a Python program for one model."""

from __future__ import annotations

import os

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes


@click.command("script", short_help="Write a program that loads, runs and trains MODEL.")
@click.argument("model")
@click.option("--to", type=click.Choice(["tf2", "tf1"]), default="tf2", show_default=True, metavar="FORM",
              help="A tf.Module (tf2), or graph and session (tf1).")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="Where to write [it is printed].")
@options.names("--fetches", help="Tensors wanted [the signature's, or the one output].")
@options.names("--feeds", help="Tensors to feed [what the fetches need].")
@click.option("--checkpoint", metavar="CHECKPOINT", help="Values of variables [its own].")
@options.tags
@options.asset_dir
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def command(
    model: str,
    to: str,
    output: str | None,
    fetches: list[str] | None,
    feeds: list[str] | None,
    checkpoint: str | None,
    tags: list[str] | None,
    asset_dir: str | None,
    force: bool,
) -> None:
    """Write a Python program that loads MODEL in today's TensorFlow, runs it, and trains it for a step.

    It runs as it is, on feeds that are made up: put in your own data. Paths go into it as they are given here.

    \b
    Example: graph-restore script run/model.ckpt-1000.meta --to tf2 --fetches softmax -o train.py
    """
    from graph_restore.script import migration_script
    from graph_restore.storage.output import AtomicFile, is_stream

    if output is not None and os.path.exists(output) and not (force or is_stream(output)):
        raise click.ClickException(f"{output} is there already; write somewhere else, or pass --force")
    with notes():
        text = migration_script(
            model, to, fetches=fetches, feeds=feeds, checkpoint=checkpoint, tags=tags, asset_dir=asset_dir
        )
    if output is None:
        click.echo(text, nl=False)
        return
    with AtomicFile(output) as file:
        file.write(text.encode())
    click.echo(f"wrote {output}", err=is_stream(output))
