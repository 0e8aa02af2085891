"""What a file is that has a checkpoint's name and is none: the usual accidents of copying and downloading."""

from __future__ import annotations

import re

from graph_restore.storage.files import read_start

_STARTS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer; run `git lfs pull` to get the file itself"),
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
_TAR = (257, b"ustar")


def describe_file(path: str) -> str | None:
    """A few words for what the file is, with what to do; None when it is nothing known here."""
    start = read_start(path, 512)
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
    return next((text for magic, text in _STARTS if start.startswith(magic)), None)
