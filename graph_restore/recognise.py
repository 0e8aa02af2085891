"""What a file is, told by its content. Suffixes are never looked at: half of all revived models carry a wrong one."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from graph_restore.errors import FormatError, UnsupportedFormatError
from graph_restore.storage.coding import BYTES, VARINT, Field, Window
from graph_restore.storage.crc32c import masked
from graph_restore.storage.source import Source

_TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_MEMMAPPED_ROOT = b"memmapped_package://"
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|\?xml)", re.IGNORECASE | re.DOTALL)

_DATA_SHARD = re.compile(r"\.data-\d{5}-of-\d{5}$")  # a shard is raw values: its content says nothing

_WEIGHTS = "{}, which holds values and no graph; `graph-restore checkpoint ls` lists them"
_PICKLE = "a Python pickle, as PyTorch and scikit-learn save models; it holds no graph of TensorFlow"
_FOREIGN = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file; run `git lfs pull` to get it"),
    (
        0,
        b"\x1f\x8b",
        "gzip-compressed; unpack it first (`gunzip`), or in a .tar.gz add the name inside: a.tar.gz/graph.pb",
    ),
    (0, b"BZh", "bzip2-compressed; unpack it first"),
    (0, b"\xfd7zXZ\x00", "xz-compressed; unpack it first"),
    (
        0,
        b"PK\x03\x04",
        "a zip archive (.keras and PyTorch files are such); to a .zip add the name inside: a.zip/graph.pb",
    ),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves models; load it with tf.keras.models.load_model"),
    (4, b"TFL3", "a TFLite model; it holds no GraphDef: look for the model it was converted from"),
    (0, b"\x93NUMPY", "a numpy array file, not a model"),
    (257, b"ustar", "a tar archive; unpack it first, or add the name inside: a.tar/graph.pb"),
    (0, b"\x7fELF", "a program or shared library, not a model"),
    (8, b'{"', _WEIGHTS.format("a .safetensors file")),
    (0, b"\x80\x02", _PICKLE),
    (0, b"\x80\x03", _PICKLE),
    (0, b"\x80\x04", _PICKLE),
)

_TEXT_KINDS = {
    "node": "GraphDef", "library": "GraphDef", "versions": "GraphDef",
    "meta_info_def": "MetaGraphDef", "graph_def": "MetaGraphDef", "saver_def": "MetaGraphDef",
    "collection_def": "MetaGraphDef", "signature_def": "MetaGraphDef", "asset_file_def": "MetaGraphDef",
    "saved_model_schema_version": "SavedModel", "meta_graphs": "SavedModel",
    "model_checkpoint_path": "CheckpointState", "all_model_checkpoint_paths": "CheckpointState",
}  # fmt: skip
_TEXT_FIELD = re.compile(r"\s*(?:#[^\n]*\n\s*)*([a-z_]+)\s*(?:\{|:)")


@dataclass(frozen=True)
class Kind:
    """`message`: "GraphDef", "MetaGraphDef", "SavedModel", "Event" (a file of events), "Memmapped" (a package),
    "Checkpoint" or "CheckpointState"; `text`: whether it is in protobuf text format."""

    message: str
    text: bool = False


def recognise(source: Source) -> Kind:
    """What `source` holds; UnsupportedFormatError that names what it is when it is no model, with what to do."""
    start = source.pread(0, min(source.size, 4096))
    foreign = describe_foreign(start)
    if foreign is not None:
        raise UnsupportedFormatError(f"this is {foreign}", path=source.name)
    if source.size >= 48 and source.pread(source.size - 8, 8) == _TABLE_MAGIC:
        return Kind("Checkpoint")
    if _is_record(source, start):
        return Kind("Event")
    if _is_memmapped(source):
        return Kind("Memmapped")
    message = _binary_kind(source)
    if message == "ONNX":
        raise UnsupportedFormatError(
            "this is an ONNX model; it holds no GraphDef: look for the model it was converted from", path=source.name
        )
    if message is not None:
        return Kind(message)
    return _text_kind(source, start)


def describe_foreign(start: bytes) -> str | None:
    """What a file that begins with `start` is and what to do, when it is one of the things mistaken for models."""
    if not start:
        return "an empty file; copy or download it again"
    if _HTML.match(start):
        return "an HTML page, left by a download that went wrong; download the file itself"
    if start.startswith(b"PK\x03\x04") and start[30 : 30 + int.from_bytes(start[26:28], "little")].endswith(b".npy"):
        return _WEIGHTS.format("an .npz file")
    return next((text for at, magic, text in _FOREIGN if start[at : at + len(magic)] == magic), None)


def _is_record(source: Source, start: bytes) -> bool:
    if len(start) < 12:
        return False
    (length,) = struct.unpack_from("<Q", start)
    (crc,) = struct.unpack_from("<I", start, 8)
    return bool(masked(start[:8]) == crc) and length < source.size


def _is_memmapped(source: Source) -> bool:
    """The last 8 bytes point at a directory message that names its regions."""
    if source.size < 16:
        return False
    (offset,) = struct.unpack("<Q", source.pread(source.size - 8, 8))
    return bool(offset < source.size - 8) and _MEMMAPPED_ROOT in source.pread(
        offset, min(source.size - 8 - offset, 4096)
    )


def _binary_kind(source: Source) -> str | None:
    """The message whose fields the bytes are, from the first levels of the wire format; None if of none."""
    window = Window(source)
    try:
        fields = list(window.fields(0, source.size))
    except FormatError:
        return None
    types = {field.number: field.wire_type for field in fields}
    for message, test in _TESTS.items():
        if test(window, fields, types):
            return message
    return None


def _first(fields: list[Field], number: int) -> Field | None:
    return next((field for field in fields if field.number == number), None)


def _is_saved_model(window: Window, fields: list[Field], types: dict[int, int]) -> bool:
    graph = _first(fields, 2)
    if types.get(1, VARINT) != VARINT or not set(types) <= {1, 2} or graph is None or not _is_message(window, graph):
        return False
    return 1 in types or not _is_graph_field(window, graph)  # else a MetaGraphDef that holds its graph alone


def _is_meta_graph(window: Window, fields: list[Field], types: dict[int, int]) -> bool:
    graph = _first(fields, 2)
    if not set(types) <= set(range(1, 9)) or set(types.values()) != {BYTES}:
        return False
    return graph is not None and _is_graph_field(window, graph)


def _is_graph(window: Window, fields: list[Field], types: dict[int, int]) -> bool:
    if not set(types) <= {1, 2, 3, 4, 5} or types.get(1) != BYTES:
        return types == {4: BYTES} or types == {2: BYTES, 4: BYTES}  # a graph without nodes
    node = _first(fields, 1)
    return node is not None and _is_node(window, node)


def _is_onnx(window: Window, fields: list[Field], types: dict[int, int]) -> bool:
    return types.get(1) == VARINT and types.get(7) == BYTES and set(types) <= {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}


# a GraphDef is asked for before a MetaGraphDef, whose second field an empty function library could be
_TESTS = {"SavedModel": _is_saved_model, "GraphDef": _is_graph, "MetaGraphDef": _is_meta_graph, "ONNX": _is_onnx}


def _is_message(window: Window, field: Field) -> bool:
    try:
        return all(True for _ in window.fields(field.offset, field.end))
    except FormatError:
        return False


def _is_graph_field(window: Window, field: Field) -> bool:
    """Whether a field's content is a GraphDef with nodes; in a GraphDef, field 2 is a library of functions."""
    try:
        for inner in window.fields(field.offset, field.end):
            if inner.number == 1:
                return inner.wire_type == BYTES and _is_node(window, inner)
    except FormatError:
        return False
    return True


