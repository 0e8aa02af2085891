"""Variables updated in the functions of conds and loops: frozen, against what TensorFlow's first run gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graph_restore as gr

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")]
Outputs = dict[str, Any]
Build = Callable[[Any, Any, Any, Any, Any], Outputs]  # of tf, the variables c [] and v [3], x [3] and p (a bool)
FUNCTIONS: dict[str, Build] = {}


def _function(build: Build) -> Build:
    FUNCTIONS[build.__name__] = build
    return build


@_function
def read_after_a_cond(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    before = c * 10.0
    tf.cond(p, lambda: c.assign_add(x[0]), c.read_value)
    return {"before": before, "after": c + 0.0}


@_function
def both_branches(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    given = tf.cond(p, lambda: c.assign(x[1]) * 2.0, lambda: c.assign_sub(v[0]) * 3.0)
    return {"given": given, "after": c * x}


@_function
def cond_in_a_cond(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    def outer() -> Any:
        c.assign_add(1.0)
        inner = tf.cond(x[0] > 2.0, lambda: c.assign_add(5.0), lambda: c.assign_sub(5.0))
        v.assign_add(x * c)
        return inner + 0.5

    return {"given": tf.cond(p, outer, lambda: v[0] * c), "c": c.read_value(), "v": v.read_value()}


@_function
def turns_of_a_loop(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    total = x
    for _ in tf.range(3):
        total = total + c * v
        c.assign_add(x[0])
    return {"total": total, "after": c + 0.0}


@_function
def a_loop_until_the_variable(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    turns = 0
    while c < 20.0:
        c.assign_add(x[2])
        turns += 1
    return {"turns": turns + tf.constant(0), "after": c + 0.0}


@_function
def cond_in_a_loop(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    for i in tf.range(4):
        if i % 2 == 0:
            c.assign_add(1.5)
            if p:
                v.assign(v * c)
    return {"c": c.read_value(), "v": v.read_value() - x}


@_function
def loop_in_a_cond(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    if p:
        for i in tf.range(2):
            for _ in tf.range(i + 1):
                c.assign_add(x[0])
    else:
        c.assign(v[1])
    return {"after": c * 1.0}


@_function
def a_case(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    branches = [lambda: c.assign_add(1.0), lambda: c.assign_sub(1.0), lambda: c + 0.0]
    given = tf.switch_case(tf.cast(p, tf.int32), branches)
    return {"given": given, "after": c + v}


@_function
def a_call_in_a_branch(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    @tf.function
    def inner(y: Any) -> Any:
        c.assign_add(y)
        return c * y

    given = tf.cond(p, lambda: inner(x[0]) + inner(x[1]), lambda: inner(x[2]))
    return {"given": given, "after": c + 0.0}


@_function
def only_the_read_before(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    """What the updates leave behind is used by nothing, not even that of an op which has no form without a variable."""
    given = tf.cond(p, lambda: c * x, lambda: x)

    def more() -> Any:
        c.assign_add(1.0)
        v.scatter_add(tf.IndexedSlices(tf.constant([1.0]), tf.constant([0])))
        return x * 2.0

    return {"given": given, "more": tf.cond(p, more, lambda: x)}


@_function
def two_conds(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    tf.cond(p, lambda: c.assign_add(1.0), c.read_value)
    middle = tf.cond(p, lambda: c * 2.0, lambda: c.assign_add(7.0) * 3.0)
    tf.cond(x[0] > 0, lambda: c.assign(c * c), c.read_value)
    return {"middle": middle, "after": c + 0.0}


@_function
def large_constants(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    """Those whose values stay in the file that the model was read from."""
    large = np.arange(6000, dtype=np.float32)
    for _ in tf.range(2):
        tf.cond(p, lambda: c.assign_add(tf.reduce_sum(large * 2.0)), lambda: c.assign_sub(tf.reduce_max(large)))
    return {"after": c + 0.0}


@_function
def an_assigned_variable_needs_no_value(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    tf.cond(p, lambda: v.assign(x), lambda: v.assign(-x))
    return {"v": v * 2.0}


def _saved(build: Build, folder: Path, x_value: Any, p_value: bool) -> Any:
    """What TensorFlow's own first run of a SavedModel of the function gives."""
    import tensorflow as tf

    class Net(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.c = tf.Variable(3.0, name="c")
            self.v = tf.Variable([1.0, -2.0, 0.5], name="v")
            convert = tf.autograph.to_graph(build)
            self.call = tf.function(
                lambda x, p: convert(tf, self.c, self.v, x, p),
                input_signature=[tf.TensorSpec([3], tf.float32, name="x"), tf.TensorSpec([], tf.bool, name="p")],
                autograph=False,
            )

    net = Net()
    tf.saved_model.save(net, str(folder), signatures=net.call)
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return {key: value.numpy() for key, value in signature(x=tf.constant(x_value), p=tf.constant(p_value)).items()}


def _run(frozen: gr.Model, feeds: dict[str, Any]) -> dict[str, Any]:
    import tensorflow.compat.v1 as tf

    names = frozen.signatures["serving_default"]
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        fetches = {key: info.name for key, info in names.outputs.items()}
        fed = {names.inputs[key].name: value for key, value in feeds.items()}
        session.run(fetches, fed)
        return dict(session.run(fetches, fed))  # the second run finds what the first one found


@pytest.mark.parametrize("p", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_freezing_gives_what_the_first_run_gives(name: str, p: bool, tmp_path: Path) -> None:
    x = np.float32([2.0, 3.0, 5.0])
    expected = _saved(FUNCTIONS[name], tmp_path, x, p)
    restored = gr.restore(gr.load(tmp_path))
    for constants, feeds in (({}, {"x": x, "p": np.bool_(p)}), ({"serving_default_p": p}, {"x": x})):
        frozen = gr.freeze(restored, constants=constants)
        assert not frozen.variables
        assert set(frozen.signatures["serving_default"].inputs) == set(feeds)
        found = _run(gr.simplify(frozen) if constants else frozen, feeds)
        assert set(found) == set(expected)
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, key)


# -- graphs of TensorFlow 1 with conds and loops as functions: no order but the one the program states ----------------

STATED: dict[str, Build] = {}
UNSURE: dict[str, tuple[str, Build]] = {}


def _stated(build: Build) -> Build:
    STATED[build.__name__] = build
    return build


def _unsure(reason: str) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        UNSURE[build.__name__] = (reason, build)
        return build

    return add


def _after(tf: Any, first: Any, then: Callable[[], Any]) -> Any:
    with tf.control_dependencies([first]):
        return then()


@_stated
def the_value_of_an_update(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    return {"given": tf.cond(p, lambda: c.assign_add(x[0]) * 2.0, lambda: v.assign_sub(x)[1])}


@_stated
def a_read_after_the_value(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    given = tf.cond(p, lambda: c.assign_add(x[0]).read_value(), lambda: c.assign(x[1]).read_value())
    return {"given": given, "after": _after(tf, given, c.read_value)}


@_stated
def an_update_that_nothing_sees(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    def counted() -> Any:
        c.assign_add(1.0, read_value=False)
        return x * 2.0

    return {"given": tf.cond(p, counted, lambda: x * v)}


@_stated
def turns_in_order(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    def turn(i: Any, total: Any) -> Any:
        value = c.assign_add(x[0]).read_value()
        return _after(tf, value, lambda: i + 1), total + value

    return {"total": tf.while_loop(lambda i, _: i < 3, turn, [0, x])[1]}


@_stated
def calls_under_an_older_cond(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    def branch() -> Any:
        first = _raised(tf, c)(x[0])
        return first + _after(tf, first, lambda: _raised(tf, c)(x[1]))

    return {"given": _older_cond(tf, p, branch, lambda: _raised(tf, c)(x[2]))}


def _raised(tf: Any, c: Any) -> Any:
    @tf.function
    def raised(y: Any) -> Any:
        c.assign_add(y)
        return c * 2.0

    return raised


def _older_cond(tf: Any, p: Any, *branches: Any) -> Any:
    tf.compat.v1.disable_control_flow_v2()
    try:
        return tf.compat.v1.cond(p, *branches)
    finally:
        tf.compat.v1.enable_control_flow_v2()


@_unsure("without an order between them")
def calls_without_order(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    raised = _raised(tf, c)
    return {"given": _older_cond(tf, p, lambda: raised(x[0]) + raised(x[1]), lambda: x[0])}


@_unsure("only in one branch of a cond")
def a_call_in_one_branch(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    given = _older_cond(tf, p, lambda: _raised(tf, c)(x[0]), lambda: x[0])
    return {"after": _after(tf, given, c.read_value)}


@_unsure("in a while loop")
def a_call_in_an_older_loop(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    tf.compat.v1.disable_control_flow_v2()
    try:
        turn = lambda i, total: (i + 1, total + _raised(tf, c)(x[0]))  # noqa: E731
        return {"total": tf.compat.v1.while_loop(lambda i, _: i < 3, turn, [0, x])[1]}
    finally:
        tf.compat.v1.enable_control_flow_v2()


@_unsure("it may not run")
def an_update_beside_what_is_given(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    def counted() -> Any:
        c.assign_add(1.0, read_value=False)
        return x * 2.0

    given = tf.cond(p, counted, lambda: x * v)
    return {"after": _after(tf, given, c.read_value)}


@_unsure("the next turn may begin before")
def turns_without_order(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    turn = lambda i, total: (i + 1, total + c.assign_add(x[0]).read_value())  # noqa: E731
    return {"total": tf.while_loop(lambda i, _: i < 3, turn, [0, x])[1]}


@_unsure("without an order between them")
def a_read_beside_the_cond(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    return {"given": tf.cond(p, lambda: c.assign_add(1.0).read_value(), c.read_value), "beside": c * x}


@_unsure("without an order between them")
def two_updates_in_a_branch(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    branch = lambda: c.assign_add(1.0).read_value() + c.assign(x[0]).read_value()  # noqa: E731
    return {"given": tf.cond(p, branch, c.read_value)}


@_unsure("no value can stand for it")
def a_part_is_updated(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    update = lambda: tf.raw_ops.ResourceScatterAdd(resource=v.handle, indices=[0], updates=[5.0])  # noqa: E731
    return {"given": tf.cond(p, lambda: _after(tf, update(), v.read_value), v.read_value)}


@_unsure("the condition of a loop")
def a_condition_that_updates(tf: Any, c: Any, v: Any, x: Any, p: Any) -> Outputs:
    return {"i": tf.while_loop(lambda i: c.assign_add(1.0).read_value() < 6.0, lambda i: i + 1, [0])}


def _graph(build: Build, folder: Path, feeds: dict[str, Any]) -> tuple[gr.Model, list[str], list[Any]]:
    """(restored model, fetches, answers) of a graph that TensorFlow built, saved and ran."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        tf1.enable_control_flow_v2()
        try:
            x, p = tf1.placeholder(tf.float32, [3], name="x"), tf1.placeholder(tf.bool, [], name="p")
            c = tf1.get_variable("c", initializer=3.0, use_resource=True)
            v = tf1.get_variable("v", initializer=np.float32([1.0, -2.0, 0.5]), use_resource=True)
            fetches = [tf.identity(value, name=f"y_{key}").name for key, value in build(tf, c, v, x, p).items()]
        finally:
            tf1.disable_control_flow_v2()
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            tf1.train.Saver().save(session, str(folder / "model.ckpt"))
            answers = session.run(fetches, feeds)
    return gr.restore(gr.load(graph.as_graph_def()), folder / "model.ckpt"), fetches, answers


def _run_graph(model: gr.Model, fetches: list[str], feeds: dict[str, Any]) -> list[Any]:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(model.graph.materialize(), name="")
        return list(session.run(fetches, feeds))


@pytest.mark.parametrize("p", [True, False])
@pytest.mark.parametrize("name", STATED)
def test_graphs_without_control_outputs(name: str, p: bool, tmp_path: Path) -> None:
    feeds = {"x:0": np.float32([2.0, 3.0, 5.0]), "p:0": p}
    model, fetches, expected = _graph(STATED[name], tmp_path, feeds)
    for found, value in zip(_run_graph(gr.freeze(model, fetches, list(feeds)), fetches, feeds), expected):
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("name", UNSURE)
def test_what_is_not_certain_is_refused(name: str, tmp_path: Path) -> None:
    reason, build = UNSURE[name]
    feeds = {"x:0": np.float32([2.0, 3.0, 5.0]), "p:0": True}
    model, fetches, _ = _graph(build, tmp_path, feeds)
    with pytest.raises(gr.FreezeError, match=f"updates [cv].*{reason}(.|\n)*pass on_update='initial'") as caught:
        gr.freeze(model, fetches, list(feeds))
    assert set(caught.value.nodes) <= set(model.graph.nodes)
    frozen = gr.freeze(model, fetches, list(feeds), on_update="initial")
    assert not frozen.variables and not frozen.graph.of_ops({"VarHandleOp"})


def test_the_restored_value_in_a_cond(tmp_path: Path) -> None:
    feeds = {"x:0": np.float32([2.0, 3.0, 5.0]), "p:0": True}
    model, fetches, _ = _graph(UNSURE["two_updates_in_a_branch"][1], tmp_path, feeds)
    frozen = gr.freeze(model, fetches, list(feeds), on_update="initial")
    assert _run_graph(frozen, fetches, feeds) == [6.0]  # 3 and 3, as if neither were run


def test_a_branch_that_a_constant_rules_out_is_no_matter(tmp_path: Path) -> None:
    feeds = {"x:0": np.float32([2.0, 3.0, 5.0]), "p:0": False}
    model, fetches, expected = _graph(UNSURE["two_updates_in_a_branch"][1], tmp_path, feeds)
    frozen = gr.freeze(model, fetches, "x", constants={"p": False})
    assert _run_graph(frozen, fetches, {"x:0": feeds["x:0"]}) == expected


def test_what_is_wrong_in_a_function_is_said_of_the_variable(tmp_path: Path) -> None:
    feeds = {"x:0": np.float32([2.0, 3.0, 5.0]), "p:0": True}
    model, fetches, _ = _graph(UNSURE["a_part_is_updated"][1], tmp_path, feeds)
    with pytest.raises(gr.FreezeError) as caught:
        gr.freeze(model, fetches, list(feeds))
    text = str(caught.value)
    assert "cond (If: ResourceScatterAdd (ResourceScatterAdd) of function cond_true" in text
    assert "updates v: ResourceScatterAdd (ResourceScatterAdd) updates v and its result is used" in text
    assert list(caught.value.nodes) == ["cond"]


def test_notes_name_the_call_and_the_function(tmp_path: Path) -> None:
    feeds = {"x:0": np.float32([2.0, 3.0, 5.0]), "p:0": False}
    model, fetches, _ = _graph(STATED["an_update_that_nothing_sees"], tmp_path, feeds)
    (note,) = gr.freeze(model, fetches, list(feeds)).notes
    assert note.startswith("cond (If: AssignAddVariableOp (AssignAddVariableOp) of function cond_true")
    assert note.endswith("is dropped: nothing fetched depends on its update")


def test_a_kept_variable_is_updated_still(tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    feeds = {"x:0": np.float32([2.0, 3.0, 5.0]), "p:0": True}
    model, fetches, _ = _graph(STATED["the_value_of_an_update"], tmp_path, feeds)
    frozen = gr.freeze(model, fetches, list(feeds), keep_variables="c")
    gr.export(frozen, tmp_path / "kept", format="checkpoint")
    with tf.Graph().as_default(), tf.Session() as session:
        (given,), _ = gr.restore_graph(frozen, tmp_path / "kept", return_elements=fetches, session=session)
        assert [float(session.run(given, feeds)) for _ in range(2)] == [10.0, 14.0]  # (3 + 2) * 2, then 2 more
