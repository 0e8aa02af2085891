"""Which variables are meant: the forms that `include` and `exclude` take.

selection := None | name, glob, scope (`old/`) or set name | compiled regular expression | predicate on Variable
             | a Variable | a list of these
Set names: "trainable", "slots", "moving_averages", "local".
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graph_restore.errors import did_you_mean
from graph_restore.variables import Variable

Selection = str | re.Pattern[str] | Variable | Callable[[Variable], bool] | Iterable[Any] | None
Predicate = Callable[[Variable], bool]

_SETS: dict[str, Predicate] = {
    "trainable": lambda variable: variable.trainable is True,
    "slots": lambda variable: variable.is_slot,
    "moving_averages": lambda variable: variable.moving_average_of is not None,
    "local": lambda variable: "local_variables" in variable.collections,
}


class Selected:
    """Whether a variable is among those that a selection means; for the selection None the answer is `default`.

    `argument` names it in messages. ValueError for what is no selection.
    """

    def __init__(self, argument: str, selection: Selection, *, default: bool) -> None:
        self._argument, self._default = argument, default
        items = None if selection is None else _items(argument, selection)
        self._tests = None if items is None else [(item, _predicate(argument, item)) for item in items]

    def __call__(self, variable: Variable) -> bool:
        if self._tests is None:
            return self._default
        return any(test(variable) for _, test in self._tests)

    def notes(self, variables: Sequence[Variable]) -> list[str]:
        """A sentence for each name, glob or expression that fits none of the variables; for sets only if it includes.

        A set that is left out may well be empty, while a name that nothing has is a typing error.
        """
        tests = self._tests or ()
        idle = [item for item, test in tests if not any(map(test, variables))]
        if self._argument == "exclude":
            idle = [item for item in idle if not (isinstance(item, str) and item in _SETS)]
        return [f"{self._argument}={_told(item)} fits no variable{_near(item, variables)}" for item in idle]


def _items(argument: str, selection: Any) -> list[Any]:
    if isinstance(selection, str | re.Pattern | Variable) or callable(selection):
        return [selection]
    if isinstance(selection, Iterable) and not isinstance(selection, bytes):
        return [inner for item in selection for inner in _items(argument, item)]
    raise ValueError(
        f"{argument} takes names, globs, compiled regular expressions, functions of a Variable, or a list of these, "
        f"not {selection!r}"
    )


def _predicate(argument: str, item: Any) -> Predicate:
    if isinstance(item, re.Pattern):
        if not isinstance(item.pattern, str):
            raise ValueError(f"{argument}: an expression for text, not for bytes, is needed: {item.pattern!r}")
        return lambda variable: item.search(variable.name) is not None
    if isinstance(item, Variable):
        return lambda variable: variable.name == item.name
    if not isinstance(item, str):
        chosen: Predicate = item
        return chosen
    if item in _SETS:
        return _SETS[item]
    pattern = item.removesuffix(":0")
    if pattern.endswith("/"):
        return lambda variable: variable.name.startswith(pattern)
    return lambda variable: fnmatch.fnmatchcase(variable.name, pattern) or variable.name == pattern


def _told(item: Any) -> str:
    if isinstance(item, re.Pattern):
        return repr(item.pattern)
    if isinstance(item, Variable):
        return repr(item.name)
    return repr(item) if isinstance(item, str) else f"the function {getattr(item, '__name__', '')}".rstrip()


def _near(item: Any, variables: Sequence[Variable]) -> str:
    return did_you_mean(item, [variable.name for variable in variables]) if isinstance(item, str) else ""
