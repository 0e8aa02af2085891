"""Queues and iterators in conds, loops and functions: what freezing makes of them, run in TensorFlow against a session
in which the queue gives the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graph_restore as gr

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")]
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3) + 1
Build = Callable[[Any, Any, Any], Any]  # (tf, w, p) to the output


@pytest.fixture
def switches() -> Iterator[None]:
    """Conds and loops are built of Switches and Merges."""
    import tensorflow as tf

    tf.compat.v1.disable_control_flow_v2()
    yield
    tf.compat.v1.enable_control_flow_v2()


def _model(build: Build, folder: Path) -> gr.Model:
    """The restored model whose output `y` is what `build` gives times w; p and q are placeholders for a bool."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        w = tf.get_variable("w", initializer=np.float32([1, 2, 3]), use_resource=False)
        p = tf.placeholder(tf.bool, [], "p")
        tf.identity(build(tf, w, p) * w, name="y")
        session.run(w.initializer)
        tf.train.Saver().save(session, str(folder / "model.ckpt"))
    return gr.restore(gr.load(folder / "model.ckpt.meta"))


def _run(frozen: gr.Model, feeds: dict[str, Any], fetch: str = "y:0") -> Any:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(tf.GraphDef.FromString(frozen.graph.materialize().SerializeToString()), name="")
        return session.run(fetch, feeds)


def _dequeue(tf: Any, name: str, components: int = 1) -> Any:
    queue = tf.FIFOQueue(5, [tf.float32] * components, [[2, 3]] * components, name=f"queue_{name}")
    return queue.dequeue(name=f"{name}/")  # so named in any scope


# -- conds ------------------------------------------------------------------------------------------------------------


def queues(tf: Any, w: Any, p: Any) -> Any:
    one, other = (tf.FIFOQueue(5, [tf.float32], [[2, 3]]) for _ in range(2))
    return tf.cond(p, lambda: one.dequeue(name="one/"), lambda: other.dequeue(name="other/"))


def iterators(tf: Any, w: Any, p: Any) -> Any:
    data = tf.data.Dataset.from_tensors(ROWS).repeat()
    one, other = tf.data.make_initializable_iterator(data), tf.data.make_one_shot_iterator(data)
    return tf.cond(p, lambda: one.get_next("one/"), lambda: other.get_next("other/"))


def used_in_the_branch(tf: Any, w: Any, p: Any) -> Any:
    """What only waits for a dequeue runs in its branch, too."""

    def taken() -> Any:
        rows = _dequeue(tf, "one")
        with tf.control_dependencies([rows]):
            return tf.constant(ROWS) + rows - rows + rows

    return tf.cond(p, taken, lambda: _dequeue(tf, "other") - ROWS) - tf.cond(p, lambda: ROWS, lambda: -ROWS)


def staged(tf: Any, w: Any, p: Any) -> Any:
    """Ops without inputs, which wait for the branch."""

    def unstage(name: str) -> Any:
        return tf.raw_ops.Unstage(dtypes=[tf.float32], shared_name=f"area_{name}", name=f"{name}/")[0]

    return tf.cond(p, lambda: unstage("one"), lambda: unstage("other"))


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
@pytest.mark.parametrize("build", [queues, iterators, used_in_the_branch, staged])
def test_each_branch_keeps_its_own_input(build: Build, named: bool, tmp_path: Path) -> None:
    model = _model(build, tmp_path)
    frozen = gr.freeze(model, "y", ["one", "other", "p"] if named else None)
    assert {frozen.graph.node(name).op for name in ("one", "other", "p")} == {"Placeholder"}
    assert not [node for node in frozen.graph.nodes.values() if "Queue" in node.op or "Iterator" in node.op]
    if not named:
        assert sum("is cut: feed" in note for note in frozen.notes) == 2
    for p in (True, False):
        feeds = {"one:0": ROWS, "other:0": 100 * ROWS, "p:0": p}
        np.testing.assert_array_equal(_run(frozen, feeds), (ROWS if p else 100 * ROWS) * [1, 2, 3])
        np.testing.assert_array_equal(_run(gr.simplify(frozen), feeds), (ROWS if p else 100 * ROWS) * [1, 2, 3])


def nested(tf: Any, w: Any, p: Any) -> Any:
    q = tf.placeholder(tf.bool, [], "q")

    def inner() -> Any:
        return tf.cond(q, lambda: _dequeue(tf, "both"), lambda: _dequeue(tf, "first") + ROWS)

    return tf.cond(p, inner, lambda: tf.cond(q, lambda: _dequeue(tf, "second"), lambda: tf.constant(ROWS)))


