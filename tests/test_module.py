"""as_module and as_keras_layer: old models in TensorFlow 2: called, trained, saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases
from test_runtime import assert_same

import graph_restore as gr

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")]
RATE = 0.01


def module_of(one: Case, *more: str) -> Any:
    model = gr.restore(gr.load(one.meta or one.graph_pb), one.prefix)
    return gr.as_module(model, [*one.oracle["outputs"], *more], list(one.oracle["feeds"]))


@pytest.fixture
def old_control_flow() -> Iterator[None]:
    """What gives gradients to the loops of an imported MetaGraph."""
    import tensorflow as tf

    tf.compat.v1.disable_control_flow_v2()
    yield
    tf.compat.v1.enable_control_flow_v2()


@pytest.mark.parametrize("one", cases(), ids=lambda one: one.id)
def test_every_model_gives_what_it_gave(one: Case) -> None:
    found = module_of(one)(*one.oracle["feeds"].values())
    assert list(found) == list(one.oracle["outputs"])
    for name, value in one.oracle["outputs"].items():
        assert_same(found[name].numpy(), value, name)


@pytest.mark.parametrize(
    "identity",
    ["mlp/tf0.12.1-v1", "partitioned/tf1.4.1-v2", "resource/tf1.4.1-v2", "cond/tf0.12.1-v1",
     "while_loop/tf1.15.5-v2", "lstm_dynamic/tf1.15.5-v2", "lstm_dynamic/tf1.4.1-v2", "lstm_static/tf1.15.5-v2"],
)  # fmt: skip
def test_gradients_are_those_of_graph_mode(identity: str, old_control_flow: None) -> None:
    import tensorflow as tf

    one = case(identity)
    name, value = next((n, v) for n, v in one.oracle["outputs"].items() if v.dtype.kind == "f" and v.size > 1)
    module = module_of(one)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(module(*one.oracle["feeds"].values())[name]))
    gradients = tape.gradient(loss, module.trainable_variables)
    found = {v.name.removesuffix(":0"): g for v, g in zip(module.trainable_variables, gradients)}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(str(one.meta), clear_devices=True).restore(session, one.prefix)
        variables = {v.op.name: v for v in tf.compat.v1.trainable_variables() if v.op.name in found}
        y = tf.compat.v1.get_default_graph().get_tensor_by_name(name)
        expected = tf.gradients(tf.reduce_sum(tf.square(y)), list(variables.values()))
        there = {n: tf.convert_to_tensor(g) for n, g in zip(variables, expected) if g is not None}
        wanted = session.run(there, one.oracle["feeds"])
    assert wanted
    for variable, gradient in wanted.items():
        assert found[variable] is not None, variable
        np.testing.assert_allclose(tf.convert_to_tensor(found[variable]), gradient, rtol=1e-3, atol=1e-5)


def test_gradients_of_conds_in_a_loop_every_time_they_are_asked_for() -> None:
    """As TensorFlow 1.15 wrote them: functions say nothing of handles; a variable is read by one branch alone."""
    import tensorflow as tf

    def program(x: Any, w: Any, u: Any) -> Any:
        inner = lambda a: tf.cond(tf.reduce_sum(a) > 0, lambda: a * 0.5 + x, lambda: tf.sin(a @ u))  # noqa: E731
        body = lambda i, a: (i + 1, tf.cond(tf.equal(i % 2, 0), lambda: tf.tanh(a @ w), lambda: inner(a)))  # noqa: E731
        return tf.while_loop(lambda i, _: i < 4, body, [0, x])[1]

    values = {name: np.random.RandomState(seed).randn(3, 3).astype("f") for seed, name in enumerate("wu")}
    rows = np.random.RandomState(9).randn(2, 3).astype("f")
    with tf.Graph().as_default() as live:
        x = tf.compat.v1.placeholder(tf.float32, [2, 3], name="x")
        w, u = (tf.compat.v1.get_variable(name, [3, 3], use_resource=True) for name in "wu")
        tf.identity(program(x, w, u), name="y")
        graph = live.as_graph_def()
    for function in graph.library.function:
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            argument.ClearField("handle_data")
    module = gr.as_module(gr.restore(gr.load(graph), values), ["y"], ["x"])
    variables = [module.by_name[name] for name in "wu"]

    with tf.GradientTape() as tape:
        constants = [tf.constant(values[name]) for name in "wu"]
        tape.watch(constants)
        loss = tf.reduce_sum(program(tf.constant(rows), *constants))  # eagerly, turn by turn
    expected = tape.gradient(loss, constants)
    for run in (module, tf.function(lambda *tensors: module(*tensors)), module):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(run(tf.constant(rows))["y"])
        for found, wanted in zip(tape.gradient(loss, variables), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    with tf.Graph().as_default():
        (y,), saver = gr.restore_graph(graph, return_elements=["y:0"])
        live_variables = {v.op.name: v for v in tf.compat.v1.trainable_variables()}
        gradients = tf.gradients(tf.reduce_sum(y), [live_variables[name] for name in "wu"])
        with tf.compat.v1.Session() as session:
            saver.restore(session, values)  # after the gradients, which change the loop
            for found, wanted in zip(session.run(gradients, {"x:0": rows}), expected, strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def step_in_graph_mode(one: Case, name: str) -> dict[str, Any]:
    """The trained variables after one Adam step of TensorFlow's own on the imported MetaGraph."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(str(one.meta), clear_devices=True)
        y = tf.compat.v1.get_default_graph().get_tensor_by_name(name)
        before = set(tf.compat.v1.global_variables())
        train = tf.compat.v1.train.AdamOptimizer(RATE, name="Fresh").minimize(tf.reduce_sum(tf.square(y)))
        added = [v for v in tf.compat.v1.global_variables() if v not in before]
        session.run(tf.compat.v1.variables_initializer(added))
        saver.restore(session, one.prefix)
        session.run(train, one.oracle["feeds"])
        return {v.op.name: session.run(v) for v in tf.compat.v1.trainable_variables()}


