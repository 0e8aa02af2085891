"""inference=True: what is there for training only takes the form it has when the model is used.

1. Batch norm normalises by its moving averages (see `batch_norm`), 2. dropout lets its input pass (see `dropout`), in
the graph and in the bodies of its functions. 3. Other random ops, and other sums and means over the batch, are left,
with a word: they may be what the model does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graph_restore.transforms.batch_norm import BatchNorms, Shapes
from graph_restore.transforms.batch_statistics import Statistics
from graph_restore.transforms.bodies import Body
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.dropout import remove_dropout
from graph_restore.transforms.functions import called_by
from graph_restore.transforms.moving_averages import FUSED
from graph_restore.transforms.pattern import Pattern
from graph_restore.variables import Variables

_RANDOM = ("Random", "StatelessRandom", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial")
_NOT_RANDOM = ("RandomShuffleQueue", "RandomDataset", "RandomIndexShuffle")
_ROOTS = ("Rsqrt", "Sqrt", "Pow")
_MOST_LISTED = 5
_IF_FOR_TRAINING = (
    "; if they are for training only, set the placeholder that switches them off with constants= (--set), such as a "
    "keep_prob to 1.0, or feed what they give (feeds=)"
)


def turn_to_inference(
    draft: Draft, former: Mapping[str, Any], variables: Variables, targets: Sequence[Tensor]
) -> Draft:
    """The draft with training forms turned; `former` are the nodes of the whole graph as it was given.

    FreezeError for a batch norm whose inference form the graph does not tell.
    """
    fetched = [name for name, _ in targets]
    shapes: dict[str, Any] = {}
    for variable in variables:
        shapes[variable.name] = variable.value.shape if variable.value is not None else variable.shape
    _turn(draft, former, shapes, fetched, "")
    for name in sorted(called_by(draft.graph, [draft.nodes[node] for node in draft.ancestors(fetched)])):
        _turn_function(draft, name)
    draft = draft.with_functions()
    _tell_randomness(draft, fetched)
    _tell_statistics(draft, fetched)
    return draft


def _turn(draft: Draft, former: Mapping[str, Any], shapes: Shapes, fetched: Sequence[str], where: str) -> bool:
    """Turn what the fetches of one graph need; whether anything was changed."""
    needed = draft.ancestors(fetched)
    dropped = remove_dropout(draft, [name for name in draft.nodes if name in needed])
    needed = draft.ancestors(fetched)
    ordered = [name for name in draft.nodes if name in needed]
    turned: list[str] = []
    if any(draft.nodes[name].op in FUSED or draft.nodes[name].op in _ROOTS for name in ordered):
        turned = BatchNorms(draft, former, shapes, where).turn(ordered, fetched)
    for names, text in (
        (turned, "batch norms normalise by their moving averages"),
        (dropped, "dropouts are taken out"),
    ):
        if names:
            draft.note(f"{len(names)} {text}{where}: {_listed(names)}")
    return bool(dropped or turned)


def _turn_function(draft: Draft, name: str) -> None:
    body = Body(draft, name)
    former = dict(body.draft.nodes)
    body.draft.notes = draft.notes
    fetched = sorted({node for node, _ in body.returned} | body.runs)
    if _turn(body.draft, former, {}, fetched, f" in function {name}"):
        draft.functions[name] = body.finish(name, range(len(body.arguments)))
        for (owner, node), value in body.draft.payloads.items():
            if not owner:
                draft.payloads[name, node] = value


def _tell_randomness(draft: Draft, fetched: Sequence[str]) -> None:
    needed = draft.ancestors(fetched, data_only=True)
    found = [f"{name} ({node.op})" for name, node in draft.nodes.items() if name in needed and _is_random(node)]
    called = called_by(draft.graph, [draft.nodes[node] for node in needed])
    for function in sorted(called):
        for node in draft.graph.functions[function].node_def:
            found += [f"{function}/{node.name} ({node.op})"] if _is_random(node) else []
    if found:
        draft.note(
            f"the outputs are random still, by ops not recognised as a dropout: {_listed(found)}{_IF_FOR_TRAINING}"
        )


def _tell_statistics(draft: Draft, fetched: Sequence[str]) -> None:
    needed = draft.ancestors(fetched, data_only=True)
    statistics = Statistics(Pattern(draft.graph, draft.nodes, draft.payloads))
    found = [name for name, node in draft.nodes.items() if name in needed and statistics.is_over_batch(node)]
    if found:
        draft.note(f"the outputs still depend on sums or means over the batch (axis 0): {_listed(found)}")


def _is_random(node: Any) -> bool:
    return node.op.startswith(_RANDOM) and not node.op.startswith(_NOT_RANDOM)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
