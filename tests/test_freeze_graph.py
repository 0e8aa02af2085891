"""freeze_graph: TensorFlow's flags and functions, and what they give beside TensorFlow's own tool."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import CORPUS, Case, case, hub_module

import graph_restore as gr
from graph_restore import freeze_graph
from graph_restore.protos import GraphDef, MetaGraphDef, SaverDef
from graph_restore.variables import VARIABLE_OPS

LINEAR = CORPUS / "linear" / "tf0.12.1-v1"
META = str(LINEAR / "model.ckpt.meta")
GRAPH, PREFIX = f"--input_graph={LINEAR / 'graph.pb'}", f"--input_checkpoint={LINEAR / 'model.ckpt'}"
TEXT = f"--input_graph={LINEAR / 'graph.pbtxt'}"
SAVED_MODEL = CORPUS / "saved_model" / "tf1.4.1-v2" / "saved_model"


def freeze_with(output: Path, *flags: str) -> int:
    return freeze_graph.main([f"--output_graph={output}", "--output_node_names=y", *flags])


# flags

FLAGS = {
    "binary": [GRAPH, PREFIX, "--input_binary"],
    "binary said apart": [GRAPH, PREFIX, "--input_binary", "true"],
    "binary said in capitals": [GRAPH, PREFIX, "--input_binary=True"],
    "abbreviated": [GRAPH.replace("graph", "gr", 1), PREFIX, "--input_b", "--clear=false"],
    "the end of flags": [TEXT, PREFIX, "--"],
    "values apart": [*GRAPH.split("="), *PREFIX.split("="), "--input_binary"],
    "text by default": [TEXT, PREFIX],
    "text said": [TEXT, PREFIX, "--input_binary=false", "--clear_devices=False"],
    "text said by no": [TEXT, PREFIX, "--noinput_binary", "--noclear_devices"],
    "meta graph": [f"--input_meta_graph={META}", PREFIX],
    "meta graph said binary": [f"--input_meta_graph={META}", PREFIX, "--input_binary"],
    "SavedModel": [f"--input_saved_model_dir={SAVED_MODEL}"],
    "SavedModel with tags": [f"--input_saved_model_dir={SAVED_MODEL}", "--saved_model_tags=serve"],
    "defaults written out": [TEXT, PREFIX, "--restore_op_name=save/restore_all", "--filename_tensor_name=save/Const:0"],
    "every variable allowed": [TEXT, PREFIX, "--variable_names_whitelist=w, b"],
    "every variable allowed, new spelling": [TEXT, PREFIX, "--variable_names_allowlist=w,b"],
}


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_takes_tensorflows_flags(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "frozen.pb"
    assert freeze_with(output, *flags) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("wrote ") and captured.err == ""
    assert "y" in gr.load(output).graph.nodes and len(gr.load(output).variables) == 0


WORDS = {
    "binary taken for text": ([GRAPH, PREFIX], "graph.pb is binary"),
    "text taken for binary": ([TEXT, PREFIX, "--input_binary"], "graph.pbtxt is text"),
    "restore op": ([TEXT, PREFIX, "--restore_op_name=a"], "--restore_op_name is not needed"),
    "file name": ([TEXT, PREFIX, "--filename_tensor_name=a:0"], "--filename_tensor_name is not needed"),
    "another variable denied": ([TEXT, PREFIX, "--variable_names_blacklist=other"], "no variable is called other"),
    "the same, new spelling": ([TEXT, PREFIX, "--variable_names_denylist=other"], "no variable is called other"),
    "version": ([TEXT, PREFIX, "--checkpoint_version=1"], "--checkpoint_version is not needed"),
    "SavedModel before graph": ([f"--input_saved_model_dir={SAVED_MODEL}", GRAPH], "input_graph is not used"),
    "SavedModel's own values": ([f"--input_saved_model_dir={SAVED_MODEL}", PREFIX], "input_checkpoint is not used"),
    "a word too many": ([TEXT, PREFIX, "model.pb"], "not used, as of no flag: model.pb"),
    "words after the flags": ([TEXT, PREFIX, "a", "--", "--b"], "not used, as of no flag: a, --b"),
    "binary as a number": ([TEXT, PREFIX, "--input_binary=1"], "--input_binary=1 is taken for false"),
    "binary and a word": ([TEXT, PREFIX, "--input_binary", "x"], "--input_binary=x is taken for false"),
    "devices as a number": ([TEXT, PREFIX, "--clear_devices=yes"], "--clear_devices=yes is taken for false"),
    "SavedModel and init": (
        [f"--input_saved_model_dir={SAVED_MODEL}", "--initializer_nodes=init"],
        "initializer_nodes are not run",
    ),
}


@pytest.mark.parametrize(("flags", "words"), WORDS.values(), ids=WORDS)
def test_says_a_word(flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert freeze_with(tmp_path / "frozen.pb", *flags) == 0
    assert capsys.readouterr().err.startswith(f"note: {words}")


WRONG_FLAGS = {
    "unknown": [GRAPH, PREFIX, "--input_binaries"],
    "unknown, with a value": [GRAPH, PREFIX, "--verbose", "1"],
    "unknown and short": [GRAPH, PREFIX, "-v"],
    "abbreviated too far": [GRAPH, PREFIX, "--input_s=x"],
    "no input": [PREFIX],
    "two inputs": [GRAPH, PREFIX, f"--input_meta_graph={META}"],
    "no checkpoint": [GRAPH],
    "no such version": [GRAPH, PREFIX, "--checkpoint_version=3"],
}


@pytest.mark.parametrize("flags", WRONG_FLAGS.values(), ids=WRONG_FLAGS)
def test_wrong_flags_are_2(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        freeze_with(tmp_path / "frozen.pb", *flags)
    assert stopped.value.code == 2
    assert list(tmp_path.iterdir()) == []


BAD_FILES = {
    "no graph": (["--input_graph=nowhere.pb", PREFIX], "Error: nowhere.pb: no such file"),
    "no checkpoint": ([TEXT, "--input_checkpoint=nowhere"], "Error: no checkpoint at nowhere"),
    "no saver": ([TEXT, PREFIX, "--input_saver=nowhere"], "Error: nowhere"),
    "no node": ([TEXT, PREFIX, "--initializer_nodes=nowhere"], "Error: the graph has no node 'nowhere'"),
    "a saver that is none": ([TEXT, PREFIX, f"--input_saver={META}"], f"Error: {META}: this is no SaverDef"),
    "tags": ([f"--input_saved_model_dir={SAVED_MODEL}", "--saved_model_tags=a"], f"Error: {SAVED_MODEL}"),
}


def test_no_tags_choose_the_graph_without_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag = f"--input_saved_model_dir={hub_module(tmp_path)}"
    assert freeze_with(tmp_path / "frozen.pb", flag, "--output_node_names=softmax") == 1
    assert ", --saved_model_tags='' for the one without tags" in capsys.readouterr().err
    assert freeze_with(tmp_path / "frozen.pb", flag, "--output_node_names=softmax", "--saved_model_tags=") == 0


@pytest.mark.parametrize(("flags", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_1(flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert freeze_with(tmp_path / "frozen.pb", *flags) == 1
    assert capsys.readouterr().err.startswith(words)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_binary_whatever_its_name(tmp_path: Path) -> None:
    assert freeze_with(tmp_path / "frozen.pbtxt", TEXT, PREFIX) == 0
    assert "y" in {node.name for node in GraphDef.FromString((tmp_path / "frozen.pbtxt").read_bytes()).node}


def test_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "graph_restore.freeze_graph", TEXT, PREFIX, "--output_node_names=y"]
    done = subprocess.run([*command, f"--output_graph={tmp_path / 'frozen.pb'}"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("wrote "), done.stderr


def test_devices_are_cleared_unless_told(tmp_path: Path) -> None:
    model = case("gpu_devices/tf1.15.5-v2")
    flags = [f"--input_graph={model.graph_pb}", f"--input_checkpoint={model.prefix}", "--input_binary"]
    for cleared in (True, False):
        assert freeze_with(tmp_path / "frozen.pb", *flags, f"--clear_devices={cleared}") == 0
        devices = {node.device for node in gr.load(tmp_path / "frozen.pb").graph.graph_def.node}
        assert (devices == {""}) is cleared


LISTS = {
    "allowed, old": (["--variable_names_whitelist=w"], {"b"}),
    "allowed, new": (["--variable_names_allowlist", "w"], {"b"}),
    "denied, old": (["--variable_names_blacklist=w, b"], {"w", "b"}),
    "denied, new": (["--variable_names_denylist=b"], {"b"}),
    "both": (["--variable_names_whitelist=w,b", "--variable_names_denylist=w"], {"w"}),
}


@pytest.mark.parametrize(("flags", "kept"), LISTS.values(), ids=LISTS)
def test_some_variables_stay(
    flags: list[str], kept: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert freeze_with(tmp_path / "frozen.pb", TEXT, PREFIX, *flags) == 0
    assert "stay variables; a saver of the graph restores them" in capsys.readouterr().err
    model = gr.load(tmp_path / "frozen.pb")
    assert set(model.variables.names()) == kept
    restored = gr.restore(model, LINEAR / "model.ckpt")
    assert all(variable.value is not None for variable in restored.variables)
    assert all(model.graph.node(name).op == "Const" for name in {"w", "b"} - kept)


# initializer nodes


def frozen_value(graph_def: Any, name: str) -> Any:
    graph = gr.load(graph_def.SerializeToString()).graph
    return graph.value(graph.node(name)).read()


def call(graph: Path, prefix: str, outputs: str = "y", **options: Any) -> Any:
    given: dict[str, Any] = {"input_saver": "", "initializer_nodes": "", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gr.GraphRestoreWarning)
        return freeze_graph.freeze_graph(
            str(graph), given.pop("input_saver"), graph.suffix == ".pb", prefix, outputs, "save/restore_all",
            "save/Const:0", given.pop("output_graph", ""), True, given.pop("initializer_nodes"), **given,
        )  # fmt: skip


def with_first_values(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A graph in which `init` sets v to ones, `late` sets w to v, and `other` adds to v; the checkpoint's values."""
    nodes = """
        node { name: "one" op: "Const" attr { key: "dtype" value { type: DT_FLOAT } }
               attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { } float_val: 1 } } } }
        node { name: "r" op: "RandomUniform" input: "shape" attr { key: "dtype" value { type: DT_FLOAT } }
               attr { key: "T" value { type: DT_INT32 } } }
        node { name: "shape" op: "Const" attr { key: "dtype" value { type: DT_INT32 } } attr { key: "value" value {
               tensor { dtype: DT_INT32 tensor_shape { dim { size: 0 } } } } } }
        node { name: "init" op: "NoOp" input: "^v/Assign" } node { name: "late" op: "NoOp" input: "^w/Assign" }
        node { name: "chance" op: "NoOp" input: "^u/Assign" } node { name: "other" op: "NoOp" input: "^v/add" }
        node { name: "y" op: "AddN" input: ["v", "w", "u"] attr { key: "N" value { i: 3 } }
               attr { key: "T" value { type: DT_FLOAT } } }
        node { name: "v/add" op: "AssignAdd" input: ["v", "one"] attr { key: "T" value { type: DT_FLOAT } } }
    """
    for name, value in (("v", "one"), ("w", "v/read"), ("u", "r")):
        nodes += f"""
        node {{ name: "{name}" op: "VariableV2" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }}
               attr {{ key: "shape" value {{ shape {{ }} }} }} }}
        node {{ name: "{name}/read" op: "Identity" input: "{name}" attr {{ key: "T" value {{ type: DT_FLOAT }} }} }}
        node {{ name: "{name}/Assign" op: "Assign" input: ["{name}", "{value}"]
               attr {{ key: "T" value {{ type: DT_FLOAT }} }} }}"""
    path = tmp_path / "graph.pbtxt"
    path.write_text(nodes)
    return path, {"v": np.float32(5), "w": np.float32(6), "u": np.float32(7)}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [("", {"v": 5, "w": 6, "u": 7}), ("init", {"v": 1, "w": 6, "u": 7}), ("late", {"v": 5, "w": 5, "u": 7})],
)
def test_initializer_nodes_run_after_restoring(nodes: str, expected: dict[str, float], tmp_path: Path) -> None:
    graph, values = with_first_values(tmp_path)
    gr.checkpoint.save_checkpoint(tmp_path / "model.ckpt", values)
    found = call(graph, str(tmp_path / "model.ckpt"), initializer_nodes=nodes)
    assert {name: frozen_value(found, name).item() for name in expected} == expected


