"""The cases that TensorFlow tests its own freezing with, built anew and asked of ours; what they assert is kept.

From freeze_graph_test, graph_util_test, convert_to_constants_test (session and SavedModel classes), strip_unused_test
and optimize_for_inference_test in tensorflow/python. Where ours does more, the case is turned round and says so. Models
are built, saved and run by the TensorFlow that is installed: its answers are the expected values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graph_restore as gr
from graph_restore import freeze_graph
from graph_restore.variables import VARIABLE_OPS

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]
READS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd"}
Build = Callable[..., Any]


def ops_in(graph_def: Any) -> set[str]:
    """The ops of a graph and of its functions."""
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    return {node.op for node in nodes}


def expect_frozen(graph_def: Any) -> None:
    assert ops_in(graph_def) & (VARIABLE_OPS | READS) == set()
    resources = [node.name for node in graph_def.node for value in node.attr.values() if value.type == 20]
    assert resources == []


def run(graph_def: Any, fetches: Any, feeds: dict[str, Any] | None = None) -> Any:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(tf.GraphDef.FromString(graph_def.SerializeToString()), name="")
        return session.run(fetches, feeds)


# -- freeze_graph_test ------------------------------------------------------------------------------------------------


def doubled(tf: Any, resource: bool = False) -> Any:
    """A variable of 1.0 times 2.0, of either kind."""
    variable = tf.get_variable("variable_node", initializer=1.0, use_resource=resource)
    return tf.multiply(variable, 2.0, name="output_node")


def saved(folder: Path, version: int = 2, resource: bool = False) -> str:
    """`doubled`, its graph as text and its MetaGraph and checkpoint; the checkpoint's prefix."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        doubled(tf, resource)
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(write_version=version)
        prefix = saver.save(session, str(folder / "saved_checkpoint"), global_step=0, latest_filename="state")
        tf.train.write_graph(session.graph, str(folder), "input_graph.pb")
        return str(prefix)


def call(prefix: str, outputs: str, *, graph: Path | None = None, meta: str | None = None, **more: Any) -> Any:
    text = str(graph) if graph is not None else None
    return freeze_graph.freeze_graph(
        text, "", meta is not None, prefix, outputs, "save/restore_all", "save/Const:0", more.pop("output", ""), False,
        "", input_meta_graph=meta, **more,
    )  # fmt: skip


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("version", [1, 2])
def test_freeze_graph(version: int, resource: bool, tmp_path: Path) -> None:
    """Theirs cannot take a resource variable from a GraphDef; ours can."""
    prefix = saved(tmp_path, version, resource)
    call(prefix, "output_node", graph=tmp_path / "input_graph.pb", output=str(tmp_path / "output.pb"))
    graph_def = gr.load(tmp_path / "output.pb").graph.materialize()
    assert len(graph_def.node) == 4
    expect_frozen(graph_def)
    assert run(graph_def, "output_node:0") == 2.0


def test_freeze_graph_of_the_oldest_variable_op(tmp_path: Path) -> None:
    """Op `Variable`, as 0.12 wrote it, which theirs leaves as it is without a word."""
    prefix = saved(tmp_path)
    path = tmp_path / "input_graph.pb"
    path.write_text(path.read_text().replace('op: "VariableV2"', 'op: "Variable"'))
    graph_def = call(prefix, "output_node", graph=path)
    assert len(graph_def.node) == 4
    expect_frozen(graph_def)
    assert run(graph_def, "output_node:0") == 2.0


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_freeze_meta_graph(resource: bool, tmp_path: Path) -> None:
    prefix = saved(tmp_path, resource=resource)
    graph_def = call(prefix, "output_node", meta=f"{prefix}.meta")
    assert len(graph_def.node) == 4
    expect_frozen(graph_def)
    assert run(graph_def, "output_node:0") == 2.0


