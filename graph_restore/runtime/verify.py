"""verify: two models run in TensorFlow on the same feeds, and how far their outputs are apart.

1. Which outputs: those given, else those the result was frozen to, else a signature's, else the candidates both have.
2. What is fed: what is given; else, for each placeholder that the outputs need, an array made from its dtype and shape.
3. Only what the outputs need is imported; what would run is looked through first (see `transforms.unsafe`).
4. Random ops without a seed are given one on both sides, so that dropout and its like can be compared.
5. Each side runs once, in a session of its own: freezing promises the first run after restoring.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from zipfile import BadZipFile

import numpy as np

from graph_restore.api import load
from graph_restore.errors import CheckpointNotFoundError, FormatError, FreezeError, GraphRestoreError
from graph_restore.model import Model
from graph_restore.names import node_of, parse_tensor_name, tensor_name
from graph_restore.runtime.comparison import Report, compare, described
from graph_restore.runtime.feed_plan import FeedPlan, Feeds, plan_feeds
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.made_feeds import SIZES, Array
from graph_restore.runtime.one_run import cut, refuse_unsafe, run_once, seeded
from graph_restore.transforms.feeds import resolve
from graph_restore.transforms.fetches import candidate_fetches, choose
from graph_restore.transforms.rerun import after_init_op
from graph_restore.transforms.restore import restore

_MOST_SIZES = 6
_MOST_NAMED = 3


def verify(
    original: Any,
    result: Any,
    feeds: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    fetches: str | Iterable[str] | None = None,
    checkpoint: Any = None,
    result_checkpoint: Any = None,
    atol: float = 1e-6,
    rtol: float = 1e-5,
    shapes: Mapping[str, Sequence[int]] | None = None,
    asset_dir: str | os.PathLike[str] | None = None,
    allow_unsafe_ops: bool = False,
) -> Report:
    """Run two models in TensorFlow on the same feeds and compare their outputs: a Report, whose `ok` says all agree.

    `original`, `result`: Models, or anything `load` takes; one with variables and no values is restored, the original
    from `checkpoint` and the result from `result_checkpoint` if that is given, else each from its own. `feeds`: tensor
    name to array, or the path of an `.npz` of these; placeholders that are not named are fed arrays made from their
    dtypes and shapes, always the same ones; `shapes` (node name to sizes) says which shape where the graph does not.
    `fetches`: by default those the result was frozen to, else a signature's, else all that look like outputs.
    `asset_dir`: where vocabulary files are now.
    Numbers are equal where |original - result| <= atol + rtol * |original|.

    Raises TensorFlowRequiredError without TensorFlow; GraphRestoreError where one side cannot be run, and before
    anything is run where it has ops that touch files or run code, unless `allow_unsafe_ops`; NodeNotFoundError for
    fetches that are not in both, and for a placeholder that the result needs and the original lacks; and what `load`
    and `restore` raise.
    """
    given, folder = _given(feeds), None if asset_dir is None else os.fspath(asset_dir)
    first = _with_values(original, checkpoint, "checkpoint")
    second = _with_values(result, result_checkpoint, "result_checkpoint")
    names = _fetches(first, second, fetches)
    plan = plan_feeds(first.graph, second.graph, names, given, dict(shapes or {}))
    first = cut(first, names, [feed.first for feed in plan.feeds if feed.first], folder)
    second = cut(second, names, [feed.second for feed in plan.feeds if feed.second], folder)
    if not allow_unsafe_ops:
        refuse_unsafe(first, names, [feed.first for feed in plan.feeds if feed.first], folder)
        refuse_unsafe(second, names, [feed.second for feed in plan.feeds if feed.second], folder)
    tensorflow()  # whose import takes seconds: whatever is wrong with the arguments was said by now
    first, second, notes = _seeded(first, second)
    fed, there, expected = _run_first(first, names, plan)
    found = run_once(second, names, there)
    outputs = [compare(name, one, two, atol, rtol) for name, one, two in zip(names, expected, found)]
    fed = {**{feed.second: there[feed.second] for feed in plan.feeds if not feed.first}, **fed}
    return Report(tuple(outputs), {name: described(array) for name, array in fed.items()}, atol, rtol, tuple(notes))


def _with_values(source: Any, checkpoint: Any, argument: str) -> Model:
    """The model with values for its variables and a restoration, as `restore_graph` wants it to fill tables.

    `argument`: the name that `checkpoint` goes by, for the error where a model with variables has none."""
    model = load(source)
    if checkpoint is None and len(model.variables) and model.restoration is None and model.source.checkpoint is None:
        named = ", ".join([*model.variables.names()[:_MOST_NAMED], "..."][: len(model.variables)])
        raise CheckpointNotFoundError(
            f"{model.source} has variables ({named}) and no checkpoint of its own; pass "
            f"{argument}= with the checkpoint's prefix or directory"
        )
    if checkpoint is not None or (len(model.variables) and model.restoration is None):
        return after_init_op(restore(model, checkpoint), tell=False)
    return after_init_op(model, tell=False) if model.restoration is not None else restore(model, {})


def read_feeds(path: str | os.PathLike[str]) -> Feeds:
    """Name to array of an `.npz`; FormatError for another file, and for pickled objects, which could run code."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, AttributeError, TypeError, EOFError, BadZipFile) as error:
        raise FormatError(f"feeds are an .npz of arrays by tensor name ({error})", path=os.fspath(path)) from None


