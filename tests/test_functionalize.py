"""Loops and conds of TensorFlow 1 as functional ones: results and gradients are those of TensorFlow's graph mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import case

import graph_restore as gr
from graph_restore.transforms.functionalize import functionalize

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")]

X = np.random.RandomState(0).randn(3, 4).astype("f")
OLD_CONTROL_FLOW = {"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"}
Build = Callable[[Any, Any, Any, Any], Any]  # tf.compat.v1, x [?, 4], w [4, 4], u [4] -> y


def turns(tf: Any, count: int, body: Any, start: Any) -> Any:
    return tf.while_loop(lambda i, _: i < count, lambda i, a: (i + 1, body(i, a)), [0, start])[1]


def simple(tf: Any, x: Any, w: Any, u: Any) -> Any:
    return turns(tf, 3, lambda i, a: tf.tanh(tf.matmul(a, w) + u), x)


def no_turn(tf: Any, x: Any, w: Any, u: Any) -> Any:
    return tf.matmul(turns(tf, 0, lambda i, a: tf.tanh(a + u), x), w) + u


def until_small(tf: Any, x: Any, w: Any, u: Any) -> Any:
    going_on = lambda i, a: tf.logical_and(i < 10, tf.reduce_sum(tf.abs(a)) > 0.5)  # noqa: E731
    return tf.while_loop(going_on, lambda i, a: (i + 1, 0.3 * tf.matmul(a, w) * u), [0, x])[1]


def nested(tf: Any, x: Any, w: Any, u: Any) -> Any:
    inner = lambda i, a: turns(tf, i + 1, lambda j, b: tf.tanh(tf.matmul(b, w) + u), a)  # noqa: E731
    return turns(tf, 3, lambda i, a: a + inner(i, a), x)


def cond_in_loop(tf: Any, x: Any, w: Any, u: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        return tf.cond(tf.equal(i % 2, 0), lambda: tf.tanh(tf.matmul(a, w)), lambda: tf.sigmoid(a * u))

    return turns(tf, 4, body, x)


def conds_in_cond_in_loop(tf: Any, x: Any, w: Any, u: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        inner = lambda: tf.cond(tf.equal(i, 0), lambda: tf.matmul(a, w), lambda: a * u)  # noqa: E731
        return tf.tanh(tf.cond(i < 2, inner, lambda: a))

    return turns(tf, 4, body, x)


def loop_in_cond(tf: Any, x: Any, w: Any, u: Any) -> Any:
    loop = lambda: turns(tf, 3, lambda i, a: tf.tanh(tf.matmul(a, w)), x)  # noqa: E731
    return tf.cond(tf.reduce_sum(x) > -1e9, loop, lambda: x) * u


def conds_in_cond(tf: Any, x: Any, w: Any, u: Any) -> Any:
    yes = tf.reduce_sum(x) > -1e9
    y = tf.cond(yes, lambda: tf.cond(tf.reduce_sum(x) > 1e9, lambda: tf.matmul(x, w), lambda: x * u), lambda: x)
    return tf.cond(yes, lambda: tf.matmul(y, w), lambda: y)


def two_results(tf: Any, x: Any, w: Any, u: Any) -> Any:
    a, b = tf.cond(tf.reduce_sum(x) > 1e9, lambda: (x, tf.matmul(x, w)), lambda: (tf.matmul(x, w), x * u))
    return a + 2 * b


def array_filled(tf: Any, x: Any, w: Any, u: Any) -> Any:
    array = tf.TensorArray(tf.float32, 0, dynamic_size=True)
    return turns(tf, 4, lambda i, t: t.write(i, tf.matmul(x, w) * tf.cast(i, tf.float32) * u), array).stack()


def array_read(tf: Any, x: Any, w: Any, u: Any) -> Any:
    rows = tf.TensorArray(tf.float32, tf.shape(x)[0], clear_after_read=False).unstack(tf.matmul(x, w))
    return turns(tf, tf.shape(x)[0] - 1, lambda i, a: a + rows.read(i) * rows.read(i + 1) * u, tf.zeros([4]))


def array_concatenated(tf: Any, x: Any, w: Any, u: Any) -> Any:
    array = tf.TensorArray(tf.float32, 3, infer_shape=False)
    return turns(tf, 3, lambda i, t: t.write(i, (tf.matmul(x, w) * u)[: i + 1]), array).concat()


def array_split(tf: Any, x: Any, w: Any, u: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2, infer_shape=False).split(tf.matmul(x, w) * u, [1, 2])
    return tf.reduce_sum(array.read(0), 0) * tf.reduce_sum(array.read(1), 0)


def array_in_cond(tf: Any, x: Any, w: Any, u: Any) -> Any:
    rows = tf.TensorArray(tf.float32, 3).unstack(tf.matmul(x, w))
    body = lambda i, a: a + tf.cond(i < 2, lambda: rows.read(i), lambda: tf.zeros([4])) * u  # noqa: E731
    return turns(tf, 4, body, tf.zeros([4]))


def map_and_scan(tf: Any, x: Any, w: Any, u: Any) -> Any:
    return tf.scan(lambda a, row: tf.tanh(a * u + row), tf.map_fn(lambda row: row * u, tf.matmul(x, w)))


def array_gathered_twice(tf: Any, x: Any, w: Any, u: Any) -> Any:
    return tf.TensorArray(tf.float32, 3, clear_after_read=False).unstack(tf.matmul(x, w) * u).gather([1, 0, 1])


def function_called(tf: Any, x: Any, w: Any, u: Any) -> Any:
    turn = defined(tf, 3, func_name="turn")(lambda a, w, u: tf.tanh(tf.matmul(a, w)) * u + 1.0)
    return tf.cond(tf.reduce_sum(x) > -1e9, lambda: turns(tf, 3, lambda i, a: turn(a, w, u), turn(x, w, u)), lambda: x)


def defined(tf: Any, inputs: int, **options: Any) -> Any:
    from tensorflow.python.framework import function

    return function.Defun(*[tf.float32] * inputs, **options)


def growing(tf: Any, x: Any, w: Any, u: Any) -> Any:
    shapes = [tf.TensorShape([]), tf.TensorShape([None, 4])]
    body = lambda i, a: (i + 1, tf.concat([a, tf.matmul(x, w) * u], 0))  # noqa: E731
    return tf.while_loop(lambda i, a: i < 2, body, [tf.constant(0), x], shape_invariants=shapes)[1]


BUILDS: list[Build] = [
    simple, no_turn, until_small, nested, cond_in_loop, conds_in_cond_in_loop, loop_in_cond, conds_in_cond, two_results,
    array_filled, array_read, array_concatenated, array_split, array_in_cond, map_and_scan, growing,
    array_gathered_twice, function_called,
]  # fmt: skip


@pytest.fixture(autouse=True)
def old_control_flow() -> Iterator[None]:
    import tensorflow as tf

    tf.compat.v1.disable_control_flow_v2()
    yield
    tf.compat.v1.enable_control_flow_v2()


def built(build: Build, kind: str) -> tuple[gr.Model, dict[str, Any]]:
    """(a model with values, what TensorFlow's graph mode gives for y and its gradients)."""
    import tensorflow as tf

    random = np.random.RandomState(1)
    values = {"w": random.randn(4, 4).astype("f") / 2, "u": random.randn(4).astype("f")}
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        made = {k: tf.compat.v1.Variable(v, name=k, use_resource=kind == "resource") for k, v in values.items()}
        y = tf.identity(build(_Names(tf), x, made["w"], made["u"]), name="y")
        model = gr.restore(gr.load(graph.as_graph_def()), values)
        gradients = tf.gradients(tf.reduce_sum(tf.square(y)), list(made.values()))
        session.run([variable.initializer for variable in made.values()])
        assert all(gradient is not None for gradient in gradients)
        expected = session.run({"y": y, **dict(zip(made, map(tf.convert_to_tensor, gradients)))}, {x: X})
    return model, expected


class _Names:
    """tf.compat.v1, with what only tf has."""

    def __init__(self, tf: Any) -> None:
        self._tf = tf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tf.compat.v1, name)


