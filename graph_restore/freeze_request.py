"""What TensorFlow's freeze_graph is asked for, by flags, files or messages, and how it is done here.

1. The model: a SavedModel goes before a graph file, as in TensorFlow; its own variables are the values then.
2. The values: of the checkpoint; a SaverDef says which saver of the graph knows the keys.
3. Initializer nodes, as if run after restoring; with a SavedModel or a SaverDef TensorFlow does not run them.
4. Lists of variable names: which variables become constants.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import DecodeError

from graph_restore.api import load
from graph_restore.discovery import find_variables
from graph_restore.errors import CheckpointNotFoundError, FormatError, FreezeError, did_you_mean, warn
from graph_restore.formats.text import parse_text
from graph_restore.model import Model
from graph_restore.protos import SaverDef
from graph_restore.savers import find_savers
from graph_restore.storage.files import open_source
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.freeze import freeze
from graph_restore.transforms.rerun import rerun_initializers
from graph_restore.transforms.restore import restore

_MOST_NODES = 4  # named in a message


class _NoCheckpoint(CheckpointNotFoundError, ValueError):
    """TensorFlow's functions raise a ValueError here."""


@dataclass(frozen=True)
class Request:
    """What is to be frozen, and how.

    `models`: parameter name to path or message, of which one is given. `tags`: of a SavedModel. `binary`: what is said
    of the file `input_graph`. `graph_def`: a GraphDef to take the place of the SavedModel's graph. Names are lists.
    """

    models: Mapping[str, Any]
    outputs: list[str]
    checkpoint: str | None = None
    tags: tuple[str, ...] = ()
    binary: bool | None = None
    graph_def: Any = None
    saver_def: Any = None
    initializer_nodes: list[str] | None = None
    allowed: list[str] | None = None
    denied: list[str] | None = None
    clear_devices: bool = True

    @property
    def given(self) -> dict[str, Any]:
        """The models that are not None, False or empty."""
        return {name: model for name, model in self.models.items() if model is not None and model not in ("", False)}

    @property
    def is_saved_model(self) -> bool:
        """Whether the model is a SavedModel."""
        return "input_saved_model_dir" in self.given


def listed(text: str | None) -> list[str]:
    """The names in a text with commas, blanks left out as TensorFlow does."""
    return [name for name in (text or "").replace(" ", "").split(",") if name]


def frozen(request: Request) -> tuple[Model, Model]:
    """(the model with values, the frozen model). ValueError where it is not clear what is to be frozen."""
    model = _loaded(request)
    before = _initialised(_restored(model, request), request)
    kept = _kept(before, request)
    if kept:
        _say(f"{', '.join(kept)} stay variables; a saver of the graph restores them from the checkpoint")
    keep = (lambda variable: variable.name in kept) if kept else None
    try:
        return before, freeze(before, request.outputs, keep_devices=not request.clear_devices, keep_variables=keep)
    except FreezeError as error:
        raise _advised(error, before) from None


def _advised(error: FreezeError, model: Model) -> FreezeError:
    """The error with `initializer_nodes`, which are here, in the place of `initialize`, which is not."""
    without = [one for one in model.variables if one.name in error.variables and one.initial_value is not None]
    nodes = list(dict.fromkeys(one.initializer for one in without if one.initializer is not None))
    some = f"initializer_nodes='{','.join(nodes)}'" if len(nodes) <= _MOST_NODES else "initializer_nodes="
    text = str(error).replace("graph_restore.initialize(model) gives", f"{some} gives")
    return FreezeError(text, variables=error.variables, nodes=error.nodes)


def read_saver(path: str) -> Any:
    """The SaverDef in a file, text or binary, whatever it is said to be; FormatError when it is none."""
    source = open_source(path)
    try:
        found = parse_text(source, "SaverDef")
    except FormatError:
        try:
            found = SaverDef.FromString(source.pread(0, source.size))
        except DecodeError:
            found = SaverDef()
    if not found.filename_tensor_name or not found.restore_op_name:
        raise FormatError("this is no SaverDef, binary or text, with a filename tensor and a restore op", path=path)
    return found


def _the_model(request: Request) -> Any:
    """The one path or message to load; ValueError when none or several are given, or what goes with it is missing."""
    given = request.given
    if request.is_saved_model and given.pop("input_graph", None):
        _say("input_graph is not used: the SavedModel holds a graph")
    if len(given) != 1:
        raise ValueError(f"pass one of {', '.join(request.models)}; found {' and '.join(given) or 'none'}")
    if not request.outputs:
        raise ValueError("pass output_node_names: which outputs is the graph to be cut down to?")
    ((name, model),) = given.items()
    if not request.is_saved_model and not request.checkpoint:
        raise ValueError(f"pass input_checkpoint: {name} holds no values of variables")
    if request.is_saved_model and request.checkpoint:
        _say("input_checkpoint is not used: the values are those of the SavedModel")
    return model


def _loaded(request: Request) -> Model:
    model = load(_the_model(request), tags=request.tags if request.is_saved_model else None)
    is_text = model.source.format.endswith("_text")
    if request.binary is is_text and "input_graph" in request.given and not request.is_saved_model:
        found = "text" if is_text else "binary"
        _say(f"{os.path.basename(model.source.path)} is {found}, whatever input_binary says; read as {found}")
    if request.graph_def is not None:
        model = replace(load(request.graph_def), source=model.source, assets=model.assets, init_op=model.init_op)
    return model if request.saver_def is None else _with_saver(model, request.saver_def)


def _with_saver(model: Model, saver_def: Any) -> Model:
    """The model with the saver that a SaverDef names as its only one; NodeNotFoundError when the graph lacks it."""
    own = SaverDef.FromString(saver_def.SerializeToString())
    for name in (own.filename_tensor_name, own.restore_op_name):
        model.graph.node(name)
    savers = [saver for saver in find_savers(model.graph, own) if saver.is_meta_graphs]
    variables = find_variables(model.graph, model.collections, savers)
    return replace(model, saver_def=own, savers=tuple(savers), variables=variables)


def _restored(model: Model, request: Request) -> Model:
    checkpoint = None if request.is_saved_model else request.checkpoint
    if checkpoint is None and not len(model.variables):
        return model
    try:
        return restore(model, checkpoint)
    except CheckpointNotFoundError as error:
        raise _NoCheckpoint(str(error)) from error


def _initialised(model: Model, request: Request) -> Model:
    if not request.initializer_nodes:
        return model
    if request.is_saved_model or request.saver_def is not None:
        _say("initializer_nodes are not run: with a SavedModel or input_saver, TensorFlow does not run them either")
        return model
    initialised, names = rerun_initializers(model, request.initializer_nodes)
    if names:
        _say(f"initializer_nodes give {', '.join(names)} their first values")
    else:
        _say("initializer_nodes set no variable; tables fill themselves at the first look-up")
    return initialised


def _kept(model: Model, request: Request) -> list[str]:
    """The variables that the outputs need and that the lists of names leave as they are."""
    needed = Draft(model.graph).ancestors([model.graph.node(name).name for name in request.outputs])
    allowed, denied = request.allowed, request.denied or ()
    for name in sorted({*(allowed or ()), *denied}.difference(model.variables.names())):
        _say(
            f"no variable is called {name}, as the lists of names have it{did_you_mean(name, model.variables.names())}"
        )
    return [
        name
        for name in model.variables.names()
        if name in needed and (name in denied or (allowed and name not in allowed))
    ]


def _say(text: str) -> None:
    warn(text)
