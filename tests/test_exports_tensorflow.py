"""Written SavedModels and MetaGraphs in today's TensorFlow, against the answers of the one that made the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]
UNKNOWN_OPS = {"contrib_op"}  # the whole graph has an op that today's TensorFlow lacks
NO_VALUE = {"metrics_local"}  # what is fetched needs variables that no checkpoint holds
# a function cannot hold a loop in which a reference is updated
UNSERVED = {"update_in_while"}
ALL = [one for one in cases() if one.oracle["runs"]]


def _expect_close(found: Any, expected: np.ndarray[Any, Any]) -> None:
    found = np.asarray(found, object if expected.dtype == object else None)
    assert found.shape == expected.shape
    if expected.dtype.kind in "fc":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    else:
        assert found.tolist() == expected.tolist()


def _key(name: str) -> str:
    node, _, index = name.rpartition(":")
    return node if index == "0" else f"{node}_{index}"


def _serve(folder: Path, run: Any) -> Any:
    """What tf.saved_model.load gives: the outputs of the signature are compared, the loaded object comes back."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures["serving_default"]
    wanted = function.structured_input_signature[1]
    feeds = {_key(name): tf.constant(value, wanted[_key(name)].dtype) for name, value in run["feeds"].items()}
    found = function(**feeds)
    for name, expected in run["outputs"].items():
        _expect_close(found[_key(name)].numpy(), expected)
    return loaded


def _session(folder: Path, run: Any) -> None:
    """What tf.compat.v1.saved_model.load gives."""
    import tensorflow.compat.v1 as tf

    with tf.Session(graph=tf.Graph()) as session:
        tf.saved_model.load(session, ["serve"], str(folder))
        for found, expected in zip(session.run(list(run["outputs"]), run["feeds"]), run["outputs"].values()):
            _expect_close(found, expected)


def _restored(one: Case) -> gr.Model:
    return gr.restore(gr.load(one.graph_pb), one.prefix)


@pytest.mark.parametrize("one", [one for one in ALL if one.model not in NO_VALUE], ids=lambda one: one.id)
def test_a_saved_model_answers_as_ever(one: Case, tmp_path: Path) -> None:
    run, restored = one.oracle["runs"][0], _restored(one)
    gr.export(restored, tmp_path / "x", "saved_model", fetches=list(run["outputs"]), feeds=list(run["feeds"]) or None)
    _session(tmp_path / "x", run)
    if one.model not in UNSERVED:
        loaded = _serve(tmp_path / "x", run)
        handles = [variable.name for variable in gr.load(tmp_path / "x").variables if variable.kind == "resource"]
        assert sorted(variable.name for variable in loaded.variables) == sorted(f"{name}:0" for name in handles)
        assert handles or one.model.startswith("update_") or not restored.variables


@pytest.mark.parametrize("model", ["linear", "convnet", "vocabulary", "lstm_dynamic", "update_resource", "partitioned"])
def test_a_frozen_saved_model_answers_as_ever(model: str, tmp_path: Path) -> None:
    for one in cases(model):
        run = one.oracle["runs"][0]
        frozen = gr.freeze(_restored(one), list(run["outputs"]), list(run["feeds"]))
        gr.export(frozen, tmp_path / one.directory.name, "saved_model")
        assert not list(_serve(tmp_path / one.directory.name, run).variables)
        _session(tmp_path / one.directory.name, run)


