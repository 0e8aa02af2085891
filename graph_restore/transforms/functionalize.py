"""The control flow of TensorFlow 1 in functional form, which TensorFlow 2 can differentiate.

1. TensorArrays become tensor lists (see `tensor_lists`).
2. While loops become While, the conds in them If, inner ones first (see `frames`, `branches`).
3. Conds outside of loops become If.
4. What cannot be turned stays as it was and runs; a PreventGradient after each Exit of such a loop makes its gradient
   an error that says why, instead of a wrong one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from graph_restore.model import Model
from graph_restore.names import input_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.branches import turn_conds
from graph_restore.transforms.contexts import EXITS, Contexts
from graph_restore.transforms.cut_functions import tensor_type
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.feeds import resolve
from graph_restore.transforms.frames import turn_loops
from graph_restore.transforms.functions import modern_functions
from graph_restore.transforms.tensor_lists import turn_tensor_arrays

LEFT = "is not turned into a While"  # in the notes on loops that stay


def functionalize(model: Model, fetches: str | Iterable[str], constant: Collection[str] = ()) -> Model:
    """The model cut to what `fetches` need, with functional While and If in place of frames and Switches.

    `constant`: the frames of loops through which no gradient is to flow. `notes` of the result names the loops that
    stay as they were, each with the reason. Fetches keep their names. Raises
    NodeNotFoundError for fetches that are not there.
    """
    draft = Draft(modern_functions(model.graph))
    targets = resolve(draft.graph, fetches)
    roots = {name for name, _ in targets}
    draft.keep(draft.ancestors(roots))
    turn_tensor_arrays(draft, targets)
    draft.keep(draft.ancestors(roots))
    left = turn_loops(draft, roots, constant)
    draft.keep(draft.ancestors(roots))
    turn_conds(draft, _outside_of_loops(draft), roots, {})
    draft.keep(draft.ancestors(roots))
    _prevent_gradients(draft, left)
    notes = [f"loop {frame} {LEFT}: {reason}" for frame, reason in left.items()]
    return replace(model, graph=draft.finish(), notes=(*model.notes, *notes))


def _outside_of_loops(draft: Draft) -> set[str]:
    contexts = Contexts(draft.nodes)
    return {name for name in draft.nodes if not contexts.of(name).frames}


def _prevent_gradients(draft: Draft, left: dict[str, str]) -> None:
    consumers = draft.consumers()
    contexts = Contexts(draft.nodes)
    for name in [name for name, node in draft.nodes.items() if node.op in EXITS]:
        frame = "/".join(contexts.of(name).frames)
        stop = NodeDef(name=draft.free_name(f"{name}/no_gradient"), op="PreventGradient", input=[name])
        stop.attr["T"].type = tensor_type(draft, (name, 0))
        reason = f"the while loop {frame} could not be turned into a While: {left.get(frame, 'it is not understood')}"
        stop.attr["message"].s = reason.encode()
        draft.add(stop)
        for user, position in consumers[name]:
            if user.input[position] in (name, input_name(name), f"{name}:0"):
                draft.change(user.name).input[position] = stop.name
