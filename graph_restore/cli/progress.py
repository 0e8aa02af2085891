"""A progress bar on stderr, for people who wait: only on a terminal, only when there is much to write."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graph_restore.graph import Graph

LARGE = 50 << 20  # bytes; less is written before a bar could be read


@contextmanager
def progress(graph: Graph) -> Iterator[Callable[[int], None] | None]:
    """A function to call with the bytes just written, None when no bar is shown."""
    total = graph.encode().length if sys.stderr.isatty() else 0
    if total < LARGE:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
