"""Frozen graphs in today's TensorFlow: those in legacy_models/ against the answers of the TensorFlow that made them,
and small graphs with every kind of read and update against a session that ran them unfrozen."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")]
REFUSED = {"metrics_local", "update_in_while", "update_unordered"}
FREEZABLE = [
    pytest.param(one, path, id=f"{one.id}-{path.suffix}")
    for one in cases()
    if one.model not in REFUSED
    for path in (one.graph_pb, one.meta)
    if path
]


def _run(graph_def: Any, fetches: list[str], feeds: dict[str, Any], init_op: str | None = None) -> list[Any]:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        tf.import_graph_def(tf.GraphDef.FromString(graph_def.SerializeToString()), name="")
        with tf.Session(graph=graph) as session:
            if init_op is not None:
                session.run(init_op)
            return list(session.run(fetches, feeds))


def _expect_close(found: Any, expected: np.ndarray[Any, Any]) -> None:
    found = np.asarray(found, object if expected.dtype == object else None)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if expected.dtype.kind in "fc":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # other kernels add in another order
    else:
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(("one", "path"), FREEZABLE)
def test_answers_of_the_tensorflow_that_made_it(one: Case, path: Path) -> None:
    restored = gr.restore(gr.load(path), one.prefix)
    for run in one.oracle["runs"]:
        frozen = gr.freeze(restored, list(run["outputs"]), list(run["feeds"]))
        found = _run(frozen.graph.materialize(), list(run["outputs"]), run["feeds"])
        for value, expected in zip(found, run["outputs"].values()):
            _expect_close(value, expected)


CONTAINERS = [
    pytest.param(one, folder, id=f"{one.id}-{folder}")
    for one in cases()
    for fact in ("saved_model", "session_bundle")
    if fact in one.facts and one.model != "saved_model_two_tags"
    for folder in [one.facts[fact]["path"]]
]


@pytest.mark.parametrize(("one", "folder"), CONTAINERS)
def test_answers_of_exports(one: Case, folder: str) -> None:
    model = gr.restore(gr.load(one.directory / folder))
    run = one.oracle["runs"][0]
    for options in ({}, {"tables": "init_op"}):
        frozen = gr.freeze(model, **options)
        feeds = {frozen.feeds[0]: next(iter(run["feeds"].values()))}
        (found,) = _run(frozen.graph.materialize(), list(frozen.fetches), feeds, frozen.init_op if options else None)
        _expect_close(found, run["outputs"][frozen.fetches[0]])


@pytest.mark.parametrize("one", [*cases("update_unordered"), *cases("update_in_while")], ids=lambda one: one.id)
def test_initial_values_are_those_restored(one: Case) -> None:
    run = one.oracle["runs"][0]
    frozen = gr.freeze(gr.restore(gr.load(one.graph_pb), one.prefix), "y:0", list(run["feeds"]), on_update="initial")
    (found,) = _run(frozen.graph.materialize(), ["y:0"], run["feeds"])
    (value,) = one.oracle["variables"].values()
    expected = run["feeds"]["x:0"] * value if "x:0" in run["feeds"] else 3 * value  # three turns, each adds it
    _expect_close(found, np.asarray(expected, np.float32))


def test_exported_files_run(tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    one = case("convnet/tf1.4.1-v2")
    run = one.oracle["runs"][0]
    frozen = gr.freeze(gr.restore(gr.load(one.graph_pb), one.prefix), "scores/out", list(run["feeds"]))
    for name in ("frozen.pb", "frozen.pbtxt"):
        gr.export(frozen, tmp_path / name)
        graph_def = tf.GraphDef()
        if name.endswith("txt"):
            from google.protobuf import text_format

            text_format.Parse((tmp_path / name).read_text(), graph_def)
        else:
            graph_def.ParseFromString((tmp_path / name).read_bytes())
        (found,) = _run(graph_def, ["scores/out:0"], run["feeds"])
        _expect_close(found, run["outputs"]["scores/out:0"])


# -- reads and updates ------------------------------------------------------------------------------------------------
# Each builds a graph over `v` [3], `w` [3] (variables of either kind) and the placeholders x [2, 3] and p (a bool), and
# gives the outputs. Those in UNSURE must be refused: an update and a use have no certain order, or no value can stand.

Build = Callable[[Any, Any, Any, Any, Any], Any]
GRAPHS: dict[str, Build] = {}
UNSURE: dict[str, Build] = {}


def _graph(build: Build) -> Build:
    GRAPHS[build.__name__] = build
    return build


def _unsure(build: Build) -> Build:
    UNSURE[build.__name__] = build
    return build


def _after(tf: Any, update: Any, result: Callable[[], Any]) -> Any:
    with tf.control_dependencies([update]):
        return result()


@_graph
def gathers(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    pairs = tf.get_variable("pairs", initializer=np.arange(24, dtype=np.float32).reshape(2, 4, 3))
    batched = tf.gather(pairs, [[0, 1], [3, 2]], batch_dims=1)
    return [tf.gather(v, [2, 0]), tf.gather_nd(pairs, [[0, 1], [1, 2]]), batched, tf.gather(pairs, [3, 0], axis=1)]


@_graph
def shapes_and_tests(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [tf.shape(v), tf.shape(v, out_type=tf.int64), tf.size(v), tf.is_variable_initialized(v), v.read_value()]


@_graph
def read_in_cond(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [tf.cond(p, lambda: x * v, lambda: x - w), tf.cond(p, lambda: tf.identity(v), lambda: v + 1)]


@_graph
def read_in_while(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    def turn(i: Any, h: Any) -> Any:
        return i + 1, tf.cond(i < 1, lambda: h * v, lambda: h + w)

    return tf.while_loop(lambda i, h: i < 3, turn, [0, x])


@_graph
def read_by_map_and_scan(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [tf.map_fn(lambda row: row * v, x), tf.scan(lambda sum, row: sum * v + row, x)]


@_graph
def lists_of_variables(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [tf.stack([v, w]), tf.add_n([v, w, v]), tf.concat([v, w], 0), tf.add(*tf.identity_n([v, w]))]


@_graph
def checked_and_printed(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [_after(tf, tf.Assert(tf.reduce_all(x >= 0), [v]), lambda: x * v), tf.check_numerics(w, "bad")]


@_graph
def gradients(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    found = tf.gradients(tf.reduce_sum(tf.square(x * v)) + tf.reduce_sum(tf.gather(w, [1, 1])), [v, w])
    return [tf.convert_to_tensor(gradient) for gradient in found]


@_graph
def training_beside_the_output(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    loss = tf.reduce_sum(tf.square(x * v))
    tf.train.AdamOptimizer(0.1).minimize(loss)
    return [loss]


@_graph
def counter_on_the_way(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [_after(tf, tf.assign_add(w, [1.0, 1, 1]), lambda: x * v)]


@_graph
def counter_in_a_loop(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    def turn(i: Any, h: Any) -> Any:
        return i + 1, _after(tf, tf.assign_add(w, [1.0, 1, 1]), lambda: h * 2)

    return tf.while_loop(lambda i, h: i < 3, turn, [0, x])


@_graph
def counter_added_to_itself(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [_after(tf, tf.assign_add(w, w.read_value()), lambda: tf.identity(x))]


@_graph
def overwritten(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [_after(tf, tf.assign(v, x[1]), lambda: v.read_value() + 1)]


@_graph
def value_of_an_assignment(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [tf.identity(tf.assign(v, x[1])), tf.subtract(x, tf.assign_sub(w, (w - x[0]) * 0.1))]


@_graph
def added_then_overwritten(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    last = _after(tf, tf.assign_add(v, [1.0, 1, 1]), lambda: tf.assign(v, x[0]))
    return [_after(tf, last, v.read_value)]


@_graph
def updated_in_a_row(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    second = _after(tf, tf.assign_add(v, [1.0, 1, 1]), lambda: tf.assign_sub(v, [3.0, 2, 1]))
    return [_after(tf, second, lambda: tf.assign_add(v, v.read_value())) * 1.0]


@_graph
def read_before_and_after(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    before = v.read_value() * 2
    update = _after(tf, before, lambda: tf.assign_add(v, [1.0, 1, 1]))
    return [before, _after(tf, update, v.read_value)]


@_graph
def one_variable_into_another(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    copied = _after(tf, tf.assign(w, v), w.read_value)
    return [_after(tf, tf.assign_add(v, copied), v.read_value)]


@_graph
def moving_average(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    average = tf.train.ExponentialMovingAverage(0.9)
    return [_after(tf, average.apply([v]), lambda: average.average(v).read_value())]


@_graph
def updated_in_both_branches(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    def branch(update: Any, result: Any) -> Any:
        return lambda: _after(tf, update(v, [1.0, 2, 3]), lambda: result(x, v.read_value()))

    return [tf.cond(p, branch(tf.assign_add, tf.multiply), branch(tf.assign_sub, tf.add))]


@_graph
def overwritten_in_a_branch(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [tf.cond(p, lambda: _after(tf, tf.assign(v, x[1]), lambda: x * v.read_value()), lambda: x * v)]


@_graph
def predicate_of_an_update(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    raised = tf.identity(tf.assign_add(v, [1.0, 1, 1]))
    return [tf.cond(raised[0] > 0.5, lambda: x * 2, lambda: x * 3)]


def _ref_ops(build: Build) -> Build:
    """A graph that only reference variables make: of resource variables it reads their values plainly."""

    def built(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
        is_ref = hasattr(v, "_ref")
        return build(tf, v._ref(), w._ref(), x, p) if is_ref else [x * v, w.read_value()]

    built.__name__ = build.__name__
    return _graph(built)


@_ref_ops
def ref_switch_in_a_branch(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    off, on = tf.raw_ops.RefSwitch(data=v, pred=p)
    value, index = tf.raw_ops.RefMerge(inputs=[off, on])
    return [tf.raw_ops.Merge(inputs=[off * 2, on * 3])[0], value * x, index]


@_ref_ops
def ref_merge_of_two_in_a_branch(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    inputs = [tf.raw_ops.RefSwitch(data=v, pred=p)[0], tf.raw_ops.RefSwitch(data=w, pred=p)[1]]
    return [tf.raw_ops.RefIdentity(input=tf.raw_ops.RefMerge(inputs=inputs)[0]) * x]


@_ref_ops
def ref_select_in_a_branch(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [tf.raw_ops.RefSelect(index=tf.cast(p, tf.int32), inputs=[v, w]) - x]


@_ref_ops
def reference_round_a_loop(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    ops, frame = tf.raw_ops, {"frame_name": "loop"}
    start, entered = ops.Enter(data=0, **frame), ops.RefEnter(data=v, **frame)
    i, loop = ops.Merge(inputs=[start, start])[0], ops.RefMerge(inputs=[entered, entered])[0]
    limit, one = (ops.Enter(data=number, is_constant=True, **frame) for number in (3, 1))
    again = ops.LoopCond(input=i < limit)
    i_off, i_on = ops.Switch(data=i, pred=again)
    off, on = ops.RefSwitch(data=loop, pred=again)
    i.op._update_input(1, ops.NextIteration(data=i_on + one))
    loop.op._update_input(1, ops.RefNextIteration(data=on))
    return [ops.RefExit(data=off) * x]


@_unsure
def read_beside_an_update(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    beside = _after(tf, tf.assign_add(v, [1.0, 1, 1]), lambda: tf.identity(x))
    return [tf.reduce_sum(beside) + tf.identity(v.read_value())]


@_unsure
def updates_without_order(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    updates = tf.group(tf.assign_add(v, [1.0, 1, 1]), tf.assign_sub(v, [3.0, 2, 1]))
    return [_after(tf, updates, v.read_value)]


@_unsure
def read_after_a_branch(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    chosen = tf.cond(p, lambda: tf.identity(tf.assign_add(v, [1.0, 2, 3])), lambda: tf.identity(x[0]))
    return [_after(tf, chosen, v.read_value)]


@_unsure
def read_after_a_loop(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    _, last = counter_in_a_loop(tf, v, v, x, p)
    return [_after(tf, last, v.read_value)]


@_unsure
def scattered(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [_after(tf, tf.scatter_update(v, [1], [9.0]), v.read_value)]


@_unsure
def assigned_a_slice(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    return [_after(tf, v[1].assign(8.0), v.read_value)]


@_unsure
def trained_first(tf: Any, v: Any, w: Any, x: Any, p: Any) -> Any:
    train = tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_sum(x * v))
    return [_after(tf, train, v.read_value)]


def _answers(build: Build, resource: bool, folder: Path, p_value: bool) -> tuple[gr.Model, list[str], Any, list[Any]]:
    """(restored model, fetches, feeds, answers) of a graph built, initialised, saved and run by TensorFlow."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        was = tf.resource_variables_enabled()
        (tf.enable_resource_variables if resource else tf.disable_resource_variables)()
        tf.disable_control_flow_v2()
        try:
            x, p = tf.placeholder(tf.float32, [2, 3], name="x"), tf.placeholder(tf.bool, [], name="p")
            v, w = (
                tf.get_variable(name, initializer=np.float32([0.5, -1.25, 3]) * sign)
                for name, sign in (("v", 1), ("w", -2))
            )  # noqa: E501
            fetches = [tf.identity(output, name=f"y_{n}") for n, output in enumerate(build(tf, v, w, x, p))]
        finally:
            (tf.enable_resource_variables if was else tf.disable_resource_variables)()
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, os.fspath(folder / "model.ckpt"))
            feeds = {"x:0": np.arange(6, dtype=np.float32).reshape(2, 3), "p:0": p_value}
            answers = session.run(fetches, feeds)
    return gr.restore(gr.load(folder / "model.ckpt.meta")), [fetch.name for fetch in fetches], feeds, answers


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("name", GRAPHS)
def test_freezing_changes_no_answer(name: str, resource: bool, tmp_path: Path) -> None:
    for p in (True, False) if "branch" in name or "cond" in name else (True,):
        model, fetches, feeds, expected = _answers(GRAPHS[name], resource, tmp_path, p)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frozen = gr.freeze(model, fetches, list(feeds))
        for found, value in zip(_run(frozen.graph.materialize(), fetches, feeds), expected):
            np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("name", UNSURE)
