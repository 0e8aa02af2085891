"""`graph-restore checkpoint paths`: the `checkpoint` state file of a directory that was moved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from graph_restore.cli import options
from graph_restore.cli.tables import rows

if TYPE_CHECKING:
    from graph_restore.checkpoint.relocation import Relocated, Relocation


@click.command("paths", short_help="Repair the state file of a directory that was moved.")
@click.argument("directory")
@options.as_json
@click.option("--apply", is_flag=True, help="Write the repaired paths into the state file.")
def command(directory: str, as_json: bool, apply: bool) -> None:
    """Show where the checkpoints named in DIRECTORY's state file `checkpoint` lie now.

    Absolute paths of another machine become relative ones, so that TensorFlow finds the checkpoints again. Nothing is
    written without --apply. Exit status 1 when the newest checkpoint is nowhere.

    \b
    Example: graph-restore checkpoint paths run/ --apply
    """
    from graph_restore.checkpoint.relocation import apply_relocation, find_relocation

    found = find_relocation(directory)
    if apply and found.changes:
        apply_relocation(found)
    if as_json:
        click.echo(json.dumps({**found.to_dict(), "applied": apply and found.changes}, indent=2))
    else:
        lines = [("newest", _words(found.newest)), *(("kept", _words(one)) for one in found.all)]
        click.echo("\n".join([*rows(lines), _verdict(found, apply)]))
    if found.newest.relative is None and not found.newest.found:
        click.get_current_context().exit(1)


def _words(one: Relocated) -> str:
    if one.relative is None:
        return f"{one.recorded}: " + ("outside the directory, left as it is" if one.found else "not there")
    return f"{one.recorded} -> {one.relative}" if one.changes else f"{one.recorded}: as it should be"


def _verdict(found: Relocation, apply: bool) -> str:
    if not found.changes:
        return f"{found.path}: nothing to repair"
    return f"{found.path}: repaired" if apply else f"{found.path}: pass --apply to write these"
