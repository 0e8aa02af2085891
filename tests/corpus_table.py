"""Prints what freezing gives for each case of a corpus: `python -m tests.corpus_table [DIR ...] [--case GLOB]`.

Every file of a case that holds its graph (graph.pb, MetaGraph, SavedModel, session bundle, event file, run directory)
is loaded, restored, frozen and exported; the file is run in today's TensorFlow on the oracle's feeds, and what comes
out compared with the oracle's outputs. DIR is legacy_models unless given; others may lie as that does, or have an
`info.json` that names fetches (`outs`) and checkpoints (`prefixes`) beside an `oracle.npz` of `in|...` and `out|...`,
or an `e2e_*.npz` of `in__...` and `out__...` beside any model. Exit status 1 when a result differs or anything but a
reason came.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import graph_restore as gr
from tests.corpus import CORPUS, Arrays, Case, all_cases, strings

RELATIVE, ABSOLUTE = 1e-5, 1e-5  # other kernels add in another order


@dataclass(frozen=True)
class Source:
    """One file or directory that holds a case's graph, its checkpoint if it has none of its own, and the answers."""

    case: str
    form: str
    path: Path
    checkpoint: str | None
    feeds: Arrays
    outputs: Arrays
    tags: list[str] | None = None


@dataclass(frozen=True)
class Row:
    """What came of a source: `frozen` and `equal` are yes, no or - (not tried)."""

    source: Source
    frozen: str
    equal: str
    reason: str = ""
    wrong: bool = False


def sources(root: Path) -> Iterator[Source]:
    """Every source below a directory, whichever of the three forms its cases have."""
    for one in all_cases(root):
        if one.has_graph:
            yield from _of_case(one)
    for path in sorted(root.glob("**/info.json")):
        yield from _of_info(path, root)
    for path in sorted(root.glob("**/e2e_*.npz")):
        yield from _of_run(path, root)


def _of_case(one: Case) -> Iterator[Source]:
    run = one.oracle["runs"][0] if one.oracle["runs"] else {"feeds": {}, "outputs": {}}
    given: Any = (run["feeds"], run["outputs"])
    yield Source(one.id, "graph.pb", one.graph_pb, one.prefix, *given)
    if one.meta is not None:
        yield Source(one.id, ".meta", one.meta, one.prefix, *given)
    for fact, form in (("saved_model", "SavedModel"), ("session_bundle", "session bundle")):
        if fact in one.facts:
            for inside in one.facts[fact].get("meta_graphs", [{"tags": None}]):
                place = one.directory / one.facts[fact]["path"]
                yield Source(one.id, form, place, None, *_signed(inside, run), inside["tags"])
    if "events" in one.facts:
        yield Source(one.id, "event file", one.directory / "events", one.prefix, *given)
    if "run_directory" in one.facts:
        yield Source(one.id, "run directory", one.directory / one.facts["run_directory"], None, *given)


def _signed(meta_graph: Any, run: Any) -> tuple[Arrays, Arrays]:
    """The feeds and outputs that the signatures of a SavedModel's MetaGraph name; all of the run's without them."""
    signatures = meta_graph.get("signatures", {}).values()
    names = [{name for one in signatures for name in one[side].values()} for side in ("inputs", "outputs")]
    if not signatures:
        return run["feeds"], run["outputs"]
    of_feeds, of_outputs = ({k: v for k, v in run[side].items() if k in some} for side, some in zip(run, names))
    return of_feeds, of_outputs


def _of_info(path: Path, root: Path) -> Iterator[Source]:
    folder, facts = path.parent, json.loads(path.read_text(encoding="utf-8"))
    with np.load(folder / "oracle.npz", allow_pickle=True) as stored:
        found = {name: stored[name] for name in stored.files}
    found.update(
        {name: strings({"shape": shape, "latin1": text}) for name, (shape, text) in facts.get("strings", {}).items()}
    )
    feeds = {name[3:]: value for name, value in found.items() if name.startswith("in|")}
    given: Any = (feeds, {name: found[f"out|{name}"] for name in facts["outs"]})
    name, main = str(folder.relative_to(root)), next(iter(facts["prefixes"].values()), None)
    places = [
        ("graph.pb", folder / "graph.pb"),
        ("event file", folder / "events"),
        ("SavedModel", folder / "saved_model"),
    ]
    for form, place in places:
        if place.exists() and given[1]:
            yield Source(name, form, place, None if form == "SavedModel" else f"{folder}/{main}", *given)
    for prefix in dict.fromkeys(facts["prefixes"].values()):
        if (folder / f"{prefix}.meta").exists() and given[1]:
            yield Source(name, ".meta", folder / f"{prefix}.meta", f"{folder}/{prefix}", *given)


def _of_run(path: Path, root: Path) -> Iterator[Source]:
    with np.load(path, allow_pickle=True) as stored:
        arrays = {key.replace("|", "/"): stored[key] for key in stored.files}
    given: Any = [
        {(name if ":" in name else f"{name}:0"): value for name, value in _after(f"{kind}__", arrays).items()}
        for kind in ("in", "out")
    ]
    folder = path.parent
    places = [*sorted(folder.glob("*.meta")), *sorted(folder.glob("*.pb"))]
    for place in dict.fromkeys(folder if one.name == "saved_model.pb" else one for one in places):
        form = "SavedModel" if place == folder else place.suffix if place.suffix == ".meta" else place.name
        yield Source(f"{folder.relative_to(root)}/{path.stem}", form, place, None, *given)