def test_what_has_no_certain_answer_is_refused(name: str, resource: bool, tmp_path: Path) -> None:
    model, fetches, feeds, _ = _answers(UNSURE[name], resource, tmp_path, True)
    with pytest.raises(gr.FreezeError, match="updates? v|update v") as caught:
        gr.freeze(model, fetches, list(feeds))
    assert caught.value.nodes
    assert gr.freeze(model, fetches, list(feeds), on_update="initial").graph


def _loaded_answer(folder: Path) -> Any:
    """What TensorFlow's loader gives, which runs the init op."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        tf.saved_model.load(session, ["serve"], str(folder))
        return session.run("y:0", {"x:0": [2.0]})


def _with_init_op(folder: Path, make: Callable[[Any, Any, Any], Any], collection: str) -> None:
    """A SavedModel of y = x * (c + l), l a local variable, with the op that `make` gives as its init op."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None], name="x")
        c = tf.get_variable("c", [], initializer=tf.constant_initializer(1.0))
        local = tf.get_variable("l", [], initializer=tf.constant_initializer(7.0), collections=["local_variables"])
        tf.multiply(x, c + local, name="y")
        op = make(tf, c, local)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        writer = tf.saved_model.Builder(str(folder))
        info = tf.saved_model.build_tensor_info
        signature = tf.saved_model.build_signature_def(
            {"x": info(x)}, {"y": info(tf.get_default_graph().get_tensor_by_name("y:0"))}, "predict"
        )
        tf.add_to_collection(collection, op)
        writer.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        writer.save()


