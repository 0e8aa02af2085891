"""Message classes of TensorFlow's file formats, from a descriptor pool of our own.

    from graph_restore.protos import GraphDef, NodeDef

Every message that the .proto files of the project's protos/ folder declare at top level is an attribute of this module
under its own name, made on first use; nested ones are attributes of their parents (`FunctionDef.Node`).

Generated modules would put TensorFlow's names into protobuf's default pool, where files of TensorFlow or TensorBoard
already are or may want to go later; the second one to come fails. A private pool meets neither. The price: the classes
are not TensorFlow's, so messages cross over as bytes: `tf.compat.v1.GraphDef.FromString(graph.SerializeToString())`.

Text format with an `Any` inside needs the pool too: `text_format.Parse(text, message, descriptor_pool=POOL)`.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

POOL = DescriptorPool()


def __getattr__(name: str) -> Any:
    """The message class of that name. Raises AttributeError when no file declares one."""
    if name not in _DESCRIPTORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: no message of protos/*.proto")
    globals()[name] = message_class = _message_class(_DESCRIPTORS[name])
    return message_class


def __dir__() -> list[str]:
    return sorted({*globals(), *_DESCRIPTORS})


def _message_class(descriptor: Any) -> Any:
    message_class = GetMessageClass(descriptor)
    message_class.__module__ = __name__  # where pickle and readers of a repr look for it
    for nested in descriptor.nested_types:
        if not hasattr(message_class, nested.name):  # protobuf in pure Python leaves this to generated modules
            setattr(message_class, nested.name, _message_class(nested))
    return message_class


def _load() -> dict[str, Any]:
    """Fill the pool from protos.binpb. Returns the descriptors of our top-level messages by name."""
    with open(os.path.join(os.path.dirname(__file__), "protos.binpb"), "rb") as stream:
        data = stream.read()
    files = [POOL.AddSerializedFile(file) for file in _split_descriptor_set(data)]
    ours = [file for file in files if not file.package.startswith("google.")]
    return {name: descriptor for file in ours for name, descriptor in file.message_types_by_name.items()}


def _split_descriptor_set(data: bytes) -> Iterator[bytes]:
    """The serialized files of a FileDescriptorSet; by hand, as importing descriptor_pb2 takes longer than the rest."""
    at = 0
    while at < len(data):
        at += 1  # the tag of field 1, 0x0a
        length = shift = 0
        while data[at] >= 0x80:
            length |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
        length |= data[at] << shift
        yield data[at + 1 : at + 1 + length]
        at += 1 + length


_DESCRIPTORS = _load()
