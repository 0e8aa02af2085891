"""restore_graph, the live variables and the saver, against models of genuine old releases and TensorFlow itself."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr
from graph_restore.checkpoint import convert
from graph_restore.graph import Graph
from graph_restore.ops import op_table
from graph_restore.protos import GraphDef, OpList
from graph_restore.runtime.importing import operation_list
from graph_restore.runtime.live import LiveModel

pytestmark = pytest.mark.tensorflow

RESTORABLE = [one for one in cases() if "unknown_ops" not in one.facts]
ROUND_TRIPS = [
    "linear/tf0.12.1-v1", "partitioned/tf0.12.1-v1", "partitioned/tf1.15.5-v2", "resource/tf1.15.5-v1",
    "resource_partitioned/tf1.4.1-v2", "custom_savers/tf1.15.5-v2", "imported_prefix/tf1.4.1-v2",
    "sharded/tf1.15.5-v1", "sharded/tf0.12.1-v2", "dtypes/tf1.15.5-v2", "scalars_and_empty/tf0.12.1-v1",
    "mutable_table/tf1.4.1-v2", "mutable_table/tf0.12.1-v1", "odd_names/tf0.12.1-v1", "odd_resource/tf1.15.5-v2",
    "unknown_shape/tf0.12.1-v1", "metrics_local/tf1.15.5-v2", "stripped/tf1.4.1-v2",
]  # fmt: skip


@contextmanager
def graph_and_session() -> Iterator[tuple[Any, Any, Any]]:
    """tf, a fresh default graph and its session."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        yield tf, graph, session


def assert_same(found: Any, expected: np.ndarray[Any, Any], name: str) -> None:
    found = np.asarray(found)
    assert found.shape == expected.shape, name
    if expected.dtype == object:
        assert found.ravel().tolist() == expected.ravel().tolist(), name
    elif expected.dtype.kind in "fc":
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)
    else:
        np.testing.assert_array_equal(found.view(expected.dtype), expected, err_msg=name)


def sources(one: Case) -> list[str]:
    return [str(one.graph_pb), *([str(one.meta)] if one.meta is not None else [])]


def restored_values(session: Any) -> dict[str, Any]:
    """Every variable's value by tensor name."""
    import tensorflow as tf

    made = tf.compat.v1.global_variables() + tf.compat.v1.local_variables()
    return {variable.name: value for variable, value in zip(made, session.run(made))}


@pytest.mark.parametrize("one", RESTORABLE, ids=lambda one: one.id)
@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_every_model_runs_as_it_did(one: Case) -> None:
    for source in sources(one):
        with graph_and_session() as (_, _, session):
            elements, _ = gr.restore_graph(source, one.prefix, return_elements=one.facts["fetches"])
            assert [element.name for element in elements] == one.facts["fetches"]
            values = restored_values(session)
            assert set(one.oracle["variables"]) <= set(values)
            for key in one.facts["savers"].get("", {"keys": {}})["keys"].values():
                for part in key["parts"]:
                    if part["variable"] in values:
                        assert_same(values[part["variable"]], one.oracle["variables"][part["variable"]], one.id)
            outputs = session.run(elements, one.oracle["feeds"])
            for name, found in zip(one.facts["fetches"], outputs):
                if name in one.oracle["outputs"]:
                    assert_same(found, one.oracle["outputs"][name], name)


@pytest.mark.parametrize("one", RESTORABLE, ids=lambda one: one.id)
@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_variables_are_what_they_were(one: Case) -> None:
    with graph_and_session() as (tf, graph, _):
        gr.restore_graph(sources(one)[-1])
        nodes = {operation.name for operation in graph.get_operations()}
        made = {v.name: v for v in tf.compat.v1.global_variables() + tf.compat.v1.local_variables()}
        trainable = {v.name for v in tf.compat.v1.trainable_variables()}
        for name, facts in one.facts["variables"].items():
            variable = made[name]
            assert isinstance(variable, tf.compat.v1.Variable) and isinstance(variable, gr.RestoredVariable)
            assert variable.op.type == facts["op"]
            assert variable.dtype.base_dtype.name == facts["dtype"]
            if facts["initializer"] is not None and facts["initializer"] in nodes:
                assert variable.initializer.name == facts["initializer"]
            if one.meta is not None and "trainable" in facts:  # ops made without a Variable say nothing
                assert (name in trainable) == facts["trainable"]
                assert (variable in tf.compat.v1.local_variables()) == facts["local"]


@pytest.mark.parametrize("identity", ROUND_TRIPS)
@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_the_saver_writes_what_the_original_wrote(identity: str, tmp_path: Path) -> None:
    one = case(identity)
    with graph_and_session() as (tf, _, session):
        _, saver = gr.restore_graph(str(one.graph_pb), one.prefix)
        path = saver.save(session, str(tmp_path / "again"), global_step=7)
    assert path.removesuffix("-?????-of-00002").endswith("again-7")  # TensorFlow's words for shards of version 1
    if one.meta is not None:
        assert gr.load_checkpoint(path).version == gr.load(one.meta).saver_def.version
    expected, reader = one.oracle["checkpoint"][""], tf.train.load_checkpoint(path)
    assert set(reader.get_variable_to_shape_map()) == set(expected)
    for key in expected:
        if not key.startswith("seen-"):  # a hash table has no order
            assert_same(gr.load_checkpoint(path)[key].read(), expected[key], key)
    with graph_and_session() as (_, _, session):
        elements, saver = gr.restore_graph(str(one.graph_pb), path, return_elements=one.facts["fetches"])
        saver.restore(session, path)
        assert saver.restoration.checkpoint == path
        for name, found in zip(one.facts["fetches"], session.run(elements, one.oracle["feeds"])):
            assert_same(found, one.oracle["outputs"][name], name)


