"""Every op of TensorFlow 0.12 to 2.21, tf.contrib included: arguments, attrs, defaults, and when it came and went.

    table = op_table().with_op_list(meta_graph.meta_info_def.stripped_op_list)
    table["MatMul"].attrs["transpose_a"].default.b          False
    table.output_types(node)                                [1, 1]: DataType numbers, references + 100

The table ships as ops.binpb (`protos/op_table.proto`; made by `protos/make_op_table.py` from the registries of genuine
releases). Reading it parses names and releases only; an op's OpDef (tensorflow/core/framework/op_def.proto) is parsed
when it is asked for.

Ops changed over the years, mostly by attrs and types added. `table[name]` is the newest signature. Where the arguments
themselves changed, a node is read by the newest signature that it fits: required attrs there, number of inputs right.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from graph_restore import protos
from graph_restore.dtypes import REF_OFFSET
from graph_restore.errors import UnsupportedFormatError, did_you_mean

MAX_REPEATED = 1 << 20  # a number_attr above this is nonsense; it must not become a list of that length

Span = tuple[str, int, int]  # an argument's name, its first flat index, how many tensors it stands for


@dataclass(frozen=True, slots=True)
class Arg:
    """One input or output of an op, which may stand for several tensors.

    The dtype is `type` (a DataType number) or that of the attr `type_attr`, repeated as often as the attr `number_attr`
    says if there is one; or the attr `type_list_attr` lists a dtype a tensor. What does not apply is 0 or ""."""

    name: str
    type: int
    type_attr: str
    number_attr: str
    type_list_attr: str
    is_ref: bool


@dataclass(frozen=True, slots=True)
class Attr:
    """One attr of an op. `type` is written as in op registrations: "int", "list(type)", "shape" ...

    `default` and `allowed` are AttrValue messages or None; `minimum` bounds an int, or a list's length. `since` is the
    first release of the table whose op has the attr, "" where only a MetaGraph told of it."""

    name: str
    type: str
    default: Any | None
    minimum: int | None
    allowed: Any | None
    since: str


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One op in its newest signature.

    `since`, `until`: first and last release of the table that has it ("1.15.5"); `until` is "" while the newest has it,
    and both are "" for an op that only an op list told of. `contrib_module`: the tf.contrib module it came with, up to
    and including release `contrib_until`; both "" for ops that were always core. `deprecated_in`: the GraphDef version
    from which on TensorFlow refuses it in new graphs, or None. `op_def`: the OpDef message, without texts.
    `older`: former signatures whose arguments differ, newest first."""

    name: str
    inputs: tuple[Arg, ...]
    outputs: tuple[Arg, ...]
    attrs: Mapping[str, Attr]
    is_stateful: bool
    since: str
    until: str
    contrib_module: str
    contrib_until: str
    deprecated_in: int | None
    op_def: Any
    older: tuple[Op, ...] = ()

    def attr_value(self, node: Any, name: str) -> Any | None:
        """The AttrValue a node has for an attr: its own, else the op's default, else None."""
        if name in node.attr:
            return node.attr[name]
        attr = self.attrs.get(name)
        return attr.default if attr else None

    def output_types(self, node: Any) -> list[int]:
        """The DataType number of each output of a node of this op; `OpTable.output_types` says more."""
        signature = self._signature_of(node)
        return [number for arg in signature.outputs for number in signature._types(arg, node)]

    def input_types(self, node: Any) -> list[int]:
        """The DataType number of each data input that a node of this op takes."""
        signature = self._signature_of(node)
        return [number for arg in signature.inputs for number in signature._types(arg, node)]

    def output_names(self, node: Any) -> list[Span]:
        """(name, first index, count) of each output argument, in order."""
        signature = self._signature_of(node)
        return signature._spans(signature.outputs, node)

    def input_names(self, node: Any) -> list[Span]:
        """(name, first index, count) of each input argument, in order."""
        signature = self._signature_of(node)
        return signature._spans(signature.inputs, node)

    def _signature_of(self, node: Any) -> Op:
        if not self.older:
            return self
        return next((signature for signature in (self, *self.older) if signature._fits(node)), self)

    def _fits(self, node: Any) -> bool:
        if any(attr.default is None and name not in node.attr for name, attr in self.attrs.items()):
            return False
        try:
            expected = sum(self._count(arg, node) for arg in self.inputs)
        except UnsupportedFormatError:
            return False
        return expected == sum(not name.startswith("^") for name in node.input)

    def _spans(self, args: tuple[Arg, ...], node: Any) -> list[Span]:
        spans, first = [], 0
        for arg in args:
            count = self._count(arg, node)
            spans.append((arg.name, first, count))
            first += count
        return spans

    def _count(self, arg: Arg, node: Any) -> int:
        if arg.type_list_attr:
            return len(self._attr(node, arg.type_list_attr, "list").type)
        if not arg.number_attr:
            return 1
        count = int(self._attr(node, arg.number_attr, "i"))
        if not 0 <= count <= MAX_REPEATED:
            raise self._unsupported(node, f"attr {arg.number_attr!r}", f"a number from 0 to {MAX_REPEATED}", count)
        return count

    def _types(self, arg: Arg, node: Any) -> list[int]:
        if arg.type_list_attr:
            numbers = [int(number) for number in self._attr(node, arg.type_list_attr, "list").type]
        else:
            number = int(self._attr(node, arg.type_attr, "type")) if arg.type_attr else arg.type
            numbers = [number] * self._count(arg, node)
        return [number + REF_OFFSET for number in numbers] if arg.is_ref else numbers

    def _attr(self, node: Any, name: str, kind: str) -> Any:
        value = self.attr_value(node, name)
        found = value.WhichOneof("value") if value is not None else "nothing"
        if found != kind:
            raise self._unsupported(node, f"attr {name!r}, which gives the dtype or number of a tensor", kind, found)
        return getattr(value, kind)

    def _unsupported(self, node: Any, what: str, expected: object, found: object) -> UnsupportedFormatError:
        return UnsupportedFormatError(f"node {node.name!r} of op {self.name!r}: {what}", expected=expected, found=found)


