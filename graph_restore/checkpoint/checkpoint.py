"""A checkpoint as a mapping from tensor names to LazyTensors, whatever its version and however it lies on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property

from graph_restore.checkpoint.objects import ObjectGraph, object_graph
from graph_restore.checkpoint.paths import CheckpointFiles, find_checkpoint
from graph_restore.checkpoint.v1 import read_tables
from graph_restore.checkpoint.v2 import read_bundle
from graph_restore.errors import TensorNotFoundError, did_you_mean, warn
from graph_restore.slices import JoinedStrings, JoinedTensor, TensorSlice
from graph_restore.tensors import LazyTensor


class Checkpoint(Mapping[str, LazyTensor]):
    """The tensors of a checkpoint by name, in sorted order; the names are those of `tf.train.list_variables`.

    `prefix`: the path TensorFlow takes. `version`: 1 or 2. `files`: what it was read from, the index of a V2
    checkpoint first. `notes`: what was chosen on the way to it, in sentences. A partitioned tensor is one tensor under
    its full name. The tensors of an object-based checkpoint are also found by any path to their object
    (`model/layer/kernel`) and by their full name, where that is one variable's only.
    """

    def __init__(self, found: CheckpointFiles, tensors: Mapping[str, LazyTensor], files: list[str]) -> None:
        self.prefix = found.prefix
        self.version = found.version
        self.files = list(files)
        self.notes = list(found.notes)
        self._tensors = {name: tensors[name] for name in sorted(tensors)}

    @cached_property
    def objects(self) -> ObjectGraph | None:
        """The object graph of a checkpoint of tf.train.Checkpoint or Keras; None of one that is name-based."""
        return object_graph(self._tensors)

    def __getitem__(self, name: str) -> LazyTensor:
        key = name if name in self._tensors or self.objects is None else self.objects.key_of(name)
        try:
            return self._tensors[key or name]
        except KeyError:
            raise TensorNotFoundError(f"no tensor {name!r} in checkpoint {self.prefix}{self._hint(name)}") from None

    def _hint(self, name: str) -> str:
        """What may be meant by a name that no tensor has."""
        several = self.objects.keys_named(name) if self.objects is not None else []
        if several:
            return f"; {len(several)} variables have that full name, take one by its key: {', '.join(several)}"
        return did_you_mean(str(name), self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def slices(self, name: str) -> list[tuple[TensorSlice, LazyTensor]]:
        """The slices a tensor is stored in, as (place, tensor); of one stored whole, itself alone."""
        tensor = self[name]
        if isinstance(tensor, JoinedTensor | JoinedStrings):
            return list(tensor.slices)
        return [(TensorSlice(tensor.shape, (0,) * len(tensor.shape), tensor.shape), tensor)]

    def __repr__(self) -> str:
        return f"<Checkpoint {self.prefix} V{self.version}, {len(self)} tensors>"


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint at `path`: a prefix, any of its files, a state file, or a directory (see find_checkpoint).

    A path may lead into an archive (`run.zip/model.ckpt`) or, with fsspec, to a store (`s3://...`). All names, types,
    shapes and places are read and checked; values stay on disk until they are read.
    Raises CheckpointNotFoundError when it or a data file it needs is not there, FormatError when a file is damaged or
    is something else.
    """
    found = find_checkpoint(path)
    if found.version == 2:
        tensors, files = read_bundle(found.prefix)
    else:
        tensors, files = read_tables(found.files), list(found.files)
    for text in found.warnings:
        warn(text)
    return Checkpoint(found, tensors, files)
