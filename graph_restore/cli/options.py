"""Options that several verbs have, and how lists of names are written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
_RE = "re:"


def names(*flags: str, help: str) -> Callable[[_Command], _Command]:
    """An option that may be repeated and may hold commas: a list of names, None when it is not given."""
    return click.option(*flags, multiple=True, metavar="NAMES", help=help, callback=_split)


def _split(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    found = [name.strip() for value in values for name in value.split(",")]
    if "" in found:
        raise click.BadParameter("an empty name; separate names by single commas")
    return found or None


def _tags(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """A list of tags; '' alone is the list of none, which chooses the graph without tags."""
    return [] if values == ("",) else _split(context, option, values)


def _selection(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[Any] | None:
    """Names and globs as they are; `re:` and an expression, which may hold commas, as that expression."""
    expressions = [_expression(value.removeprefix(_RE)) for value in values if value.startswith(_RE)]
    plain = _split(context, option, tuple(value for value in values if not value.startswith(_RE)))
    return [*(plain or ()), *expressions] or None


def _expression(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise click.BadParameter(f"{pattern!r} is no regular expression: {error}") from None


def _renaming(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> Any:
    """What `restore` takes: "auto", a list of tables and of pairs with an expression, or None."""
    if values == ("auto",):
        return "auto"
    steps: list[Any] = []
    for value in values:
        if value.startswith(_RE):
            steps.append(_substitution(value))
            continue
        old, sign, new = value.partition("=")
        if not sign or not (old or new.endswith("/")):
            raise click.BadParameter("write KEY=NAME, SCOPE/=SCOPE/, re:PATTERN=NEW, or auto")
        if not steps or not isinstance(steps[-1], dict):
            steps.append({})
        steps[-1][old] = new
    return steps or None


def _substitution(value: str) -> tuple[str, str]:
    pattern, sign, new = value.removeprefix(_RE).rpartition("=")  # an expression may have more of them, as in (?=x)
    if not sign:
        raise click.BadParameter("write re:PATTERN=NEW, where NEW may be empty")
    compiled = _expression(pattern)
    try:
        compiled.sub(new, "")
    except re.error as error:
        raise click.BadParameter(f"{new!r} is no replacement for {pattern!r}: {error}") from None
    return pattern, new


def _assignments(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [value.partition("=") for value in values]
    if not all(name and sign for name, sign, _ in pairs):
        raise click.BadParameter("write NAME=VALUE")
    return {name: value for name, _, value in pairs} or None


constants = click.option("--set", "constants", multiple=True, metavar="NAME=VALUE", callback=_assignments,
                         help="A value the placeholder NAME always has.")  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
tags = click.option("--tags", multiple=True, metavar="NAMES", callback=_tags,
                    help="All tags of the SavedModel's graph; '' for none.")  # fmt: skip
asset_dir = click.option("--asset-dir", metavar="DIR", help="Where vocabulary files lie now.")
initialize = click.option("--initialize", is_flag=True, help="First values for variables without a tensor.")
keep_devices = click.option("--keep-devices", is_flag=True, help="Leave device placements in.")
OR_FORCE = "; write somewhere else, or pass --force"  # where something is already
_OF_RESTORE = (
    click.option("--moving-averages", is_flag=True, help="Take averaged values where there are any."),
    click.option("--include", multiple=True, metavar="NAMES", callback=_selection,
                 help="Only these variables: names, globs, re:PATTERN."),
    click.option("--exclude", multiple=True, metavar="NAMES", callback=_selection,
                 help="Leave these variables out."),
    click.option("--rename", multiple=True, metavar="KEY=NAME", callback=_renaming,
                 help="Other names: keys, scopes/, re:PATTERN=NEW, auto."),
    click.option("--cast", is_flag=True, help="Convert values of another dtype."),
    click.option("--on-mismatch", type=click.Choice(["error", "skip"]), default="error", metavar="HOW",
                 help="Values of another shape: error, or skip."),
)  # fmt: skip


def of_restore(command: _Command) -> _Command:
    """Which values variables take, and from which keys: the options of `restore`."""
    for option in reversed(_OF_RESTORE):
        command = option(command)
    return command
