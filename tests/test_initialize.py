"""First values of variables that no checkpoint holds: those that TensorFlow's own initializers give, or none."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr
from graph_restore.tensors import FilledTensor


def _node(name: str, op: str, *inputs: str, **attrs: str) -> str:
    """A NodeDef as text; attrs are AttrValues as text."""
    taken = "".join(f' input: "{item}"' for item in inputs)
    facts = "".join(f' attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attrs.items())
    return f'node {{ name: "{name}" op: "{op}"{taken}{facts} }}\n'


def _shape(*sizes: int) -> str:
    return f"shape {{ {' '.join(f'dim {{ size: {size} }}' for size in sizes)} }}"


def _const(name: str, kind: str, sizes: tuple[int, ...], values: str) -> str:
    tensor = f"tensor {{ dtype: {kind} tensor_{_shape(*sizes)} {values} }}"
    return _node(name, "Const", dtype=f"type: {kind}", value=tensor)


def _variable(name: str, kind: str, sizes: tuple[int, ...], initial: str) -> str:
    """A ref variable with its initializer."""
    declared = _node(name, "VariableV2", dtype=f"type: {kind}", shape=_shape(*sizes))
    return declared + _node(f"{name}/Assign", "Assign", name, initial, T=f"type: {kind}")


# `one` is [1.5, -2, 4], `two` [[2], [0.25]], `count` [2, 3]
CONSTANTS = (
    _const("one", "DT_FLOAT", (3,), "float_val: [1.5, -2, 4]")
    + _const("two", "DT_FLOAT", (2, 1), "float_val: [2, 0.25]")
    + _const("count", "DT_INT32", (2,), "int_val: [2, 3]")
    + _const("flat", "DT_INT32", (1,), "int_val: [-1]")
    + _const("axis", "DT_INT32", (), "int_val: 0")
    + _const("nothing", "DT_INT32", (2,), "int_val: [0, 3]")
    + _const("six", "DT_INT32", (), "int_val: 6")
    + _const("step", "DT_INT32", (), "int_val: 2")
    + _const("words", "DT_STRING", (2,), r'string_val: ["a\000", "bc"]')
    + _const("word", "DT_STRING", (), r'string_val: "x\000"')
)
FLOAT = {"T": "type: DT_FLOAT"}
ONE, TWO = np.float32([1.5, -2, 4]), np.float32([[2], [0.25]])

# the initializer's nodes, of which `given` is what is assigned; dtype of the variable; the value told by hand
GIVEN: dict[str, tuple[str, str, Any]] = {
    "Const": (_node("given", "Identity", "one", **FLOAT), "DT_FLOAT", ONE),
    "Fill": (_node("given", "Fill", "count", "six", T="type: DT_INT32"), "DT_INT32", np.full((2, 3), 6, np.int32)),
    "Fill of no elements": (
        _node("given", "Fill", "nothing", "six", T="type: DT_INT32"), "DT_INT32", np.zeros((0, 3), np.int32)),
    "Fill of strings": (
        _node("given", "Fill", "count", "word", T="type: DT_STRING"), "DT_STRING", np.full((2, 3), b"x\0", object)),
    "Cast": (_node("given", "Cast", "one", DstT="type: DT_INT32"), "DT_INT32", np.int32([1, -2, 4])),
    "Cast to half": (_node("given", "Cast", "one", DstT="type: DT_HALF"), "DT_HALF", np.float16([1.5, -2, 4])),
    "Reshape": (_node("given", "Reshape", "two", "flat", **FLOAT), "DT_FLOAT", np.float32([2, 0.25])),
    "Reshape of strings": (
        _node("given", "Reshape", "words", "flat"), "DT_STRING", np.array([b"a\0", b"bc"], object)),
    "ExpandDims": (_node("given", "ExpandDims", "one", "axis", **FLOAT), "DT_FLOAT", ONE[None]),
    "ExpandDims of strings": (
        _node("given", "ExpandDims", "words", "axis"), "DT_STRING", np.array([[b"a\0", b"bc"]], object)),
    "ZerosLike": (_node("given", "ZerosLike", "one", **FLOAT), "DT_FLOAT", np.float32([0, 0, 0])),
    "OnesLike": (_node("given", "OnesLike", "two", **FLOAT), "DT_FLOAT", np.float32([[1], [1]])),
    "Shape": (_node("given", "Shape", "two", out_type="type: DT_INT64"), "DT_INT64", np.int64([2, 1])),
    "Pack": (_node("given", "Pack", "one", "one", axis="i: 1"), "DT_FLOAT", np.float32([[1.5, 1.5], [-2, -2], [4, 4]])),
    "ConcatV2": (_node("given", "ConcatV2", "one", "one", "axis"), "DT_FLOAT", np.float32([1.5, -2, 4, 1.5, -2, 4])),
    "Range": (_node("given", "Range", "axis", "six", "step"), "DT_INT32", np.int32([0, 2, 4])),
    "Transpose": (
        _const("order", "DT_INT32", (2,), "int_val: [1, 0]") + _node("given", "Transpose", "two", "order"),
        "DT_FLOAT", np.float32([[2, 0.25]])),
    "Add": (_node("given", "Add", "one", "two"), "DT_FLOAT", np.float32([[3.5, 0, 6], [1.75, -1.75, 4.25]])),
    "Sub": (_node("given", "Sub", "two", "one"), "DT_FLOAT", np.float32([[0.5, 4, -2], [-1.25, 2.25, -3.75]])),
    "Mul": (_node("given", "Mul", "one", "one"), "DT_FLOAT", np.float32([2.25, 4, 16])),
    "Neg and control inputs": (_node("given", "Neg", "one", "^two"), "DT_FLOAT", np.float32([-1.5, 2, -4])),
    "Sqrt": (_node("given", "Sqrt", "two"), "DT_FLOAT", np.float32([[np.float32(2) ** 0.5], [0.5]])),
}  # fmt: skip

# and the word that says why there is no value
REFUSED: dict[str, tuple[str, str, str]] = {
    "random": (_node("given", "RandomUniform", "count", dtype="type: DT_FLOAT"), "DT_FLOAT", "is a RandomUniform"),
    "fed": (_node("given", "Placeholder", dtype="type: DT_FLOAT"), "DT_FLOAT", "no initializer"),
    "of another type": (_node("given", "Identity", "count"), "DT_FLOAT", "of type DT_INT32"),
    "Cast to bfloat16": (
        _node("given", "Cast", "one", DstT="type: DT_BFLOAT16"), "DT_BFLOAT16", "old releases cut where new"),
    "no such node": (_node("given", "Identity", "lost"), "DT_FLOAT", "lost is no constant"),
    "an op without inputs": (_node("given", "Identity"), "DT_FLOAT", "lacks inputs"),
    "a cycle of nodes": (
        _node("given", "Identity", "back") + _node("back", "Identity", "given"), "DT_FLOAT", "needs itself"),
    "a cycle of a loop": (
        _node("given", "Merge", "back") + _node("back", "Identity", "on") + _node("on", "Identity", "back"),
        "DT_FLOAT", "depends on a cond"),
    "shapes that do not fit": (_node("given", "Reshape", "one", "count"), "DT_FLOAT", "Reshape"),
    "a negative size": (
        _node("given", "Fill", "flat", "six", T="type: DT_INT32"), "DT_INT32", "negative"),
    "Fill of no scalar": (_node("given", "Fill", "count", "one", **FLOAT), "DT_FLOAT", "reshape"),
    "a range of floats": (
        _const("low", "DT_FLOAT", (), "float_val: 0") + _const("high", "DT_FLOAT", (), "float_val: 1")
        + _const("by", "DT_FLOAT", (), "float_val: 0.1") + _node("given", "Range", "low", "high", "by"),
        "DT_FLOAT", "round it differently"),
    "a range without a step": (_node("given", "Range", "axis", "six", "axis"), "DT_INT32", "Range"),
    "a range of gigabytes": (
        _const("end", "DT_INT64", (), "int64_val: 1099511627776") + _const("begin", "DT_INT64", (), "int64_val: 0")
        + _const("by", "DT_INT64", (), "int64_val: 1") + _node("given", "Range", "begin", "end", "by"),
        "DT_INT64", "too large"),
    "a product of terabytes": (
        _const("tall", "DT_FLOAT", (1 << 20, 1), "float_val: 1")
        + _const("wide", "DT_FLOAT", (1, 1 << 20), "float_val: 1")
        + _node("given", "Mul", "tall", "wide"), "DT_FLOAT", "too large"),
    "strings by the million": (
        _const("many", "DT_INT32", (2,), "int_val: [65536, 65536]") + _node("given", "Fill", "many", "word"),
        "DT_STRING", "too large"),
    "a Fill of terabytes": (
        _const("many", "DT_INT32", (2,), "int_val: [1048576, 1048576]")
        + _node("given", "Fill", "many", "six", T="type: DT_INT32"), "DT_INT32", "spreads 1 stored values"),
}  # fmt: skip


def _model(kind: str, nodes: str, shape: str = "shape { unknown_rank: true }") -> gr.Model:
    variable = _node("v", "VarHandleOp", dtype=f"type: {kind}", shape=shape)
    assign = _node("v/Assign", "AssignVariableOp", "v", "given", dtype=f"type: {kind}")
    return gr.load((variable + assign + CONSTANTS + nodes).encode())


def _expect_same(found: Any, expected: np.ndarray[Any, Any]) -> None:
    array = found.read()
    assert array.dtype == expected.dtype and array.shape == expected.shape
    if expected.dtype == object:
        assert array.tolist() == expected.tolist()
    else:
        assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("what", GIVEN)
def test_constant_initializers(what: str) -> None:
    nodes, kind, expected = GIVEN[what]
    model = gr.initialize(_model(kind, nodes))
    _expect_same(model.variables["v"].value, expected)
    assert model.variables["v"].authority["value"] == "initializer"
    assert model.notes[-1] == "1 variables have their first value: v"


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_certain_is_told(what: str) -> None:
    nodes, kind, reason = REFUSED[what]
    model = _model(kind, nodes)
    tracemalloc.start()
    initialized = gr.initialize(model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert initialized.variables["v"].value is None and peak < 32 << 20
    assert initialized.notes[-1].startswith("1 variables stay without a value: v (")
    assert reason in initialized.notes[-1]


def test_the_shape_must_be_the_variables() -> None:
    model = gr.initialize(_model("DT_FLOAT", _node("given", "Identity", "one"), _shape(2, 2)))
    assert model.variables["v"].value is None and "of shape [3]" in model.notes[-1]


def test_a_large_fill_is_never_allocated() -> None:
    nodes = _const("sizes", "DT_INT32", (2,), "int_val: [1048576, 1024]") + _const(
        "zero", "DT_FLOAT", (), "float_val: 0.5"
    )
    model = _model("DT_FLOAT", nodes + _node("given", "Fill", "sizes", "zero", T="type: DT_FLOAT"))
    tracemalloc.start()
    value = gr.initialize(model).variables["v"].value
    assert isinstance(value, FilledTensor) and value.shape == (1 << 20, 1 << 10) and value.nbytes == 1 << 32
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def _read(name: str) -> str:
    return _node(f"{name}/read", "Identity", name)


PAIR = (
    _const("start", "DT_FLOAT", (2, 3), "float_val: [1, 2, 3, 4, 5, 6]")
    + _variable("first", "DT_FLOAT", (2, 3), "start")
    + _read("first")
)


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize(
    ("nodes", "shape", "function"),
    [
        (_node("from", "Identity", "first/read"), (2, 3), lambda value: value),
        (_const("n", "DT_INT32", (1,), "int_val: 6") + _node("from", "Reshape", "first/read", "n"), (6,), np.ravel),
        (_node("from", "Cast", "first/read", DstT="type: DT_FLOAT"), (2, 3), lambda value: value),
        (_node("from", "ZerosLike", "first/read"), (2, 3), np.zeros_like),
        (_node("from", "Neg", "first"), (2, 3), np.negative),
    ],
    ids=["copied", "reshaped", "cast", "zeros", "negated"],
)  # fmt: skip
def test_made_of_another_variable(nodes: str, shape: tuple[int, ...], function: Any, restored: bool) -> None:
    """The other's restored value, or else its own first one, with all that is done to it on the way."""
    second = _node("second", "VariableV2", dtype="type: DT_FLOAT", shape=_shape(*shape))
    assigns = _node("second/Assign", "Assign", "second", "from") + _node(
        "init", "NoOp", "^first/Assign", "^second/Assign"
    )
    model = gr.load((PAIR + nodes + second + assigns).encode())
    start = np.float32([[1, 2, 3], [4, 5, 6]])
    if restored:
        start = start * 3
        model = gr.restore(model, {"first": start})
    initialized = gr.initialize(model)
    _expect_same(initialized.variables["first"].value, start)
    _expect_same(initialized.variables["second"].value, np.ascontiguousarray(function(start)))


