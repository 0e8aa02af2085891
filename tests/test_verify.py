"""verify: equal models are found equal, different ones different, and nothing unsafe is run."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner, Result
from corpus import CORPUS, Case, case, cases

import graph_restore as gr
from graph_restore.cli.main import main
from graph_restore.ops import op_table
from graph_restore.protos import GraphDef
from graph_restore.runtime.comparison import compare
from graph_restore.transforms.unsafe import _REASONS, danger, unsafe_nodes

needs_tensorflow = pytest.mark.tensorflow
pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
REFUSED = {"metrics_local", "update_in_while", "update_unordered"}
ONE_OF_EACH = {one.model: one for one in cases() if one.model not in REFUSED}
META = CORPUS / "linear" / "tf1.15.5-v2" / "model.ckpt.meta"


def frozen_case(one: Case, **options: Any) -> tuple[gr.Model, gr.Model]:
    run = one.oracle["runs"][0]
    restored = gr.restore(gr.load(one.meta or one.graph_pb), one.prefix)
    return restored, gr.freeze(restored, list(run["outputs"]), list(run["feeds"]), **options)


# comparing arrays

NAN, INF = float("nan"), float("inf")
Row = tuple[Any, Any, int, float | None, float | None]
PAIRS: dict[str, Row] = {  # first, second, differing, greatest absolute and relative difference
    "equal": ([1.0, 2], [1.0, 2], 0, 0, 0),
    "within": ([100.0, 2], [100.0005, 2], 0, 0.0005, 5e-6),
    "past": ([100.0, 2], [101.0, 2.5], 2, 1, 0.25),
    "at zero": ([0.0], [0.5], 1, 0.5, 0.5),
    "NaN in both": ([NAN, 1], [NAN, 1], 0, 0, 0),
    "NaN in one": ([NAN, 1], [1.0, 1], 1, None, None),
    "the same infinity": ([INF, 1], [INF, 1], 0, 0, 0),
    "other infinities": ([INF, 1], [-INF, 1], 1, None, None),
    "complex": ([1 + 1j], [1 + 2j], 1, 1, 2**-0.5),
    "whole numbers": ([10, 20], [10, 21], 1, 1, 0.05),
    "truth values": ([True, False], [True, True], 1, None, None),
    "strings": (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), 1, None, None),
    "bfloat16": (np.array([1, 2], ml_dtypes.bfloat16), np.array([1, 3], ml_dtypes.bfloat16), 1, 1, 0.5),
    "nothing": (np.zeros([0, 3]), np.zeros([0, 3]), 0, 0, 0),
    "another shape": ([1.0, 2], [1.0], 2, None, None),
    "another dtype": (np.float32([1]), np.float64([1]), 1, None, None),
}


@pytest.mark.parametrize(("first", "second", "differing", "absolute", "relative"), PAIRS.values(), ids=PAIRS)
def test_compare(first: Any, second: Any, differing: int, absolute: float | None, relative: float | None) -> None:
    found = compare("y:0", np.asarray(first), np.asarray(second), atol=1e-6, rtol=1e-5)
    assert found.differing == differing
    assert found.ok is (differing == 0)
    for value, expected in ((found.max_absolute, absolute), (found.max_relative, relative)):
        assert value == (None if expected is None else pytest.approx(expected, rel=1e-3))
    assert json.loads(json.dumps(found.to_dict()))["ok"] is found.ok


def test_text_says_how_many_strings_differ() -> None:
    words = np.array([b"a", b"b"], object)
    assert str(compare("y:0", words, words, 0, 0)) == "y:0 string [2]: none of 2 elements differ"


# the corpus


@needs_tensorflow
@pytest.mark.parametrize("one", ONE_OF_EACH.values(), ids=lambda one: one.id)
def test_what_is_frozen_right_is_found_equal(one: Case) -> None:
    restored, frozen = frozen_case(one)
    found = gr.verify(restored, frozen, one.oracle["feeds"])
    assert found.ok, str(found)
    assert [output.name for output in found.outputs] == list(one.oracle["outputs"])
    assert set(found.feeds) <= set(one.oracle["feeds"])
    for output, value in zip(found.outputs, one.oracle["outputs"].values()):
        assert output.size == np.size(value)


@needs_tensorflow
def test_a_difference_is_found_and_measured(tmp_path: Path) -> None:
    restored, frozen = frozen_case(case("linear/tf1.15.5-v2"))
    graph_def = GraphDef.FromString(frozen.graph.materialize().SerializeToString())
    (bias,) = [node for node in graph_def.node if node.name == "b"]
    changed = frozen.graph.value(frozen.graph.node("b")).read() + np.float32([0, 0.5, 0])
    bias.attr["value"].tensor.tensor_content = changed.tobytes()
    found = gr.verify(restored, graph_def, {"x": np.zeros([4, 4], np.float32)}, fetches="y")
    assert not found.ok
    assert found.outputs[0].differing == 4 and found.outputs[0].size == 12
    assert found.outputs[0].max_absolute == pytest.approx(0.5)
    assert gr.verify(restored, graph_def, fetches="y", atol=0.51).ok


@needs_tensorflow
def test_files_and_a_checkpoint_are_taken(tmp_path: Path) -> None:
    one = case("linear/tf0.12.1-v1")
    _, frozen = frozen_case(one)
    gr.export(frozen, tmp_path / "frozen.pb")
    np.savez(tmp_path / "feeds.npz", **{"x:0": np.ones([3, 4], np.float32)})
    found = gr.verify(one.graph_pb, tmp_path / "frozen.pb", tmp_path / "feeds.npz", checkpoint=one.prefix)
    assert found.ok and found.feeds == {"x:0": "float32 [3, 4]"}
    with pytest.raises(gr.CheckpointNotFoundError):
        gr.verify(one.graph_pb, tmp_path / "frozen.pb")
    with pytest.raises(gr.NodeNotFoundError, match="neither graph has z:0"):
        gr.verify(one.graph_pb, frozen, {"z": 1}, checkpoint=one.prefix)
    with pytest.raises(gr.NodeNotFoundError, match="'z'"):
        gr.verify(one.graph_pb, frozen, fetches="z", checkpoint=one.prefix)


@needs_tensorflow
def test_each_side_takes_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    partial, kept = tmp_path / "partial.pb", tmp_path / "partial"
    freezing = call("freeze", META, "--fetches", "y", "--keep-variables", "w", "-o", partial, "--verify")
    assert freezing.exit_code == 0 and "verified   equal" in freezing.stdout
    with pytest.raises(gr.CheckpointNotFoundError, match=r"variables \(w\) and no.*pass result_checkpoint="):
        gr.verify(META, partial)
    assert gr.verify(META, partial, result_checkpoint=kept).ok
    assert "pass --result-checkpoint with the checkpoint's prefix" in call("verify", META, partial).stderr
    assert call("verify", META, partial, "--result-checkpoint", kept).stdout.startswith("equal ")
    swapped = call("verify", partial, META, "--fetches", "y")
    assert swapped.exit_code == 1 and "pass --checkpoint with the checkpoint's prefix" in swapped.stderr


# feeds


@needs_tensorflow
@pytest.mark.parametrize(
    ("identity", "fed"),
    [
        ("linear/tf0.12.1-v1", {"x:0": "float32 [2, 4]"}),
        ("convnet/tf1.4.1-v2", {"images:0": "float32 [2, 6, 6, 1]", "is_training:0": "bool []"}),
        ("queue_input/tf1.15.5-v2", {"batch:0": "float32 [2, 3]"}),
        ("key_value_table/tf1.15.5-v2", {"words:0": "string [2]"}),
        ("resource_partitioned/tf1.15.5-v2", {"ids:0": "int32 [2]"}),
    ],
)
def test_feeds_are_made_and_always_the_same(identity: str, fed: dict[str, str]) -> None:
    restored, frozen = frozen_case(case(identity))
    found, again = gr.verify(restored, frozen), gr.verify(restored, frozen)
    assert found == again and found.ok
    assert fed.items() <= found.feeds.items()


@needs_tensorflow
def test_a_feed_cut_in_the_middle_is_fed_on_both_sides() -> None:
    model = gr.restore(gr.load(CORPUS / "feed_middle" / "tf1.4.1-v2" / "model.ckpt.meta"))
    frozen = gr.freeze(model, "y", ["x", "unstack:1"])
    value = np.float32([7, 7])
    found = gr.verify(model, frozen, {"unstack:1": value})
    assert found.ok and found.feeds["unstack:1"] == "float32 [2]"
    made = gr.verify(model, frozen, shapes={"unstack": [2]})
    assert made.ok and "unstack:1" in made.feeds


@needs_tensorflow
def test_a_constant_of_the_result_is_fed_to_the_original() -> None:
    model = gr.restore(gr.load(CORPUS / "convnet" / "tf1.15.5-v2" / "model.ckpt.meta"))
    for training in (False, True):
        frozen = gr.freeze(model, "scores/out", constants={"is_training": training}, on_update="initial")
        assert gr.verify(model, frozen, {"is_training": training}).ok
    assert not gr.verify(model, frozen, {"is_training": False}).ok  # frozen for training: this is another model


@needs_tensorflow
def test_freeze_verify_feeds_what_was_set(tmp_path: Path) -> None:
    meta, output = CORPUS / "convnet" / "tf1.15.5-v2" / "model.ckpt.meta", tmp_path / "frozen.pb"
    for value in ("false", "true"):
        flags = ["--fetches", "scores/out", "--set", f"is_training={value}", "--on-update", "initial", "--verify"]
        result = call("freeze", meta, *flags, "-o", output)
        assert result.exit_code == 0 and "verified   equal" in result.stdout, result.output


def doubled(placeholder: str) -> GraphDef:
    """y = x + x"""
    return text(
        f'''node {{ name: "{placeholder}" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }}
                  attr {{ key: "shape" value {{ shape {{ dim {{ size: 2 }} }} }} }} }}
            node {{ name: "y" op: "AddV2" input: ["{placeholder}", "{placeholder}"]
                  attr {{ key: "T" value {{ type: DT_FLOAT }} }} }} versions {{ producer: 1000 }}'''
    )


@needs_tensorflow
def test_a_placeholder_of_another_name_is_told_and_fed_by_both_names() -> None:
    models = doubled("x"), doubled("other")
    words = "other:0, a placeholder that the result needs, is not in the original, whose placeholders are x:0; .*pass f"
    for feeds in (None, {"x": np.ones(2, np.float32)}):
        with pytest.raises(gr.NodeNotFoundError, match=words):
            gr.verify(*models, feeds)
    found = gr.verify(*models, {"x": np.ones(2, np.float32), "other:0": np.ones(2, np.float32)})
    assert found.ok and found.feeds == {"other:0": "float32 [2]", "x:0": "float32 [2]"}


@needs_tensorflow
def test_an_unknown_shape_is_asked_for() -> None:
    restored, frozen = frozen_case(case("unknown_shape/tf1.4.1-v2"))
    with pytest.raises(gr.GraphRestoreError, match=r"does not state the shape of x:0 float32; pass feeds"):
        gr.verify(restored, frozen)
    value = np.shape(case("unknown_shape/tf1.4.1-v2").oracle["feeds"]["x:0"])
    assert gr.verify(restored, frozen, shapes={"x": value}).ok


@needs_tensorflow
def test_feeds_that_do_not_run_are_told() -> None:
    restored, frozen = frozen_case(case("linear/tf1.15.5-v2"))
    with pytest.raises(gr.GraphRestoreError, match=r"cannot be run with these feeds \(x:0\): .*pass feeds"):
        gr.verify(restored, frozen, {"x": np.zeros([2, 5], np.float32)})


@needs_tensorflow
def test_a_shape_of_nothing_and_models_without_a_common_output_are_told() -> None:
    model, frozen = frozen_case(case("linear/tf1.4.1-v2"))
    with pytest.raises(gr.NodeNotFoundError, match="a shape is given for q, which is no feed.*those that are: x"):
        gr.verify(model, frozen, shapes={"q": [1, 4]})
    assert gr.verify(model, frozen, shapes={"x:0": [5, 4]}).feeds == {"x:0": "float32 [5, 4]"}
    other = gr.restore(gr.load(case("convnet/tf1.4.1-v2").meta))
    frozen = gr.freeze(model, "y")
    with pytest.raises(
        gr.FreezeError, match="in both models: .*model.ckpt.meta has .*scores/out:0.* has y:0; pass fetc"
    ):
        gr.verify(other, gr.load(frozen.graph.materialize()))


@needs_tensorflow
def test_dropout_is_compared_with_one_seed() -> None:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [None, 50], name="x")
        tf.identity(tf.nn.dropout(x, rate=0.5), name="y")
    found = gr.verify(graph.as_graph_def(), graph.as_graph_def(), fetches="y")
    assert found.ok and "random ops" in found.notes[0]


# what must not be run


def text(source: str) -> GraphDef:
    from google.protobuf import text_format

    return text_format.Parse(source, GraphDef())


def const(name: str, value: str) -> str:
    tensor = f'tensor {{ dtype: DT_STRING tensor_shape {{ }} string_val: "{value}" }}'
    dtype = 'attr { key: "dtype" value { type: DT_STRING } }'
    return f'node {{ name: "{name}" op: "Const" {dtype} attr {{ key: "value" value {{ {tensor} }} }} }}'


def writes(path: Path) -> Any:
    """A graph whose output waits for a file to be written."""
    string = 'attr { key: "T" value { type: DT_STRING } }'
    return text(
        const("path", str(path))
        + const("content", "written")
        + 'node { name: "write" op: "WriteFile" input: ["path", "content"] }'
        + f'node {{ name: "y" op: "Identity" input: ["content", "^write"] {string} }}'
    )


@needs_tensorflow
def test_unsafe_ops_are_refused_unless_allowed(tmp_path: Path) -> None:
    graph_def = writes(tmp_path / "file")
    with pytest.raises(gr.GraphRestoreError, match=r"not run: write \(WriteFile writes files.*allow_unsafe_ops=True"):
        gr.verify(graph_def, graph_def, fetches="y")
    assert not (tmp_path / "file").exists()
    assert gr.verify(graph_def, graph_def, fetches="content").ok  # what is not run is not asked about
    assert gr.verify(graph_def, graph_def, fetches="y", allow_unsafe_ops=True).ok
    assert (tmp_path / "file").read_text() == "written"


def test_unsafe_ops_are_found_in_functions_and_not_behind_feeds() -> None:
    graph_def = text(
        """
        library { function { signature { name: "inner" output_arg { name: "o" type: DT_FLOAT } }
                    node_def { name: "code" op: "PyFunc" } ret { key: "o" value: "code:output:0" } }
                  function { signature { name: "outer" output_arg { name: "o" type: DT_FLOAT } }
                    node_def { name: "call" op: "inner" } ret { key: "o" value: "call:o:0" } } }
        node { name: "call" op: "PartitionedCall" attr { key: "f" value { func { name: "outer" } } } }
        node { name: "x" op: "Relu" input: "call" } node { name: "y" op: "Relu" input: "x" }
        """
    )
    graph = gr.load(graph_def).graph
    assert unsafe_nodes(graph, [("y", 0)]) == {"inner/code": "PyFunc runs code that is not in the graph"}
    assert unsafe_nodes(graph, [("y", 0)], [("x", 0)]) == {}


def test_unsafe_ops_are_ops_that_there_are() -> None:
    assert set(_REASONS) - set(op_table()) == {"TRTEngineOp"}  # of a library of its own


SAFE = [
    "MatMul",
    "ReadVariableOp",
    "TensorArrayReadV3",
    "DecodeJpeg",
    "ParseExample",
    "Print",
    "PartitionedCall",
    "Log",
]
UNSAFE = [
    "ReadFile", "RestoreV2", "SaveV2", "TextLineReader", "TFRecordDataset", "ExperimentalCSVDataset", "ImmutableConst",
    "WriteScalarSummary", "PyFunc", "EagerPyFunc", "DebugIdentityV2", "PrintV2", "Rpc", "Abort", "SnapshotDatasetV2",
    "InitializeTableFromTextFileV2", "CacheDataset", "MatchingFiles", "BigtableLookupDataset", "XlaCustomCallV2",
]  # fmt: skip


@pytest.mark.parametrize(("op", "unsafe"), [*((op, False) for op in SAFE), *((op, True) for op in UNSAFE)])
def test_danger(op: str, unsafe: bool) -> None:
    assert op in op_table()
    assert bool(danger(op)) is unsafe


@needs_tensorflow
def test_a_vocabulary_beside_the_model_may_be_read_and_no_other(tmp_path: Path) -> None:
    one = case("vocabulary/tf1.4.1-v2")
    restored, frozen = frozen_case(one)
    assert gr.verify(restored, frozen, one.oracle["feeds"]).ok
    (tmp_path / "elsewhere.txt").write_bytes((one.directory / "vocabulary.txt").read_bytes())
    graph_def = GraphDef.FromString(restored.graph.materialize().SerializeToString())
    (path,) = [
        node
        for node in graph_def.node
        if node.op == "Const" and any(b".txt" in text for text in node.attr["value"].tensor.string_val)
    ]
    path.attr["value"].tensor.string_val[0] = str(tmp_path / "elsewhere.txt").encode()
    moved = gr.restore(gr.load(graph_def), one.prefix)
    with pytest.raises(gr.GraphRestoreError, match="InitializeTableFromTextFileV2 reads files.*or asset_dir= with the"):
        gr.verify(moved, frozen, one.oracle["feeds"])
    assert gr.verify(moved, frozen, one.oracle["feeds"], asset_dir=tmp_path).ok

    (tmp_path / "model").mkdir()
    graph, output = tmp_path / "model" / "graph.pb", tmp_path / "model" / "frozen.pb"
    graph.write_bytes(graph_def.SerializeToString())
    freezing = ("freeze", graph, one.prefix, "--fetches", ",".join(one.oracle["outputs"]), "-o", output, "--verify")
    refused = call(*freezing)
    assert refused.exit_code == 1 and "pass --allow-unsafe-ops, or --asset-dir with" in refused.stderr
    for option in (["--allow-unsafe-ops"], ["--asset-dir", tmp_path]):
        assert "verified   equal" in call(*freezing, *option).stdout


# without TensorFlow


def test_without_tensorflow_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['tensorflow'] = None; from graph_restore.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "verify", META, META], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'graph-restore[tensorflow]'" in done.stderr


# the command line


def call(*arguments: Any) -> Result:
    with warnings.catch_warnings():
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@needs_tensorflow
def test_command(tmp_path: Path) -> None:
    output = tmp_path / "frozen.pb"
    result = call("freeze", META, "--fetches", "y", "-o", output, "--verify")
    assert result.exit_code == 0 and "verified   equal (atol 1e-06, rtol 1e-05)" in result.stdout
    assert "y:0 float32 [2, 3]: " in result.stdout
    result = call("verify", META, output)
    assert result.exit_code == 0 and result.stdout.startswith("equal (atol 1e-06, rtol 1e-05)\n")
    found = json.loads(call("verify", META, output, "--json", "--shape", "x=7,4", "--atol", "1").stdout)
    assert found["ok"] and found["atol"] == 1 and found["feeds"] == {"x:0": "float32 [7, 4]"}
    assert found["outputs"][0]["first"] == "float32 [7, 3]" and found["outputs"][0]["max_absolute"] <= 1e-6
    np.savez(tmp_path / "feeds.npz", x=np.ones([3, 4], np.float32))
    found = json.loads(call("verify", META, output, "--feeds", tmp_path / "feeds.npz", "--json").stdout)
    assert found["feeds"] == {"x:0": "float32 [3, 4]"}
    other = CORPUS / "linear" / "tf1.4.1-v2" / "model.ckpt.meta"
    assert call("verify", other, output, "--checkpoint", LINEAR_OTHER, "--fetches", "y").exit_code == 1
    assert call("verify", META, output, "--shape", "x").exit_code == 2


@needs_tensorflow
def test_feeds_that_are_no_npz_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    (tmp_path / "text.npz").write_text("x")
    for name in ("one.npy", "objects.npz", "text.npz"):
        result = call("verify", META, META, "--feeds", tmp_path / name, "--fetches", "y")
        assert result.exit_code == 1 and f"Error: {tmp_path / name}: feeds are an .npz" in result.stderr


LINEAR_OTHER = CORPUS / "mismatch" / "tf1.4.1-v2"
