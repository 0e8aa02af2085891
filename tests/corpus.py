"""Loads the models in legacy_models/ together with what the TensorFlow that made them said about them.

The format of `oracle.npz` and `oracle.json` is told in legacy_models/README.md.
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import ml_dtypes
import numpy as np

from graph_restore import protos

CORPUS = Path(__file__).resolve().parent.parent / "legacy_models"

Arrays = dict[str, "np.ndarray[Any, Any]"]


class Run(TypedDict):
    """One `session.run`, the first after restoring: arrays by tensor name."""

    feeds: Arrays
    outputs: Arrays


class Values(TypedDict):
    """Everything the oracle knows in arrays. `feeds` and `outputs` are those of the first run."""

    feeds: Arrays
    outputs: Arrays
    runs: list[Run]
    variables: Arrays
    checkpoint: dict[str, Arrays]


@dataclass(frozen=True)
class Case:
    """One model as one TensorFlow saved it."""

    directory: Path
    facts: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.directory.parent.name}/{self.directory.name}"

    @property
    def model(self) -> str:
        return self.directory.parent.name

    @property
    def graph_pb(self) -> Path:
        return self.directory / "graph.pb"

    @property
    def meta(self) -> Path | None:
        """The MetaGraph beside the main checkpoint, if one was written."""
        prefix = self.prefixes.get("")
        path = None if prefix is None else Path(f"{prefix}.meta")
        return path if path and path.exists() else None

    @property
    def prefixes(self) -> dict[str, str]:
        """Checkpoint prefix of each Saver by its tag; the main one's tag is the empty string."""
        return {tag: f"{self.directory}/{saver['prefix']}" for tag, saver in self.facts["savers"].items()}

    @property
    def other_prefixes(self) -> dict[str, str]:
        """Prefixes of checkpoints that lie beside the model's own, such as those that do not fit it."""
        return {tag: f"{self.directory}/{one['prefix']}" for tag, one in self.facts["other_checkpoints"].items()}

    @property
    def has_graph(self) -> bool:
        """False for a case that is a checkpoint alone."""
        return self.graph_pb.exists()

    @property
    def prefix(self) -> str:
        """The main checkpoint's prefix."""
        return self.prefixes[""] if "" in self.prefixes else self.other_prefixes[""]

    @functools.cached_property
    def oracle(self) -> Values:
        """Feeds, outputs, variables by tensor name; checkpoint values by tag and key. Strings are objects of bytes."""
        found = _arrays(self.directory, self.facts)
        runs = [_run(number, run, found) for number, run in enumerate(self.facts["runs"])]
        first = runs[0] if runs else Run(feeds={}, outputs={})
        return Values(
            feeds=first["feeds"],
            outputs=first["outputs"],
            runs=runs,
            variables=_under("var|", found),
            checkpoint={tag: _under(f"ckpt|{tag}|", found) for tag in (*self.prefixes, *self.other_prefixes)},
        )


def cases(model: str | None = None) -> list[Case]:
    """All cases that have a graph, or those of one model, in the order of their names."""
    return [one for one in all_cases() if one.has_graph and model in (None, one.model)]


@functools.cache
def all_cases(root: Path = CORPUS) -> list[Case]:
    """Every case, the checkpoints without a graph (`wide_table`, `raw_dtypes`) too."""
    found = sorted(root.glob("*/tf*-v*/oracle.json"))
    return [Case(path.parent, json.loads(path.read_text(encoding="utf-8"))) for path in found]


def case(identity: str) -> Case:
    """The case of an id such as `linear/tf0.12.1-v1`."""
    return next(one for one in all_cases() if one.id == identity)


def _run(number: int, run: dict[str, list[str]], found: Arrays) -> Run:
    return Run(
        feeds={name: found[f"feed|{number}|{name}"] for name in run["feeds"]},
        outputs={name: found[f"out|{number}|{name}"] for name in run["fetches"]},
    )


def _arrays(directory: Path, facts: dict[str, Any]) -> Arrays:
    with np.load(directory / "oracle.npz") as stored:
        found = {name: stored[name] for name in stored.files}
    for name, text in facts["strings"].items():
        found[name] = strings(text)
    for name, source in facts["same"].items():
        found[name] = found[source]
    for name, dtype in facts["raw"].items():
        if dtype == "bfloat16":
            found[name] = found[name].view(ml_dtypes.bfloat16)
    return found


def strings(text: dict[str, Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(text["latin1"]), dtype=object)
    array[:] = [item.encode("latin-1") for item in text["latin1"]]
    return array.reshape(text["shape"])


def _under(start: str, found: Arrays) -> Arrays:
    return {name[len(start) :]: value for name, value in found.items() if name.startswith(start)}


def hub_module(folder: Path) -> Path:
    """A SavedModel as TensorFlow Hub had them: one graph without tags and one tagged `train`."""
    path = folder / "module"
    shutil.copytree(CORPUS / "saved_model_two_tags" / "tf1.15.5-v2" / "saved_model", path)
    message = protos.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for meta_graph in message.meta_graphs:
        if "train" not in meta_graph.meta_info_def.tags:
            del meta_graph.meta_info_def.tags[:]
    (path / "saved_model.pb").write_bytes(message.SerializeToString())
    return path
