"""The files of a checkpoint take their places together, those it replaces go, and after a failure they are back."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from graph_restore.checkpoint.listing import file_names, is_table, shard_sets


def existing_files(prefix: str, version: int) -> list[str]:
    """The files of the checkpoints at `prefix`, the index first; a V1 checkpoint's name is any file of that name."""
    directory, base = os.path.split(prefix)
    data = re.compile(re.escape(base) + r"\.data-\d{5}-of-\d{5}", re.DOTALL)
    found = [path for path in (prefix + ".index",) if os.path.isfile(path)]
    if os.path.isfile(prefix) and (version == 1 or is_table(prefix)):
        found.append(prefix)
    found += [os.path.join(directory, name) for name in file_names(directory) if data.fullmatch(name)]
    shards = [path for group in shard_sets(prefix).values() for path in group.values()]
    return found + [path for path in shards if is_table(path)]


@contextmanager
def staging(prefix: str) -> Iterator[str]:
    """A directory beside `prefix` to write in, gone afterwards with what is left in it."""
    directory, base = os.path.split(prefix)
    stage = os.path.join(os.path.abspath(directory), f".{base[:100]}.{os.urandom(6).hex()}.tmp")
    try:  # before it is made: a signal may come at any moment
        _make(stage, prefix)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _make(stage: str, prefix: str) -> None:
    try:
        os.mkdir(stage, 0o700)
    except OSError as error:
        error.filename = prefix  # nobody has heard of the temporary one
        raise


def install(written: Sequence[str], directory: str, old: Sequence[str]) -> None:
    """Moves the files `written` into `directory`, in this order, in place of the files `old`.

    These are put aside first, the first of them first: with the index gone, a reader finds no checkpoint for a moment,
    and never one of mixed files. After a failure they are put back; after a crash they lie in the directory
    `.*.replaced` beside.
    """
    aside = tempfile.mkdtemp(prefix=".", suffix=".replaced", dir=directory) if old else ""
    moves = [(path, os.path.join(aside, os.path.basename(path))) for path in old]
    moves += [(path, os.path.join(directory, os.path.basename(path))) for path in written]
    try:
        for source, target in moves:
            os.replace(source, target)
        _sync(directory)
    except BaseException:
        for source, target in reversed(moves):
            if not os.path.exists(source) and os.path.exists(target):
                os.replace(target, source)
        if aside:
            os.rmdir(aside)
        raise
    if aside:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(directory: str) -> None:
    """Makes the new names last through a crash, where directories can be synced."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
