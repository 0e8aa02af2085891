"""What a program for a model has to know: paths, feeds and fetches with dtypes and shapes, and how it is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graph_restore.api import own_checkpoint
from graph_restore.dtypes import REF_OFFSET, DataType
from graph_restore.errors import RestoreError, UpgradeError
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import node_of, parse_tensor_name, tensor_name
from graph_restore.runtime.blueprint import with_first_values
from graph_restore.runtime.made_feeds import rank_of
from graph_restore.script.sizes import needed_rows, needed_shape
from graph_restore.script.training import own_train_op
from graph_restore.summary import describe_tensor
from graph_restore.transforms.calls import CALLS, OWN_GRADIENT, without_calls
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.fed_places import INPUT_PIPELINES
from graph_restore.transforms.feeds import output_shape, resolve
from graph_restore.transforms.fetches import choose
from graph_restore.transforms.functionalize import LEFT
from graph_restore.transforms.modernize import modernize
from graph_restore.transforms.restore import restore
from graph_restore.transforms.tensorflow2 import cut, for_tensorflow2
from graph_restore.transforms.training import is_trainable, updated_variables
from graph_restore.variables import Shape, shape_of

_FLOATS = {DataType.DT_FLOAT, DataType.DT_DOUBLE, DataType.DT_HALF, DataType.DT_BFLOAT16}

# in an imported graph: functional ones are to have other outputs then, and TensorArrays newer handles
_WITHOUT_GRADIENT = {"While", "StatelessWhile", "If", "StatelessIf", "TensorArray", "TensorArrayV2"}

_OF_LOOPS = ("Enter", "RefEnter", "TensorArray")
_LIST_ATTRS = ("N", "num", "num_split")


@dataclass(frozen=True)
class Feed:
    """A tensor that is fed: `shape` as far as the graph states it, `needed` as far as its use tells, `rows` the first
    size that what it meets has; `takers`: the ops that take it."""

    name: str
    dtype: DataType
    shape: Shape
    needed: Shape
    rows: int | None
    takers: frozenset[str]


@dataclass(frozen=True)
class Facts:
    """`fetches`: tensor name to dtype and shape as text. `differentiable`: the fetches that a loss can be made of.
    `train_op`: the graph's own, with the feeds that it needs besides. `untrained`: why there is no training, or "".
    `has_loops`: whether there are loops of TensorFlow 1."""

    path: str
    tags: tuple[str, ...] | None  # None where the model is no SavedModel
    checkpoint: str | None
    asset_dir: str | None
    modern: bool
    feeds: Sequence[Feed]
    fetches: dict[str, str]
    differentiable: Sequence[str]
    train_op: str | None
    train_feeds: Sequence[Feed]
    untrained: str
    has_loops: bool


def facts_of(
    loaded: Model,
    to: str,
    fetches: Iterable[str] | None,
    feeds: Iterable[str] | None,
    checkpoint: str | None,
    asset_dir: str | None,
) -> Facts:
    """The facts for a program in TensorFlow 2 (`to` is "tf2") or in graph mode; see `migration_script`."""
    path = _checkpoint(loaded, checkpoint)
    model = loaded if path is None else _restored(loaded, path)
    wanted, given = choose(model, fetches, feeds)
    targets = [_full(model.graph, name) for name in wanted]
    feed_list = _feeds(model, targets, given, complete=feeds is None)
    names = [feed.name for feed in feed_list]
    train_op = own_train_op(model) if to == "tf1" else None
    more = [] if train_op is None else _feeds(model, [train_op], names, complete=True)
    notes = with_first_values(model, for_tensorflow2(model, targets, names)).notes if to == "tf2" else ()
    floats = [name for name in targets if _dtype(model.graph, name) in _FLOATS]
    return Facts(
        path=model.source.path,
        tags=model.source.tags if model.source.format == "saved_model" else None,
        checkpoint=path,
        asset_dir=asset_dir,
        modern=modernize(model) is not model,
        feeds=feed_list,
        fetches={name: _described(model.graph, name) for name in targets},
        differentiable=floats,
        train_op=train_op,
        train_feeds=[feed for feed in more if feed.name not in names],
        untrained="" if train_op is not None else _untrained(model, to, targets, names, floats, notes),
        has_loops=any(node.op.startswith(_OF_LOOPS) for node in model.graph.graph_def.node),
    )


def _checkpoint(model: Model, given: str | None) -> str | None:
    """The path of the checkpoint; CheckpointNotFoundError when there are variables and none."""
    if given is not None or not len(model.variables):
        return given
    return own_checkpoint(model)


def _restored(model: Model, path: str) -> Model:
    """The model with values; RestoreError for the checkpoint of another one: the program would run on first values."""
    restored = restore(model, path)
    report = restored.restoration
    if report is not None and report.missing and not report.restored:
        raise RestoreError(f"nothing in it fits the model: {report}", missing=list(report.missing))
    return restored


def _full(graph: Graph, name: str) -> str:
    """The tensor's name with its index; the node's for one without outputs, which is only run."""
    node, index = resolve(graph, name)[0]
    return tensor_name(node, index) if _dtype(graph, tensor_name(node, index)) is not None else node


def _dtype(graph: Graph, name: str) -> DataType | None:
    node, index = graph.node(name), parse_tensor_name(name)[1]
    types = graph.ops.output_types(node)
    return DataType(types[index] % REF_OFFSET) if index < len(types) else None


def _described(graph: Graph, name: str) -> str:
    if _dtype(graph, name) is None:
        return "an operation, which is run"
    found = describe_tensor(graph, name)
    return told(found["dtype"], found["shape"])


def told(dtype: str, shape: Iterable[int | None] | None) -> str:
    """`float32 [?, 3]`; `float32, of unknown rank`."""
    if shape is None:
        return f"{dtype}, shape not stated"
    return f"{dtype} [{', '.join('?' if size is None else str(size) for size in shape)}]"


def _feeds(model: Model, targets: list[str], given: list[str], complete: bool) -> list[Feed]:
    """The feeds in order: those given, and if the list is to be `complete`, whatever else the targets need."""
    names = [tensor_name(*tensor) for tensor in resolve(model.graph, given)]
    part = None
    while part is None:
        try:
            part = cut(model, targets, names, every_placeholder=not names)
        except UpgradeError as error:
            lacking = [_former(model.graph, name) for name, why in error.nodes.items() if why == "is not fed"]
            if not complete or not lacking or set(lacking) & set(names):
                raise
            names = (names or _placeholders(model, targets)) + lacking
    valued = {variable.name: variable.value.shape for variable in model.variables if variable.value is not None}
    return [_feed(part.graph, model.graph, name, valued) for name in part.feeds]


def _placeholders(model: Model, targets: list[str]) -> list[str]:
    """The placeholders that the targets need beside queues and iterators."""
    draft = Draft(model.graph)
    needed = draft.ancestors(map(node_of, targets), stop=lambda node: node.op in INPUT_PIPELINES)
    return [tensor_name(name) for name, node in draft.nodes.items() if name in needed and node.op == "Placeholder"]


def _former(graph: Graph, placeholder: str) -> str:
    """The tensor that a placeholder of the cut graph stands for."""
    node, _, index = placeholder.rpartition("/")
    return tensor_name(placeholder) if placeholder in graph.nodes else tensor_name(node, int(index))


def _feed(cut_graph: Graph, graph: Graph, name: str, variables: Mapping[str, Shape]) -> Feed:
    """A feed as the cut graph's placeholder for it states it; as the graph does where nothing needs it."""
    node, index = parse_tensor_name(name)
    placeholder = cut_graph.nodes.get(f"{node}/{index}") or cut_graph.nodes.get(node)
    if placeholder is None or placeholder.op != "Placeholder":
        placeholder, cut_graph = graph.node(node), graph
    if placeholder.op == "Placeholder":
        dtype, index = DataType(placeholder.attr["dtype"].type), 0
    else:
        dtype = _dtype(graph, name) or DataType.DT_FLOAT
    shape = shape_of(output_shape(placeholder, index, cut_graph.versions.producer))
    needed = needed_shape(cut_graph, placeholder.name, variables)
    if needed is None and placeholder.op == "Placeholder":
        rank = rank_of(cut_graph, placeholder)
        needed = None if rank is None else (None,) * rank
    known = shape if shape is not None else needed
    rows = needed_rows(cut_graph, placeholder.name, len(known), variables) if known and known[0] is None else None
    takers = frozenset(user.op for user, _ in cut_graph.consumers[placeholder.name])
    return Feed(name, dtype, shape, needed, rows, takers)