UNCERTAIN = {"chance": "first value is not certain: u", "init, late": "set w from v", "other": "is not its initializer"}


@pytest.mark.parametrize(("nodes", "words"), UNCERTAIN.items(), ids=UNCERTAIN)
def test_initializer_nodes_that_cannot_be_followed_are_refused(nodes: str, words: str, tmp_path: Path) -> None:
    graph, values = with_first_values(tmp_path)
    gr.checkpoint.save_checkpoint(tmp_path / "model.ckpt", values)
    with pytest.raises(gr.FreezeError, match=words):
        call(graph, str(tmp_path / "model.ckpt"), initializer_nodes=nodes)


def test_initializer_nodes_that_fill_tables_get_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = case("key_value_table/tf0.12.1-v1")
    flags = [f"--input_graph={model.graph_pb}", f"--input_checkpoint={model.prefix}", "--input_binary"]
    assert freeze_with(tmp_path / "frozen.pb", *flags, "--initializer_nodes=init_all_tables") == 0
    assert "note: initializer_nodes set no variable; tables fill themselves" in capsys.readouterr().err


def test_a_variable_without_a_value_is_told_with_flags_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph, values = with_first_values(tmp_path)
    del values["v"]
    gr.checkpoint.save_checkpoint(tmp_path / "model.ckpt", values)
    flags = [f"--input_graph={graph}", f"--input_checkpoint={tmp_path / 'model.ckpt'}"]
    assert freeze_with(tmp_path / "frozen.pb", *flags) == 1
    said = capsys.readouterr().err
    assert "\n--initializer_nodes='v/Assign' gives first values" in said and "initialize(" not in said
    assert said.endswith("(--rename: of `graph-restore freeze`, not of freeze_graph)\n")
    assert freeze_with(tmp_path / "frozen.pb", *flags, "--initializer_nodes=v/Assign") == 0