@pytest.mark.parametrize("kind", ["ref", "resource"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_results_and_gradients_are_those_of_graph_mode(build: Build, kind: str) -> None:
    import tensorflow as tf

    model, expected = built(build, kind)
    module = gr.as_module(model, ["y:0"], ["x:0"])
    with tf.GradientTape() as tape:
        y = module(X)["y:0"]
        loss = tf.reduce_sum(tf.square(y))
    np.testing.assert_allclose(y, expected["y"], rtol=1e-4, atol=1e-5)
    gradients = tape.gradient(loss, module.by_name)
    for name in ("w", "u"):
        assert gradients[name] is not None, name
        np.testing.assert_allclose(tf.convert_to_tensor(gradients[name]), expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_nothing_of_the_old_control_flow_is_left(build: Build) -> None:
    model, _ = built(build, "ref")
    graph = functionalize(gr.upgrade_variables(model, ["y"]), ["y"]).graph
    bodies = [node for function in graph.graph_def.library.function for node in function.node_def]
    assert not {node.op for node in (*graph.graph_def.node, *bodies)} & OLD_CONTROL_FLOW


@pytest.mark.parametrize("version", ["tf0.12.1-v1", "tf1.4.1-v2", "tf1.15.5-v2"])
def test_a_dynamic_rnn_of_old_releases_has_gradients(version: str) -> None:
    import tensorflow as tf

    one = case(f"lstm_dynamic/{version}")
    module = gr.as_module(
        gr.restore(gr.load(one.graph_pb), one.prefix), list(one.oracle["outputs"]), list(one.oracle["feeds"])
    )
    with tf.GradientTape() as tape:
        found = module(*one.oracle["feeds"].values())
        loss = tf.add_n([tf.reduce_sum(tf.square(found[name])) for name in one.oracle["outputs"]])
    gradients = tape.gradient(loss, module.trainable_variables)
    assert len(gradients) > 1 and all(gradient is not None for gradient in gradients)
    weights, gradient, step = module.trainable_variables[0], gradients[0], 1e-2
    weights.assign_add(step * gradient / tf.norm(gradient))
    found = module(*one.oracle["feeds"].values())
    grown = tf.add_n([tf.reduce_sum(tf.square(found[name])) for name in one.oracle["outputs"]]) - loss
    np.testing.assert_allclose(grown, step * tf.norm(gradient), rtol=0.1)


def test_a_loop_whose_gradient_is_in_the_graph_runs_and_says_that_it_has_no_other(tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        v1 = tf.compat.v1
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        w = v1.Variable(np.eye(4, dtype="f"), name="w", use_resource=False)
        y = turns(_Names(tf), 3, lambda i, a: tf.tanh(tf.matmul(a, w)), x)
        tf.identity(tf.gradients(y, x)[0], name="slope")
        tf.identity(y, name="y")
    model = gr.restore(gr.load(graph.as_graph_def()), {"w": np.eye(4, dtype="f")})
    module = gr.as_module(model, ["slope", "y"], ["x"])
    assert any("is not turned into a While" in note for note in module.notes)
    found = module(X)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(module(X)["y"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="no gradient of this model: loop .*while_context is"):
        tape.gradient(loss, module.trainable_variables)
    tf.saved_model.save(module, str(tmp_path / "saved"))  # which builds that gradient
    np.testing.assert_array_equal(tf.saved_model.load(str(tmp_path / "saved"))(X)["y"], found["y"])
    np.testing.assert_allclose(found["y"], np.tanh(np.tanh(np.tanh(X))), rtol=1e-5)


def test_a_loop_built_without_gradient_has_none_if_the_metagraph_says_so() -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        w = tf.compat.v1.Variable(np.eye(4, dtype="f"), name="w", use_resource=False)
        body = lambda i, a: (i + 1, tf.tanh(tf.matmul(a, w)))  # noqa: E731
        y = tf.identity(tf.compat.v1.while_loop(lambda i, _: i < 2, body, [0, x], back_prop=False)[1], name="y")
        assert tf.gradients(y, w) == [None]
        meta_graph = tf.compat.v1.train.export_meta_graph(graph=graph)
    module = gr.as_module(gr.restore(gr.load(meta_graph), {"w": np.eye(4, dtype="f")}), ["y"], ["x"])
    with tf.GradientTape() as tape:
        y = module(X)["y"]
    np.testing.assert_allclose(y, np.tanh(np.tanh(X)), rtol=1e-5)
    assert tape.gradient(y, module.by_name["w"]) is None


def test_a_cond_and_its_gradient_with_a_loop_between_them_stay_apart() -> None:
    import tensorflow as tf

    def build(v1: Any, x: Any, w: Any, u: Any) -> Any:
        yes = tf.reduce_sum(x) > -1e9
        y = turns(v1, 3, lambda i, a: tf.tanh(tf.matmul(a, w)), v1.cond(yes, lambda: x * u, lambda: x))
        return tf.gradients(tf.reduce_sum(y), u)[0]

    values = {"w": np.eye(4, dtype="f"), "u": np.arange(4, dtype="f")}
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        made = [tf.compat.v1.Variable(value, name=name, use_resource=False) for name, value in values.items()]
        slope = tf.identity(build(_Names(tf), x, *made), name="slope")
        session.run([variable.initializer for variable in made])
        expected = session.run(slope, {x: X})
    module = gr.as_module(gr.restore(gr.load(graph.as_graph_def()), values), ["slope"], ["x"])
    np.testing.assert_allclose(module(X)["slope"], expected, rtol=1e-5)


def test_a_function_with_a_gradient_of_its_own_keeps_it_or_says_that_it_is_lost() -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        w = tf.compat.v1.Variable(np.ones(4, "f"), name="w", use_resource=False)
        seven = defined(tf, 2, func_name="seven")(lambda a, d: d * 7.0)
        y = tf.reshape(defined(tf, 1, grad_func=seven, func_name="square")(lambda a: a * a)(x * w), [-1, 4], name="y")
        tf.identity(tf.gradients(tf.reduce_sum(y), w)[0], name="slope")
    model = gr.restore(gr.load(graph.as_graph_def()), {"w": np.ones(4, "f")})
    np.testing.assert_allclose(gr.as_module(model, ["slope"], ["x"])(X)["slope"], 7 * X.sum(0), rtol=1e-5)
    module = gr.as_module(model, ["y"], ["x"])
    with tf.GradientTape() as tape:
        y = module(X)["y"]
    np.testing.assert_allclose(y, X * X, rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="has a gradient of its own"):
        tape.gradient(y, module.by_name["w"])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        (x, y), saver = gr.restore_graph(model, return_elements=["x:0", "y:0"])
        slope = tf.gradients(tf.reduce_sum(y), saver.variables["w"])[0]
        np.testing.assert_allclose(session.run(slope, {x: X}), 7 * X.sum(0), rtol=1e-5)


@pytest.mark.parametrize(("name", "node"), [("CustomGradient-3141592653", "y"), ("Turned", "w/read")])
def test_a_gradient_that_is_in_no_graph_is_an_error_and_never_another(name: str, node: str) -> None:
    import tensorflow as tf

    values = {"w": np.ones(4, "f")}
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        w = tf.compat.v1.Variable(values["w"], name="w", use_resource=False)
        tf.identity(x * w, name="y")
    definition = graph.as_graph_def()
    definition.versions.producer = 24
    next(item for item in definition.node if item.name == node).attr["_gradient_op_type"].s = name.encode()
    if name != "Turned":
        tf.RegisterGradient(name)(lambda op, d: d * 100.0)  # what today's program has under that number
    module = gr.as_module(gr.restore(gr.load(definition), values), ["y"], ["x"])
    with pytest.raises(LookupError), tf.GradientTape() as tape:
        tape.gradient(module(X)["y"], module.by_name["w"])