@pytest.mark.parametrize("tags", [[], ["serve"]], ids=["no tags", "serve"])
def test_freeze_saved_model(tags: list[str], tmp_path: Path) -> None:
    """A model that parses tf.Examples: feature 2.0 gives 2.0."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        examples = tf.placeholder(tf.string, name="input_node")
        parsed = tf.parse_example(examples, {"x": tf.FixedLenFeature([1], tf.float32)})
        variable = tf.get_variable("variable_node", [], initializer=tf.ones_initializer(), use_resource=False)
        tf.multiply(parsed["x"], variable, name="output_node")
        session.run(tf.global_variables_initializer())
        builder = tf.saved_model.builder.SavedModelBuilder(str(tmp_path / "model"))
        builder.add_meta_graph_and_variables(session, tags)
        builder.save()
    graph_def = freeze_graph.freeze_graph(
        "", "", True, "", "output_node", None, None, str(tmp_path / "output.pb"), True, "", "", "", "",
        str(tmp_path / "model"), ",".join(tags),
    )  # fmt: skip
    expect_frozen(graph_def)
    assert len(graph_def.node) == 10  # 8 where tf.parse_example is still ParseExample
    example = tf.train.Example(features=tf.train.Features(feature={"x": feature(tf, 2.0)}))
    assert run(graph_def, "output_node:0", {"input_node:0": [example.SerializeToString()]}) == 2.0


def feature(tf: Any, value: float) -> Any:
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_single_partitioned_variable(resource: bool, tmp_path: Path) -> None:
    """Turned round: theirs raises a ValueError and asks for a SavedModel; ours freezes it from a GraphDef."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        partitioner = tf.fixed_size_partitioner(1)
        features = tf.constant([[1.0], [2.0]])
        with tf.variable_scope("part", partitioner=partitioner, use_resource=resource):
            weights = tf.get_variable("weights", [1, 3], initializer=tf.ones_initializer())
        tf.identity(tf.matmul(features, tf.convert_to_tensor(weights)), name="output_node")
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        graph_def = session.graph.as_graph_def()
    frozen = freeze_graph.freeze_graph_with_def_protos(
        graph_def, None, prefix, "output_node", "save/restore_all", "save/Const:0", "", False, ""
    )
    expect_frozen(frozen)
    assert run(frozen, "output_node:0").tolist() == [[1, 1, 1], [2, 2, 2]]


# -- graph_util_test: extract_sub_graph; strip_unused_test ------------------------------------------------------------


def chain() -> Any:
    """a -> b -> c (with a control input on f) -> d; e apart."""
    import tensorflow.compat.v1 as tf

    graph_def = tf.GraphDef()
    for name, inputs in {"a": [], "b": ["a"], "f": [], "c": ["b", "^f"], "d": ["c"], "e": ["a"]}.items():
        node = graph_def.node.add(name=name, op="Identity" if inputs else "Const", input=inputs)
        node.attr["dtype" if not inputs else "T"].type = 1
        if not inputs:
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1.0))
    return graph_def


def test_extract_sub_graph() -> None:
    """Control inputs are followed, the order is kept, and what is not needed is gone."""
    frozen = gr.freeze(gr.load(chain()), "d")
    assert [node.name for node in frozen.graph.graph_def.node] == ["a", "b", "f", "c", "d"]
    assert list(gr.freeze(gr.load(chain()), ["b", "e"]).graph.nodes) == ["a", "b", "e"]


def test_extract_sub_graph_with_a_single_name() -> None:
    """Turned round: theirs refuses a text where it wants a list; ours takes one name for one output."""
    assert list(gr.freeze(gr.load(chain()), "b").graph.nodes) == ["a", "b"]
    with pytest.raises(gr.NodeNotFoundError, match="no node 'g'"):
        gr.freeze(gr.load(chain()), "g")


def test_strip_unused() -> None:
    """A node in the middle becomes a placeholder of its dtype; what came before it is gone."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        constant = tf.constant(1.0, name="constant_node")
        wanted = tf.subtract(constant, 3.0, name="wanted_input_node")
        tf.multiply(wanted, 2.0, name="output_node")
        tf.add(wanted, 2.0, name="later_node")
    frozen = gr.freeze(gr.load(graph.as_graph_def()), "output_node", "wanted_input_node")
    assert set(frozen.graph.nodes) == {"wanted_input_node", "output_node/y", "output_node"}
    assert frozen.graph.node("wanted_input_node").op == "Placeholder"
    assert frozen.graph.node("wanted_input_node").attr["dtype"].type == tf.float32.as_datatype_enum
    assert run(frozen.graph.materialize(), "output_node:0", {"wanted_input_node:0": 10.0}) == 20.0


def test_strip_unused_multiple_inputs() -> None:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        first = tf.subtract(tf.constant(1.0), 3.0, name="input_node1")
        second = tf.cast(tf.subtract(tf.constant(1.0), 5.0), tf.float64, name="input_node2")
        tf.multiply(tf.cast(first, tf.float64), second, name="output_node")
        tf.add(first, 2.0, name="later_node")
    frozen = gr.freeze(gr.load(graph.as_graph_def()), "output_node", ["input_node1", "input_node2"])
    assert [frozen.graph.node(f"input_node{n}").attr["dtype"].type for n in (1, 2)] == [1, 2]
    assert run(frozen.graph.materialize(), "output_node:0", {"input_node1:0": 10.0, "input_node2:0": -5.0}) == -50.0


@pytest.mark.parametrize("dtypes", [None, {"input_node1": "float32", "input_node2": "float64"}])
def test_strip_unused_knows_dtypes(dtypes: Any) -> None:
    """Turned round: theirs is told the placeholders' types, one for all or a list; ours takes them from the graph."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        first = tf.constant(1, tf.float32 if dtypes else tf.int64, name="input_node1")
        second = tf.cast(tf.constant(1.0), tf.float64, name="input_node2")
        tf.multiply(tf.cast(first, tf.float64), second, name="output_node")
    frozen = gr.freeze(gr.load(graph.as_graph_def()), "output_node", ["input_node1", "input_node2"])
    found = {
        name: tf.as_dtype(frozen.graph.node(name).attr["dtype"].type).name for name in ("input_node1", "input_node2")
    }
    assert found == (dtypes or {"input_node1": "int64", "input_node2": "float64"})


