"""simplify: the same graph with less in it. Each pass by itself, none of them by default in `freeze`.

1. identities: an Identity that nothing waits for in particular is left out, its users take what it took.
2. checks: so are CheckNumerics and Print, which pass their input on. What a check would have refused passes then.
3. constants: nodes whose inputs are all constant become Consts, where numpy gives the result to the last bit.
4. batch_norm: batch norms in inference form go into the weights before them (see `fold_batch_norm`); last bits may
   change.
Fetches, feeds, what signatures and collections name, the init op, and in a model without fetches or with variables
every node that nothing takes keep their names and values. What nothing needs any more is dropped. Weights stored in
half precision (see `precision`) stay so: as a Const of the wider type they would be rounded all the same, and large.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from graph_restore.dtypes import REF_OFFSET, DataType, numpy_dtype
from graph_restore.errors import UnsupportedFormatError
from graph_restore.model import Model
from graph_restore.names import input_name, is_control, node_of, parse_tensor_name, tensor_names
from graph_restore.transforms.collections import named_nodes
from graph_restore.transforms.constants import constant_node
from graph_restore.transforms.contexts import MERGES, SWITCHES
from graph_restore.transforms.draft import Draft, control_inputs
from graph_restore.transforms.evaluation import Array, evaluate
from graph_restore.transforms.finish import keep_living
from graph_restore.transforms.fold_batch_norm import BatchNormFolding
from graph_restore.transforms.liveness import in_order
from graph_restore.transforms.precision import is_half_weight
from graph_restore.variables import VARIABLE_OPS

_IDENTITIES = ("Identity", "StopGradient", "PreventGradient")
_CHECKS = ("CheckNumerics", "Print")
_LARGEST_MADE = 1 << 16  # bytes; a larger constant would make the file grow more than the node it replaces


def simplify(
    model: Model, *, identities: bool = True, checks: bool = True, constants: bool = True, batch_norm: bool = True
) -> Model:
    """The model with a simpler graph that computes the same; each pass may be left out.

    `identities` and `constants` change no bit of any output, `batch_norm` the last ones; without `checks` (the ops
    CheckNumerics and Print) NaN and infinity are no error. `notes` of the result tells how many nodes each pass took
    away.
    """
    draft = Draft(model.graph)
    kept = _kept(model)
    checked = _remove(draft, kept, _CHECKS) if checks else 0
    left_out = _remove(draft, kept, _IDENTITIES) if identities else 0  # one may stand before a batch norm
    counts = {
        "checks and prints are left out": checked,
        "batch norms are folded into weights": _fold_batch_norms(draft, kept) if batch_norm else 0,
        "nodes are constant": _fold_constants(draft, kept) if constants else 0,
        "identities are left out": left_out + (_remove(draft, kept, _IDENTITIES) if identities else 0),
    }
    draft.notes.extend(f"{count} {text}" for text, count in counts.items() if count)
    draft.keep(draft.ancestors(kept))
    halves = sum(_is_half_weight(draft, node) for node in draft.nodes.values())
    if halves and (constants or batch_norm):
        draft.note(
            f"{halves} weights stay stored in half precision, and nothing is folded into them; simplify the graph "
            "first, and freeze the result with precision="
        )
    for name, node in draft.nodes.items():
        if "_class" in node.attr:
            keep_living(draft.change(name), draft.nodes)
    return replace(model, graph=draft.finish(), notes=(*model.notes, *draft.notes))


def _kept(model: Model) -> set[str]:
    tensors = [*model.fetches, *model.feeds, *([model.init_op] if model.init_op else [])]
    for signature in model.signatures.values():
        for info in (*signature.inputs.values(), *signature.outputs.values()):
            tensors += tensor_names(info)
    kept = {node_of(name) for name in tensors} | {name for name, _ in model.tables.items()}
    naming = [*model.collections.values(), *([model.saver_def] if model.saver_def is not None else [])]
    kept |= named_nodes((message.SerializeToString() for message in naming), model.graph.nodes)
    if not model.fetches or len(model.variables):
        kept |= {name for name in model.graph.nodes if not model.graph.consumers[name]}
        kept |= {variable.name for variable in model.variables}
    return kept & model.graph.nodes.keys()


def _fold_batch_norms(draft: Draft, kept: Collection[str]) -> int:
    return len(BatchNormFolding(draft, kept).fold())


def _fold_constants(draft: Draft, kept: Collection[str]) -> int:
    """Make Consts of what is constant. They wait for what their inputs waited for: in a branch that is the branch."""
    known: dict[str, tuple[Array, list[str]]] = {}
    count = 0
    for name in in_order(draft.nodes):
        node = draft.nodes[name]
        if node.op == "Const":
            payload = draft.payloads.get(("", name))
            value = draft.graph.value(node) if payload is None else payload
            if value.nbytes <= _LARGEST_MADE:
                known[name] = value.read(), control_inputs(node)
            continue
        found = None if _is_half_weight(draft, node) else _constant(draft, node, known)
        if found is None:
            continue
        known[name] = found
        if node.op != "Identity":
            draft.add(constant_node(name, _type_of(draft, node), found[0], found[1]))
            count += 1
    return count


def _is_half_weight(draft: Draft, node: Any) -> bool:
    source = draft.nodes.get(node_of(node.input[0])) if node.op == "Cast" and node.input else None
    return source is not None and is_half_weight(node, source)


def _constant(draft: Draft, node: Any, known: dict[str, tuple[Array, list[str]]]) -> tuple[Array, list[str]] | None:
    data = [parse_tensor_name(item) for item in node.input if not is_control(item)]
    if not data or any(index or name not in known for name, index in data):
        return None
    outputs = evaluate(node, [known[name][0] for name, _ in data])
    number = _type_of(draft, node)
    if outputs is None or len(outputs) != 1 or not number or outputs[0].dtype != numpy_dtype(number):
        return None
    if outputs[0].nbytes > _LARGEST_MADE:
        return None
    waits = [item for name, _ in data for item in known[name][1]]
    return outputs[0], list(dict.fromkeys([*control_inputs(node), *waits]))


def _type_of(draft: Draft, node: Any) -> int:
    try:
        types = draft.graph.ops.output_types(node)
    except UnsupportedFormatError:
        return 0
    return int(types[0]) if len(types) == 1 and types[0] < REF_OFFSET and types[0] != DataType.DT_RESOURCE else 0


def _remove(draft: Draft, kept: Collection[str], passing: Collection[str]) -> int:
    """Leave nodes of these ops out, whose users take their first input instead."""
    instead: dict[str, str] = {}
    users = draft.consumers()
    for name, node in draft.nodes.items():
        if node.op in passing and name not in kept and _is_removable(draft, node, users[name]):
            instead[name] = node.input[0]
    for name, node in list(draft.nodes.items()):
        if any(node_of(item) in instead for item in node.input):
            draft.change(name).input[:] = _distinct(node.op, [_led(item, instead) for item in node.input])
    for name in instead:
        del draft.nodes[name]
    return len(instead)


def _is_removable(draft: Draft, node: Any, users: list[tuple[Any, int]]) -> bool:
    """Whether the users of an op that passes its input on can take what it takes: it waits for nothing else, copies no
    reference, and what waits for it does not mean the branch of a Switch."""
    if not node.input or any(is_control(item) for item in (node.input[0], node.input[-1])):
        return False
    source = draft.nodes[node_of(node.input[0])]
    if source.op in VARIABLE_OPS or source.op.startswith("Ref"):
        return False
    try:
        types = draft.graph.ops.output_types(source)
    except UnsupportedFormatError:
        return False
    index = parse_tensor_name(node.input[0])[1]
    if index >= len(types) or types[index] > REF_OFFSET:
        return False
    waited = any(is_control(user.input[position]) for user, position in users)
    return not (waited and (source.op in SWITCHES or source.op in _IDENTITIES))


def _led(item: str, instead: dict[str, str]) -> str:
    name, index = parse_tensor_name(item)
    while name in instead:
        name, inner = parse_tensor_name(instead[name])
        index = index if index < 0 else inner
    return input_name(name, index)


def _distinct(op: str, items: list[str]) -> list[str]:
    """The inputs, each control input once, and none on a node whose output is taken (a Merge takes but one of them)."""
    taken = set() if op in MERGES else {node_of(item) for item in items if not is_control(item)}
    controls = dict.fromkeys(item for item in items if is_control(item) and node_of(item) not in taken)
    return [*(item for item in items if not is_control(item)), *controls]
