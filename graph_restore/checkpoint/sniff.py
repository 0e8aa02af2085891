"""What a file is that stands where a checkpoint's should: the usual accidents of copying, downloading and mixing up."""

from __future__ import annotations

import re

from graph_restore.errors import CorruptionError, FormatError
from graph_restore.recognise import recognise
from graph_restore.storage.files import is_local, open_source, read_start
from graph_restore.storage.source import Source

_POINTER = b"version https://git-lfs.github.com/spec/"
_STARTS = (
    (_POINTER, "a Git LFS pointer, not the file; run `git lfs pull` to get the file itself"),
    (b"\x1f\x8b", "a gzip archive; unpack it, or if it is a .tar.gz, add the name inside: a.tar.gz/model.ckpt"),
    (b"PK\x03\x04", "a zip archive (a .keras or PyTorch file?); unpack it, or add the name inside: a.zip/model.ckpt"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves weights; it is no TensorFlow checkpoint"),
    (b"\x93NUMPY", "a numpy array file"),
    (b"\x80\x02", "a Python pickle; it is no TensorFlow checkpoint"),
    (b"\x80\x03", "a Python pickle; it is no TensorFlow checkpoint"),
    (b"\x80\x04", "a Python pickle; it is no TensorFlow checkpoint"),
)
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|\?xml)", re.IGNORECASE | re.DOTALL)
_READABLE = re.compile(rb"[\t\n\r\x20-\x7e]+")
_TAR = (257, b"ustar")
_START = 512
_TEXT = 1 << 20  # bytes; what stands for a file is no larger
_MODELS = {
    "GraphDef": "a GraphDef",
    "MetaGraphDef": "a MetaGraphDef",
    "SavedModel": "a SavedModel",
    "Event": "an event file",
    "Memmapped": "a memory-mapped package",
}


def describe_file(path: str) -> str | None:
    """A few words for what the file is, with what to do; None when it is nothing known here."""
    start = read_start(path, _START)
    if not start:
        return "an empty file"
    if _HTML.match(start):
        return "an HTML page, left by a download that failed; download the file itself"
    if start[_TAR[0] :].startswith(_TAR[1]):
        return "a tar archive; unpack it, or add the name inside: a.tar/model.ckpt"
    if re.match(rb"\s*model_checkpoint_path\s*:", start):
        return "a `checkpoint` state file"
    if len(start) < 32 and start.rstrip().isdigit():
        return "a text file with a number"
    known = next((text for magic, text in _STARTS if start.startswith(magic)), None) or _describe_model(path)
    return known or (f"a text file that begins {start[:40]!r}" if _READABLE.fullmatch(start) else None)


def refuse_stand_in(source: Source) -> None:
    """CorruptionError when a data file on this disk is text that stands for it; values do not look like that by chance.

    In a store that would be a request for each file, before any value is asked for.
    """
    looks = source.size < _TEXT and is_local(source.name)
    start = source.pread(0, min(source.size, _START)) if looks else b""
    if start.startswith(_POINTER) or _HTML.match(start):
        raise CorruptionError(f"this is {describe_file(source.name)}", path=source.name)


def _describe_model(path: str) -> str | None:
    """What a model is, and where it goes instead."""
    try:
        found = recognise(open_source(path))
    except FormatError as error:
        return "an ONNX model; it is no TensorFlow checkpoint" if "ONNX" in str(error) else None
    if found.message not in _MODELS:
        return None
    what = _MODELS[found.message] + (" in text form" if found.text else "")
    return (
        f"{what}, which is a model; a model goes first, as in restore(model, checkpoint), or is read alone, by "
        "load(path); as the checkpoint give the prefix of its values, one of their files, or their directory"
    )
