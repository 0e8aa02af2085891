"""The object graph of checkpoints that `tf.train.Checkpoint` and Keras write: which object owns which tensor.

Their keys are paths through objects, `model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE`, one of the many paths there may
be to an object; the graph itself is a string tensor (tensorflow/core/protobuf/trackable_object_graph.proto).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from graph_restore.errors import FormatError
from graph_restore.protos import TrackableObjectGraph
from graph_restore.tensors import LazyTensor

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "VARIABLE_VALUE"
_ATTRIBUTES = "/.ATTRIBUTES/"


class ObjectGraph:
    """The objects of a checkpoint, for looking keys up by any path, by attribute, or by a variable's full name."""

    def __init__(self, message: Any) -> None:
        self._nodes = list(message.nodes)
        self._full_names: dict[str, list[str]] = {}
        for node in self._nodes:
            for attribute in node.attributes:
                if attribute.full_name:
                    self._full_names.setdefault(attribute.full_name, []).append(attribute.checkpoint_key)

    def key_of(self, name: str) -> str | None:
        """The checkpoint key of `model/layer/kernel`, of `.../.ATTRIBUTES/NAME`, or of a full name `layer/kernel:0`.

        None when no object has that path and no variable, or more than one, that full name.
        """
        path, found, attribute = name.partition(_ATTRIBUTES)
        node = self._at(path)
        if node is not None and node.attributes:
            wanted = attribute if found else VALUE
            keys = [item.checkpoint_key for item in node.attributes if item.name == wanted]
            if not keys and not found and len(node.attributes) == 1:
                keys = [node.attributes[0].checkpoint_key]
            if keys:
                return str(keys[0])
        return self.full_names().get(name.removesuffix(":0"))

    def full_names(self) -> dict[str, str]:
        """Full name to key, for every full name that is one variable's only."""
        return {name: keys[0] for name, keys in self._full_names.items() if len(keys) == 1}

    def children(self, path: str = "") -> list[str]:
        """The names of the objects that the object at `path` holds, in the order they are stored."""
        node = self._at(path)
        return [child.local_name for child in node.children] if node is not None else []

    def paths(self) -> Iterator[tuple[str, str]]:
        """(shortest path, key) of every tensor, objects nearer the root first."""
        waiting, seen = [(0, "")], {0}
        for number, path in waiting:
            if number >= len(self._nodes):
                continue
            for attribute in self._nodes[number].attributes:
                yield (
                    path if attribute.name == VALUE else f"{path}{_ATTRIBUTES}{attribute.name}",
                    (attribute.checkpoint_key),
                )
            for child in self._nodes[number].children:
                if child.node_id not in seen:
                    seen.add(child.node_id)
                    waiting.append((child.node_id, f"{path}/{child.local_name}".lstrip("/")))

    def _at(self, path: str) -> Any:
        """The object at a path, its parts as attributes are named or as keys escape them; None if there is none."""
        number = 0
        for part in path.split("/") if path else ():
            if number >= len(self._nodes):
                return None
            children = {child.local_name: child.node_id for child in self._nodes[number].children}
            following = children.get(part, children.get(_unescaped(part)))
            if following is None:
                return None
            number = following
        return self._nodes[number] if number < len(self._nodes) else None


def object_graph(tensors: Mapping[str, LazyTensor]) -> ObjectGraph | None:
    """The object graph among the tensors of a checkpoint, None when it is not object-based; FormatError if damaged."""
    if OBJECT_GRAPH_KEY not in tensors:
        return None
    data = tensors[OBJECT_GRAPH_KEY].read().ravel()
    try:
        return ObjectGraph(TrackableObjectGraph.FromString(data[0]) if data.size else TrackableObjectGraph())
    except (DecodeError, TypeError):
        raise FormatError("the checkpoint's object graph is damaged", found=OBJECT_GRAPH_KEY) from None


def _unescaped(part: str) -> str:
    """A key's part as the object names it: `.S` stands for a slash and `..` for a dot."""
    return part.replace("..", "\0").replace(".S", "/").replace("\0", ".")
