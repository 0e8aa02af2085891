"""Changes to a checkpoint's tensors: others come back, nothing on disk is touched, and values are still read lazily.

The changes of `edit` are made in this order:

1. average: numbers become the mean over several checkpoints.
2. merge: tensors of other checkpoints are added.
3. averages: variables take the values of their moving averages.
4. drop_slots, drop: tensors are left out.
5. strip_prefix, rename, prefix: names change.
6. cast: floating-point numbers get another type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graph_restore.checkpoint.contents import matching
from graph_restore.checkpoint.converted import AveragedTensor, ConvertedTensor
from graph_restore.checkpoint.difference import compare
from graph_restore.checkpoint.objects import OBJECT_GRAPH_KEY, with_keys
from graph_restore.checkpoint.roles import roles
from graph_restore.dtypes import DataType, type_name
from graph_restore.errors import GraphRestoreError, TensorNotFoundError, did_you_mean, warn
from graph_restore.slices import JoinedTensor
from graph_restore.tensors import LazyTensor

Tensors = Mapping[str, LazyTensor]

CASTS = {
    "float16": DataType.DT_HALF,
    "bfloat16": DataType.DT_BFLOAT16,
    "float32": DataType.DT_FLOAT,
    "float64": DataType.DT_DOUBLE,
}
_FLOATS = set(CASTS.values())
_AVERAGED = _FLOATS | {DataType.DT_COMPLEX64, DataType.DT_COMPLEX128}


def edit(
    tensors: Tensors,
    *,
    average: Sequence[Tensors] = (),
    merge: Sequence[Tensors] = (),
    prefer: str | None = None,
    averages: bool = False,
    drop_slots: bool = False,
    drop: Iterable[str] = (),
    strip_prefix: str | None = None,
    rename: Sequence[tuple[str, str]] = (),
    prefix: str | None = None,
    cast: str | None = None,
) -> dict[str, LazyTensor]:
    """The tensors after these changes, in the order the module tells; each is explained at its own function.

    An object graph follows: it names the tensors as they are afterwards, its objects stay as they were.

    TensorNotFoundError for a name or pattern that nothing fits, GraphRestoreError for changes that contradict each
    other. Damage is found when values are read.
    """
    found = dict(tensors)
    if prefer and not merge:
        raise GraphRestoreError("prefer= says which of merged tensors to take, and nothing is merged")
    if prefer not in (None, "first", "last") or cast not in (None, *CASTS):
        raise ValueError(f"prefer is 'first' or 'last', cast one of {', '.join(CASTS)}; found {prefer!r} and {cast!r}")
    if average:
        found = averaged([found, *average])
    if merge:
        found = merged([found, *merge], prefer)
    if averages:
        found = with_averages(found)
    if drop_slots or drop:
        found = without(found, drop, slots=drop_slots)
    graph = found.pop(OBJECT_GRAPH_KEY, None)  # its key stays as it is
    names = renamed(found, strip_prefix, rename, prefix)
    found = {new: found[old] for old, new in names.items()}
    if cast:
        found = {name: converted(tensor, CASTS[cast]) for name, tensor in found.items()}
    return found if graph is None else _with_object_graph(found, graph, names)


def averaged(checkpoints: Sequence[Tensors]) -> dict[str, LazyTensor]:
    """The mean of several checkpoints, in double precision: real and complex numbers; other tensors are the first's.

    GraphRestoreError, telling all of it, unless names, dtypes and shapes agree.
    """
    first, *others = checkpoints
    wrong = []
    for number, other in enumerate(others, 2):
        wrong += [f"{name} is not in checkpoint {number}" for name in first if name not in other]
        wrong += [f"{name} is in checkpoint {number} and not in the first" for name in other if name not in first]
        wrong += [
            f"{name} is {_kind(first[name])} in the first and {_kind(other[name])} in checkpoint {number}"
            for name in sorted(first.keys() & other.keys())
            if _kind(first[name]) != _kind(other[name])
        ]
    if wrong:
        raise GraphRestoreError(f"these checkpoints cannot be averaged: {'; '.join(wrong)}")
    return {
        name: AveragedTensor([one[name] for one in checkpoints]) if tensor.data_type in _AVERAGED else tensor
        for name, tensor in first.items()
    }


def merged(checkpoints: Sequence[Tensors], prefer: str | None = None) -> dict[str, LazyTensor]:
    """All tensors of several checkpoints. One that is in two and not equal is taken as `prefer`, "first" or "last",
    says; GraphRestoreError naming all of these without it.
    """
    found: dict[str, LazyTensor] = {}
    conflicts: list[str] = []
    for tensors in checkpoints:
        common = found.keys() & tensors.keys()
        if prefer is None and common:
            unlike = compare({name: found[name] for name in common}, {name: tensors[name] for name in common})
            conflicts += [one.name for one in unlike.changed]
        found = {**tensors, **found} if prefer != "last" else {**found, **tensors}
    if conflicts:
        raise GraphRestoreError(
            f"these are in several of the checkpoints and differ: {', '.join(sorted(set(conflicts)))}; "
            "pass prefer='first' or prefer='last', or drop or rename them first"
        )
    return found


def with_averages(tensors: Tensors) -> dict[str, LazyTensor]:
    """Every variable that has a moving average takes its values; the averages stay under their own names too.

    GraphRestoreError when there are none, or one is not of its variable's dtype and shape.
    """
    taken: dict[str, LazyTensor] = {}
    for name, role in roles(tensors).items():
        if role.kind != "moving average" or role.of is None or role.of not in tensors:
            continue
        if _kind(tensors[name]) != _kind(tensors[role.of]):
            raise GraphRestoreError(
                f"{name} is {_kind(tensors[name])}, which is no average of {role.of}, {_kind(tensors[role.of])}"
            )
        taken[role.of] = tensors[name]
    if not taken:
        raise GraphRestoreError("no tensor is a moving average of another here (<variable>/ExponentialMovingAverage)")
    return {**tensors, **taken}


def without(tensors: Tensors, patterns: Iterable[str] = (), *, slots: bool = False) -> dict[str, LazyTensor]:
    """The tensors whose names fit none of the globs; with `slots`, those that only an optimizer needs are left out too.

    TensorNotFoundError for a pattern that none fits, GraphRestoreError when no slot or no tensor at all is left.
    """
    gone = {name for pattern in patterns for name in matching(tensors, pattern)}
    if slots:
        of_optimizers = {name for name, role in roles(tensors).items() if role.is_optimizer_state}
        if not of_optimizers:
            raise GraphRestoreError("no tensor here is known to be an optimizer's; name them in drop=")
        gone |= of_optimizers
    if gone >= tensors.keys():
        raise GraphRestoreError("nothing would be left")
    return {name: tensor for name, tensor in tensors.items() if name not in gone}


def renamed(
    names: Iterable[str],
    strip_prefix: str | None = None,
    rename: Sequence[tuple[str, str]] = (),
    prefix: str | None = None,
) -> dict[str, str]:
    """Old names to new ones. `strip_prefix` and `prefix` are scopes; a pair of `rename` is a tensor or a scope, and all
    below it follow. For a name the pair of the longest old name counts.

    TensorNotFoundError for what nothing is named, GraphRestoreError when two tensors would get the same name.
    """
    known = list(names)
    table = {old.rstrip("/"): new.rstrip("/") for old, new in rename}
    strip = strip_prefix.rstrip("/") + "/" if strip_prefix else ""
    stripped = {name: name.removeprefix(strip) for name in known}
    if strip and all(old == new for old, new in stripped.items()):
        raise TensorNotFoundError(f"no tensor is under {strip!r}{did_you_mean(strip, known)}")
    rules = {name: _rule(name, table) for name in stripped.values()}
    for old in table:
        if old not in rules.values():
            raise TensorNotFoundError(f"no tensor is or is under {old!r}{did_you_mean(old, rules)}")
    scope = prefix.rstrip("/") + "/" if prefix else ""
    result = {}
    for name, short in stripped.items():
        rule = rules[short]
        result[name] = scope + (short if rule is None else table[rule] + short[len(rule) :])
    _check_distinct(result)
    return result


def _rule(name: str, table: Mapping[str, str]) -> str | None:
    while name not in table:
        name, slash, _ = name.rpartition("/")
        if not slash:
            return None
    return name


def _check_distinct(names: Mapping[str, str]) -> None:
    sources: dict[str, list[str]] = {}
    for old, new in names.items():
        sources.setdefault(new, []).append(old)
    wrong = [f"{', '.join(olds)} would all be {new!r}" for new, olds in sources.items() if len(olds) > 1 or not new]
    if wrong:
        raise GraphRestoreError("names must differ and not be empty: " + "; ".join(wrong))


def converted(tensor: LazyTensor, kind: DataType) -> LazyTensor:
    """`tensor` with numbers of type `kind` when it is of a floating-point type, else itself; slices stay slices."""
    if tensor.data_type not in _FLOATS or tensor.data_type == kind:
        return tensor
    if isinstance(tensor, JoinedTensor):
        parts = [(box, converted(part, kind)) for box, part in tensor.slices]
        return type(tensor)(tensor.name, kind, tensor.shape, parts)
    return ConvertedTensor(tensor, kind)


def _kind(tensor: LazyTensor) -> str:
    return f"{type_name(tensor.data_type)} {list(tensor.shape)}"


def _with_object_graph(tensors: Tensors, graph: LazyTensor, names: Mapping[str, str]) -> dict[str, LazyTensor]:
    """The tensors with the object graph in front, which names them as they are now; a warning of those it knows not."""
    changed, named = with_keys(graph, names)
    strangers = sorted(tensors.keys() - named)
    if strangers:
        shown = ", ".join(strangers[:3]) + (f" and {len(strangers) - 3} more" if len(strangers) > 3 else "")
        warn(f"{OBJECT_GRAPH_KEY} does not know {shown}: tf.train.Checkpoint will not find them, loading by name will")
    return {OBJECT_GRAPH_KEY: changed, **tensors}