@pytest.mark.parametrize(
    "identity", ["mlp/tf0.12.1-v1", "mlp/tf1.4.1-v2", "partitioned/tf1.15.5-v2", "sharded/tf1.15.5-v1"]
)
def test_what_the_graph_has_to_restore_and_save_is_not_added_again(identity: str, tmp_path: Path) -> None:
    one = case(identity)
    with graph_and_session() as (_, graph, session):
        _, saver = gr.restore_graph(str(one.graph_pb), one.prefix)
        saver.save(session, str(tmp_path / "again"))
        ops = [operation.type for operation in graph.get_operations() if operation.type in SAVER_OPS]
    nodes = gr.load(one.graph_pb).graph.nodes.values()
    assert Counter(ops) == Counter(node.op for node in nodes if node.op in SAVER_OPS)


@pytest.mark.parametrize(
    "identity", ["linear/tf0.12.1-v1", "partitioned/tf1.4.1-v2", "resource/tf1.4.1-v2", "mutable_table/tf1.15.5-v2"]
)
def test_tensorflow_reads_what_the_saver_wrote(identity: str, tmp_path: Path) -> None:
    one = case(identity)
    with graph_and_session() as (_, _, session):
        _, saver = gr.restore_graph(str(one.graph_pb), one.prefix)
        path = saver.save(session, str(tmp_path / "again"))
    with graph_and_session() as (tf, _, session):
        tf.compat.v1.train.import_meta_graph(path + ".meta").restore(session, path)
        for name, expected in one.oracle["outputs"].items():
            assert_same(session.run(name, one.oracle["feeds"]), expected, name)


@pytest.mark.parametrize("kind", ["file", "list", "saver"])
def test_weights_files_and_lists_are_restored_with_their_tables(kind: str, tmp_path: Path) -> None:
    """A .npz file in place of the checkpoint, alone, before another source, and given to the saver."""
    one = case("mutable_table/tf1.15.5-v2")
    path = f"{tmp_path}/m.npz"
    convert(one.prefix, path)
    with graph_and_session() as (_, _, session):
        source = {"file": path, "list": [{}, path], "saver": None}[kind]
        _, saver = gr.restore_graph(str(one.graph_pb), source)
        if kind == "saver":
            saver.restore(session, path)
        assert saver.restoration.checkpoint.endswith(path)
        for name, expected in one.oracle["outputs"].items():
            assert_same(session.run(name, one.oracle["feeds"]), expected, name)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("scope", ["", "copy"])
def test_a_saver_def_is_honoured(version: str, scope: str, tmp_path: Path) -> None:
    one = case(f"custom_savers/tf1.15.5-{version}")
    facts = one.facts["savers"]["renamed"]
    with graph_and_session() as (tf, _, session):
        saver_def = tf.compat.v1.train.SaverDef(
            filename_tensor_name=facts["filename_tensor"], save_tensor_name=facts["save_tensor"],
            restore_op_name=facts["restore_op"], version=int(version[1]), max_to_keep=1,
        )  # fmt: skip
        elements, saver = gr.restore_graph(
            str(one.graph_pb), one.prefixes["renamed"], saver_def, return_elements=["y:0"], import_scope=scope
        )
        assert elements[0].name == (f"{scope}/y:0" if scope else "y:0")
        assert saver.saver_def.restore_op_name == "/".join(filter(None, [scope, facts["restore_op"]]))
        path = saver.save(session, str(tmp_path / "again"))
        checkpoint = gr.load_checkpoint(path)
        assert sorted(checkpoint) == ["bias", "old/kernel"]
        assert checkpoint.version == int(version[1])
        assert_same(checkpoint["old/kernel"].read(), one.oracle["checkpoint"]["renamed"]["old/kernel"], "old/kernel")
        saver.restore(session, path)


def test_a_saver_def_with_names_the_graph_lacks() -> None:
    with graph_and_session() as (tf, graph, _):
        saver_def = tf.compat.v1.train.SaverDef(filename_tensor_name="save/Konst:0", restore_op_name="save/restore_all")
        with pytest.raises(gr.NodeNotFoundError, match="save/Konst.*near names: save/Const"):
            gr.restore_graph(str(case("linear/tf1.4.1-v2").graph_pb), saver_def=saver_def)
        assert graph.get_operations() == []


SAVER_OPS = {
    "Assign", "AssignVariableOp", "SaveV2", "SaveSlices", "RestoreV2", "RestoreSlice", "MergeV2Checkpoints",
    "Placeholder",
}  # fmt: skip


