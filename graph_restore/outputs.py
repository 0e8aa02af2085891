"""SavedModels and MetaGraphs: what of a model goes into them, put together from transforms, formats and checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from graph_restore.checkpoint import save_checkpoint
from graph_restore.checkpoint.install import existing_files
from graph_restore.errors import GraphRestoreError, RestoreError
from graph_restore.formats.graph_def import check_length, is_too_long
from graph_restore.formats.meta_graph import encode_meta_graph
from graph_restore.formats.saved_model import SERVE, new_directory, write_saved_model_files
from graph_restore.model import Model
from graph_restore.slices import TensorSlice, join
from graph_restore.storage.output import AtomicFile, Progress, refuse_special
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.collections import with_collections
from graph_restore.transforms.prepare import prepare
from graph_restore.transforms.saved_keys import saved_tensors
from graph_restore.transforms.saver import build_saver
from graph_restore.transforms.serving import Names, for_serving
from graph_restore.transforms.unfreeze import unfreeze
from graph_restore.variables import Variables

_LARGE = 1024  # elements of a constant that becomes a variable where the graph would be too long


def write_saved_model(
    model: Model,
    path: str,
    *,
    fetches: Names = None,
    feeds: Names = None,
    signatures: Mapping[str, Any] | None = None,
    tags: Iterable[str] | str | None = None,
    whole_graph: bool = False,
    references: bool = False,
    asset_dir: str | None = None,
    keep_devices: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write the SavedModel directory `path`: graph, values, assets, with what its signatures need.

    `fetches`, `feeds`: tensors of a signature `serving_default`; `signatures`: name to SignatureDef or
    {"inputs": ..., "outputs": ...}; without both, the model's own, or the one candidate. `tags`: by default those of
    the SavedModel the model came from, else `serve`. `whole_graph`: keep what no signature needs, such as training.
    `references`: leave reference variables as they are, which tf.saved_model.load lists as no variables. `asset_dir`:
    where vocabulary files are now. `overwrite`: replace a SavedModel that is there. A frozen graph too long for one
    protobuf message gets its large floating-point constants back as variables (see `unfreeze`).

    Raises FreezeError when outputs cannot be told, or what they need has no value; UnsupportedFormatError past 2 GiB of
    graph; GraphRestoreError when something is at `path` already.
    """
    tags = [tags] if isinstance(tags, str) else list(tags if tags is not None else model.source.tags or SERVE)
    served = for_serving(
        model,
        fetches,
        feeds,
        signatures=signatures,
        whole_graph=whole_graph,
        references=references,
        asset_dir=asset_dir,
    )
    if is_too_long(served.graph.encode()):
        served = unfreeze(served, min_size=_LARGE, initializers="zeros")
    ready = _ready(served, keep_devices, quiet=not whole_graph)
    with new_directory(path, overwrite) as folder:
        write_saved_model_files(ready, folder, tags, path, progress)
        values = variable_values(ready) if len(ready.variables) else {}
        if values:
            save_checkpoint(os.path.join(folder, "variables", "variables"), values, state=False, progress=progress)


def write_meta_graph(
    model: Model,
    path: str,
    *,
    keep_devices: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> None:
    """Write `<prefix>.meta` and the checkpoint `<prefix>`, so that import_meta_graph and its Saver's restore work.

    `path` is the prefix, with `.meta` or without. The whole graph is written, with VariableDefs for its variables and a
    saver for those that have values. `options` are those of `save_checkpoint`. A model without variables (a frozen one)
    gets no checkpoint.

    Raises RestoreError when variables are there and none has a value, GraphRestoreError when files are there already.
    """
    prefix = path.removesuffix(".meta")
    refuse_special(path, "a MetaGraph and its checkpoint are several files")
    if len(model.variables) and all(variable.value is None for variable in model.variables):
        raise RestoreError(f"{model.source}: none of its variables has a value; restore or initialize the model first")
    ready = _ready(model, keep_devices)
    encoded = encode_meta_graph(ready)
    check_length(encoded, f"{prefix}.meta")
    if not overwrite and (os.path.exists(f"{prefix}.meta") or existing_files(prefix, 2)):
        raise GraphRestoreError(
            f"{prefix}.meta or its checkpoint is there already; pass overwrite=True to replace them"
        )
    os.makedirs(os.path.dirname(prefix) or ".", exist_ok=True)
    with AtomicFile(f"{prefix}.meta", progress) as file:
        file.write_all(encoded.parts())
        if len(ready.variables):
            save_checkpoint(prefix, variable_values(ready), overwrite=overwrite, progress=progress, **options)


def _ready(model: Model, keep_devices: bool, quiet: bool = False) -> Model:
    """The model with saver and collections, its graph as today's importers want it; of its variables those with values
    are left."""
    valued = Variables(variable for variable in model.variables if variable.value is not None)
    if len(valued):
        saver = build_saver(replace(model, variables=valued))
        keys = {variable.name: variable for variable in saver.variables}
        every = Variables(keys.get(variable.name, variable) for variable in model.variables)
        model, valued = replace(saver, variables=every), saver.variables
    else:
        model = replace(model, saver_def=None)
    model = with_collections(model, quiet)
    graph = prepare(model, clear_devices=not keep_devices)
    return replace(model, graph=graph, variables=valued)


def write_checkpoint(model: Model, path: str, **options: Any) -> None:
    """Write the values of a model's variables as the checkpoint `path`; `options` are those of `save_checkpoint`."""
    save_checkpoint(path, variable_values(model), **options)


def variable_values(model: Model) -> dict[str, LazyTensor]:
    """Checkpoint key to value of a restored model's variables and saved tables, as the saver of `build_saver` has them;
    the slices of partitioned ones put together.

    RestoreError that names the variables without a value.
    """
    tensors = saved_tensors(model)
    without = [tensor.name for tensor in tensors if tensor.value is None]
    if without or not tensors:
        raise RestoreError(
            f"{model.source} has {len(without) or 'no'} variables"
            + (f" without a value: {', '.join(without[:8])}; restore or initialize them first" if without else ""),
            missing=without,
        )
    whole: dict[str, LazyTensor] = {}
    slices: dict[str, list[tuple[TensorSlice, LazyTensor]]] = {}
    for tensor in tensors:
        if tensor.slice is not None and tensor.value is not None:
            slices.setdefault(tensor.key, []).append((tensor.slice, tensor.value))
        elif tensor.value is not None:
            whole[tensor.key] = tensor.value
    for key, parts in slices.items():
        whole[key] = join(key, parts[0][1].data_type, parts[0][0].full_shape, parts)
    return whole
