"""for_serving: the part of a model that its signatures need, ready to be written as a SavedModel.

1. Signatures are those given, those made from fetches and feeds, the model's own, or made from the one candidate.
2. For a made signature the graph is cut at the feeds, and at queues and iterators; the placeholders that are left are
   its inputs too. What no signature needs is dropped, unless the whole graph is wanted.
3. Tables are filled by an init op: the model's own, or a new one; mutable ones with what the checkpoint holds for them.
   Vocabulary files become assets.
4. TensorArrays of TensorFlow before 1.0 get today's form (see `tensor_arrays`), and reference variables become
   resource ones where that changes nothing (see `handles`).
5. A variable that a signature needs and that has no value is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from graph_restore.errors import FreezeError
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import node_of, tensor_name
from graph_restore.transforms.draft import Draft
from graph_restore.transforms.feeds import cut_feeds, resolve
from graph_restore.transforms.fetches import choose
from graph_restore.transforms.functions import modern_functions, reachable_functions
from graph_restore.transforms.handles import use_handles
from graph_restore.transforms.pipelines import cut_pipelines
from graph_restore.transforms.signatures import (
    default_only,
    given_signatures,
    inputs_of,
    kept_signatures,
    make_signature,
    outputs_of,
    unfed,
)
from graph_restore.transforms.tables import FROM_FILE, find_asset, group, table_initializers
from graph_restore.transforms.tensor_arrays import modern_tensor_arrays
from graph_restore.variables import Variable, Variables

Names = str | Iterable[str] | None


def for_serving(
    model: Model,
    fetches: Names = None,
    feeds: Names = None,
    *,
    signatures: Mapping[str, Any] | None = None,
    whole_graph: bool = False,
    references: bool = False,
    asset_dir: str | None = None,
) -> Model:
    """The model with `signatures`, `init_op` and `assets` (filename tensor to path) as a SavedModel has them.

    `signatures`: name to SignatureDef or {"inputs": ..., "outputs": ...}; otherwise `fetches` and `feeds` make
    `serving_default`. `whole_graph`: keep what no signature needs. `references`: leave reference variables as they are.
    `asset_dir`: where vocabulary files are now.

    Raises FreezeError when outputs cannot be told, or variables or tables have no content; NodeNotFoundError for names
    that the graph does not have.
    """
    graph = modern_functions(model.graph)
    draft = Draft(graph)
    found = _own(model, graph, fetches, signatures)
    if not found and signatures is None:
        found = _made(draft, model, fetches, feeds)
    roots = {node_of(name) for one in found.values() for name in [*inputs_of(one), *outputs_of(one)]}
    fillers = table_initializers(draft, model, draft.ancestors(roots))
    init_op = _init_op(draft, model, [name for names in fillers.values() for name in names])
    assets = dict(_assets(draft, model, roots, init_op, asset_dir))
    roots |= {init_op} if init_op is not None else set()
    if not whole_graph:
        draft.keep(draft.ancestors(roots))
    variables = [_saved(variable) for variable in model.variables if variable.name in draft.nodes]
    _require_values(draft, variables, found, init_op)
    modern_tensor_arrays(draft)
    if not references:
        variables = use_handles(draft, variables)
        found = {name: _through_reads(signature, variables, draft) for name, signature in found.items()}
    return replace(
        model,
        graph=_finished(draft, whole_graph),
        variables=Variables(variables),
        signatures=found,
        collections=model.collections if whole_graph else {},
        assets=assets,
        init_op=init_op,
        notes=(*model.notes, *draft.notes),
    )


def _saved(variable: Variable) -> Variable:
    """A variable as the checkpoint has it: TensorFlow 2 gives local ones their first values after restoring."""
    if "local_variables" not in variable.collections:
        return variable
    names = dict.fromkeys("variables" if name == "local_variables" else name for name in variable.collections)
    return replace(variable, collections=tuple(names))


def _own(model: Model, graph: Graph, fetches: Names, signatures: Mapping[str, Any] | None) -> dict[str, Any]:
    """The signatures given (none is a choice too), or else the model's own; none when they are to be made."""
    if signatures is not None:
        if fetches is not None:
            raise ValueError("pass signatures, or fetches and feeds, not both")
        return given_signatures(graph, signatures)
    return kept_signatures(model) if fetches is None else {}


