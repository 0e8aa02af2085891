"""The text file that fills a look-up table, read as TensorFlow reads it (tensorflow/core/kernels/lookup_util.cc).

What every release of TensorFlow refuses is refused: empty files and lines, too few columns, cells that are no numbers,
one key with two values (lookup_table_op.cc). What only some refuse (`+2`, which 1.15 takes for no integer and 2.21 for
2) is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, numpy_dtype, type_name
from graph_restore.errors import FreezeError
from graph_restore.storage.files import open_source
from graph_restore.tensors import LazyTensor, lazy

_WHOLE_LINE, _LINE_NUMBER = -2, -1
_INTEGER = re.compile(rb"\s*[+-]?[0-9]+\s*")
_LONGEST = 1000  # Python refuses to read integers of more than 4300 digits
_NEXT = "; correct it, or pass asset_dir= with the directory of the right file"


def read_vocabulary(
    path: str, *, key: tuple[int, int], value: tuple[int, int], size: int, delimiter: str, offset: int = 0
) -> tuple[LazyTensor, LazyTensor]:
    """(keys, values) of a text file, one entry a line; `key` and `value` are (column, DataType).

    Column -2 is the whole line, -1 the line's number. At most `size` lines are taken unless it is -1. FreezeError with
    the line's number when it has too few columns, is no number where one is asked for, is empty, or has a key that an
    earlier line gives another value.
    """
    source = open_source(path)
    lines = source.pread(0, source.size).split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    lines = [line.removesuffix(b"\r") for line in lines]
    if not lines:
        raise FreezeError(f"{path} is empty, and TensorFlow fills no table from an empty file{_NEXT}")
    if 0 <= size < len(lines):
        lines = lines[:size]
    elif size > len(lines):
        raise FreezeError(f"{path} has {len(lines)} lines where the graph asks for {size}{_NEXT}")
    for number, line in enumerate(lines, 1):
        if not line:
            raise FreezeError(f"{path}, line {number} is empty; TensorFlow refuses such a file{_NEXT}")
    keys = _column(path, lines, *key, delimiter, offset)
    values = _column(path, lines, *value, delimiter, offset)
    _refuse_two_values(path, keys, values)
    return lazy(path, keys), lazy(path, values)


def _refuse_two_values(path: str, keys: Any, values: Any) -> None:
    """FreezeError for a key with several values; one that is given the same value again is nothing to TensorFlow."""
    listed = keys.tolist()
    if len(set(listed)) == len(listed):
        return
    first: dict[Any, tuple[int, Any]] = {}
    for number, (key, value) in enumerate(zip(listed, values.tolist()), 1):
        earlier, before = first.setdefault(key, (number, value))
        if earlier != number and before != value:
            raise FreezeError(
                f"{path}, line {number} gives key {_shown(key)} the value {_shown(value)}, and line {earlier} gives it "
                f"{_shown(before)}; TensorFlow refuses such a file{_NEXT}"
            )


def _shown(cell: Any) -> str:
    return repr(cell.decode("utf-8", "backslashreplace")) if isinstance(cell, bytes) else str(cell)


def _column(path: str, lines: Sequence[bytes], column: int, dtype: int, delimiter: str, offset: int) -> Any:
    """The array of one column."""
    if column == _LINE_NUMBER:
        return np.arange(offset, offset + len(lines)).astype(numpy_dtype(dtype))
    cells = list(lines) if column == _WHOLE_LINE else list(_cells(path, lines, column, delimiter.encode()))
    if dtype == DataType.DT_STRING:
        return np.array(cells, dtype=object)
    numbers = []
    for number, cell in enumerate(cells, 1):
        found = _number(cell.split(b"\0")[0], numpy_dtype(dtype))  # TensorFlow hands on a C string
        if found is None:
            where = "" if column == _WHOLE_LINE else f", column {column} (counted from 0)"
            raise FreezeError(f"{path}, line {number}{where} is no {type_name(dtype)}: {_shown(cell)}{_NEXT}")
        numbers.append(found)
    with np.errstate(over="ignore"):  # a number too large for a float is infinite to TensorFlow too
        return np.array(numbers, dtype=numpy_dtype(dtype))


def _number(cell: bytes, dtype: Any) -> int | float | None:
    """The number that TensorFlow reads; Python itself would take underscores and other alphabets' digits as well."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        number = int(cell) if _INTEGER.fullmatch(cell) and len(cell) < _LONGEST else None
        return number if number is not None and limits.min <= number <= limits.max else None
    if dtype.kind != "f" or b"_" in cell:
        return None
    try:
        return float.fromhex(cell.decode("ascii")) if b"x" in cell.lower() else float(cell)
    except (ValueError, OverflowError):
        return None


def _cells(path: str, lines: Iterable[bytes], column: int, delimiter: bytes) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        cells = line.split(delimiter)
        if column >= len(cells):
            counted = "1 column" if len(cells) == 1 else f"{len(cells)} columns"
            raise FreezeError(
                f"{path}, line {number} has {counted}; the graph asks for column {column}, counted from 0{_NEXT}"
            )
        yield cells[column]
