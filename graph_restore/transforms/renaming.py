"""Under which names a checkpoint's tensors are looked for: the forms that `rename` takes.

rename := step | list of steps, each working on what the one before it made
step   := {key: variable name} | {"old/scope/": "new/scope/"} | function of a key | (regex, replacement)

The scope "" is that of all keys. A table renames all keys at once, so that two may be swapped. A function gives a name
for every key, the key itself for one that stays; None is an error, since `exclude` is there to leave variables out.
The key of an object graph is nobody's name and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graph_restore.checkpoint.objects import OBJECT_GRAPH_KEY
from graph_restore.errors import GraphRestoreError, did_you_mean
from graph_restore.tensors import LazyTensor

_Function = Mapping[str, str] | Callable[[str], str]
Rename = _Function | Sequence[_Function | tuple[str | re.Pattern[str], str]] | str | None
Renamed = Mapping[str, tuple[str, LazyTensor]]


class Renaming:
    """From a checkpoint's key to the name a variable has; it remembers which of its parts fitted a key, for `notes`.

    `steps`: what `rename` is made of, in order. ValueError for what is no `rename`, GraphRestoreError for a scope that
    becomes none.
    """

    def __init__(self, rename: Rename) -> None:
        self._idle: dict[str, str] = {}  # what has fitted no key yet, to how it is told
        if isinstance(rename, str) or not (rename is None or isinstance(rename, Iterable) or callable(rename)):
            raise ValueError(f"rename is a mapping, a function, pairs or 'auto', not {rename!r}")
        self.steps = _steps(rename)
        self._new_name = _one_after_the_other([self._step(step) for step in self.steps])

    def name(self, key: str) -> str:
        """The name that `key` gets."""
        if key == OBJECT_GRAPH_KEY:
            return key
        name = self._new_name(key)
        if not isinstance(name, str):
            raise ValueError(
                f"rename gives {name!r} for the key {key!r}; a function must give a name for every key (return the key "
                "itself where it stays as it is, and leave variables out with exclude)"
            )
        return name

    def apply(self, tensors: Mapping[str, LazyTensor]) -> Renamed:
        """New name to (key, tensor) of one source; GraphRestoreError when two keys get the same name."""
        found: dict[str, tuple[str, LazyTensor]] = {}
        for key, tensor in tensors.items():
            name = self.name(key)
            if name in found:
                raise GraphRestoreError(
                    f"rename gives {key} and {found[name][0]} the same name {name}; make them different"
                )
            found[name] = (key, tensor)
        return found

    def notes(self, keys: Iterable[str]) -> list[str]:
        """A sentence for each part that fitted no key of any source."""
        known = list(keys)
        return [f"rename: {told} fits no key{_hint(part, known)}" for part, told in self._idle.items()]

    def _step(self, step: Any) -> Callable[[str], str]:
        if isinstance(step, Mapping):
            return self._of_table(step)
        return step if callable(step) else self._of_pair(step)

    def _of_table(self, table: Mapping[str, str]) -> Callable[[str], str]:
        for old, new in table.items():
            if not isinstance(old, str) or not isinstance(new, str):
                raise ValueError(f"rename maps names to names, not {old!r} to {new!r}")
            if _is_scope(old) and new and not new.endswith("/"):
                raise GraphRestoreError(
                    f"rename: the scope {old!r} cannot become {new!r}, which is none; write {new + '/'!r}"
                )
        self._idle.update({old: repr(old) for old in table})
        scopes = sorted(filter(_is_scope, table), key=len, reverse=True)

        def renamed(key: str) -> str:
            rule = key if key in table else next((scope for scope in scopes if key.startswith(scope)), None)
            if rule is None:
                return key
            self._idle.pop(rule, None)
            return table[rule] if rule == key else table[rule] + key[len(rule) :]

        return renamed

    def _of_pair(self, pair: Any) -> Callable[[str], str]:
        pattern, replacement = _compiled(pair)
        self._idle[pattern.pattern] = f"the expression {pattern.pattern!r}"

        def substituted(key: str) -> str:
            key, count = pattern.subn(replacement, key)
            if count:
                self._idle.pop(pattern.pattern, None)
            return key

        return substituted


def _steps(rename: Any) -> list[Any]:
    if rename is None:
        return []
    return [rename] if isinstance(rename, Mapping) or callable(rename) else list(rename)


def _one_after_the_other(functions: Sequence[Callable[[str], str]]) -> Callable[[str], str]:
    def renamed(key: str) -> str:
        for function in functions:
            key = function(key)
            if not isinstance(key, str):  # told by the caller, who knows the key that it was
                break
        return key

    return renamed


def _compiled(pair: Any) -> tuple[re.Pattern[str], str]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"rename takes pairs of a regular expression and a replacement, not {pair!r}")
    try:
        pattern: re.Pattern[str] = re.compile(pair[0])
        pattern.sub(pair[1], "")
    except (TypeError, re.error) as error:
        raise ValueError(f"rename: {pair!r} is no regular expression and its replacement ({error})") from None
    return pattern, pair[1]


def _is_scope(old: str) -> bool:
    return old == "" or old.endswith("/")


def _hint(part: str, keys: list[str]) -> str:
    if not _is_scope(part) and any(key.startswith(part + "/") for key in keys):
        return f"; it is a scope, write {part + '/'!r} for all in it"
    return did_you_mean(part, keys)
