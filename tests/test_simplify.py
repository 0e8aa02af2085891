"""simplify: each pass against TensorFlow's run of the graph as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, cases

import graph_restore as gr
from graph_restore import protos
from graph_restore.graph import tensor_attr
from graph_restore.tensors import lazy
from graph_restore.transforms.scaling import ScaledTensor

pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
RANDOM = np.random.RandomState(3)
IMAGES = RANDOM.normal(size=[2, 5, 5, 4]).astype(np.float32)
EXACT = {"batch_norm": False}
METAS = [one for one in cases() if one.id.endswith("tf1.15.5-v2") and one.meta is not None]
METAS = [one for one in METAS if one.model != "contrib_op"]  # which TensorFlow 2 does not know
REFUSED = {"metrics_local", "update_in_while", "update_unordered"}


def _run(graph: gr.Graph, fetches: list[str], feeds: dict[str, Any]) -> list[Any]:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as imported:
        tf.import_graph_def(tf.GraphDef.FromString(graph.materialize().SerializeToString()), name="")
        with tf.Session(graph=imported) as session:
            return list(session.run(fetches, feeds))


@pytest.mark.tensorflow
@pytest.mark.parametrize("one", [one for one in cases() if one.model not in REFUSED], ids=lambda one: one.id)
def test_models_of_old(one: Case) -> None:
    run = one.oracle["runs"][0]
    frozen = gr.freeze(gr.restore(gr.load(one.graph_pb), one.prefix), list(run["outputs"]), list(run["feeds"]))
    exact, all_passes = gr.simplify(frozen, **EXACT), gr.simplify(frozen)
    assert len(all_passes.graph.nodes) <= len(exact.graph.nodes) <= len(frozen.graph.nodes)
    before = _run(frozen.graph, list(run["outputs"]), run["feeds"])
    for old, same, close in zip(
        before,
        _run(exact.graph, list(run["outputs"]), run["feeds"]),
        _run(all_passes.graph, list(run["outputs"]), run["feeds"]),
    ):
        assert np.asarray(old).tobytes() == np.asarray(same).tobytes() or np.array_equal(old, same)
        if np.asarray(old).dtype.kind == "f":
            np.testing.assert_allclose(close, old, rtol=1e-4, atol=1e-5)


# -- batch norms -------------------------------------------------------------------------------------------------------
# Each gives an output and says whether its batch norm can be folded.

Build = Callable[[Any, Any, Callable[..., Any]], Any]
GRAPHS: dict[str, tuple[bool, Build]] = {}


def _graph(folds: bool) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        GRAPHS[build.__name__] = folds, build
        return build

    return register


def _norm(tf: Any, x: Any, size: int, layout: str = "NHWC", op: str = "FusedBatchNormV3") -> Any:
    values = RANDOM.uniform(0.5, 2, size=[4, size]).astype(np.float32)
    names = ("scale", "offset", "mean", "variance")
    given = {name: tf.identity(tf.constant(value)) for name, value in zip(names, values)}
    return getattr(tf.raw_ops, op)(x=x, is_training=False, epsilon=0.01, data_format=layout, **given).y


@_graph(True)
def fused(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    return tf.nn.relu(_norm(tf, tf.nn.conv2d(x, weights(3, 3, 4, 6), 2, "SAME"), 6))


@_graph(True)
def fused_after_a_bias(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    y = tf.nn.bias_add(tf.nn.conv2d(x, weights(1, 2, 4, 6), 1, "VALID"), weights(6))
    return _norm(tf, _norm(tf, y, 6, op="FusedBatchNorm"), 6)


@_graph(True)
def depthwise(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    return _norm(tf, tf.nn.depthwise_conv2d(x, weights(3, 3, 4, 2), [1, 1, 1, 1], "SAME"), 8)


@_graph(True)
def transposed(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    return _norm(tf, tf.nn.conv2d_transpose(x, weights(3, 3, 6, 4), [2, 10, 10, 6], 2), 6)


@_graph(True)
def channels_first(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    x = tf.transpose(x, [0, 3, 1, 2])
    return _norm(tf, tf.nn.conv2d(x, weights(3, 3, 4, 6), 1, "SAME", data_format="NCHW"), 6, "NCHW")


@_graph(True)
def written_out(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    y = tf.nn.conv2d(x, weights(3, 3, 4, 6), 1, "SAME")
    variance = tf.abs(weights(6)) + 0.2
    return tf.nn.batch_normalization(y, weights(6), variance, weights(6), weights(6), 0.001)


@_graph(True)
def written_out_first(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    y = tf.nn.conv2d(tf.transpose(x, [0, 3, 1, 2]), weights(3, 3, 4, 6), 1, "SAME", data_format="NCHW")
    shape = [1, 6, 1, 1]
    given = [tf.reshape(weights(6), shape) for _ in range(3)]
    variance = tf.reshape(tf.abs(weights(6)) + 0.2, shape)
    return tf.nn.batch_normalization(y, given[0], variance, given[1], given[2], 0.001)


@_graph(True)
def product(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    y = tf.nn.bias_add(tf.matmul(tf.reshape(x, [-1, 20]), weights(20, 7)), weights(7))
    y = tf.nn.batch_normalization(y, weights(7), tf.abs(weights(7)) + 0.1, weights(7), None, 0.001)
    y = tf.matmul(tf.nn.relu(y), weights(3, 7), transpose_b=True)
    return tf.nn.batch_normalization(y, weights(3), tf.abs(weights(3)) + 0.1, None, weights(3), 0.001)


@_graph(True)
def shared_weights(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    kernel = weights(3, 3, 4, 4)
    return _norm(tf, tf.nn.conv2d(tf.nn.conv2d(x, kernel, 1, "SAME"), kernel, 1, "SAME"), 4)


@_graph(True)
def fused_after_an_add(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    y = tf.raw_ops.Add(x=weights(6), y=tf.nn.conv2d(x, weights(3, 3, 4, 6), 1, "SAME"))
    y = tf.nn.depthwise_conv2d(_norm(tf, y, 6, op="FusedBatchNormV2"), weights(1, 1, 6, 1), [1] * 4, "SAME")
    return _norm(tf, tf.raw_ops.AddV2(x=y, y=tf.reshape(weights(6), [1, 1, 1, 6])), 6)


@_graph(True)
def channels_first_after_an_add(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    y = tf.nn.conv2d(tf.transpose(x, [0, 3, 1, 2]), weights(3, 3, 4, 6), 1, "SAME", data_format="NCHW")
    return _norm(tf, y + tf.reshape(weights(6), [6, 1, 1]), 6, "NCHW")


@_graph(False)
def after_an_add_along_another_axis(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    y = tf.nn.conv2d(x, weights(3, 3, 4, 5), 1, "SAME")
    return _norm(tf, y + tf.reshape(weights(5), [5, 1]), 5)


@_graph(False)
def after_an_add_of_what_is_computed(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    return _norm(tf, tf.nn.conv2d(x, weights(3, 3, 4, 6), 1, "SAME") + x[0, 0, 0, 0], 6)


@_graph(False)
def used_between(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    y = tf.nn.conv2d(x, weights(3, 3, 4, 6), 1, "SAME")
    return _norm(tf, y, 6) + y


@_graph(False)
def in_training_form(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    y = tf.nn.conv2d(x, weights(3, 3, 4, 6), 1, "SAME")
    empty = tf.constant([], tf.float32)
    return tf.raw_ops.FusedBatchNormV3(
        x=y, scale=weights(6), offset=weights(6), mean=empty, variance=empty, is_training=True
    ).y


@_graph(False)
def of_an_axis_that_is_no_channel(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    return tf.nn.conv2d(x, weights(1, 1, 4, 5), 1, "SAME") * tf.reshape(weights(5), [5, 1])


@_graph(False)
def weights_that_are_fed(tf: Any, x: Any, weights: Callable[..., Any]) -> Any:
    return _norm(tf, tf.nn.conv2d(x, tf.reshape(x[0, :3, :3], [3, 3, 4, 1]), 1, "SAME"), 1)


WRITTEN_OUT = {written_out, written_out_first, product}  # what is added is left: a constant times a root


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", GRAPHS)
def test_batch_norms(name: str) -> None:
    import tensorflow.compat.v1 as tf

    folds, build = GRAPHS[name]
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, IMAGES.shape, name="x")
        weights = lambda *shape: tf.constant(RANDOM.normal(size=shape).astype(np.float32))  # noqa: E731
        tf.identity(build(tf, x, weights), name="y")
    frozen = gr.freeze(gr.load(graph.as_graph_def()), "y", "x")
    before = _run(frozen.graph, ["y:0"], {"x:0": IMAGES})
    simple = gr.simplify(frozen)
    ops = [node.op for node in simple.graph.nodes.values()]
    assert any("folded into weights" in note for note in simple.notes) is folds
    if folds:
        gone = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "Mul"} - (
            {"Mul"} if build in WRITTEN_OUT else set()
        )
        assert not gone & set(ops)
    np.testing.assert_allclose(_run(simple.graph, ["y:0"], {"x:0": IMAGES}), before, rtol=2e-4, atol=2e-5)
    exact = gr.simplify(frozen, batch_norm=False)
    assert "Identity" not in [node.op for node in exact.graph.nodes.values() if node.name != "y"]
    np.testing.assert_array_equal(_run(exact.graph, ["y:0"], {"x:0": IMAGES}), before)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scaled_tensors(axis: int) -> None:
    values = RANDOM.normal(size=[3, 4, 5]).astype(np.float32)
    factors = RANDOM.normal(size=values.shape[axis])
    expected = values * factors.reshape([-1 if n == axis else 1 for n in range(3)])
    found = ScaledTensor(lazy("w", values), axis, factors)
    np.testing.assert_array_equal(found.read(), expected.astype(np.float32))
    np.testing.assert_array_equal(found.rows(1, 3), expected.astype(np.float32)[1:3])


def test_passes_are_chosen_one_by_one() -> None:
    one = cases("convnet")[-1]
    frozen = gr.freeze(gr.restore(gr.load(one.graph_pb), one.prefix), "scores/out", constants={"is_training": False})
    none = gr.simplify(frozen, identities=False, constants=False, batch_norm=False)
    assert set(none.graph.nodes) == set(frozen.graph.nodes) and none.notes == frozen.notes
    only = gr.simplify(frozen, constants=False, batch_norm=False)
    assert "conv/kernel/read" not in only.graph.nodes and "norm/cond/FusedBatchNorm_1" in only.graph.nodes
    assert only.fetches == ("scores/out:0",) and only.graph.node("scores/out").op == "Identity"
    folded = gr.simplify(frozen)
    assert not any(node.op.startswith("FusedBatchNorm") for node in folded.graph.nodes.values())


# -- what keeps its name -----------------------------------------------------------------------------------------------


def _identities(*names: str) -> Any:
    """A MetaGraphDef: x -> first -> second ... -> `end`, all Identities, each named by nobody."""
    meta_graph = protos.MetaGraphDef()
    x = meta_graph.graph_def.node.add(name="x", op="Placeholder")
    x.attr["dtype"].type = 1
    for name in (*names, "end"):
        before = meta_graph.graph_def.node[-1].name
        meta_graph.graph_def.node.add(name=name, op="Identity", input=[before]).attr["T"].type = 1
    return meta_graph


def _context() -> bytes:
    inner = protos.CondContextDef(context_name="inner", pivot_name="pivot:0")
    outer = protos.WhileContextDef(context_name="loop", loop_exit_names=["exit:0"])
    outer.nested_contexts.add().cond_ctxt.CopyFrom(inner)
    return bytes(outer.SerializeToString())


NAMING = {
    "node_list": (["tensor", "operation"], {"node_list": {"value": ["tensor:0", "operation", "lost:0"]}}),
    "bytes_list": (["text"], {"bytes_list": {"value": [b"text:0", b"", b"\xff\xfe"]}}),
    "numbers": ([], {"int64_list": {"value": [1, 300]}}),
    "variables": (
        ["value"],
        {"bytes_list": {"value": [protos.VariableDef(initial_value_name="value:0").SerializeToString()]}},
    ),
    "queue_runners": (
        ["close"],
        {"bytes_list": {"value": [protos.QueueRunnerDef(close_op_name="close").SerializeToString()]}},
    ),
    "savers": (["save"], {"bytes_list": {"value": [protos.SaverDef(save_tensor_name="save:0").SerializeToString()]}}),
    "while_context": (["exit", "pivot"], {"bytes_list": {"value": [_context()]}}),
    "any_list": (["asset"], {"any_list": {"value": [{"type_url": "a/b", "value": b"\x0a\x05asset"}]}}),
}


@pytest.mark.parametrize("kind", NAMING)
def test_what_collections_name_stays(kind: str) -> None:
    names, collection = NAMING[kind]
    meta_graph = _identities(*(name for named, _ in NAMING.values() for name in named))
    meta_graph.collection_def[kind].CopyFrom(protos.CollectionDef(**collection))
    simple = gr.simplify(gr.load(meta_graph))
    assert list(simple.graph.nodes) == ["x", *names, "end"]
    assert simple.collections[kind] == meta_graph.collection_def[kind]


def test_what_the_saver_names_stays() -> None:
    meta_graph = _identities("save", "other")
    meta_graph.saver_def.save_tensor_name = "save:0"
    assert list(gr.simplify(gr.load(meta_graph)).graph.nodes) == ["x", "save", "end"]


def test_the_parts_of_tensors_in_signatures_stay() -> None:
    names = ["v", "i", "d", "part"]
    meta_graph = _identities("before", *names)
    outputs = meta_graph.signature_def["serving_default"].outputs
    sparse = outputs["sparse"].coo_sparse
    sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name = "v:0", "i:0", "d:0"
    outputs["composite"].composite_tensor.components.add(name="part:0")
    assert list(gr.simplify(gr.load(meta_graph)).graph.nodes) == ["x", *names, "end"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("one", METAS, ids=lambda one: one.id)
def test_collections_come_back_from_a_simple_graph(one: Case, tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    model = gr.restore(gr.load(one.meta), one.prefix)
    found = []
    for name, exported in (("whole", model), ("simple", gr.simplify(model))):
        gr.export(exported, tmp_path / name / "model.ckpt.meta")
        with tf.Graph().as_default() as graph:
            tf.train.import_meta_graph(str(tmp_path / name / "model.ckpt.meta"))
            found.append({key: len(graph.get_collection(key)) for key in graph.get_all_collection_keys()})
    assert found[0] == found[1] and found[0]


# -- weights in half precision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_weights_in_half_precision_stay_so(precision: str) -> None:
    one = cases("convnet")[-1]
    restored = gr.restore(gr.load(one.graph_pb), one.prefix)
    chosen: dict[str, Any] = {"fetches": "scores/out", "constants": {"is_training": False}}
    half = gr.freeze(restored, **chosen, precision=precision)
    simple = gr.simplify(half)
    kept = {name for name, node in half.graph.nodes.items() if node.op == "Cast" and name in restored.variables.names()}
    assert kept and {name for name in kept if simple.graph.node(name).op != "Cast"} == set()
    assert simple.notes[-1] == (
        f"{len(kept)} weights stay stored in half precision, and nothing is folded into them; simplify the graph "
        "first, and freeze the result with precision="
    )
    assert gr.simplify(half, constants=False, batch_norm=False).notes[-1] != simple.notes[-1]
    turned = gr.freeze(gr.simplify(gr.freeze(restored, **chosen)), precision=precision)
    assert not any(node.op.startswith("FusedBatchNorm") for node in turned.graph.nodes.values())
    assert turned.fetches == ("scores/out:0",) and turned.notes[-1].endswith("and cast back where they are used")


def test_other_casts_of_constants_are_folded() -> None:
    graph = protos.GraphDef()
    for name, value in {"scalar": np.float16(1.5), "whole": np.arange(4, dtype=np.int32)}.items():
        const = graph.node.add(name=name, op="Const")
        const.attr["value"].CopyFrom(tensor_attr(np.asarray(value)))
        const.attr["dtype"].type = const.attr["value"].tensor.dtype
        cast = graph.node.add(name=f"{name}/Cast", op="Cast", input=[name])
        cast.attr["SrcT"].type, cast.attr["DstT"].type = const.attr["dtype"].type, 1
    simple = gr.simplify(gr.load(graph))
    assert {name: node.op for name, node in simple.graph.nodes.items()} == {
        "scalar/Cast": "Const",
        "whole/Cast": "Const",
    }
