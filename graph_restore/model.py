"""Model: what every format is lifted to, and what every transform takes and gives.

Only data; functions elsewhere do the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graph_restore.errors import near_names
from graph_restore.graph import Graph
from graph_restore.tensors import LazyTensor
from graph_restore.variables import SaverMap, Variables


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
    """What `restore` did, name by name.

    `restored`: variable name to checkpoint key. `missing`: variables without a tensor, each with the key that was
    looked for. `unused`: checkpoint keys no variable took. `mismatched`: variable name to a text with both shapes and
    dtypes. `details`: variable or key name to its dtype and shape as text. `notes`: choices made, in words. `guess`:
    the systematic change of names that would give missing variables a tensor, None if there is none.
    """

    checkpoint: str = ""
    restored: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    mismatched: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    guess: Any = None

    def near(self, name: str) -> list[str]:
        """The unused keys that look most like the one a missing variable was looked for under."""
        return near_names(self.missing[name], self.unused)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, for json."""
        return {
            "checkpoint": self.checkpoint,
            "restored": dict(self.restored),
            "missing": dict(self.missing),
            "unused": list(self.unused),
            "mismatched": dict(self.mismatched),
            "details": dict(self.details),
            "notes": list(self.notes),
            "near": {name: self.near(name) for name in self.missing},
            "guess": None if self.guess is None else str(self.guess),
        }

    def __str__(self) -> str:
        lines = [
            f"{len(self.restored)} restored, {len(self.missing)} missing, {len(self.mismatched)} mismatched, "
            f"{len(self.unused)} unused keys in {self.checkpoint or 'the values given'}"
        ]
        for name, key in self.missing.items():
            near = self.near(name)
            lines.append(f"  missing     {name} (no key {key}{'; near: ' + ', '.join(near) if near else ''})")
        lines += [f"  mismatched  {name}: {text}" for name, text in self.mismatched.items()]
        lines += [f"  unused      {key} {self.details.get(key, '')}".rstrip() for key in self.unused]
        lines += [f"  guess: {self.guess}"] if self.guess is not None else []
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


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
