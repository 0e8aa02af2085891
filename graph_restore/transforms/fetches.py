"""Which tensors are meant when none are named: a signature's, else the one sensible candidate, else an error.

A candidate is a tensor nothing else needs, once what only serves training is taken away: savers, optimizers,
gradients, summaries, queues, assertions, and the losses and statistics that only these use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graph_restore.errors import FreezeError, UnsupportedFormatError
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import is_control, node_of, tensor_name, tensor_names
from graph_restore.savers import RESTORE_OPS, SAVE_OPS, variable_of
from graph_restore.variables import VARIABLE_OPS

DEFAULT_SIGNATURE = "serving_default"
_TRAINING_PREFIXES = (
    "Assign", "Apply", "SparseApply", "ResourceApply", "ResourceSparseApply", "Save", "Restore", "MergeV2Checkpoints",
    "ShardedFile", "Queue", "FIFOQueue", "RandomShuffleQueue", "PaddingFIFOQueue", "Scatter", "ResourceScatter",
    "InitializeTable", "LookupTableImport", "LookupTableExport", "Stack", "TensorArray", "Iterator", "MakeIterator",
)  # fmt: skip
_TRAINING_OPS = frozenset(
    {"NoOp", "Assert", "Print", "PrintV2", "IsVariableInitialized", "VarIsInitializedOp", "Const", "ControlTrigger"}
)
_STATISTICS = frozenset(
    {
        "Mean", "Sum", "Min", "Max", "Square", "SquaredDifference", "L2Loss", "SoftmaxCrossEntropyWithLogits",
        "SparseSoftmaxCrossEntropyWithLogits", "Log", "Neg", "Equal", "Cast", "ZeroFraction", "Rank", "Range", "Shape",
        "Size",
    }
)  # fmt: skip
_SCALING = frozenset({"Mul", "Div", "RealDiv", "DivNoNan", "Add", "AddV2", "Sub", "Neg", "Sqrt", "Identity"})
_CONTROL_FLOW = frozenset(
    {"Switch", "Enter", "Exit", "NextIteration", "LoopCond", "RefSwitch", "RefEnter", "RefExit", "RefNextIteration"}
)
_MOST_LISTED = 12


def choose(model: Model, fetches: Iterable[str] | None, feeds: Iterable[str] | None) -> tuple[list[str], list[str]]:
    """(fetches, feeds) as given, or those a frozen model has, or those of the signature, or the one candidate.

    FreezeError that lists the candidates and why there is no choice.
    """
    given = None if fetches is None else [fetches] if isinstance(fetches, str) else list(fetches)
    fed = None if feeds is None else [feeds] if isinstance(feeds, str) else list(feeds)
    if given:
        return given, fed or []
    if given is not None:
        raise FreezeError("fetches is empty; name at least one tensor, or leave it out to have it chosen")
    if model.fetches:
        return list(model.fetches), list(model.feeds) if fed is None else fed
    signature = default_signature(model)
    if signature is not None:
        outputs, inputs = _bound(signature.outputs), _bound(signature.inputs)
        return outputs, inputs if fed is None else fed
    if model.signatures:
        listed = "; ".join(f"{name}: {_outputs(value)}" for name, value in sorted(model.signatures.items()))
        raise FreezeError(f"{model.source} has several signatures; pass fetches= from one of them: {listed}")
    candidates = candidate_fetches(model.graph)
    if len(candidates) != 1 or _is_loss(model.graph, candidates[0]):
        raise FreezeError(
            f"{model.source}: which outputs? pass fetches=; {_why_none(model.graph, candidates)}",
            nodes=dict.fromkeys(candidates, "a candidate"),
        )
    return candidates, fed or []


def _bound(tensors: Any) -> list[str]:
    """Tensor names of one side of a signature, in the order of its keys: the message itself has none."""
    return list(dict.fromkeys(name for key in sorted(tensors) for name in tensor_names(tensors[key])))


def _why_none(graph: Graph, candidates: list[str]) -> str:
    if len(candidates) == 1:
        return f"only {candidates[0]} is used by nothing else, and it looks like a loss"
    listed = ", ".join(f"{name} ({graph.node(name).op})" for name in candidates[:_MOST_LISTED])
    return f"{len(candidates)} tensors are used by nothing else: {listed}" if candidates else "nothing looks like one"


def _is_loss(graph: Graph, name: str) -> bool:
    """Whether a tensor is a sum or mean over the batch, perhaps scaled: a loss or a statistic, no model's output."""
    node = graph.node(name)
    for _ in range(len(graph.nodes)):
        inputs = [item for item in node.input if not is_control(item)]
        if node.op in ("Mean", "Sum") and len(inputs) == 2:
            axes = graph.constant(inputs[1])
            over_all = axes is None and graph.node(inputs[1]).op == "Range"
            return over_all or (axes is not None and 0 in axes.ravel().tolist())
        varying = [item for item in inputs if graph.constant(item) is None]
        if node.op not in _SCALING or len(varying) != 1:
            return False
        node = graph.node(varying[0])
    return False