@pytest.mark.parametrize(
    "identity", ["linear/tf0.12.1-v1", "mlp/tf0.12.1-v1", "mlp/tf1.15.5-v2", "lstm_dynamic/tf1.15.5-v2"]
)
def test_a_step_of_adam_is_that_of_graph_mode(identity: str, old_control_flow: None) -> None:
    import tensorflow as tf

    one = case(identity)
    name = next(n for n, v in one.oracle["outputs"].items() if v.dtype.kind == "f" and v.size > 1)
    expected = step_in_graph_mode(one, name)
    module, feeds = module_of(one), [tf.constant(value) for value in one.oracle["feeds"].values()]
    optimizer = tf.keras.optimizers.Adam(RATE, epsilon=1e-8)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(module(*feeds)[name]))
        trained = [v for v in module.trainable_variables if v.name.removesuffix(":0") in expected]
        gradients = tape.gradient(loss, trained)
        optimizer.apply_gradients((g, v) for g, v in zip(gradients, trained) if g is not None)

    step()
    for key, value in expected.items():
        if key in module.by_name:
            np.testing.assert_allclose(module.by_name[key], value, rtol=1e-6, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("version", ["tf0.12.1-v1", "tf1.4.1-v2", "tf1.15.5-v2"])
def test_the_train_op_in_the_graph_does_what_it_did(version: str) -> None:
    one = case(f"mlp/{version}")
    model = gr.restore(gr.load(one.graph_pb), one.prefix)
    train = "ExponentialMovingAverage"  # which runs Adam and the counter first
    rows = one.oracle["feeds"]["features:0"]
    feeds = {"features:0": rows, "labels:0": np.arange(len(rows), dtype="i") % 3}
    module = gr.as_module(model, [train], list(feeds))
    with gr.Session(model) as session:
        session.run(train, feeds)
        assert module(*feeds.values()) == {train: None}
        for name, variable in module.by_name.items():
            np.testing.assert_allclose(variable, session.run(f"{name}:0"), rtol=1e-6, atol=1e-7, err_msg=name)
            assert variable.name == f"{name}:0"


def test_what_the_module_tells() -> None:
    one = case("mlp/tf1.15.5-v2")
    module = module_of(one)
    assert module.fetches == tuple(one.oracle["outputs"]) and module.feeds == tuple(one.oracle["feeds"])
    assert {v.name for v in module.trainable_variables} <= {f"{name}:0" for name in module.by_name}
    unchosen = gr.as_module(one.meta)
    assert [list(unchosen.fetches), list(unchosen.feeds)] == [["softmax:0"], ["features:0"]]


def test_what_is_missing_is_named() -> None:
    one = case("linear/tf1.15.5-v2")
    bare = gr.load(one.graph_pb.read_bytes())
    with pytest.raises(gr.RestoreError, match="1 variable that the fetches need has no value: w") as error:
        gr.as_module(bare, ["y"], ["x"])
    assert error.value.missing == ["w"]  # that of b is a constant
    with pytest.raises(gr.UpgradeError, match="the fetches need x, which nothing feeds"):
        gr.as_module(bare, ["y"], ["w"], checkpoint=one.prefix)


@pytest.mark.parametrize(
    "identity",
    [
        "cond/tf0.12.1-v1",
        "lstm_dynamic/tf1.4.1-v2",
        "vocabulary/tf0.12.1-v1",
        "mutable_table/tf1.15.5-v2",
        "defun/tf0.12.1-v1",
    ],
)
def test_saved_and_loaded(identity: str, tmp_path: Path) -> None:
    import tensorflow as tf

    one = case(identity)
    module, feeds = module_of(one), [tf.constant(value) for value in one.oracle["feeds"].values()]
    expected = module(*feeds)
    checkpoint = tf.train.Checkpoint(module=module).save(str(tmp_path / "ckpt"))
    tf.saved_model.save(module, str(tmp_path / "saved"))
    for variable in module.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    tf.train.Checkpoint(module=module).restore(checkpoint).assert_consumed()
    again, loaded = module(*feeds), tf.saved_model.load(str(tmp_path / "saved"))(*feeds)
    for name, value in expected.items():
        np.testing.assert_array_equal(loaded[name], again[name])
        assert (again[name].numpy() != value.numpy()).sum() == 0 or "uses" in module.by_name


@pytest.mark.parametrize("identity", ["mlp/tf0.12.1-v1", "convnet/tf0.12.1-v1"])
def test_a_keras_layer_is_trained_saved_and_loaded(identity: str, tmp_path: Path) -> None:
    import keras

    one = case(identity)
    name, expected = next((n, v) for n, v in one.oracle["outputs"].items() if v.dtype.kind == "f" and v.ndim == 2)
    model = gr.restore(gr.load(one.graph_pb), one.prefix)
    feed, value = next(iter(one.oracle["feeds"].items()))
    others = {key: other for key, other in one.oracle["feeds"].items() if key != feed}
    model = gr.freeze(model, [name], [feed], constants=others, keep_variables=["*"]) if others else model
    layer = gr.as_keras_layer(model, [name], [feed], name="old")
    np.testing.assert_allclose(layer(value), expected, rtol=1e-4, atol=1e-5)
    inputs = keras.Input(value.shape[1:], dtype=value.dtype)
    whole = keras.Model(inputs, keras.layers.Activation("tanh")(layer(inputs)))
    assert len(whole.trainable_weights) == len(layer.trainable_weights) > 0
    whole.compile(keras.optimizers.Adam(0.1), "mse")
    before = [weight.numpy() for weight in layer.trainable_weights]
    whole.fit(value, np.ones_like(expected), epochs=2, verbose=0)
    assert any((old != new.numpy()).any() for old, new in zip(before, layer.trainable_weights))
    whole.save(tmp_path / "whole.keras")
    again = keras.models.load_model(tmp_path / "whole.keras")
    np.testing.assert_allclose(again(value), whole(value), rtol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_keras_layer_of_a_graph_with_a_batch_of_its_own(policy: str, tmp_path: Path) -> None:
    """keras.Input leaves the batch open, where an exported graph may not; a policy of dtypes changes no result."""
    import keras
    import tensorflow as tf

    rows, kernel = np.random.RandomState(0).randn(6, 3).astype("f"), np.random.RandomState(1).randn(9, 2).astype("f")
    with tf.Graph().as_default() as live:
        x = tf.compat.v1.placeholder(tf.float32, [6, 3], name="x")
        w = tf.compat.v1.get_variable("w", [9, 2], use_resource=False)
        tf.matmul(tf.reshape(x, [2, 9]), w, name="y")
        model = gr.restore(gr.load(live.as_graph_def()), {"w": kernel})
    keras.config.set_dtype_policy(policy)
    try:
        layer = gr.as_keras_layer(model, ["y"], ["x"])
        inputs = keras.Input([3])
        whole = keras.Model(inputs, layer(inputs))
        found = whole(rows)
    finally:
        keras.config.set_dtype_policy("float32")
    assert found.dtype == tf.float32 and found.shape == (2, 2)
    np.testing.assert_allclose(found, rows.reshape(2, 9) @ kernel, rtol=1e-5, atol=1e-6)
    whole.save(tmp_path / "whole.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "whole.keras")(rows), found)
