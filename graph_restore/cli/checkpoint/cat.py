"""`graph-restore checkpoint cat`: the values of a tensor."""

from __future__ import annotations

import json
from typing import Any

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes
from graph_restore.cli.tables import shape

_PRINTED_WHOLE = 1000  # elements; of more, the first and last ones
_READ_TO_PRINT = 64 << 20  # bytes


@click.command("cat")
@click.argument("checkpoint")
@click.argument("name")
@options.as_json
@click.option("--npy", "output", metavar="FILE", help="Write a .npy file instead of printing.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def command(checkpoint: str, name: str, as_json: bool, output: str | None, force: bool) -> None:
    """Print the values of tensor NAME, or of a part of it.

    A part is written as in Python: 'emb[10:20,:3]', 'emb[-1]', 'emb[...,0]'. Of more than 1,000 values the first and
    last are printed; --json and --npy give all.

    \b
    Example: graph-restore checkpoint cat run/model.ckpt-1000 'emb[10:20,:3]'
             graph-restore checkpoint cat run/model.ckpt-1000 emb --npy emb.npy
    """
    from graph_restore.checkpoint.contents import read_part
    from graph_restore.checkpoint.opening import files_of, load_tensors
    from graph_restore.errors import GraphRestoreError

    with notes():
        tensors = load_tensors(checkpoint)
        tensor = read_part(tensors, name)
        if output is not None:
            _write(tensor, output, force, files_of(checkpoint, tensors))
            return
        if tensor.nbytes > _READ_TO_PRINT:
            raise GraphRestoreError(f"{name} is too large to print ({tensor.nbytes:,} bytes); "
                                    f"take a part, such as '{tensor.name}[:10]', or --npy FILE")  # fmt: skip
        click.echo(json.dumps(_facts(name, tensor)) if as_json else _text(name, tensor))


def _write(tensor: Any, output: str, force: bool, sources: list[str]) -> None:
    import os

    from graph_restore.checkpoint.npy import write_npy
    from graph_restore.errors import GraphRestoreError

    if any(os.path.exists(output) and os.path.samefile(output, path) for path in sources):
        raise GraphRestoreError(f"{output} is the source itself, which is never changed; write to another place")
    if os.path.lexists(output) and not force:
        raise GraphRestoreError(f"{output} is there already; pass --force to replace it")
    write_npy(tensor, output)
    click.echo(f"wrote {output}, {_described(tensor)}")


def _described(tensor: Any) -> str:
    from graph_restore.dtypes import type_name

    return f"{type_name(tensor.data_type)} {shape(tensor.shape)}"


def _text(name: str, tensor: Any) -> str:
    import numpy as np

    values = np.array2string(
        tensor.read(), threshold=_PRINTED_WHOLE, max_line_width=100, separator=", ", floatmode="unique"
    )
    return f"{name} {_described(tensor)}\n{values}"


def _facts(name: str, tensor: Any) -> dict[str, Any]:
    from graph_restore.dtypes import type_name

    values = tensor.read()
    if values.dtype.name.startswith(("bfloat", "float8")):
        values = values.astype("float32")
    elif values.dtype.kind == "V":
        values = values.astype("int8")
    shown = {"name": name, "dtype": type_name(tensor.data_type), "shape": list(tensor.shape)}
    return {**shown, "values": _plain(values.tolist())}


def _plain(value: Any) -> Any:
    """Values as JSON has them: complex numbers as pairs, bytes as text."""
    from graph_restore.checkpoint.statistics import json_number

    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, complex):
        return [json_number(value.real), json_number(value.imag)]
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else json_number(value)
