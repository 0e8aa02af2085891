"""`graph-restore freeze`: a model and its checkpoint as one GraphDef file without variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes

FORMATS = ("graph_def", "graph_def_text", "memmapped", "saved_model")


@click.command("freeze")
@click.argument("model")
@click.argument("checkpoint", required=False)
@click.option("-o", "--output", required=True, metavar="FILE", help="File to write: .pb, .pbtxt or .pbmm.")
@click.option("--format", "form", type=click.Choice(FORMATS), metavar="FORM", help="saved_model, memmapped ...")
@options.names("--fetches", help="Outputs wanted [the signature's, or the one].")
@options.names("--feeds", help="Tensors to feed; the graph is cut there.")
@options.constants
@click.option("--inference", is_flag=True, help="Batch norm and dropout as in use, not training.")
@options.tags
@options.of_restore
@options.initialize
@click.option("--on-update", type=click.Choice(["error", "initial"]), default="error", metavar="HOW",
              help="Updates of what is read: error, or initial.")  # fmt: skip
@click.option("--tables", type=click.Choice(["inline", "init_op"]), default="inline", metavar="HOW",
              help="Filled by: inline, or init_op.")  # fmt: skip
@options.asset_dir
@options.keep_devices
@click.option("--precision", type=click.Choice(["float16", "bfloat16"]), metavar="TYPE",
              help="Store weights as float16 or bfloat16.")  # fmt: skip
@options.names("--keep-variables", help="These stay variables: names or globs.")
@click.option("--kept-checkpoint", metavar="PREFIX", help="Where to write them [FILE without suffix].")
@click.option("--print-cpp", is_flag=True, help="Print C++ that feeds and runs it.")
@click.option("--ops-header", metavar="FILE", help="Write ops_to_register.h for it.")
@click.option("--modernize", is_flag=True, help="Rewrite ops that TensorFlow has dropped.")
@click.option("--verify", is_flag=True, help="Compare the outputs in TensorFlow.")
@click.option("--verify-feeds", metavar="FILE", help="An .npz of arrays to compare with.")
@click.option("--allow-unsafe-ops", is_flag=True, help="Let --verify run ops that touch files or run code.")
@click.option("--simplify", "simpler", is_flag=True, help="Fold constants and batch norms, drop identities.")
@click.option("--force", is_flag=True, help="Overwrite even MODEL or a checkpoint.")
def command(
    model: str,
    checkpoint: str | None,
    output: str,
    form: str | None,
    tags: list[str] | None,
    kept_checkpoint: str | None,
    print_cpp: bool,
    ops_header: str | None,
    force: bool,
    verify: bool,
    verify_feeds: str | None,
    allow_unsafe_ops: bool,
    **choices: Any,
) -> None:
    """Write MODEL as one file in which variables are constants.

    Without CHECKPOINT, MODEL's own is taken. Lists hold commas or are repeated.

    \b
    Example: graph-restore freeze run/model.ckpt-1000.meta --fetches softmax -o frozen.pb
    """
    from graph_restore.cli.output import refuse_header, refuse_to_verify, report, write, write_kept, write_ops_header
    from graph_restore.overwriting import refuse_to_overwrite

    if form is None and output.endswith(".meta"):
        form = "graph_def"  # a frozen graph has nothing that a MetaGraph is for
    with notes() as note:
        feeds = _feeds(verify_feeds)
        if verify or feeds is not None:
            refuse_to_verify(output)
        before, frozen = _frozen(model, checkpoint, tags, choices)
        if not force and form != "saved_model":  # which sees to a directory that is there when it is written
            refuse_to_overwrite(output, before, options.OR_FORCE)
        told = before.restoration
        for text in (*(told.notes if told else ()), *(told.changes() if told else ()), *frozen.notes):
            note(text)
        if ops_header is not None and not force:
            refuse_header(ops_header, output)
        kept = write_kept(frozen, kept_checkpoint or os.path.splitext(output)[0], force)
        write(frozen, output, form, **({"overwrite": force} if form == "saved_model" else {}))
        if ops_header is not None:
            write_ops_header(frozen, ops_header, note)
    report(before, frozen, output, kept, inline=choices["tables"] == "inline")
    if print_cpp:
        from graph_restore.cpp import cpp_snippet

        click.echo("\n" + cpp_snippet(frozen, kept, run_init_op=choices["tables"] == "init_op"), nl=False)
    if verify or feeds is not None:
        from graph_restore.cli.verify import after_freezing

        given = {"feeds": feeds or {}, "constants": choices["constants"] or {}, "asset_dir": choices["asset_dir"]}
        loose = choices["precision"] is not None
        if not after_freezing(
            before, frozen, output, kept=kept, loose=loose, allow_unsafe_ops=allow_unsafe_ops, **given
        ):
            click.get_current_context().exit(1)


def _feeds(path: str | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    from graph_restore.runtime.verify import read_feeds

    return read_feeds(path)


def _frozen(path: str, checkpoint: str | None, tags: list[str] | None, choices: dict[str, Any]) -> tuple[Any, Any]:
    """(the model with values, the frozen model)."""
    from graph_restore.cli.loading import OF_RESTORE, load_restored
    from graph_restore.transforms.freeze import freeze

    of_restore = {name: choices.pop(name) for name in (*OF_RESTORE, "initialize")}
    model = load_restored(path, checkpoint, tags, of_restore)
    modern, simpler = choices.pop("modernize"), choices.pop("simpler")
    frozen = freeze(model, choices.pop("fetches"), choices.pop("feeds"), **{**choices, "precision": None})
    if modern:
        from graph_restore.transforms.modernize import modernize

        frozen = modernize(frozen)
    if simpler:
        from graph_restore.transforms.simplify import simplify

        frozen = simplify(frozen)
    if choices["precision"] is not None:  # last, since batch norms are not folded into weights that are rounded already
        from graph_restore.transforms.precision import reduce_precision

        frozen = reduce_precision(frozen, choices["precision"], model.variables)
    return model, frozen
