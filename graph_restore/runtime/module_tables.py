"""Lookup tables of a module: TensorFlow 2's own table objects, filled with what the old graph fills its tables with."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graph_restore.errors import FreezeError
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.session import Session
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.freeze import freeze
from graph_restore.transforms.tables import FROM_FILE, HASH_TABLES, MUTABLE_TABLES, fills, vocabulary_of


@dataclass(frozen=True)
class TableContent:
    """A table: its node, its dtypes (DataType numbers), keys and values as arrays, None for a mutable one that is
    empty; `value_shape` of a mutable one."""

    node: str
    key_dtype: int
    value_dtype: int
    content: tuple[Any, Any] | None
    mutable: bool = False
    value_shape: tuple[int, ...] = ()

    def to_config(self) -> dict[str, Any]:
        """As values that json takes."""
        pairs = zip(self.content or (), (self.key_dtype, self.value_dtype))
        tensors = [tensorflow().make_tensor_proto(array, dtype).SerializeToString() for array, dtype in pairs]
        return {**self.__dict__, "content": [base64.b64encode(data).decode() for data in tensors] or None}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TableContent:
        """What `to_config` gave."""
        tf = tensorflow()
        message = type(tf.make_tensor_proto(0))
        arrays = [tf.make_ndarray(message.FromString(base64.b64decode(data))) for data in config["content"] or ()]
        content = (arrays[0], arrays[1]) if arrays else None
        return cls(**{**config, "content": content, "value_shape": tuple(config["value_shape"])})


def table_contents(source: Model, modern: Graph, asset_dir: str | None) -> Iterator[TableContent]:
    """The tables of a modern graph, with what their nodes in the graph of `source` are filled with.

    Hash tables are static; mutable ones have what the checkpoint held for them. FreezeError for a hash table that no
    node of the graph fills, or whose file is not found.
    """
    draft = Draft(source.graph)
    users = draft.consumers()
    for name, node in modern.nodes.items():
        types = (node.attr["key_dtype"].type, node.attr["value_dtype"].type)
        if node.op in HASH_TABLES:
            fillers = [user.name for user, position in users[name] if position == 0 and fills(draft, user)]
            yield TableContent(name, *types, _content(source, draft, name, fillers, asset_dir))
        elif node.op in MUTABLE_TABLES:
            if node.op.startswith("MutableDenseHashTable"):
                raise FreezeError(
                    f"{name} ({node.op}) cannot be made anew: its empty key is a part of the graph; feed what is "
                    "looked up in it",
                    nodes={name: "a dense table"},
                )
            saved = source.tables.get(name)
            content = (saved[0].read(), saved[1].read()) if saved is not None else None
            sizes = node.attr["value_shape"].shape.dim if "value_shape" in node.attr else ()
            yield TableContent(name, *types, content, True, tuple(int(dim.size) for dim in sizes))


def _content(source: Model, draft: Draft, table: str, fillers: Sequence[str], asset_dir: str | None) -> tuple[Any, Any]:
    """(keys, values) as arrays."""
    if not fillers:
        raise FreezeError(
            f"{table} has no node that fills it; feed the tensors looked up in it",
            nodes={table: "a table without initializer"},
        )
    filler = draft.nodes[fillers[0]]
    if filler.op in FROM_FILE:
        keys, values = vocabulary_of(draft, source, table, filler.name, asset_dir)
        return keys.read(), values.read()
    inputs = list(filler.input[1:3])
    with Session(freeze(source, inputs, [])) as session:
        found = session.run(inputs)
        return found[0], found[1]


def make_table(content: TableContent) -> Any:
    """A tf.lookup table; each look-up of the graph brings its own default."""
    tf = tensorflow()
    key, value = tf.dtypes.as_dtype(content.key_dtype), tf.dtypes.as_dtype(content.value_dtype)
    default = tf.fill(content.value_shape, tf.constant("" if value == tf.string else 0, value))
    pair = [tf.constant(array, dtype) for array, dtype in zip(content.content or (), (key, value))]
    if not content.mutable:
        return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(*pair), default)
    table = tf.lookup.experimental.MutableHashTable(key, value, default)
    if pair:
        table.insert(*pair)
    return table