INIT_OPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "local variables": lambda tf, c, local: tf.group(tf.local_variables_initializer(), tf.tables_initializer()),
    "an assigned constant": lambda tf, c, local: tf.group(c.assign(5.0), local.initializer),
    "another variable": lambda tf, c, local: tf.group(local.assign(c * 3.0)),
}


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("collection", ["saved_model_main_op", "legacy_init_op"])
@pytest.mark.parametrize("name", INIT_OPS)
def test_the_init_op_of_a_saved_model_is_taken_to_have_run(
    tmp_path: Path, name: str, collection: str, reference: bool
) -> None:
    import tensorflow.compat.v1 as tf

    before = tf.resource_variables_enabled()
    (tf.disable_resource_variables if reference else tf.enable_resource_variables)()
    try:
        _with_init_op(tmp_path / "model", INIT_OPS[name], collection)
        expected = _loaded_answer(tmp_path / "model")
    finally:
        (tf.enable_resource_variables if before else tf.disable_resource_variables)()
    restored = gr.restore(gr.load(tmp_path / "model"))
    frozen = gr.freeze(restored)
    (found,) = _run(frozen.graph.materialize(), ["y:0"], {"x:0": [2.0]})
    _expect_close(found, expected)
    with gr.Session(tmp_path / "model") as session:
        _expect_close(session.run("y:0", {"x:0": np.float32([2.0])}), expected)
    module = gr.as_module(restored)
    _expect_close(module(np.float32([2.0]))["y:0"].numpy(), expected)
    with tf.Graph().as_default(), tf.Session() as live:
        gr.restore_graph(restored, session=live)
        _expect_close(live.run("y:0", {"x:0": [2.0]}), expected)
    assert gr.verify(tmp_path / "model", frozen).ok


