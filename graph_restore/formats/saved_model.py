"""SavedModel: `saved_model.pb` or `.pbtxt` in a directory with `variables/` and `assets/`.

tensorflow/core/protobuf/saved_model.proto; several MetaGraphDefs, told apart by their sets of tags.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from graph_restore.errors import FormatError, GraphRestoreError
from graph_restore.formats.graph_def import Scanned, check_length, scan
from graph_restore.formats.meta_graph import (
    INIT_OP_SIGNATURE,
    INIT_OPS,
    asset_files,
    asset_names,
    encode_meta_graph,
    from_meta_graph,
)
from graph_restore.formats.text import parse_text
from graph_restore.graph import Graph
from graph_restore.model import Model, ModelSource
from graph_restore.names import node_of
from graph_restore.protos import CollectionDef, SignatureDef
from graph_restore.storage.extent import Extent
from graph_restore.storage.files import is_file, open_source
from graph_restore.storage.output import AtomicFile, Progress, refuse_special
from graph_restore.storage.source import Source
from graph_restore.tensor_proto import concatenated, message_field

FILE_NAMES = ("saved_model.pb", "saved_model.pbtxt")
SERVE = frozenset({"serve"})
ASSETS = "saved_model_assets"


def find_saved_model(folder: str) -> str | None:
    """The path of the SavedModel file in `folder`, None if there is none."""
    paths = [os.path.join(folder, name) for name in FILE_NAMES]
    return next((path for path in paths if is_file(path)), None)


def read_saved_model(source: Source, text: bool, origin: ModelSource, tags: Collection[str] | None = None) -> Model:
    """The Model of the MetaGraphDef with exactly `tags`; by default the only one, else the one tagged `serve`.

    FormatError that lists the sets of tags when none, or more than one, is meant.
    """
    scanned = Scanned(parse_text(source, "SavedModel")) if text else scan(source, "SavedModel")
    number = _choose(scanned.message.meta_graphs, tags, source.name)
    return from_meta_graph(
        scanned.message.meta_graphs[number], scanned.of_graph(number), with_checkpoint(origin, source.name)
    )


def with_checkpoint(origin: ModelSource, path: str) -> ModelSource:
    """The origin with the checkpoint that belongs to a SavedModel file: `variables/variables` beside it."""
    folder = os.path.dirname(path)
    prefix = os.path.join(folder, "variables", "variables")
    has_variables = is_file(prefix + ".index") or is_file(prefix)
    return replace(origin, folder=folder, checkpoint=prefix if has_variables else None)


def _choose(meta_graphs: Any, tags: Collection[str] | None, path: str) -> int:
    sets = [frozenset(meta_graph.meta_info_def.tags) for meta_graph in meta_graphs]
    if not sets:
        raise FormatError("the SavedModel holds no MetaGraphDef", path=path)
    wanted = frozenset([tags] if isinstance(tags, str) else tags) if tags is not None else None
    matches = [number for number, found in enumerate(sets) if wanted is None or found == wanted]
    if wanted is None and len(matches) > 1:
        matches = [number for number, found in enumerate(sets) if found == SERVE]
    if len(matches) != 1:
        listed = "; ".join(",".join(sorted(found)) or "(none)" for found in sets)
        without = ", tags=[] for the one without tags" if frozenset() in sets else ""
        raise FormatError(
            f"pass tags= to say which MetaGraphDef of the SavedModel is meant{without}",
            path=path,
            expected=f"one of the tag sets: {listed}",
            found="no tags given" if wanted is None else ",".join(sorted(wanted)) or "(none)",
        )
    return matches[0]


@contextmanager
def new_directory(path: str, overwrite: bool = False) -> Iterator[str]:
    """A directory beside `path` to write in, which takes that name when the block ends without an error.

    GraphRestoreError when something is there already, unless it is an empty directory, or a SavedModel and `overwrite`.
    """
    path = os.path.abspath(path)
    _refuse_existing(path, overwrite)
    stage = _make_beside(path)
    try:
        yield stage
        _refuse_existing(path, overwrite)  # again: writing may have taken long
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(stage, 0o777 & ~mask)  # mkdtemp makes it for its owner alone
        _put_in_place(stage, path)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _make_beside(path: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        return tempfile.mkdtemp(prefix=f".{os.path.basename(path)[:100]}.", suffix=".tmp", dir=os.path.dirname(path))
    except OSError as error:
        error.filename = path  # nobody has heard of the temporary one
        raise


def _refuse_existing(path: str, overwrite: bool) -> None:
    refuse_special(path, "a SavedModel is a directory")
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return
    if overwrite and os.path.isdir(path) and find_saved_model(path) is not None:
        return
    advice = "only a SavedModel is overwritten" if overwrite else "pass overwrite=True to replace a SavedModel"
    raise GraphRestoreError(f"{path} is there already; take another directory, or remove it ({advice})")


def _put_in_place(stage: str, path: str) -> None:
    """Give a finished directory its name; what had that name is put aside first, and back if this fails."""
    aside = f"{stage}.replaced" if os.path.isdir(path) else ""
    if aside:
        os.rename(path, aside)
    try:
        os.rename(stage, path)
    except BaseException:
        if aside:
            os.rename(aside, path)
        raise
    with suppress(OSError):  # where directories can be synced
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if aside:
        shutil.rmtree(aside, ignore_errors=True)


def write_saved_model_files(
    model: Model, folder: str, tags: Iterable[str], path: str, progress: Progress | None = None
) -> None:
    """Write `saved_model.pb` and `assets/` of a model whose graph is ready; the checkpoint is the caller's to write.

    The init op is written both as a signature and as a v1 collection, the assets as asset_file_def and as a collection:
    releases look in different places. `path`: what to name in errors.
    """
    meta_graph = encode_meta_graph(_with_collections(model), tags)
    encoded = concatenated([b"\x08\x01", *message_field(2, meta_graph)])  # field 1: schema version 1
    check_length(encoded, path)
    with AtomicFile(os.path.join(folder, FILE_NAMES[0]), progress) as file:
        file.write_all(encoded.parts())
    names = asset_names(model.assets)
    if names:
        os.mkdir(os.path.join(folder, "assets"))
    for asset, name in names.items():
        source = open_source(asset)
        with AtomicFile(os.path.join(folder, "assets", name), progress) as file:
            file.splice(Extent(source, 0, source.size))


def _with_collections(model: Model) -> Model:
    """The model with its init op and assets where TensorFlow 1 looks for them."""
    collections = {name: value for name, value in model.collections.items() if name not in (*INIT_OPS, ASSETS)}
    signatures = dict(model.signatures)
    if model.init_op is not None:
        collections[INIT_OPS[0]] = CollectionDef(node_list=CollectionDef.NodeList(value=[model.init_op]))
        if not _waits_for_feeds(model.graph, model.init_op):  # tf.saved_model.load would ask for these with each call
            signatures[INIT_OP_SIGNATURE] = SignatureDef()
            signatures[INIT_OP_SIGNATURE].outputs[INIT_OP_SIGNATURE].name = model.init_op
    if model.assets:
        collections[ASSETS] = CollectionDef()
        for asset in asset_files(model.assets):
            packed = collections[ASSETS].any_list.value.add()
            packed.type_url, packed.value = "type.googleapis.com/tensorflow.AssetFileDef", asset.SerializeToString()
    return replace(model, collections=collections, signatures=signatures)


def _waits_for_feeds(graph: Graph, name: str) -> bool:
    """Whether a node needs placeholders, as assets of TensorFlow 2 are."""
    waiting, seen = [name], set()
    while waiting:
        node = graph.nodes.get(waiting.pop())
        if node is not None and node.name not in seen:
            seen.add(node.name)
            waiting.extend(node_of(item) for item in node.input)
    return any(graph.nodes[name].op == "Placeholder" for name in seen)
