"""Ops that are gone: reported with what is known of them, and rewritten to give what TensorFlow 1 gave.

The answers are those of TensorFlow 1.15.5 (of 1.4.1 for its form of GatherTree), run on the same inputs.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from corpus import CORPUS, case, cases
from google.protobuf import text_format

import graph_restore as gr
from graph_restore.cli.main import main
from graph_restore.op_report import report_ops
from graph_restore.ops import op_table
from graph_restore.protos import GraphDef
from graph_restore.transforms.modernize import _KNOWN, REWRITTEN, replacement

pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
CONTRIB = CORPUS / "contrib_op" / "tf1.4.1-v2" / "model.ckpt.meta"

STEPS = [[[2, 0, 1], [3, 0, 0]], [[0, 3, 2], [3, 1, 1]], [[2, 0, 4], [4, 0, 2]], [[1, 2, 2], [2, 4, 1]], [[3, 2, 0], [1, 2, 0]]]  # fmt: skip # noqa: E501
PARENTS = [[[2, 0, 1], [0, 1, 0]], [[2, 1, 1], [2, 0, 0]], [[2, 0, 0], [1, 2, 0]], [[1, 0, 0], [1, 1, 2]], [[1, 1, 1], [1, 1, 2]]]  # fmt: skip # noqa: E501
BEAMS = [[[0, 0, 0], [3, 3, 0]], [[2, 2, 2], [1, 1, 3]], [[2, 2, 2], [4, 0, 2]], [[2, 2, 2], [4, 4, 4]], [[3, 2, 0], [4, 4, 4]]]  # fmt: skip # noqa: E501
OLD_BEAMS = [[[0, 1, 1], [0, 3, 0]], [[2, 0, -1], [3, 1, 3]], [[2, 0, -1], [-1, 0, 2]], [[2, -1, -1], [-1, 4, 1]], [[3, -1, -1], [-1, -1, 0]]]  # fmt: skip # noqa: E501
PICTURE = np.arange(16, dtype=np.float32).reshape([1, 4, 4, 1])
TURN = np.float32([[1, 0.5, -0.25, 0, 1, 0.5, 0, 0]])
NEAREST = [4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 0, 0, 0, 0, 0]
BILINEAR = [1.5, 2.75, 3.75, 4.75, 6.25, 7.25, 8.25, 6.75, 10.75, 11.75, 12.75, 3.25, 6.625, 7.125, 5.625, 0]
BITS = [[3, 0, 5, -1, 2, 2, 9, 0], [1, 1, 1, 1, 4, 4, 0, 7]]

Row = tuple[str, dict[str, Any], dict[str, Any], Any]
OPS: dict[str, Row] = {  # op, attrs, inputs, answer
    "GatherTree": (
        "GatherTree", {"T": 3},
        {"a": np.int32(STEPS), "b": np.int32(PARENTS), "c": np.int32([5, 3]), "d": np.int32(4)}, BEAMS,
    ),
    "GatherTree of 1.4": (
        "GatherTree", {"T": 3},
        {"a": np.int32(STEPS), "b": np.int32(PARENTS), "c": np.int32([[5, 3, 1], [2, 4, 5]])}, OLD_BEAMS,
    ),
    "nearest": (
        "ImageProjectiveTransform", {"dtype": 1, "interpolation": b"NEAREST"}, {"a": PICTURE, "b": TURN},
        np.float32(NEAREST).reshape([1, 4, 4, 1]),
    ),
    "bilinear": (
        "ImageProjectiveTransform", {"dtype": 1, "interpolation": b"BILINEAR"}, {"a": PICTURE, "b": TURN},
        np.float32(BILINEAR).reshape([1, 4, 4, 1]),
    ),
    "before 1.4, which could do nearest only": (
        "ImageProjectiveTransform", {"dtype": 1}, {"a": PICTURE, "b": TURN}, np.float32(NEAREST).reshape([1, 4, 4, 1]),
    ),
    "points between, beside and outside": (
        "Resampler", {"T": 1},
        {
            "a": np.arange(24, dtype=np.float32).reshape([1, 4, 3, 2]),
            "b": np.float32([[[0.5, 1.25], [-0.5, 0], [2.75, 3.5], [1, -1], [9, 1]]]),
        },
        [[[8.5, 9.5], [0.0, 0.5], [2.75, 2.875], [0.0, 0.0], [0.0, 0.0]]],
    ),
    "bits": ("CompareAndBitpack", {"T": 3}, {"a": np.int32(BITS), "b": np.int32(1)}, np.uint8([[174], [13]])),
}  # fmt: skip


def graph_of(op: str, attrs: dict[str, Any], inputs: dict[str, Any], result: int) -> Any:
    """Placeholders, the op, and an Identity `y`."""
    from graph_restore.dtypes import from_numpy

    graph_def = GraphDef()
    for name, value in inputs.items():
        node = graph_def.node.add(name=name, op="Placeholder")
        node.attr["dtype"].type = from_numpy(np.asarray(value).dtype)
        node.attr["shape"].shape.unknown_rank = True
    node = graph_def.node.add(name="op", op=op, input=list(inputs))
    for name, value in attrs.items():
        if isinstance(value, bytes):
            node.attr[name].s = value
        else:
            node.attr[name].type = value
    graph_def.node.add(name="y", op="Identity", input=["op"]).attr["T"].type = result
    graph_def.versions.producer = 134
    return graph_def


def run(graph_def: Any, feeds: dict[str, Any], fetch: str = "y:0") -> Any:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(tf.GraphDef.FromString(graph_def.SerializeToString()), name="")
        return session.run(fetch, {f"{name}:0": value for name, value in feeds.items()})


@pytest.mark.tensorflow
@pytest.mark.parametrize(("op", "attrs", "inputs", "answer"), OPS.values(), ids=OPS)
def test_rewritten_ops_give_what_tensorflow_1_gave(op: str, attrs: Any, inputs: Any, answer: Any) -> None:
    before = gr.load(graph_of(op, attrs, inputs, 4 if op == "CompareAndBitpack" else attrs.get("T") or attrs["dtype"]))
    after = gr.modernize(before)
    assert after.graph.node("op").op != op and after.notes == (f"{op} is written with other ops: op",)
    assert before.graph.node("op").op == op, "the model given was changed"
    found = run(after.graph.materialize(), inputs)
    assert found.tolist() == np.asarray(answer).tolist()


@pytest.mark.tensorflow
def test_a_model_with_an_op_of_contrib_runs_again() -> None:
    one = case("contrib_op/tf1.15.5-v2")
    frozen = gr.freeze(gr.restore(gr.load(one.graph_pb), one.prefix), "resampled/Resampler")
    found = run(gr.modernize(frozen).graph.materialize(), {"x": PICTURE}, "resampled/Resampler:0")
    assert found.shape == (1, 1, 1) and found.item() == pytest.approx(-0.522291898727417, rel=1e-6)


@pytest.mark.tensorflow
def test_ops_in_functions_and_loops_are_rewritten(tmp_path: Any) -> None:
    """A function that holds the op, called from a body of a v1 loop, beside the op itself."""
    text = """
        library { function {
            signature { name: "turn" input_arg { name: "p" type: DT_FLOAT } input_arg { name: "t" type: DT_FLOAT }
                        output_arg { name: "o" type: DT_FLOAT } }
            node_def { name: "op" op: "ImageProjectiveTransform" input: ["p", "t"]
                       attr { key: "dtype" value { type: DT_FLOAT } }
                       attr { key: "interpolation" value { s: "NEAREST" } } }
            node_def { name: "same" op: "Identity" input: "op:transformed_images:0"
                       attr { key: "T" value { type: DT_FLOAT } } }
            ret { key: "o" value: "same:output:0" } } }
        node { name: "a" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
               attr { key: "shape" value { shape { unknown_rank: true } } } }
        node { name: "b" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
               attr { key: "shape" value { shape { unknown_rank: true } } } }
        node { name: "y" op: "turn" input: ["a", "b"] } versions { producer: 134 }
    """
    model = gr.modernize(gr.load(text_format.Parse(text, GraphDef())))
    assert {op["name"] for op in report_ops(model)["ops"] if op["gone"]} == set()
    found = run(model.graph.materialize(), {"a": PICTURE, "b": TURN})
    assert found.ravel().tolist() == NEAREST

    def frame(name: str, op: str, inputs: str, attrs: str) -> str:
        return f'node {{ name: "{name}" op: "{op}" input: [{inputs}] {attrs} }}'

    t = 'attr { key: "T" value { type: DT_INT32 } }'
    name = 'attr { key: "frame_name" value { s: "f" } }'
    invariant = name + 'attr { key: "is_constant" value { b: true } }'
    graph_def = graph_of("GatherTree", {"T": 3}, OPS["GatherTree"][2], 3)
    del graph_def.node[-2:]
    loop = "".join(
        [
            frame("enter", "Enter", '"a"', t + name),
            *(frame(f"in_{one}", "Enter", f'"{one}"', t + invariant) for one in "bcd"),
            frame("merge", "Merge", '"enter", "next"', t + 'attr { key: "N" value { i: 2 } }'),
            'node { name: "go" op: "LoopCond" input: "first" }',
            frame("first", "Equal", '"count", "zero"', t),
            'node { name: "zero" op: "Const" attr { key: "dtype" value { type: DT_INT32 } } input: "^merge"'
            ' attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 0 } } } }',
            frame("start", "Enter", '"origin"', t + name),
            'node { name: "origin" op: "Const" attr { key: "dtype" value { type: DT_INT32 } }'
            ' attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 0 } } } }',
            frame("count", "Merge", '"start", "count_next"', t + 'attr { key: "N" value { i: 2 } }'),
            frame("count_switch", "Switch", '"count", "go"', t),
            'node { name: "one" op: "Const" attr { key: "dtype" value { type: DT_INT32 } } input: "^count_body"'
            ' attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { } int_val: 1 } } } }',
        ]
    )
    loop += (
        frame("count_body", "Identity", '"count_switch:1"', t)
        + frame("add", "AddV2", '"count_body", "one"', t)
        + frame("count_next", "NextIteration", '"add"', t)
        + frame("switch", "Switch", '"merge", "go"', t)
        + frame("body", "Identity", '"switch:1"', t)
        + frame("op", "GatherTree", '"body", "in_b", "in_c", "in_d"', t)
        + frame("next", "NextIteration", '"op"', t)
        + frame("y", "Exit", '"switch"', t)
    )
    graph_def.MergeFrom(text_format.Parse(loop, GraphDef()))
    found = run(gr.modernize(gr.load(graph_def)).graph.materialize(), OPS["GatherTree"][2])
    assert found.tolist() == BEAMS  # one turn


def test_only_the_ops_asked_for_and_nothing_where_there_is_none() -> None:
    model = gr.load(CONTRIB)
    assert gr.modernize(model, ["GatherTree"]) is model
    assert "Resampler" not in {node.op for node in gr.modernize(model, ["Resampler"]).graph.graph_def.node}
    with pytest.raises(ValueError, match="no way to rewrite MatMul is known; known: CompareAndBitpack"):
        gr.modernize(model, ["MatMul"])


# the report


def test_what_is_known_names_what_there_is() -> None:
    table = op_table()
    modules = {table[name].contrib_module for name in table}
    for name in (*REWRITTEN, *_KNOWN):
        assert name in modules or table[name].until, name
    for op in REWRITTEN:
        assert replacement(op) == "rewritten by modernize"
    assert replacement("BytesInUse", "tensorflow.contrib.memory_stats").startswith("reports memory")
    assert replacement("BestSplits") == ""


def test_report_of_a_model_with_an_op_of_contrib() -> None:
    found = report_ops(gr.load(CONTRIB))
    (gone,) = [op for op in found["ops"] if op["gone"]]
    assert gone == {
        "name": "Resampler", "nodes": 1, "since": "1.4.1", "until": "1.15.5",
        "contrib_module": "tensorflow.contrib.resampler", "contrib_until": "1.15.5", "custom": False, "gone": True,
        "deprecated_in": None, "replacement": "rewritten by modernize", "unsafe": "",
    }  # fmt: skip
    assert found["outputs"] == [{"name": "resampled/Resampler:0", "needs": ["Resampler"]}]
    survivor = report_ops(gr.load(CONTRIB), ["y"])
    assert survivor["outputs"] == [{"name": "y:0", "needs": []}]
    assert found["tensorflow"] == op_table().versions[-1]


def test_report_of_custom_ops_in_functions() -> None:
    text = """
        library { function { signature { name: "f" output_arg { name: "o" type: DT_FLOAT } }
            node_def { name: "n" op: "MyOwnOp" } ret { key: "o" value: "n:o:0" } } }
        node { name: "call" op: "f" } node { name: "tank" op: "TensorArrayV2" }
        versions { producer: 17 }
    """
    found = report_ops(gr.load(text_format.Parse(text, GraphDef())), ["call", "tank"])
    by_name = {op["name"]: op for op in found["ops"]}
    assert set(by_name) == {"MyOwnOp", "TensorArrayV2"}
    assert by_name["MyOwnOp"]["custom"] and by_name["MyOwnOp"]["gone"] and by_name["MyOwnOp"]["until"] == ""
    assert by_name["TensorArrayV2"]["deprecated_in"] == 26 and not by_name["TensorArrayV2"]["gone"]
    assert found["producer"] == 17
    assert [output["needs"] for output in found["outputs"]] == [["MyOwnOp"], []]


@pytest.mark.tensorflow
def test_what_is_called_gone_is_gone() -> None:
    """Of every op of the corpus, whether the TensorFlow here has it."""
    from tensorflow.python.framework import op_def_registry

    ops = {op["name"]: op["gone"] for one in cases() for op in report_ops(gr.load(one.graph_pb), [])["ops"]}
    assert len(ops) > 100 and any(ops.values())
    for name, gone in ops.items():
        assert (op_def_registry.get(name) is None) is gone, name


def test_inspect_ops() -> None:
    runner = CliRunner()
    lines = runner.invoke(main, ["inspect", str(CONTRIB), "--ops", "--fetches", "y,resampled/Resampler"]).stdout
    assert "1 that TensorFlow 2.21.0 lacks" in lines
    assert "Resampler  1 node  1.4.1 to 1.15.5, tensorflow.contrib.resampler until 1.15.5  rewritten by" in lines
    assert "    y:0                    needs nothing that is gone\n" in lines
    assert "    resampled/Resampler:0  needs Resampler\n" in lines
    found = json.loads(runner.invoke(main, ["inspect", str(CONTRIB), "--ops", "--json"]).stdout)
    assert found == report_ops(gr.load(CONTRIB))
    lines = runner.invoke(main, ["inspect", str(case("lstm_dynamic/tf0.12.1-v1").meta), "--ops"]).stdout
    assert "TensorArrayV2         2 nodes  from GraphDef version 26 on; this graph's is 17" in lines
    assert runner.invoke(main, ["inspect", str(CONTRIB), "--fetches", "y"]).exit_code == 2


def test_freeze_modernize(tmp_path: Any) -> None:
    flags = ["freeze", str(CONTRIB), "--fetches", "resampled/Resampler", "-o", str(tmp_path / "y.pb")]
    for more, left in (([], {"Resampler"}), (["--modernize"], set())):
        result = CliRunner().invoke(main, [*flags, *more])
        assert result.exit_code == 0, result.output
        assert {node.op for node in gr.load(tmp_path / "y.pb").graph.graph_def.node} & {"Resampler"} == left
    assert "note: Resampler is written with other ops: resampled/Resampler" in result.stderr