# -- graph_util_test: remove_training_nodes ----------------------------------------------------------------------------


def nodes_of(*lines: str) -> Any:
    """A GraphDef of `name = op(inputs)` lines; types are float, a Const is 1 (or what stands before its colon)."""
    import tensorflow.compat.v1 as tf

    graph_def = tf.GraphDef()
    for line in lines:
        name, _, call = line.partition(" = ")
        op, _, inputs = call.rstrip(")").partition("(")
        node = graph_def.node.add(name=name, op=op, input=inputs.split(", ") if inputs else [])
        node.attr["dtype" if op in ("Const", "Placeholder") else "T"].type = 1
        if op == "Const":
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1.0))
        if op == "CheckNumerics":
            node.attr["message"].s = b"bad"
    return graph_def


def simplified(graph_def: Any, *fetches: str, **passes: bool) -> list[str]:
    """The lines of what `simplify` leaves; by default Identities and checks are left out, nothing is computed."""
    model = gr.simplify(gr.freeze(gr.load(graph_def), fetches), **{"constants": False, **passes})
    nodes = model.graph.graph_def.node
    return [f"{node.name} = {node.op}" + (f"({', '.join(node.input)})" if node.input else "") for node in nodes]


def test_remove_training_nodes() -> None:
    graph_def = nodes_of(
        "a = Const", "b = Const", "a_check = CheckNumerics(a)", "a_identity = Identity(a, ^a_check)",
        "b_check = CheckNumerics(b)", "b_identity = Identity(b_check)", "sum = Add(a_identity, b_identity)",
    )  # fmt: skip
    assert simplified(graph_def, "sum", checks=False)[2:4] == [
        "a_check = CheckNumerics(a)",
        "a_identity = Identity(a, ^a_check)",
    ]
    assert simplified(graph_def, "sum") == ["a = Const", "b = Const", "sum = Add(a, b)"]


def test_remove_identity_chains() -> None:
    graph_def = nodes_of("e = Const", "d = Identity(e)", "c = Identity(d)", "b = Neg(c)", "a = Abs(b)")
    assert simplified(graph_def, "a") == ["e = Const", "b = Neg(e)", "a = Abs(b)"]
    assert simplified(graph_def, "a", "c") == ["e = Const", "c = Identity(e)", "b = Neg(c)", "a = Abs(b)"]


def test_remove_identity_used_as_control_input() -> None:
    """Turned round: theirs keeps an Identity that something waits for; ours lets it wait for what that took."""
    graph_def = nodes_of(
        "base = Placeholder", "i1 = Identity(base)", "i2 = Identity(i1)", "c = Const(^i2)", "y = Neg(c)"
    )
    assert simplified(graph_def, "y") == ["base = Placeholder", "c = Const(^base)", "y = Neg(c)"]


# -- optimize_for_inference_test --------------------------------------------------------------------------------------
# Values are constants here and passes without constants, or there would be nothing left to look at.


