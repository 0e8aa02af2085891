"""Programs that are written for a model: they run as they are, and with the right feeds give the right results."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from corpus import CORPUS, Case, case, cases
from snippets import ROOT

import graph_restore as gr
from graph_restore.cli.main import main
from graph_restore.graph import tensor_attr
from graph_restore.protos import GraphDef
from graph_restore.script.training import own_train_op

NEWEST = list({one.model: one for one in cases()}.values())
quiet = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")


def script_of(one: Case, to: str = "tf2", **options: Any) -> str:
    path = str(one.meta or one.graph_pb)
    return gr.migration_script(path, to, checkpoint=one.prefix, **{"fetches": list(one.oracle["outputs"]), **options})


def assigned(text: str, name: str) -> list[ast.Assign]:
    """The statements that give `name` a value."""
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assign)]
    return [node for node in found if isinstance(node.targets[0], ast.Name) and node.targets[0].id == name]


# --- what they say ---------------------------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("one", cases(), ids=lambda one: one.id)
def test_feeds_have_the_names_dtypes_and_shapes_of_the_model(one: Case) -> None:
    (feeds,) = assigned(script_of(one), "feeds")
    found = eval(ast.unparse(feeds.value), {"np": np, "random": np.random.default_rng(0)})
    fed = one.oracle["feeds"]
    assert set(found) <= set(fed)
    for name, array in found.items():
        assert array.dtype.kind == fed[name].dtype.kind, name
        assert array.ndim == fed[name].ndim or one.id == "training_forms/tf0.12.1-v1", name  # which does not state it


@pytest.mark.parametrize("one", [one for one in cases() if one.meta], ids=lambda one: one.id)
def test_the_train_op_is_found_in_the_bare_graph(one: Case) -> None:
    collections = gr.load(one.meta).collections
    expected = list(collections["train_op"].node_list.value) if "train_op" in collections else [None]
    if one.model == "mlp":
        expected = ["ExponentialMovingAverage"]  # which waits for the step, and averages what it gave
    assert [own_train_op(gr.load(one.graph_pb))] == expected


def test_sizes_that_only_the_weights_tell() -> None:
    one = case("unknown_shape/tf1.15.5-v2")
    (feeds,) = assigned(script_of(one), "feeds")
    found = eval(ast.unparse(feeds.value), {"np": np, "random": np.random.default_rng(0)})
    assert found["x:0"].shape[-1] == one.oracle["variables"]["w:0"].shape[-2] == one.oracle["feeds"]["x:0"].shape[-1]


def example_feeds(path: Path, graph: GraphDef, **options: Any) -> tuple[dict[str, Any], str]:
    """The arrays that a program for a graph is fed, and the program."""
    path.write_bytes(graph.SerializeToString())
    text = gr.migration_script(path, **options)
    (feeds,) = assigned(text, "feeds")
    return eval(ast.unparse(feeds.value), {"np": np, "random": np.random.default_rng(0)}), text


def placeholder(graph: GraphDef, name: str, *sizes: int) -> None:
    node = graph.node.add(name=name, op="Placeholder")
    node.attr["dtype"].type = 1
    for size in sizes:
        node.attr["shape"].shape.dim.add(size=size)


def test_rows_are_as_many_as_the_graph_has_of_its_own(tmp_path: Path) -> None:
    graph = GraphDef()
    placeholder(graph, "x", -1, 3)
    placeholder(graph, "other", -1, 3)
    own = graph.node.add(name="own", op="Const").attr
    own["dtype"].type = 1
    own["value"].tensor.CopyFrom(tensor_attr(np.ones([5, 3], np.float32)).tensor)
    for name, op, inputs in (("t", "Tanh", "x"), ("s", "Add", "t own"), ("y", "Mul", "s other")):
        graph.node.add(name=name, op=op, input=inputs.split()).attr["T"].type = 1
    feeds, text = example_feeds(tmp_path / "g.pb", graph, fetches="y")
    assert (feeds["x:0"].shape, feeds["other:0"].shape) == ((5, 3), (5, 3))
    assert "There have to be 5 rows" in text


@pytest.mark.parametrize(("sizes", "expected"), [((-1, -1, 3), 4), ((-1, 7, 3), 2)])
def test_open_sizes_agree_as_those_of_lengths_and_time_major_sequences_must(
    tmp_path: Path, sizes: tuple[int, ...], expected: int
) -> None:
    graph = GraphDef()
    placeholder(graph, "x", *sizes)
    placeholder(graph, "lengths", -1)
    graph.node.add(name="y", op="IdentityN", input=["x", "lengths"]).attr["T"].list.type.extend([1, 1])
    feeds, text = example_feeds(tmp_path / "g.pb", graph, fetches=["y:0", "y:1"])
    assert feeds["x:0"].shape == tuple(expected if size < 0 else size for size in sizes)
    assert feeds["lengths:0"].shape == (expected,) and "There have to be" not in text


@pytest.mark.parametrize("to", ["tf2", "tf1"])
@pytest.mark.parametrize(
    ("gradient", "is_trained"), [(b"Flipped", False), (b"CustomGradient-3", False), (b"Relu", True)]
)
def test_gradients_of_programs_are_not_asked_for(tmp_path: Path, to: str, gradient: bytes, is_trained: bool) -> None:
    one = case("linear/tf1.15.5-v2")
    graph = gr.load(one.graph_pb).graph.materialize()
    (added,) = [node for node in graph.node if node.name == "y"]
    added.attr["_gradient_op_type"].s = gradient
    path = tmp_path / "g.pb"
    path.write_bytes(graph.SerializeToString())
    text = gr.migration_script(path, to, fetches="y", checkpoint=one.prefix)
    assert ("# One step of training" in text) is is_trained
    assert (f"'y' ({added.op}) the gradient {gradient.decode()!r}" in text) is not is_trained


NASTY = 'a\'b"""c\\\n#d'


