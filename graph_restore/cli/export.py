"""`graph-restore export`: a model with its variables, in another format."""

from __future__ import annotations

from typing import Any

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes

FORMATS = ("saved_model", "meta_graph", "checkpoint", "graph_def", "graph_def_text", "memmapped")
_OF_SAVED_MODEL = ("fetches", "feeds", "whole_graph", "asset_dir")


@click.command("export")
@click.argument("model")
@click.argument("checkpoint", required=False)
@click.option("-o", "--output", required=True, metavar="OUT", help="File, checkpoint prefix or directory to write.")
@click.option("--format", "form", type=click.Choice(FORMATS), metavar="FORM",
              help="saved_model, meta_graph, checkpoint, graph_def, memmapped.")  # fmt: skip
@options.names("--fetches", help="Outputs of a SavedModel's signature.")
@options.names("--feeds", help="Its inputs; the graph is cut there.")
@click.option("--whole-graph", is_flag=True, help="Keep what no signature needs.")
@options.tags
@options.of_restore
@options.initialize
@options.asset_dir
@click.option("--upgrade-variables", is_flag=True, help="Reference variables as resource ones.")
@options.keep_devices
@click.option("--force", is_flag=True, help="Replace a SavedModel or checkpoint.")
def command(
    model: str,
    checkpoint: str | None,
    output: str,
    form: str | None,
    tags: list[str] | None,
    force: bool,
    keep_devices: bool,
    **choices: Any,
) -> None:
    """Write MODEL, its variables with it, in another format.

    \b
    saved_model  a directory for serving and tf.saved_model.load
    meta_graph   OUT.meta and the checkpoint OUT, for import_meta_graph

    \b
    Example: graph-restore export run/model.ckpt.meta -o served --format saved_model --fetches y
    """
    from graph_restore.cli.loading import load_restored
    from graph_restore.cli.output import write
    from graph_restore.overwriting import refuse_to_overwrite
    from graph_restore.storage.output import is_stream

    form = form or ("meta_graph" if output.endswith(".meta") else None)
    given = {name: choices.pop(name) for name in _OF_SAVED_MODEL}
    _refuse_options({name: value for name, value in given.items() if value}, form)
    more = given if form == "saved_model" else {}
    more |= {"keep_devices": keep_devices} if form in ("saved_model", "meta_graph") else {}
    more |= {"overwrite": force} if form in ("saved_model", "meta_graph", "checkpoint") else {}
    with notes() as note:
        restored = load_restored(model, checkpoint, tags, choices)
        if choices["upgrade_variables"]:
            from graph_restore.transforms.resources import upgrade_variables

            restored = upgrade_variables(restored)
        if not force and form not in ("saved_model", "meta_graph", "checkpoint"):  # which see to it as they write
            refuse_to_overwrite(output, restored, options.OR_FORCE)
        told = restored.restoration
        for text in (*(told.notes if told else ()), *(told.changes() if told else ()), *restored.notes):
            note(text)
        write(restored, output, form, **more)
    click.echo(f"wrote {_written(output, form)}", err=is_stream(output))


def _written(output: str, form: str | None) -> str:
    """What was written, and its size."""
    from graph_restore.checkpoint.install import existing_files
    from graph_restore.cli.output import sized, total_size

    if form not in ("meta_graph", "checkpoint"):
        return sized(output)
    prefix = output.removesuffix(".meta") if form == "meta_graph" else output
    names = [*([f"{prefix}.meta"] if form == "meta_graph" else []), *existing_files(prefix, 2)]
    return f"{', '.join(names)}: {sum(map(total_size, names)):,} bytes"


def _refuse_options(given: dict[str, Any], form: str | None) -> None:
    if given and form != "saved_model":
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{flags} goes with --format saved_model; to cut a graph, freeze it")
