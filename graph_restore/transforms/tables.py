"""Lookup tables of a frozen graph: found, initialised from Consts, and by default initialised by their own look-ups.

A hash table is filled by an op that nothing fetched depends on: InitializeTable, InitializeTableFromTextFile, or (TF
1.15) LookupTableImportV2. That op is carried along; where it reads a text file, the file is read now (see `vocabulary`)
and its keys and values become Consts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.errors import FreezeError
from graph_restore.model import Model
from graph_restore.names import is_control, node_of, parse_tensor_name, tensor_name
from graph_restore.protos import NodeDef
from graph_restore.savers import RESTORE_OPS
from graph_restore.storage.files import is_file
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.draft import Draft, add_const, control_inputs
from graph_restore.transforms.saved_tables import fill_saved
from graph_restore.transforms.table_calls import lift_filler
from graph_restore.transforms.table_users import handle_users
from graph_restore.transforms.vocabulary import read_vocabulary

HASH_TABLES = frozenset({"HashTable", "HashTableV2"})
MUTABLE_TABLES = frozenset(
    f"Mutable{kind}{version}"
    for kind in ("HashTable", "HashTableOfTensors", "DenseHashTable")
    for version in ("", "V2")
)
_TABLES = HASH_TABLES | MUTABLE_TABLES
_INITIALISERS = frozenset({"InitializeTable", "InitializeTableV2", "LookupTableImport", "LookupTableImportV2"})
FROM_FILE = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
_CHANGES = ("LookupTableInsert", "LookupTableRemove", "LookupTableImport")


def table_initializers(draft: Draft, model: Model, needed: set[str]) -> dict[str, list[str]]:
    """Hash table node to the nodes that fill it, for every table in `needed`; FreezeError for a table with none."""
    tables = [(name, draft.nodes[name]) for name in draft.of_ops(_TABLES) if name in needed]
    users = draft.consumers() if tables else {}
    found: dict[str, list[str]] = {}
    for name, node in tables:
        fillers = [user.name for user, position in users[name] if position == 0 and fills(draft, user)]
        fillers = fillers or _lifted(draft, node, users[name])
        if node.op in MUTABLE_TABLES:
            own = _own_filler(draft, users[name], needed) if name not in model.tables else None
            if own is None:
                _refuse_changes(draft, node, users[name], needed)
            fillers = [own or fill_saved(draft, model, node)]
        if not fillers:
            raise FreezeError(
                f"{name} ({node.op}) has no node that fills it; feed the tensors looked up in it",
                nodes={name: "a table without initializer"},
            )
        found[name] = fillers[:1]
    return found


def _own_filler(draft: Draft, users: Sequence[tuple[Any, int]], needed: set[str]) -> str | None:
    """The one node that changes a mutable table, if it fills it from Consts before all else that takes the table, as in
    a frozen graph."""
    takers = [user for user, position in users if position == 0 and user.name in needed]
    changes = [user for user in takers if user.op.startswith(_CHANGES)]
    if len(changes) != 1 or changes[0].op.startswith("LookupTableRemove"):
        return None
    filler = changes[0]
    constant = all(draft.nodes[node_of(item)].op == "Const" for item in filler.input[1:] if not is_control(item))
    first = all(f"^{filler.name}" in user.input for user in takers if user is not filler)
    return str(filler.name) if constant and first else None


def _lifted(draft: Draft, table: Any, users: Sequence[tuple[Any, int]]) -> list[str]:
    """The node that fills a hash table inside of a function, copied out of it."""
    if table.op not in HASH_TABLES:
        return []
    found = (lift_filler(draft, user, position, (_INITIALISERS | FROM_FILE).__contains__) for user, position in users)
    return [name for name in found if name is not None][:1]


def _refuse_changes(draft: Draft, table: Any, users: Sequence[tuple[Any, int]], needed: set[str]) -> None:
    """FreezeError when the fetches also insert into a mutable table or remove from it."""
    for user, position in users:
        if user.name in needed and position == 0 and user.op.startswith(_CHANGES):
            raise FreezeError(
                f"{user.name} ({user.op}) changes table {table.name} as the model runs; feed what is looked up in it",
                nodes={user.name: f"changes table {table.name}"},
            )


def fills(draft: Draft, node: Any) -> bool:
    """Whether a node initialises a table, other than a saver that restores a mutable one."""
    if node.op in FROM_FILE:
        return True
    if node.op not in _INITIALISERS:
        return False
    sources = [draft.nodes.get(node_of(item)) for item in node.input[1:3]]
    return not any(source is not None and source.op in RESTORE_OPS for source in sources)


def inline_tables(
    draft: Draft, model: Model, tables: dict[str, list[str]], self_initialising: bool, asset_dir: str | None
) -> None:
    """Give every filler of `tables` Const keys and values, and (if asked) every look-up a control input on it."""
    for table, fillers in tables.items():
        for filler in fillers:
            if draft.nodes[filler].op in FROM_FILE:
                _read_file(draft, model, table, filler, asset_dir)
    if self_initialising and tables:
        users = draft.consumers()
        for table, fillers in tables.items():
            _guard(draft, users, table, fillers)


def _guard(draft: Draft, users: dict[str, list[tuple[Any, int]]], table: str, fillers: list[str]) -> None:
    """Let whatever takes the table's handle wait until it is filled: look-ups, but also calls of functions that look
    up, and the Switch or Enter through which it gets into a cond or loop."""
    filling = draft.ancestors(fillers)
    for user in handle_users(users, table, past=filling.__contains__):
        if user.name not in filling:
            changed = draft.change(user.name)
            changed.input.extend(f"^{filler}" for filler in fillers if f"^{filler}" not in changed.input)


def init_node(draft: Draft, wanted: str | None, tables: dict[str, list[str]]) -> str | None:
    """The name of a NoOp that runs every filler, added to the draft under the model's own name for it; None if none."""
    fillers = [filler for names in tables.values() for filler in names]
    if not fillers:
        return None
    taken = wanted is not None and wanted in draft.nodes and draft.nodes[wanted].op != "NoOp"
    name = wanted if wanted is not None and not taken else draft.free_name("init_all_tables")
    draft.add(NodeDef(name=name, op="NoOp", input=[f"^{filler}" for filler in fillers]))
    return name