def test_optimize_for_inference() -> None:
    """Unused nodes, checks and Identities are gone, and inputs are placeholders."""
    graph_def = nodes_of(
        "unused = Const", "a = Const", "a_check = CheckNumerics(a)", "b = Const", "b_check = CheckNumerics(b)",
        "a_identity = Identity(a_check)", "b_identity = Identity(b_check)", "sum = Add(a_identity, b_identity)",
        "unused_output = Add(a, unused)",
    )  # fmt: skip
    assert simplified(graph_def, "sum") == ["a = Const", "b = Const", "sum = Add(a, b)"]
    fed = gr.simplify(gr.freeze(gr.load(graph_def), "sum", ["a", "b_check"]))
    assert {name: node.op for name, node in fed.graph.nodes.items()} == {
        "a": "Placeholder", "b_check": "Placeholder", "sum": "Add"
    }  # fmt: skip


INPUT = np.float32([1, 4, 2, 5, 3, 6, -1, -4, -2, -5, -3, -6]).reshape(1, 1, 6, 2)
KERNEL = np.float32([1, 2, 3, 4, 0.1, 0.2, 0.3, 0.4]).reshape(1, 2, 2, 2)
MEAN, VARIANCE, BETA, GAMMA = np.float32([10, 20]), np.float32([0.25, 0.5]), np.float32([0.1, 0.6]), np.float32([1, 2])


def normalised(tf: Any, op: str, layout: str = "NHWC", bias: bool = False, **attrs: Any) -> Any:
    """A convolution and a batch norm by `op`; the graph says version 8, since the oldest op is allowed until then."""
    with tf.Graph().as_default() as graph:
        turned = (0, 3, 1, 2) if layout == "NCHW" else (0, 1, 2, 3)
        x = tf.constant(INPUT.transpose(turned), name="x")
        y = tf.nn.conv2d(x, tf.constant(KERNEL, name="weights"), 1, "SAME", data_format=layout)
        if bias:
            y = tf.raw_ops.Add(x=y, y=np.float32([0.7, -3]).reshape([-1, 1, 1] if layout == "NCHW" else [-1]))
        mean, variance, beta, gamma = (tf.constant(value) for value in (MEAN, VARIANCE, BETA, GAMMA))
        name = "output"
        if op == "BatchNormWithGlobalNormalization":
            norm = tf.raw_ops.FusedBatchNorm(
                x=y, scale=mean, offset=variance, mean=beta, variance=gamma, is_training=False, name=name
            )
        else:
            norm = getattr(tf.raw_ops, op)(
                x=y, scale=gamma, offset=beta, mean=mean, variance=variance, is_training=False, epsilon=0.00001,
                data_format=layout, name=name,
            )  # fmt: skip
        assert norm.y.op.name == name
    graph_def = graph.as_graph_def()
    if op == "BatchNormWithGlobalNormalization":
        (node,) = [node for node in graph_def.node if node.name == name]
        node.op, graph_def.versions.producer = op, 8
        for attr in set(node.attr) - {"T"}:
            del node.attr[attr]
        node.attr["variance_epsilon"].f = 0.00001
        node.attr["scale_after_normalization"].b = attrs["scaled"]
    return graph_def


@pytest.mark.parametrize("bias", [False, True], ids=["alone", "bias"])
@pytest.mark.parametrize(
    ("op", "layout", "attrs"),
    [
        ("BatchNormWithGlobalNormalization", "NHWC", {"scaled": True}),
        ("BatchNormWithGlobalNormalization", "NHWC", {"scaled": False}),
        ("FusedBatchNorm", "NHWC", {}),
        ("FusedBatchNormV2", "NHWC", {}),
        ("FusedBatchNormV3", "NHWC", {}),
        ("FusedBatchNorm", "NCHW", {}),
        ("FusedBatchNormV3", "NCHW", {}),
    ],
)
def test_fold_batch_norms(op: str, layout: str, attrs: dict[str, Any], bias: bool) -> None:
    """testFoldBatchNorms, testFoldFusedBatchNorms; theirs folds the V1 and V3 forms, and both layouts since 2.0."""
    import tensorflow.compat.v1 as tf

    graph_def = normalised(tf, op, layout, bias, **attrs)
    folded = gr.simplify(gr.freeze(gr.load(graph_def), "output"), constants=False).graph
    assert [node.op for node in folded.graph_def.node if node.op != "Const"] == ["Conv2D", "BiasAdd"]
    before, after = (run(one, "output:0") for one in (graph_def, folded.materialize()))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gamma", [True, False], ids=["gamma", "gamma is 1"])
