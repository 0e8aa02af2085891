"""Recurrent cells among tensors, told by roles and shapes: those of TensorFlow 1, and those of Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graph_restore.transforms.pairing import Item, role

_GATES = {"LSTM": 4, "GRU": 3}
_INNER = ("linear",)  # a scope within a cell's, in releases before 1.0


@dataclass(frozen=True)
class Cell:
    """`kind`: "LSTM" or "GRU". `parts`: names of an old cell's kernel and bias (of a GRU, those of its gates, then of
    its candidate), or of a Keras cell's kernel, recurrent kernel and bias. `odd`: why it cannot be transferred, or "".
    """

    kind: str
    scope: str
    parts: tuple[str, ...]
    inputs: int
    units: int
    odd: str = ""


def old_cells(items: Sequence[Item], named: bool = True) -> list[Cell]:
    """The cells of TensorFlow 1; with `named` only in scopes whose names say so, as a dense layer can look the same."""
    scopes = _scopes(items)
    cells = [_old_lstm(scope, members) for scope, members in scopes.items()]
    cells += [_old_gru(scope, members, scopes) for scope, members in scopes.items()]
    return [cell for cell in cells if cell is not None and (not named or cell.kind.casefold() in cell.scope.casefold())]


def _scopes(items: Sequence[Item]) -> dict[str, dict[str, Item]]:
    """Scope to its tensors by their roles."""
    found: dict[str, dict[str, Item]] = {}
    for item in items:
        found.setdefault(item.scope, {})[role(item.name)] = item
    return found


def _old_lstm(scope: str, members: dict[str, Item]) -> Cell | None:
    kernel, bias = _matrix(members)
    if kernel is None or bias is None or kernel[1] % 4:
        return None
    units, others = kernel[1] // 4, sorted(members.keys() - {"kernel", "bias"})
    if kernel[0] <= units:
        return None
    odd = f"it has {', '.join(others)} (peepholes or a projection), which Keras's LSTM has not" if others else ""
    parts = (members["kernel"].name, members["bias"].name)
    return Cell("LSTM", scope, parts, kernel[0] - units, units, odd)


def _old_gru(scope: str, members: dict[str, Item], scopes: dict[str, dict[str, Item]]) -> Cell | None:
    """The cell whose candidate lies in `scope`; its gates lie in a scope beside."""
    outer, inner = (scope.rpartition("/")[0], "/" + scope.rpartition("/")[2]) if _is_inner(scope) else (scope, "")
    base, _, last = outer.rpartition("/")
    gates = scopes.get(f"{base}/{'Gates' if last[:1].isupper() else 'gates'}{inner}", {})
    (kernel, bias), (candidate, candidate_bias) = _matrix(gates), _matrix(members)
    if last.casefold() != "candidate" or kernel is None or candidate is None or bias is None or candidate_bias is None:
        return None
    units = candidate[1]
    if kernel != (candidate[0], 2 * units) or candidate[0] <= units:
        return None
    parts = tuple(part[name].name for part in (gates, members) for name in ("kernel", "bias"))
    return Cell("GRU", base, parts, candidate[0] - units, units)


def _is_inner(scope: str) -> bool:
    return scope.rpartition("/")[2].casefold() in _INNER


def _matrix(members: dict[str, Item]) -> tuple[tuple[int, int] | None, int | None]:
    """The shapes of kernel and bias where these are a matrix and a vector that go together."""
    kernel = members["kernel"].shape if "kernel" in members else None
    bias = members["bias"].shape if "bias" in members else None
    if kernel is None or bias is None or len(kernel) != 2 or None in kernel or bias != kernel[1:]:
        return None, None
    rows, columns = kernel
    assert rows is not None and columns is not None
    return (rows, columns), columns


def keras_cells(items: Sequence[Item]) -> list[Cell]:
    """The cells of Keras's LSTM and GRU layers."""
    return [cell for scope, members in _scopes(items).items() if (cell := _keras_cell(scope, members)) is not None]


def _keras_cell(scope: str, members: dict[str, Item]) -> Cell | None:
    if not {"kernel", "recurrent_kernel"} <= members.keys():
        return None
    kernel, recurrent = members["kernel"].shape, members["recurrent_kernel"].shape
    if kernel is None or recurrent is None or len(kernel) != 2 or None in (*kernel, *recurrent):
        return None
    inputs, units, width = kernel[0], recurrent[0], kernel[1]
    assert inputs is not None and units is not None and width is not None
    kind = next((kind for kind, gates in _GATES.items() if width == gates * units), None)
    if kind is None:
        return None
    bias = members["bias"].shape if "bias" in members else None
    odd = "" if bias is not None else "it has no bias, which the old cell has"
    if bias is not None and len(bias) == 2:
        odd = "it was made with reset_after=True; make it with reset_after=False, as the old cell computes"
    parts = tuple(members[name].name for name in ("kernel", "recurrent_kernel", "bias") if name in members)
    return Cell(kind, scope, parts, inputs, units, odd)
