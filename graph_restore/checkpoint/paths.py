"""From a path that a person has to the files of a checkpoint.

Taken are: a prefix, a V2 checkpoint's .index, .data-*, or the .meta beside any, a V1 file, one of its shards or the
pattern of all, a `checkpoint` state file, and a directory. In a directory the state file decides, then the variables of
a SavedModel, then the newest checkpoint that lies there.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from graph_restore.checkpoint.listing import (
    file_names,
    is_pattern,
    is_table,
    list_checkpoints,
    shard_sets,
)
from graph_restore.checkpoint.sniff import describe_file
from graph_restore.checkpoint.state import STATE_NAME, is_state_file, places, read_state
from graph_restore.errors import CheckpointNotFoundError, FormatError, near_names
from graph_restore.storage import files

_SUFFIX = re.compile(r"(\.index|\.meta|\.data-\d{5}-of-\d{5})$")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})$")
_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint that was found.

    `prefix` is the path TensorFlow takes (a pattern for several V1 shards), `version` 1 or 2, `files` the V1 files or
    the V2 index. `notes` say what was chosen on the way; those in `warnings` are worth telling unasked.
    """

    prefix: str
    version: int
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def noted(self, text: str, warn: bool = True) -> CheckpointFiles:
        """The same with a note in front."""
        warnings = (text, *self.warnings) if warn else self.warnings
        return replace(self, notes=(text, *self.notes), warnings=warnings)


def find_checkpoint(path: str | os.PathLike[str]) -> CheckpointFiles:
    """The checkpoint that `path` means; CheckpointNotFoundError says what was looked for and what lies there.

    FormatError when a file of the right name is something else.
    """
    name = files.plain_path(path)
    if not name:
        raise CheckpointNotFoundError("an empty path; give a checkpoint's prefix, one of its files, or its directory")
    separators = (os.sep, os.altsep or os.sep)
    if files.is_directory(name) and (name.endswith(separators) or not files.is_file(name + ".index")):
        return _in_directory(name)
    if is_state_file(name):
        return _by_state(name) or _newest(os.path.dirname(name), f"the checkpoint that {name} names is not there")
    return _at_prefix(_SUFFIX.sub("", name), name)


def latest_checkpoint(directory: str | os.PathLike[str]) -> str | None:
    """The prefix of the newest checkpoint in `directory`, None if there is none.

    The same as `tf.train.latest_checkpoint` where that finds one; a directory that was moved, or has lost its state
    file, is understood too.
    """
    name = files.plain_path(directory)
    try:
        return _in_directory(name).prefix if files.is_directory(name) else None
    except CheckpointNotFoundError:
        return None


def _in_directory(directory: str) -> CheckpointFiles:
    state = os.path.join(directory, STATE_NAME)
    trouble = ""
    if is_state_file(state):
        try:
            found = _by_state(state)
        except FormatError as error:
            found, trouble = None, str(error)
        if found:
            return found
        trouble = trouble or f"{state} names {read_state(state).newest}, which is not there"
    variables = os.path.join(directory, "variables", "variables")
    if files.is_file(variables + ".index"):
        found = _at_prefix(variables, variables)
        return found.noted(f"{trouble}; took the variables of the SavedModel") if trouble else found
    return _newest(directory, trouble)


def _by_state(state: str) -> CheckpointFiles | None:
    """The newest checkpoint of a state file, in the place recorded or where it lies now; None if nowhere."""
    recorded = read_state(state).newest
    directory = os.path.dirname(state)
    for number, place in enumerate(places(recorded, directory)):
        if _exists(place):
            found = _at_prefix(place, place)
            moved = f"{state} names {recorded}, which is not there; took {place}"
            return found.noted(moved, warn=False) if number else found
    return None


def _newest(directory: str, trouble: str) -> CheckpointFiles:
    listed = list_checkpoints(directory)
    if not listed:
        _refuse_without_index(directory)
        there = _listed(directory)
        raise CheckpointNotFoundError(
            f"no checkpoint in {directory or '.'}: looked for a {STATE_NAME!r} state file, variables/variables.index, "
            f"*.index and V1 files; {trouble + '; ' if trouble else ''}{there}"
        )
    found = _at_prefix(listed[-1].prefix, listed[-1].prefix)
    if trouble:
        return found.noted(f"{trouble}; took the newest checkpoint beside it, {found.prefix}")
    if len(listed) > 1:
        return found.noted(f"took the newest of {len(listed)} checkpoints in {directory}, {found.prefix}", warn=False)
    return found


def _refuse_without_index(directory: str) -> None:
    """CheckpointNotFoundError naming the `.index` when only data files of a V2 checkpoint are there."""
    data = [name for name in file_names(directory) if _DATA.search(name)]
    if data:
        index = _DATA.sub("", data[-1]) + ".index"
        raise CheckpointNotFoundError(
            f"no checkpoint in {directory or '.'}: {index} is missing, which says what is in the data that lie there "
            f"({_shown(data)}); copy it beside them"
        )