def test_local_variables_keep_what_was_restored(tmp_path: Path) -> None:
    """TensorFlow 2 runs the initializers of local variables after it has restored."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph, tf.Session() as session:
        x = tf.placeholder(tf.float32, [3], name="x")
        start = tf.constant([1.0, 2.0, 3.0])
        local = tf.Variable(start, collections=["local_variables"], trainable=False, use_resource=False, name="l")
        tf.multiply(x, local, name="y")
        session.run(local.assign([4.0, 5.0, 6.0]))
        tf.train.Saver([local]).save(session, str(tmp_path / "model.ckpt"))
        session.run(local.initializer)
        assert tf.get_collection("local_variables") == [local] and graph is tf.get_default_graph()
    model = gr.restore(gr.load(tmp_path / "model.ckpt.meta"))
    gr.export(model, tmp_path / "model", format="saved_model", fetches="y", feeds="x")
    run = {"feeds": {"x:0": np.ones(3, np.float32)}, "outputs": {"y:0": np.array([4, 5, 6], np.float32)}}
    _session(tmp_path / "model", run)
    assert [variable.name for variable in _serve(tmp_path / "model", run).variables] == ["l:0"]


def test_variables_are_found_again(tmp_path: Path) -> None:
    one = case("mlp/tf0.12.1-v1")
    run = one.oracle["runs"][0]
    gr.export(_restored(one), tmp_path / "x", "saved_model", fetches="softmax", feeds=list(run["feeds"]))
    loaded = _serve(tmp_path / "x", {**run, "outputs": {"softmax:0": run["outputs"]["softmax:0"]}})
    found = {variable.name: variable.numpy() for variable in loaded.variables}
    assert len(found) == 4
    for name, value in found.items():
        np.testing.assert_array_equal(value, one.oracle["variables"][name])


@pytest.mark.parametrize("one", [*cases("saved_model"), *cases("saved_model_assets")], ids=lambda one: one.id)
def test_a_saved_model_of_a_saved_model(one: Case, tmp_path: Path) -> None:
    model = gr.restore(gr.load(one.directory / one.facts["saved_model"]["path"]))
    for whole in (False, True):
        gr.export(model, tmp_path / str(whole), "saved_model", whole_graph=whole)
        _session(tmp_path / str(whole), one.oracle["runs"][0])


@pytest.mark.parametrize("one", [one for one in ALL if one.model not in UNKNOWN_OPS], ids=lambda one: one.id)
def test_import_meta_graph_works_again(one: Case, tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    run = one.oracle["runs"][0]
    gr.export(_restored(one), tmp_path / "m.meta")
    with tf.Graph().as_default() as graph, tf.Session() as session:
        saver = tf.train.import_meta_graph(str(tmp_path / "m.meta"))
        saver.restore(session, str(tmp_path / "m"))
        session.run([graph.get_collection("table_initializer"), tf.local_variables_initializer()])
        for found, expected in zip(session.run(list(run["outputs"]), run["feeds"]), run["outputs"].values()):
            _expect_close(found, expected)
        assert {variable.op.name for variable in tf.global_variables()} >= {v.name for v in _valued(one)}
        assert saver.save(session, str(tmp_path / "again"))


def _valued(one: Case) -> list[gr.Variable]:
    return [variable for variable in _restored(one).variables if variable.value is not None]


def test_a_bare_graph_is_trained_further(tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    one = case("linear/tf0.12.1-v1")
    gr.export(_restored(one), tmp_path / "m.meta")
    with tf.Graph().as_default(), tf.Session() as session:
        saver = tf.train.import_meta_graph(str(tmp_path / "m.meta"))
        assert [variable.name for variable in tf.trainable_variables()] == ["w:0", "b:0"]
        loss = tf.reduce_mean(tf.square(tf.get_default_graph().get_tensor_by_name("y:0")))
        step = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
        saver.restore(session, str(tmp_path / "m"))
        feeds = one.oracle["feeds"]
        before = session.run(loss, feeds)
        session.run(step, feeds)
        assert session.run(loss, feeds) < before


def _signed(folder: Path) -> None:
    """A SavedModel of y = x * w * scale and a SparseTensor: `scale` has a default, which `plain` relies on."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        x = tf.placeholder(tf.float32, [None], name="x")
        scale = tf.placeholder_with_default(3.0, [], name="scale")
        sparse = tf.sparse_placeholder(tf.float32, [None, 4], name="sparse")
        weight = tf.get_variable("w", [], initializer=tf.constant_initializer(2.0))
        y = tf.multiply(x * weight, scale, name="y")
        doubled = tf.SparseTensor(
            tf.identity(sparse.indices, name="indices"),
            tf.multiply(sparse.values, weight, name="values"),
            tf.identity(sparse.dense_shape, name="sizes"),
        )
        session.run(tf.global_variables_initializer())
        info, signature = tf.saved_model.build_tensor_info, tf.saved_model.build_signature_def
        signatures = {
            "serving_default": signature({"x": info(x), "scale": info(scale)}, {"y": info(y)}, "predict"),
            "plain": signature({"x": info(x)}, {"y": info(y)}, "predict"),
            "sparse": signature({"sparse": info(sparse)}, {"doubled": info(doubled)}, "predict"),
        }
        writer = tf.saved_model.Builder(str(folder))
        writer.add_meta_graph_and_variables(session, ["serve"], signatures)
        writer.save()


def test_a_signature_may_rely_on_a_default(tmp_path: Path) -> None:
    import tensorflow as tf

    _signed(tmp_path / "model")
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model")))
    assert frozen.graph.node("scale").op == "PlaceholderWithDefault" and "scale:0" in frozen.feeds
    assert sorted(frozen.signatures) == ["plain", "serving_default"]  # nothing is left of the other
    gr.export(frozen, tmp_path / "served", format="saved_model")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures
    assert served["plain"](x=tf.constant([2.0]))["y"].numpy().tolist() == [12.0]
    assert served["serving_default"](x=tf.constant([2.0]), scale=tf.constant(5.0))["y"].numpy().tolist() == [20.0]


def test_a_default_that_is_fed_by_name_takes_the_signatures_that_need_it_along(tmp_path: Path) -> None:
    import tensorflow as tf

    _signed(tmp_path / "model")
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model")), "y", ["x", "scale"])
    assert frozen.graph.node("scale").op == "Placeholder"
    assert sorted(frozen.signatures) == ["serving_default"]
    assert "signature plain is left away: it does not feed scale, a placeholder now" in frozen.notes
    gr.export(frozen, tmp_path / "served", format="saved_model")
    assert list(tf.saved_model.load(str(tmp_path / "served")).signatures) == ["serving_default"]


def test_a_sparse_signature_is_frozen_and_served(tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    _signed(tmp_path / "model")
    model = gr.restore(gr.load(tmp_path / "model"))
    frozen = gr.freeze(replace(model, signatures={"sparse": model.signatures["sparse"]}))
    assert set(frozen.fetches) == {"indices:0", "values:0", "sizes:0"}
    assert set(frozen.feeds) == {"sparse/indices:0", "sparse/values:0", "sparse/shape:0"}
    gr.export(frozen, tmp_path / "served", format="saved_model")
    given = tf.SparseTensorValue([[0, 1], [1, 3]], [1.5, -1.0], [2, 4])
    answers = []
    for folder in ("model", "served"):
        with tf.Graph().as_default(), tf.Session() as session:
            signature = tf.saved_model.load(session, ["serve"], str(tmp_path / folder)).signature_def["sparse"]
            sides = [signature.inputs["sparse"].coo_sparse, signature.outputs["doubled"].coo_sparse]
            names = [[one.indices_tensor_name, one.values_tensor_name, one.dense_shape_tensor_name] for one in sides]
            found = session.run(names[1], dict(zip(names[0], given)))
            answers.append([array.tolist() for array in found])
    assert answers[0] == answers[1] == [[[0, 1], [1, 3]], [3.0, -2.0], [2, 4]]