# savers


@pytest.mark.parametrize("text", [True, False])
def test_input_saver_chooses_among_savers(text: bool, tmp_path: Path) -> None:
    """custom_savers has a saver that knows other keys; its own checkpoint alone would fit both."""
    from graph_restore.formats.text import print_text

    saver = SaverDef(filename_tensor_name="save/Const:0", restore_op_name="save/restore_all", version=2)
    path = tmp_path / "saver"
    path.write_bytes(print_text(saver).encode() if text else saver.SerializeToString())
    one = case("mlp/tf1.4.1-v2")
    found = call(one.graph_pb, one.prefix, "softmax", input_saver=str(path))
    assert "softmax" in {node.name for node in found.node}
    path.write_bytes(SaverDef(filename_tensor_name="gone:0", restore_op_name="save/restore_all").SerializeToString())
    with pytest.raises(gr.NodeNotFoundError, match="gone"):
        call(one.graph_pb, one.prefix, "softmax", input_saver=str(path))


# what is written over


@pytest.mark.parametrize("before", ["variables", "meta graph", "text"])
def test_the_output_is_replaced(before: str, tmp_path: Path) -> None:
    output = tmp_path / "frozen"
    held = {"variables": LINEAR / "graph.pb", "meta graph": Path(META), "text": Path(__file__)}
    output.write_bytes(held[before].read_bytes())
    for _ in range(2):
        assert freeze_with(output, TEXT, PREFIX, "--variable_names_blacklist=w") == 0
        assert gr.load(output).variables.names() == ["w"]
    call(LINEAR / "graph.pb", str(LINEAR / "model.ckpt"), output_graph=str(output))
    assert gr.load(output).variables.names() == []


