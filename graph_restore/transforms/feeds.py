"""Cutting a graph at its feeds.

1. A fed tensor `n:0` of a node with no other needed output: `n` becomes a Placeholder.
2. Otherwise `n` becomes an IdentityN over Placeholders `n/0`, `n/1` ..., so that `n:k` keeps its name and can be fed;
   outputs that are needed and not fed still come from the node, which moves to `n/unfed`, and what takes them takes
   them there.
3. What only waits for `n` waits for the node that `n` was, as in TensorFlow, where an update comes before that one.
4. dtype and shape are those the graph states; a shape it does not state is of unknown rank.
5. What lies in a branch of a cond or in a loop: see `fed_places`. Queues and iterators are cut in the same way (see
   `pipelines`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graph_restore.dtypes import REF_OFFSET, DataType, type_name
from graph_restore.errors import FreezeError, NodeNotFoundError, UnsupportedFormatError, counted
from graph_restore.graph import Graph
from graph_restore.names import input_name, is_control, node_of, parse_tensor_name, tensor_name
from graph_restore.protos import NodeDef, TensorShapeProto
from graph_restore.transforms.aliases import may_update
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.fed_places import INPUT_PIPELINES, OUTLIVING, Places, check_feeds, hand_into_branch
from graph_restore.variables import VARIABLE_OPS

SCALAR_SHAPES_SINCE = 22  # GraphDef version; before it, a placeholder's empty shape means an unknown one


def resolve(graph: Graph, names: str | Iterable[str]) -> list[Tensor]:
    """(node, output) of tensor or node names, without repeats; NodeNotFoundError where the graph has none."""
    found: dict[Tensor, None] = {}
    for name in [names] if isinstance(names, str) else names:
        node = graph.node(name)
        tensor = parse_tensor_name(name)
        if tensor[1] < 0:
            raise NodeNotFoundError(f"{name} is a control edge, not a tensor; pass {node.name}:0")
        count = _output_count(graph, node)
        if count is not None and tensor[1] >= max(count, 1):
            raise NodeNotFoundError(f"node {node.name} ({node.op}) has {counted(count, 'output')}; there is no {name}")
        found[tensor] = None
    return list(found)


def cut_feeds(draft: Draft, feeds: Sequence[Tensor], fetches: Sequence[Tensor], keep_defaults: bool = False) -> None:
    """Turn the fed tensors into placeholders; every feed exists afterwards, needed or not.

    `keep_defaults`: placeholders with a constant default stay as they are, so that they need not be fed.
    """
    fed: dict[str, set[int]] = {}
    if not feeds:
        return
    for name, index in feeds:
        fed.setdefault(name, set()).add(index)
    places = Places(draft)
    needed = draft.ancestors({name for name, _ in fetches})
    used = used_outputs(draft, needed, fetches)
    for name in _waited_for_updates(draft, needed & fed.keys()):
        used.setdefault(name, set()).add(-1)
    opened = {name: places.gates(name) for name in fed if draft.nodes[name].op in INPUT_PIPELINES}
    for name in [name for name in fed if name not in opened and places.outlives(name, fetches)]:
        draft.note(f"feed {name} lies in a branch of a cond: {OUTLIVING}")
    for name, indexes in fed.items():
        if draft.nodes[name].op != "Placeholder" and not (keep_defaults and _has_constant_default(draft, name)):
            cut(draft, name, indexes, used.get(name, set()))
            hand_into_branch(draft, name, opened.get(name, []))
    needed = draft.ancestors({name for name, _ in fetches})
    check_feeds(places, draft, feeds, needed)
    for name in fed:
        if name not in needed:
            draft.note(f"feed {name} is not needed by the fetches; it is kept as a placeholder")


def _has_constant_default(draft: Draft, name: str) -> bool:
    """Whether a node is a PlaceholderWithDefault whose default is a Const, perhaps behind Identities."""
    node = draft.nodes[name]
    if node.op != "PlaceholderWithDefault":
        return False
    for _ in range(len(draft.nodes)):
        if node is None or node.op not in ("PlaceholderWithDefault", "Identity") or not node.input:
            break
        node = draft.nodes.get(node_of(node.input[0]))
    return node is not None and node.op == "Const"


def _waited_for_updates(draft: Draft, fed: set[str]) -> list[str]:
    """The fed nodes that control edges wait for and that have an update of a variable among what they need."""
    consumers = draft.consumers() if fed else {}
    waited = [name for name in fed if any(is_control(user.input[position]) for user, position in consumers[name])]
    return [
        name for name in waited if any(may_update(draft.graph, draft.nodes[other]) for other in draft.ancestors([name]))
    ]


def used_outputs(draft: Draft, needed: set[str], fetches: Sequence[Tensor]) -> dict[str, set[int]]:
    """Node name to the outputs that needed nodes or the fetches take."""
    used: dict[str, set[int]] = {}
    for name in needed:
        for item in draft.inputs(name):
            if not is_control(item):
                source, index = parse_tensor_name(item)
                used.setdefault(source, set()).add(index)
    for source, index in fetches:
        used.setdefault(source, set()).add(index)
    return used


def cut(draft: Draft, name: str, fed: set[int], used: set[int]) -> None:
    """Turn the outputs `fed` of a node into placeholders; those `used` and not fed still come from the node."""
    node = draft.nodes[name]
    rest = used - fed
    if fed | used <= {0, -1}:
        if rest:
            _move(draft, node, draft.free_name(f"{name}/unfed"), rest)
        draft.add(_placeholder(draft.graph, node, 0, name))
        return
    count = max(fed | used) + 1
    moved = draft.free_name(f"{name}/unfed") if rest else ""
    whole = NodeDef(name=name, op="IdentityN")
    types = []
    for index in range(count):
        types.append(_dtype(draft.graph, node, index))
        if index in rest:
            whole.input.append(input_name(moved, index))
        else:
            placeholder = draft.add(_placeholder(draft.graph, node, index, draft.free_name(f"{name}/{index}")))
            whole.input.append(placeholder.name)
    whole.attr["T"].list.type.extend(types)
    if moved:
        _move(draft, node, moved, rest)
    draft.add(whole)


def _move(draft: Draft, node: Any, moved: str, outputs: set[int]) -> None:
    """Copy a node to the name `moved`, and let what takes any of `outputs` (-1: only waits) take it from there."""
    copy = NodeDef()
    copy.CopyFrom(node)
    copy.name = moved
    draft.add(copy)
    for consumer, position in draft.consumers()[node.name]:
        source, index = parse_tensor_name(consumer.input[position])
        if index in outputs:
            draft.change(consumer.name).input[position] = input_name(moved, index)


def _placeholder(graph: Graph, node: Any, index: int, name: str) -> Any:
    placeholder = NodeDef(name=name, op="Placeholder")
    placeholder.attr["dtype"].type = _dtype(graph, node, index)
    placeholder.attr["shape"].shape.CopyFrom(output_shape(node, index, graph.versions.producer))
    return placeholder


def _dtype(graph: Graph, node: Any, index: int) -> int:
    """The type of an output, from its op's definition, else from an op that takes it."""
    try:
        number = int(graph.ops.output_types(node)[index])
    except (UnsupportedFormatError, IndexError):
        number = _dtype_at_consumer(graph, node, index)
    number = number - REF_OFFSET if number > REF_OFFSET else number
    if number in (DataType.DT_RESOURCE, DataType.DT_VARIANT, DataType.DT_INVALID):
        raise FreezeError(
            f"{tensor_name(node.name, index)} ({node.op}) cannot be fed: "
            + (f"it is a {type_name(number)}" if number else "its dtype is not known; feed a tensor after it"),
            nodes={node.name: "cannot be fed"},
        )
    return number


