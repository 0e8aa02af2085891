"""restore: values for variables, from a checkpoint, with a report of what fitted.

1. The saver of the graph whose keys the checkpoint holds decides which key belongs to which variable: most keys, then
   agreeing shapes, then the MetaGraph's own. A variable it does not name is looked for under its own name, under its
   name in an object-based checkpoint, then under another saver's key.
2. A partition `<name>/part_<i>` of which no slice is known is cut from the tensor `<name>` in order.
3. Of several sources the first that has a variable's tensor gives it; each is renamed and searched by itself.
4. A variable that nothing uses and no saver knows is not missed; the one used in its place is found by its name too.
5. A tensor whose shape or dtype disagrees is a mismatch; all of them make one RestoreError.
"""

from __future__ import annotations

from typing import Any

from graph_restore.discovery import with_saver
from graph_restore.errors import RestoreError
from graph_restore.model import Model, require_model
from graph_restore.transforms.leftovers import leftovers, stand_ins
from graph_restore.transforms.matching import Finder, choose_saver, import_prefix
from graph_restore.transforms.renaming import Rename, Renaming
from graph_restore.transforms.report import Report
from graph_restore.transforms.selection import Selected, Selection
from graph_restore.transforms.sources import Source, merged, open_sources


def restore(
    model: Model,
    checkpoint: Any = None,
    *,
    include: Selection = None,
    exclude: Selection = None,
    rename: Rename = None,
    moving_averages: bool = False,
    cast: bool = False,
    strict: bool = False,
    on_mismatch: str = "error",
) -> Model:
    """The model with values attached to its variables (LazyTensors; nothing is read) and `restoration` filled in.

    `checkpoint`: a path (of a checkpoint, a .npz or a .safetensors file), a Checkpoint, a mapping from key to array,
    or a list of these, the first that has a tensor winning; by default the one that belongs to the model's source.
    `include`, `exclude`: which variables to restore (see `selection`). `rename`: checkpoint key to variable name (see
    `renaming`), or "auto" for the one systematic change that makes every name fit. `moving_averages`: take the averaged
    values for variables that have them. `cast`: convert numbers of another dtype. `strict`: a selected variable without
    a tensor is an error. `on_mismatch`: "error" or "skip".

    Raises RestoreError with all that is missing (if `strict`) or mismatched; CheckpointNotFoundError for a bare graph
    without `checkpoint`; GraphRestoreError when `rename` gives two keys one name.
    """
    require_model(model)
    if on_mismatch not in ("error", "skip"):
        raise ValueError(f"on_mismatch is 'error' or 'skip', not {on_mismatch!r}")
    sources = open_sources(model, checkpoint)
    notes = [note for source in sources for note in source.notes]
    if isinstance(rename, str) and rename == "auto":
        rename, guessed = _guessed(model, sources, include, exclude)
        notes.append(guessed)
    renaming = Renaming(rename)
    renamed = [renaming.apply(source.tensors) for source in sources]
    tensors, hidden = merged(sources, renamed)
    saver, choice = choose_saver(model, tensors)
    variables = with_saver(model.variables, saver)
    prefix = import_prefix(variables, tensors, model.savers)
    if prefix:
        choice.append(f"the graph has no saver; names are looked for without their scope {prefix}")
    left = leftovers(model, variables)
    stood_for, idle = stand_ins(variables, left), list[str]()
    finders = [Finder(found, renaming, variables, model.savers, prefix, stood_for) for found in renamed]
    chosen = Selected("include", include, default=True)
    left_out = Selected("exclude", exclude, default=False)
    report = Report(tensors, [source.name for source in sources], cast, renaming.steps)
    for variable in variables:
        if not chosen(variable) or left_out(variable):
            report.keep(variable)
            continue
        averaged = moving_averages and _take(report, "average", finders, variable)
        if not averaged and not _take(report, "find", finders, variable):
            if variable.name in left:
                report.keep(variable)
                idle.append(variable.name)
            else:
                report.miss(variable)
    if moving_averages and not report.averaged:
        notes.append("moving_averages=True changed nothing: no variable that was restored has an average there")
    if idle:
        notes.append(f"{len(idle)} variables without a value that nothing uses or saves: {', '.join(idle)}")
    notes += [*hidden, *choice, *chosen.notes(variables), *left_out.notes(variables)]
    notes += renaming.notes(key for source in sources for key in source.tensors)
    return report.finish(model, notes, strict, on_mismatch)


def _take(report: Report, how: str, finders: list[Finder], variable: Any) -> bool:
    """Whether a source has the variable's tensor ("find") or its average; if so, that of the first one is taken."""
    for number, finder in enumerate(finders):
        match = getattr(finder, how)(variable)
        if match is not None:
            report.take(match, number, average=how == "average")
            return True
    return False


def _guessed(model: Model, sources: list[Source], include: Selection, exclude: Selection) -> tuple[Rename, str]:
    """The rename that makes everything fit, when there is just one; RestoreError when it is not certain."""
    report = restore(model, sources, include=include, exclude=exclude, on_mismatch="skip").restoration
    assert report is not None
    if not report.missing:
        return None, "rename='auto' changed nothing: no name is missing"
    if report.guess is None or not report.guess.certain:
        raise RestoreError(
            f"rename='auto': no one change of names fits; the nearest: {report.guess or 'none'}",
            missing=list(report.missing),
            unused=report.unused,
        )
    return report.guess.rename, f"rename='auto': {report.guess}"