def _after(start: str, arrays: Arrays) -> Arrays:
    return {name[len(start) :]: value for name, value in arrays.items() if name.startswith(start)}


def row(source: Source, folder: Path) -> Row:
    """Load, restore, freeze, export, run and compare one source."""
    if not source.outputs:
        return Row(source, "-", "-", "its oracle names no output")
    try:
        frozen, word = _frozen(source)
        gr.export(frozen, folder / "frozen.pb")
    except gr.GraphRestoreError as error:
        return Row(source, "no", "-", _line(error).replace(f"{source.path.parent}/", ""))
    except Exception as error:
        return Row(source, "no", "-", f"{type(error).__name__}: {_line(error)}", wrong=True)
    return _compared(source, folder / "frozen.pb", _gone(frozen), word)


def _frozen(source: Source) -> tuple[gr.Model, str]:
    """The frozen model, and a word if variables had to have their first values, as in the session of the oracle."""
    model = gr.load(source.path, tags=source.tags)
    model = gr.restore(model, source.checkpoint) if len(model.variables) else model
    names = list(source.outputs), list(source.feeds)
    try:
        return gr.freeze(model, *names), ""
    except gr.FreezeError as error:
        if not error.variables:
            raise
        return gr.freeze(gr.initialize(model), *names), f"with first values for {', '.join(error.variables)}"


def _compared(source: Source, path: Path, gone: list[str], word: str) -> Row:
    try:
        found = _run(path, list(source.outputs), source.feeds)
    except Exception as error:
        lacks = f"TensorFlow lacks {', '.join(gone)}" if gone else f"{type(error).__name__}: {_line(error)}"
        return Row(source, "yes", "-", lacks, wrong=not gone)
    differing = [name for name, value in zip(source.outputs, found) if not _is_equal(value, source.outputs[name])]
    if differing:
        return Row(source, "yes", "no", f"differs in {', '.join(differing)}", wrong=True)
    return Row(source, "yes", "yes", word)


def _gone(model: gr.Model) -> list[str]:
    """The ops of a model that today's TensorFlow has no kernel for, by its own registry."""
    from tensorflow.python.framework import op_def_registry

    bodies = [node.op for function in model.graph.graph_def.library.function for node in function.node_def]
    own = {function.signature.name for function in model.graph.graph_def.library.function}
    used = {node.op for node in model.graph.graph_def.node} | set(bodies)
    return sorted(op for op in used - own - {"PyFunc", "PyFuncStateless"} if op_def_registry.get(op) is None) + sorted(
        f"the Python function of {op}" for op in used & {"PyFunc", "PyFuncStateless"}
    )


def _run(path: Path, fetches: list[str], feeds: Arrays) -> list[Any]:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(tf.GraphDef.FromString(path.read_bytes()), name="")
        return list(session.run(fetches, feeds))


def _is_equal(found: Any, expected: np.ndarray[Any, Any]) -> bool:
    value = np.asarray(found, object if expected.dtype == object else None)
    if value.dtype == ml_dtypes.bfloat16 and expected.dtype == np.uint16:
        expected = expected.view(ml_dtypes.bfloat16)
    if value.shape != expected.shape or value.dtype.itemsize != expected.dtype.itemsize:
        return False
    if value.dtype.kind in "OSUb":
        return bool(value.tolist() == expected.tolist())
    return np.allclose(
        value.astype(np.complex128), expected.astype(np.complex128), rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def main(arguments: list[str] | None = None) -> int:
    """Print the table and what it sums up to; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus_table", description=__doc__.split("\n\n")[0])
    parser.add_argument("directories", nargs="*", type=Path, metavar="DIR", help="corpora [legacy_models]")
    parser.add_argument("--case", default="*", metavar="GLOB", help="these cases only")
    parser.add_argument("--reasons", action="store_true", help="only rows that are not frozen and equal")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for root in options.directories or [CORPUS]:
            for source in sources(root):
                if fnmatch.fnmatch(source.case, options.case):
                    rows.append(row(source, Path(folder)))
                    if not (options.reasons and rows[-1].equal == "yes"):
                        _print(rows[-1])
    if not rows:
        places = ", ".join(str(root) for root in options.directories or [CORPUS])
        print(f"no case fits {options.case!r} in {places}; cases are such as linear/tf1.4.1-v2", file=sys.stderr)
        return 1
    return _sum_up(rows)


def _print(one: Row) -> None:
    text = f"{one.source.case:<42} {one.source.form:<15} {one.frozen:<6} {one.equal:<5} {one.reason}"
    print(text.rstrip(), flush=True)


def _sum_up(rows: list[Row]) -> int:
    forms: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for one in rows:
        kind = (
            "equal" if one.equal == "yes" else "wrong" if one.wrong else "refused" if one.frozen == "no" else "not run"
        )
        forms[one.source.form][kind] += 1
    for form, counts in [*forms.items(), ("all", sum(forms.values(), collections.Counter()))]:
        kinds = ", ".join(f"{counts[kind]} {kind}" for kind in ("equal", "refused", "not run", "wrong") if counts[kind])
        print(f"{form}: {counts.total()}: {kinds}")
    return 1 if any(one.wrong for one in rows) else 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
