"""Variable: what is known of a variable, and by what authority; Variables: all of a graph's; SaverMap: a saver's keys.

`discovery` fills them from a graph. Kinds: "ref" for the ops Variable and VariableV2, whose output is a reference,
"resource" for VarHandleOp, whose output is a handle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, overload

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, numpy_dtype, type_name
from graph_restore.errors import NodeNotFoundError, did_you_mean
from graph_restore.names import parse_tensor_name
from graph_restore.protos import TensorShapeProto
from graph_restore.slices import TensorSlice
from graph_restore.tensors import LazyTensor

Shape = tuple[int | None, ...] | None

REF_OPS = frozenset({"Variable", "VariableV2", "AutoReloadVariable"})
RESOURCE_OPS = frozenset({"VarHandleOp"})
VARIABLE_OPS = REF_OPS | RESOURCE_OPS


@dataclass(frozen=True)
class Variable:
    """One variable op of a graph.

    `name`: the node's. `shape`: None when the graph does not know the rank, with None for an unknown dimension.
    `checkpoint_key`: the key of its tensor; with a `slice`, that part of it. `initializer`: node name of the Assign
    that gives it its first value, `initial_value` the tensor that one assigns. `snapshot`: tensor name of its read.
    `trainable`: None when the graph does not say. `slot_of`, `moving_average_of`: names of other variables; `slot`:
    the optimizer's name for it. `collections`: those it is in. `authority`: for each fact, where it was learnt:
    "restore op", "save op", "collection", "topology", "optimizer op", "attribute", "checkpoint" or "name".
    `value`: the restored tensor, or None (`authority` has the reason where an init op made it uncertain).
    """

    name: str
    kind: str
    data_type: DataType
    shape: Shape
    checkpoint_key: str | None = None
    slice: TensorSlice | None = None
    initializer: str | None = None
    initial_value: str | None = None
    snapshot: str | None = None
    trainable: bool | None = None
    slot_of: str | None = None
    slot: str | None = None
    moving_average_of: str | None = None
    collections: tuple[str, ...] = ()
    authority: Mapping[str, str] = field(default_factory=dict)
    value: LazyTensor | None = None

    def replaced(self, **facts: Any) -> Variable:
        """The same with other facts; as dataclasses.replace, in a tenth of its time, since graphs have thousands."""
        unknown = facts.keys() - self.__dict__.keys()
        if unknown:
            raise TypeError(f"a variable has no {', '.join(sorted(unknown))}")
        result = object.__new__(Variable)
        result.__dict__.update(self.__dict__, **facts)
        return result

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of its values."""
        return numpy_dtype(self.data_type)

    @property
    def is_slot(self) -> bool:
        """Whether an optimizer keeps it for another variable."""
        return self.slot_of is not None

    def describe(self) -> str:
        """dtype and shape as text, `float32 [3, ?]`."""
        return describe(self.data_type, self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for json; the value itself is left out."""
        known = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("value", "data_type")}
        known.update(
            dtype=type_name(self.data_type),
            shape=None if self.shape is None else list(self.shape),
            slice=None if self.slice is None else str(self.slice),
            collections=list(self.collections),
            authority=dict(self.authority),
        )
        return known


@lru_cache(1024)
def describe(data_type: int, shape: Shape) -> str:
    """`float32 [3, ?]`; `float32 [unknown rank]`."""
    if shape is None:
        return f"{type_name(data_type)} [unknown rank]"
    return f"{type_name(data_type)} [{', '.join('?' if size is None else str(size) for size in shape)}]"


def shape_of(proto: Any) -> Shape:
    """A TensorShapeProto as a tuple; None for unknown rank, None entries for unknown sizes."""
    return _shape(proto.SerializeToString())


@lru_cache(1024)
def _shape(data: bytes) -> Shape:
    proto = TensorShapeProto.FromString(data)
    if proto.unknown_rank:
        return None
    return tuple([size if size >= 0 else None for size in [dim.size for dim in proto.dim]])


def shapes_agree(declared: Shape, found: tuple[int, ...]) -> bool:
    """Whether a tensor of shape `found` can be of the declared shape, which may be unknown in part."""
    return (
        declared is None
        or declared == found
        or (len(declared) == len(found) and all(size in (None, other) for size, other in zip(declared, found)))
    )


class Variables(Sequence[Variable]):
    """The variables of a graph in file order; also looked up by the node or tensor name of the variable or its read."""

    def __init__(self, variables: Iterable[Variable] = ()) -> None:
        self._list = tuple(variables)

    @cached_property
    def _by_name(self) -> dict[str, Variable]:
        return {variable.name: variable for variable in self._list}

    @cached_property
    def _by_read(self) -> dict[str, Variable]:
        return {parse_tensor_name(one.snapshot)[0]: one for one in self._list if one.snapshot is not None}

    @overload
    def __getitem__(self, key: int | str) -> Variable: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Variable]: ...
    def __getitem__(self, key: int | str | slice) -> Variable | Sequence[Variable]:
        if not isinstance(key, str):
            return self._list[key]
        variable = self.get(key)
        if variable is None:
            raise NodeNotFoundError(f"the graph has no variable {key!r}{did_you_mean(key, self._by_name)}")
        return variable

    def get(self, name: str) -> Variable | None:
        """The variable of that node or tensor name, or None."""
        node = parse_tensor_name(name)[0]
        return self._by_name.get(node) or self._by_read.get(node)

    def names(self) -> list[str]:
        """The node names, in file order."""
        return list(self._by_name)

    def __contains__(self, item: object) -> bool:
        return self.get(item) is not None if isinstance(item, str) else item in self._list

    def __iter__(self) -> Iterator[Variable]:
        return iter(self._list)

    def __len__(self) -> int:
        return len(self._list)

    def __repr__(self) -> str:
        return f"<Variables {', '.join(self._by_name)}>"


class SaverEntry(NamedTuple):
    """One tensor a saver reads or writes: its key, the variable's node name (None: a table or another op's state)."""

    key: str
    variable: str | None
    slice: TensorSlice | None
    authority: str
    restored_by: str = ""


@dataclass(frozen=True)
class SaverMap:
    """A saver found in the graph: the tensor that names the file, and what it saves.

    `is_meta_graphs`: whether the MetaGraph's saver_def is this one. `restore_op`, `save_tensor`: as a SaverDef names
    them, when found.
    """

    filename_tensor: str
    entries: tuple[SaverEntry, ...]
    is_meta_graphs: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """Every checkpoint key it names."""
        return frozenset(entry.key for entry in self.entries)