UNCERTAIN_INIT_OPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "random": lambda tf, c, local: tf.group(c.assign(tf.random.normal([])), local.initializer),
    "itself": lambda tf, c, local: tf.group(c.assign(c + 1.0), local.initializer),
    "added": lambda tf, c, local: tf.group(c.assign_add(1.0), local.initializer),
    "twice": lambda tf, c, local: tf.group(c.assign(2.0), c.assign(3.0), local.initializer),
    "in a branch": lambda tf, c, local: tf.group(
        tf.cond(tf.less(c, 9.0), lambda: c.assign(2.0), lambda: c.assign(3.0)), local.initializer
    ),
    "of one that is set": lambda tf, c, local: tf.group(c.assign(local * 2.0), local.assign(3.0)),
}


@pytest.mark.parametrize("name", UNCERTAIN_INIT_OPS)
def test_an_init_op_with_an_uncertain_result_is_refused(tmp_path: Path, name: str) -> None:
    _with_init_op(tmp_path / "model", UNCERTAIN_INIT_OPS[name], "saved_model_main_op")
    restored = gr.restore(gr.load(tmp_path / "model"))
    with pytest.raises(
        gr.FreezeError, match=r"\n  c: the init op .* updates it by .*\n.*on_update='initial'"
    ) as caught:
        gr.freeze(restored)
    assert caught.value.variables == ["c"]
    frozen = gr.freeze(restored, on_update="initial") if name != "of one that is set" else None
    if frozen is not None:
        assert any(note.startswith("c has its restored value, but the init op") for note in frozen.notes)
        assert _run(frozen.graph.materialize(), ["y:0"], {"x:0": [2.0]})[0].tolist() == [16.0]


