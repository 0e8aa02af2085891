"""Protobuf text format (.pbtxt), in and out."""

from __future__ import annotations

from typing import Any

from google.protobuf import text_format

from graph_restore import protos
from graph_restore.errors import FormatError
from graph_restore.storage.source import Source


def parse_text(source: Source, kind: str) -> Any:
    """The message of type `kind` that a text source spells; FormatError with protobuf's line and column."""
    try:
        text = source.pread(0, source.size).decode("utf-8").lstrip("\ufeff")
        return text_format.Parse(text, getattr(protos, kind)(), descriptor_pool=protos.POOL)
    except UnicodeDecodeError as error:
        raise FormatError("the text is not UTF-8", path=source.name, offset=error.start) from None
    except (text_format.ParseError, RecursionError) as error:
        raise FormatError(f"not the protobuf text of a {kind}: {error}", path=source.name) from None


def print_text(message: Any) -> str:
    """A message as protobuf text."""
    return str(text_format.MessageToString(message, descriptor_pool=protos.POOL))
