"""Columns of text: plain, so that they can be piped and searched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def rows(table: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """Lines with aligned columns; the last column is as long as it is."""
    held = [tuple(row) for row in table]
    widths = [max(map(len, column)) for column in zip(*held)]
    return [indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in held]


def shape(sizes: Sequence[int | None] | None) -> str:
    """`[3, ?]`; `[unknown rank]` for None."""
    if sizes is None:
        return "[unknown rank]"
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]"


def described(tensor: Mapping[str, Any]) -> str:
    """`images:0 float32 [?, 6]` of a dict with name, dtype and shape."""
    return " ".join(filter(None, (tensor["name"], tensor["dtype"], shape(tensor["shape"]))))
