"""constants=: what a given value settles, against TensorFlow running the whole graph with that value fed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, cases

import graph_restore as gr

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")]
X = np.arange(6, dtype=np.float32).reshape(2, 3)
Build = Callable[[Any, Any, Any, Any, Any, Any], Any]
GRAPHS: dict[str, Build] = {}


def _graph(build: Build) -> Build:
    """A graph over the variables v, w [3], the placeholders x [2, 3], t (the constant) and p (fed); gives outputs.

    Where `t` is False it must not need w."""
    GRAPHS[build.__name__] = build
    return build


@_graph
def plain(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    return [tf.cond(t, lambda: x * w, lambda: x * v), tf.cond(t, lambda: w + 1, lambda: tf.identity(v))]


@_graph
def negated(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    inference = tf.logical_not(tf.identity(t))
    return [tf.cond(inference, lambda: x * v, lambda: x * w), tf.cast(inference, tf.float32) * x, tf.logical_not(t)]


@_graph
def decided_by_one_side(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    both, one = tf.logical_and(p, t), tf.logical_or(tf.logical_not(t), p)
    return [tf.cond(both, lambda: x * w, lambda: x * v), tf.cond(one, lambda: x - v, lambda: x - w), both]


@_graph
def of_vectors(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    mask = tf.logical_and(x > 1, t)
    return [mask, tf.shape(mask), tf.cond(tf.reduce_any(mask), lambda: x * 2, lambda: x * v)]


@_graph
def inner_known(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    return [tf.cond(p, lambda: tf.cond(t, lambda: x * w, lambda: tf.constant(2.0) + v), lambda: x - v)]


@_graph
def outer_known(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    return [tf.cond(t, lambda: x * w, lambda: tf.cond(p, lambda: x * v, lambda: tf.constant(3.0) - v))]


@_graph
def known_in_a_loop(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    def turn(i: Any, h: Any) -> Any:
        return i + 1, tf.cond(t, lambda: h * w, lambda: tf.cond(p, lambda: h + v, lambda: tf.constant(2.0) * h))

    return tf.while_loop(lambda i, h: i < 3, turn, [0, x])


@_graph
def loop_in_a_branch(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    def loop(factor: Any) -> Any:
        return lambda: tf.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, h * factor), [0, x])[1]

    return [tf.cond(t, loop(w), loop(v))]


@_graph
def predicate_of_a_loop(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    return tf.while_loop(lambda i, h: tf.logical_and(t, i < 3), lambda i, h: (i + 1, h * 2), [0, x])


@_graph
def case_and_switch_case(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    index = tf.cast(t, tf.int32) + 1
    branches = [lambda: x * 7, lambda: x * v, lambda: x * w]
    return [tf.case([(t, lambda: x * w), (p, lambda: x * v)], default=lambda: x - v), tf.switch_case(index, branches)]


@_graph
def where(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    return [tf.where(t, v * 2, v * 3), tf.where(tf.fill([2], t), x, x * v), tf.where_v2(t, tf.constant(1.0), x)]


@_graph
def updates(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    def trained() -> Any:
        with tf.control_dependencies([tf.assign(w, x[0] * 0.5)]):
            return w.read_value() * 2

    return [tf.cond(t, trained, lambda: tf.identity(v))]


@_graph
def several_outputs(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    one, two, three = tf.cond(t, lambda: (x, w * 2, 1), lambda: (x * v, v, 2))
    return [one, two, three, tf.cond(tf.equal(three, 2), lambda: v, lambda: w)]


@_graph
def gradients(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    y = tf.cond(t, lambda: tf.reduce_sum(x * w), lambda: tf.reduce_sum(x * v * v))
    return [tf.convert_to_tensor(tf.gradients(y, [v])[0])]


@_graph
def in_a_function(tf: Any, v: Any, w: Any, x: Any, t: Any, p: Any) -> Any:
    @tf.function(autograph=False)
    def inner(x: Any, training: Any) -> Any:
        return tf.cond(training, lambda: x * 2, lambda: tf.cond(p, lambda: x * 3, lambda: x * 4)), x + 1

    @tf.function(autograph=False)
    def outer(x: Any, training: Any) -> Any:
        return inner(x, tf.logical_not(tf.logical_not(training)))

    return [*outer(x * v, t), tf.cond(t, lambda: outer(x * w, t), lambda: outer(x, t))[1]]


def _answers(build: Build, resource: bool, functional: bool, folder: Path, t: Any, p: Any) -> tuple[Any, ...]:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        was = tf.resource_variables_enabled()
        (tf.enable_resource_variables if resource else tf.disable_resource_variables)()
        (tf.enable_control_flow_v2 if functional else tf.disable_control_flow_v2)()
        try:
            x = tf.placeholder(tf.float32, [2, 3], name="x")
            t_, p_ = tf.placeholder(tf.bool, [], name="t"), tf.placeholder(tf.bool, [], name="p")
            v, w = (
                tf.get_variable(name, initializer=np.float32([0.5, -1.25, 3]) * sign)
                for name, sign in (("v", 1), ("w", -2))
            )
            fetches = [tf.identity(output, name=f"y_{n}") for n, output in enumerate(build(tf, v, w, x, t_, p_))]
        finally:
            (tf.enable_resource_variables if was else tf.disable_resource_variables)()
            tf.disable_control_flow_v2()
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, os.fspath(folder / "model.ckpt"))
            answers = session.run(fetches, {x: X, t_: t, p_: p})
    return gr.load(folder / "model.ckpt.meta"), [fetch.name for fetch in fetches], answers


def _run(graph_def: Any, fetches: list[str], feeds: dict[str, Any]) -> list[Any]:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        tf.import_graph_def(tf.GraphDef.FromString(graph_def.SerializeToString()), name="")
        with tf.Session(graph=graph) as session:
            return list(session.run(fetches, feeds))


@pytest.mark.parametrize("functional", [False, True], ids=["switch", "if"])
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_constant_changes_no_answer(name: str, resource: bool, functional: bool, tmp_path: Path) -> None:
    if functional and not resource:
        pytest.skip("functional conds take resource variables")
    for t in (False, True):
        for p in (False, True):
            model, fetches, expected = _answers(GRAPHS[name], resource, functional, tmp_path, t, p)
            restored = gr.restore(model, exclude=["w"] if not t and name != "gradients" else None)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frozen = gr.freeze(restored, fetches, ["x", "p"], constants={"t": t})
            assert "t" not in frozen.graph.nodes or frozen.graph.node("t").op == "Const"
            for found, value in zip(_run(frozen.graph.materialize(), fetches, {"x:0": X, "p:0": p}), expected):
                np.testing.assert_array_equal(found, value)
                assert np.asarray(found).dtype == np.asarray(value).dtype


@pytest.mark.parametrize("one", [*cases("convnet"), *cases("cond")], ids=lambda one: one.id)
def test_models_with_a_constant(one: Case) -> None:
    name = "is_training" if one.model == "convnet" else "left"
    for run in one.oracle["runs"]:
        feeds = {feed: value for feed, value in run["feeds"].items() if feed != f"{name}:0"}
        restored = gr.restore(gr.load(one.graph_pb), one.prefix)
        frozen = gr.freeze(restored, list(run["outputs"]), list(feeds), constants={name: run["feeds"][f"{name}:0"]})
        assert not {"Switch", "Merge", "RefSwitch"} & {node.op for node in frozen.graph.nodes.values()}
        found = _run(frozen.graph.materialize(), list(run["outputs"]), feeds)
        np.testing.assert_allclose(found[0], next(iter(run["outputs"].values())), rtol=1e-5, atol=1e-6)


# -- the executor's rules, on graphs that no tf.cond makes -------------------------------------------------------------

RAW: dict[str, Callable[[Any, Any, Any, Any], Any]] = {}


def _raw(build: Callable[[Any, Any, Any, Any], Any]) -> Callable[[Any, Any, Any, Any], Any]:
    RAW[build.__name__] = build
    return build


def _after(tf: Any, *ends: Any) -> Any:
    with tf.control_dependencies(list(ends)):
        return tf.identity(tf.constant([4.0, 5.0]))


@_raw
def index_of_a_merge(tf: Any, x: Any, t: Any, p: Any) -> Any:
    off, on = tf.raw_ops.Switch(data=x, pred=t)
    value, index = tf.raw_ops.Merge(inputs=[on * 2, off * 3])
    return [value, index, tf.cast(index, tf.float32) + value]


@_raw
def index_of_a_merge_in_a_branch(tf: Any, x: Any, t: Any, p: Any) -> Any:
    outer_off, outer_on = tf.raw_ops.Switch(data=x, pred=p)
    off, on = tf.raw_ops.Switch(data=outer_on, pred=t)
    value, index = tf.raw_ops.Merge(inputs=[on * 2, off * 3])
    return tf.raw_ops.Merge(inputs=[tf.cast(index, tf.float32) + value, outer_off])


@_raw
def dead_by_what_it_waits_for(tf: Any, x: Any, t: Any, p: Any) -> Any:
    off, on = tf.raw_ops.Switch(data=x, pred=t)
    return tf.raw_ops.Merge(inputs=[_after(tf, on.op, (on + 1).op), _after(tf, (off + 1).op) * 2])


@_raw
def waits_for_the_switch_alone(tf: Any, x: Any, t: Any, p: Any) -> Any:
    off, on = tf.raw_ops.Switch(data=x, pred=t)
    return [_after(tf, on.op), off * 2]


@_raw
def trigger(tf: Any, x: Any, t: Any, p: Any) -> Any:
    off, on = tf.raw_ops.Switch(data=x, pred=t)
    with tf.control_dependencies([(on + 1).op, (off + 1).op]):
        end = tf.raw_ops.ControlTrigger()
    return [_after(tf, end)]


@_raw
def predicate_of_another_branch(tf: Any, x: Any, t: Any, p: Any) -> Any:
    pred = tf.raw_ops.Switch(data=t, pred=p)[1]
    off, on = tf.raw_ops.Switch(data=x, pred=pred)
    return tf.raw_ops.Merge(inputs=[off * 2, tf.raw_ops.Switch(data=x, pred=p)[0]])


@_raw
def three_branches(tf: Any, x: Any, t: Any, p: Any) -> Any:
    off, on = tf.raw_ops.Switch(data=x, pred=t)
    other_off, other_on = tf.raw_ops.Switch(data=off, pred=p)
    return [tf.raw_ops.Merge(inputs=[on * 2, other_off * 3, other_on * 4])[0]]


@_raw
def a_branch_fetched(tf: Any, x: Any, t: Any, p: Any) -> Any:
    off, on = tf.raw_ops.Switch(data=x, pred=tf.logical_not(t))
    return [on, on * 2]


@_raw
def one_of_references(tf: Any, x: Any, t: Any, p: Any) -> Any:
    tf.disable_resource_variables()
    one, two = tf.get_variable("one", initializer=[1.0, 2]), tf.get_variable("two", initializer=[3.0, 4])
    off, on = tf.raw_ops.RefSwitch(data=one._ref(), pred=t)
    chosen = tf.raw_ops.RefSelect(index=tf.cast(t, tf.int32), inputs=[one._ref(), two._ref()])
    return [off * x, chosen + x]


@pytest.mark.parametrize("p", [False, True])
@pytest.mark.parametrize("name", RAW)
def test_rules_of_the_executor(name: str, p: bool, tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    feeds = {"x:0": np.float32([1, 2]), "p:0": p}
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [2], name="x")
        t, p_ = tf.placeholder(tf.bool, [], name="t"), tf.placeholder(tf.bool, [], name="p")
        fetches = [fetch.name for fetch in RAW[name](tf, x, t, p_)]
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            if tf.global_variables():
                tf.train.Saver().save(session, os.fspath(tmp_path / "model.ckpt"))
            else:
                tf.train.export_meta_graph(os.fspath(tmp_path / "model.ckpt.meta"))
            expected = session.run(fetches, {**feeds, "t:0": False})
    model = gr.load(tmp_path / "model.ckpt.meta")
    model = gr.restore(model) if len(model.variables) else model
    frozen = gr.freeze(model, fetches, ["x", "p"], constants={"t": False})
    for found, value in zip(_run(frozen.graph.materialize(), fetches, feeds), expected):
        np.testing.assert_array_equal(found, value)


def test_a_merge_that_waits_for_the_dead_is_refused() -> None:
    """TensorFlow 0.12 to 2.21 give no value for Merge([dead, x], ^dead), and one for Merge([x, y], ^dead)."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        x, t = tf.placeholder(tf.float32, [2], name="x"), tf.placeholder(tf.bool, [], name="t")
        off, on = tf.raw_ops.Switch(data=x, pred=t)
        doubled = x * 2  # made outside: a control edge on it would stand for that of the Merge
        with tf.control_dependencies([(on + 1).op]):
            tf.raw_ops.Merge(inputs=[doubled, off], name="y")
    with pytest.raises(gr.FreezeError, match=r"y \(Merge\) waits for nodes of a branch that may not be taken, given t"):
        gr.freeze(gr.load(graph.as_graph_def()), "y", constants={"t": False})
    assert gr.freeze(gr.load(graph.as_graph_def()), "y", constants={"t": True}).graph.nodes


def test_an_input_is_fed_or_constant() -> None:
    model = gr.restore(gr.load(cases("linear")[0].graph_pb), cases("linear")[0].prefix)
    with pytest.raises(gr.FreezeError, match="^x: among the feeds and given a constant; leave") as caught:
        gr.freeze(model, "y", ["x"], constants={"x:0": np.zeros([2, 3], np.float32)})
    assert caught.value.nodes == {"x": "fed and constant"}
