"""`graph-restore check`: whether a checkpoint fits a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes
from graph_restore.cli.wording import for_shell


@click.command("check")
@click.argument("model")
@click.argument("checkpoint", required=False)
@options.as_json
@options.tags
@options.of_restore
@click.option("--strict", is_flag=True, help="A variable without a tensor is a disagreement too.")
def command(
    model: str, checkpoint: str | None, as_json: bool, tags: list[str] | None, strict: bool, **choices: Any
) -> None:
    """Say which variables CHECKPOINT has values for, and which not.

    Without CHECKPOINT, the one that belongs to MODEL is taken. Exit status 1 when shapes or dtypes disagree (but for
    --on-mismatch skip), or nothing fits.

    \b
    Example: graph-restore check run/model.ckpt-1000.meta run/model.ckpt-2000
    """
    from graph_restore.cli.loading import load_model
    from graph_restore.summary import summarise_fit
    from graph_restore.transforms.restore import restore

    skip = choices.pop("on_mismatch") == "skip"
    with notes() as note:
        restored = restore(load_model(model, checkpoint, tags), checkpoint, on_mismatch="skip", **choices)
        found = summarise_fit(restored)
        for text in found["notes"]:
            note(text)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))
    disagrees = not found["fits"] if not skip else not found["restored"] and found["variables"]
    if disagrees or (strict and found["missing"]):
        click.get_current_context().exit(1)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['model']} and {found['checkpoint']}"
    yield (
        f"  {len(found['restored'])} of {found['variables']} variables fit, {len(found['mismatched'])} disagree, "
        f"{len(found['missing'])} are missing; {len(found['unused'])} keys are unused"
    )
    for name, text in found["mismatched"].items():
        yield f"  disagrees  {name}: {text}"
    for name, key in found["missing"].items():
        near = f"; near: {', '.join(found['near'][name])}" if name in found["near"] else ""
        looked_for = f" (key {key})" if key != name else ""
        yield f"  missing    {name}{looked_for} {found['details'].get(name, '')}{near}"
    for key in found["unused"]:
        yield f"  unused     {key} {found['details'].get(key, '')}".rstrip()
    if found["guess"]:
        yield f"  guess      {for_shell(found['guess'])}"