def test_fuse_decomposed_batch_norm(gamma: bool) -> None:
    """Turned round: theirs writes x * k + (beta - mean * k) as a FusedBatchNorm first; ours puts k into the weights."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        y = tf.nn.conv2d(tf.constant(INPUT), tf.constant(KERNEL), 1, "SAME")
        scale = GAMMA if gamma else None
        tf.identity(tf.nn.batch_normalization(y, MEAN, VARIANCE, BETA, scale, 0.00001), name="output")
    folded = gr.simplify(gr.freeze(gr.load(graph.as_graph_def()), "output"), constants=False)
    assert "1 batch norms are folded into weights" in folded.notes
    after = run(folded.graph.materialize(), "output:0")
    np.testing.assert_allclose(after, run(graph.as_graph_def(), "output:0"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ops", ["resize pad", "resize", "pad"])
def test_fuse_resize_and_pad(ops: str) -> None:
    """Turned round: theirs writes FusedResizeAndPadConv2D, which is no faster today; ours leaves the ops: bits stay."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        y = tf.constant(INPUT)
        if "resize" in ops:
            y = tf.image.resize_bilinear(y, [12, 4], align_corners=False)
        if "pad" in ops:
            y = tf.pad(y, [[0, 0], [0, 0], [2, 2], [0, 0]], mode="REFLECT")
        tf.nn.conv2d(y, tf.constant(KERNEL), [1, 1, 1, 1], "VALID", name="output")
    simple = gr.simplify(gr.freeze(gr.load(graph.as_graph_def()), "output"))
    found = [node.op for node in simple.graph.graph_def.node if node.op != "Const"]
    assert found == [op for op, word in (("ResizeBilinear", "resize"), ("MirrorPad", "pad")) if word in ops] + [
        "Conv2D"
    ]
    before = run(graph.as_graph_def(), "output:0")
    np.testing.assert_array_equal(run(simple.graph.materialize(), "output:0"), before)


