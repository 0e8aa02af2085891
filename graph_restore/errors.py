"""Every error the package raises on purpose.

    GraphRestoreError
      FormatError(ValueError)                    the bytes are not what they should be
        CorruptionError                          checksum, truncation, impossible length or handle
        UnsupportedFormatError                   well formed, but of a kind that is not taken
      CheckpointNotFoundError(FileNotFoundError)
      TensorNotFoundError(KeyError)
      NodeNotFoundError(KeyError)
      RestoreError                               .missing .mismatched .unused
      FreezeError                                .variables .nodes
      UpgradeError                               .nodes
      TensorFlowRequiredError(ImportError)
      PackageRequiredError(ImportError)

`GraphRestoreWarning` is the category of every warning: something was done that the caller may want to know.
"""

from __future__ import annotations

import difflib
import heapq
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence

_MANY, _LOOKED_AT = 200, 40  # names; comparing the spelling of one takes some hundred microseconds


class GraphRestoreWarning(UserWarning):
    """Something was left out, cut or chosen; the result is right, and the text says what happened."""


class GraphRestoreError(Exception):
    """Base of all errors of this package."""


class FormatError(GraphRestoreError, ValueError):
    """Bytes that do not follow their format.

    `path` names the file, `offset` the byte in it, `expected` and `found` what disagreed; each may be None.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        expected: object = None,
        found: object = None,
    ) -> None:
        self.path, self.offset, self.expected, self.found = path, offset, expected, found
        where = [str(path)] if path else []
        if offset is not None:
            where.append(f"byte {offset}")
        text = f"{', '.join(where)}: {message}" if where else message
        if expected is not None or found is not None:
            text += f" (expected {expected}, found {found})"
        super().__init__(text)


class CorruptionError(FormatError):
    """A checksum that disagrees, a file that ends early, a length or handle that cannot be."""


class UnsupportedFormatError(FormatError):
    """A version, compression, data type or size that is well formed but not taken here."""


class CheckpointNotFoundError(GraphRestoreError, FileNotFoundError):
    """No checkpoint where one was expected; the message lists what was looked for."""


class _NameNotFound(GraphRestoreError, KeyError):
    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class TensorNotFoundError(_NameNotFound):
    """A checkpoint has no tensor of that name; the message gives near names."""


class NodeNotFoundError(_NameNotFound):
    """A graph has no node of that name, or the node no such output; the message gives near names."""


class RestoreError(GraphRestoreError):
    """Graph and checkpoint do not fit; all disagreements at once.

    `missing`: names of variables without a tensor. `unused`: checkpoint keys no variable took.
    `mismatched`: variable name to a text that gives both shapes and dtypes.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: Sequence[str] = (),
        mismatched: Mapping[str, str] | None = None,
        unused: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.missing, self.mismatched, self.unused = list(missing), dict(mismatched or {}), list(unused)


class FreezeError(GraphRestoreError):
    """The graph cannot be frozen without changing what it computes.

    `variables`: names that still lack a value. `nodes`: node name to the reason it cannot be frozen.
    """

    def __init__(self, message: str, *, variables: Sequence[str] = (), nodes: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.variables, self.nodes = list(variables), dict(nodes or {})


class UpgradeError(GraphRestoreError):
    """The graph cannot be brought to TensorFlow 2's form without changing what it computes.

    `nodes`: node name to the reason.
    """

    def __init__(self, message: str, *, nodes: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.nodes = dict(nodes or {})


class TensorFlowRequiredError(GraphRestoreError, ImportError):
    """A live feature was asked for and TensorFlow is not installed."""


class PackageRequiredError(GraphRestoreError, ImportError):
    """A path leads to a store whose package is not installed; the message says what to install."""


def warn(text: str) -> None:
    """A GraphRestoreWarning that points at the line which called this package, however deep inside it arose."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, GraphRestoreWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def near_names(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of `names` that look most like `name`: close spelling, then the same last part.

    Of very many only those are looked at closely that share most parts of their paths with it.
    """
    candidates = list(names)
    if len(candidates) > _MANY:
        parts, start, length = set(name.split("/")), name[:2], len(name)

        def likeness(other: str) -> tuple[int, bool, int]:
            return len(parts.intersection(other.split("/"))), other[:2] == start, -abs(len(other) - length)

        candidates = heapq.nlargest(_LOOKED_AT, candidates, key=likeness)
    last = name.rsplit("/", 1)[-1]
    same_last = [candidate for candidate in candidates if candidate.rsplit("/", 1)[-1] == last]
    close = difflib.get_close_matches(name, candidates, n=count, cutoff=0.6)
    folded = [candidate for candidate in candidates if candidate.casefold() == name.casefold()]
    if len(folded) + len(close) < count and same_last:
        close += difflib.get_close_matches(name, same_last, n=count, cutoff=0.0)
    return list(dict.fromkeys(folded + close))[:count]


def counted(count: int, noun: str) -> str:
    """`1 tensor`, `2,000 tensors`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A sentence "; near names: a, b" for an error message, or nothing."""
    found = near_names(name, names)
    return f"; near names: {', '.join(found)}" if found else ""