def _is_node(window: Window, field: Field) -> bool:
    """Whether a field's content is a NodeDef: a name and an op, both short text. A FunctionDef has messages there."""
    try:
        inner = {item.number: item for item in window.fields(field.offset, field.end)}
    except FormatError:
        return False
    name, op = inner.get(1), inner.get(2)
    if name is None or op is None or name.wire_type != BYTES or op.wire_type != BYTES or not 0 < op.length <= 500:
        return False
    return window.bytes_at(op.offset, op.length).replace(b">", b"").replace(b"/", b"").isascii() and all(
        byte > 31 for byte in window.bytes_at(op.offset, op.length)
    )


def _text_kind(source: Source, start: bytes) -> Kind:
    try:
        text = start.decode("utf-8", "strict" if len(start) < 4096 else "ignore").lstrip("\ufeff")
    except UnicodeDecodeError:
        text = ""
    field = _TEXT_FIELD.match(text)
    if field is not None and field.group(1) in _TEXT_KINDS:
        return Kind(_TEXT_KINDS[field.group(1)], text=True)
    readable = sum(character.isprintable() or character.isspace() for character in text)
    printable = bool(text) and readable > 0.95 * len(text)
    if _DATA_SHARD.search(source.name):
        return Kind("Checkpoint")
    raise FormatError(
        "this is plain text, but no protobuf text of a model; pass a .pb, .pbtxt, .meta, event file or directory"
        if printable
        else "this is no GraphDef, MetaGraphDef, SavedModel or event file; it may be cut short or damaged",
        path=source.name,
        expected="a model",
        found=repr(text[:40]) if printable else f"bytes {start[:16].hex(' ')}",
    )