@pytest.mark.parametrize(
    ("axis", "epsilon", "named"), [(1, 1e-12, True), (1, 1e-3, False), (-1, 1e-12, False), (0, 1e-5, False)]
)
def test_layer_norms_that_tensorflow_computes_otherwise_are_named(
    tmp_path: Path, axis: int, epsilon: float, named: bool
) -> None:
    """It takes an epsilon of 0.001 for those whose axis is the last, counted from the front (tried with oneDNN)."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        scale = tf.get_variable("scale", [3], initializer=tf.ones_initializer())
        mean, variance = tf.nn.moments(x, [axis], keepdims=True)
        tf.identity(tf.nn.batch_normalization(x, mean, variance, scale * 0.5, scale, epsilon), name="y")
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model.ckpt.meta")), "y")
    told = [note for note in frozen.notes if "TF_ENABLE_ONEDNN_OPTS=0" in note]
    assert [note.split(" (")[0] for note in told] == (["1 layer norm"] if named else [])


@pytest.mark.parametrize("updated", [False, True])
def test_handles_of_one_shared_name_are_one_variable(tmp_path: Path, updated: bool) -> None:
    """As when TensorFlow 1 imports a model twice: a/w and b/w are of one resource, which is saved once."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        handles = [
            tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[2], shared_name="w", name=f"{scope}/w") for scope in "ab"
        ]
        x = tf.placeholder(tf.float32, [2], name="x")
        first = tf.raw_ops.ReadVariableOp(resource=handles[0], dtype=tf.float32)
        saved = tf.train.Saver.from_proto(_saver_of(tf, {"w": first}, handles[0]))
        update = [tf.raw_ops.AssignVariableOp(resource=handles[0], value=first * 2.0)] if updated else []
        with tf.control_dependencies(update):
            second = tf.raw_ops.ReadVariableOp(resource=handles[1], dtype=tf.float32)
        tf.multiply(x, second, name="y")
        session.run(tf.raw_ops.AssignVariableOp(resource=handles[0], value=tf.constant([3.0, 5.0])))
        saved.save(session, str(tmp_path / "model.ckpt"))
        expected = session.run("y:0", {"x:0": [1.0, 1.0]})
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model.ckpt.meta")), "y")
    (found,) = _run(frozen.graph.materialize(), ["y:0"], {"x:0": [1.0, 1.0]})
    _expect_close(found, expected)


