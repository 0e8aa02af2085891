"""What several verbs say about checkpoints: counts, sizes, where tensors come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from graph_restore.errors import counted

if TYPE_CHECKING:
    from graph_restore.tensors import LazyTensor

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def counted_bytes(count: int) -> str:
    """`1 byte`, `2,000 bytes`."""
    return counted(count, "byte")


def large(count: float) -> str:
    """Bytes in the unit that suits: `1.5 GB`."""
    unit = next((unit for unit in ("bytes", "kB", "MB", "GB") if count < 1000 or not (count := count / 1000)), "TB")
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"


def source_facts(path: str, tensors: Mapping[str, LazyTensor]) -> dict[str, Any]:
    """Where tensors came from: path or prefix, version of the checkpoint (None for other files), files."""
    from graph_restore.checkpoint.opening import files_of

    return {
        "path": getattr(tensors, "prefix", path),
        "version": getattr(tensors, "version", None),
        "files": files_of(path, tensors),
    }


def header(path: str, tensors: Mapping[str, LazyTensor]) -> str:
    """`run/model.ckpt-1000: V2, 2 files`."""
    facts = source_facts(path, tensors)
    version = f"V{facts['version']}, " if facts["version"] else ""
    return f"{facts['path']}: {version}{counted(len(facts['files']), 'file')}"


def wrote(path: str, tensors: Mapping[str, LazyTensor]) -> str:
    """The line that says what was written."""
    return f"wrote {path}, {counted(len(tensors), 'tensor')}, {counted_bytes(size_of(tensors))}"


def size_of(tensors: Mapping[str, LazyTensor]) -> int:
    """Bytes of content of all tensors."""
    return sum(tensor.nbytes for tensor in tensors.values())


def parse_size(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """The bytes that `500MB`, `2GiB` or `1000000` mean."""
    match = None if value is None else _SIZE.fullmatch(value.strip())
    if value is not None and (match is None or not float(match[1])):
        raise click.BadParameter(f"{value!r} is no size; write such as 500MB, 2GiB or 1000000")
    if match is None:
        return None
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])