def _made(draft: Draft, model: Model, fetches: Names, feeds: Names) -> dict[str, Any]:
    """`serving_default` from fetches and feeds; the draft is cut to it."""
    feeds_are_own = feeds is None
    if fetches is None and model.fetches:
        fetches, feeds = model.fetches, model.feeds if feeds is None else feeds
    chosen, fed = choose(model, fetches, feeds)
    targets, sources = resolve(draft.graph, chosen), resolve(draft.graph, fed)
    cut_feeds(draft, sources, targets, keep_defaults=feeds_are_own)
    cut_pipelines(draft, targets)
    cut = draft.finish()
    outputs, inputs = ([tensor_name(*tensor) for tensor in tensors] for tensors in (targets, sources))
    signature = make_signature(cut, inputs, outputs)
    more = [name for name in unfed(cut, signature) if cut.nodes[name].op != "PlaceholderWithDefault"]
    return default_only(make_signature(cut, [*inputs, *(tensor_name(name) for name in more)], outputs))


def _init_op(draft: Draft, model: Model, fillers: list[str]) -> str | None:
    """A node that fills every table: the model's own when it does, else a new one that runs it as well."""
    own = model.init_op if model.init_op is not None and model.init_op in draft.nodes else None
    missing = [name for name in fillers if own is None or name not in draft.ancestors([own])]
    if not missing:
        return own
    return group(draft, "init_all_tables", [*([own] if own is not None else []), *missing])


def _assets(
    draft: Draft, model: Model, roots: set[str], init_op: str | None, asset_dir: str | None
) -> Iterator[tuple[str, str]]:
    """Filename tensor to path of every file that tables are filled from, and of those the model lists."""
    tables: set[str] = set()
    needed = draft.ancestors(roots | ({init_op} if init_op is not None else set()))
    for name in [name for name in draft.nodes if name in needed]:
        node = draft.nodes[name]
        if node.op in FROM_FILE and len(node.input) > 1:
            tables.add(source := _source(draft, node.input[1]))
            yield source, find_asset(draft, model, node.input[1], asset_dir, name)
    for tensor in model.assets:
        if node_of(tensor) in needed and tensor not in tables:
            try:
                yield tensor, find_asset(draft, model, tensor, asset_dir, node_of(tensor))
            except FreezeError as error:
                draft.note(f"an asset that no table reads is left out: {error}")


def _source(draft: Draft, name: str) -> str:
    """The Const or placeholder that a filename comes from, which is fed when the SavedModel is loaded."""
    node = draft.nodes[node_of(name)]
    for _ in range(len(draft.nodes)):
        if node.op != "Identity" or not node.input or node_of(node.input[0]) not in draft.nodes:
            break
        node = draft.nodes[node_of(node.input[0])]
    return tensor_name(node.name)


def _require_values(
    draft: Draft, variables: Iterable[Variable], signatures: Mapping[str, Any], init_op: str | None
) -> None:
    """FreezeError for variables without a value that a signature needs and the init op does not set."""
    needed: set[str] = set()
    for signature in signatures.values():
        fed = {node_of(name) for name in inputs_of(signature)}
        needed |= draft.ancestors(map(node_of, outputs_of(signature)), stop=lambda node, fed=fed: node.name in fed)  # type: ignore[misc]
    initialised = draft.ancestors([init_op]) if init_op is not None else set()
    without = [
        variable.name
        for variable in variables
        if variable.value is None and variable.name in needed and variable.initializer not in initialised
    ]
    if without:
        raise FreezeError(
            f"{len(without)} variables that the signatures need have no value: {', '.join(without[:8])}; restore the "
            "model, or initialize it, first",
            variables=without,
        )


def _through_reads(signature: Any, variables: Iterable[Variable], draft: Draft) -> Any:
    """The signature with reads in place of variables: what was a value is a handle now."""
    reads = {tensor_name(one.name): one.snapshot for one in variables if draft.nodes[one.name].op == "VarHandleOp"}
    changed = type(signature)()
    changed.CopyFrom(signature)
    for info in [*changed.inputs.values(), *changed.outputs.values()]:
        if info.WhichOneof("encoding") == "name" and reads.get(info.name) and info.dtype != 20:
            info.name = reads[info.name]
    return changed


def _finished(draft: Draft, whole_graph: bool) -> Graph:
    graph = draft.finish()
    return graph if whole_graph else reachable_functions(graph)
