"""freeze(precision=...): weights in half, everything else as it was."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr
from graph_restore import protos
from graph_restore.graph import tensor_attr
from graph_restore.tensors import CastTensor

pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
HALVES = {"float16": (np.dtype(np.float16), 19), "bfloat16": (np.dtype(ml_dtypes.bfloat16), 14)}
MODELS = (
    "linear",
    "mlp",
    "convnet",
    "cond",
    "while_loop",
    "lstm_dynamic",
    "vocabulary",
    "partitioned",
    "control_flow_v2",
)
TOLERANCES = {"float16": 2e-2, "bfloat16": 8e-2}


def _restored(one: Case) -> gr.Model:
    return gr.restore(gr.load(one.graph_pb), one.prefix)


@pytest.mark.parametrize("precision", HALVES)
def test_each_weight_is_a_cast_of_its_name(precision: str, tmp_path: Path) -> None:
    one = case("mlp/tf1.4.1-v2")
    frozen = gr.freeze(_restored(one), "softmax", precision=precision)
    plain = gr.freeze(_restored(one), "softmax")
    gr.export(frozen, tmp_path / "half.pb")
    read = gr.load(tmp_path / "half.pb").graph
    dtype, number = HALVES[precision]
    weights = [name[:-2] for name in one.oracle["variables"] if name[:-2] in plain.graph.nodes]
    assert len(weights) == 4 and len(read.nodes) == len(plain.graph.nodes) + 4
    for name in weights:
        cast, const = read.node(name), read.node(f"{name}/{precision}")
        assert (cast.op, list(cast.input)) == ("Cast", [const.name])
        assert (cast.attr["SrcT"].type, cast.attr["DstT"].type, const.attr["dtype"].type) == (number, 1, number)
        expected = one.oracle["variables"][f"{name}:0"].astype(dtype)
        assert read.value(const).read().tobytes() == expected.tobytes()
    assert frozen.notes == (f"4 constants are stored as {precision}, and cast back where they are used",)
    for name, node in plain.graph.nodes.items():
        assert name in weights or read.node(name) == node


def _model(**values: np.ndarray[Any, Any]) -> gr.Model:
    nodes = []
    for name, value in values.items():
        node = protos.NodeDef(name=name, op="Const")
        node.attr["value"].CopyFrom(tensor_attr(value))
        node.attr["dtype"].type = node.attr["value"].tensor.dtype
        nodes += [node, protos.NodeDef(name=f"use_{name}", op="Neg", input=[name])]
        nodes[-1].attr["T"].type = node.attr["dtype"].type
    return gr.load(protos.GraphDef(node=nodes))


BIG = np.linspace(-1, 1, 1024, dtype=np.float32)


@pytest.mark.parametrize(
    ("value", "halved"),
    [
        (BIG, True), (BIG.reshape(32, 32), True), (BIG.astype(np.float64), True),
        (BIG[:1023], False), (np.arange(5000, dtype=np.int32), False), (BIG.astype(np.float16), False),
        (BIG.astype(np.complex64), False), (np.float32(3), False),
    ],
)  # fmt: skip
def test_which_constants(value: Any, halved: bool) -> None:
    frozen = gr.freeze(_model(a=np.asarray(value)), "use_a", precision="float16")
    assert (frozen.graph.node("a").op == "Cast") == halved


@pytest.mark.parametrize(
    ("bad", "precision", "note"),
    [
        (1e5, "float16", "a stays float32: 2 of its values are out of the range of float16"),
        (65520, "float16", "a stays float32: 2 of its values are out of the range of float16"),
        (65504, "float16", None),
        (1e5, "bfloat16", None),
        (3.4e38, "bfloat16", "a stays float32: 2 of its values are out of the range of bfloat16"),
        (np.inf, "float16", None),
        (np.nan, "float16", "a holds 2 NaNs, which stay NaN"),
        (1e-9, "float16", "a: 2 of its values are too small for float16 and become 0"),
        (1e-9, "bfloat16", None),
    ],
)
def test_what_is_lost_is_said(bad: float, precision: str, note: str | None) -> None:
    value = BIG.copy()
    value[[3, 900]] = bad
    frozen = gr.freeze(_model(a=value), "use_a", precision=precision)
    assert list(frozen.notes[:-1]) == ([note] if note else [])
    assert (frozen.graph.node("a").op == "Const") == ("stays" in (note or ""))
    stored = frozen.graph.value(frozen.graph.node("a" if "stays" in (note or "") else f"a/{precision}")).read()
    assert np.isnan(bad) == np.isnan(stored.astype(np.float32)).any()


def test_all_too_small_stays() -> None:
    frozen = gr.freeze(_model(a=BIG * 1e-10), "use_a", precision="float16")
    assert frozen.graph.node("a").op == "Const"
    assert frozen.notes[0] == "a stays float32: all its values are too small for float16"
    assert gr.freeze(_model(a=BIG * 0), "use_a", precision="float16").graph.node("a").op == "Cast"


def test_what_has_to_be_constant_stays() -> None:
    model = _model(a=BIG)
    model.graph.node("use_a").op = "GuaranteeConst"
    assert gr.freeze(model, "use_a", precision="float16").graph.node("a").op == "Const"


def test_values_are_converted_as_they_are_written(tmp_path: Path) -> None:
    gr.export(_model(a=np.ones(4 << 20, np.float32)), tmp_path / "a.pb")
    model = gr.load(tmp_path / "a.pb")
    tracemalloc.start()
    frozen = gr.freeze(model, "use_a", precision="bfloat16")
    gr.export(frozen, tmp_path / "half.pb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(frozen.graph.payloads["", "a/bfloat16"], CastTensor) and peak < 15 << 20
    assert 8 << 20 < (tmp_path / "half.pb").stat().st_size < (8 << 20) + 1024


def test_another_word() -> None:
    with pytest.raises(ValueError, match="precision is one of .'float16', 'bfloat16'., not 'int8'"):
        gr.freeze(_model(a=BIG), "use_a", precision="int8")


@pytest.mark.tensorflow
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("one", [one for one in cases() if one.model in MODELS], ids=lambda one: one.id)
def test_the_same_within_its_precision(one: Case, precision: str) -> None:
    import tensorflow.compat.v1 as tf

    run = one.oracle["runs"][0]
    frozen = gr.freeze(_restored(one), list(run["outputs"]), list(run["feeds"]), precision=precision)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        found = session.run(list(run["outputs"]), run["feeds"])
    for value, expected in zip(map(np.asarray, found), run["outputs"].values()):
        assert value.shape == expected.shape and (value.dtype == expected.dtype or expected.dtype == object)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(value, expected, rtol=TOLERANCES[precision], atol=TOLERANCES[precision])
        else:
            assert value.tolist() == expected.tolist()


@pytest.mark.tensorflow
@pytest.mark.parametrize("precision", HALVES)
def test_tensorflow_rounds_alike(precision: str) -> None:
    import tensorflow as tf

    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32) * np.float32(1e-3)
    frozen = gr.freeze(_model(a=values), "use_a", precision=precision)
    theirs = tf.cast(values, precision).numpy()
    assert frozen.graph.value(frozen.graph.node(f"a/{precision}")).read().tobytes() == theirs.tobytes()
