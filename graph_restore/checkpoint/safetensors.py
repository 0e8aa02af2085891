"""safetensors files: a header in JSON, then the contents.

    file     := uint64 length of the header (little endian), header, contents
    header   := { name: { "dtype": "F32", "shape": [3, 2], "data_offsets": [begin, end] }, "__metadata__": { ... } }

Offsets count from the first content, which lie back to back without a gap. The format is told in the README of the
safetensors project. Contents are little endian and row-major, so they are copied from and to checkpoints as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from graph_restore.dtypes import DataType, item_size, type_name
from graph_restore.errors import CorruptionError, FormatError, UnsupportedFormatError, warn
from graph_restore.storage import files
from graph_restore.storage.extent import Extent
from graph_restore.storage.output import AtomicFile, Progress
from graph_restore.storage.source import Source
from graph_restore.tensors import ContentTensor, LazyTensor

_TYPES = {
    DataType.DT_BOOL: "BOOL",
    DataType.DT_UINT8: "U8",
    DataType.DT_INT8: "I8",
    DataType.DT_FLOAT8_E5M2: "F8_E5M2",
    DataType.DT_FLOAT8_E4M3FN: "F8_E4M3",
    DataType.DT_FLOAT8_E5M2FNUZ: "F8_E5M2FNUZ",
    DataType.DT_FLOAT8_E4M3FNUZ: "F8_E4M3FNUZ",
    DataType.DT_INT16: "I16",
    DataType.DT_UINT16: "U16",
    DataType.DT_HALF: "F16",
    DataType.DT_BFLOAT16: "BF16",
    DataType.DT_INT32: "I32",
    DataType.DT_UINT32: "U32",
    DataType.DT_FLOAT: "F32",
    DataType.DT_COMPLEX64: "C64",
    DataType.DT_DOUBLE: "F64",
    DataType.DT_INT64: "I64",
    DataType.DT_UINT64: "U64",
}
_KINDS = {name: kind for kind, name in _TYPES.items()}
_PLAIN = {
    DataType.DT_QINT8: DataType.DT_INT8,
    DataType.DT_QUINT8: DataType.DT_UINT8,
    DataType.DT_QINT16: DataType.DT_INT16,
    DataType.DT_QUINT16: DataType.DT_UINT16,
    DataType.DT_QINT32: DataType.DT_INT32,
}
_METADATA = "__metadata__"
_MAX_HEADER = 100_000_000  # the limit of the format's own readers


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, LazyTensor]:
    """The tensors of a safetensors file by name, values left in the file.

    The header is checked whole: FormatError unless its tensors cover the contents exactly.
    """
    source = files.open_source(files.plain_path(path))
    length = int.from_bytes(source.pread(0, 8), "little")
    if length > min(_MAX_HEADER, source.size - 8):
        raise FormatError(
            "no safetensors file: its header would be longer than the file", path=source.name, offset=0,
            expected=f"at most {min(_MAX_HEADER, source.size - 8)}", found=length,
        )  # fmt: skip
    start = 8 + length
    entries = {
        name: _entry(name, entry, source)
        for name, entry in _parsed(source.pread(8, length), source.name).items()
        if name != _METADATA
    }
    _check_cover(entries, source.size - start, source.name)
    return {
        name: ContentTensor(name, kind, shape, [Extent(source, start + begin, end - begin)] if end > begin else [])
        for name, (kind, shape, begin, end) in entries.items()
    }


_Entry = tuple[DataType, tuple[int, ...], int, int]


def _parsed(header: bytes, path: str) -> dict[str, Any]:
    try:
        found = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no safetensors file: its header is no JSON ({error})", path=path, offset=8) from None
    if not isinstance(found, dict):
        raise FormatError("no safetensors file: its header is no JSON object", path=path, offset=8)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _entry(name: str, entry: Any, source: Source) -> _Entry:
    fields = entry if isinstance(entry, dict) else {}
    kind, shape, offsets = fields.get("dtype"), _counts(fields.get("shape")), _counts(fields.get("data_offsets"))
    if not isinstance(kind, str) or shape is None or offsets is None or len(offsets) != 2:
        raise FormatError(
            f"the header's entry of tensor {name!r} is none", path=source.name, offset=8,
            expected="dtype, shape and two data_offsets", found=str(entry)[:200],
        )  # fmt: skip
    if kind not in _KINDS:
        raise UnsupportedFormatError(f"tensor {name!r} is of a type TensorFlow has none for: {kind}", path=source.name)
    return _KINDS[kind], tuple(shape), offsets[0], offsets[1]


def _counts(value: Any) -> list[int] | None:
    """`value` when it is a list of sizes."""
    return value if isinstance(value, list) and all(type(item) is int and item >= 0 for item in value) else None


def _check_cover(entries: Mapping[str, _Entry], size: int, path: str) -> None:
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position or end < begin:
            raise CorruptionError(
                f"tensor {name!r} does not follow the one before", path=path, expected=position, found=[begin, end]
            )
        position = end
    if position != size:
        raise CorruptionError("the tensors do not cover the file", path=path, expected=size, found=position)


def write_safetensors(tensors: Mapping[str, LazyTensor], path: str, progress: Progress | None = None) -> None:
    """Write tensors as a safetensors file, wide types first so that all are aligned, then by name.

    UnsupportedFormatError naming all tensors that the format cannot hold: strings, complex128, 4-bit integers.
    """
    _check_tensors(tensors)
    kinds = {name: _PLAIN.get(tensor.data_type, tensor.data_type) for name, tensor in tensors.items()}
    order = sorted(tensors, key=lambda name: (-item_size(tensors[name].data_type), name))
    header: dict[str, Any] = {}
    position = 0
    for name in order:
        tensor = tensors[name]
        offsets = [position, position + tensor.nbytes]
        header[name] = {"dtype": _TYPES[kinds[name]], "shape": list(tensor.shape), "data_offsets": offsets}
        position = offsets[1]
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with AtomicFile(path, progress) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write_all(tensors[name].parts())
        if file.size != 8 + len(text) + position:
            raise CorruptionError("tensors have other lengths than their shapes ask for", expected=position)


def _check_tensors(tensors: Mapping[str, LazyTensor]) -> None:
    refused = [
        f"{name!r} ({type_name(tensor.data_type)})"
        for name, tensor in tensors.items()
        if _PLAIN.get(tensor.data_type, tensor.data_type) not in _TYPES
        or name == _METADATA
        or any("\ud800" <= one <= "\udfff" for one in name)
    ]
    if refused:
        raise UnsupportedFormatError(
            f"safetensors files cannot hold these tensors, leave them out or rename them: {', '.join(refused)}"
        )
    quantised = {name: tensor for name, tensor in tensors.items() if tensor.data_type in _PLAIN}
    if quantised:
        plain = [f"{name} ({type_name(tensor.data_type)})" for name, tensor in quantised.items()]
        text = f"safetensors has no quantised types, these become plain integers: {', '.join(plain)}"
        warn(text)
