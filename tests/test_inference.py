"""inference=True: training forms of batch norm and dropout, against the model's own inference form in TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr

pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
ROWS = np.random.RandomState(0).normal(size=[5, 2, 2, 3]).astype(np.float32)


def _run(graph_def: Any, fetches: list[str], feeds: dict[str, Any]) -> list[Any]:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        tf.import_graph_def(tf.GraphDef.FromString(graph_def.SerializeToString()), name="")
        with tf.Session(graph=graph) as session:
            return list(session.run(fetches, feeds))


@pytest.mark.parametrize("one", cases("training_forms"), ids=lambda one: one.id)
def test_what_is_left_of_training_forms(one: Case) -> None:
    model = gr.restore(gr.load(one.graph_pb), one.prefix)
    frozen = gr.freeze(model, "trained", "images", inference=True)
    ops = {node.op for node in frozen.graph.nodes.values()}
    assert not ops & {"RandomUniform", "Floor", "GreaterEqual", "AssignSub", "SquaredDifference", "Mean"}
    fused = [node for node in frozen.graph.nodes.values() if node.op.startswith("FusedBatchNorm")]
    assert not any(node.attr["is_training"].b for node in fused)
    assert any("batch norms normalise by their moving averages" in note for note in frozen.notes)
    assert any("2 dropouts are taken out" in note for note in frozen.notes)


@pytest.mark.tensorflow
@pytest.mark.parametrize("one", cases("training_forms"), ids=lambda one: one.id)
def test_training_forms_in_use(one: Case) -> None:
    run = one.oracle["runs"][0]
    model = gr.restore(gr.load(one.graph_pb), one.prefix)
    frozen = gr.freeze(model, "trained", "images", inference=True)
    (found,) = _run(frozen.graph.materialize(), ["trained:0"], run["feeds"])
    np.testing.assert_allclose(found, run["outputs"]["used:0"], rtol=1e-4, atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("one", cases("convnet"), ids=lambda one: one.id)
def test_both_branches_of_a_cond_are_in_use(one: Case) -> None:
    run = one.oracle["runs"][0]
    model = gr.restore(gr.load(one.graph_pb), one.prefix)
    frozen = gr.freeze(model, "scores/out", ["images", "is_training", "keep_prob"], inference=True)
    for training in (False, True):
        feeds = {**run["feeds"], "is_training:0": training, "keep_prob:0": 0.5}
        (found,) = _run(frozen.graph.materialize(), ["scores/out:0"], feeds)
        np.testing.assert_allclose(found, run["outputs"]["scores/out:0"], rtol=1e-5, atol=1e-6)


def test_the_variables_of_the_averages_are_needed() -> None:
    one = case("training_forms/tf1.4.1-v2")
    model = gr.restore(gr.load(one.graph_pb), one.prefix, exclude=["fused/moving_mean"])
    with pytest.raises(gr.FreezeError, match="fused/moving_mean"):
        gr.freeze(model, "trained", inference=True)


# -- graphs of today's TensorFlow --------------------------------------------------------------------------------------
# Each gives (output in training form, the same as it is used).

Build = Callable[[Any, Any, Callable[..., Any]], Any]
GRAPHS: dict[str, Build] = {}
REFUSED: dict[str, tuple[str, Build]] = {}
LEFT: dict[str, tuple[str, Build]] = {}


def _graph(build: Build) -> Build:
    GRAPHS[build.__name__] = build
    return build


def _refused(words: str) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        REFUSED[build.__name__] = (words, build)
        return build

    return register


def _left(words: str) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        LEFT[build.__name__] = (words, build)
        return build

    return register


def _averaged(tf: Any, variable: Any, value: Any, share: float = 0.1) -> Any:
    return tf.assign_sub(variable, (variable - value) * share)


def _fused(tf: Any, x: Any, mean: Any, variance: Any, training: bool) -> Any:
    scale, offset = tf.constant([1.0, 2, 3]), tf.constant([0.1, 0.2, 0.3])
    empty = tf.constant([], tf.float32)
    given = {"mean": empty, "variance": empty} if training else {"mean": mean, "variance": variance}
    return tf.raw_ops.FusedBatchNormV3(x=x, scale=scale, offset=offset, epsilon=0.001, is_training=training, **given)


@_graph
def fused(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    mean, variance = var("mean", 0.3), var("variance", 1.7)
    out = _fused(tf, x, None, None, True)
    updates = [_averaged(tf, mean, out.batch_mean), _averaged(tf, variance, out.batch_variance * (20.0 / 19))]
    with tf.control_dependencies(updates):
        trained = tf.identity(out.y)
    return trained, _fused(tf, x, mean, variance, False).y


@_graph
def averaged_inside(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    mean, variance = var("mean", 0.3), var("variance", 1.7)
    out = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=[1.0, 2, 3], offset=[0.1, 0.2, 0.3], mean=tf.identity(mean), variance=tf.identity(variance),
        epsilon=0.001, exponential_avg_factor=0.4, is_training=True)  # fmt: skip
    with tf.control_dependencies([tf.assign(mean, out.batch_mean), tf.assign(variance, out.batch_variance)]):
        trained = tf.identity(out.y)
    return trained, _fused(tf, x, mean, variance, False).y


@_graph
def channels_first(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    x = tf.transpose(x, [0, 3, 1, 2])
    mean, variance = var("mean", 0.3), var("variance", 1.7)
    m, v = tf.nn.moments(x, [0, 2, 3], keepdims=True)
    updates = [_averaged(tf, mean, tf.reshape(m, [-1])), _averaged(tf, variance, tf.squeeze(v, [0, 2, 3]))]
    shape = [1, 3, 1, 1]
    used = (x - tf.reshape(mean, shape)) / tf.sqrt(tf.reshape(variance, shape) + 0.01)
    with tf.control_dependencies(updates):
        return (x - m) / tf.sqrt(v + 0.01), used


@_graph
def share_is_a_tensor(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    mean, variance = var("mean", 0.3), var("variance", 1.7)
    share = tf.placeholder_with_default(0.9, [])
    m, v = tf.nn.moments(x, [0, 1, 2])
    updates = [tf.assign(mean, mean * share + m * (1 - share)), tf.assign(variance, (1 - share) * v + share * variance)]
    with tf.control_dependencies(updates):
        m = tf.identity(m)
    return [tf.nn.batch_normalization(x, *stats, None, None, 0.01) for stats in ((m, v), (mean, variance))]


@_graph
def two_of_one_tensor(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    trained, used = 0.0, 0.0
    for name in "ab":
        mean, variance = var(f"mean_{name}", 0.3), var(f"variance_{name}", 1.7 if name == "a" else 2.3)
        m, v = tf.nn.moments(x, [0, 1, 2])
        with tf.control_dependencies([_averaged(tf, mean, m), _averaged(tf, variance, v)]):
            trained += tf.nn.batch_normalization(x, tf.identity(m), v, None, None, 0.01)
        used += tf.nn.batch_normalization(x, mean, variance, None, None, 0.01)
    return trained, used


@_graph
def dropout_of_today(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    import tensorflow

    rate = tf.placeholder_with_default(0.3, [])
    dropped = [tensorflow.nn.dropout(x, 0.4), tensorflow.nn.dropout(x, rate)]
    return tf.add_n([*dropped, tf.nn.dropout(x, rate=0.2, noise_shape=[5, 1, 1, 3])]), 3 * x


@_graph
def dropout_of_seeds(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    import tensorflow

    return tensorflow.nn.experimental.stateless_dropout(x, 0.4, seed=[1, 2]), tf.identity(x)


@_graph
def dropout_in_a_loop(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    def turn(i: Any, h: Any) -> Any:
        return i + 1, tf.nn.dropout(h, rate=0.5) * 2

    return tf.while_loop(lambda i, h: i < 3, turn, [0, x])[1], 8 * x


@_graph
def dropout_of_one_mask_for_all_turns(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    """As DropoutWrapper with variational_recurrent has it: random numbers from outside of the loop, given or not."""
    uniform, keep = tf.random_uniform([2, 2, 3]), tf.placeholder_with_default(np.float32(0.4), [])

    def turn(i: Any, h: Any) -> Any:
        h = tf.divide(h, keep) * tf.floor(keep + uniform)
        return i + 1, tf.divide(h, 0.6) * tf.floor(0.6 + uniform) * 2

    return tf.while_loop(lambda i, h: i < 3, turn, [0, x])[1], x * 8


@_graph
def dropout_in_functions(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    @tf.function(autograph=False)
    def inner(x: Any) -> Any:
        return tf.nn.dropout(x * 2, rate=0.5)

    @tf.function(autograph=False)
    def outer(x: Any) -> Any:
        return tf.cond(tf.reduce_all(x > -99), lambda: inner(x) + 1, lambda: tf.nn.dropout(x, rate=0.1))

    return outer(x), x * 2 + 1


@_graph
def batch_norm_in_a_function(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    """The call is opened, and what it updates are averages like any other."""
    with tf.variable_scope("", use_resource=True):
        mean, variance = var("mean", 0.3), var("variance", 1.7)

    @tf.function(autograph=False)
    def trained(x: Any) -> Any:
        m, v = tf.nn.moments(x, [0, 1, 2])
        for variable, value in ((mean, m), (variance, v)):
            variable.assign_sub((variable - value) * 0.1)
        return tf.nn.batch_normalization(x, m, v, None, None, 0.01)

    return trained(x), tf.nn.batch_normalization(x, mean, variance, None, None, 0.01)


@_graph
def weighted_moments(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    mean, variance = var("mean", 0.3), var("variance", 1.7)
    m, v = tf.nn.weighted_moments(x, [0, 1, 2], tf.reduce_max(x, axis=3, keepdims=True) + 9)
    with tf.control_dependencies([_averaged(tf, mean, m), _averaged(tf, variance, v)]):
        trained = tf.nn.batch_normalization(x, m, v, None, None, 0.01)
    return trained, tf.nn.batch_normalization(x, mean, variance, None, None, 0.01)


@_graph
def averages_of_other_things(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    """The mean of the output has a moving average too, and the weights; neither is put in their place."""
    average = tf.train.ExponentialMovingAverage(0.9)
    w = var("w", 2.0)
    y = x * w
    level = tf.reduce_mean(y, [0, 1, 2])
    with tf.control_dependencies([average.apply([w, level])]):
        return y / (level + 9.0), y / (level + 9.0)


@_graph
def norms_of_one_example(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    m, v = tf.nn.moments(x, [1, 2], keepdims=True)
    y = (x - m) * tf.rsqrt(v + 0.01)
    return y, y


@_refused(
    "FusedBatchNormV3.* by the mean of the batch, and no update of the graph is found to be a moving average of it;"
)
def fused_without_averages(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    return _fused(tf, x, None, None, True).y


@_refused("normalises by the variance of the batch, and no update of the graph is found to be a moving average of it;")
def without_averages(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    m, v = tf.nn.moments(x, [0, 1, 2])
    return tf.nn.batch_normalization(x, m, v, None, None, 0.01)


@_refused("by the variance of the batch, which variance averages, and no other moving average is seen to be that of a ")
def without_an_average_of_the_mean(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    m, v = tf.nn.moments(x, [0, 1, 2])
    with tf.control_dependencies([_averaged(tf, var("variance", 1.7), v)]):
        return tf.nn.batch_normalization(x, m, v, None, None, 0.01)


@_refused(r"which variance averages, and no other moving average \(mean\) is seen to be that of a plain mean")
def with_weighted_moments(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    weights = tf.constant([1.0, 2.0, 3.0])
    m, v = tf.reduce_sum(x * weights, [0, 1, 2]), tf.reduce_sum(tf.square(x) * weights, [0, 1, 2])
    with tf.control_dependencies([_averaged(tf, var("mean", 0.3), m), _averaged(tf, var("variance", 1.7), v)]):
        return tf.nn.batch_normalization(x, m, v, None, None, 0.01)


@_refused(
    r"no moving average is one of it as it is: there is variance \(by AssignSub_1\) of corrected, which is computed"
)
def with_an_average_of_the_corrected_variance(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    m, v = tf.nn.moments(x, [0, 1, 2])
    size = tf.cast(tf.size(x[..., 0]), tf.float32)
    corrected = tf.divide(v * size, size - 1, name="corrected")
    with tf.control_dependencies([_averaged(tf, var("mean", 0.3), m), _averaged(tf, var("variance", 1.7), corrected)]):
        return tf.nn.batch_normalization(x, m, v, None, None, 0.01)


@_refused(r"no update of the graph is found to be a moving average of it \(functions were not looked at: \w*true\w*\);")
def with_averages_in_a_branch(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    with tf.variable_scope("", use_resource=True):
        variance = var("variance", 1.7)

    @tf.function(autograph=False)
    def trained(x: Any) -> Any:
        m, v = tf.nn.moments(x, [0, 1, 2])
        update = lambda: variance.assign_sub((variance - v) * 0.1)  # noqa: E731
        tf.cond(tf.reduce_all(x > -99), update, lambda: variance)
        return tf.nn.batch_normalization(x, m, v, None, None, 0.01)

    return trained(x)


@_refused(r"several averages of it \(other, variance\)")
def with_two_averages(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    m, v = tf.nn.moments(x, [0, 1, 2])
    updates = [_averaged(tf, var(name, 1.7), value) for name, value in (("mean", m), ("variance", v), ("other", v))]
    with tf.control_dependencies(updates):
        return tf.nn.batch_normalization(x, m, v, None, None, 0.01)


@_refused("takes one of them that no moving average stands for")
def with_another_mean(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    m, v = tf.nn.moments(x, [0, 1, 2])
    with tf.control_dependencies([_averaged(tf, var("mean", 0.3), m), _averaged(tf, var("variance", 1.7), v)]):
        return tf.nn.batch_normalization(x, tf.reduce_mean(x, [0, 1, 2]), v, None, None, 0.01)


@_refused("in a while loop")
def in_a_loop(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    mean, variance = var("mean", 0.3), var("variance", 1.7)

    def turn(i: Any, h: Any) -> Any:
        m, v = tf.nn.moments(h, [0, 1, 2])
        with tf.control_dependencies([_averaged(tf, mean, m), _averaged(tf, variance, v)]):
            return i + 1, tf.nn.batch_normalization(h, tf.identity(m), v, None, None, 0.01)

    return tf.while_loop(lambda i, h: i < 3, turn, [0, x])[1]


@_left(r"random still, by ops not recognised as a dropout: .*\(RandomStandardNormal\); .*constants=.*feeds=")
def noise(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    return x + tf.random_normal(tf.shape(x))


@_left(r"random still, by ops not recognised as a dropout: .*\(RandomUniform\)")
def mask_of_another_scale(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    return x * tf.cast(tf.random_uniform(tf.shape(x)) >= 0.5, tf.float32)


@_left(r"sums or means over the batch \(axis 0\): Mean")
def mean_of_the_batch(tf: Any, x: Any, var: Callable[..., Any]) -> Any:
    return x - tf.reduce_mean(x, 0)


def _model(build: Build, resource: bool, folder: Path) -> tuple[gr.Model, list[Any]]:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        was = tf.resource_variables_enabled()
        (tf.enable_resource_variables if resource else tf.disable_resource_variables)()
        tf.disable_control_flow_v2()
        try:
            x = tf.placeholder(tf.float32, [None, 2, 2, 3], name="x")

            def var(name: str, value: float) -> Any:
                return tf.get_variable(name, initializer=np.float32([value, value * 1.5, value * 2]), trainable=False)

            outputs = build(tf, x, var)
            outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
            for name, output in zip(("trained", "used"), outputs):
                tf.identity(output, name=name)
        finally:
            (tf.enable_resource_variables if was else tf.disable_resource_variables)()
        used: list[Any] = []
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            if tf.global_variables():
                tf.train.Saver().save(session, os.fspath(folder / "model.ckpt"))
            else:
                tf.train.export_meta_graph(os.fspath(folder / "model.ckpt.meta"))
            if len(outputs) == 2:
                used = session.run(["used:0"], {x: ROWS})
    model = gr.load(folder / "model.ckpt.meta")
    return (gr.restore(model) if len(model.variables) else model), used


@pytest.mark.tensorflow
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("name", GRAPHS)
def test_inference_form(name: str, resource: bool, tmp_path: Path) -> None:
    model, used = _model(GRAPHS[name], resource, tmp_path)
    frozen = gr.freeze(model, "trained", "x", inference=True)
    for _ in range(2):
        np.testing.assert_allclose(_run(frozen.graph.materialize(), ["trained:0"], {"x:0": ROWS}), used, rtol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_certain_inference_form(name: str, tmp_path: Path) -> None:
    words, build = REFUSED[name]
    model, _ = _model(build, False, tmp_path)
    with pytest.raises(gr.FreezeError, match=words) as caught:
        gr.freeze(model, "trained", inference=True)
    assert caught.value.nodes
    opened = {name for name in caught.value.nodes if "StatefulPartitionedCall/" in name}
    assert set(caught.value.nodes) - opened <= set(model.graph.nodes)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_is_told(name: str, tmp_path: Path) -> None:
    words, build = LEFT[name]
    model, _ = _model(build, False, tmp_path)
    with pytest.warns(gr.GraphRestoreWarning, match=words):
        gr.freeze(model, "trained", inference=True)