GIST = """
import sys
import tensorflow as tf
from graph_restore import restore_graph

graph_def = tf.compat.v1.GraphDef()
with open(sys.argv[1], "rb") as file:
    graph_def.ParseFromString(file.read())
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    (x, y), saver = restore_graph(graph_def, sys.argv[2], return_elements=["x:0", "y:0"])
    print(session.run(y, {x: [[1.0, 0.0, 0.0, 0.0]]}).tolist())
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)


def test_the_call_of_the_gist() -> None:
    one = case("linear/tf0.12.1-v1")
    done = run(GIST, str(one.graph_pb), one.prefix)
    assert done.returncode == 0, done.stderr
    w, b = (one.oracle["variables"][name] for name in ("w:0", "b:0"))
    np.testing.assert_allclose(eval(done.stdout.splitlines()[-1]), [w[0] + b], rtol=1e-5)


def test_without_tensorflow_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['tensorflow'] = None; import graph_restore as gr; gr.restore_graph(b'')"
    done = run(code)
    assert "TensorFlowRequiredError" in done.stderr
    assert "pip install 'graph-restore[tensorflow]'" in done.stderr and "[tensorflow-cpu]" in done.stderr


def test_eager_mode_is_an_error_that_shows_what_to_write() -> None:
    import tensorflow as tf

    assert tf.executing_eagerly()
    with pytest.raises(gr.GraphRestoreError, match=r"with tf.Graph\(\).as_default\(\), tf.compat.v1.Session\(\):"):
        gr.restore_graph(str(case("linear/tf1.4.1-v2").graph_pb))


def test_a_session_given_is_used_in_eager_mode_too() -> None:
    import tensorflow as tf

    one = case("linear/tf1.4.1-v2")
    with tf.compat.v1.Session(graph=tf.Graph()) as unused, tf.compat.v1.Session(graph=tf.Graph()) as session:
        elements, _ = gr.restore_graph(str(one.graph_pb), one.prefix, return_elements=["y"], session=session)
        assert elements[0].graph is session.graph and elements[0].name == "y"
        assert_same(session.run("w:0"), one.oracle["variables"]["w:0"], "w")
        assert unused.graph.get_operations() == []


def test_without_a_session_everything_is_built_and_a_warning_gives_the_line_to_run() -> None:
    import tensorflow as tf

    one = case("partitioned/tf1.15.5-v2")
    with tf.Graph().as_default():
        with pytest.warns(gr.GraphRestoreWarning, match=r"saver\.restore\(sess, '.*model\.ckpt'\)"):
            elements, saver = gr.restore_graph(str(one.graph_pb), one.prefix, return_elements=["y:0"])
        with tf.compat.v1.Session() as session:
            with pytest.raises(tf.errors.FailedPreconditionError):
                session.run(elements, one.oracle["feeds"])
            saver.restore(session, one.prefix)
            assert_same(session.run(elements[0], one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")


def test_a_default_session_of_another_graph_is_no_session() -> None:
    one = case("linear/tf1.4.1-v2")
    with graph_and_session() as (tf, outer, _), tf.Graph().as_default() as inner:
        with pytest.warns(gr.GraphRestoreWarning, match="no session") as told:
            gr.restore_graph(str(one.graph_pb), one.prefix)
        assert outer.get_operations() == [] and inner.get_operations() != []
    assert [warning.filename for warning in told] == [__file__]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("outputs", [["y:0"], ["absent:0"]], ids=["done", "refused"])
def test_pythons_collector_is_left_as_it_was(enabled: bool, outputs: list[str]) -> None:
    one = case("linear/tf1.4.1-v2")
    try:
        gc.enable() if enabled else gc.disable()
        with graph_and_session(), nullcontext() if outputs == ["y:0"] else pytest.raises(gr.NodeNotFoundError):
            gr.restore_graph(str(one.graph_pb), one.prefix, return_elements=outputs)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def under(scope: str, one: Case) -> dict[str, Any]:
    """The feeds of a model that was imported under a scope."""
    return {f"{scope}/{name}": value for name, value in one.oracle["feeds"].items()}


@pytest.mark.parametrize("identity", ["linear/tf0.12.1-v1", "resource/tf1.15.5-v2", "odd_resource/tf1.4.1-v2"])
@pytest.mark.parametrize("scopes", [("one", "two"), ("same", "same")])
def test_twice_in_one_graph(identity: str, scopes: tuple[str, str]) -> None:
    one = case(identity)
    zeros = {key: np.zeros_like(value) for key, value in one.oracle["checkpoint"][""].items()}
    with graph_and_session() as (tf, _, session):
        source = str(one.graph_pb)
        first, saver = gr.restore_graph(source, one.prefix, return_elements=["y:0"], import_scope=scopes[0])
        count = len(tf.compat.v1.global_variables())
        second, _ = gr.restore_graph(source, zeros, return_elements=["y:0"], import_scope=scopes[1])
        assert first[0].name == f"{scopes[0]}/y:0"
        made = tf.compat.v1.global_variables()
        assert len(made) == 2 * count == len({variable.name for variable in made})
        scope = second[0].name.rpartition("/")[0]
        assert scope != scopes[0]
        assert_same(session.run(first[0], under(scopes[0], one)), one.oracle["outputs"]["y:0"], "y")
        assert not np.any(session.run(second[0], under(scope, one)))
        assert not any(np.any(value) for value in session.run(made[count:]))
        saver.restore(session, one.prefix)
        assert not any(np.any(value) for value in session.run(made[count:]))


def test_functions_of_one_name_in_two_models() -> None:
    """Programs number their functions alike, so two graphs have different ones under the same names."""
    one = case("control_flow_v2/tf1.15.5-v2")
    tripled = gr.load(one.graph_pb).graph.materialize()
    (function,) = [f for f in tripled.library.function if "last" in f.signature.name]
    (two,) = [node for node in function.node_def if node.op == "Const"]
    two.attr["value"].tensor.ClearField("tensor_content")
    two.attr["value"].tensor.float_val[:] = [6]
    with graph_and_session() as (_, _, session):
        found = [
            gr.restore_graph(source, one.prefix, return_elements=["y:0"], import_scope=scope)[0][0]
            for source, scope in ((one.graph_pb, "one"), (tripled, "two"), (one.graph_pb, "three"))
        ]
        for scope, tensor, factor in zip(("one", "two", "three"), found, (1, 3, 1)):
            expected = one.oracle["outputs"]["y:0"] * np.float32(factor)
            np.testing.assert_allclose(session.run(tensor, under(scope, one)), expected, rtol=1e-5)


def test_elements_and_the_saver_of_a_graph_without_variables() -> None:
    with graph_and_session() as (tf, graph, session):
        tf.constant(3.0, name="three")
        graph_def = graph.as_graph_def()
    with graph_and_session() as (_, _, session):
        assert gr.restore_graph(graph_def) == (None, None)
        elements, _ = gr.restore_graph(graph_def, return_elements=[], import_scope="more")
        assert elements == []
        with pytest.raises(gr.NodeNotFoundError, match="thre.*near names: three"):
            gr.restore_graph(graph_def, return_elements=["thre:0"])


def test_attrs_newer_than_tensorflow() -> None:
    """As a later TensorFlow might have written them: MatMul has two more attrs, one of them at its default."""
    one = case("linear/tf1.4.1-v2")
    assert one.meta is not None
    with graph_and_session() as (tf, graph, session):
        meta_graph = tf.compat.v1.MetaGraphDef.FromString(one.meta.read_bytes())
        (node,) = [node for node in meta_graph.graph_def.node if node.op == "MatMul"]
        (op,) = [op for op in meta_graph.meta_info_def.stripped_op_list.op if op.name == "MatMul"]
        for name in ("of_later", "of_later_and_set"):
            op.attr.add(name=name, type="bool").default_value.b = False
            node.attr[name].b = name.endswith("set")
        (y,), _ = gr.restore_graph(meta_graph.SerializeToString(), one.prefix, return_elements=["y:0"])
        assert_same(session.run(y, one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")
        kept = graph.get_operation_by_name(node.name).node_def.attr
        assert [name for name in kept if name.startswith("of_later")] == ["of_later_and_set"]


@pytest.mark.parametrize("op", ["MatMul", "Conv2D", "RestoreV2", "AddN", "ConcatV2", "ParseExample", "Placeholder"])
def test_only_ops_that_may_have_newer_attrs_are_told_to_tensorflow(op: str) -> None:
    today = op_table()[op].op_def
    known = Graph(GraphDef(), op_list=OpList(op=[today]))
    assert operation_list(known) is None
    later = type(today).FromString(today.SerializeToString())
    later.attr.add(name="of_later", type="bool").default_value.b = False
    told = operation_list(Graph(GraphDef(), op_list=OpList(op=[today, later])))
    assert [attr.name for op in told.op for attr in op.attr][-1] == "of_later" and len(told.op) == 1


def test_a_scope_around_it_and_a_collection_that_names_what_is_not_there() -> None:
    one = case("linear/tf1.4.1-v2")
    assert one.meta is not None
    with graph_and_session() as (tf, graph, session):
        meta_graph = tf.compat.v1.MetaGraphDef.FromString(one.meta.read_bytes())
        meta_graph.collection_def["mine"].node_list.value.extend(["y:0", "gone:0", "gone"])
        with tf.name_scope("around"):
            gr.restore_graph(meta_graph.SerializeToString(), one.prefix)
        assert [tensor.name for tensor in graph.get_collection("mine")] == ["y:0"]
        assert_same(session.run("y:0", one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")


def test_input_map() -> None:
    one = case("linear/tf1.4.1-v2")
    rows = np.eye(4, dtype=np.float32)
    with graph_and_session() as (tf, _, session):
        (y,), _ = gr.restore_graph(str(one.graph_pb), one.prefix, None, {"x:0": tf.constant(rows)}, ["y:0"])
        w, b = (one.oracle["variables"][name] for name in ("w:0", "b:0"))
        np.testing.assert_allclose(session.run(y), w + b, rtol=1e-5)


SOURCES = {
    "TensorFlow's GraphDef": lambda one, tf: tf.compat.v1.GraphDef.FromString(one.graph_pb.read_bytes()),
    "TensorFlow's MetaGraphDef": lambda one, tf: tf.compat.v1.MetaGraphDef.FromString(one.meta.read_bytes()),
    "bytes": lambda one, tf: one.graph_pb.read_bytes(),
    "a path": lambda one, tf: one.graph_pb,
    "a Model": lambda one, tf: gr.load(one.meta),
    "our GraphDef": lambda one, tf: gr.load(one.graph_pb).graph.graph_def,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources(kind: str) -> None:
    one = case("linear/tf0.12.1-v2")
    with graph_and_session() as (tf, _, session):
        elements, _ = gr.restore_graph(SOURCES[kind](one, tf), one.prefix, return_elements=["y:0"])
        assert_same(session.run(elements[0], one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")


@pytest.mark.parametrize("identity", ["partitioned/tf0.12.1-v1", "resource/tf1.15.5-v2"])
def test_a_model_brings_its_values(identity: str) -> None:
    one = case(identity)
    model = gr.restore(gr.load(one.graph_pb), one.prefix)
    with graph_and_session() as (tf, _, session):
        elements, saver = gr.restore_graph(model, return_elements=["y:0"])
        assert_same(session.run(elements[0], one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")
        assert saver.restoration is model.restoration
    with tf.Graph().as_default(), pytest.warns(gr.GraphRestoreWarning, match=r"saver\.restore\(sess, '.*model\.ckpt'"):
        gr.restore_graph(model)


@pytest.mark.parametrize("identity", [one.id for one in cases("events")])
def test_event_accumulator(identity: str) -> None:
    accumulating = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    one = case(identity)
    accumulator = accumulating.EventAccumulator(str(one.directory / "events"))
    with graph_and_session() as (_, _, session):
        with pytest.raises(gr.FormatError, match=r"Reload\(\)"):
            gr.restore_graph(accumulator)
        accumulator.Reload()
        for number, source in enumerate((accumulator, accumulator.Graph())):
            elements, _ = gr.restore_graph(
                source, one.prefix, return_elements=one.facts["fetches"], import_scope=f"scope{number}"
            )
            for name, found in zip(one.facts["fetches"], session.run(elements, under(f"scope{number}", one))):
                assert_same(found, one.oracle["outputs"][name], name)


def test_unknown_ops_are_named_before_the_graph_is_touched() -> None:
    one = case("contrib_op/tf1.4.1-v2")
    model = gr.load(one.graph_pb)
    for node in model.graph.graph_def.node:
        node.op = "Imagined" if node.op == "Resampler" else node.op
    with graph_and_session() as (_, graph, _):
        with pytest.raises(gr.UnsupportedFormatError, match=r"Imagined \(never a part of TensorFlow.*freeze"):
            gr.restore_graph(model.graph.graph_def, one.prefix)
        assert graph.get_operations() == []


def test_lost_ops_are_rewritten() -> None:
    one = case("contrib_op/tf1.4.1-v2")
    with graph_and_session() as (_, _, session):
        gr.restore_graph(one.graph_pb, one.prefix)
        for name, expected in one.oracle["outputs"].items():
            assert_same(session.run(name, one.oracle["feeds"]), expected, name)


def test_a_checkpoint_that_does_not_fit_is_refused_before_the_graph_is_touched() -> None:
    one = case("mismatch/tf1.15.5-v2")
    with graph_and_session() as (_, graph, session):
        with pytest.raises(gr.RestoreError, match=r"w: .*\[3, 2\].*\[3, 5\]") as caught:
            gr.restore_graph(str(one.graph_pb), one.other_prefixes["shape"])
        assert set(caught.value.mismatched) == {"w", "b"}
        assert graph.get_operations() == []
        _, saver = gr.restore_graph(str(one.graph_pb), one.prefix)
        with pytest.raises(gr.RestoreError):
            saver.restore(session, one.other_prefixes["shape"])
        with pytest.warns(gr.GraphRestoreWarning, match="not in the checkpoint and stay as they are: b$"):
            saver.restore(session, one.other_prefixes["missing"])
        assert saver.restoration.missing == {"b": "b"}
        with pytest.raises(gr.RestoreError, match="none of the graph's variables"):
            saver.restore(session, one.other_prefixes["renamed"])
        with pytest.raises(gr.CheckpointNotFoundError):
            saver.restore(session, "nowhere/model.ckpt")
        with pytest.raises(ValueError, match="None"):
            saver.restore(session, None)
        with graph_and_session() as (_, _, other), pytest.raises(gr.GraphRestoreError, match="another graph"):
            saver.restore(other, one.prefix)


def test_options_of_restore_hold_for_the_saver_too() -> None:
    one = case("mismatch/tf1.15.5-v2")
    with graph_and_session() as (_, _, session):
        prefix = one.other_prefixes["renamed"]
        _, saver = gr.restore_graph(str(one.graph_pb), prefix, rename={"tower/w": "w", "tower/b": "b"})
        expected = one.oracle["checkpoint"]["renamed"]["tower/w"]
        assert_same(session.run("w:0"), expected, "w")
        saver.restore(session, one.prefix)
        assert_same(session.run("w:0"), one.oracle["variables"]["w:0"], "w")
        saver.restore(session, prefix)
        assert_same(session.run("w:0"), expected, "w")


@pytest.mark.parametrize(
    "identity, options, fed",
    [
        ("mlp/tf1.15.5-v2", {}, 0),
        ("mlp/tf1.15.5-v2", {"moving_averages": True}, 4),
        ("partitioned/tf1.15.5-v2", {}, 0),
        ("mlp/tf0.12.1-v1", {}, 19),  # of version 1
    ],
)
def test_what_the_graph_can_restore_itself_is_not_fed(
    identity: str, options: Any, fed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = case(identity)
    names: list[str] = []

    def assign(live: LiveModel, session: Any, variables: Any) -> None:
        kept = list(variables)
        names.extend(variable.name for variable in kept if variable.value is not None)
        original(live, session, kept)

    original = LiveModel.assign
    monkeypatch.setattr(LiveModel, "assign", assign)
    with graph_and_session() as (_, _, session):
        gr.restore_graph(one.graph_pb, one.prefix, **options)
        assert len(names) == fed
        for name, value in restored_values(session).items():
            average = f"{name[:-2]}/ExponentialMovingAverage"
            key = average if options and average in one.oracle["checkpoint"][""] else name[:-2]
            if key in one.oracle["checkpoint"][""]:
                assert_same(value, one.oracle["checkpoint"][""][key], name)


def test_a_damaged_checkpoint_is_told_as_graph_restore_tells_it(tmp_path: Path) -> None:
    one = case("mlp/tf1.15.5-v2")
    for file in Path(one.prefix).parent.glob("model.ckpt*"):
        shutil.copy(file, tmp_path)
    data = next(tmp_path.glob("*.data-*"))
    damaged = bytearray(data.read_bytes())
    damaged[5] ^= 1
    data.write_bytes(damaged)
    with graph_and_session(), pytest.raises(gr.CorruptionError, match="checksum"):
        gr.restore_graph(one.graph_pb, tmp_path / Path(one.prefix).name)


def test_moving_averages_are_saved_under_the_variables_own_keys(tmp_path: Path) -> None:
    one = case("mlp/tf1.15.5-v2")
    with graph_and_session() as (_, _, session):
        _, saver = gr.restore_graph(str(one.graph_pb), one.prefix, moving_averages=True)
        saved = gr.load_checkpoint(saver.save(session, str(tmp_path / "averaged")))
    known = one.oracle["checkpoint"][""]
    assert set(saved) == set(known)
    averages = [key for key in known if key.endswith("/ExponentialMovingAverage")]
    assert averages
    for key in averages:
        assert_same(saved[key.rpartition("/")[0]].read(), known[key], key)
        assert_same(saved[key].read(), known[key], key)


def test_variables_that_the_checkpoint_lacks_are_initialised() -> None:
    one = case("mlp/tf0.12.1-v2")
    values = {key: value for key, value in one.oracle["checkpoint"][""].items() if "Adam" not in key}
    with graph_and_session() as (tf, _, session):
        with pytest.warns(gr.GraphRestoreWarning, match="not in the checkpoint and were initialised: .*Adam"):
            gr.restore_graph(str(one.graph_pb), values)
        found = restored_values(session)
        for name, value in one.oracle["variables"].items():
            assert_same(found[name], np.zeros_like(value) if "Adam" in name else value, name)
    with graph_and_session() as (tf, _, session):
        with pytest.warns(gr.GraphRestoreWarning, match="have no value yet: .*Adam"):
            gr.restore_graph(str(one.graph_pb), values, initialize_missing=False)
        lacking = {name.decode() for name in session.run(tf.compat.v1.report_uninitialized_variables())}
        assert lacking == {name[:-2] for name in one.oracle["variables"] if "Adam" in name}


def old_initial_values() -> Any:
    """A graph whose initial values depend on each other as releases before 1.4 wrote it: the copy runs w's own."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        fed = tf.compat.v1.placeholder(tf.float32, [], name="fed")
        w = tf.compat.v1.Variable(1.0, use_resource=False, name="w")
        with tf.control_dependencies([w.initializer]):
            copied = tf.identity(w)
        copy = tf.compat.v1.Variable(copied, use_resource=False, name="copy")
        tf.compat.v1.Variable(copy * 2.0, use_resource=True, name="a_double")
        tf.compat.v1.Variable(fed, use_resource=True, name="needs_feed")
    return graph.as_graph_def()