def test_a_large_variable_is_not_read_for_its_shape() -> None:
    sizes = (1 << 20, 64)
    nodes = _variable("big", "DT_FLOAT", sizes, "lost") + _read("big") + _node("sizes", "Shape", "big/read")
    zero = _const("zero", "DT_FLOAT", (), "float_val: 0")
    model = gr.load((nodes + zero + _node("zeros", "Fill", "sizes", "zero", T="type: DT_FLOAT")
                     + _variable("slot", "DT_FLOAT", sizes, "zeros") + _node("like", "ZerosLike", "big/read")
                     + _variable("other", "DT_FLOAT", sizes, "like")).encode())  # fmt: skip
    big = FilledTensor("big", 1, sizes, np.float32([7]))
    initialized = gr.initialize(gr.restore(model, {"big": big}))
    for name in ("slot", "other"):
        value = initialized.variables[name].value
        assert isinstance(value, FilledTensor) and value.shape == sizes and value[5, :2].tolist() == [0, 0]


def _cond(true: str, false: str) -> str:
    """`cond(is_variable_initialized(first), ...)` as TF1 writes it: Switches into, a Merge out of the branches."""
    return (
        PAIR
        + _node("test", "IsVariableInitialized", "first")
        + _node("cond/pred_id", "Identity", "test")
        + _node("cond/read/Switch", "Switch", "first/read", "cond/pred_id")
        + _node("cond/start/Switch", "Switch", "start", "cond/pred_id")
        + true
        + false
        + _node("given", "Merge", "cond/false", "cond/true")
        + _variable("shadow", "DT_FLOAT", (2, 3), "given")
    )