def _exists(prefix: str) -> bool:
    pattern = is_pattern(prefix)
    base, count = (prefix[: -len("-?????-of-00001")], int(prefix[-5:])) if pattern else (prefix, None)
    return files.is_file(prefix + ".index") or files.is_file(prefix) or bool(base and shard_sets(base, count))


def _at_prefix(prefix: str, given: str) -> CheckpointFiles:
    if files.is_file(prefix + ".index"):
        return _v2(prefix)
    if files.is_file(prefix):
        _check_table(prefix)
        return _v1_file(prefix)
    pattern = is_pattern(prefix)
    base = prefix[: -len("-?????-of-00001")] if pattern else prefix
    sets = shard_sets(base, int(prefix[-5:]) if pattern else None)
    if pattern:
        sets = {count: shards for count, shards in sets.items() if count == int(prefix[-5:])}
    if sets:
        return _v1_shards(base, sets)
    raise CheckpointNotFoundError(_not_found_text(prefix, given))


def _v2(prefix: str) -> CheckpointFiles:
    _check_table(prefix + ".index")
    found = CheckpointFiles(prefix, 2, (prefix + ".index",))
    if is_table(prefix):
        return found.noted(
            f"{prefix} is a V1 checkpoint, and {prefix}.index a V2 one of the same name; took V2, as TensorFlow does "
            "(move the .index file away to read the other)"
        )
    return found


def _v1_file(path: str) -> CheckpointFiles:
    found = CheckpointFiles(path, 1, (path,))
    match = _SHARD.search(path)
    if match and int(match[1]) > 1:
        whole = path[: match.start()]
        return found.noted(f"{path} is one of {int(match[1])} shards, only its tensors are read; for all pass {whole}")
    return found


def _v1_shards(base: str, sets: dict[int, dict[int, str]]) -> CheckpointFiles:
    """The shards of the newest complete set; CheckpointNotFoundError naming those that are missing."""
    complete = [count for count, shards in sets.items() if sorted(shards) == list(range(count))]
    if not complete:
        count, shards = max(sets.items(), key=lambda item: len(item[1]) / max(1, item[0]))
        missing = [f"{base}-{number:05d}-of-{count:05d}" for number in range(count) if number not in shards]
        raise CheckpointNotFoundError(
            f"V1 checkpoint {base} is incomplete: of {count} shards these are missing: {_shown(missing)}; "
            f"copy them beside the others ({_shown(list(shards.values()))})"
        )
    chosen = max(complete, key=lambda count: files.modified(sets[count][0]))
    paths = tuple(sets[chosen][number] for number in range(chosen))
    for path in paths:
        _check_table(path)
    found = CheckpointFiles(paths[0] if chosen == 1 else f"{base}-?????-of-{chosen:05d}", 1, paths)
    if len(sets) > 1:
        return found.noted(f"{base} has sets of {sorted(sets)} shards; took the newest complete one, of {chosen}")
    return found


def _check_table(path: str) -> None:
    """FormatError when the file is a known kind of something else; other damage is found by the table's reader."""
    what = None if is_table(path) else describe_file(path)
    if what:
        raise FormatError(f"this is no checkpoint, but {what}", path=path)


def _not_found_text(prefix: str, given: str) -> str:
    directory, base = os.path.split(prefix)
    text = f"no checkpoint at {given}: looked for {prefix}.index (V2)"
    if not is_pattern(prefix):
        text += f", {prefix} (V1)"
    text += f" and {prefix if is_pattern(prefix) else prefix + '-?????-of-?????'} (V1 shards)"
    if not files.can_list(directory):
        return f"{text}; the server cannot list what is there: give several V1 shards as {prefix}-?????-of-00002"
    if not files.is_directory(os.path.join(directory or ".", "")):
        return f"{text}; there is no directory {directory}"
    names = file_names(directory)
    data = [name for name in names if name.startswith(base + ".data-")]
    if data:
        return (
            f"no checkpoint at {given}: {prefix}.index is missing, which says what is in its data ({_shown(data)}); "
            "copy it beside them"
        )
    there = [os.path.basename(listed.prefix) for listed in list_checkpoints(directory)]
    near = near_names(base, there or names)
    held = there or files.all_names(directory)
    text += f"; {directory or '.'} holds {'the checkpoints ' if there else ''}{_shown(held)}"
    return f"{text}; near names: {', '.join(near)}" if near else text


def _listed(directory: str) -> str:
    """What lies in a directory, for a message."""
    if not files.can_list(directory):
        return "what else it holds cannot be listed here"
    return f"it holds {_shown(files.all_names(directory))}"


def _shown(names: list[str]) -> str:
    """A few of the names, and how many more there are."""
    shown = ", ".join(sorted(names)[:8]) or "no files"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