def test_initializers_run_in_order_and_never_overwrite_what_was_restored() -> None:
    with graph_and_session() as (_, _, session), warnings.catch_warnings():
        warnings.simplefilter("ignore", gr.GraphRestoreWarning)
        with pytest.warns(gr.GraphRestoreWarning, match="no value yet: needs_feed: .*a value fed"):
            gr.restore_graph(old_initial_values(), {"w": np.float32(5.0)})
        assert session.run("w:0") == 5.0
        assert session.run("a_double/Read/ReadVariableOp:0") == 2 * session.run("copy:0") > 0


@pytest.mark.parametrize("identity", ["mlp/tf0.12.1-v1", "resource/tf1.15.5-v2", "resource/tf1.4.1-v2"])
def test_gradients_and_training(identity: str) -> None:
    one = case(identity)
    feeds = one.oracle["feeds"]
    values = {
        key: (np.arange(value.size) % 7 / 10 - 0.2).reshape(value.shape).astype(value.dtype)
        for key, value in one.oracle["checkpoint"][""].items()
    }
    with graph_and_session() as (tf, _, session):
        (y,), _ = gr.restore_graph(str(one.graph_pb), values, return_elements=one.facts["fetches"][:1])
        variables = tf.compat.v1.trainable_variables()
        assert {v.name for v in variables} == {n for n, f in one.facts["variables"].items() if f["trainable"]}
        loss = tf.reduce_sum(tf.square(y - 0.1))
        assert all(gradient is not None for gradient in tf.gradients(loss, variables))
        train = tf.compat.v1.train.AdamOptimizer(0.01, name="NewAdam").minimize(loss)
        new = [v for v in tf.compat.v1.global_variables() if not isinstance(v, gr.RestoredVariable)]
        assert len(new) == 2 * len(variables) + 2
        session.run(tf.compat.v1.variables_initializer(new))
        before, start = session.run([loss, variables], feeds)
        for _ in range(20):
            session.run(train, feeds)
        after, end = session.run([loss, variables], feeds)
        assert after < before
        assert all(np.any(old != new) for old, new in zip(start, end))


