"""What both sides of a comparison are fed: each feed is a tensor of the original and one of the result.

A feed that freezing cut at `n:k` is a placeholder `n` of the result, or `n/k` behind an IdentityN `n`. A placeholder of
the original that is a constant in the result is fed that constant. The rest is made (see `made_feeds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graph_restore.errors import NodeNotFoundError, did_you_mean
from graph_restore.graph import Graph
from graph_restore.names import node_of, parse_tensor_name, tensor_name
from graph_restore.runtime.made_feeds import Array, made_feed, rank_of
from graph_restore.transforms.feeds import output_shape, resolve
from graph_restore.transforms.unsafe import running_nodes

_PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
Feeds = dict[str, Array]


@dataclass(frozen=True)
class Feed:
    """`first`, `second`: the tensor fed on each side, "" where that has none. `array`: None if it is to be made."""

    first: str
    second: str
    array: Array | None

    @property
    def name(self) -> str:
        """The tensor's name for people: the original's."""
        return self.first or self.second


@dataclass(frozen=True)
class FeedPlan:
    """All feeds of a comparison. `shapes`: node name to the shape to make."""

    first: Graph
    second: Graph
    feeds: tuple[Feed, ...]
    shapes: Mapping[str, Sequence[int]]

    def attempts(self, sizes: Sequence[int]) -> Iterator[tuple[Feeds, Feeds]]:
        """(feeds of the original, of the result), one after the other until one can be run: open dimensions past the
        first are of the `sizes`, in this order; one attempt only where nothing is open."""
        described = [self._described(feed) for feed in self.feeds if feed.array is None]
        for size in sizes if any(_is_open(*side) for side in described) else sizes[:1]:
            yield self._arrays(size)

    def _arrays(self, size: int) -> tuple[Feeds, Feeds]:
        here: Feeds = {}
        there: Feeds = {}
        for feed in self.feeds:
            array = feed.array
            if array is None:
                graph, node = self._described(feed)
                array = made_feed(graph, node.name, size, self.shapes.get(node_of(feed.name)))
            here.update({feed.first: array} if feed.first else {})
            there.update({feed.second: array} if feed.second else {})
        return here, there

    def _described(self, feed: Feed) -> tuple[Graph, Any]:
        """The placeholder that a feed is made for, on the side that knows its rank if one does."""
        sides = [(graph, graph.nodes[node_of(name)]) for graph, name in self._sides(feed)]
        placeholders = [(graph, node) for graph, node in sides if node.op in _PLACEHOLDERS]
        return next((side for side in placeholders if rank_of(*side) is not None), placeholders[0])

    def _sides(self, feed: Feed) -> list[tuple[Graph, str]]:
        return [(graph, name) for graph, name in ((self.first, feed.first), (self.second, feed.second)) if name]


def plan_feeds(
    first: Graph, second: Graph, fetches: Sequence[str], given: Mapping[str, Array], shapes: Mapping[str, Sequence[int]]
) -> FeedPlan:
    """The feeds for fetching `fetches` on both sides; NodeNotFoundError for a given name that neither side has, and
    for a placeholder of the second that the first lacks: made up for one side only, it would prove nothing."""
    feeds = []
    for name, array in given.items():
        sides = [name if node_of(name) in graph.nodes else "" for graph in (first, second)]
        if sides[1] and second.node(name).op == "Const":
            sides[1] = ""  # it was given a value for good; another one would be another model
        if not any(sides):
            raise NodeNotFoundError(f"neither graph has {name}, which is fed{did_you_mean(node_of(name), first.nodes)}")
        feeds.append(Feed(sides[0], sides[1], array))
    for name in _open(second, fetches, [feed.second for feed in feeds]):
        former = _former(second, name)
        known = given.get(former)
        if known is None and node_of(former) not in first.nodes:
            raise NodeNotFoundError(_not_in_the_original(first, fetches, former))
        feeds.append(Feed(former if known is None else "", name, known))
    for name in _open(first, fetches, [feed.first for feed in feeds]):
        constant = second.constant(name) if node_of(name) in second.nodes else None
        feeds.append(Feed(name, "", constant))
    sizes = {node_of(name): shape for name, shape in shapes.items()}
    made = [node_of(feed.name) for feed in feeds if feed.array is None]
    for name in sizes:
        if name not in made:
            near = did_you_mean(name, made) or f"; those that are: {', '.join(made) or 'none'}"
            raise NodeNotFoundError(f"a shape is given for {name}, which is no feed that is made up{near}")
    return FeedPlan(first, second, tuple(feeds), sizes)


def _not_in_the_original(first: Graph, fetches: Sequence[str], name: str) -> str:
    theirs = ", ".join(_open(first, fetches, ())) or "none"
    return (
        f"{name}, a placeholder that the result needs, is not in the original, whose placeholders are {theirs}; if it "
        "stands for one of these, pass feeds with the same array under both names"
    )


def _is_open(graph: Graph, node: Any) -> bool:
    """Whether the size of a dimension past the first is not known."""
    dims = output_shape(node, 0).dim
    return any(dim.size < 0 for dim in dims[1:]) or (not dims and (rank_of(graph, node) or 0) > 1)


def _open(graph: Graph, fetches: Sequence[str], fed: Sequence[str]) -> list[str]:
    """The placeholders that run when `fetches` are fetched and that nothing is fed for."""
    known = resolve(graph, [name for name in fed if name])
    running = {node.name for node in running_nodes(graph, resolve(graph, fetches), known)}
    nodes = [node for node in graph.graph_def.node if node.name in running and node.op in _PLACEHOLDERS]
    return [tensor_name(node.name) for node in nodes if (node.name, 0) not in known]


def _former(graph: Graph, name: str) -> str:
    """The tensor of the original that a placeholder stands for: itself, or output k of the IdentityN it feeds."""
    for consumer, position in graph.consumers.get(node_of(name), ()):
        if consumer.op == "IdentityN" and parse_tensor_name(name)[0].startswith(f"{consumer.name}/"):
            return tensor_name(consumer.name, position)
    return name
