"""Model: what every format is lifted to, and what every transform takes and gives.

Only data; functions elsewhere do the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from graph_restore.errors import near_names
from graph_restore.graph import Graph
from graph_restore.tensors import LazyTensor
from graph_restore.variables import SaverMap, Variables

_MOST_NEAR = 50  # missing names that near ones are looked for


@dataclass(frozen=True)
class ModelSource:
    """Where a model came from.

    `format`: "graph_def", "graph_def_text", "meta_graph", "meta_graph_text", "saved_model", "session_bundle",
    "event_file" or "message". `checkpoint`: the path of the checkpoint that belongs to it, None for a bare graph.
    `folder`: where assets that moved are looked for. `tensorflow_version`: as the MetaGraphDef states it, or "".
    `tags`: of the MetaGraphDef taken from a SavedModel. `file`: the file that holds the graph, "" for a message.
    """

    path: str = ""
    format: str = "message"
    checkpoint: str | None = None
    folder: str | None = None
    tensorflow_version: str = ""
    tags: tuple[str, ...] = ()
    file: str = ""

    def __str__(self) -> str:
        return self.path or f"<{self.format}>"


@dataclass(frozen=True)
class Restoration:
    """What `restore` did, name by name; every field but the last three is by the variable's name.

    `checkpoint`: what the values are from. `restored`: the checkpoint's key of each restored variable. Of these:
    `renamed`, to the key that `rename` gave another name; `averaged`, to the key of the moving average it took; `cast`,
    to a text with both dtypes and what may be lost; `joined`, to the number of slices its value is made of; `sources`,
    where its value is from, when there were several. `missing`: variables without a tensor, to the key that was looked
    for. `mismatched`: to a text with both shapes and dtypes. `details`: variable or key name to its dtype and shape as
    text. `unused`: checkpoint keys no variable took. `notes`: choices made, in words. `guess`: the systematic change of
    names that would give missing variables a tensor, None if there is none.
    """

    checkpoint: str = ""
    restored: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    averaged: Mapping[str, str] = field(default_factory=dict)
    cast: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    mismatched: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    guess: Any = None

    def near(self, name: str) -> list[str]:
        """The unused keys that look most like the one a missing variable was looked for under."""
        return near_names(self.missing[name], self.unused)

    def nearest(self) -> dict[str, list[str]]:
        """The near keys of each missing variable; of very many only the first, since the guess tells more then."""
        return {name: self.near(name) for name in islice(self.missing, _MOST_NEAR)}

    def changes(self) -> list[str]:
        """A sentence for each variable whose value is not the saved one: averages, and numbers of another dtype."""
        taken = [f"{name} takes its moving average, {key}" for name, key in self.averaged.items()]
        return taken + [f"{name} is cast from {text}" for name, text in self.cast.items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, for json; `rename` is the guess as `restore` takes it."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **{name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()},
            "unused": list(self.unused),
            "notes": list(self.notes),
            "near": self.nearest(),
            "guess": None if self.guess is None else str(self.guess),
            "rename": None if self.guess is None or self.guess.rename is None else list(map(_plain, self.guess.rename)),
        }

    def __str__(self) -> str:
        lines = [
            f"{len(self.restored)} restored, {len(self.missing)} missing, {len(self.mismatched)} mismatched, "
            f"{len(self.unused)} unused keys in {self.checkpoint or 'the values given'}"
        ]
        for name, key in self.restored.items():
            how = self._how(name)
            lines += [f"  restored    {name} from {key}: {', '.join(how)}"] if how else []
        nearest = self.nearest()
        for name, key in self.missing.items():
            near = nearest.get(name, ())
            lines.append(f"  missing     {name} (no key {key}{'; near: ' + ', '.join(near) if near else ''})")
        lines += [f"  mismatched  {name}: {text}" for name, text in self.mismatched.items()]
        lines += [f"  unused      {key} {self.details.get(key, '')}".rstrip() for key in self.unused]
        lines += [f"  guess: {self.guess}"] if self.guess is not None else []
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def _how(self, name: str) -> list[str]:
        """What is special about how a variable was restored; nothing when it simply took its key's tensor."""
        how = ["renamed"] if name in self.renamed else []
        how += ["its moving average"] if name in self.averaged else []
        how += [f"joined from {self.joined[name]} slices"] if name in self.joined else []
        how += [f"cast from {self.cast[name]}"] if name in self.cast else []
        return how + ([f"in {self.sources[name]}"] if name in self.sources else [])


def _plain(step: Any) -> Any:
    """A step of a rename for json: tables and pairs as they are, a function by its name."""
    if isinstance(step, Mapping):
        return dict(step)
    return str(getattr(step, "__name__", step)) if callable(step) else [getattr(step[0], "pattern", step[0]), step[1]]


@dataclass(frozen=True)
class Model:
    """A graph, its variables, and what the file said about them.

    `signatures`: name to SignatureDef message. `saver_def`: SaverDef message or None. `collections`: name to
    CollectionDef message. `assets`: filename tensor (`node:0`) to the path of the asset file. `savers`: the savers
    found in the graph. `restoration`: what `restore` did, None before. `tables`: of mutable tables that the checkpoint
    holds, node name to (keys, values). `fetches`, `feeds`: tensor names of a frozen
    model. `init_op`: name of the node to run once, for tables, or None. `notes`: what was cut, dropped or chosen.
    """

    graph: Graph
    variables: Variables
    source: ModelSource = ModelSource()
    signatures: Mapping[str, Any] = field(default_factory=dict)
    saver_def: Any = None
    collections: Mapping[str, Any] = field(default_factory=dict)
    assets: Mapping[str, str] = field(default_factory=dict)
    savers: Sequence[SaverMap] = ()
    meta_info: Any = None
    init_op: str | None = None
    restoration: Restoration | None = None
    tables: Mapping[str, tuple[LazyTensor, LazyTensor]] = field(default_factory=dict)
    fetches: tuple[str, ...] = ()
    feeds: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Model {self.source} nodes={len(self.graph.nodes)} variables={len(self.variables)}>"


def require_model(model: Any) -> None:
    """TypeError that says how to get a Model, when a path or message was given instead."""
    if not isinstance(model, Model):
        raise TypeError(f"a Model is needed, found {type(model).__name__}; pass what graph_restore.load gives for it")