FALSE = _node("cond/false", "Identity", "cond/start/Switch")


def test_initialized_value() -> None:
    model = gr.load(_cond(_node("cond/true", "Identity", "cond/read/Switch:1"), FALSE).encode())
    first = np.float32([[1, 2, 3], [4, 5, 6]])
    _expect_same(gr.initialize(model).variables["shadow"].value, first)
    restored = gr.initialize(gr.restore(model, {"first": first * 2}))
    _expect_same(restored.variables["shadow"].value, first * 2)


@pytest.mark.parametrize(
    "true",
    [
        _node("cond/true", "Neg", "cond/read/Switch:1"),  # its false branch is what initialized_value has
        _node("cond/other/Switch", "Switch", "start", "cond/pred_id")
        + _node("cond/true", "Identity", "cond/other/Switch:1"),
    ],
    ids=["computes", "another tensor"],
)  # fmt: skip
def test_other_conds_are_not_taken_for_it(true: str) -> None:
    initialized = gr.initialize(gr.load(_cond(true, FALSE).encode()))
    assert initialized.variables["shadow"].value is None
    assert "shadow (given depends on a cond)" in initialized.notes[-1]


def test_two_variables_that_need_each_other() -> None:
    nodes = "".join(
        _node(one, "VarHandleOp", dtype="type: DT_FLOAT", shape=_shape(2))
        + _node(f"{one}/Read", "ReadVariableOp", one)
        + _node(f"{one}/Neg", "Neg", f"{one}/Read")
        + _node(f"{one}/Assign", "AssignVariableOp", one, f"{two}/Neg")
        for one, two in (("a", "b"), ("b", "a"))
    )
    model = gr.initialize(gr.load(nodes.encode()))
    assert [variable.value for variable in model.variables] == [None, None]
    assert "needs itself" in model.notes[-1]


