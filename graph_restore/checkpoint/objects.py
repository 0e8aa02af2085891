"""The object graph of checkpoints that `tf.train.Checkpoint` and Keras write: which object owns which tensor.

Their keys are paths through objects, `model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE`, one of the many paths there may
be to an object; the graph itself is a string tensor (tensorflow/core/protobuf/trackable_object_graph.proto).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graph_restore.errors import FormatError
from graph_restore.tensors import LazyTensor, lazy

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "VARIABLE_VALUE"
_ATTRIBUTES = "/.ATTRIBUTES/"
VALUE_SUFFIX = _ATTRIBUTES + VALUE
_SLOT = "/.OPTIMIZER_SLOT/"


class ObjectGraph:
    """The objects of a checkpoint, for looking keys up by any path, by attribute, or by a variable's full name."""

    def __init__(self, message: Any) -> None:
        self._nodes = list(message.nodes)
        self._full_names: dict[str, list[str]] = {}
        for node in self._nodes:
            for attribute in node.attributes:
                if attribute.full_name:
                    self._full_names.setdefault(attribute.full_name, []).append(attribute.checkpoint_key)
        self._unique_names = {name: keys[0] for name, keys in self._full_names.items() if len(keys) == 1}

    def key_of(self, name: str) -> str | None:
        """The checkpoint key of `model/layer/kernel`, of `.../.ATTRIBUTES/NAME`, or of a full name `layer/kernel:0`.

        None when no object has that path and no variable, or more than one, that full name.
        """
        return self._by_path(name) or self._unique_names.get(name.removesuffix(":0"))

    def key_of_variable(self, name: str) -> str | None:
        """The checkpoint key of the graph's variable `name`: by full name; by path where no full name is like that.

        None when several variables have that full name.
        """
        if name in self._full_names:
            return self._unique_names.get(name)
        return self._by_path(name)

    def _by_path(self, name: str) -> str | None:
        path, found, attribute = name.partition(_ATTRIBUTES)
        node = self._at(path)
        attributes = node.attributes if node is not None else []
        keys = [item.checkpoint_key for item in attributes if item.name == (attribute if found else VALUE)]
        if not keys and not found and len(attributes) == 1:
            keys = [attributes[0].checkpoint_key]
        return str(keys[0]) if keys else None

    def keys_named(self, name: str) -> list[str]:
        """The checkpoint keys of all variables with that full name."""
        return list(self._full_names.get(name.removesuffix(":0"), ()))

    def full_names(self) -> dict[str, str]:
        """Full name to key, for every full name that is one variable's only."""
        return dict(self._unique_names)

    def children(self, path: str = "") -> list[str]:
        """The names of the objects that the object at `path` holds, in the order they are stored."""
        node = self._at(path)
        return [child.local_name for child in node.children] if node is not None else []

    def paths(self) -> Iterator[tuple[str, str]]:
        """(shortest path, key) of every tensor, those nearer the root first, slots last; parts are escaped as in keys.

        A slot that an optimizer keeps has a path of the form `<variable>/.OPTIMIZER_SLOT/<optimizer>/<slot>`.
        """
        places = self._places()
        for number, path in places.items():
            for attribute in self._nodes[number].attributes:
                own = path if attribute.name == VALUE else f"{path}{_ATTRIBUTES}{attribute.name}"
                yield own, str(attribute.checkpoint_key)

    def _places(self) -> dict[int, str]:
        """Node number to shortest path, of every object that the root holds."""
        places, waiting = {0: ""} if self._nodes else {}, [0] if self._nodes else []
        for number in waiting:
            for child in self._nodes[number].children:
                if child.node_id not in places and self._checked(child.node_id) is not None:
                    places[child.node_id] = f"{places[number]}/{_escaped(child.local_name)}".lstrip("/")
                    waiting.append(child.node_id)
        for number in waiting:
            for slot in self._nodes[number].slot_variables:
                owner, own = places.get(slot.original_variable_node_id), slot.slot_variable_node_id
                if owner is not None and self._checked(own) is not None:
                    optimizer = f"{places[number]}/".lstrip("/")
                    places.setdefault(own, f"{owner}{_SLOT}{optimizer}{_escaped(slot.slot_name)}")
        return places

    def _at(self, path: str) -> Any:
        """The object at a path, its parts as attributes are named or as keys escape them; None if there is none."""
        variable, is_slot, rest = path.partition(_SLOT)
        number = self._number(variable)
        if is_slot and number is not None:
            optimizer, _, slot = rest.rpartition("/")
            number = self._slot(number, self._number(optimizer), slot)
        return self._nodes[number] if number is not None else None

    def _slot(self, variable: int, optimizer: int | None, name: str) -> int | None:
        slots = self._nodes[optimizer].slot_variables if optimizer is not None else ()
        for slot in slots:
            if slot.original_variable_node_id == variable and slot.slot_name in (name, _unescaped(name)):
                return self._checked(slot.slot_variable_node_id)
        return None

    def _number(self, path: str) -> int | None:
        number = self._checked(0)
        for part in path.split("/") if path else ():
            if number is None:
                return None
            children = {child.local_name: child.node_id for child in self._nodes[number].children}
            number = self._checked(children.get(part, children.get(_unescaped(part), -1)))
        return number

    def _checked(self, number: int) -> int | None:
        return number if 0 <= number < len(self._nodes) else None


def object_graph(tensors: Mapping[str, LazyTensor]) -> ObjectGraph | None:
    """The object graph among the tensors of a checkpoint, None when it is not object-based; FormatError if damaged."""
    return ObjectGraph(_message(tensors[OBJECT_GRAPH_KEY])) if OBJECT_GRAPH_KEY in tensors else None


def with_keys(graph: LazyTensor, keys: Mapping[str, str]) -> tuple[LazyTensor, set[str]]:
    """The tensor of an object graph for a checkpoint of other keys, and those of them that it names.

    `keys`: old key to new one. What lies under no key any more is taken out of its object, and an optimizer's slot
    without values out of its optimizer, so that tf.train.Checkpoint looks for none of these. FormatError if damaged.
    """
    message = _message(graph)
    for node in message.nodes:
        kept = [attribute for attribute in node.attributes if attribute.checkpoint_key in keys]
        for attribute in kept:
            attribute.checkpoint_key = keys[attribute.checkpoint_key]
        _replace(node.attributes, kept)
    empty = {number for number, node in enumerate(message.nodes) if not node.attributes}
    for node in message.nodes:
        _replace(node.slot_variables, [one for one in node.slot_variables if one.slot_variable_node_id not in empty])
    named = {str(attribute.checkpoint_key) for node in message.nodes for attribute in node.attributes}
    return lazy(graph.name, message.SerializeToString()), named


def _message(graph: LazyTensor) -> Any:
    from google.protobuf.message import DecodeError  # of most checkpoints nothing is asked that needs protobuf

    from graph_restore.protos import TrackableObjectGraph

    data = graph.read().ravel()
    try:
        return TrackableObjectGraph.FromString(data[0]) if data.size else TrackableObjectGraph()
    except (DecodeError, TypeError):
        raise FormatError("the checkpoint's object graph is damaged", found=graph.name) from None


def _replace(repeated: Any, items: list[Any]) -> None:
    """The items of a repeated field, exchanged."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del repeated[:]
    repeated.extend(copies)


def _unescaped(part: str) -> str:
    """A key's part as the object names it: `.S` stands for a slash and `..` for a dot."""
    return part.replace("..", "\0").replace(".S", "/").replace("\0", ".")


def _escaped(name: str) -> str:
    return name.replace(".", "..").replace("/", ".S")
