"""What takes the handle of a look-up table, also where a Switch, Enter or Identity hands it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from graph_restore.names import is_control
from graph_restore.transforms.aliases import HANDLE_PASSING


def handle_users(
    consumers: Mapping[str, list[tuple[Any, int]]], table: str, past: Callable[[str], bool] = lambda name: True
) -> Iterator[Any]:
    """The nodes that take the handle of `table`, each as it is in `consumers`, what hands it on among them; not past
    those for whose name `past` is false."""
    waiting, seen = [table], {table}
    while waiting:
        for user, position in consumers[waiting.pop()]:
            if is_control(user.input[position]) or user.name in seen:
                continue
            seen.add(user.name)
            yield user
            if user.op in HANDLE_PASSING and past(user.name):
                waiting.append(user.name)