def test_what_has_a_value_keeps_it() -> None:
    model = gr.load(PAIR.encode())
    restored = gr.restore(model, {"first": np.full((2, 3), 9, np.float32)})
    assert gr.initialize(restored).variables["first"] == restored.variables["first"]
    assert gr.initialize(restored).notes == ()
    assert model.variables["first"].value is None  # and the model given stays as it was


@pytest.mark.parametrize("one", cases("mlp"), ids=lambda one: one.id)
def test_slots_and_moving_averages_after_restoring(one: Case) -> None:
    """A model restored without them: slots start as zeros, shadows as their variable is now."""
    assert one.meta is not None
    restored = gr.restore(gr.load(one.meta), one.prefix, exclude=["slots", "moving_averages"])
    initialized = gr.initialize(restored)
    slots = [variable for variable in initialized.variables if variable.is_slot]
    shadows = [variable for variable in initialized.variables if variable.moving_average_of]
    assert len(slots) == 8 and len(shadows) == 4
    for variable in slots:
        value = one.oracle["variables"][f"{variable.name}:0"]
        _expect_same(variable.value, np.zeros_like(value))
    for variable in shadows:
        _expect_same(variable.value, one.oracle["variables"][f"{variable.moving_average_of}:0"])


def test_random_ones_are_listed() -> None:
    one = case("mlp/tf1.15.5-v2")
    model = gr.initialize(gr.load(one.graph_pb))
    assert {variable.name for variable in model.variables if variable.value is None} == {
        name.removesuffix(":0") for name in one.facts["variables"] if "weights" in name and "/Adam" not in name
    }
    assert "hidden/weights (hidden/weights/Initializer/" in model.notes[-1]


