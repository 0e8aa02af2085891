"""Which checkpoints lie in a directory, told by their files alone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from graph_restore.errors import CorruptionError
from graph_restore.storage import files
from graph_restore.storage.table import FOOTER_SIZE, MAGIC

_SHARD = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_STEP = re.compile(r"-(\d+)$")
_NOT_V1 = re.compile(r"\.index$|\.meta$|\.data-\d{5}-of-\d{5}$|\.tempstate\d+", re.DOTALL)
_MANY = 2000  # files opened at most when V1 checkpoints are looked for


@dataclass(frozen=True)
class Listed:
    """A checkpoint by the path TensorFlow takes (a pattern for V1 shards), with its time of writing."""

    prefix: str
    version: int
    mtime: float

    @property
    def step(self) -> int:
        """The training step at the end of the name, -1 if there is none."""
        match = _STEP.search(self.prefix if not is_pattern(self.prefix) else self.prefix[: -len("-?????-of-00001")])
        return int(match[1]) if match else -1


def is_pattern(prefix: str) -> bool:
    """Whether `prefix` names V1 shards as `p-?????-of-00002` does."""
    return re.search(r"-\?{5}-of-\d{5}$", prefix) is not None


def is_table(path: str) -> bool:
    """Whether the file ends as a table does."""
    try:
        source = files.open_source(path)
        return source.size >= FOOTER_SIZE and source.pread(source.size - len(MAGIC), len(MAGIC)) == MAGIC
    except (OSError, CorruptionError):
        return False


def shard_sets(prefix: str, count: int | None = None) -> dict[int, dict[int, str]]:
    """The V1 shards of `prefix`: by the count in their names, number to path.

    In a store, which may be unable to list its files, those of `count` shards are found by name when it is given.
    """
    if count is not None and not files.is_local(prefix):
        return _numbered(prefix, count)
    directory, base = os.path.split(prefix)
    sets: dict[int, dict[int, str]] = {}
    for name in file_names(directory):
        match = _SHARD.fullmatch(name)
        if match and match["prefix"] == base and not _NOT_V1.search(name):
            sets.setdefault(int(match["count"]), {})[int(match["number"])] = os.path.join(directory, name)
    return sets


def _numbered(prefix: str, count: int) -> dict[int, dict[int, str]]:
    """The shards of that count, found by their names."""
    paths = {number: f"{prefix}-{number:05d}-of-{count:05d}" for number in range(count)}
    if count == 0 or not files.is_file(paths[0]):
        return {}
    return {count: {number: path for number, path in paths.items() if files.is_file(path)}}


def file_names(directory: str) -> list[str]:
    """Names of the files in a directory, sorted; none when it cannot be read."""
    return files.file_names(directory)


def list_checkpoints(directory: str) -> list[Listed]:
    """All checkpoints of a directory, the newest last: by step, then by time of writing."""
    found: dict[str, Listed] = {}
    names = file_names(directory)
    for name in names[:_MANY]:
        path = os.path.join(directory, name)
        if name.endswith(".index"):
            prefix, version = path[: -len(".index")], 2
        elif not _NOT_V1.search(name) and is_table(path):
            match = _SHARD.fullmatch(path)
            prefix, version = f"{match['prefix']}-?????-of-{match['count']}" if match else path, 1
        else:
            continue
        if version == 2 or prefix not in found:  # of both versions under a prefix TensorFlow takes V2
            found[prefix] = Listed(prefix, version, files.modified(path))
    return sorted(found.values(), key=lambda item: (item.step, item.mtime, item.prefix))