def _saver_of(tf: Any, tensors: dict[str, Any], handle: Any) -> Any:
    """The SaverDef of a saver made by hand, for a handle that is no tf.Variable."""
    name = tf.placeholder_with_default("model", [], name="save/Const")
    keys = tf.constant(list(tensors))
    slices = tf.constant([""] * len(tensors))
    save = tf.raw_ops.SaveV2(prefix=name, tensor_names=keys, shape_and_slices=slices, tensors=list(tensors.values()))
    with tf.control_dependencies([save]):
        path = tf.identity(name, name="save/control_dependency")
    (value,) = tf.raw_ops.RestoreV2(prefix=name, tensor_names=keys, shape_and_slices=slices, dtypes=[tf.float32])
    restore = tf.raw_ops.AssignVariableOp(resource=handle, value=value)
    return tf.train.SaverDef(
        filename_tensor_name=name.name, save_tensor_name=path.name, restore_op_name=restore.name, version=2
    )


def test_a_variable_that_loading_makes_random_keeps_its_restored_value(tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        w = tf.get_variable("w", [2], initializer=tf.random_normal_initializer())
        y = tf.identity(tf.placeholder(tf.float32, [2], name="x") * w, name="y")
        session.run(tf.global_variables_initializer())
        trained = session.run(w)
        writer = tf.saved_model.Builder(str(tmp_path / "model"))
        info = tf.saved_model.build_tensor_info
        signature = tf.saved_model.build_signature_def(
            {"x": info(graph.get_tensor_by_name("x:0"))}, {"y": info(y)}, "predict"
        )
        writer.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=tf.global_variables_initializer()
        )
        writer.save()
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model")))
    assert _run(frozen.graph.materialize(), ["y:0"], {"x:0": [1.0, 1.0]})[0].tolist() == trained.tolist()
    (note,) = [note for note in frozen.notes if note.startswith("w has its restored value, but the init op")]
    assert "w/Assign" in note and "not certain" in note
