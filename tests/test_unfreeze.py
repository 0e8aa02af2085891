"""unfreeze: constants as variables and back, without TensorFlow, and trained in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr
from graph_restore import protos
from graph_restore.graph import tensor_attr

pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
REFUSED = {"metrics_local", "update_in_while", "update_unordered"}
WITHOUT_ARRAYS = {
    "columns_table", "key_value_table", "mutable_table", "scalars_and_empty", "update_ordered", "update_resource",
    "update_value",
}  # fmt: skip
CASES = [one for one in cases() if one.model not in REFUSED | WITHOUT_ARRAYS]


def _frozen(one: Case) -> gr.Model:
    run = one.oracle["runs"][0]
    return gr.freeze(gr.restore(gr.load(one.graph_pb), one.prefix), list(run["outputs"]), list(run["feeds"]))


def _nodes(model: gr.Model) -> dict[str, bytes]:
    return {node.name: node.SerializeToString(deterministic=True) for node in model.graph.materialize().node}


def _constants(model: gr.Model) -> dict[str, Any]:
    nodes = [node for node in model.graph.graph_def.node if node.op == "Const"]
    values = {node.name: model.graph.value(node).read() for node in nodes}
    return {name: value.tolist() if value.dtype == object else value.tobytes() for name, value in values.items()}


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.id)
def test_freezing_again_gives_the_same_graph(one: Case) -> None:
    frozen = _frozen(one)
    again = gr.freeze(gr.unfreeze(frozen))
    assert _nodes(again) == _nodes(frozen) and _constants(again) == _constants(frozen)
    assert (again.fetches, again.feeds) == (frozen.fetches, frozen.feeds)


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.id)
def test_freezing_reference_variables_again_gives_the_same_constants(one: Case) -> None:
    frozen = _frozen(one)
    again = gr.freeze(gr.unfreeze(frozen, kind="ref"))
    assert _constants(again) == _constants(frozen)
    reads = _nodes(again).keys() - _nodes(frozen).keys()
    assert reads and all(again.graph.node(name).op == "Identity" for name in reads)


@pytest.mark.parametrize("kind", ["resource", "ref"])
def test_what_is_made(kind: str) -> None:
    one = case("linear/tf1.15.5-v2")
    unfrozen = gr.unfreeze(_frozen(one), kind=kind)
    assert {variable.checkpoint_key: variable.value.read().tolist() for variable in unfrozen.variables} == {
        name[:-2]: value.tolist() for name, value in one.oracle["variables"].items()
    }
    for name in ("w", "b"):
        variable, nodes = unfrozen.variables[name], unfrozen.graph.nodes
        assert (variable.kind, variable.trainable, variable.initializer) == (kind, True, f"{name}/Assign")
        ops = {"resource": ("VarHandleOp", "ReadVariableOp"), "ref": ("VariableV2", "Identity")}[kind]
        assert (nodes[variable.name].op, nodes[variable.snapshot[:-2]].op) == ops
        assert {"resource": variable.snapshot, "ref": variable.name + ":0"}[kind] == f"{name}:0"
        assert f"^{name}/Assign" in nodes["init"].input
    assert unfrozen.saver_def.restore_op_name == "save/restore_all"
    assert set(unfrozen.collections) == {"variables", "trainable_variables"}


@pytest.mark.parametrize("kind", ["resource", "ref"])
@pytest.mark.parametrize("initializers", ["values", "zeros"])
def test_what_is_written_is_found_again(kind: str, initializers: str, tmp_path: Path) -> None:
    one = case("mlp/tf1.4.1-v2")
    frozen = _frozen(one)
    unfrozen = gr.unfreeze(frozen, kind=kind, initializers=initializers)
    gr.export(unfrozen, tmp_path / "graph.pb")
    gr.export(unfrozen, tmp_path / "model", "checkpoint")
    assert set(gr.load_checkpoint(tmp_path / "model")) <= _constants(frozen).keys()
    read = gr.load(tmp_path / "graph.pb")
    for variable in unfrozen.variables:
        found = read.variables[variable.name]
        for fact in ("kind", "shape", "checkpoint_key", "initializer", "initial_value", "snapshot"):
            assert getattr(found, fact) == getattr(variable, fact), fact
    again = gr.freeze(gr.restore(read, tmp_path / "model", strict=True), frozen.fetches, frozen.feeds)
    assert _constants(again) == _constants(frozen)
    first = gr.initialize(read).variables
    zero = {not variable.value.read().any() for variable in first if variable.name.startswith("logits/weights")}
    assert zero == {initializers == "zeros"}


def test_large_values_stay_where_they_are_and_zeros_leave_them_out(tmp_path: Path) -> None:
    node = protos.NodeDef(name="big", op="Const")
    node.attr["dtype"].type = 1
    node.attr["value"].CopyFrom(tensor_attr(np.arange(1 << 18, dtype=np.float32)))
    (tmp_path / "frozen.pb").write_bytes(protos.GraphDef(node=[node]).SerializeToString())
    model = gr.load(tmp_path / "frozen.pb")
    for initializers, least, most in (("values", 1 << 20, (1 << 20) + 4096), ("zeros", 0, 4096)):
        unfrozen = gr.unfreeze(model, initializers=initializers)
        assert unfrozen.variables["big"].value is model.graph.payloads["", "big"]
        assert least <= unfrozen.graph.encode().length <= most


def _graph(*nodes: tuple[str, str, list[str], dict[str, Any]]) -> gr.Model:
    made = []
    for name, op, inputs, attrs in nodes:
        node = protos.NodeDef(name=name, op=op, input=inputs)
        for key, value in attrs.items():
            if isinstance(value, np.ndarray):
                node.attr["dtype"].type = {"f": 1, "i": 3}[value.dtype.kind]
                node.attr[key].CopyFrom(tensor_attr(value))
            elif isinstance(value, str):
                node.attr[key].s = value.encode()
            else:
                node.attr[key].type = value
        made.append(node)
    return gr.load(protos.GraphDef(node=made))


FLOATS, INTS = {"value": np.ones([2, 2], np.float32)}, {"value": np.array([1, 4], np.int32)}


@pytest.mark.parametrize(
    ("chosen", "nodes", "made"),
    [
        ({}, [("a", "Const", [], FLOATS), ("y", "Neg", ["a"], {"T": 1})], ["a"]),
        ({"exclude": "a"}, [("a", "Const", [], FLOATS), ("b", "Const", [], FLOATS)], ["b"]),
        ({"min_size": 5}, [("a", "Const", [], FLOATS), ("b", "Const", [], {"value": np.ones(5, np.float32)})], ["b"]),
        ({"min_size": 0}, [("a", "Const", [], {"value": np.array(1, np.float32)})], ["a"]),
        ({"include": "*"}, [("i", "Const", [], INTS), ("y", "Neg", ["i"], {"T": 3})], ["i"]),
        ({"include": "*"}, [("x", "Placeholder", [], {"dtype": 1}), ("a", "Const", [], FLOATS),
                            ("i", "Const", [], INTS), ("y", "Reshape", ["x", "i"], {"T": 1, "Tshape": 3})], ["a"]),
    ],
)  # fmt: skip
def test_which_constants(chosen: dict[str, Any], nodes: list[Any], made: list[str]) -> None:
    assert [variable.checkpoint_key for variable in gr.unfreeze(_graph(*nodes), **chosen).variables] == made


STAYING = {
    "they are in while loops": [
        ("s", "Const", [], FLOATS), ("e", "Enter", ["s"], {"T": 1, "frame_name": "loop"}),
        ("a", "Const", ["^e"], FLOATS),
    ],
    "tables are filled from them": [
        ("a", "Const", [], FLOATS), ("t", "HashTableV2", [], {"key_dtype": 1, "value_dtype": 1}),
        ("fill", "InitializeTableV2", ["t", "a", "a"], {"Tkey": 1, "Tval": 1}),
    ],
    "they are values that the graph gives to variables": [
        ("a", "Const", [], FLOATS), ("v", "VariableV2", [], {"dtype": 1}), ("v/Assign", "Assign", ["v", "a"], {"T": 1})
    ],
    "they are shapes, axes, indices or ranges": [
        ("a", "Const", [], FLOATS), ("y", "Range", ["a", "a", "a"], {"Tidx": 1}),
    ],
    "only control inputs name them": [("a", "Const", [], FLOATS), ("y", "NoOp", ["^a"], {})],
    "the graph guarantees that they never change": [
        ("a", "Const", [], FLOATS), ("i", "Identity", ["a"], {"T": 1}), ("y", "GuaranteeConst", ["i"], {"T": 1})
    ],
}  # fmt: skip


@pytest.mark.parametrize("reason", STAYING)
def test_what_has_to_stay_constant_stays_with_a_word(reason: str) -> None:
    model = _graph(*STAYING[reason], ("other", "Const", [], FLOATS))
    unfrozen = gr.unfreeze(model)
    assert unfrozen.graph.node("a").op == "Const" and "other" in unfrozen.variables
    assert any(note.startswith("a") and note.endswith(f"stay constants: {reason}") for note in unfrozen.notes)
    with pytest.raises(gr.GraphRestoreError, match=f"no constant to make a variable of.*{reason}"):
        gr.unfreeze(_graph(*STAYING[reason]), include="a")


def test_a_control_input_becomes_one_of_the_read() -> None:
    model = _graph(
        ("x", "Placeholder", [], {"dtype": 1}), ("a", "Const", ["^x"], FLOATS), ("y", "Neg", ["a"], {"T": 1})
    )
    assert list(gr.unfreeze(model).graph.node("a").input) == ["a/variable", "^x"]
    unfrozen = gr.unfreeze(model, kind="ref")
    assert list(unfrozen.graph.node("a/read").input) == ["a", "^x"] and not unfrozen.graph.node("a").input
    assert list(unfrozen.graph.node("y").input) == ["a/read"]
    assert _nodes(gr.freeze(gr.unfreeze(model), "y")) == _nodes(gr.freeze(model, "y"))


def test_names_that_are_taken() -> None:
    model = _graph(("a", "Const", [], FLOATS), ("a/variable", "Const", [], FLOATS), ("init", "Neg", ["a"], {"T": 1}))
    unfrozen = gr.unfreeze(model)
    assert unfrozen.variables["a"].name == "a/variable_1" and unfrozen.graph.node("init_1").op == "NoOp"
    assert _nodes(gr.freeze(unfrozen, "init")) == _nodes(gr.freeze(model, "init"))


def test_moving_statistics_are_not_trained() -> None:
    unfrozen = gr.unfreeze(_frozen(case("convnet/tf1.15.5-v2")))
    trained = {variable.checkpoint_key: variable.trainable for variable in unfrozen.variables}
    assert trained["conv/kernel"] and not trained["norm/moving_mean"] and not trained["norm/moving_variance"]


def test_a_model_without_arrays_comes_back() -> None:
    model = _graph(("a", "Const", [], {"value": np.array(1, np.float32)}))
    unfrozen = gr.unfreeze(model)
    assert unfrozen.graph is model.graph and "no constant to make a variable of" in unfrozen.notes[-1]


@pytest.mark.parametrize("wrong", [{"kind": "lazy"}, {"initializers": "ones"}])
def test_wrong_words(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'resource' or 'ref', and initializers 'values' or 'zeros'"):
        gr.unfreeze(_graph(("a", "Const", [], FLOATS)), **wrong)


TRAINED = ("linear", "mlp", "cond", "lstm_static", "convnet", "partitioned", "defun", "gpu_devices")


def _session() -> Any:
    """One whose optimizer does not reorder sums: it folds constants where it cannot fold variables."""
    import tensorflow.compat.v1 as tf

    config = tf.ConfigProto(allow_soft_placement=True)
    config.graph_options.optimizer_options.opt_level = -1
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.Session(config=config)


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["resource", "ref"])
@pytest.mark.parametrize("one", [one for one in CASES if one.model in TRAINED], ids=lambda one: one.id)
def test_it_runs_as_before_and_can_be_trained(one: Case, kind: str) -> None:
    import tensorflow.compat.v1 as tf

    frozen, run = _frozen(one), one.oracle["runs"][0]
    fetches = list(run["outputs"])
    with tf.Graph().as_default(), _session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        before = session.run(fetches, run["feeds"])
    with tf.Graph().as_default(), _session() as session:
        found, _ = gr.restore_graph(gr.unfreeze(frozen, kind=kind), return_elements=fetches)
        after = session.run(fetches, run["feeds"])
        assert [np.asarray(a).tolist() for a in after] == [np.asarray(b).tolist() for b in before]
        trained = tf.trainable_variables()
        outputs = [tf.square(tensor) for tensor in found if tensor.dtype.is_floating]
        gradients = tf.gradients([tf.reduce_sum(tensor) for tensor in outputs], trained)
        assert trained and None not in gradients
        session.run(tf.train.GradientDescentOptimizer(0.1).apply_gradients(zip(gradients, trained)), run["feeds"])
        trained_output = session.run(fetches, run["feeds"])
    assert [np.asarray(a).tolist() for a in trained_output] != [np.asarray(b).tolist() for b in before]


@pytest.mark.tensorflow
@pytest.mark.parametrize("initializers", ["values", "zeros"])
@pytest.mark.parametrize("kind", ["resource", "ref"])
def test_tensorflow_alone_initialises_and_restores_it(kind: str, initializers: str, tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    one = case("mlp/tf1.4.1-v2")
    frozen, run = _frozen(one), one.oracle["runs"][0]
    unfrozen = gr.unfreeze(frozen, kind=kind, initializers=initializers)
    gr.export(unfrozen, tmp_path / "model", "checkpoint")
    fetches, constants = list(run["outputs"]), _constants(frozen)
    with tf.Graph().as_default(), _session() as session:
        tf.import_graph_def(unfrozen.graph.materialize(), name="")
        session.run("init")
        first = session.run(fetches, run["feeds"])
        saver = tf.train.Saver(saver_def=tf.train.SaverDef.FromString(unfrozen.saver_def.SerializeToString()))
        saver.restore(session, str(tmp_path / "model"))
        after = session.run(fetches, run["feeds"])
        assert {name: session.run(f"{name}:0").tobytes() for name in constants} == constants
        fed = np.full_like(session.run("logits/biases:0"), 2)
        assert (session.run("logits/biases:0", {"logits/biases:0": fed}) == 2).all()
        assert not np.array_equal(
            session.run(fetches[0], {**run["feeds"], "logits/biases:0": fed * [1, 2, 3]}), after[0]
        )
    for value, started, expected in zip(after, first, run["outputs"].values()):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
        assert np.array_equal(value, started) == (initializers == "values")
