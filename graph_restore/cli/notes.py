"""Notes: warnings of the library and notes of a model, each once, on stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graph_restore.cli.wording import for_shell
from graph_restore.errors import GraphRestoreWarning


@contextmanager
def notes() -> Iterator[Callable[[str], None]]:
    """Within the block, a GraphRestoreWarning is printed as `note: ...`; gives a function that prints further ones."""
    said: set[str] = set()

    def say(text: str) -> None:
        text = for_shell(text)
        if text not in said:
            said.add(text)
            print(f"note: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, GraphRestoreWarning):
                say(str(message))
            else:
                others(message, category, *place, **more)

        warnings.showwarning = show
        warnings.simplefilter("always", GraphRestoreWarning)
        yield say