@pytest.mark.parametrize("op", ["Placeholder", "PlaceholderWithDefault"])
def test_convert_placeholder_to_const(op: str) -> None:
    """Turned round in one: theirs takes keras_learning_phase for False unasked; ours is told, and takes any type."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        given = tf.placeholder(tf.bool, [], name="keras_learning_phase")
        if op == "PlaceholderWithDefault":
            given = tf.placeholder_with_default(True, [], name="phase")
        tf.multiply(tf.cast(given, tf.float32), 2.0, name="output")
    name = given.op.name
    assert gr.freeze(gr.load(graph.as_graph_def()), "output").graph.node(name).op == op
    frozen = gr.freeze(gr.load(graph.as_graph_def()), "output", constants={name: False})
    assert not {node.op for node in frozen.graph.graph_def.node} & {"Placeholder", "PlaceholderWithDefault"}
    assert run(frozen.graph.materialize(), "output:0") == 0.0


# -- convert_to_constants_test: session -------------------------------------------------------------------------------
# Each builds a graph with variables and gives the outputs; feeds are made from the placeholders x and p.

SESSIONS: dict[str, Build] = {}


def session_case(build: Build) -> Build:
    SESSIONS[build.__name__] = build
    return build


@session_case
def variables(tf: Any, x: Any, p: Any) -> Any:
    return [doubled(tf, False), doubled_again(tf)]


def doubled_again(tf: Any) -> Any:
    with tf.variable_scope("again"):
        return doubled(tf, True)


@session_case
def with_functions(tf: Any, x: Any, p: Any) -> Any:
    from tensorflow.python.framework import function

    @function.Defun(tf.float32)
    def plus_one(value: Any) -> Any:
        return value + 1.0

    variable = tf.get_variable("variable_node", initializer=1.0)
    defun = plus_one(variable * 2.0)
    return [tf.identity(defun)]


@session_case
def with_functions_of_today(tf: Any, x: Any, p: Any) -> Any:
    variable = tf.get_variable("variable_node", initializer=3.0, use_resource=True)

    @tf.function
    def inner(value: Any) -> Any:
        return value * variable

    @tf.function
    def outer(value: Any) -> Any:
        return inner(value) + variable

    return [outer(x)]


@session_case
def with_embeddings(tf: Any, x: Any, p: Any) -> Any:
    found = []
    for resource in (False, True):
        table = tf.get_variable(f"table_{resource}", initializer=np.arange(12.0).reshape(6, 2), use_resource=resource)
        ids = tf.cast(x[0], tf.int32)
        found += [tf.nn.embedding_lookup(table, ids), tf.gather(table, ids), tf.gather_nd(table, [[1, 1], [2, 0]])]
    return found


@session_case
def with_switch(tf: Any, x: Any, p: Any) -> Any:
    """The case of a cond of TensorFlow 1 over variables of both kinds, read in and outside of it."""
    found = []
    for resource in (False, True):
        inside = tf.get_variable(f"x_{resource}", initializer=1.0, use_resource=resource)
        outside = tf.get_variable(f"y_{resource}", initializer=2.0, use_resource=resource)
        with tf.variable_scope(f"cond_{resource}"):
            found.append(tf.cond(p, lambda a=inside, b=outside: tf.add(a, b), lambda a=inside: a - 1.0))
    return found


@session_case
def with_v2_cond(tf: Any, x: Any, p: Any) -> Any:
    with v2_control_flow(tf):
        inside = tf.get_variable("x", initializer=1.0, use_resource=True)
        return [tf.cond(p, lambda: tf.add(inside, 1.0), lambda: tf.multiply(inside, 5.0))]


@session_case
def with_v2_nested_cond(tf: Any, x: Any, p: Any) -> Any:
    with v2_control_flow(tf):
        first = tf.get_variable("x", initializer=1.0, use_resource=True)
        second = tf.get_variable("y", initializer=2.0, use_resource=True)
        third = tf.get_variable("z", initializer=3.0, use_resource=True)

        def nested() -> Any:
            return tf.cond(first > 0, lambda: first * second, lambda: first * 10.0)

        return [tf.cond(p, nested, lambda: third + 4.0)]


@session_case
def with_v2_while(tf: Any, x: Any, p: Any) -> Any:
    with v2_control_flow(tf):
        step = tf.get_variable("step", initializer=1.5, use_resource=True)
        return tf.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, h * step), [0, x])


@session_case
def with_v2_case(tf: Any, x: Any, p: Any) -> Any:
    with v2_control_flow(tf):
        first = tf.get_variable("x", initializer=1.0, use_resource=True)
        second = tf.get_variable("y", initializer=2.0, use_resource=True)
        index = tf.cast(p, tf.int32)
        return [tf.switch_case(index, [lambda: first + 1.0, lambda: second * 5.0, lambda: first - second])]


@session_case
def with_while(tf: Any, x: Any, p: Any) -> Any:
    found = []
    for resource in (False, True):
        step = tf.get_variable(f"step_{resource}", initializer=1.5, use_resource=resource)
        found += tf.while_loop(lambda i, h: i < 3, lambda i, h, step=step: (i + 1, h * step), [0, x])
    return found


@session_case
def with_assignments(tf: Any, x: Any, p: Any) -> Any:
    """Assignments on the way that nothing reads are left out, as in theirs."""
    variable = tf.get_variable("variable_node", initializer=1.0, use_resource=True)
    counter = tf.get_variable("counter", initializer=0.0, use_resource=True)
    with tf.control_dependencies([tf.assign_add(counter, 1.0)]):
        return [tf.identity(x * variable)]


@session_case
def with_lstm(tf: Any, x: Any, p: Any) -> Any:
    """An unrolled cell, written out: TensorFlow 2.16 and later have no rnn_cell."""
    kernel = tf.get_variable("kernel", initializer=np.linspace(-1, 1, 7 * 16, dtype=np.float32).reshape(7, 16))
    bias = tf.get_variable("bias", initializer=np.linspace(0, 1, 16, dtype=np.float32))
    cell, hidden = tf.zeros([2, 4]), tf.zeros([2, 4])
    for _ in range(3):
        gates = tf.nn.bias_add(tf.matmul(tf.concat([x, hidden], 1), kernel), bias)
        enter, new, forget, out = tf.split(gates, 4, 1)
        cell = cell * tf.sigmoid(forget) + tf.sigmoid(enter) * tf.tanh(new)
        hidden = tf.tanh(cell) * tf.sigmoid(out)
    return [hidden, cell]


class v2_control_flow:  # noqa: N801
    """Functional If, While and Case within, whatever is on outside."""

    def __init__(self, tf: Any) -> None:
        self._tf = tf

    def __enter__(self) -> None:
        self._was = self._tf.control_flow_v2_enabled()
        self._tf.enable_control_flow_v2()

    def __exit__(self, *error: Any) -> None:
        if not self._was:
            self._tf.disable_control_flow_v2()


def built(build: Build, folder: Path, predicate: bool) -> tuple[Any, list[str], dict[str, Any], list[Any]]:
    """(GraphDef, fetches, feeds, answers); the checkpoint is at folder/model.ckpt."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        tf.disable_control_flow_v2()
        x, p = tf.placeholder(tf.float32, [2, 3], name="x"), tf.placeholder(tf.bool, [], name="p")
        outputs = [tf.identity(output, name=f"out_{n}") for n, output in enumerate(build(tf, x, p))]
        feeds = {"x:0": np.arange(6, dtype=np.float32).reshape(2, 3), "p:0": predicate}
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, str(folder / "model.ckpt"))
            answers = session.run(outputs, feeds)
    return graph.as_graph_def(), [output.name for output in outputs], feeds, answers