@pytest.mark.usefixtures("switches")
def test_conds_in_conds(tmp_path: Path) -> None:
    frozen = gr.freeze(_model(nested, tmp_path), "y")
    feeds = {"both:0": 10 * ROWS, "first:0": 100 * ROWS, "second:0": 1000 * ROWS}
    expected = {(True, True): 10, (True, False): 101, (False, True): 1000, (False, False): 1}
    for (p, q), times in expected.items():
        np.testing.assert_array_equal(_run(frozen, {**feeds, "p:0": p, "q:0": q}), times * ROWS * [1, 2, 3])


def several_outputs(tf: Any, w: Any, p: Any) -> Any:
    def taken() -> Any:
        _, second, third = _dequeue(tf, "one", 3)
        return second + 2 * third

    return tf.cond(p, taken, lambda: _dequeue(tf, "other"))


@pytest.mark.usefixtures("switches")
def test_a_dequeue_of_several_tensors_in_a_branch(tmp_path: Path) -> None:
    frozen = gr.freeze(_model(several_outputs, tmp_path), "y")
    assert "QueueDequeueV2 one is cut: feed one:1, one:2" in frozen.notes
    for p in (True, False):
        feeds = {"one:1": ROWS, "one:2": 10 * ROWS, "other:0": ROWS / 2, "p:0": p}
        np.testing.assert_array_equal(_run(frozen, feeds), (21 if p else 0.5) * ROWS * [1, 2, 3])


def predicate_from_a_queue(tf: Any, w: Any, p: Any) -> Any:
    flag = tf.FIFOQueue(5, [tf.bool], [[]]).dequeue(name="flag")
    return tf.cond(flag, lambda: _dequeue(tf, "one"), lambda: _dequeue(tf, "other"))


@pytest.mark.usefixtures("switches")
def test_a_predicate_that_only_the_branch_needs_is_cut_as_well(tmp_path: Path) -> None:
    frozen = gr.freeze(_model(predicate_from_a_queue, tmp_path), "y")
    assert frozen.graph.node("flag").op == "Placeholder" and "p" not in frozen.graph.nodes
    for p in (True, False):
        feeds = {"one:0": ROWS, "other:0": -ROWS, "flag:0": p}
        np.testing.assert_array_equal(_run(frozen, feeds), (ROWS if p else -ROWS) * [1, 2, 3])


@pytest.mark.usefixtures("switches")
def test_a_branch_that_is_chosen_for_good_needs_no_predicate(tmp_path: Path) -> None:
    frozen = gr.freeze(_model(queues, tmp_path), "y", constants={"p": False})
    assert "one" not in frozen.graph.nodes and "p" not in frozen.graph.nodes
    np.testing.assert_array_equal(_run(frozen, {"other:0": ROWS}), ROWS * [1, 2, 3])


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("build", [queues, nested, several_outputs])
def test_verify_gives_the_original_what_its_queue_would(build: Build, tmp_path: Path) -> None:
    model = _model(build, tmp_path)
    frozen = gr.freeze(model, "y")
    for p in (True, False):
        for q in (True, False):
            given = {"p": p, **({"q": q} if "q" in frozen.graph.nodes else {})}
            assert gr.verify(model, frozen, given, allow_unsafe_ops=True).ok
    swapped = gr.freeze(_model(lambda tf, w, p: queues(tf, w, tf.logical_not(p)), tmp_path), "y")
    if build is queues:
        assert not gr.verify(model, swapped, {"one:0": ROWS, "other:0": -ROWS, "p": True}, allow_unsafe_ops=True).ok


@pytest.mark.usefixtures("switches")
def test_exports_and_modules_keep_the_cond(tmp_path: Path) -> None:
    import tensorflow as tf

    model = _model(queues, tmp_path)
    gr.export(model, tmp_path / "saved", format="saved_model", fetches="y")
    serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    module = gr.as_module(model, "y", ["one", "other", "p"])
    for p in (True, False):
        given = {"one": ROWS, "other": 100 * ROWS, "p": p}
        expected = (ROWS if p else 100 * ROWS) * [1, 2, 3]
        (found,) = serve(**{name: tf.constant(value) for name, value in given.items()}).values()
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(module(ROWS, 100 * ROWS, p)["y"], expected)


def fed_branch(tf: Any, w: Any, p: Any) -> Any:
    return tf.cond(p, lambda: tf.square(tf.identity(w + ROWS, "inside")), lambda: w - ROWS)


