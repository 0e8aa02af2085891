"""Input pipelines, queues and iterators, that the fetches need: nothing would fill them, so they are cut, with a word.

1. Each becomes a placeholder, as a feed does (see `feeds`); in a branch of a cond it is handed into that branch, and
   the predicate is needed then (see `fed_places`).
2. In a loop, and in a function that a node of the graph calls, it is an error that names what can be fed instead.
3. A one-shot iterator that a function reads has its own data with it and runs; a note tells of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from graph_restore.errors import FreezeError
from graph_restore.names import node_of, parse_tensor_name, tensor_name
from graph_restore.transforms.contexts import ENTERS, SWITCHES
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.fed_places import (
    INPUT_PIPELINES,
    Places,
    check_fetches,
    check_pipeline,
    hand_into_branch,
)
from graph_restore.transforms.feeds import cut, used_outputs
from graph_restore.transforms.functions import called_by

_PASSING = frozenset({*ENTERS, *SWITCHES, "Identity", "RefIdentity"})
_WITHOUT_HANDLE = frozenset({"Unstage", "RecordInput"})
_BY_NAME = ("IteratorFromStringHandle", "IteratorFromStringHandleV2")
_ONE_SHOT = "OneShotIterator"


def cut_pipelines(draft: Draft, fetches: Sequence[Tensor]) -> None:
    """Turn queues and iterators that the fetches still need into placeholders.

    FreezeError for those in loops and functions, and for fetches in loops.
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
    _check_calls(draft, fetches)


def cut_fed_pipelines(draft: Draft, fed: Sequence[Tensor]) -> None:
    """Cut those queues and iterators in branches that are fed, without a word.

    TensorFlow gives what is fed to both branches, which is not what it does with what a queue gives.
    """
    places = Places(draft)
    names = {name for name, _ in fed if draft.nodes[name].op in INPUT_PIPELINES}
    gates = {name: gates for name in names if (gates := places.gates(name))}
    for name in gates:
        taken = {parse_tensor_name(user.input[position])[1] for user, position in draft.consumers_of([name])[name]}
        cut(draft, name, {index for one, index in fed if one == name}, taken - {-1})
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


def _check_calls(draft: Draft, fetches: Sequence[Tensor]) -> None:
    """FreezeError for a call whose functions read a queue or an iterator of the graph; a note for a one-shot one."""
    reading = {
        name: [node for node in function.node_def if node.op in INPUT_PIPELINES]
        for name, function in draft.graph.functions.items()
    }
    if not any(reading.values()):
        return
    needed = draft.ancestors({name for name, _ in fetches})
    used = used_outputs(draft, needed, fetches)
    for node in [node for name, node in draft.nodes.items() if name in needed and _calls(draft, node)]:
        noted = False
        for function in sorted(called_by(draft.graph, [node])):
            for reader in reading[function]:
                noted = _check_call(draft, node, function, reader, used.get(node.name, set()), noted)


def _calls(draft: Draft, node: Any) -> bool:
    named = (value for value in node.attr.values() if value.HasField("func") or value.list.func)
    return node.op in draft.graph.functions or any(True for _ in named)


def _check_call(draft: Draft, node: Any, function: str, reader: Any, used: set[int], noted: bool) -> bool:
    """Whether there was a note on the call, `noted` or now; FreezeError where what it reads is empty once the graph is
    frozen."""
    own = {reader.name: reader.op}
    given = own if reader.op in _WITHOUT_HANDLE else dict(_pipelines_given(draft, node, reader))
    if not given:  # the function makes its own
        return noted
    outputs = ", ".join(tensor_name(node.name, index) for index in sorted(used) or [0])
    listed = ", ".join(f"{name} ({op})" for name, op in given.items())
    text = f"{node.name} ({node.op}) takes from {listed}, by {reader.name} ({reader.op}) in function {function}"
    if set(given.values()) == {_ONE_SHOT}:
        if not noted:
            draft.note(f"{text}: the iterator stays, with the data it was made with; feed {outputs} to be rid of it")
        return True
    raise FreezeError(
        f"{text}; nothing fills that once the graph is frozen, and what lies in a function cannot be fed: feed what "
        f"the call gives, {outputs}",
        nodes={node.name: f"takes from {listed} in function {function}"},
    )


def _pipelines_given(draft: Draft, node: Any, reader: Any) -> Iterator[tuple[str, str]]:
    """(name, op) of the queues, iterators and readers among what a call is given, of the reader's kind."""
    kind = next(kind for kind in ("Queue", "Iterator", "Reader") if reader.op.startswith(kind))
    for source, _ in draft.data_inputs(node):
        found = draft.nodes.get(source)
        for _ in range(len(draft.nodes)):
            if found is None or found.op not in _PASSING or not found.input:
                break
            found = draft.nodes.get(node_of(found.input[0]))
        if found is not None and kind in found.op and (not draft.data_inputs(found) or found.op in _BY_NAME):
            yield str(found.name), str(found.op)
