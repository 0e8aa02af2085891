"""A progress bar on stderr, for people who wait: only on a terminal, only when there is much to write."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graph_restore.model import Model

LARGE = 50 << 20  # bytes; less is written before a bar could be read


@contextmanager
def progress(model: Model) -> Iterator[Callable[[int], None] | None]:
    """A function to call with the bytes just written, None when no bar is shown."""
    total = _bytes_of(model) if sys.stderr.isatty() else 0
    if total < LARGE:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def _bytes_of(model: Model) -> int:
    """About how much there is to write: the graph with its constants, and the values of variables."""
    values = [variable.value.nbytes for variable in model.variables if variable.value is not None]
    return model.graph.encode().length + sum(values)
