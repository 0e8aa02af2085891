"""upgrade_variables: resource variables in place of reference ones compute what the models computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases
from test_runtime import assert_same

import graph_restore as gr
from graph_restore.variables import REF_OPS

pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
REFERENCES = [one for one in cases() if "unknown_ops" not in one.facts]


def upgraded(one: Case, fetches: list[str]) -> gr.Model:
    return gr.upgrade_variables(gr.restore(gr.load(one.graph_pb), one.prefix), fetches)


@pytest.mark.tensorflow
@pytest.mark.parametrize("known", [True, False], ids=["fetches named", "nothing named"])
@pytest.mark.parametrize("one", REFERENCES, ids=lambda one: one.id)
def test_every_model_computes_what_it_did(one: Case, known: bool) -> None:
    names = list(one.oracle["outputs"])
    model = upgraded(one, names if known else [])
    assert not [node.name for node in model.graph.nodes.values() if node.op in REF_OPS or node.op.startswith("Ref")]
    with gr.Session(model) as session:
        for run in one.oracle["runs"]:
            for name, value in zip(names, session.run(names, run["feeds"])):
                assert_same(value, run["outputs"][name], name)


def nodes_of(model: gr.Model) -> dict[str, tuple[str, list[str]]]:
    return {name: (node.op, list(node.input)) for name, node in model.graph.nodes.items()}


def test_ops_take_their_resource_forms_and_names_stay() -> None:
    one = case("mlp/tf0.12.1-v1")
    before, after = gr.load(one.graph_pb), gr.upgrade_variables(gr.load(one.graph_pb))
    assert set(before.graph.nodes) <= set(after.graph.nodes)
    ops = {node.op for node in after.graph.nodes.values()}
    assert {"VarHandleOp", "ReadVariableOp", "AssignVariableOp", "ResourceApplyAdam", "AssignSubVariableOp"} <= ops
    assert not ops & {"Variable", "VariableV2", "Assign", "AssignSub", "ApplyAdam"}
    assert [v.checkpoint_key for v in before.variables] == [v.checkpoint_key for v in after.variables]
    assert {v.kind for v in after.variables} == {"resource"}


def test_a_variable_that_is_fetched_stays_fetchable() -> None:
    one = case("linear/tf1.4.1-v2")
    nodes = nodes_of(upgraded(one, ["w:0"]))
    assert nodes["w"] == ("ReadVariableOp", ["w/handle"]) and nodes["w/handle"] == ("VarHandleOp", [])
    assert nodes["b"] == ("VarHandleOp", [])


def graph_of(build: Any) -> gr.Model:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        build(tf.compat.v1)
        return gr.load(graph.as_graph_def())


@pytest.mark.tensorflow
def test_a_use_after_an_update_sees_it_though_the_read_came_first() -> None:
    def build(tf: Any) -> None:
        v = tf.Variable([1.0, 2.0], use_resource=False, name="v")
        read = tf.identity(v, name="before")
        with tf.control_dependencies([read]):
            update = tf.assign_add(v, [10.0, 10.0], name="update")
        with tf.control_dependencies([update]):
            tf.add(tf.reshape(read, [2, 1]), 0.0, name="y")

    model = graph_of(build)
    results = []
    for one in (model, gr.upgrade_variables(model, ["y:0"])):
        with gr.Session(one) as session:
            session.run("v/Assign")
            results.append(session.run("y:0"))
    np.testing.assert_array_equal(results[0], [[11.0], [12.0]])
    np.testing.assert_array_equal(results[1], results[0])


@pytest.mark.tensorflow
def test_an_order_that_cannot_be_kept_is_refused_with_the_nodes() -> None:
    def build(tf: Any) -> None:
        v = tf.Variable([1.0], use_resource=False, name="v")
        false, true = tf.raw_ops.Switch(data=tf.identity(v, name="read") + 0.0, pred=tf.constant(True))
        merged, _ = tf.raw_ops.Merge(inputs=[false, tf.raw_ops.Switch(data=v.value(), pred=tf.constant(True))[1]])
        with tf.control_dependencies([tf.assign_add(v, [1.0], name="update")]):
            tf.add(merged, 0.0, name="y")

    with pytest.raises(gr.UpgradeError, match="update .AssignAdd. updates v between") as error:
        gr.upgrade_variables(graph_of(build), ["y:0"])
    assert {"update", "y"} <= set(error.value.nodes)


@pytest.mark.tensorflow
def test_scatter_and_slices() -> None:
    def build(tf: Any) -> None:
        v = tf.Variable(np.arange(12, dtype="f").reshape(4, 3), use_resource=False, name="v")
        first = tf.scatter_add(v, [1], [[1.0, 1.0, 1.0]], name="scatter")
        with tf.control_dependencies([first]):
            second = tf.scatter_nd_update(v, [[0, 0]], [50.0])
        with tf.control_dependencies([second]):
            tf.assign(v[2, :2], [7.0, 7.0], name="part")
        tf.count_up_to(tf.Variable(3, use_resource=False, name="n"), 9, name="count")

    model = graph_of(build)
    results = []
    for one in (model, gr.upgrade_variables(model)):
        with gr.Session(one) as session:
            session.run(["v/Assign", "n/Assign"])
            part = next(n for n in model.graph.nodes if n.startswith("part") and "ssign" in model.graph.nodes[n].op)
            session.run(part)
            results.append((session.run("v/read:0"), session.run("count:0")))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][0][0, 0] == 50 and results[0][1] == results[1][1] == 3


@pytest.mark.tensorflow
def test_tensorflow_takes_what_the_command_exports(tmp_path: Path) -> None:
    import tensorflow as tf
    from click.testing import CliRunner

    from graph_restore.cli.main import main

    one = case("mlp/tf0.12.1-v1")
    arguments = ["export", str(one.meta), "-o", str(tmp_path / "new.meta"), "--upgrade-variables"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(str(tmp_path / "new.meta"))
        saver.restore(session, str(tmp_path / "new"))
        assert {type(v).__name__ for v in tf.compat.v1.global_variables()} == {"ResourceVariable"}
        for name, value in one.oracle["outputs"].items():
            assert_same(session.run(name, one.oracle["feeds"]), value, name)


@pytest.mark.tensorflow
def test_collections_name_the_updates_of_resource_variables() -> None:
    """Batch norm's updates, which gave their variable, give nothing now."""
    one = case("convnet/tf1.4.1-v2")
    model = gr.upgrade_variables(gr.restore(gr.load(one.meta), one.prefix))
    with gr.Session(model) as session:
        updates = session.graph.get_collection("update_ops")
        assert updates
        feeds = dict(one.oracle["feeds"])
        before = session.run("norm/moving_mean")
        session.session.run(updates, feeds | {"is_training:0": True})
        assert np.abs(session.run("norm/moving_mean") - before).max() > 0


@pytest.mark.tensorflow
def test_an_exported_meta_graph_with_updates_is_imported(tmp_path: Path) -> None:
    import tensorflow as tf

    one = case("convnet/tf1.4.1-v2")
    gr.export(gr.upgrade_variables(gr.restore(gr.load(one.meta), one.prefix)), tmp_path / "model.ckpt.meta")
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(str(tmp_path / "model.ckpt.meta"))
        saver.restore(session, str(tmp_path / "model.ckpt"))
        assert graph.get_collection("update_ops")
        for name, expected in one.oracle["outputs"].items():
            assert_same(session.run(name, one.oracle["feeds"]), expected, name)
