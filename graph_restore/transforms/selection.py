"""Which variables are meant, and under which names: the forms `include`, `exclude` and `rename` take.

selection := None | name, glob or set name | compiled regular expression | predicate on Variable | a list of these
rename    := None | {key: variable name} | {"old/scope/": "new/scope/"} | function | [(regex, replacement), ...]
Set names: "trainable", "slots", "moving_averages", "local".
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graph_restore.errors import GraphRestoreError
from graph_restore.tensors import LazyTensor
from graph_restore.variables import Variable

Selection = str | re.Pattern[str] | Callable[[Variable], bool] | Iterable[Any] | None
Rename = Mapping[str, str] | Callable[[str], str] | Sequence[tuple[str | re.Pattern[str], str]] | str | None
Renamed = Mapping[str, tuple[str, LazyTensor]]

_SETS: dict[str, Callable[[Variable], bool]] = {
    "trainable": lambda variable: variable.trainable is True,
    "slots": lambda variable: variable.is_slot,
    "moving_averages": lambda variable: variable.moving_average_of is not None,
    "local": lambda variable: "local_variables" in variable.collections,
}


def selector(selection: Selection, *, default: bool) -> Callable[[Variable], bool]:
    """A predicate for the selection; `default` is its answer when the selection is None."""
    if selection is None:
        return lambda variable: default
    if isinstance(selection, str):
        if selection in _SETS:
            return _SETS[selection]
        pattern = selection.removesuffix(":0")
        return lambda variable: fnmatch.fnmatchcase(variable.name, pattern) or variable.name == pattern
    if isinstance(selection, re.Pattern):
        expression = selection
        return lambda variable: expression.search(variable.name) is not None
    if callable(selection):
        return selection
    tests = [selector(item, default=default) for item in selection]
    return lambda variable: any(test(variable) for test in tests)


def renamer(rename: Rename) -> Callable[[Mapping[str, LazyTensor]], Renamed]:
    """A function from a checkpoint to new name -> (key, tensor); two keys that get one name are an error."""
    new_name = _new_name(rename)

    def renamed(tensors: Mapping[str, LazyTensor]) -> Renamed:
        found: dict[str, tuple[str, LazyTensor]] = {}
        for key, tensor in tensors.items():
            name = new_name(key)
            if name in found:
                raise GraphRestoreError(
                    f"rename gives {key} and {found[name][0]} the same name {name}; make them different"
                )
            found[name] = (key, tensor)
        return found

    return renamed


def _new_name(rename: Rename) -> Callable[[str], str]:
    if rename is None:
        return lambda key: key
    if isinstance(rename, str):
        raise ValueError(f"rename is a mapping, a function, pairs or 'auto', not {rename!r}")
    if callable(rename):
        return rename
    if isinstance(rename, Mapping):
        return lambda key: _by_table(rename, key)
    pairs = [(re.compile(pattern), replacement) for pattern, replacement in rename]

    def substituted(key: str) -> str:
        for pattern, replacement in pairs:
            key = pattern.sub(replacement, key)
        return key

    return substituted


def _by_table(table: Mapping[str, str], key: str) -> str:
    """The name a table gives a key: its own entry, else that of the longest scope (`old/`) it is under."""
    if key in table:
        return table[key]
    scopes = [scope for scope in table if scope.endswith("/") and key.startswith(scope)]
    if not scopes:
        return key
    scope = max(scopes, key=len)
    return table[scope] + key[len(scope) :]