@pytest.mark.parametrize("identity", ["linear/tf0.12.1-v1", "sharded/tf1.4.1-v2", "vocabulary/tf1.15.5-v2"])
def test_no_input_is_replaced(identity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = case(identity)
    folder = tmp_path / "model"
    shutil.copytree(one.directory, folder)
    prefix = folder / Path(one.prefix).name
    outputs = ",".join(name.partition(":")[0] for name in one.oracle["outputs"])
    read = [folder / "graph.pb", *folder.glob("*.data-*"), *folder.glob("*.index"), *folder.glob("vocabulary.txt")]
    read += [folder / "checkpoint"] if (folder / "checkpoint").exists() else []
    saver = tmp_path / "saver"
    saver.write_bytes(gr.load(one.meta).saver_def.SerializeToString())
    (tmp_path / "link").symlink_to(folder / "graph.pb")
    flags = [f"--input_graph={folder / 'graph.pb'}", f"--input_checkpoint={prefix}", f"--input_saver={saver}"]
    for path in (*read, prefix, saver, tmp_path / "link"):
        held = path.read_bytes() if path.exists() else None
        given = [f"--output_graph={path}", f"--output_node_names={outputs}", "--input_binary", *flags]
        assert freeze_graph.main(given) == 1
        assert "write somewhere else" in capsys.readouterr().err
        assert (path.read_bytes() if path.exists() else None) == held
        with pytest.raises(gr.GraphRestoreError, match="write somewhere else"):
            call(folder / "graph.pb", str(prefix), outputs, output_graph=str(path), input_saver=str(saver))


def test_no_file_of_a_saved_model_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(SAVED_MODEL, folder)
    files = [
        path for path in folder.rglob("*") if path.is_file() and path.name.startswith(("saved_model", "variables"))
    ]
    assert len(files) >= 3
    for path in files:
        held = path.read_bytes()
        assert freeze_with(path, f"--input_saved_model_dir={folder}") == 1 and path.read_bytes() == held
    assert freeze_with(folder / "frozen.pb", f"--input_saved_model_dir={folder}") == 0


# the functions

# parameters of freeze_graph and freeze_graph_with_def_protos, release by release, in their order
_OLDEST = (
    "input_graph input_saver input_binary input_checkpoint output_node_names restore_op_name filename_tensor_name "
    "output_graph clear_devices initializer_nodes"
)
_LISTS = "variable_names_whitelist variable_names_blacklist"
_PROTOS = (
    "input_graph_def input_saver_def input_checkpoint output_node_names restore_op_name filename_tensor_name "
    f"output_graph clear_devices initializer_nodes {_LISTS} input_meta_graph_def input_saved_model_dir saved_model_tags"
)
SIGNATURES = {  # 1.0.1 has a further variable_names_blacklist where later ones have the whitelist: keyword only
    ("freeze_graph", "0.12.1"): _OLDEST,
    ("freeze_graph", "1.0.1"): _OLDEST,
    ("freeze_graph", "1.4.1"): f"{_OLDEST} {_LISTS} input_meta_graph input_saved_model_dir saved_model_tags",
    ("freeze_graph", "1.8.0"): (
        f"{_OLDEST} {_LISTS} input_meta_graph input_saved_model_dir saved_model_tags checkpoint_version"
    ),
    ("freeze_graph", "1.15.5"): (
        f"{_OLDEST} {_LISTS} input_meta_graph input_saved_model_dir saved_model_tags checkpoint_version"
    ),
    ("freeze_graph_with_def_protos", "1.4.1"): _PROTOS,
    ("freeze_graph_with_def_protos", "1.8.0"): f"{_PROTOS} checkpoint_version",
    ("freeze_graph_with_def_protos", "1.15.5"): f"{_PROTOS} checkpoint_version",
}


@pytest.mark.parametrize(("function", "version"), SIGNATURES, ids="-".join)
def test_parameters_are_those_of_every_release(function: str, version: str) -> None:
    theirs = SIGNATURES[function, version].replace("variable_names_blacklist", "variable_names_denylist").split()
    ours = inspect.signature(getattr(freeze_graph, function)).parameters
    assert list(ours)[: len(theirs)] == theirs
    assert all(parameter.default is not inspect.Parameter.empty for parameter in list(ours.values())[len(theirs) :])
    assert ours["variable_names_blacklist"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.tensorflow
@pytest.mark.parametrize("function", ["freeze_graph", "freeze_graph_with_def_protos"])
def test_parameters_and_defaults_are_those_of_the_tensorflow_here(function: str) -> None:
    from tensorflow.python.tools import freeze_graph as theirs

    expected = inspect.signature(getattr(theirs, function)).parameters
    ours = inspect.signature(getattr(freeze_graph, function)).parameters
    assert list(ours)[: len(expected)] == list(expected)
    assert {name: ours[name].default for name in expected} == {name: one.default for name, one in expected.items()}


def test_messages_are_taken_and_left_as_they_are(tmp_path: Path) -> None:
    one = case("linear/tf1.15.5-v2")
    assert one.meta is not None
    meta_graph = MetaGraphDef.FromString(one.meta.read_bytes())
    for arguments in ({"input_graph_def": meta_graph.graph_def}, {"input_meta_graph_def": meta_graph}):
        (message,) = arguments.values()
        before = message.SerializeToString(deterministic=True)
        given: dict[str, Any] = {"input_graph_def": None, "input_meta_graph_def": None, **arguments}
        found = freeze_graph.freeze_graph_with_def_protos(
            given.pop("input_graph_def"), meta_graph.saver_def, one.prefix, "y", None, None, str(tmp_path / "y.pb"),
            True, "", **given,
        )  # fmt: skip
        assert message.SerializeToString(deterministic=True) == before
        assert (tmp_path / "y.pb").read_bytes() == found.SerializeToString(deterministic=True)


def test_a_graph_with_the_values_of_a_saved_model() -> None:
    graph_def = gr.load(SAVED_MODEL).graph.graph_def
    found = freeze_graph.freeze_graph_with_def_protos(
        graph_def, None, None, "y", None, None, None, True, "", "", "", None, str(SAVED_MODEL), ["serve"], 2
    )
    direct = freeze_graph.freeze_graph_with_def_protos(
        None, None, None, "y", None, None, None, True, "", "", "", None, str(SAVED_MODEL), ["serve"], 2
    )
    assert found.SerializeToString(deterministic=True) == direct.SerializeToString(deterministic=True)


WRONG_CALLS: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    "no checkpoint there": (ValueError, {"input_checkpoint": "nowhere"}),
    "no checkpoint": (ValueError, {"input_checkpoint": ""}),
    "no outputs": (ValueError, {"output_node_names": ""}),
    "no graph": (ValueError, {"input_graph": ""}),
    "no graph there": (IOError, {"input_graph": "nowhere.pb"}),
    "version": (ValueError, {"checkpoint_version": 3}),
    "no such output": (gr.NodeNotFoundError, {"output_node_names": "z"}),
}


@pytest.mark.parametrize(("error", "change"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_errors_are_of_the_types_tensorflow_raises(error: type[Exception], change: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "input_graph": str(LINEAR / "graph.pb"), "input_saver": "", "input_binary": True,
        "input_checkpoint": str(LINEAR / "model.ckpt"), "output_node_names": "y", "restore_op_name": None,
        "filename_tensor_name": None, "output_graph": "", "clear_devices": True, "initializer_nodes": "",
    }  # fmt: skip
    with pytest.raises(error):
        freeze_graph.freeze_graph(**{**given, **change})


# beside TensorFlow's own tool

SIDE_BY_SIDE = [
    "linear/tf1.4.1-v2", "mlp/tf1.4.1-v2", "convnet/tf1.4.1-v2", "lstm_static/tf1.15.5-v2", "lstm_dynamic/tf1.15.5-v2",
    "resource/tf1.15.5-v2", "while_loop/tf1.15.5-v2", "control_flow_v2/tf1.15.5-v2", "sharded/tf1.4.1-v2",
]  # fmt: skip

# TensorFlow 2.21's tool takes no resource variables from a GraphDef, and its importer refuses the
# `_output_shapes` of old releases
THEIRS_CANNOT = {("graph", "resource"), ("graph", "control_flow_v2"), ("meta", "control_flow_v2"), ("meta", "convnet")}


def run(graph_def: Any, one: Case) -> list[Any]:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return list(session.run(list(one.oracle["outputs"]), one.oracle["feeds"]))


@pytest.mark.tensorflow
@pytest.mark.parametrize("identity", SIDE_BY_SIDE)
@pytest.mark.parametrize("form", ["graph", "meta"])
def test_gives_what_tensorflows_tool_gives(form: str, identity: str) -> None:
    import tensorflow.compat.v1 as tf
    from tensorflow.python.tools import freeze_graph as theirs

    one = case(identity)
    outputs = ",".join(name.partition(":")[0] for name in one.oracle["outputs"])

    def call(function: Callable[..., Any]) -> Any:
        meta = str(one.meta) if form == "meta" else None
        with tf.Graph().as_default():
            return function(
                None if meta else str(one.graph_pb), "", True, one.prefix, outputs, "", "", "", True, "", "", "", meta
            )

    ours = call(freeze_graph.freeze_graph)
    assert isinstance(ours, tf.GraphDef)
    if (form, one.model) in THEIRS_CANNOT:
        with pytest.raises((IndexError, ValueError)):
            run(call(theirs.freeze_graph), one)
    else:
        expected = call(theirs.freeze_graph)
        assert {node.op for node in ours.node} & VARIABLE_OPS == set()
        for found, value in zip(run(ours, one), run(expected, one)):
            np.testing.assert_array_equal(found, value)
    for found, value in zip(run(ours, one), one.oracle["outputs"].values()):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)