def test_a_gradient_is_right() -> None:
    one = case("linear/tf0.12.1-v1")
    with graph_and_session() as (tf, _, session):
        (y,), _ = gr.restore_graph(str(one.graph_pb), one.prefix, return_elements=["y:0"])
        by_name = {v.op.name: v for v in tf.compat.v1.trainable_variables()}
        found = session.run(tf.gradients(tf.reduce_sum(y), [by_name["w"], by_name["b"]]), one.oracle["feeds"])
    rows = one.oracle["feeds"]["x:0"]
    np.testing.assert_allclose(found[0], np.repeat(rows.sum(0)[:, None], 3, 1), rtol=1e-5)
    np.testing.assert_allclose(found[1], [len(rows)] * 3)


@pytest.mark.parametrize("identity", ["linear/tf0.12.1-v1", "linear/tf1.15.5-v2", "resource/tf1.15.5-v2"])
def test_a_graph_cut_down_to_its_output(identity: str) -> None:
    one = case(identity)
    with graph_and_session() as (tf, _, session):
        whole = tf.compat.v1.GraphDef.FromString(one.graph_pb.read_bytes())
        whole.library.Clear()
        stripped = tf.compat.v1.graph_util.extract_sub_graph(whole, ["y"])
        elements, saver = gr.restore_graph(stripped, one.prefix, return_elements=["y:0"])
        assert_same(session.run(elements[0], one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")
        for variable in tf.compat.v1.global_variables():
            value = session.run(variable)
            assert_same(session.run(variable.value()), value, variable.name)
            assert_same(variable.eval(), value, variable.name)
            session.run(variable.assign(np.zeros_like(value)))
            assert not np.any(session.run(variable.read_value()))
            session.run(variable.initializer, {variable.initial_value: value})
            assert_same(session.run(variable), value, variable.name)


@pytest.mark.parametrize("trainable", [True, "infer", False])
@pytest.mark.parametrize("identity", ["convnet/tf0.12.1-v1", "convnet/tf1.15.5-v2"])
def test_trainable_of_a_graph_that_does_not_say(identity: str, trainable: Any) -> None:
    one = case(identity)
    with graph_and_session() as (tf, _, _):
        whole = tf.compat.v1.GraphDef.FromString(one.graph_pb.read_bytes())
        inference = tf.compat.v1.graph_util.extract_sub_graph(whole, ["scores/out"])
        gr.restore_graph(inference, trainable=trainable)
        kept = {v.name for v in tf.compat.v1.global_variables()}
        found = {v.name for v in tf.compat.v1.trainable_variables()}
    expected = {name for name, facts in one.facts["variables"].items() if facts["trainable"]} & kept
    assert expected and expected < kept
    assert found == (expected if trainable is True else set())


@pytest.mark.parametrize("trainable", [True, "infer", False])
def test_trainable_of_a_graph_with_an_optimizer(trainable: Any) -> None:
    one = case("mlp/tf0.12.1-v1")
    with graph_and_session() as (tf, _, _):
        gr.restore_graph(str(one.graph_pb), trainable=trainable)
        found = {v.name for v in tf.compat.v1.trainable_variables()}
    expected = {name for name, facts in one.facts["variables"].items() if facts["trainable"]}
    assert expected
    assert found == (expected if trainable else set())


@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_collections() -> None:
    one = case("metrics_local/tf0.12.1-v1")
    with graph_and_session() as (tf, graph, _):
        gr.restore_graph(str(one.meta))
        local = {v.name for v in tf.compat.v1.local_variables()}
        assert local == {name for name, facts in one.facts["variables"].items() if facts["local"]} != set()
        assert not local & {v.name for v in tf.compat.v1.global_variables()}
        before = len(tf.compat.v1.global_variables())
        gr.restore_graph(str(one.meta), collections=["mine"], trainable=False, import_scope="more")
        assert {v.name for v in graph.get_collection("mine")} == {"more/" + name for name in one.facts["variables"]}
        assert len(tf.compat.v1.global_variables()) == before


@pytest.mark.parametrize("scopes", [["", "again"], ["one", "two"]])
def test_other_collections(scopes: list[str]) -> None:
    """Each call adds its own, under its own names; queue runners run."""
    one = case("queue_input/tf1.15.5-v2")
    listed = gr.load(one.meta).collections
    wanted = listed["queue_runners"].bytes_list.value
    with graph_and_session() as (tf, graph, session):
        for scope in scopes:
            gr.restore_graph(one.meta, one.prefix, import_scope=scope)
        runners = graph.get_collection("queue_runners")
        assert len(runners) == len(scopes) * len(wanted) > 0
        assert len({runner.name for runner in runners}) == len(runners)
        for name, collection in listed.items():
            if collection.WhichOneof("kind") == "node_list" and name not in tf.compat.v1.GraphKeys.__dict__.values():
                names = {element.name for element in graph.get_collection(name)}
                assert names == {"/".join(filter(None, [s, n])) for s in scopes for n in collection.node_list.value}
        coordinator = tf.train.Coordinator()
        threads = tf.compat.v1.train.start_queue_runners(session, coordinator)
        for scope in scopes:
            for name, expected in one.oracle["outputs"].items():
                found = session.run("/".join(filter(None, [scope, name])))
                assert found.shape == expected.shape
        coordinator.request_stop()
        session.close()
        coordinator.join(threads, stop_grace_period_secs=5, ignore_live_threads=True)


def test_a_collection_of_nodes() -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [], name="x")
        graph.add_to_collection("inputs", x)
        graph.add_to_collection("sizes", 3)
        graph.add_to_collection("words", "oak")
        meta = tf.compat.v1.train.export_meta_graph()
    with graph_and_session() as (_, live, _):
        gr.restore_graph(meta, import_scope="again")
        assert [tensor.name for tensor in live.get_collection("inputs")] == ["again/x:0"]
        assert live.get_collection("sizes") == [3] and live.get_collection("words") == [b"oak"]


def test_partitioned_variables_know_their_slices() -> None:
    one = case("partitioned/tf1.4.1-v2")
    with graph_and_session() as (tf, _, _):
        gr.restore_graph(str(one.graph_pb))
        found = {v.name: v._get_save_slice_info() for v in tf.compat.v1.global_variables()}
    for name, facts in one.facts["variables"].items():
        if facts["slice"] is not None:
            assert found[name].full_name == facts["slice"]["full_name"]
            assert found[name].full_shape == facts["slice"]["full_shape"]
            assert found[name].var_offset == facts["slice"]["var_offset"]


@pytest.mark.parametrize("identity", ["linear/tf0.12.1-v1", "resource/tf1.15.5-v2", "mlp/tf1.4.1-v2"])
def test_what_a_variable_can_do(identity: str) -> None:
    one = case(identity)
    with graph_and_session() as (tf, graph, session):
        _, saver = gr.restore_graph(one.graph_pb, one.prefix)
        shaped = {name: v for name, v in saver.variables.items() if v.dtype.base_dtype == tf.float32 and v.shape.rank}
        for name, variable in shaped.items():
            value = one.oracle["variables"][f"{name}:0"]
            assert variable.graph is graph and variable.op.name == name
            for read in (variable, variable.value(), variable.read_value(), variable.initialized_value()):
                assert_same(session.run(read), value, name)
            assert_same(session.run(variable[:1] + variable[-1]), value[:1] + value[-1], name)
            variable.load(value * 2, session)
            assert_same(variable.eval(), value * 2, name)
            session.run(variable.assign_sub(value))
            session.run(tf.compat.v1.scatter_update(variable, [0], value[:1] * 0))
            assert_same(variable.eval(), np.concatenate([value[:1] * 0, value[1:]]), name)
            session.run(variable.initializer)
            session.run(variable.assign(value))
            assert_same(variable.eval(), value, name)
        assert shaped


def test_savers_of_the_users_own(tmp_path: Path) -> None:
    """Under other names, and from the moving averages, by TensorFlow's own means."""
    one = case("mlp/tf1.15.5-v2")
    with graph_and_session() as (tf, _, session):
        _, saver = gr.restore_graph(one.graph_pb, one.prefix)
        weights = saver.variables["hidden/weights"]
        other = tf.compat.v1.train.Saver({"old/name": weights})
        path = other.save(session, str(tmp_path / "one"))
        assert list(gr.load_checkpoint(path)) == ["old/name"]
        chosen = {f"{v.op.name}/ExponentialMovingAverage": v for v in tf.compat.v1.trainable_variables()}
        tf.compat.v1.train.Saver(chosen).restore(session, one.prefix)
        key = "hidden/weights/ExponentialMovingAverage"
        assert_same(weights.eval(), one.oracle["checkpoint"][""][key], key)
        saver.restore(session, one.prefix)
        assert_same(weights.eval(), one.oracle["variables"]["hidden/weights:0"], "hidden/weights")


def test_max_to_keep(tmp_path: Path) -> None:
    one = case("linear/tf1.15.5-v2")
    with graph_and_session() as (_, _, session):
        _, saver = gr.restore_graph(one.meta, one.prefix)
        for step in range(8):
            saver.save(session, str(tmp_path / "model.ckpt"), global_step=step)
    assert len(list(tmp_path.glob("*.index"))) == gr.load(one.meta).saver_def.max_to_keep == 5
    assert gr.load_checkpoint(tmp_path).prefix.endswith("model.ckpt-7")


@pytest.mark.parametrize("scope", ["", "copy"])
def test_a_partitioned_variable_as_a_whole(scope: str) -> None:
    one = case("partitioned/tf1.4.1-v2")
    with graph_and_session() as (tf, _, session):
        _, saver = gr.restore_graph(str(one.graph_pb), one.prefix, import_scope=scope)
        wholes = {name: found for name, found in saver.variables.items() if not isinstance(found, gr.RestoredVariable)}
        slices = {facts["slice"]["full_name"] for facts in one.facts["variables"].values() if facts["slice"]}
        assert set(wholes) == {f"{scope}/{name}".lstrip("/") for name in slices} != set()
        for name, whole in wholes.items():
            key = name.removeprefix(f"{scope}/")
            assert_same(session.run(tf.convert_to_tensor(whole)), one.oracle["checkpoint"][""][key], key)
        table = next(found for name, found in wholes.items() if name.endswith("embedding/table"))
        rows = tf.compat.v1.nn.embedding_lookup(table, [0, 9], partition_strategy="div")
        assert_same(session.run(rows), one.oracle["checkpoint"][""]["embedding/table"][[0, 9]], "rows")


def test_assets_that_moved(tmp_path: Path) -> None:
    one = case("vocabulary/tf1.15.5-v2")
    graph_def, elsewhere = one.graph_pb.read_bytes(), tmp_path / "elsewhere"
    for folder in (elsewhere, tmp_path / "checkpoint"):
        folder.mkdir()
    for file in one.directory.glob("model.ckpt*"):
        shutil.copy(file, tmp_path / "checkpoint")
    shutil.copy(one.directory / "vocabulary.txt", elsewhere)
    prefix = str(tmp_path / "checkpoint" / "model.ckpt")
    with graph_and_session() as (_, _, session):
        elements, _ = gr.restore_graph(
            graph_def, prefix, return_elements=["y:0"], asset_dir=elsewhere, import_scope="found"
        )
        assert_same(session.run(elements[0], under("found", one)), one.oracle["outputs"]["y:0"], "y")
    with graph_and_session(), pytest.warns(gr.GraphRestoreWarning, match=r"no value yet: .*vocabulary\.txt"):
        gr.restore_graph(graph_def, prefix)


@pytest.mark.parametrize("identity", [one.id for one in cases("saved_model_assets")])
def test_a_saved_model_with_its_vocabulary(identity: str, tmp_path: Path) -> None:
    one = case(identity)
    shutil.copytree(one.directory / "saved_model", tmp_path / "moved")
    with graph_and_session() as (_, _, session), warnings.catch_warnings():
        warnings.simplefilter("error", gr.GraphRestoreWarning)
        path = str(tmp_path / "moved")
        elements, _ = gr.restore_graph(path, os.path.join(path, "variables", "variables"), return_elements=["y:0"])
        assert_same(session.run(elements[0], one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")


def test_colocation_with_a_node_that_is_gone() -> None:
    with graph_and_session() as (tf, graph, session):
        tf.constant(3.0, name="three")
        graph_def = graph.as_graph_def()
    graph_def.node[0].attr["_class"].list.s.extend([b"loc:@gone", b"loc:@three", b"other"])
    with graph_and_session() as (tf, graph, session):
        gr.restore_graph(graph_def)
        assert graph.get_operation_by_name("three").get_attr("_class") == [b"loc:@three", b"other"]
        assert session.run("three:0") == 3.0


@pytest.mark.parametrize("clear", [True, False])
def test_devices(clear: bool) -> None:
    one = case("gpu_devices/tf1.15.5-v2")
    with graph_and_session() as (_, graph, _):
        gr.restore_graph(str(one.graph_pb), clear_devices=clear)
        assert any("GPU" in operation.device.upper() for operation in graph.get_operations()) != clear


def test_handles_without_a_shared_name_are_different_variables() -> None:
    with graph_and_session() as (tf, graph, _):
        for name in ("a", "b"):
            handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], name=name)
            tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32, name=f"{name}_read")
        graph_def = graph.as_graph_def()
    with graph_and_session() as (_, _, session):
        gr.restore_graph(graph_def, {"a": np.float32(1), "b": np.float32(2)})
        assert session.run(["a_read:0", "b_read:0"]) == [1.0, 2.0]