@pytest.mark.parametrize("to", ["tf2", "tf1"])
def test_names_and_paths_are_only_ever_strings(tmp_path: Path, to: str) -> None:
    graph = GraphDef()
    node = graph.node.add(name=NASTY, op="Placeholder")
    node.attr["dtype"].type = 1
    node.attr["shape"].shape.dim.add(size=3)
    graph.node.add(name=NASTY + "y", op="Tanh", input=[NASTY]).attr["T"].type = 1
    path = tmp_path / f"{NASTY.replace('/', '')}.pb"
    path.write_bytes(graph.SerializeToString())
    text = gr.migration_script(path, to, fetches=NASTY + "y", asset_dir=NASTY)
    assert ast.literal_eval(assigned(text, "MODEL")[0].value) == str(path)
    assert ast.literal_eval(assigned(text, "fetches")[0].value) == [NASTY + "y:0"]
    (feeds,) = assigned(text, "feeds")
    assert isinstance(feeds.value, ast.Dict)
    assert [ast.literal_eval(key) for key in feeds.value.keys if key is not None] == [NASTY + ":0"]
    strings = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    assert NASTY in strings
    assert "Not trained: the model has no variables" in text


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"to": "tf3"}, ValueError, "'tf2' or 'tf1', not 'tf3'"),
        ({"fetches": "z"}, gr.NodeNotFoundError, "no node 'z'"),
        ({"fetches": "y", "feeds": ["w/read"]}, gr.UpgradeError, "need x, which nothing feeds"),
        (
            {"checkpoint": CORPUS / "mismatch/tf1.15.5-v2/renamed"},
            gr.RestoreError,
            "nothing in it fits",
        ),
        ({"checkpoint": CORPUS / "mismatch/tf1.15.5-v2/reshaped"}, gr.RestoreError, "does not fit"),
    ],
)
def test_errors(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    one = case("mismatch/tf1.15.5-v2")
    with pytest.raises(error, match=words):
        gr.migration_script(one.graph_pb, **{"checkpoint": one.prefix, **arguments})


def test_a_graph_without_file_or_checkpoint_is_refused() -> None:
    one = case("linear/tf1.15.5-v2")
    with pytest.raises(ValueError, match="pass its path"):
        gr.migration_script(one.graph_pb.read_bytes())
    with pytest.raises(gr.CheckpointNotFoundError, match="bare graph"):
        gr.migration_script(one.graph_pb)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    target, meta = tmp_path / "x.py", str(case("linear/tf1.15.5-v2").meta)
    target.write_text("mine")
    done = CliRunner().invoke(main, ["script", meta, "-o", str(target)])
    assert done.exit_code == 1 and "--force" in done.output and target.read_text() == "mine"
    done = CliRunner().invoke(main, ["script", meta, "-o", str(target), "--force"])
    assert (done.exit_code, done.output) == (0, f"wrote {target}\n")
    printed = CliRunner().invoke(main, ["script", meta])
    assert printed.output == target.read_text() == gr.migration_script(meta)


# --- what they do ----------------------------------------------------------------------------------------------------


class WithFeeds(ast.NodeTransformer):
    """Puts arrays that were given in the place of the examples."""

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        if ast.unparse(node.targets[0]) == "feeds":
            expression = f"{{name: GIVEN.get(name, value) for name, value in {ast.unparse(node.value)}.items()}}"
            node.value = ast.parse(expression, mode="eval").body
        return node


def results_of(text: str, feeds: dict[str, Any]) -> dict[str, Any]:
    """The names of a program's globals to their values after it has run with these feeds."""
    tree = ast.fix_missing_locations(WithFeeds().visit(ast.parse(text)))
    names: dict[str, Any] = {"__name__": "__main__", "GIVEN": feeds}
    try:
        exec(compile(tree, "program", "exec"), names)
    finally:
        enable_control_flow()
    return names


def enable_control_flow() -> None:
    """Undo what a program with old loops switched off for its own process."""
    import tensorflow as tf

    tf.compat.v1.enable_control_flow_v2()


@pytest.mark.tensorflow
@quiet
@pytest.mark.parametrize("to", ["tf2", "tf1"])
@pytest.mark.parametrize("one", NEWEST, ids=lambda one: one.id)
def test_programs_run_as_they_are(one: Case, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script_of(one, to)
    try:
        exec(compile(text, "program", "exec"), {"__name__": "__main__"})
    finally:
        enable_control_flow()
    printed = capsys.readouterr().out
    assert all(f"\n{name} (" in f"\n{printed}" for name in one.oracle["outputs"])
    trained = [line for line in printed.splitlines() if line.startswith(("loss ", "one step of"))]
    assert trained or "# Not trained: " in text
    assert not any(line.endswith("of 0 variables") for line in trained) or one.model == "update_value"


@pytest.mark.tensorflow
@quiet
@pytest.mark.parametrize("to", ["tf2", "tf1"])
@pytest.mark.parametrize(
    "identity",
    ["mlp/tf0.12.1-v1", "convnet/tf1.4.1-v2", "lstm_dynamic/tf1.15.5-v2", "partitioned/tf1.4.1-v2",
     "queue_input/tf1.15.5-v2", "vocabulary/tf0.12.1-v1"],
)  # fmt: skip
def test_with_the_right_feeds_they_give_the_right_results(identity: str, to: str) -> None:
    one = case(identity)
    text = script_of(one, to)
    untrained = text[: text.index("# One step of training")] if "# One step" in text else text
    names = results_of(untrained, one.oracle["feeds"])
    found = names["results"]
    found = found if isinstance(found, dict) else dict(zip(names["fetches"], found))
    for name, value in one.oracle["outputs"].items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.tensorflow
@quiet
def test_the_graphs_own_step_is_taken() -> None:
    text = script_of(case("mlp/tf1.4.1-v2"), "tf1", fetches="softmax")
    names = results_of(text + "    step = session.run('global_step:0')\n", {})
    assert set(names["train_feeds"]) == {"features:0", "labels:0"} and names["step"] == 1001


@pytest.mark.tensorflow
@pytest.mark.parametrize("to", ["tf2", "tf1"])
def test_the_command_writes_a_program_of_its_own(place: Path, to: str) -> None:
    """In a process of its own, from a SavedModel that has tags, by the command's defaults."""
    arguments = ["script", "legacy_models/saved_model_two_tags/tf1.4.1-v2/saved_model", "--tags", "serve,gpu"]
    command = [sys.executable, "-m", "graph_restore", *arguments, "--to", to, "-o", "program.py"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(place), "TF_CPP_MIN_LOG_LEVEL": "3"}
    for line in (command, [sys.executable, "program.py"]):
        done = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "\nsoftmax:0 (2, 2)\n" in done.stdout  # what the signature gives
