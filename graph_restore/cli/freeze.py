"""`graph-restore freeze`: a model and its checkpoint as one GraphDef file without variables."""

from __future__ import annotations

from typing import Any

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes


@click.command("freeze")
@click.argument("model")
@click.argument("checkpoint", required=False)
@click.option("-o", "--output", required=True, metavar="FILE", help="File to write, .pb or .pbtxt.")
@options.names("--fetches", help="Tensors wanted [the signature's, or the one output].")
@options.names("--feeds", help="Tensors to feed; the graph is cut there.")
@options.constants
@click.option("--inference", is_flag=True, help="Batch norm and dropout as in use, not training.")
@options.tags
@click.option("--moving-averages", is_flag=True, help="Take averaged values where there are any.")
@options.names("--include", help="Restore these variables only: names or globs.")
@options.names("--exclude", help="Leave these variables out.")
@options.rename
@click.option("--cast", is_flag=True, help="Convert values of another dtype.")
@click.option("--initialize", is_flag=True, help="First values for variables without a tensor.")
@click.option("--on-update", type=click.Choice(["error", "initial"]), default="error", metavar="HOW",
              help="Updates of what is read: error, or initial.")  # fmt: skip
@click.option("--tables", type=click.Choice(["inline", "init_op"]), default="inline", metavar="HOW",
              help="Filled by: inline, or init_op.")  # fmt: skip
@click.option("--asset-dir", metavar="DIR", help="Where vocabulary files lie now.")
@click.option("--keep-devices", is_flag=True, help="Leave device placements in.")
@click.option("--simplify", "simpler", is_flag=True, help="Fold constants and batch norms, drop identities.")
@click.option("--force", is_flag=True, help="Overwrite even MODEL or a checkpoint.")
def command(
    model: str, checkpoint: str | None, output: str, tags: list[str] | None, force: bool, **choices: Any
) -> None:
    """Write MODEL as one file in which variables are constants.

    Without CHECKPOINT, the one that belongs to MODEL is taken. Lists of names hold commas or are repeated.

    \b
    Example: graph-restore freeze run/model.ckpt-1000.meta --fetches softmax -o frozen.pb
    """
    from graph_restore.cli.output import refuse_to_overwrite, report, write

    if not force:
        refuse_to_overwrite(output, [model, checkpoint])
    with notes() as note:
        before, frozen = _frozen(model, checkpoint, tags, choices)
        for text in (*(before.restoration.notes if before.restoration else ()), *frozen.notes):
            note(text)
        write(frozen, output)
    report(before, frozen, output)


def _frozen(path: str, checkpoint: str | None, tags: list[str] | None, choices: dict[str, Any]) -> tuple[Any, Any]:
    """(the model with values, the frozen model)."""
    from graph_restore.api import load
    from graph_restore.transforms.freeze import freeze
    from graph_restore.transforms.initialize import initialize
    from graph_restore.transforms.restore import restore
    from graph_restore.transforms.simplify import simplify

    model = load(path, tags=tags)
    of_restore = {name: choices.pop(name) for name in ("include", "exclude", "rename", "cast", "moving_averages")}
    if checkpoint is not None or len(model.variables):
        model = restore(model, checkpoint, **of_restore)
    if choices.pop("initialize"):
        model = initialize(model)
    simpler = choices.pop("simpler")
    frozen = freeze(model, choices.pop("fetches"), choices.pop("feeds"), **choices)
    return model, simplify(frozen) if simpler else frozen
