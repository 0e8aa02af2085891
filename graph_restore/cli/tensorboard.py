"""`graph-restore tensorboard`: a model's graph and the distributions of its values, in TensorBoard."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes


@click.command("tensorboard", short_help="Show MODEL and its values in TensorBoard.")
@click.argument("model")
@click.argument("checkpoint", required=False)
@click.option("--logdir", metavar="DIR", help="Where to write [a directory that goes when TensorBoard ends].")
@click.option("--port", type=click.IntRange(0, 65535), metavar="NUMBER", help="TensorBoard's port; 0 for any free one.")
@click.option("--no-start", is_flag=True, help="Only write; needs --logdir, and no TensorBoard.")
@click.option("--no-histograms", is_flag=True, help="The graph alone.")
@options.tags
@options.names("--include", help="Histograms of these variables only: names or globs.")
@options.names("--exclude", help="No histograms of these variables.")
def command(
    model: str,
    checkpoint: str | None,
    logdir: str | None,
    port: int | None,
    no_start: bool,
    no_histograms: bool,
    tags: list[str] | None,
    include: list[str] | None,
    exclude: list[str] | None,
) -> None:
    """Write MODEL as an event file and show it in TensorBoard until interrupted.

    The graph has the shapes of variables; each variable with a value has a histogram. Values are those of CHECKPOINT,
    or of the one that belongs to MODEL.

    \b
    Example: graph-restore tensorboard run/model.ckpt-1000.meta --port 6006
    """
    from graph_restore.api import load
    from graph_restore.events import start_tensorboard, write_events

    if no_start and logdir is None:
        raise click.UsageError("--no-start goes with --logdir, which says where to write")
    with nullcontext(logdir) if logdir is not None else tempfile.TemporaryDirectory() as folder:
        with notes():
            path = write_events(
                load(model, tags=tags), folder,
                checkpoint=checkpoint, histograms=not no_histograms, include=include, exclude=exclude,
            )  # fmt: skip
        if logdir is not None:
            click.echo(f"wrote {path}")
        if no_start:
            return
        process = start_tensorboard(folder, port)
        try:
            status = process.wait()
        except KeyboardInterrupt:  # which TensorBoard gets as well
            status = 0
        finally:
            process.terminate()
            process.wait()
    if status:
        raise click.ClickException(f"TensorBoard ended with status {status}")
