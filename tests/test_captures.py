"""Variables that function bodies read: SavedModels of today's TensorFlow, frozen, against its own run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import case

import graph_restore as gr

pytestmark = pytest.mark.tensorflow
Arrays = dict[str, Any]
RANDOM = np.random.RandomState(7)


def _control_flow(folder: str) -> Arrays:
    import tensorflow as tf

    class Net(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.table = tf.Variable(RANDOM.randn(5, 3).astype("f"), name="table")
            self.weights = tf.Variable(RANDOM.randn(3, 3).astype("f"))
            self.bias = tf.Variable(RANDOM.randn(3).astype("f"))  # two variables named "Variable"

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.bool)])
        def call(self, ids: Any, swap: Any) -> Any:
            rows = tf.nn.embedding_lookup(self.table, ids)
            rows = tf.cond(swap, lambda: tf.matmul(rows, self.weights), lambda: rows + self.bias)
            step = lambda i, h: (i + 1, tf.tanh(tf.matmul(h, self.weights) + self.bias))  # noqa: E731
            _, rows = tf.while_loop(lambda i, h: i < 3, step, [tf.constant(0), rows])
            rows = tf.switch_case(ids[0], [lambda: rows, lambda: rows * self.bias])
            return {"rows": rows, "size": tf.shape(self.table)}

    net = Net()
    tf.saved_model.save(net, folder, signatures=net.call)
    return {"ids": np.array([1, 4], np.int32), "swap": np.array(True)}


def _keras_lstm(folder: str) -> Arrays:
    import keras

    layers = [keras.layers.Input([7, 3], name="x"), keras.layers.LSTM(5, return_sequences=True), keras.layers.GRU(4)]
    model = keras.Sequential([*layers, keras.layers.BatchNormalization(), keras.layers.Dense(2)])
    model.export(folder, verbose=False)
    return {model.inputs[0].name: RANDOM.randn(4, 7, 3).astype("f")}


def _every_read(folder: str) -> Arrays:
    import tensorflow as tf

    class Net(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.pairs = tf.Variable(RANDOM.randn(2, 4, 3).astype("f"))

        @tf.function(input_signature=[tf.TensorSpec([], tf.bool)])
        def call(self, first: Any) -> Any:
            handle, raw = self.pairs.handle, tf.raw_ops

            def branch(ids: Any) -> Any:
                def reads() -> Any:
                    return (
                        raw.ResourceGather(resource=handle, indices=ids, dtype=tf.float32, batch_dims=1),
                        raw.ResourceGather(resource=handle, indices=ids[0], dtype=tf.float32),
                        raw.ResourceGatherNd(resource=handle, indices=ids, dtype=tf.float32),
                        raw.VariableShape(input=handle),
                        raw.VarIsInitializedOp(resource=handle),
                    )

                return reads

            one, other = tf.constant([[1, 1], [0, 1]]), tf.constant([[0, 0], [1, 0]])
            nested = tf.cond(first, branch(one), lambda: tf.cond(first, branch(one), branch(other)))
            return {f"y{n}": value for n, value in enumerate(nested)}

    net = Net()
    tf.saved_model.save(net, folder, signatures=net.call)
    return {"first": np.array(False)}


@pytest.mark.parametrize("write", [_control_flow, _every_read, _keras_lstm])
def test_frozen_saved_model_computes_the_same(write: Callable[[str], Arrays], tmp_path: Path) -> None:
    import tensorflow as tf

    feeds = write(str(tmp_path))
    signature = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    expected = {key: value.numpy() for key, value in signature(**{k: tf.constant(v) for k, v in feeds.items()}).items()}
    frozen = gr.freeze(gr.restore(gr.load(tmp_path)))
    names = frozen.signatures["serving_default"]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        fetches = {key: info.name for key, info in names.outputs.items()}
        found = session.run(fetches, {names.inputs[key].name: value for key, value in feeds.items()})
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("positive", [True, False])
def test_gradients_make_functions_return_handles(positive: bool, tmp_path: Path) -> None:
    """The forward functions and loops return what the backward ones need: the handles of variables among it."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        tf.enable_control_flow_v2()
        try:
            x = tf.placeholder(tf.float32, [2, 3], name="x")
            table = tf.get_variable("table", initializer=RANDOM.randn(5, 3).astype("f"), use_resource=True)
            scale = tf.get_variable("scale", initializer=RANDOM.randn(3).astype("f"), use_resource=True)

            @tf.function
            def inner(rows: Any) -> Any:
                return tf.cond(tf.reduce_sum(rows) > 0, lambda: rows * scale, lambda: rows - scale)

            @tf.function
            def outer(rows: Any) -> Any:
                turn = lambda i, h: (i + 1, inner(h) + tf.nn.embedding_lookup(table, [i, i + 1]))  # noqa: E731
                return tf.while_loop(lambda i, h: i < 3, turn, [0, rows])[1]

            y = tf.cond(tf.reduce_sum(x) > 0, lambda: outer(x), lambda: inner(x))
            slopes = tf.gradients(tf.reduce_sum(y * y), [x, scale])
            fetches = [tf.identity(one, name=f"y_{n}").name for n, one in enumerate([y, *slopes])]
        finally:
            tf.disable_control_flow_v2()
        feeds = {"x:0": np.arange(6, dtype="f").reshape(2, 3) * (1 if positive else -1)}
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
            expected = session.run(fetches, feeds)
    frozen = gr.freeze(gr.restore(gr.load(graph.as_graph_def()), tmp_path / "model.ckpt"), fetches, list(feeds))
    assert not {node.op for node in frozen.graph.graph_def.node} & {"VarHandleOp", "ReadVariableOp"}
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        for found, value in zip(session.run(fetches, feeds), expected):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def _choice(second: str) -> Any:
    """If(p, the handle it takes, what `second` gives), read afterwards."""
    import tensorflow.compat.v1 as tf
    from google.protobuf import text_format

    arguments = 'input_arg { name: "h" type: DT_RESOURCE } output_arg { name: "r" type: DT_RESOURCE }'
    handle = 'attr { key: "dtype" value { type: DT_FLOAT } } attr { key: "shape" value { shape { } } }'
    branch = 'attr { key: "%s" value { func { name: "%s" } } }'
    types = 'attr { key: "%s" value { list { type: DT_RESOURCE } } }'
    return text_format.Parse(
        f"""node {{ name: "p" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_BOOL }} }} }}
        node {{ name: "w" op: "VarHandleOp" {handle} }}
        node {{ name: "choice" op: "If" input: "p" input: "w" attr {{ key: "Tcond" value {{ type: DT_BOOL }} }}
          {types % "Tin"} {types % "Tout"} {branch % ("then_branch", "one")} {branch % ("else_branch", "other")} }}
        node {{ name: "y" op: "ReadVariableOp" input: "choice" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }} }}
        library {{ function {{ signature {{ name: "one" {arguments} }} ret {{ key: "r" value: "h" }} }}
          function {{ signature {{ name: "other" {arguments} }} {second} }} }} versions {{ producer: 1087 }}""",
        tf.GraphDef(),
    )