def group(draft: Draft, name: str, nodes: Iterable[str]) -> str:
    """The name of a new NoOp that runs `nodes`."""
    return str(draft.add(NodeDef(name=draft.free_name(name), op="NoOp", input=[f"^{node}" for node in nodes])).name)


def vocabulary_of(
    draft: Draft, model: Model, table: str, filler: str, asset_dir: str | None
) -> tuple[LazyTensor, LazyTensor]:
    """(keys, values) of the file that InitializeTableFromTextFile `filler` reads; FreezeError when it is not there."""
    node, table_node = draft.nodes[filler], draft.nodes[table]
    return read_vocabulary(
        find_asset(draft, model, node.input[1], asset_dir, filler),
        key=(node.attr["key_index"].i, table_node.attr["key_dtype"].type),
        value=(node.attr["value_index"].i, table_node.attr["value_dtype"].type),
        size=node.attr["vocab_size"].i if "vocab_size" in node.attr else -1,
        delimiter=node.attr["delimiter"].s.decode() if "delimiter" in node.attr else "\t",
        offset=node.attr["offset"].i if "offset" in node.attr else 0,
    )


def _read_file(draft: Draft, model: Model, table: str, filler: str, asset_dir: str | None) -> None:
    """Turn InitializeTableFromTextFile into InitializeTable with Consts of what the file holds."""
    node = draft.nodes[filler]
    keys, values = vocabulary_of(draft, model, table, filler, asset_dir)
    names = [add_const(draft, f"{filler}/{part}", tensor) for part, tensor in (("keys", keys), ("values", values))]
    version = "V2" if node.op.endswith("V2") else ""
    inlined = NodeDef(name=filler, op=f"InitializeTable{version}", input=[node.input[0], *names, *control_inputs(node)])
    inlined.attr["Tkey"].type = keys.data_type
    inlined.attr["Tval"].type = values.data_type
    draft.add(inlined)
    draft.note(f"{filler}: {keys.size} entries of {keys.name} are put into the graph")


def find_asset(draft: Draft, model: Model, filename_tensor: str, asset_dir: str | None, user: str) -> str:
    """The path of the file a filename tensor names: as recorded, or by its name beside the model or its checkpoint.

    FreezeError that lists where was looked when it is nowhere.
    """
    filename_tensor = _behind_variable(draft, filename_tensor)
    recorded = _recorded_name(draft, filename_tensor)
    full_name = tensor_name(*parse_tensor_name(filename_tensor))
    base = os.path.basename(recorded.replace("\\", "/")) if recorded else ""
    listed = model.assets.get(full_name)
    paths = [os.path.join(asset_dir, os.path.basename(listed or base))] if asset_dir is not None else []
    paths += [listed] if listed else []
    for folder in _folders(model):
        paths += [os.path.join(folder, base), os.path.join(folder, "assets", base)] if base else []
    paths += [recorded] if recorded and os.path.isabs(recorded) else []
    for path in paths:
        if is_file(path):
            return path
    raise FreezeError(
        f"{user} reads the file {recorded or 'named by ' + filename_tensor}, which is not there; pass asset_dir= with "
        f"the directory it is in now (looked for {', '.join(dict.fromkeys(paths)) or 'nothing'})",
        nodes={user: "its asset file is missing"},
    )


def _behind_variable(draft: Draft, name: str) -> str:
    """The tensor that a variable is set to, where a file's name is read off one, as TensorFlow 2 has it."""
    node = draft.nodes.get(node_of(name))
    if node is not None and node.op == "ReadVariableOp" and node.input:
        users = draft.graph.consumers[node_of(node.input[0])]
        given = [user.input[1] for user, position in users if user.op == "AssignVariableOp" and position == 0]
        return str(given[0]) if len(given) == 1 else name
    return name


def _folders(model: Model) -> Iterator[str]:
    if model.source.folder is not None:
        yield model.source.folder
    if model.restoration is not None and os.path.dirname(model.restoration.checkpoint):
        yield os.path.dirname(model.restoration.checkpoint)


def _recorded_name(draft: Draft, name: str) -> str:
    """The file name that a Const, or a placeholder with a Const default, gives."""
    node = draft.nodes.get(node_of(name))
    while node is not None and node.op in ("Identity", "PlaceholderWithDefault") and node.input:
        node = draft.nodes.get(node_of(node.input[0]))
    if node is None or node.op != "Const" or node.attr["dtype"].type != DataType.DT_STRING:
        return ""
    values = draft.graph.value(node).read().ravel()
    return bytes(values[0]).decode("utf-8", "surrogateescape") if values.size else ""