@pytest.mark.usefixtures("switches")
def test_any_other_feed_in_a_branch_is_told_where_it_leaves_the_outcome_open(tmp_path: Path) -> None:
    model = _model(fed_branch, tmp_path)
    inside = next(node.name for node in model.graph.nodes.values() if node.name.endswith("inside"))
    with pytest.warns(gr.GraphRestoreWarning, match=f"feed {inside} lies in a branch of a cond.*feed what the cond"):
        frozen = gr.freeze(model, "y", [inside, "p"])
    np.testing.assert_array_equal(_run(frozen, {f"{inside}:0": ROWS, "p:0": True}), ROWS * ROWS * [1, 2, 3])
    squared = next(node.name for node in model.graph.nodes.values() if node.op == "Square")
    with warnings.catch_warnings():
        warnings.simplefilter("error", gr.GraphRestoreWarning)
        frozen = gr.freeze(model, squared, inside)
    np.testing.assert_array_equal(_run(frozen, {f"{inside}:0": ROWS}, f"{squared}:0"), ROWS * ROWS)


# -- loops ------------------------------------------------------------------------------------------------------------


def queue_in_loop(tf: Any, w: Any, p: Any) -> Any:
    queue = tf.FIFOQueue(5, [tf.float32], [[2, 3]])
    return tf.while_loop(
        lambda i, _: i < 3, lambda i, s: (i + 1, s + queue.dequeue(name="rows")), [0, tf.zeros([2, 3])]
    )[1]


def iterator_in_loop(tf: Any, w: Any, p: Any) -> Any:
    rows = tf.data.make_initializable_iterator(tf.data.Dataset.from_tensors(ROWS).repeat())
    return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, s + rows.get_next("rows")), [0, tf.zeros([2, 3])])[1]


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
@pytest.mark.parametrize("build", [queue_in_loop, iterator_in_loop])
def test_what_a_loop_takes_at_every_turn_is_refused(build: Build, named: bool, tmp_path: Path) -> None:
    model = _model(build, tmp_path)
    name = next(node.name for node in model.graph.nodes.values() if node.name.endswith("rows"))
    with pytest.raises(
        gr.FreezeError, match=rf"{name}.*while loop while/while_context.*feed what .*while/Exit_1:0"
    ) as e:
        gr.freeze(model, "y", name if named else None)
    assert list(e.value.nodes) == [name]
    with pytest.raises(gr.FreezeError, match="while loop"):
        gr.export(model, tmp_path / "saved", format="saved_model", fetches="y")
    frozen = gr.freeze(model, "y", "while/Exit_1")
    np.testing.assert_array_equal(_run(frozen, {"while/Exit_1:0": ROWS}), ROWS * [1, 2, 3])


def loop(tf: Any, w: Any, p: Any) -> Any:
    def turn(i: Any, s: Any) -> Any:
        return i + 1, tf.identity(tf.identity(s, "taken") * w, "turned") + 1

    return tf.while_loop(lambda i, _: i < 3, turn, [0, tf.constant(ROWS)])[1]


@pytest.mark.usefixtures("switches")
def test_feeds_and_fetches_in_a_loop(tmp_path: Path) -> None:
    model = _model(loop, tmp_path)
    for feed in (
        "while/turned",
        "while/Merge_1",
        "while/LoopCond",
        "while/Switch_1:1",
        "while/Switch_1:0",
        "while/Enter_1",
    ):
        with pytest.raises(
            gr.FreezeError, match=rf"{feed}.* is fed and lies in the while loop.*feed what .*while/Exit"
        ):
            gr.freeze(model, "y", feed)
    for fetch in ("while/turned", "while/Merge_1", "while/LoopCond", "while/Switch_1:1", "while/Enter_1"):
        with pytest.raises(gr.FreezeError, match=rf"{fetch}.* is fetched and lies in the while loop.*while/Exit_1:0"):
            gr.freeze(model, fetch)
    frozen = gr.freeze(model, "while/Exit_1")
    np.testing.assert_array_equal(_run(frozen, {}, "while/Exit_1:0"), _turned(3))
    with pytest.warns(gr.GraphRestoreWarning, match="while/turned is not needed"):
        gr.freeze(model, "w", "while/turned")


def _turned(turns: int) -> Any:
    rows = ROWS
    for _ in range(turns):
        rows = rows * np.float32([1, 2, 3]) + 1
    return rows


def loop_in_loop(tf: Any, w: Any, p: Any) -> Any:
    def turn(i: Any, s: Any) -> Any:
        return i + 1, tf.while_loop(lambda j, _: j < 2, lambda j, r: (j + 1, r + w), [0, s])[1]

    return tf.while_loop(lambda i, _: i < 3, turn, [0, tf.constant(ROWS)])[1]


@pytest.mark.usefixtures("switches")
def test_what_an_inner_loop_gives_lies_in_the_outer_one(tmp_path: Path) -> None:
    model = _model(loop_in_loop, tmp_path)
    for options in ({"fetches": "while/while/Exit_1"}, {"fetches": "y", "feeds": "while/while/Exit_1"}):
        with pytest.raises(gr.FreezeError, match=r"lies in the while loop while/while_context, .*while/Exit_1:0\)"):
            gr.freeze(model, **options)
    np.testing.assert_array_equal(_run(gr.freeze(model, "y"), {}), (ROWS + [6, 12, 18]) * [1, 2, 3])


