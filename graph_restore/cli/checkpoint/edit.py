"""`graph-restore checkpoint edit`: a checkpoint with other names, fewer tensors, other values."""

from __future__ import annotations

from typing import Any

import click

from graph_restore.cli.checkpoint.outputs import layout, output_options, write
from graph_restore.cli.notes import notes

_EDITS = ("averages", "drop_slots", "strip_prefix", "prefix", "cast", "prefer")


def _pairs(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [value.partition("=") for value in values]
    if not all(old and new for old, _, new in pairs):
        raise click.BadParameter("write OLD=NEW")
    return [(old, new) for old, _, new in pairs]


@click.command("edit")
@click.argument("source", metavar="CHECKPOINT")
@click.option("--average", multiple=True, metavar="OTHER", help="Take the mean with these checkpoints.")
@click.option("--merge", multiple=True, metavar="OTHER", help="Add the tensors of these checkpoints.")
@click.option("--prefer", type=click.Choice(["first", "last"]), help="Which of merged tensors that differ.")
@click.option("--averages", is_flag=True, help="Give variables the values of their moving averages.")
@click.option("--drop-slots", is_flag=True, help="Leave out what only optimizers need.")
@click.option("--drop", multiple=True, metavar="PATTERN", help="Leave out these tensors.")
@click.option("--strip-prefix", metavar="SCOPE", help="Take this scope off the names.")
@click.option("--rename", multiple=True, callback=_pairs, metavar="OLD=NEW", help="A tensor, or a scope and all in it.")
@click.option("--prefix", metavar="SCOPE", help="Put all names under this scope.")
@click.option("--cast", type=click.Choice(["float16", "bfloat16", "float32", "float64"]), metavar="TYPE",
              help="Turn floats into float16, bfloat16, float32, float64.")  # fmt: skip
@output_options
def command(source: str, output: str, **choices: Any) -> None:
    """Write CHECKPOINT, changed, to OUT; CHECKPOINT stays as it is.

    Changes are made in the order of this list, whatever the order they are given in. OUT is as in convert.

    \b
    Example: graph-restore checkpoint edit run/model.ckpt -o small/model.ckpt --drop-slots
    """
    from graph_restore.checkpoint.editing import edit
    from graph_restore.checkpoint.opening import files_of, load_tensors

    layout(output, choices)
    with notes():
        tensors = {path: load_tensors(path) for path in (source, *choices["average"], *choices["merge"])}
        edited = edit(
            tensors[source],
            average=[tensors[path] for path in choices["average"]],
            merge=[tensors[path] for path in choices["merge"]],
            drop=choices["drop"],
            rename=choices["rename"],
            **{name: choices[name] for name in _EDITS},
        )
        write(edited, output, [file for path, found in tensors.items() for file in files_of(path, found)], choices)
