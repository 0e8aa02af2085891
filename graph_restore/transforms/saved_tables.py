"""Mutable tables whose content the checkpoint holds: a node that puts it into the table before anything is looked up.

1. Keys and values become Consts, and a LookupTableImport of them, the op a saver restores them with.
2. A dense table is saved as its buckets (tensorflow/core/kernels/lookup_table_op.cc), empty ones and deleted ones among
   them and each key of rank 1, which today's import refuses where it sees the rank: only the entries are kept, in the
   shapes the table takes, and inserted.
3. Before TensorFlow 1.14 a dense table had no deleted_key, which it must have today: it is given one that is no key.
   Where it is a reference (before 1.1), as which it cannot have one, it becomes a resource, and so do its users.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from graph_restore.arrays import np
from graph_restore.dtypes import DataType
from graph_restore.errors import FreezeError
from graph_restore.graph import tensor_attr
from graph_restore.model import Model
from graph_restore.protos import NodeDef
from graph_restore.tensors import LazyTensor, lazy
from graph_restore.transforms.aliases import HANDLE_PASSING
from graph_restore.transforms.draft import Draft, add_const
from graph_restore.transforms.table_users import handle_users
from graph_restore.variables import shape_of

_DENSE = ("MutableDenseHashTable", "MutableDenseHashTableV2")
_NO_KEY = b"\0deleted"
Array: TypeAlias = "np.ndarray[Any, Any]"


def fill_saved(draft: Draft, model: Model, table: Any) -> str:
    """A new node that fills a mutable table with what the checkpoint holds for it; returns its name."""
    if table.name not in model.tables:
        raise FreezeError(
            f"{table.name} ({table.op}) is filled while the model runs, and the checkpoint that was restored holds "
            "nothing for it; restore one that does, or feed what is looked up in it",
            nodes={table.name: "a mutable table without content"},
        )
    keys, values = model.tables[table.name]
    dense = table.op in _DENSE
    if dense:
        table = _as_resource(draft, table)
        keys, values = _entries(draft, table, keys.read(), values.read())
    name = draft.free_name(f"{table.name}/import")
    inputs = [add_const(draft, f"{name}/{part}", tensor) for part, tensor in (("keys", keys), ("values", values))]
    version = "V2" if table.op.endswith("V2") else ""
    op = f"LookupTable{'Insert' if dense else 'Import'}{version}"
    node = NodeDef(name=name, op=op, input=[table.name, *inputs])
    node.attr["Tin"].type, node.attr["Tout"].type = keys.data_type, values.data_type
    draft.add(node)
    draft.note(f"{table.name}: {keys.shape[0] if keys.shape else 0} entries of the checkpoint are put into the graph")
    return name


def _as_resource(draft: Draft, table: Any) -> Any:
    """A dense table as a resource, with all that takes it; a resource stays what it is."""
    if table.op.endswith("V2"):
        return table
    users = draft.consumers()
    table = draft.change(table.name)
    table.op += "V2"
    for user in handle_users(users, table.name):
        changed = draft.change(user.name)
        if user.op in HANDLE_PASSING:
            changed.op = user.op.removeprefix("Ref")
            changed.attr["T"].type = DataType.DT_RESOURCE
        elif f"{user.op}V2" in draft.graph.ops:
            changed.op = f"{user.op}V2"
    return table


def _entries(draft: Draft, table: Any, keys: Array, values: Array) -> tuple[LazyTensor, LazyTensor]:
    """The keys and values of the buckets that are in use."""
    data_inputs = draft.data_inputs(table)
    special = [draft.graph.constant(f"{name}:{index}") for name, index in data_inputs]
    known = [value for value in special if value is not None]
    if not known or len(known) < len(special):
        raise FreezeError(
            f"{table.name} ({table.op}): its empty key is not a constant, so what it holds is not known; feed what is "
            "looked up in it",
            nodes={table.name: "a dense table whose empty key is computed"},
        )
    flat = keys.reshape(keys.shape[0], -1)
    unused = np.zeros(len(flat), bool)
    for key in known:
        unused |= (flat == key.reshape(1, -1)).all(axis=1)
    empty = known[0]
    shape = shape_of(table.attr["value_shape"].shape) if "value_shape" in table.attr else ()
    kept = keys[~unused].reshape(-1, *empty.shape)
    if len(known) == 1:
        _add_deleted_key(draft, table, kept, empty)
    return lazy(table.name, kept), lazy(table.name, values[~unused].reshape(-1, *(size or 0 for size in shape or ())))


def _add_deleted_key(draft: Draft, table: Any, keys: Array, empty: Array) -> None:
    """The second input that a dense table needs today."""
    if empty.dtype == object:
        value: Any = np.full(empty.shape, _NO_KEY, object)
        taken = _NO_KEY in keys
    else:
        taken_keys = {*keys.ravel().tolist(), *empty.ravel().tolist()}
        least = np.iinfo(empty.dtype).min if empty.dtype.kind in "iu" else -1
        value = np.full(empty.shape, next(n for n in range(least, least + len(taken_keys) + 1) if n not in taken_keys))
        value, taken = value.astype(empty.dtype), False
    if taken:
        raise FreezeError(
            f"{table.name} ({table.op}): no key is free to be its deleted_key", nodes={table.name: "full"}
        )
    const = NodeDef(name=draft.free_name(f"{table.name}/deleted_key"), op="Const")
    const.attr["dtype"].type = table.attr["key_dtype"].type
    const.attr["value"].CopyFrom(tensor_attr(value))
    draft.add(const)
    changed = draft.change(table.name)
    changed.input.insert(1, const.name)
    draft.note(f"{table.name} is given the deleted_key that a dense table needs today: {value.ravel().tolist()}")
