"""What `verify` reports: per output, how far two arrays are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class OutputDifference:
    """How one output differs. `first`, `second`: dtype and shape on either side, as text.

    `differing` of `size` elements are further apart than the tolerance. `max_absolute`, `max_relative`: the greatest
    |first - second| and |first - second| / |first| of numbers; None where there are none to compare: strings, other
    shapes, or where only one side is finite. `ok`: dtype and shape agree and no element differs.
    """

    name: str
    first: str
    second: str
    size: int
    differing: int
    max_absolute: float | None
    max_relative: float | None

    @property
    def ok(self) -> bool:
        """Whether both sides agree."""
        return self.first == self.second and not self.differing

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for json."""
        return {**vars(self), "ok": self.ok}

    def __str__(self) -> str:
        if self.first != self.second:
            return f"{self.name}: {self.first} and {self.second}"
        if self.max_absolute is None:
            return f"{self.name} {self.first}: {self.differing or 'none'} of {self.size} elements differ"
        apart = f"{self.max_absolute:.3g} apart at most, {self.max_relative:.3g} relative"
        return f"{self.name} {self.first}: {apart}; {self.differing or 'none'} of {self.size} past the tolerance"


@dataclass(frozen=True)
class Report:
    """What `verify` found. `feeds`: tensor name to what was fed, as text. `notes`: what was done to compare."""

    outputs: tuple[OutputDifference, ...]
    feeds: Mapping[str, str] = field(default_factory=dict)
    atol: float = 0.0
    rtol: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every output agrees within the tolerance."""
        return all(output.ok for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, for json."""
        outputs = [output.to_dict() for output in self.outputs]
        return {
            "ok": self.ok, "atol": self.atol, "rtol": self.rtol, "outputs": outputs, "feeds": dict(self.feeds),
            "notes": list(self.notes),
        }  # fmt: skip

    def __str__(self) -> str:
        verdict = "equal" if self.ok else "different"
        lines = [f"{verdict} (atol {self.atol:g}, rtol {self.rtol:g})"]
        lines += [f"  {'  ' if output.ok else '! '}{output}" for output in self.outputs]
        return "\n".join([*lines, *(f"  fed {name}: {what}" for name, what in self.feeds.items())])


def described(array: Array) -> str:
    """`float32 [2, 3]`; text is `string`."""
    kind = "string" if array.dtype.kind in "OSU" else array.dtype.name
    return f"{kind} {list(array.shape)}"


def compare(name: str, first: Array, second: Array, atol: float, rtol: float) -> OutputDifference:
    """The difference of two arrays: numbers are equal where |first - second| <= atol + rtol * |first|, and where both
    are NaN or the same infinity; whole numbers, truth values and strings where they are the same."""
    if described(first) != described(second):
        return OutputDifference(name, described(first), described(second), first.size, first.size, None, None)
    inexact = first.dtype.kind in "fc" or first.dtype.kind == "V"  # bfloat16 and its like are of kind V
    if not inexact:
        differing, distances = _exact(first, second)
    else:
        wide = np.complex128 if first.dtype.kind == "c" else np.float64
        differing, distances = _inexact(first.astype(wide), second.astype(wide), atol, rtol)
    return OutputDifference(name, described(first), described(second), first.size, differing, *distances)


def _exact(first: Array, second: Array) -> tuple[int, tuple[float | None, float | None]]:
    differing = int(np.count_nonzero(first != second))
    if first.dtype.kind not in "iu":
        return differing, (None, None)
    return differing, _greatest(first.astype(np.float64), second.astype(np.float64))


def _inexact(first: Array, second: Array, atol: float, rtol: float) -> tuple[int, tuple[float | None, float | None]]:
    finite = np.isfinite(first) & np.isfinite(second)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore", over="ignore"):
        near = finite & (np.abs(first - second) <= atol + rtol * np.abs(first))
    differing = int(np.count_nonzero(~(near | same)))
    if np.any(~finite & ~same):
        return differing, (None, None)
    return differing, _greatest(first[finite], second[finite])


def _greatest(first: Array, second: Array) -> tuple[float, float]:
    """The greatest absolute and relative difference of finite numbers; a difference from zero is relative to 1."""
    if not first.size:
        return 0.0, 0.0
    apart, size = np.abs(first - second), np.abs(first)
    return float(apart.max()), float((apart / np.where(size > 0, size, 1.0)).max())
