"""Options that several verbs have, and how lists of names are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def names(*flags: str, help: str) -> Callable[[_Command], _Command]:
    """An option that may be repeated and may hold commas: a list of names, None when it is not given."""
    return click.option(*flags, multiple=True, metavar="NAMES", help=help, callback=_split)


def _split(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    found = [name.strip() for value in values for name in value.split(",")]
    if "" in found:
        raise click.BadParameter("an empty name; separate names by single commas")
    return found or None


def _renaming(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> Any:
    """What `restore` takes: "auto", a table of names, or None."""
    if values == ("auto",):
        return "auto"
    pairs = [value.partition("=") for value in values]
    if not all(old and sign for old, sign, _ in pairs):
        raise click.BadParameter("KEY=NAME, SCOPE/=SCOPE/, or auto")
    return {old: new for old, _, new in pairs} or None


def _assignments(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [value.partition("=") for value in values]
    if not all(name and sign for name, sign, _ in pairs):
        raise click.BadParameter("NAME=VALUE")
    return {name: value for name, _, value in pairs} or None


constants = click.option("--set", "constants", multiple=True, metavar="NAME=VALUE", callback=_assignments,
                         help="A value the placeholder NAME always has.")  # fmt: skip
rename = click.option("--rename", multiple=True, metavar="KEY=NAME", callback=_renaming,
                      help="Other names for keys or scopes/, or auto.")  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
tags = names("--tags", help="All tags of the SavedModel's graph.")