def test_nodes_are_built_outside_the_callers_control_dependencies() -> None:
    one = case("linear/tf1.15.5-v2")
    with graph_and_session() as (tf, _, session):
        never = tf.compat.v1.placeholder(tf.float32, [], name="never_fed")
        with tf.control_dependencies([never]):
            (y,), saver = gr.restore_graph(str(one.graph_pb), one.prefix, return_elements=["y:0"])
        assert_same(session.run(y, one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")
        saver.restore(session, one.prefix)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph, tf.compat.v1.Session():
        with pytest.raises(gr.RestoreError, match="this is the checkpoint of another model: 0 restored, 2 missing"):
            gr.restore_graph(str(case("linear/tf1.4.1-v2").graph_pb), str(case("mlp/tf1.4.1-v2").prefix))
        assert not graph.get_operations()


def test_one_name_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match=r"return_elements is a list of names; write \['y:0'\]"):
        gr.restore_graph(case("linear/tf1.4.1-v2").graph_pb, return_elements="y:0")


@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_arrays_of_the_oldest_releases_have_gradients_in_graph_mode() -> None:
    import tensorflow as tf

    one = case("lstm_dynamic/tf0.12.1-v1")
    name, *_ = [name for name, value in one.oracle["outputs"].items() if value.dtype.kind == "f"]
    module = gr.as_module(gr.restore(gr.load(one.graph_pb), one.prefix), [name], list(one.oracle["feeds"]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(module(*one.oracle["feeds"].values())[name]))
    expected = tape.gradient(loss, module.by_name)
    tf.compat.v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            (y,), saver = gr.restore_graph(one.graph_pb, one.prefix, return_elements=[name])
            variables = {key: variable for key, variable in saver.variables.items() if expected.get(key) is not None}
            found = session.run(
                tf.gradients(tf.reduce_sum(tf.square(y)), list(variables.values())), one.oracle["feeds"]
            )
    finally:
        tf.compat.v1.enable_control_flow_v2()
    assert variables
    for key, gradient in zip(variables, found):
        np.testing.assert_allclose(gradient, expected[key], rtol=1e-4, atol=1e-5)
