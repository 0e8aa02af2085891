"""Messages of the library as the command line says them: options for Python's arguments, verbs for its functions."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from typing import Any

_ARGUMENT = re.compile(
    r"(?<![\w/.-])(?P<name>fetches|feeds|tags|include|exclude|rename|cast|asset_dir|on_update|on_mismatch|moving_averages|strict|"
    r"constants|keep_variables|precision|inference|format|keep_slices|overwrite|prefer|drop|allow_unsafe_ops|checkpoint|result_checkpoint)="
    r"(?:True|'(?P<single>\w+)'|\"(?P<double>\w+)\")?"
)
_OPTIONS = {"overwrite": "force", "constants": "set"}  # of another name than the argument
_RENAME = re.compile(r"(?<![\w/.-])rename=(?=\[)")
_PHRASES = {
    "graph_restore.initialize(model)": "--initialize",
    "restore(model, checkpoint)": "graph-restore check MODEL CHECKPOINT",
    "tags=[]": "--tags ''",
    "load(path)": "graph-restore inspect MODEL",
    "load_checkpoint(path)": "graph-restore checkpoint ls CHECKPOINT",
}
_AT_THE_START = re.compile(r"^(rename|include|exclude|keep_variables)(?=: )")
_TWICE = re.compile(r"(--[\w-]+) \(\1\)")  # where a message names both
_CALL = re.compile("|".join(rf"(?<![\w.]){re.escape(phrase)}" for phrase in _PHRASES))


def for_shell(text: str) -> str:
    """A message with `--on-mismatch skip` for `on_mismatch='skip'`, and so on."""
    text = _AT_THE_START.sub(lambda match: f"--{match[1].replace('_', '-')}", text)
    text = _CALL.sub(lambda match: _PHRASES[match[0]], "".join(_renamed(text)))
    return _TWICE.sub(r"\1", _ARGUMENT.sub(_option, text))


def _option(match: re.Match[str]) -> str:
    value = match["single"] or match["double"] or ""
    name = _OPTIONS.get(match["name"], match["name"])
    return f"--{name.replace('_', '-')}{' ' + value if value else ''}"


def _renamed(text: str) -> Iterator[str]:
    """The text, each `rename=[...]` in it as the options that mean the same."""
    start = 0
    for match in _RENAME.finditer(text):
        for end in (found.end() for found in re.finditer(r"\]", text[match.end() :])):
            steps = _literal(text[match.end() : match.end() + end])
            if steps is not None:
                yield text[start : match.start()]
                yield " ".join(f"--rename {shlex.quote(option)}" for option in _rename_options(steps))
                start = match.end() + end
                break
    yield text[start:]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None


def _rename_options(steps: list[Any]) -> Iterator[str]:
    for step in steps:
        if isinstance(step, dict):
            yield from (f"{old}={new}" for old, new in step.items())
        else:
            pattern, new = step
            old = re.sub(r"\\(.)", r"\1", pattern.removeprefix("^"))
            plain = len(steps) == 1 and pattern == "^" + re.escape(old)  # among others each has its turn
            yield f"{old}={new}" if plain else f"re:{pattern}={new}"