def sums_in_loop(tf: Any, w: Any, p: Any) -> Any:
    turn = lambda i, s: (i + 1, tf.identity(s + s, "twice") * tf.identity(s, "once"))  # noqa: E731
    return tf.while_loop(lambda i, _: i < 3, turn, [0, tf.constant(ROWS)])[1]


@pytest.mark.usefixtures("switches")
def test_what_needs_nothing_of_the_loop_is_cut_out_of_it(tmp_path: Path) -> None:
    model = _model(sums_in_loop, tmp_path)
    fetch = model.graph.consumers["while/once"][0][0].name
    frozen = gr.freeze(model, fetch, ["while/once", "while/twice"])
    feeds = {"while/once:0": ROWS, "while/twice:0": 2 * ROWS}
    np.testing.assert_array_equal(_run(frozen, feeds, f"{fetch}:0"), 2 * ROWS * ROWS)


# -- functions --------------------------------------------------------------------------------------------------------


def in_branches(tf: Any, w: Any, p: Any) -> Any:
    data = tf.data.Dataset.from_tensors(ROWS).repeat()
    one, other = tf.data.make_initializable_iterator(data), tf.data.make_initializable_iterator(data)
    return tf.cond(p, lambda: one.get_next(), lambda: other.get_next())


def in_turns(tf: Any, w: Any, p: Any) -> Any:
    return queue_in_loop(tf, w, p)


def in_a_call(tf: Any, w: Any, p: Any) -> Any:
    import tensorflow

    queue = tf.FIFOQueue(5, [tf.float32], [[2, 3]])
    inner = tensorflow.function(lambda: queue.dequeue())
    return tensorflow.function(lambda: inner() * 2.0)()


def own_and_given(tf: Any, w: Any, p: Any) -> Any:
    import tensorflow

    queue = tf.FIFOQueue(5, [tf.float32], [[2, 3]])
    return tensorflow.function(lambda: next(iter(tf.data.Dataset.from_tensors(ROWS))) + queue.dequeue())()


@pytest.mark.parametrize(
    ("build", "op", "reader"),
    [
        (in_branches, "If", "IteratorGetNext"),
        (in_turns, "While", "QueueDequeueV2"),
        (in_a_call, "StatefulPartitionedCall", "QueueDequeueV2"),
        (own_and_given, "StatefulPartitionedCall", "QueueDequeueV2"),
    ],
)
def test_what_a_function_takes_is_refused(build: Build, op: str, reader: str, tmp_path: Path) -> None:
    model = _model(build, tmp_path)
    with pytest.raises(
        gr.FreezeError, match=rf"\({op}\) takes from .*\({reader}\) in function .*feed what the call"
    ) as e:
        gr.freeze(model, "y")
    (call,) = e.value.nodes
    assert model.graph.node(call).op == op
    output = str(e.value).rsplit(" ", 1)[1]
    frozen = gr.freeze(model, "y", output)
    np.testing.assert_array_equal(_run(frozen, {output: ROWS}), ROWS * [1, 2, 3])


def one_shot(tf: Any, w: Any, p: Any) -> Any:
    rows = tf.data.make_one_shot_iterator(tf.data.Dataset.from_tensors(ROWS).repeat())
    return tf.cond(p, lambda: rows.get_next(), lambda: -rows.get_next())


def test_a_one_shot_iterator_that_a_function_reads_is_told(tmp_path: Path) -> None:
    model = _model(one_shot, tmp_path)
    with pytest.warns(gr.GraphRestoreWarning, match="the iterator stays, with the data it was made with; feed cond:0"):
        frozen = gr.freeze(model, "y")
    assert len(frozen.notes) == 1
    for p in (True, False):
        np.testing.assert_array_equal(_run(frozen, {"p:0": p}), (ROWS if p else -ROWS) * [1, 2, 3])


def own_iterator(tf: Any, w: Any, p: Any) -> Any:
    import tensorflow

    @tensorflow.function  # type: ignore[untyped-decorator]
    def total() -> Any:
        found = tf.zeros([2, 3])
        for rows in tf.data.Dataset.from_tensors(ROWS).repeat(3):
            found += rows
        return found + next(iter(tf.data.Dataset.from_tensors(ROWS)))

    return total()


def test_an_iterator_that_a_function_makes_for_itself_is_its_own_affair(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", gr.GraphRestoreWarning)
        frozen = gr.freeze(_model(own_iterator, tmp_path), "y")
    assert any(node.op == "IteratorGetNext" for f in frozen.graph.functions.values() for node in f.node_def)
    np.testing.assert_array_equal(_run(frozen, {}), 4 * ROWS * [1, 2, 3])
