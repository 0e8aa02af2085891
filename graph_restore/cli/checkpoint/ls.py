"""`graph-restore checkpoint ls`: names, dtypes, shapes, sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from graph_restore.cli import options
from graph_restore.cli.checkpoint.words import counted_bytes, header, source_facts
from graph_restore.cli.notes import notes
from graph_restore.cli.tables import rows, shape
from graph_restore.errors import counted

if TYPE_CHECKING:
    from graph_restore.checkpoint.contents import Listed

_STATISTICS = ("min", "mean", "max", "nan", "inf", "zeros")
_NOUNS = {"optimizer": "optimizer number"}


@click.command("ls")
@click.argument("checkpoint")
@click.argument("pattern", required=False)
@options.as_json
@click.option("--stats", is_flag=True, help="Read values: min, mean, max, NaNs, infinities, zeros.")
def command(checkpoint: str, pattern: str | None, as_json: bool, stats: bool) -> None:
    """List the tensors of CHECKPOINT, or those whose name fits PATTERN.

    PATTERN is a name or a glob, in which * takes slashes too. Slots of optimizers and moving averages are told by their
    names. NaNs are left out of min, mean and max.

    \b
    Example: graph-restore checkpoint ls run/model.ckpt-1000 'conv*' --stats
    """
    from graph_restore.checkpoint.contents import list_tensors
    from graph_restore.checkpoint.opening import load_tensors

    with notes():
        tensors = load_tensors(checkpoint)
        listed = list(list_tensors(tensors, pattern, stats=stats))
    if as_json:
        facts = {**source_facts(checkpoint, tensors), "tensors": [one.to_dict() for one in listed]}
        click.echo(json.dumps({**facts, "totals": _totals(listed)}, indent=2))
        return
    click.echo(header(checkpoint, tensors))
    click.echo("\n".join(_table(listed, stats)))
    click.echo("; ".join(_total_words(listed)))


def _totals(listed: Sequence[Listed]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for one in listed:
        total = found.setdefault(one.role.kind, {"tensors": 0, "elements": 0, "bytes": 0})
        total["tensors"] += 1
        total["elements"] += one.size
        total["bytes"] += one.nbytes
    return found


def _total_words(listed: Sequence[Listed]) -> Iterator[str]:
    yield f"{counted(len(listed), 'tensor')}, {counted_bytes(sum(one.nbytes for one in listed))}"
    totals = _totals(listed)
    for kind, total in totals.items() if len(totals) > 1 else ():
        yield f"{counted(total['tensors'], _NOUNS.get(kind, kind))}, {counted_bytes(total['bytes'])}"


def _table(listed: Sequence[Listed], stats: bool) -> list[str]:
    table: list[tuple[str, ...]] = [_row(one) + (_numbers(one) if stats else ()) + (_remarks(one),) for one in listed]
    if stats:
        table.insert(0, ("", "", "", "", *_STATISTICS, ""))
    return rows(table, indent="  ")


def _row(one: Listed) -> tuple[str, ...]:
    return one.name, one.dtype, shape(one.shape), counted_bytes(one.nbytes)


def _numbers(one: Listed) -> tuple[str, ...]:
    found: Any = one.statistics
    if found is None:
        return ("",) * len(_STATISTICS)
    values = (found.minimum, found.mean, found.maximum)
    shown = ("" if value is None else f"{value:.6g}" for value in values)
    return (*shown, *(f"{count:,}" for count in (found.nan, found.infinite, found.zeros)))


def _remarks(one: Listed) -> str:
    found = []
    if one.role.kind != "variable":
        found.append(one.role.kind + (f" of {one.role.of}" if one.role.of else ""))
    if one.slices != 1 or one.partial:
        found.append(f"in {counted(one.slices, 'slice')}" + (", others missing" if one.partial else ""))
    return ", ".join(found)
