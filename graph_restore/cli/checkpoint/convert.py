"""`graph-restore checkpoint convert`: the same tensors in another format."""

from __future__ import annotations

from typing import Any

import click

from graph_restore.cli.checkpoint.outputs import layout, output_options, write
from graph_restore.cli.notes import notes


@click.command("convert", short_help="Write CHECKPOINT as a checkpoint, .npz, .safetensors or .npy files.")
@click.argument("source", metavar="CHECKPOINT")
@output_options
def command(source: str, output: str, **choices: Any) -> None:
    """Write the tensors of CHECKPOINT in the format that the name OUT tells.

    \b
      OUT.npz, OUT.safetensors   such a file
      OUT/                       a directory of .npy files, scopes as folders
      any other name             a checkpoint of that prefix: V2, one data file, whole tensors

    \b
    Example: graph-restore checkpoint convert run/model.ckpt-1000 -o weights.npz
             graph-restore checkpoint convert weights.npz -o new/model.ckpt --state
    """
    from graph_restore.checkpoint.opening import files_of, load_tensors

    layout(output, choices)
    with notes():
        tensors = load_tensors(source)
        write(tensors, output, files_of(source, tensors), choices)
