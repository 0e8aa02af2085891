"""Options of the verbs that write tensors, and what they have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graph_restore.cli.checkpoint.words import parse_size, size_of, wrote

if TYPE_CHECKING:
    from graph_restore.tensors import LazyTensor

_Command = TypeVar("_Command", bound=Callable[..., Any])
_LARGE = 50 << 20  # bytes; less is done before a bar could be read


def output_options(command: _Command) -> _Command:
    """`-o` and how checkpoints are laid out."""
    for option in reversed(
        (
            click.option(
                "-o", "--output", required=True, metavar="OUT", help="What to write; the name tells the format."
            ),
            click.option(
                "--shards", type=click.IntRange(1, 99999), metavar="N", help="Data files of a checkpoint [1]."
            ),
            click.option(
                "--shard-size", callback=parse_size, metavar="SIZE", help="At most so much each, such as 2GB."
            ),
            click.option("--version", type=click.IntRange(1, 2), metavar="N", help="Version of a checkpoint [2]."),
            click.option("--keep-slices", is_flag=True, help="Leave partitioned tensors in their slices."),
            click.option("--state", is_flag=True, help="Record it in the `checkpoint` file beside it."),
            click.option("--force", is_flag=True, help="Replace OUT if it is there."),
        )
    ):
        command = option(command)
    return command


def layout(output: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a checkpoint's layout that were given; UsageError when OUT is none, or two exclude each other."""
    from graph_restore.checkpoint.conversion import output_format

    names = {"shards": "shards", "shard_size": "shard_bytes", "version": "version", "keep_slices": "keep_slices",
             "state": "state"}  # fmt: skip
    given = {name: choices[name] for name in names if choices[name]}
    if given and output_format(output) != "checkpoint":
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{shown}: for checkpoints only, and {output} will be none")
    if "shards" in given and "shard_size" in given:
        raise click.UsageError("--shards and --shard-size exclude each other")
    return {names[name]: value for name, value in given.items()}


def write(tensors: Mapping[str, LazyTensor], output: str, sources: list[str], choices: Mapping[str, Any]) -> None:
    """Write, with a bar where that is of use, and say what was written."""
    from graph_restore.checkpoint.conversion import for_format, output_format, write_tensors
    from graph_restore.storage.output import is_stream

    options = layout(output, choices)
    tensors = for_format(tensors, output_format(output))
    with bar(size_of(tensors)) as advance:
        path = write_tensors(tensors, output, sources=sources, overwrite=choices["force"], progress=advance, **options)
    click.echo(wrote(path, tensors), err=is_stream(path))


@contextmanager
def bar(total: int) -> Iterator[Callable[[int], None] | None]:
    """A function to call with the bytes just done, which moves a bar on a terminal; None when no bar is shown."""
    if total < _LARGE or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=total)
        yield lambda count: shown.advance(task, count)
