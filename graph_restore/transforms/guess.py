"""Guessing the one systematic change of names that makes a checkpoint fit: a scope added, removed or replaced.

Every missing name is paired with unused keys of the same ending and an agreeing shape; what remains in front of the
common ending is a candidate change. A candidate counts when it gives every missing name a tensor of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graph_restore.tensors import LazyTensor
from graph_restore.variables import Variable, shapes_agree

_CANDIDATES = 20
_SAMPLE = 200  # missing names that are looked at for candidates; a systematic change shows in any of them,
_FEWEST, _PAIRS = 10, 100_000  # and fewer of them when each has very many keys to be paired with


@dataclass(frozen=True)
class Guess:
    """A change of names: `old` at the start of a key becomes `new`.

    `matched` of `wanted` missing names get a tensor; `certain` when all do and no other change does as well. `kept`:
    keys that start with `old` and must stay as they are, since they fit already or would clash with one that does.
    `after`: the steps of the `rename` that was given, whose names these are; with nothing to replace, it was the fault.
    """

    old: str
    new: str
    matched: int
    wanted: int
    certain: bool
    slots_aside: bool = False
    kept: tuple[str, ...] = ()
    after: tuple[Any, ...] = ()

    @property
    def rename(self) -> list[Any] | None:
        """The guess as `restore` takes it, together with what was given."""
        if not self.old and not self.new:
            return None
        rest = "|".join(re.escape(key.removeprefix(self.old)) for key in self.kept)
        guard = f"(?!(?:{rest})$)" if self.kept else ""
        return [*self.after, ("^" + re.escape(self.old) + guard, self.new.replace("\\", r"\\"))]

    def __str__(self) -> str:
        how = (
            f"replacing the prefix `{self.old}` by `{self.new}`"
            if self.old and self.new
            else f"removing the prefix `{self.old}`"
            if self.old
            else f"adding the prefix `{self.new}`"
        )
        share = f"all {self.wanted}" if self.matched == self.wanted else f"{self.matched} of {self.wanted}"
        if self.rename is None:
            return f"{share} missing names match without rename: leave it out"
        how = f"the rename given and then {how}" if self.after else how
        advice = ", or rename='auto'" if self.certain else ""
        aside = " (optimizer slots aside)" if self.slots_aside else ""
        return f"{share} missing names{aside} match after {how}: pass rename={self.rename!r}{advice}"


def guess_rename(
    missing: Mapping[str, Variable], unused: Mapping[str, LazyTensor], taken: Collection[str] = ()
) -> Guess | None:
    """The change of names that gives most of the missing keys a tensor; None when none gives any.

    `missing`: key looked for to variable. `taken`: the keys that variables have taken already. Slots count only when
    nothing else is missing.
    """
    wanted = {key: variable for key, variable in missing.items() if not variable.is_slot} or dict(missing)
    endings = _by_ending(unused)
    most = max(map(len, endings.values()), default=1)
    sample = list(wanted.items())[:: -(-len(wanted) // max(_FEWEST, min(_SAMPLE, _PAIRS // most)))]
    changes = Counter(change for key, variable in sample for change in _changes(key, variable, endings))
    scored = [(_matches(change, wanted, unused), change) for change, _ in changes.most_common(_CANDIDATES)]
    scored = sorted((pair for pair in scored if pair[0]), key=lambda pair: (-pair[0], len(pair[1][0])))
    if not scored:
        return None
    (matched, (old, new)), rivals = scored[0], [pair for pair in scored[1:] if pair[0] == scored[0][0]]
    certain = matched == len(wanted) and not rivals
    kept = _kept(old, new, taken, unused)
    return Guess(old, new, matched, len(wanted), certain, len(wanted) < len(missing), kept)


def guess_further(
    missing: Mapping[str, Variable],
    unused: Mapping[str, LazyTensor],
    named: Mapping[str, LazyTensor],
    taken: Collection[str],
    after: Sequence[Any],
) -> Guess | None:
    """The same where a `rename` of the steps `after` was given: `named` and `taken` are names after it, `unused` keys
    before. A change that is to follow it, unless every missing name is a key as it was and nothing else was taken.
    """
    wanted = {key: variable for key, variable in missing.items() if not variable.is_slot} or dict(missing)
    if not taken and all(key in unused and _fits(variable, unused[key]) for key, variable in wanted.items()):
        return Guess("", "", len(wanted), len(wanted), certain=False, slots_aside=len(wanted) < len(missing))
    found = guess_rename(missing, named, taken)
    return None if found is None else replace(found, certain=False, after=tuple(after))


def _kept(old: str, new: str, taken: Collection[str], unused: Mapping[str, LazyTensor]) -> tuple[str, ...]:
    """The keys under `old` that are taken, and those that would get the name of a key that stays."""
    kept = {key for key in taken if key.startswith(old)}
    staying = kept | {key for key in (*taken, *unused) if not key.startswith(old)}
    while clash := {key for key in unused if key not in staying and new + key[len(old) :] in staying}:
        kept |= clash
        staying |= clash
    return tuple(sorted(kept))


def _by_ending(unused: Mapping[str, LazyTensor]) -> dict[str, list[tuple[list[str], LazyTensor]]]:
    """Last part of a key to (parts, tensor) of the keys that end so."""
    endings: dict[str, list[tuple[list[str], LazyTensor]]] = {}
    for key, tensor in unused.items():
        parts = key.split("/")
        endings.setdefault(parts[-1], []).append((parts, tensor))
    return endings


def _changes(
    key: str, variable: Variable, endings: Mapping[str, list[tuple[list[str], LazyTensor]]]
) -> Iterator[tuple[str, str]]:
    """(old prefix, new prefix) for every unused key with the same last part and an agreeing shape."""
    parts = key.split("/")
    for others, tensor in endings.get(parts[-1], ()):
        if _fits(variable, tensor):
            common = 1
            while common < min(len(parts), len(others)) and parts[-common - 1] == others[-common - 1]:
                common += 1
            yield _scope(others[:-common]), _scope(parts[:-common])


def _scope(parts: list[str]) -> str:
    return "".join(part + "/" for part in parts)


def _matches(change: tuple[str, str], wanted: Mapping[str, Variable], unused: Mapping[str, LazyTensor]) -> int:
    old, new = change
    renamed = {new + key[len(old) :]: tensor for key, tensor in unused.items() if key.startswith(old)}
    return sum(key in renamed and _fits(variable, renamed[key]) for key, variable in wanted.items())


def _fits(variable: Variable, tensor: LazyTensor) -> bool:
    shape = variable.slice.full_shape if variable.slice is not None else variable.shape
    return shapes_agree(shape, tensor.shape)