@pytest.mark.parametrize("source", ["graph", "meta"])
@pytest.mark.parametrize("name", SESSIONS)
def test_sessions(name: str, source: str, tmp_path: Path) -> None:
    for predicate in (True, False):
        graph_def, fetches, feeds, answers = built(SESSIONS[name], tmp_path, predicate)
        model = gr.load(graph_def if source == "graph" else tmp_path / "model.ckpt.meta")
        frozen = gr.freeze(gr.restore(model, tmp_path / "model.ckpt"), fetches, list(feeds))
        expect_frozen(frozen.graph.materialize())
        for found, expected in zip(run(frozen.graph.materialize(), fetches, feeds), answers):
            np.testing.assert_array_equal(found, expected)


def test_node_names_of_a_v1_cond(tmp_path: Path) -> None:
    """testConvertCase: variables and cond keep their names; nothing of savers or initializers is left."""
    graph_def, _, _, _ = built(SESSIONS["with_switch"], tmp_path, True)
    frozen = gr.freeze(gr.restore(gr.load(graph_def), tmp_path / "model.ckpt"), ["out_0", "out_1"])
    names = set(frozen.graph.nodes)
    assert {"x_False", "y_False", "x_True", "y_True", "p", "out_0", "out_1"} <= names
    assert names <= {node.name for node in graph_def.node}
    assert not [name for name in names if name.startswith("save/") or "Assign" in name or name == "init"]
    ops = {node.op for node in frozen.graph.graph_def.node}
    assert "Switch" in ops and "Merge" in ops and not any(op.startswith("Ref") for op in ops)


def test_some_variables_left_as_they_are(tmp_path: Path) -> None:
    """testReferenceVariables, testResourceVariables: naming every variable is the same as naming none."""
    graph_def, _, _, _ = built(SESSIONS["variables"], tmp_path, True)
    (tmp_path / "graph.pb").write_bytes(graph_def.SerializeToString())

    def freeze(**lists: str) -> Any:
        return freeze_graph.freeze_graph(
            str(tmp_path / "graph.pb"), "", True, str(tmp_path / "model.ckpt"), "out_0,out_1", "", "", "", True, "",
            **lists,
        )  # fmt: skip

    everything = freeze()
    assert freeze(variable_names_whitelist="variable_node,again/variable_node") == everything
    assert freeze(variable_names_denylist="no_such_variable") == everything
    assert len(everything.node) == 10
    expect_frozen(everything)
    denied = freeze(variable_names_denylist="variable_node")
    assert {node.op for node in denied.node} & VARIABLE_OPS == {"VariableV2"}
    denied = freeze(variable_names_denylist="again/variable_node")
    assert {node.op for node in denied.node} & VARIABLE_OPS == {"VarHandleOp"}


def test_a_variable_left_as_it_is_in_nested_conds(tmp_path: Path) -> None:
    """testConvertV2UnconvertedResourceNestedCase: the handle goes through both Ifs still, the others are values."""
    import tensorflow.compat.v1 as tf

    graph_def, fetches, feeds, answers = built(SESSIONS["with_v2_nested_cond"], tmp_path, True)
    model = gr.restore(gr.load(graph_def), tmp_path / "model.ckpt")
    frozen = gr.freeze(model, fetches, list(feeds), keep_variables=["y"])
    left = frozen.graph.materialize()
    assert [node.name for node in left.node if node.op == "VarHandleOp"] == ["y"]
    (outer,) = [node for node in left.node if node.op in ("If", "StatelessIf")]
    assert list(outer.attr["Tin"].list.type).count(tf.resource.as_datatype_enum) == 1
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(tf.GraphDef.FromString(left.SerializeToString()), name="")
        session.run("save/restore_all", {"save/Const:0": str(tmp_path / "model.ckpt")})
        np.testing.assert_array_equal(session.run(fetches[0], feeds), answers[0])


# -- convert_to_constants_test: functions, by way of TensorFlow 2's SavedModel -----------------------------------------

MODULES: dict[str, Build] = {}


def module_case(build: Build) -> Build:
    MODULES[build.__name__] = build
    return build