def test_branches_that_return_a_handle() -> None:
    import tensorflow.compat.v1 as tf

    same = 'node_def { name: "i" op: "Identity" input: "h" attr { key: "T" value { type: DT_RESOURCE } } }'
    model = gr.load(_choice(same + ' ret { key: "r" value: "i:output:0" }'))
    frozen = gr.freeze(gr.restore(model, {"w": np.float32(4)}), "y", "p")
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        assert [session.run("y:0", {"p:0": p}) for p in (True, False)] == [4, 4]
    table = 'node_def { name: "t" op: "HashTableV2" attr { key: "key_dtype" value { type: DT_STRING } } '
    table += 'attr { key: "value_dtype" value { type: DT_INT64 } } } ret { key: "r" value: "t:table_handle:0" }'
    model = gr.restore(gr.load(_choice(table)), {"w": np.float32(4)})
    with pytest.raises(gr.FreezeError, match="choice .If. gives a variable's handle in one branch"):
        gr.freeze(model, "y", "p")


def _counting(folder: str, inside: str) -> Any:
    """A module that counts its calls in a function within a function; `inside`: where the count is raised."""
    import tensorflow as tf

    class Counter(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.count = tf.Variable(1.0, name="count")
            self.weights = tf.Variable(RANDOM.randn(3).astype("f"))

        @tf.function
        def scaled(self, x: Any) -> Any:
            if inside == "cond":
                tf.cond(x[0] > 0, lambda: self.count.assign_add(1.0).read_value(), self.count.read_value)
            elif inside == "loop":
                for _ in tf.range(3):
                    self.count.assign_add(1.0)
            else:
                self.count.assign_add(x[0])
            return x * self.weights

        @tf.function(input_signature=[tf.TensorSpec([3], tf.float32, name="x")])
        def call(self, x: Any) -> Any:
            before = self.count * 10.0
            return {"y": self.scaled(x), "before": before, "after": self.count + 0.0}

    counter = Counter()
    tf.saved_model.save(counter, folder, signatures=counter.call)
    signature = tf.saved_model.load(folder).signatures["serving_default"]
    return {key: value.numpy() for key, value in signature(tf.constant([2.0, 3.0, 4.0])).items()}


@pytest.mark.parametrize(("inside", "after"), [("function", 3), ("cond", 2), ("loop", 4)])
def test_a_function_that_updates_its_variable(inside: str, after: float, tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    expected = _counting(str(tmp_path), inside)
    assert expected["before"] == 10 and expected["after"] == after
    frozen = gr.freeze(gr.restore(gr.load(tmp_path)))
    names = frozen.signatures["serving_default"].outputs
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        feeds = {frozen.feeds[0]: [2.0, 3.0, 4.0]}
        for _ in range(2):
            found = session.run({key: info.name for key, info in names.items()}, feeds)
            assert {key: value.tolist() for key, value in found.items()} == {k: v.tolist() for k, v in expected.items()}


def test_a_function_that_calls_itself_is_refused_by_name() -> None:
    import tensorflow.compat.v1 as tf

    text = """
      node { name: "w" op: "VarHandleOp" attr { key: "dtype" value { type: DT_FLOAT } } attr { key: "shape" value {
        shape { } } } }
      node { name: "y" op: "endless" input: "w" }
      library { function { signature { name: "endless" input_arg { name: "h" type: DT_RESOURCE }
          output_arg { name: "r" type: DT_FLOAT } }
        node_def { name: "again" op: "endless" input: "h" } ret { key: "r" value: "again:r:0" } } }
      versions { producer: 1087 }"""
    from google.protobuf import text_format

    model = gr.load(text_format.Parse(text, tf.GraphDef()))
    with pytest.raises(gr.FreezeError, match="function endless calls itself with a variable's handle") as caught:
        gr.freeze(gr.restore(model, {"w": np.float32(1)}), "y")
    assert list(caught.value.nodes) == ["endless"]


@pytest.mark.parametrize(
    "name", ["control_flow_v2/tf1.15.5-v2", "mutable_table/tf0.12.1-v1", "mutable_table/tf1.15.5-v2"]
)
def test_corpus_models_compute_what_they_did(name: str) -> None:
    import tensorflow as tf

    one = case(name)
    restored = gr.restore(gr.load(one.graph_pb), one.prefix)
    for run in one.oracle["runs"]:
        with pytest.warns(gr.GraphRestoreWarning) if "table" in name else _quiet():
            frozen = gr.freeze(restored, list(run["outputs"]), list(run["feeds"]))
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.import_graph_def(frozen.graph.materialize(), name="")
            found = session.run(list(run["outputs"]), run["feeds"])
        for value, expected in zip(found, run["outputs"].values()):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def _quiet() -> Any:
    from contextlib import nullcontext

    return nullcontext()
