"""Calls of functions replaced by what the functions do, so that gradients flow through them as through any nodes.

TensorFlow's own gradient of a call in an imported graph (SymbolicGradient) runs the function a second time, updates of
variables included, and knows no gradients of loops and lists.

1. A call that runs in a cond or loop keeps what it runs there: what takes nothing else waits for what it takes.
2. A function that came with a gradient of its own (a GradientDef) stays, for that gradient is another. Its
   SymbolicGradient is a call of that other function.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from graph_restore.errors import UpgradeError
from graph_restore.graph import Graph
from graph_restore.names import input_name, is_control
from graph_restore.protos import NodeDef
from graph_restore.transforms.contexts import ENTERS, SWITCHES
from graph_restore.transforms.cut_functions import tensor_type
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.functions import called_by
from graph_restore.transforms.inlining import can_inline, inline

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
OWN_GRADIENT = "has a gradient of its own"  # in the notes on functions that stay
_MOST = 100_000  # calls; a function that calls itself never ends


def without_calls(graph: Graph, ops: Collection[str]) -> Graph:
    """The graph with calls by `ops` (CALLS, or names of functions) replaced where that can be; itself if it has none.

    Function bodies stay as they are. Names and outputs of the calls stay.
    """
    if not graph.of_ops(ops):
        return graph
    draft = Draft(graph)
    kept = set(own_gradients(graph))
    flows = bool(graph.of_ops({*SWITCHES, *ENTERS}))
    waiting = draft.of_ops(ops)
    for _ in range(_MOST):
        if not waiting:
            break
        node = draft.nodes[waiting.pop()]
        function = node.attr["f"].func.name if node.op in CALLS else node.op
        if function in kept or not can_inline(draft, function):
            continue
        call = _anchored(draft, node) if flows else node
        data = [item for item in call.input if not is_control(item)]
        waiting += [name for name in inline(draft, call, function, data) if draft.nodes[name].op in ops]
    return draft.finish()


def _anchored(draft: Draft, node: Any) -> Any:
    """A call that waits for one of its inputs: what nodes without inputs do in its body, they do where it is."""
    data = draft.data_inputs(node)
    if not data:
        return node
    pivot = NodeDef(name=draft.free_name(f"{node.name}/pivot"), op="Identity", input=[input_name(*data[0])])
    pivot.attr["T"].type = tensor_type(draft, data[0])
    changed = draft.change(node.name)
    changed.input.append(f"^{draft.add(pivot).name}")
    return changed


def own_gradients(graph: Graph) -> dict[str, str]:
    """Function to the function that is its gradient, for those of the library that have one."""
    return {item.function_name: item.gradient_func for item in graph.library.gradient if item.gradient_func}


def with_own_gradients(graph: Graph) -> Graph:
    """The graph with calls of functions' own gradients in place of SymbolicGradients.

    UpgradeError for a SymbolicGradient of a function that calls one with its own gradient: TensorFlow 2 forgets it.
    """
    own = own_gradients(graph)
    if not own or not graph.of_ops({"SymbolicGradient"}):
        return graph
    draft, wrong = Draft(graph), {}
    for name in draft.of_ops({"SymbolicGradient"}):
        function = draft.nodes[name].attr["f"].func.name
        if function in own:
            former = draft.nodes[name]
            draft.add(NodeDef(name=name, op=own[function], input=former.input, device=former.device))
        elif own.keys() & called_by(graph, [draft.nodes[name]]):
            wrong[name] = f"{function} calls a function that {OWN_GRADIENT}"
    if wrong:
        listed = "; ".join(f"{name}: {reason}" for name, reason in wrong.items())
        raise UpgradeError(f"TensorFlow 2 has no such gradient: {listed}; fetch what does not need it", nodes=wrong)
    return draft.finish()