def _untrained(
    model: Model, to: str, targets: list[str], feeds: list[str], floats: Sequence[str], notes: Sequence[str]
) -> str:
    """Why a program cannot train a model that has no train op of its own; "" when it can. `notes`: of what became of
    the model for TensorFlow 2."""
    if not len(model.variables):
        return "the model has no variables; graph_restore.unfreeze makes its constants variables again"
    part = cut(model, targets, feeds)
    updated = updated_variables(model.graph)
    if not floats or not any(is_trainable(variable, True, updated) for variable in part.variables):
        return "no loss can be made of the fetches: none is of floats and depends on a variable that is trained"
    graph = without_calls(part.graph, {*CALLS, *part.graph.functions})
    barring = sorted(_WITHOUT_GRADIENT & graph.by_op.keys()) if to == "tf1" else []
    if barring:
        return f"tf.gradients does not go through {', '.join(barring)}; a program for TensorFlow 2 does"
    if to == "tf1" and any(op.startswith("Stack") for op in graph.by_op):
        return "tf.gradients does not go through loops whose own gradient is in the graph"
    foreign = _gradients_of_programs(graph)
    if foreign:
        return f"its own program gave {foreign}, which is in no file: register it with tf.RegisterGradient first"
    listing = _functions_with_lists(part.graph)
    if listing:
        return f"TensorFlow has no gradient of functions whose ops take lists: {', '.join(listing)}"
    return "; ".join(note for note in notes if LEFT in note or OWN_GRADIENT in note)


def _gradients_of_programs(graph: Graph) -> str:
    """The first node whose gradient a program made, by tf.custom_gradient or gradient_override_map, as words; ""."""
    for node in itertools.chain(graph.graph_def.node, *(one.node_def for one in graph.library.function)):
        made = node.attr["_gradient_op_type"].s.decode("utf-8", "replace") if "_gradient_op_type" in node.attr else ""
        if made and graph.ops.get(made) is None:
            return f"{node.name!r} ({node.op}) the gradient {made!r}"
    return ""


def _functions_with_lists(graph: Graph) -> list[str]:
    """The functions that nodes call by name, as TensorFlow 1's do, and that hold ops such as Pack, Concat or Split."""
    called = [function for name, function in graph.functions.items() if name in graph.by_op]
    return [
        repr(function.signature.name)
        for function in called
        if any(attr in node.attr for node in function.node_def for attr in _LIST_ATTRS)
    ]
