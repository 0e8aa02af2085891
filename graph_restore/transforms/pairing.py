"""Which tensors of an old model may belong to which of a new one, by names, shapes and order: proposals, with reasons.

A layer is what shares a scope: `conv1/weights` and `conv1/biases` are one, with the roles kernel and bias.

1. Layers of the same name, role by role of the same shape.
2. Layers with the same roles and shapes: the only ones such on both sides, or as many on both sides, in order.
3. Layers that agree in all roles they share, the largest tensors of both among them: the only ones such.
4. Tensors outside of layers: by shape, and role where it is known, as in 2.

What could go with several is proposed with none; it is told with its candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

_SYNONYMS = {
    "kernel": (
        "kernel",
        "weights",
        "weight",
        "w",
        "w_0",
        "matrix",
        "embeddings",
        "embedding",
        "embedding_weights",
        "table",
    ),
    "bias": ("bias", "biases", "b"),
    "gamma": ("gamma", "scale"),
    "beta": ("beta", "offset"),
    "moving_mean": ("moving_mean", "running_mean", "pop_mean"),
    "moving_variance": ("moving_variance", "running_variance", "running_var", "pop_variance", "moving_var"),
    "depthwise_kernel": ("depthwise_kernel", "depthwise_weights"),
    "pointwise_kernel": ("pointwise_kernel", "pointwise_weights"),
    "recurrent_kernel": ("recurrent_kernel",),
}
_ROLES = {word: role for role, words in _SYNONYMS.items() for word in words}
Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class Item:
    """A tensor by its name (or path) and shape."""

    name: str
    shape: Shape

    @property
    def scope(self) -> str:
        """The name without its last part."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class Proposal:
    """`source` may belong to `target`, because of `how`."""

    source: str
    target: str
    how: str


@dataclass
class Proposals:
    """`pairs`, and of what is left, target to the sources that it could have."""

    pairs: list[Proposal] = field(default_factory=list)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)


def role(name: str) -> str:
    """What a tensor is in its layer: "kernel" for `conv/weights`; the last part of the name where that says nothing."""
    last = name.rpartition("/")[2]
    return _ROLES.get(last.casefold(), last)


def propose(sources: Sequence[Item], targets: Sequence[Item]) -> Proposals:
    """Pairs of tensors of two models, each tensor in one at most; both sequences in the order of their models."""
    return _Matching(_layers(sources), _layers(targets)).run()


@dataclass(frozen=True)
class _Layer:
    scope: str
    items: Mapping[str, Item]

    @property
    def name(self) -> str:
        return self.scope.rpartition("/")[2].casefold()

    @property
    def signature(self) -> Hashable:
        return frozenset((role, item.shape) for role, item in self.items.items())

    @property
    def is_bag(self) -> bool:
        """Whether these only happen to be side by side: no scope, or nothing that says what they are."""
        return not self.scope or not any(role in _SYNONYMS for role in self.items)

    def has_largest_in(self, roles: Collection[str]) -> bool:
        """Whether one of these roles has a tensor as large as any of the layer."""
        sizes = {name: _size(item.shape) for name, item in self.items.items()}
        return any(sizes[name] == max(sizes.values()) for name in roles)


def _size(shape: Shape) -> int:
    return math.prod(size or 0 for size in shape) if shape is not None else 0


def _layers(items: Sequence[Item]) -> list[_Layer]:
    scopes: dict[str, list[Item]] = {}
    for item in items:
        scopes.setdefault(item.scope, []).append(item)
    return [_Layer(scope, _by_role(members)) for scope, members in scopes.items()]


def _by_role(items: Sequence[Item]) -> dict[str, Item]:
    by_role = {role(item.name): item for item in items}
    return by_role if len(by_role) == len(items) else {item.name.rpartition("/")[2]: item for item in items}


_Side = TypeVar("_Side", _Layer, Item)


