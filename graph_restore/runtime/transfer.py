"""transfer: values of an old model's variables for those of a new one, checked before any is given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graph_restore.api import load
from graph_restore.checkpoint.opening import load_tensors
from graph_restore.errors import CheckpointNotFoundError, FormatError, GraphRestoreError, RestoreError
from graph_restore.model import Model
from graph_restore.runtime.assignments import Assignment, Assignments, Plan
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.session import with_values
from graph_restore.runtime.targets import Target, targets_of
from graph_restore.storage.files import is_accumulator, is_file
from graph_restore.tensors import lazy
from graph_restore.transforms.donors import Donors, of_model, of_tensors
from graph_restore.transforms.renaming import Rename
from graph_restore.transforms.restore import restore


@dataclass
class Transfer:
    """What goes where. Printed, it is a report; `to_dict()` is the same for programs.

    `pairs`: an Assignment (`source`, `target`, `how`) for each variable that gets a value. `ambiguous`: target to the
    sources that could be meant, of which none was taken. `unused`: sources that go nowhere; `aside`: those that only
    training needs, and what they are. `kept`: targets that keep their values. `applied`: whether the values were given.
    """

    pairs: tuple[Assignment, ...]
    ambiguous: Mapping[str, list[str]]
    unused: tuple[str, ...]
    aside: Mapping[str, str]
    kept: tuple[str, ...]
    notes: tuple[str, ...]
    session: Any = field(default=None, repr=False)
    applied: bool = False

    @property
    def mapping(self) -> dict[str, str]:
        """Source to target, to be changed and given to `transfer`; cells of LSTMs and GRUs by their scopes."""
        return {pair.key: pair.target_key for pair in self.pairs}

    def apply(self) -> Transfer:
        """Give the targets their values, which are read one at a time; the same object.

        Errors of reading (CorruptionError) may come when some have theirs already.
        """
        session = self.session
        if session is None and any(pair.target.is_in_graph for pair in self.pairs):
            session = tensorflow().compat.v1.get_default_session()
            if session is None:
                raise GraphRestoreError("the target's variables are part of a graph; pass session=")
        for pair in self.pairs:
            pair.target.assign(pair.value, session)
        self.applied = True
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, for json."""
        return {
            "pairs": [{"source": pair.source, "target": pair.target.name, "how": pair.how} for pair in self.pairs],
            "ambiguous": dict(self.ambiguous),
            "unused": list(self.unused),
            "aside": dict(self.aside),
            "kept": list(self.kept),
            "notes": list(self.notes),
            "applied": self.applied,
        }

    def __str__(self) -> str:
        state = "given" if self.applied else "proposed, nothing is given before .apply()"
        lines = [f"{len(self.pairs)} values {state}; {len(self.kept)} targets keep theirs"]
        lines += [f"  {pair.source} -> {pair.target.name} {pair.target.described} ({pair.how})" for pair in self.pairs]
        lines += [f"  ambiguous  {name}: {' or '.join(found)}" for name, found in self.ambiguous.items()]
        lines += [f"  kept       {name}" for name in self.kept if name not in self.ambiguous]
        lines += [f"  unused     {name}" for name in self.unused]
        lines += [f"  aside      {name}, {what}" for name, what in self.aside.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def transfer(
    source: Any,
    target: Any,
    mapping: Mapping[str, Any] | str | None = None,
    *,
    rename: Rename = None,
    checkpoint: Any = None,
    moving_averages: bool = False,
    cast: bool = False,
    forget_bias: float | None = None,
    session: Any = None,
) -> Transfer:
    """Give variables of a new model the values that an old one has; what is not named keeps its own.

        transfer("run/model.ckpt-1000", new_model, {"conv1/": new_model.layers[0], "fc/weights": "dense/kernel"})
        print(plan := transfer("run/model.ckpt-1000", new_model, "auto"));  plan.apply()

    `source`: a Model, anything `load` takes, a checkpoint, a .npz or .safetensors file, or a mapping of arrays.
    `target`: a tf.Module, a Keras model or layer, a variable, a list or dict of these; variables of a live graph too,
    whose values are in `session` (by default the default session).

    `mapping`: name of an old variable to a new one (the variable, its path, or an end of the path that only it has), or
    scope (`"conv1/"`, `""` for all) to scope or layer, in which `weights` is `kernel` and `biases` is `bias`. `rename`:
    old name to path, in the forms that `restore` takes. With neither, names must be the same. All shapes and dtypes are
    checked, then values are given. `"auto"`: pairs are proposed by names, shapes and order, and nothing is given before
    `.apply()` of the result is called. Slots, moving averages and counters are transferred only where they are named.

    `checkpoint`, `moving_averages`: as for `restore`. `cast`: convert numbers of another dtype. `forget_bias`: what an
    old LSTM cell adds to its forget gate (1.0 unless it was made otherwise), which Keras has in the bias; to be given
    where no graph tells. The gates of old LSTM and GRU cells are put in the order of Keras's layers.

    Raises RestoreError with all that does not fit, before anything is given; GraphRestoreError for a target that has no
    variables yet.
    """
    tensorflow()
    if mapping is not None and rename is not None:
        raise ValueError("mapping and rename both say what goes where; pass one of them")
    donors = _donors(source, checkpoint, moving_averages)
    work = Assignments(donors, targets_of(target), cast, forget_bias)
    if mapping == "auto":
        return _transfer(work.automatic(), donors, work.targets, session)
    if isinstance(mapping, str):
        raise ValueError(f"mapping is a dict or 'auto', not {mapping!r}")
    plan = work.mapped(mapping) if mapping is not None else work.renamed(rename)
    return _transfer(plan, donors, work.targets, session).apply()


def _transfer(plan: Plan, donors: Donors, targets: list[Target], session: Any) -> Transfer:
    given = {pair.target.name for pair in plan.pairs}
    used = {name for pair in plan.pairs for name in pair.sources}
    return Transfer(
        tuple(plan.pairs),
        plan.ambiguous,
        tuple(name for name in donors.values if name not in used and name not in donors.aside),
        {name: what for name, what in donors.aside.items() if name not in used},
        tuple(target.name for target in targets if target.name not in given),
        tuple(plan.notes),
        session,
    )


def _donors(source: Any, checkpoint: Any, moving_averages: bool) -> Donors:
    """The values of a source; RestoreError when it has none."""
    if isinstance(source, Mapping):
        return of_tensors({str(key): lazy(str(key), value) for key, value in source.items()})
    model = source if isinstance(source, Model) else None
    if model is None:
        is_path = isinstance(source, str | os.PathLike)
        beside = f"{os.fspath(source)}.meta" if is_path else ""  # a checkpoint of version 1 is a file of its own
        try:
            model = load(beside if is_path and is_file(beside) else source)
        except (FormatError, FileNotFoundError):
            if not (is_path or is_accumulator(source)) or checkpoint is not None:
                raise
            return _of_checkpoint(source, moving_averages)
    restored = restore(model, checkpoint, moving_averages=True) if moving_averages else with_values(model, checkpoint)
    found = of_model(restored)
    if not found.values:
        raise RestoreError(
            f"{restored.source}: none of its {len(restored.variables)} variables has a value; pass checkpoint=, or "
            "make the constants of a frozen model variables again with graph_restore.unfreeze"
        )
    return found


def _of_checkpoint(path: Any, moving_averages: bool) -> Donors:
    if moving_averages:
        raise CheckpointNotFoundError(f"{path}: moving averages are told by a graph; pass the model, and checkpoint=")
    return of_tensors(load_tensors(path))
