"""Input pipelines, queues and iterators, that the fetches need: nothing would fill them, so they are cut, with a word.

1. Each becomes a placeholder, as a feed does (see `feeds`); in a branch of a cond it is handed into that branch, and
   the predicate is needed then (see `fed_places`).
2. In a loop it is an error that names what can be fed instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from graph_restore.names import tensor_name
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.fed_places import (
    INPUT_PIPELINES,
    Places,
    check_fetches,
    check_pipeline,
    hand_into_branch,
)
from graph_restore.transforms.feeds import cut, used_outputs


def cut_pipelines(draft: Draft, fetches: Sequence[Tensor]) -> None:
    """Turn queues and iterators that the fetches still need into placeholders.

    FreezeError for those in loops, and for fetches there.
    """
    places = Places(draft)
    check_fetches(places, draft, fetches)
    targets = {name for name, _ in fetches}
    while pipelines := draft.of_ops(INPUT_PIPELINES):
        needed = draft.ancestors(targets, stop=lambda node: node.op in INPUT_PIPELINES)
        found = [name for name in pipelines if name in needed]
        if not found:
            break
        _cut_all(draft, Places(draft), found, used_outputs(draft, needed, fetches))


def cut_fed_pipelines(draft: Draft, fed: Sequence[Tensor]) -> None:
    """Cut those queues and iterators in branches that are fed, without a word.

    TensorFlow gives what is fed to both branches, which is not what it does with what a queue gives.
    """
    places = Places(draft)
    names = {name for name, _ in fed if draft.nodes[name].op in INPUT_PIPELINES}
    gates = {name: gates for name in names if (gates := places.gates(name))}
    for name in gates:
        outputs = {index for one, index in fed if one == name}
        cut(draft, name, outputs, outputs)
        hand_into_branch(draft, name, gates[name])


def _cut_all(draft: Draft, places: Places, names: list[str], used: dict[str, set[int]]) -> None:
    gates = {name: places.gates(name) for name in names}
    for name in names:
        node = draft.nodes[name]
        check_pipeline(places, node)
        outputs = used.get(name, set())
        cut(draft, name, outputs or {0}, outputs)
        hand_into_branch(draft, name, gates[name])
        listed = ", ".join(tensor_name(name, index) for index in sorted(outputs or {0}))
        draft.note(f"{node.op} {name} is cut: feed {listed}")