def default_signature(model: Model) -> Any:
    """`serving_default`, or the only signature with outputs; None when there is no such one."""
    if DEFAULT_SIGNATURE in model.signatures:
        return model.signatures[DEFAULT_SIGNATURE]
    usable = [value for value in model.signatures.values() if value.outputs]
    return usable[0] if len(usable) == 1 else None


def _outputs(signature: Any) -> str:
    return ", ".join(sorted(name for info in signature.outputs.values() for name in tensor_names(info)))


def candidate_fetches(graph: Graph) -> list[str]:
    """Tensor names that look like the model's outputs, those in the fewest scopes first."""
    auxiliary = {node.name for node in graph.graph_def.node if _serves_training(node)}
    _spread(graph, auxiliary)
    moving = _depends_on_input(graph)
    found = []
    for node in graph.graph_def.node:
        users = [user for user, _ in graph.consumers[node.name] if user.name not in auxiliary]
        is_end = node.name not in auxiliary and not users and node.op not in VARIABLE_OPS
        if is_end and node.name in moving and not node.op.startswith("Placeholder") and _has_output(graph, node):
            found.append(node)
    plain = [node for node in found if not _is_incidental(graph, node)]
    return [tensor_name(node.name) for node in plain or found]


def _is_incidental(graph: Graph, node: Any) -> bool:
    """Whether a node is part of a cond or loop (a counter's Exit, the Identity of a predicate's Switch), or what a
    variable is updated by: an output only where there is no other."""
    source = graph.nodes.get(node_of(node.input[0])) if node.op == "Identity" and node.input else None
    if node.op in _CONTROL_FLOW or (source is not None and source.op in ("Switch", "RefSwitch")):
        return True
    return any(user.op.startswith("Assign") or "Apply" in user.op for user, _ in graph.consumers[node.name])


def _serves_training(node: Any) -> bool:
    parts = node.name.split("/")
    return (
        node.op in _TRAINING_OPS
        or node.op.startswith(_TRAINING_PREFIXES)
        or node.op.endswith("Summary")
        or node.op.endswith("SummaryV2")
        or any(part.startswith("gradients") for part in parts)
    )


def _spread(graph: Graph, auxiliary: set[str]) -> None:
    """Add the losses, statistics and reads of variables that only auxiliary nodes use; of a graph that is trained also
    those that nothing uses, since a loss is often needed for its gradients alone."""
    trained = any("Apply" in node.op for node in graph.graph_def.node)
    changed = True
    while changed:
        changed = False
        for node in reversed(graph.graph_def.node):
            reads = variable_of(graph, node.name) is not None and node.op not in VARIABLE_OPS
            users = graph.consumers[node.name]
            error = node.op == "Sub" and any(user.op in ("Square", "Abs", "Pow") for user, _ in users)
            if node.name in auxiliary or not (node.op in _STATISTICS or reads or error):
                continue
            idle = reads or trained or node.op in ("Size", "Rank", "Shape")
            if all(user.name in auxiliary for user, _ in users) and (users or idle):
                auxiliary.add(node.name)
                changed = True


def _depends_on_input(graph: Graph) -> set[str]:
    """Nodes that a placeholder or input pipeline reaches (a variable, in a graph without these): the others are
    constants, counters and reports."""
    files = _file_names(graph)
    inputs = [
        node.name
        for node in graph.graph_def.node
        if node.op.startswith(("Placeholder", "Queue", "Iterator")) and node.name not in files
    ]
    waiting = inputs or [node.name for node in graph.graph_def.node if node.op in VARIABLE_OPS]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(
                user.name for user, position in graph.consumers[name] if not is_control(user.input[position])
            )
    return reached


def _file_names(graph: Graph) -> set[str]:
    """The nodes that say to savers which file is meant: since 1.13 there are placeholders among them."""
    waiting = [node.input[0] for node in graph.graph_def.node if node.op in {*SAVE_OPS, *RESTORE_OPS} and node.input]
    found: set[str] = set()
    while waiting:
        node = graph.nodes.get(node_of(waiting.pop()))
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return found


def _has_output(graph: Graph, node: Any) -> bool:
    try:
        return bool(graph.ops.output_types(node))
    except UnsupportedFormatError:
        return True
