"""`graph-restore checkpoint diff`: whether two checkpoints hold the same tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes
from graph_restore.cli.tables import rows

if TYPE_CHECKING:
    from graph_restore.checkpoint.difference import Difference, TensorDifference
from graph_restore.errors import counted


@click.command("diff", short_help="Compare the tensors of two checkpoints.")
@click.argument("first")
@click.argument("second")
@options.as_json
@click.option("--atol", type=click.FloatRange(min=0), default=0.0, metavar="X", help="Absolute tolerance.")
@click.option("--rtol", type=click.FloatRange(min=0), default=0.0, metavar="X", help="Tolerance relative to SECOND.")
def command(first: str, second: str, as_json: bool, atol: float, rtol: float) -> None:
    """Compare whole tensors: names, dtypes, shapes, then bytes, so that equal NaNs are equal.

    File version, shards and slices never count. With a tolerance, numbers within atol + rtol * |SECOND| are equal.
    Exit status 0 when the checkpoints are equal, 1 when not.

    \b
    Example: graph-restore checkpoint diff old/model.ckpt new/model.ckpt --rtol 1e-6
    """
    from graph_restore.checkpoint.difference import compare
    from graph_restore.checkpoint.opening import load_tensors

    with notes():
        found = compare(load_tensors(first), load_tensors(second), atol=atol, rtol=rtol)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(_lines(found)))
    if not found.none:
        click.get_current_context().exit(1)


def _lines(found: Difference) -> Iterator[str]:
    table = [("only in first", name) for name in found.only_first]
    table += [("only in second", name) for name in found.only_second]
    table += [(one.kind, f"{one.name}: {_words(one)}") for one in found.changed]
    yield from rows(table)
    greatest = "" if found.max_difference is None else f"; greatest difference {found.max_difference:.6g}"
    yield (
        f"{counted(found.equal, 'tensor')} equal, {len(found.changed)} different, {len(found.only_first)} only in the "
        f"first, {len(found.only_second)} only in the second{greatest}"
    )


def _words(one: TensorDifference) -> str:
    if one.kind != "values":
        return f"{one.first} and {one.second}"
    by = "" if one.max_difference is None else f", by at most {one.max_difference:.6g}"
    return f"{one.differing:,} of {counted(one.size, 'element')} {'differs' if one.differing == 1 else 'differ'}{by}"
