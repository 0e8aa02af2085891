"""Holds the house together: who may import whom, where TensorFlow may appear, public names, sizes, forbidden words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import graph_restore as gr

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "graph_restore"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A room (a module, or a package of them) imports rooms further up only; those in one line do not know each other.
LAYERS = (
    {"errors", "arrays"},
    {"dtypes", "names"},
    {"protos", "storage"},
    {"tensors", "recognise"},
    {"slices", "tensor_proto", "ops"},
    {"checkpoint", "graph"},
    {"variables"},
    {"savers"},
    {"discovery"},
    {"model"},
    {"formats", "transforms"},
    {"outputs"},
    {"api"},
    {"runtime", "convert", "summary", "freeze_request", "op_report", "overwriting"},
    {"cpp", "events", "script"},
    {"cli"},
    {"freeze_graph", "__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LIVE_ROOMS = ("runtime", "convert")
LIVE_LIBRARIES = {"tensorflow", "tensorboard", "keras", "tf_keras"}
PUBLIC_NAMES = [
    "Checkpoint", "CheckpointNotFoundError", "CorruptionError", "FormatError", "FreezeError", "Graph",
    "GraphRestoreError", "GraphRestoreWarning", "LazyTensor", "Model", "NodeNotFoundError", "RestoreError",
    "RestoredVariable", "Session", "TensorFlowRequiredError", "TensorNotFoundError", "UnsupportedFormatError",
    "UpgradeError", "Variable", "as_keras_layer", "as_module", "build_saver", "export", "freeze", "initialize",
    "latest_checkpoint", "load", "load_checkpoint", "migration_script", "modernize", "restore", "restore_graph",
    "simplify", "transfer", "unfreeze", "upgrade_variables", "verify", "write_events",
]  # fmt: skip


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, those inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in imports(path):
        parts = name.split(".")
        if parts[0] == "graph_restore" and len(parts) > 1 and parts[1] in LEVEL:
            yield line, parts[1]


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_room_has_a_layer(path: Path) -> None:
    assert room_of(path) in {*LEVEL, "__init__"}


def test_the_table_of_rooms_is_whole_and_in_order() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
    rooms = [room.removesuffix("/") for row in rows for room in re.findall(r"`([^`]+)`", row)]
    assert sorted(rooms) == sorted({room_of(path) for path in MODULES} - {"__init__"})
    levels = [LEVEL[room] for room in rooms]
    assert levels == sorted(levels)


@pytest.mark.parametrize("path", [path for path in MODULES if path != PACKAGE / "__init__.py"], ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    wrong = [
        f"line {line}: {room} imports {other}"
        for line, other in imported_rooms(path)
        if other != room and LEVEL[other] >= LEVEL[room]
    ]
    assert wrong == []


def test_storage_knows_errors_and_arrays_only() -> None:
    found = {room for path in PACKAGE.glob("storage/*.py") for _, room in imported_rooms(path)}
    assert found == {"errors", "arrays", "storage"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_tensorflow_is_imported_in_live_rooms_only_and_inside_functions(path: Path) -> None:
    live = room_of(path) in LIVE_ROOMS
    found = [(line, name) for line, name in imports(path, top_level_only=live) if name.split(".")[0] in LIVE_LIBRARIES]
    assert found == []


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_load_restore_freeze_export_never_import_tensorflow(tmp_path: Path) -> None:
    """Nor numpy, which takes longer to import than a small model to freeze."""
    code = """
import sys, graph_restore as gr
model = gr.load("legacy_models/linear/tf1.4.1-v2/model.ckpt.meta")
gr.export(gr.freeze(gr.restore(model), ["y:0"]), sys.argv[1])
print(sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "tensorboard", "keras", "numpy"}))
"""
    output = tmp_path / "frozen.pb"
    assert run(code, str(output)) == "[]\n"
    assert output.stat().st_size > 0


def test_importing_the_package_is_cheap() -> None:
    heavy = {"numpy", "google", "tensorflow", "click", "rich", "ml_dtypes"}
    found = run("import sys, graph_restore; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert heavy & set(found) == set()


def test_listing_a_checkpoint_is_cheap() -> None:
    code = """
import sys
from graph_restore import load_checkpoint
from graph_restore.checkpoint.contents import list_tensors
for one in list_tensors(load_checkpoint("legacy_models/linear/tf1.4.1-v2/model.ckpt")):
    assert one.name and one.nbytes, one
print(*{name.split('.')[0] for name in sys.modules})
"""
    assert {"numpy", "google"} & set(run(code).split()) == set()


def test_public_names() -> None:
    assert sorted(gr.__all__) == sorted(PUBLIC_NAMES)
    assert set(PUBLIC_NAMES) <= set(dir(gr))


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_a_public_name_is_there_without_tensorflow(name: str) -> None:
    code = "import sys; sys.modules[" + "'tensorflow'] = None; import graph_restore as gr"
    code += "; print(getattr(gr, sys.argv[1]).__name__)"
    assert run(code, name) == f"{name}\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gr.nonsense  # noqa: B018


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {node.name: lines_of_code(node) for node in functions if lines_of_code(node) > 40} == {}
    assert text.count("\n") <= 350


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines after signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_file_names_say_what_is_inside() -> None:
    assert {path.stem for path in MODULES} & {"utils", "util", "helpers", "helper", "common", "misc"} == set()


def project_files() -> list[Path]:
    """Every file of the checkout that git does not ignore; without git, every file outside hidden folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [p for p in ROOT.rglob("*") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def test_no_paths_of_a_machine_and_no_talk_of_how_it_was_made() -> None:
    machine = re.compile(rb"/(?:root|home|work|opt|Users)/\w")
    talk = re.compile(rb"\.\./shared|\bhelper session|\bsub-?agent|\b[Ii]ssue #?\d+|DEVELOPERS\.md")
    binary = {".pb", ".npz", ".binpb", ".meta", ".index"}
    found = {}
    for path in project_files():
        data = path.read_bytes()
        hits = machine.findall(data) + ([] if path.suffix in binary else talk.findall(data))
        if hits:
            found[str(path.relative_to(ROOT))] = hits
    assert found == {}