def _given(feeds: Mapping[str, Any] | str | os.PathLike[str] | None) -> Feeds:
    if isinstance(feeds, str | os.PathLike):
        feeds = read_feeds(feeds)
    return {tensor_name(*parse_tensor_name(name)): np.asarray(value) for name, value in (feeds or {}).items()}


def _fetches(first: Model, second: Model, given: str | Iterable[str] | None) -> list[str]:
    """The full names of the outputs, which both models have."""
    if given is None:
        given = second.fetches or None
    if given is None and (first.signatures or second.signatures):
        given, _ = choose(second if second.signatures else first, None, None)
    if given is None:
        given = [name for name in candidate_fetches(second.graph) if node_of(name) in first.graph.nodes]
    names = [tensor_name(*tensor) for tensor in resolve(second.graph, given)]
    resolve(first.graph, names)
    if not names:
        sides = [f"{one.source} has {', '.join(candidate_fetches(one.graph)) or 'none'}" for one in (first, second)]
        raise FreezeError(
            f"which outputs? nothing that looks like one is in both models: {'; '.join(sides)}; pass fetches="
        )
    return names


def _seeded(first: Model, second: Model) -> tuple[Model, Model, list[str]]:
    here, names = seeded(first.graph)
    there, others = seeded(second.graph)
    random = list(dict.fromkeys([*names, *others]))
    notes = [f"random ops without a seed were given one on both sides: {', '.join(random)}"] if random else []
    return replace(first, graph=here), replace(second, graph=there), notes


def _run_first(model: Model, names: list[str], plan: FeedPlan) -> tuple[Feeds, Feeds, list[Array]]:
    """(feeds of the original, of the result, the original's outputs). Made feeds change until they can be run."""
    failure: GraphRestoreError | None = None
    for here, there in plan.attempts(_sizes(model)):
        try:
            return here, there, run_once(model, names, here)
        except GraphRestoreError as error:
            failure = failure or error
    hint = "pass feeds that it can be run with (--feeds FILE, with freeze --verify-feeds FILE), or their shapes "
    hint += "(shapes={'x': [2, 4]}; verify --shape x=2,4)"
    raise GraphRestoreError(f"{failure}; {hint}") from failure


def _sizes(model: Model) -> list[int]:
    """Sizes to try for open dimensions: some of our own between those that variables have, which inputs often match."""
    first, *others = SIZES
    inner = [one.shape[axis] for one in model.variables if one.shape and len(one.shape) > 1 for axis in (0, -2)]
    found = dict.fromkeys(size for size in inner if size)
    return list(dict.fromkeys([first, *list(found)[:_MOST_SIZES], *others]))