class _Matching:
    def __init__(self, sources: list[_Layer], targets: list[_Layer]) -> None:
        self.sources, self.targets = sources, targets
        self.found = Proposals()

    def run(self) -> Proposals:
        self._layers(lambda layer: (layer.name, layer.signature), "same name and shapes", lone=True)
        self._layers(lambda layer: layer.signature, "same roles and shapes", lone=False)
        self._partly()
        self._singly()
        return self.found

    def _layers(self, key: Callable[[_Layer], Hashable], how: str, lone: bool) -> None:
        """Pair layers of the same key; with `lone` only those that are alone with it on both sides."""
        for here, there in _groups([one for one in self.sources if one.scope], self._proper(), key):
            if len(here) != len(there) or (lone and len(here) > 1):
                if not lone:
                    self._doubt([item for layer in there for item in layer.items.values()], here)
                continue
            for number, (source, target) in enumerate(zip(here, there)):
                self._take(source, target, how + _order(number, len(here)))

    def _proper(self) -> list[_Layer]:
        return [layer for layer in self.targets if not layer.is_bag]

    def _take(self, source: _Layer, target: _Layer, how: str) -> None:
        self.sources.remove(source)
        self.targets.remove(target)
        shared = [name for name in target.items if name in source.items]
        self.found.pairs += [Proposal(source.items[name].name, target.items[name].name, how) for name in shared]

    def _doubt(self, targets: Sequence[Item], sources: Sequence[_Layer]) -> None:
        for item in targets:
            candidates = [
                layer.items[name].name for layer in sources for name in layer.items if name == role(item.name)
            ]
            self.found.ambiguous[item.name] = candidates

    def _partly(self) -> None:
        fits = {
            target.scope: [source for source in self.sources if source.scope and _agree(source, target)]
            for target in self._proper()
            if not any(item.name in self.found.ambiguous for item in target.items.values())
        }
        for target in self._proper():
            candidates = fits.get(target.scope, [])
            rivals = sum(source in others for source in candidates[:1] for others in fits.values())
            if len(candidates) == 1 and rivals == 1:
                self._take(candidates[0], target, "same shapes where both have the role")
            elif candidates:
                shared = [item for name, item in target.items.items() if name in candidates[0].items]
                self._doubt(shared, candidates)

    def _singly(self) -> None:
        """Pair what is no layer on one of the sides."""
        sources = [item for layer in self.sources for item in layer.items.values()]
        targets = [
            item for layer in self.targets for item in layer.items.values() if layer.is_bag or len(layer.items) == 1
        ]
        targets = [item for item in targets if item.name not in self.found.ambiguous]
        if not targets:
            return
        telling = all(role(item.name) in _SYNONYMS for item in (*sources, *targets))
        for here, there in _groups(sources, targets, lambda item: (item.shape, role(item.name) if telling else "")):
            if len(here) != len(there):
                self.found.ambiguous.update({item.name: [one.name for one in here] for item in there})
                continue
            for number, (source, target) in enumerate(zip(here, there)):
                how = "the only ones of this shape" if len(here) == 1 else "same shape" + _order(number, len(here))
                self.found.pairs.append(Proposal(source.name, target.name, how))


def _groups(
    sources: Sequence[_Side], targets: Sequence[_Side], key: Callable[[_Side], Hashable]
) -> list[tuple[list[_Side], list[_Side]]]:
    """For every key that both sides have, the sources and the targets that have it, in order."""
    found: dict[Hashable, tuple[list[_Side], list[_Side]]] = {}
    for side, items in enumerate((sources, targets)):
        for item in items:
            found.setdefault(key(item), ([], []))[side].append(item)
    return [pair for pair in found.values() if pair[0] and pair[1]]


def _order(number: int, count: int) -> str:
    return f", {count} such: number {number + 1} in order" if count > 1 else ""


def _agree(source: _Layer, target: _Layer) -> bool:
    shared = source.items.keys() & target.items.keys()
    same = all(source.items[name].shape == target.items[name].shape for name in shared)
    return same and source.has_largest_in(shared) and target.has_largest_in(shared)