def module_of(tf: Any, function: Callable[[Any, Any], Any], **variables: Any) -> Any:
    """A module with variables v1, v2 ... and `serve`, a function of x."""
    module = tf.Module()
    for name, value in variables.items():
        setattr(module, name, tf.Variable(value, dtype=tf.float32, name=name))
    spec = tf.TensorSpec([2, 3], tf.float32, name="x")
    module.serve = tf.function(lambda x: {"y": function(module, x)}, input_signature=[spec])
    return module


@module_case
def const_saved_model(tf: Any) -> Any:
    return module_of(tf, lambda m, x: x * 2.0)


@module_case
def variable_model(tf: Any) -> Any:
    return module_of(tf, lambda m, x: m.v1 * m.v2 * x, v1=3.0, v2=2.0)


@module_case
def scalar_model(tf: Any) -> Any:
    return module_of(tf, lambda m, x: m.v1 * tf.reduce_sum(x), v1=3.0)


@module_case
def multi_function_model(tf: Any) -> Any:
    def served(m: Any, x: Any) -> Any:
        return m.other(x) - m.v1

    module = module_of(tf, served, v1=3.0, v2=5.0)
    module.other = tf.function(lambda x: module.v2 * x)
    return module


@module_case
def if_model(tf: Any) -> Any:
    weights = np.float32([[0.1, 0.2], [0.3, 0.4], [1, 2]])

    def served(m: Any, x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, m.w) + m.b, lambda: tf.matmul(x, m.w))

    return module_of(tf, served, w=weights, b=np.float32([7, 8]))


@module_case
def while_model(tf: Any) -> Any:
    def served(m: Any, x: Any) -> Any:
        return tf.while_loop(lambda i, h: i < 4, lambda i, h: (i + 1, h * m.v1 + m.v2), [0, x])[1]

    return module_of(tf, served, v1=1.5, v2=0.25)


@module_case
def switch_case_model(tf: Any) -> Any:
    def served(m: Any, x: Any) -> Any:
        index = tf.cast(tf.reduce_sum(x), tf.int32) % 3
        return tf.switch_case(index, [lambda: x * m.v1, lambda: x + m.v2, lambda: x - m.v1])

    return module_of(tf, served, v1=3.0, v2=4.0)


@module_case
def map_and_scan_model(tf: Any) -> Any:
    """The dynamic loops of an RNN: tensor lists in a While that reads variables."""
    weights = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)

    def served(m: Any, x: Any) -> Any:
        return tf.scan(lambda state, row: tf.tanh(tf.linalg.matvec(m.w, state) + row), x, m.b.read_value())

    return module_of(tf, served, w=weights, b=np.float32([0.5, 0, 1]))


@module_case
def keras_model(tf: Any) -> Any:
    layers = tf.keras.Sequential([tf.keras.Input([3]), tf.keras.layers.Dense(4, "relu"), tf.keras.layers.Dense(2)])
    module = module_of(tf, lambda m, x: layers(x))
    module.layers = layers.variables
    return module


@module_case
def keras_lstm(tf: Any) -> Any:
    layers = tf.keras.Sequential([tf.keras.Input([3, 1]), tf.keras.layers.LSTM(4)])
    module = module_of(tf, lambda m, x: layers(x[:, :, None]))
    module.layers = layers.variables
    return module


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str, tmp_path: Path) -> None:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(1)
    module = MODULES[name](tf)
    x = np.float32([[1, 2, 3], [-1, 0.5, 2]])
    expected = module.serve(tf.constant(x))["y"].numpy()
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    model = gr.load(tmp_path)
    frozen = gr.freeze(gr.restore(model) if len(model.variables) else model)
    expect_frozen(frozen.graph.materialize())
    found = run(frozen.graph.materialize(), list(frozen.fetches), {frozen.feeds[0]: x})
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-6)


def test_ref_variable_import(tmp_path: Path) -> None:
    """testRefVariableImport: a SavedModel of TensorFlow 1 with a ref variable, here frozen as any other."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [2, 3], name="x")
        variable = tf.get_variable("v", initializer=3.0, use_resource=False)
        output = tf.multiply(x, variable, name="y")
        session.run(tf.global_variables_initializer())
        tf.saved_model.simple_save(session, str(tmp_path / "model"), {"x": x}, {"y": output})
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model")))
    expect_frozen(frozen.graph.materialize())
    assert run(frozen.graph.materialize(), "y:0", {"x:0": np.ones([2, 3])}).tolist() == [[3.0] * 3] * 2


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