@pytest.mark.tensorflow
@pytest.mark.parametrize("one", cases(), ids=lambda one: one.id)
def test_as_tensorflow_initializes(one: Case) -> None:
    import tensorflow as tf

    initialized = gr.initialize(gr.load(one.meta or one.graph_pb))
    given = [variable for variable in initialized.variables if variable.value is not None]
    assigns = [variable.initializer for variable in initialized.variables if variable.initializer]
    if not given:
        pytest.skip("no constant initializer in this graph")
    whole = tf.compat.v1.GraphDef.FromString(initialized.graph.materialize().SerializeToString())
    for node in whole.node:
        node.device = ""
        node.attr.pop("_class", None)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.import_graph_def(tf.compat.v1.graph_util.extract_sub_graph(whole, assigns), name="")
        for name in assigns * 2:  # the second time with what the first one left uninitialized
            _try_to_run(session, name)
        for variable in given:
            tensor = graph.get_tensor_by_name(f"{variable.name}:0")
            if variable.kind == "resource":
                tensor = tf.raw_ops.ReadVariableOp(resource=tensor, dtype=int(variable.data_type))
            expected = session.run(tensor)
            _expect_same(
                variable.value,
                np.array(expected, variable.dtype) if isinstance(expected, bytes) else np.asarray(expected),
            )


def _try_to_run(session: Any, name: str) -> None:
    import tensorflow as tf

    with contextlib.suppress(tf.errors.FailedPreconditionError):  # it reads a variable whose turn comes later
        session.run(name)


@pytest.mark.tensorflow
@pytest.mark.parametrize("one", cases("metrics_local"), ids=lambda one: one.id)
def test_local_variables_of_metrics_freeze(one: Case) -> None:
    """No checkpoint holds them; frozen with their first values, the graph gives what the first run gave."""
    import tensorflow as tf

    restored = gr.restore(gr.load(one.graph_pb), one.prefix)
    assert restored.restoration is not None and restored.restoration.missing
    for run in one.oracle["runs"]:
        frozen = gr.freeze(gr.initialize(restored), list(run["outputs"]), list(run["feeds"]))
        graph_def = tf.compat.v1.GraphDef.FromString(frozen.graph.materialize().SerializeToString())
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.import_graph_def(graph_def, name="")
            found = session.run(list(run["outputs"]), run["feeds"])
        for value, (name, expected) in zip(found, run["outputs"].items()):
            np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=name)
