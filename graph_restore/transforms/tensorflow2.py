"""for_tensorflow2: a model in the form that functions of TensorFlow 2 take: cut to its fetches, and brought up to date.

1. The graph is cut at the feeds and to the fetches; queues and iterators on the way are cut as `freeze` cuts them.
2. Ops that today's TensorFlow lacks are written with others where that can be (see `modernize`).
3. Calls of functions become what these do (see `calls`).
4. Reference variables become resource variables (see `resources`), tables with string handles those with resources.
5. Loops and conds become functional, so that they can be differentiated (see `functionalize`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from graph_restore.dtypes import REF_OFFSET, DataType
from graph_restore.errors import UpgradeError
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import parse_tensor_name, tensor_name
from graph_restore.transforms.calls import CALLS, OWN_GRADIENT, own_gradients, with_own_gradients, without_calls
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.feeds import cut_feeds, resolve
from graph_restore.transforms.fetches import choose
from graph_restore.transforms.flow_contexts import loops_without_gradient
from graph_restore.transforms.functionalize import functionalize
from graph_restore.transforms.functions import modern_functions, reachable_functions
from graph_restore.transforms.modernize import modernize
from graph_restore.transforms.pipelines import cut_pipelines
from graph_restore.transforms.resources import upgrade_variables
from graph_restore.transforms.tables import HASH_TABLES, MUTABLE_TABLES
from graph_restore.variables import Variables

_TABLE_OPS = frozenset(
    {
        *(name for name in HASH_TABLES | MUTABLE_TABLES if not name.endswith("V2")), "LookupTableFind",
        "LookupTableInsert", "LookupTableSize", "LookupTableExport", "LookupTableImport", "InitializeTable",
        "InitializeTableFromTextFile",
    }
)  # fmt: skip
_PASSING = frozenset({"Enter", "RefEnter", "Switch", "RefSwitch", "Identity", "RefIdentity"})


def for_tensorflow2(
    model: Model, fetches: str | Iterable[str] | None = None, feeds: str | Iterable[str] | None = None
) -> Model:
    """The model, cut to `fetches` and ready for a function of TensorFlow 2; `fetches` and `feeds` of the result say
    which tensors these are.

    `fetches`, `feeds`: node or tensor names; by default the signature's, else the one sensible candidate, and the
    placeholders that it needs. Every feed is a Placeholder or an IdentityN over Placeholders, as in `freeze`.

    Raises FreezeError when there is no sensible choice, NodeNotFoundError for names that are not there, UpgradeError
    for what has no form in TensorFlow 2.
    """
    chosen, given = choose(model, fetches, feeds)
    part = modernize(cut(model, chosen, given, every_placeholder=feeds is None and not given))
    graph = with_own_gradients(part.graph)
    part = replace(part, graph=without_calls(graph, {*CALLS, *graph.functions}))
    upgraded = upgrade_variables(part, chosen)
    tables = replace(upgraded, graph=_modern_tables(upgraded.graph))
    functional = functionalize(tables, chosen, loops_without_gradient(model.collections))
    graph = reachable_functions(functional.graph)
    own = [
        f"function {name} {OWN_GRADIENT}, {gradient}, which functions of TensorFlow 2 forget"
        for name, gradient in own_gradients(graph).items()
    ]
    return replace(functional, graph=graph, notes=(*functional.notes, *own))


def cut(model: Model, fetches: list[str], feeds: list[str], every_placeholder: bool = False) -> Model:
    """The model cut at `feeds` and to `fetches`; UpgradeError that names placeholders that nothing feeds."""
    draft = Draft(modern_functions(model.graph))
    targets, sources = resolve(draft.graph, fetches), resolve(draft.graph, feeds)
    if every_placeholder:
        needed = draft.ancestors(name for name, _ in targets)
        sources = [(name, 0) for name, node in draft.nodes.items() if name in needed and node.op == "Placeholder"]
    cut_feeds(draft, sources, targets)
    cut_pipelines(draft, targets)
    fed = {f"{name}/{index}" for name, index in sources} | {name for name, _ in sources}
    needed = draft.ancestors(name for name, _ in targets)
    unfed = [name for name in needed if draft.nodes[name].op == "Placeholder" and name not in fed]
    if unfed:
        raise UpgradeError(
            f"the fetches need {', '.join(sorted(unfed))}, which nothing feeds; add to feeds=, or fetch something else",
            nodes=dict.fromkeys(unfed, "is not fed"),
        )
    draft.keep(needed)
    return replace(
        model,
        graph=draft.finish(),
        variables=Variables(variable for variable in model.variables if variable.name in draft.nodes),
        savers=(), saver_def=None, collections={}, signatures={},
        fetches=tuple(tensor_name(*tensor) for tensor in targets),
        feeds=tuple(tensor_name(*tensor) for tensor in sources),
        notes=(*model.notes, *draft.notes),
    )  # fmt: skip


def _modern_tables(graph: Graph) -> Graph:
    """Tables of graphs before 1.4, whose handles are references to strings, with resource handles."""
    draft = Draft(graph)
    old = [name for name, node in draft.nodes.items() if node.op in _TABLE_OPS]
    consumers = draft.consumers()
    for name in old:
        changed = draft.change(name)
        changed.op += "V2"
        if changed.op in HASH_TABLES | MUTABLE_TABLES:
            _renew_handle(draft, name, consumers)
    return draft.finish() if old else graph


def _renew_handle(draft: Draft, name: str, consumers: dict[str, list[tuple[Any, int]]]) -> None:
    waiting = [(name, 0)]
    while waiting:
        tensor = waiting.pop()
        for node, position in consumers[tensor[0]]:
            if parse_tensor_name(node.input[position]) == tensor and node.op in _PASSING and position == 0:
                changed = draft.change(node.name)
                changed.op = changed.op.removeprefix("Ref")
                if changed.attr["T"].type % REF_OFFSET == DataType.DT_STRING:
                    changed.attr["T"].type = DataType.DT_RESOURCE
                    waiting += [(node.name, index) for index in range(2 if "Switch" in node.op else 1)]