def _dtype_at_consumer(graph: Graph, node: Any, index: int) -> int:
    for consumer, position in graph.consumers.get(node.name, ()):
        if parse_tensor_name(consumer.input[position]) == (node.name, index):
            try:
                return int(graph.ops.input_types(consumer)[position])
            except (UnsupportedFormatError, IndexError):
                continue
    return 0


def output_shape(node: Any, index: int, producer: int = 0) -> Any:
    """The TensorShapeProto the graph states for an output, of unknown rank where it states none.

    `producer`: the graph's version, which tells whether the empty shape of a placeholder is a scalar's.
    """
    for attr in ("_output_shapes", "output_shapes"):  # an IteratorGetNext has the second
        shapes = node.attr[attr].list.shape if attr in node.attr else ()
        if index < len(shapes):
            return shapes[index]
    states_own_shape = node.op in VARIABLE_OPS or node.op.startswith("Placeholder")
    if index == 0 and states_own_shape and "shape" in node.attr:
        shape = node.attr["shape"].shape
        means_scalar = node.op == "Placeholder" and producer >= SCALAR_SHAPES_SINCE
        if shape.dim or shape.unknown_rank or means_scalar or node.op not in ("Variable", "Placeholder"):
            return shape
    return TensorShapeProto(unknown_rank=True)


def _output_count(graph: Graph, node: Any) -> int | None:
    try:
        return len(graph.ops.output_types(node))
    except UnsupportedFormatError:
        return None