class OpTable(Mapping[str, Op]):
    """Ops by name. `table[name]` raises KeyError with near names in its message; `table.get(name)` gives None."""

    def __init__(self, versions: tuple[str, ...], entries: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Use `op_table()`. `entries`: OpEntry messages by name; `given`: OpDefs by name that go before them."""
        self.versions = versions
        self._entries = entries
        self._given = given
        self._ops: dict[str, Op] = {}

    def with_op_list(self, op_list: Any) -> OpTable:
        """A table in which the OpDefs of an OpList message go before our own.

        A MetaGraph's `meta_info_def.stripped_op_list` knows custom ops, and the signatures at the time of writing. Any
        iterable of OpDefs will do, such as the signatures of a function library, whose names are ops in that graph."""
        op_defs: Iterable[Any] = op_list.op if hasattr(op_list, "op") else op_list
        return OpTable(self.versions, self._entries, {**self._given, **{op_def.name: op_def for op_def in op_defs}})

    def __getitem__(self, name: str) -> Op:
        op = self._find(name)
        if op is None:
            raise KeyError(f"no op {name!r} in TensorFlow {self.versions[0]} to {self.versions[-1]}{self._near(name)}")
        return op

    def get(self, name: str, default: Op | None = None) -> Op | None:  # type: ignore[override]
        """The Op of that name, or `default`."""
        return self._find(name) or default

    def __contains__(self, name: object) -> bool:
        return name in self._given or name in self._entries

    def __iter__(self) -> Iterator[str]:
        yield from self._entries
        yield from (name for name in self._given if name not in self._entries)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def op_def(self, name: str, version: str | None = None) -> Any | None:
        """The OpDef of an op, or None: the newest (or that of an op list given), or as TensorFlow `version` knew it.

        `version` is any release number, "1.13.1"; major and minor count. The table's newest release not past it answers
        (before 0.12: 0.12). Ops that went away with tf.contrib are not found from 2.0 on. UnsupportedFormatError when
        `version` is no release number."""
        if version is None:
            op = self._find(name)
            return op.op_def if op else None
        entry = self._entries.get(name)
        wanted = _minor_release(version)
        index = max((i for i, known in enumerate(self.versions) if _minor_release(known) <= wanted), default=0)
        if entry is None or index > entry.until or (wanted >= (2, 0) and _left_with_contrib(entry)):
            return None
        revisions = [revision for revision in entry.revision if revision.since <= index]
        return protos.OpDef.FromString(revisions[-1].op_def) if revisions else None

    def output_types(self, node: Any) -> list[int]:
        """The DataType number of each output of a NodeDef, in order, references as the number + 100.

        Attrs the node lacks take the op's defaults. Raises UnsupportedFormatError, naming the node, for an op that is
        not in the table and where a needed attr is missing, of another kind, or left to the caller of a function."""
        return self._of(node).output_types(node)

    def input_types(self, node: Any) -> list[int]:
        """The DataType number of each data input that a NodeDef takes, in order; errors as for `output_types`."""
        return self._of(node).input_types(node)

    def output_names(self, node: Any) -> list[Span]:
        """(name, first index, count) of each output argument of a NodeDef: `node:name:k` in a FunctionDef is output
        first index + k. Errors as for `output_types`."""
        return self._of(node).output_names(node)

    def input_names(self, node: Any) -> list[Span]:
        """(name, first index, count) of each input argument of a NodeDef; errors as for `output_types`."""
        return self._of(node).input_names(node)

    def is_ref_input(self, node: Any, index: int) -> bool:
        """Whether data input `index` of a NodeDef takes a reference; False past the last input."""
        op = self._of(node)
        if not op.older and not any(argument.number_attr or argument.type_list_attr for argument in op.inputs):
            return index < len(op.inputs) and op._types(op.inputs[index], node)[0] > REF_OFFSET  # nearly all ops
        types = op.input_types(node)
        return index < len(types) and types[index] > REF_OFFSET

    def _of(self, node: Any) -> Op:
        op = self._find(node.op)
        if op is None:
            raise UnsupportedFormatError(
                f"node {node.name!r} is of op {node.op!r}, which no TensorFlow from {self.versions[0]} to"
                f" {self.versions[-1]} has{self._near(node.op)}. If the model has a MetaGraph (.meta file or"
                " SavedModel), load that: it describes custom ops"
            )
        return op

    def _near(self, name: str) -> str:
        return did_you_mean(name, self)

    def _find(self, name: str) -> Op | None:
        if name not in self._ops:
            if name in self._given:
                self._ops[name] = self._given_op(self._given[name])
            elif name in self._entries:
                self._ops[name] = self._entry_op(self._entries[name])
        return self._ops.get(name)

    def _entry_op(self, entry: Any) -> Op:
        """The newest signature of an entry, with the former ones whose arguments differ."""
        since: dict[str, str] = {}
        ops: list[Op] = []
        for revision in entry.revision:
            op_def = protos.OpDef.FromString(revision.op_def)
            for attr in op_def.attr:
                since.setdefault(attr.name, self.versions[revision.since])
            older = tuple(op for op in reversed(ops) if not _same_arguments(op.op_def, op_def))
            ops.append(_op_from_def(op_def, since, self._history(entry), older))
        return ops[-1]

    def _given_op(self, op_def: Any) -> Op:
        """The Op of an OpDef from outside, with the history the table has for its name."""
        entry = self._entries.get(op_def.name)
        if entry is None:
            return _op_from_def(op_def, {}, {"since": "", "until": "", "contrib_module": "", "contrib_until": ""}, ())
        known = self._entry_op(entry)
        older = tuple(op for op in (known, *known.older) if not _same_arguments(op.op_def, op_def))
        since = {name: attr.since for op in (known, *known.older) for name, attr in op.attrs.items()}
        return _op_from_def(op_def, since, self._history(entry), older)

    def _history(self, entry: Any) -> dict[str, str]:
        return {
            "since": self.versions[entry.revision[0].since],
            "until": "" if entry.until == len(self.versions) - 1 else self.versions[entry.until],
            "contrib_module": entry.contrib_module,
            "contrib_until": self.versions[entry.contrib_until] if entry.contrib_module else "",
        }


@cache
def op_table() -> OpTable:
    """The table that ships with the package, read on the first call."""
    with open(os.path.join(os.path.dirname(__file__), "ops.binpb"), "rb") as stream:
        table = protos.OpTable.FromString(stream.read())
    return OpTable(tuple(table.version), {entry.name: entry for entry in table.op}, {})


def _op_from_def(op_def: Any, since: Mapping[str, str], history: Mapping[str, str], older: tuple[Op, ...]) -> Op:
    return Op(
        name=op_def.name,
        inputs=tuple(_arg(arg) for arg in op_def.input_arg),
        outputs=tuple(_arg(arg) for arg in op_def.output_arg),
        attrs={attr.name: _attr(attr, since.get(attr.name, "")) for attr in op_def.attr},
        is_stateful=op_def.is_stateful,
        deprecated_in=op_def.deprecation.version if op_def.HasField("deprecation") else None,
        op_def=op_def,
        older=older,
        **history,
    )


def _arg(arg: Any) -> Arg:
    return Arg(arg.name, arg.type, arg.type_attr, arg.number_attr, arg.type_list_attr, arg.is_ref)


def _attr(attr: Any, since: str) -> Attr:
    default = attr.default_value if attr.HasField("default_value") else None
    allowed = attr.allowed_values if attr.HasField("allowed_values") else None
    return Attr(attr.name, attr.type, default, attr.minimum if attr.has_minimum else None, allowed, since)


def _same_arguments(one: Any, other: Any) -> bool:
    def arguments(op_def: Any) -> list[list[Arg]]:
        return [[_arg(arg) for arg in args] for args in (op_def.input_arg, op_def.output_arg)]

    return arguments(one) == arguments(other)


def _left_with_contrib(entry: Any) -> bool:
    return bool(entry.contrib_module) and entry.contrib_until == entry.until


def _minor_release(version: str) -> tuple[int, int]:
    """(1, 13) of "1.13.1", "v1.13.1-0-g6612da8" and "1.13.0-rc2"; UnsupportedFormatError for what is no release."""
    match = re.match(r"v?(\d{1,9})\.(\d{1,9})", version)
    if match is None:
        raise UnsupportedFormatError("not a TensorFlow release", expected='a number such as "1.13.1"', found=version)
    return int(match[1]), int(match[2])
