"""TensorFlow's DataType numbers and the numpy dtypes that hold their values.

The numbers are those of tensorflow/core/framework/types.proto. Quantised types are given as the plain integers
they are made of, strings as object arrays of bytes, bfloat16 and the 8 and 4 bit types by ml_dtypes.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any

from graph_restore.arrays import np
from graph_restore.errors import UnsupportedFormatError


class DataType(IntEnum):
    """A TensorFlow element type, by its number in a GraphDef or checkpoint."""

    DT_INVALID = 0
    DT_FLOAT = 1
    DT_DOUBLE = 2
    DT_INT32 = 3
    DT_UINT8 = 4
    DT_INT16 = 5
    DT_INT8 = 6
    DT_STRING = 7
    DT_COMPLEX64 = 8
    DT_INT64 = 9
    DT_BOOL = 10
    DT_QINT8 = 11
    DT_QUINT8 = 12
    DT_QINT32 = 13
    DT_BFLOAT16 = 14
    DT_QINT16 = 15
    DT_QUINT16 = 16
    DT_UINT16 = 17
    DT_COMPLEX128 = 18
    DT_HALF = 19
    DT_RESOURCE = 20
    DT_VARIANT = 21
    DT_UINT32 = 22
    DT_UINT64 = 23
    DT_FLOAT8_E5M2 = 24
    DT_FLOAT8_E4M3FN = 25
    DT_FLOAT8_E4M3FNUZ = 26
    DT_FLOAT8_E4M3B11FNUZ = 27
    DT_FLOAT8_E5M2FNUZ = 28
    DT_INT4 = 29
    DT_UINT4 = 30
    DT_INT2 = 31
    DT_UINT2 = 32


REF_OFFSET = 100  # a ref type is its base type plus this

_NUMPY_NAMES = {
    DataType.DT_FLOAT: "<f4",
    DataType.DT_DOUBLE: "<f8",
    DataType.DT_INT32: "<i4",
    DataType.DT_UINT8: "u1",
    DataType.DT_INT16: "<i2",
    DataType.DT_INT8: "i1",
    DataType.DT_STRING: "O",
    DataType.DT_COMPLEX64: "<c8",
    DataType.DT_INT64: "<i8",
    DataType.DT_BOOL: "?",
    DataType.DT_QINT8: "i1",
    DataType.DT_QUINT8: "u1",
    DataType.DT_QINT32: "<i4",
    DataType.DT_QINT16: "<i2",
    DataType.DT_QUINT16: "<u2",
    DataType.DT_UINT16: "<u2",
    DataType.DT_COMPLEX128: "<c16",
    DataType.DT_HALF: "<f2",
    DataType.DT_UINT32: "<u4",
    DataType.DT_UINT64: "<u8",
}
_ML_DTYPES_NAMES = {
    DataType.DT_BFLOAT16: "bfloat16",
    DataType.DT_FLOAT8_E5M2: "float8_e5m2",
    DataType.DT_FLOAT8_E4M3FN: "float8_e4m3fn",
    DataType.DT_FLOAT8_E4M3FNUZ: "float8_e4m3fnuz",
    DataType.DT_FLOAT8_E4M3B11FNUZ: "float8_e4m3b11fnuz",
    DataType.DT_FLOAT8_E5M2FNUZ: "float8_e5m2fnuz",
    DataType.DT_INT4: "int4",
    DataType.DT_UINT4: "uint4",
    DataType.DT_INT2: "int2",
    DataType.DT_UINT2: "uint2",
}
_NAMES = {DataType.DT_HALF: "float16", DataType.DT_FLOAT: "float32", DataType.DT_DOUBLE: "float64"}


@cache
def data_type(number: int) -> DataType:
    """The DataType of a number found in a file, a ref type's base included; UnsupportedFormatError if unknown."""
    try:
        return DataType(number - REF_OFFSET if number > REF_OFFSET else number)
    except ValueError:
        raise UnsupportedFormatError(
            "unknown data type number; the file may be of a newer TensorFlow", expected="1 to 32", found=number
        ) from None


@cache
def type_name(number: int) -> str:
    """TensorFlow's short name, "float32", "qint8", "string" ... with "_ref" where the number says so."""
    base = data_type(number)
    name = _NAMES.get(base, base.name[3:].lower())
    return name + "_ref" if number > REF_OFFSET else name


@cache
def numpy_dtype(number: int) -> np.dtype[Any]:
    """The dtype of arrays that hold this type's values; UnsupportedFormatError for resource and variant."""
    base = data_type(number)
    if base in _NUMPY_NAMES:
        return np.dtype(_NUMPY_NAMES[base])
    if base in _ML_DTYPES_NAMES:
        import ml_dtypes  # on first use: it costs more to import than most models need

        named: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES_NAMES[base]))
        return named
    raise UnsupportedFormatError(f"a tensor of type {type_name(number)} has no value that could be read")


@cache
def item_size(number: int) -> int:
    """Bytes an element takes in `tensor_content` and in V2 data files. Strings have none: ValueError."""
    base = data_type(number)
    if base is DataType.DT_STRING:
        raise ValueError("string elements have no fixed size")
    if base in _ML_DTYPES_NAMES:
        return 2 if base is DataType.DT_BFLOAT16 else 1
    name = _NUMPY_NAMES.get(base)
    return numpy_dtype(base).itemsize if name is None else int(name.lstrip("<")[1:] or 1)


def from_numpy(dtype: np.dtype[Any]) -> DataType:
    """The DataType of a numpy array's dtype (bytes, str and object are strings); ValueError if there is none."""
    if dtype.kind in "OSU":
        return DataType.DT_STRING
    plain = dtype.newbyteorder("<").str.replace("|", "").replace("b1", "?")
    for number, name in _NUMPY_NAMES.items():
        if name == plain and not number.name.startswith(("DT_Q",)):
            return number
    for number, name in _ML_DTYPES_NAMES.items():
        if name == dtype.name:
            return number
    raise ValueError(f"numpy dtype {dtype} has no TensorFlow data type")
