"""`graph-restore checkpoint verify`: every checksum."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from graph_restore.cli import options
from graph_restore.cli.checkpoint.outputs import bar
from graph_restore.cli.checkpoint.words import counted_bytes, large
from graph_restore.cli.notes import notes

if TYPE_CHECKING:
    from graph_restore.checkpoint.verification import Verification
from graph_restore.errors import counted


@click.command("verify")
@click.argument("checkpoint")
@options.as_json
def command(checkpoint: str, as_json: bool) -> None:
    """Read all of CHECKPOINT and test every checksum in it.

    All damaged tensors are named. Exit status 0 when there are none, 1 when there are.

    \b
    Example: graph-restore checkpoint verify run/model.ckpt-1000
    """
    from graph_restore.checkpoint.verification import verify_checkpoint

    with notes(), bar(_size(checkpoint)) as advance:
        found = verify_checkpoint(checkpoint, advance)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(_lines(found)))
    if not found.ok:
        click.get_current_context().exit(1)


def _size(checkpoint: str) -> int:
    """Bytes of all its files, for the bar; 0 where they do not lie on this disk."""
    from graph_restore.checkpoint.install import existing_files
    from graph_restore.checkpoint.opening import weights_format
    from graph_restore.checkpoint.paths import find_checkpoint
    from graph_restore.storage.files import is_local, plain_path

    checkpoint = plain_path(checkpoint)
    if weights_format(checkpoint) or not is_local(checkpoint):
        return 0
    found = find_checkpoint(checkpoint)
    files = existing_files(found.prefix, 2) if found.version == 2 else found.files
    return sum(os.path.getsize(path) for path in files if os.path.exists(path))


def _lines(found: Verification) -> Iterator[str]:
    for name, messages in found.damaged.items():
        for message in messages:
            yield f"damaged  {name}: {message}"
    speed = f", {large(found.bytes / found.seconds)}/s" if found.seconds else ""
    verdict = f"{len(found.damaged)} damaged" if found.damaged else "all checksums are right"
    yield (
        f"{found.prefix}: V{found.version}, {counted(found.tensors, 'tensor')}, {counted_bytes(found.bytes)} read "
        f"in {found.seconds:.3g} s{speed}; {verdict}"
    )
