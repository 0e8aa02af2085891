"""Numpy's .npy files, one tensor a file, and directories of them.

    npy      := 93 "NUMPY", version, length of the header, header: a Python dict of descr, fortran_order, shape; data

The format is that of numpy/lib/format.py. Numpy has no bfloat16 and no 8-bit or 4-bit floats and integers of ml_dtypes:
such values are written as float32, int8 or uint8, which hold them exactly. Strings become fixed-width bytes.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graph_restore.arrays import np
from graph_restore.checkpoint.partial import OpaqueTensor
from graph_restore.dtypes import DataType, type_name
from graph_restore.errors import GraphRestoreError, UnsupportedFormatError, warn
from graph_restore.storage.extent import Extent
from graph_restore.storage.output import AtomicFile, Progress
from graph_restore.tensors import CastTensor, LazyTensor, StringTensor

_WIDENED = {
    DataType.DT_BFLOAT16: DataType.DT_FLOAT,
    DataType.DT_FLOAT8_E5M2: DataType.DT_FLOAT,
    DataType.DT_FLOAT8_E4M3FN: DataType.DT_FLOAT,
    DataType.DT_FLOAT8_E4M3FNUZ: DataType.DT_FLOAT,
    DataType.DT_FLOAT8_E4M3B11FNUZ: DataType.DT_FLOAT,
    DataType.DT_FLOAT8_E5M2FNUZ: DataType.DT_FLOAT,
    DataType.DT_INT4: DataType.DT_INT8,
    DataType.DT_INT2: DataType.DT_INT8,
    DataType.DT_UINT4: DataType.DT_UINT8,
    DataType.DT_UINT2: DataType.DT_UINT8,
}
_QUANTISED = {
    DataType.DT_QINT8, DataType.DT_QUINT8, DataType.DT_QINT16, DataType.DT_QUINT16, DataType.DT_QINT32,
}  # fmt: skip
_MAX_PADDED = 1 << 32  # bytes of strings padded to the longest one
_AT_ONCE = 1 << 20
_UNSAFE = re.compile(r'[\x00-\x1f\x7f%\\:*?"<>|\ud800-\udfff]')
_MAX_NAME = 200


def npy_parts(tensor: LazyTensor) -> Iterator[Extent | bytes]:
    """The whole .npy file of a tensor; `check_tensors` says beforehand whether there can be one."""
    if isinstance(tensor, StringTensor):
        width = _width(tensor)
        yield npy_header(np.dtype(f"S{width}"), tensor.shape)
        yield from _padded(tensor.strings(), width)
        return
    if tensor.data_type in _WIDENED:
        tensor = CastTensor(tensor, _WIDENED[tensor.data_type])
    yield npy_header(tensor.dtype, tensor.shape)
    yield from tensor.parts()


def npy_length(tensor: LazyTensor) -> int:
    """How many bytes `npy_parts` gives."""
    kind = np.dtype(f"S{_width(tensor)}") if isinstance(tensor, StringTensor) else _plain_dtype(tensor)
    return len(npy_header(kind, tensor.shape)) + kind.itemsize * tensor.size


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Magic, version and header for an array in row-major order."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def check_tensors(tensors: Mapping[str, LazyTensor]) -> None:
    """UnsupportedFormatError naming all tensors that numpy files cannot hold; a warning names those of other dtypes."""
    refused = {name: why for name, tensor in tensors.items() if (why := _objection(tensor))}
    if refused:
        shown = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise UnsupportedFormatError(f"numpy files cannot hold these tensors, leave them out: {shown}")
    changed = [
        f"{name} ({type_name(tensor.data_type)} as {type_name(_WIDENED[tensor.data_type])})"
        if tensor.data_type in _WIDENED
        else f"{name} ({type_name(tensor.data_type)} as plain integers)"
        for name, tensor in tensors.items()
        if tensor.data_type in _WIDENED or tensor.data_type in _QUANTISED
    ]
    if changed:
        text = f"numpy has no such types, values are the same: {', '.join(changed)}"
        warn(text)


def _plain_dtype(tensor: LazyTensor) -> np.dtype[Any]:
    return CastTensor(tensor, _WIDENED.get(tensor.data_type, tensor.data_type)).dtype


def _objection(tensor: LazyTensor) -> str | None:
    if isinstance(tensor, OpaqueTensor):
        return f"values of type {type_name(tensor.data_type)}"
    if isinstance(tensor, StringTensor):
        if any(string.endswith(b"\0") for string in tensor.strings()):
            return "strings that end in a zero byte, which numpy drops"
        if _width(tensor) * tensor.size > _MAX_PADDED:
            return f"strings that padded to the longest one take over {_MAX_PADDED} bytes"
    return None


def _width(tensor: StringTensor) -> int:
    return max(1, int(tensor.lengths().max(initial=0)))


def _padded(strings: Iterable[bytes], width: int) -> Iterator[bytes]:
    held = bytearray()
    for string in strings:
        held += string.ljust(width, b"\0")
        if len(held) > _AT_ONCE:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def write_npy(tensor: LazyTensor, path: str, progress: Progress | None = None) -> None:
    """Write one tensor as a .npy file, whole or not at all."""
    check_tensors({tensor.name: tensor})
    with AtomicFile(path, progress) as file:
        file.write_all(npy_parts(tensor))


def write_directory(
    tensors: Mapping[str, LazyTensor], directory: str, progress: Progress | None = None, *, fresh: bool = False
) -> list[str]:
    """Write every tensor to a file of its own under `directory`, slashes of names as folders; gives the files.

    Each file is written whole or not at all, which takes time; with `fresh` the directory is one that takes its name
    later, and files are just written.
    Never writes outside: names such as `../x` or `/x` are escaped as in URLs, and a link that leads out of `directory`
    is a GraphRestoreError, as is a file where a folder is needed.
    """
    check_tensors(tensors)
    paths = {name: os.path.join(directory, file_name(name)) for name in tensors}
    for path in paths.values():
        _check_inside(path, directory)
    for name, path in paths.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if fresh:
            _write_plainly(tensors[name], path, progress)
        else:
            with AtomicFile(path, progress) as file:
                file.write_all(npy_parts(tensors[name]))
    return list(paths.values())


def _write_plainly(tensor: LazyTensor, path: str, progress: Progress | None) -> None:
    with open(path, "xb") as file:
        for part in npy_parts(tensor):
            for chunk in part.chunks() if isinstance(part, Extent) else (part,):
                file.write(chunk)
                if progress is not None:
                    progress(len(chunk))


def file_name(name: str) -> str:
    """Where a tensor lies in a directory: relative, never outside, and different for different names."""
    *folders, last = name.split("/")
    parts = [*map(_folder, folders), _escaped(last) + ".npy"]
    if any(len(os.fsencode(part)) > _MAX_NAME for part in parts):
        raise UnsupportedFormatError(f"the name of tensor {name!r} is too long for a file; rename it")
    return os.path.join(*parts)


def _escaped(part: str) -> str:
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in _bytes(match[0])), part)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _folder(part: str) -> str:
    """A folder's name: `.` and `..` would lead away, and `x.npy` is the file of a tensor `x`."""
    if part in ("", ".", ".."):
        return part.replace(".", "%2E") or "%"
    return _escaped(part) if not part.endswith(".npy") else _escaped(part)[:-4] + "%2Enpy"


def _check_inside(path: str, directory: str) -> None:
    root, folder = os.path.realpath(directory), os.path.realpath(os.path.dirname(path))
    if os.path.commonpath([root, folder]) != root:
        raise GraphRestoreError(f"{path} leads out of {directory} through a link; write to another directory")
