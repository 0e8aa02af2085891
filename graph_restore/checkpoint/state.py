"""The text file named `checkpoint` in a run directory: which checkpoints a Saver wrote there, and the newest.

    model_checkpoint_path: "model.ckpt-1000"
    all_model_checkpoint_paths: "model.ckpt-1000"       (oldest first)

A CheckpointState in protobuf's text format; relative paths start at the file's directory. Written by
tensorflow/python/checkpoint/checkpoint_management.py. Old Savers wrote absolute paths, which die when a run is moved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from graph_restore.errors import FormatError
from graph_restore.storage.files import is_file, is_local, read_start
from graph_restore.storage.output import AtomicFile, local_path

STATE_NAME = "checkpoint"
_MAX_SIZE = 16 << 20
_FIELD = re.compile(rb"""(\w+)\s*:\s*((?:"(?:[^"\\\n]|\\.)*"\s*|'(?:[^'\\\n]|\\.)*'\s*)+|[^\s"']+)""")
_STRING = re.compile(rb""""((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)'""")
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|.)", re.DOTALL)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://[^/]*")
_PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


@dataclass(frozen=True)
class CheckpointState:
    """The paths as they are recorded: the newest checkpoint, and all of them, oldest first."""

    newest: str
    all: tuple[str, ...]


def is_state_file(path: str) -> bool:
    """Whether the file at `path` looks like a state file."""
    if not is_file(path):
        return False
    start = read_start(path, 4096)
    fields = rb"\s*(?:#[^\n]*\n\s*)*(?:all_)?model_checkpoint_(?:path|timestamp)s?\s*:"
    return re.match(fields, start) is not None


def read_state(path: str) -> CheckpointState:
    """The paths recorded in a state file; FormatError when it names no newest checkpoint."""
    data = read_start(path, _MAX_SIZE)
    newest, recorded = "", []
    for line in data.splitlines():
        for name, value in _FIELD.findall(line if not line.lstrip().startswith(b"#") else b""):
            if name == b"model_checkpoint_path":
                newest = _text(value)
            elif name == b"all_model_checkpoint_paths":
                recorded.append(_text(value))
    if not newest:
        raise FormatError(
            "a checkpoint state file that names no checkpoint", path=path, expected='model_checkpoint_path: "..."'
        )
    return CheckpointState(newest, tuple(recorded))


def write_state(
    directory: str | os.PathLike[str],
    prefix: str | os.PathLike[str],
    all_prefixes: Iterable[str | os.PathLike[str]] | None = None,
) -> str:
    """Writes the state file of `directory`, whole or not at all, and gives its path.

    `prefix`: the newest checkpoint; `all_prefixes`: all that are kept, oldest first, the newest among them or not.
    Paths are recorded relative to `directory`, so that it can be moved; relative ones given are, as everywhere,
    relative to the working directory.
    """
    newest = _relative(prefix, directory)
    kept = dict.fromkeys(_relative(path, directory) for path in all_prefixes or ())
    kept.pop(newest, None)
    lines = [b"model_checkpoint_path: " + _quoted(newest)]
    lines += [b"all_model_checkpoint_paths: " + _quoted(path) for path in (*kept, newest)]
    target = os.path.join(local_path(directory), STATE_NAME)
    with AtomicFile(target) as file:
        file.write(b"".join(line + b"\n" for line in lines))
    return target


def places(recorded: str, directory: str) -> Iterator[str]:
    """Where a recorded path may lie now: as recorded, then beside the state file, then ever deeper below it."""
    *folders, base = re.split(r"[/\\]", recorded)  # the base name may be empty: `export/` stands for export/.index
    parts = [*(part for part in folders if part not in ("", ".")), base]
    first = recorded if os.path.isabs(recorded) or _URL.match(recorded) else os.path.join(directory, recorded)
    if _store(first) == _store(directory):  # a file that came from elsewhere sends nobody to other stores
        yield first
    for depth in range(1, len(parts) + 1):
        if ".." not in parts[-depth:]:
            yield os.path.join(directory, *parts[-depth:])


def _store(path: str) -> str:
    """The store of a path, as `gs://bucket`; "" for this disk, and for an archive on it the word for that."""
    found = _URL.match(path)
    return found[0] if found else "" if is_local(path) else "archive"


def _relative(path: str | os.PathLike[str], directory: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    relative = os.path.relpath(os.path.abspath(name), os.path.abspath(directory))
    return relative if os.path.basename(name) else os.path.join(relative, "")  # `export/` stands for export/.index


def _quoted(text: str) -> bytes:
    """A string of protobuf's text format: printable ASCII as it is, other bytes in octal."""
    plain = {byte: bytes([byte]) for byte in range(0x20, 0x7F)} | {0x22: b'\\"', 0x5C: b"\\\\"}
    codes = (plain.get(byte, b"\\%03o" % byte) for byte in text.encode("utf-8", "surrogateescape"))
    return b'"' + b"".join(codes) + b'"'


def _text(value: bytes) -> str:
    pieces = [one or other for one, other in _STRING.findall(value)]
    return b"".join(_ESCAPE.sub(_unescape, piece) for piece in pieces).decode("utf-8", "surrogateescape")


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[:1] in b"01234567":
        return bytes([int(code, 8) & 0xFF])
    if code[:1] in b"xX" and len(code) > 1:
        return bytes([int(code[1:], 16)])
    return _PLAIN.get(code, code)
