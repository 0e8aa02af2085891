"""`graph-restore verify`: whether two models give the same outputs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes


def _shapes(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, list[int]]:
    found = {}
    for value in values:
        name, sign, sizes = value.partition("=")
        if not name or not sign or not all(size.strip().isdigit() for size in sizes.split(",") if sizes):
            raise click.BadParameter("write NAME=2,224,224,3, or NAME= for a single value")
        found[name] = [int(size) for size in sizes.split(",") if sizes]
    return found


ATOL, RTOL = 1e-6, 1e-5
LOOSE = 1e-2  # both tolerances where weights were stored in half precision


def after_freezing(
    before: Any,
    frozen: Any,
    path: str,
    *,
    feeds: Mapping[str, Any],
    constants: Mapping[str, Any],
    kept: str | None,
    asset_dir: str | None,
    loose: bool,
    allow_unsafe_ops: bool,
) -> bool:
    """Compare a model with what it was frozen to at `path`, print the report, and say whether they agree. `feeds`: by
    tensor name; `constants`: what placeholders were set to; `kept`: the checkpoint of variables that were kept."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from graph_restore.api import load
    from graph_restore.runtime.verify import verify
    from graph_restore.transforms.constants import constant_values
    from graph_restore.transforms.restore import restore

    given = {**constant_values(before.graph, constants), **feeds}
    after = load(path) if kept is None else restore(load(path), kept)
    atol, rtol = (LOOSE, LOOSE) if loose else (ATOL, RTOL)
    found = verify(
        before, after, given, fetches=frozen.fetches, asset_dir=asset_dir, atol=atol, rtol=rtol,
        allow_unsafe_ops=allow_unsafe_ops,
    )  # fmt: skip
    click.echo(f"verified   {found}")
    return found.ok


@click.command("verify", short_help="Run two models on the same feeds and compare their outputs.")
@click.argument("original")
@click.argument("result")
@click.option("--checkpoint", metavar="CHECKPOINT", help="Values of ORIGINAL [its own].")
@click.option("--result-checkpoint", metavar="CHECKPOINT", help="Values of RESULT [its own].")
@click.option("--feeds", metavar="FILE", help="An .npz of arrays by tensor name [made up].")
@options.names("--fetches", help="Outputs to compare [those of RESULT].")
@click.option("--shape", "shapes", multiple=True, metavar="NAME=SIZES", callback=_shapes,
              help="Shape of a feed that is made up.")  # fmt: skip
@click.option("--atol", type=float, default=ATOL, show_default=True, metavar="NUMBER", help="Absolute tolerance.")
@click.option("--rtol", type=float, default=RTOL, show_default=True, metavar="NUMBER", help="Relative tolerance.")
@options.asset_dir
@click.option("--allow-unsafe-ops", is_flag=True, help="Run ops that touch files or run code.")
@options.as_json
def command(original: str, result: str, as_json: bool, **choices: Any) -> None:
    """Run ORIGINAL and RESULT in TensorFlow on the same feeds and compare their outputs.

    Both are run once, after restoring. Exit status 1 when an output differs by more than the tolerance.

    \b
    Example: graph-restore verify run/model.ckpt-1000.meta frozen.pb
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own reports would be in between
    from graph_restore.runtime.verify import verify

    with notes() as note:
        found = verify(original, result, choices.pop("feeds"), **choices)
        for text in found.notes:
            note(text)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
    if not found.ok:
        click.get_current_context().exit(1)
