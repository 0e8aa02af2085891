"""build_saver: the nodes it adds against those of genuine Savers, and restored and saved by TensorFlow itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr
from graph_restore import protos
from graph_restore.variables import Variables

SAVED = [one for one in cases() if one.model not in ("mismatch", "custom_savers", "metrics_local", "object_checkpoint")]
OTHERWISE = ("sharded", "mutable_table", "resource_partitioned")  # other nodes, or numbered in another order
GENUINE = [one for one in SAVED if one.directory.name == "tf1.15.5-v2" and one.meta and one.model not in OTHERWISE]
RUN = (
    "dtypes", "linear", "mutable_table", "nameless_prefix", "odd_names", "odd_resource", "partitioned", "resource",
    "resource_partitioned", "scalars_and_empty", "sharded", "stripped", "unknown_shape",
)  # fmt: skip
RUNNABLE = [one for one in SAVED if one.model in RUN and one.id != "dtypes/tf1.15.5-v1"]  # V1 has no bfloat16


def _without_saver(model: gr.Model) -> gr.Model:
    """The model as if no saver had ever been in its graph; keys and slices stay known."""
    kept = [node for node in model.graph.graph_def.node if not node.name.startswith("save/")]
    payloads = {key: value for key, value in model.graph.payloads.items() if not key[1].startswith("save/")}
    return replace(model, graph=model.graph.replaced(kept, payloads), savers=(), saver_def=None)


def _described(graph: gr.Graph, node: Any) -> tuple[Any, ...]:
    """What a node is: reads of variables by the variable, attrs without what depends on the rest of the graph."""
    names = [graph.nodes[name].input[0] if _is_read(graph, name) else name for name in node.input]
    attrs = {
        key: value.SerializeToString() for key, value in node.attr.items() if key not in ("_output_shapes", "_class")
    }
    if node.op == "Const":
        attrs["value"] = graph.value(node).read().tolist()
    if node.op == "NoOp":
        return node.op, sorted(names)
    return node.op, names, node.device, attrs


def _is_read(graph: gr.Graph, name: str) -> bool:
    node = graph.nodes.get(name)
    return node is not None and node.op in ("ReadVariableOp", "Identity") and not name.startswith("save/Id")


@pytest.mark.parametrize("one", GENUINE, ids=lambda one: one.id)
def test_the_nodes_are_those_of_a_genuine_saver(one: Case) -> None:
    genuine = gr.load(one.meta)
    built = gr.build_saver(_without_saver(genuine))
    assert built.saver_def == genuine.saver_def
    expected = {
        name: _described(genuine.graph, node) for name, node in genuine.graph.nodes.items() if name.startswith("save/")
    }
    found = {
        name: _described(built.graph, node) for name, node in built.graph.nodes.items() if name.startswith("save/")
    }
    own_reads = [name for name in found if name.startswith("save/ReadVariableOp")]
    assert {name: what for name, what in found.items() if name not in own_reads} == expected


@pytest.mark.parametrize(
    "one", [one for one in SAVED if one.meta and one.facts["checkpoint_version"] == 2], ids=lambda one: one.id
)
def test_the_graphs_own_saver_is_kept_and_known_without_a_saver_def(one: Case) -> None:
    model, bare = gr.load(one.meta), gr.load(one.graph_pb)
    assert gr.build_saver(model).saver_def == model.saver_def
    assert gr.build_saver(model).graph is model.graph
    found = gr.build_saver(bare)
    assert found.graph is bare.graph and found.saver_def == model.saver_def


def test_a_saver_of_version_1_is_not_kept() -> None:
    one = case("linear/tf0.12.1-v1")
    model = gr.load(one.meta)
    built = gr.build_saver(model)
    assert (built.saver_def.restore_op_name, built.saver_def.version) == ("save_1/restore_all", protos.SaverDef.V2)
    assert model.saver_def.restore_op_name == "save/restore_all" and "save_1/restore_all" not in model.graph.nodes
    assert [saver.is_meta_graphs for saver in built.savers] == [True, False]
    assert gr.build_saver(built).graph is built.graph


def test_a_saver_of_some_of_the_variables_is_not_kept() -> None:
    model = gr.load(case("custom_savers/tf1.4.1-v2").graph_pb)
    assert len(model.savers) > 1
    built = gr.build_saver(model)
    saved = {entry.variable for entry in built.savers[0].entries}
    assert saved == set(model.variables.names()) and built.savers[0].is_meta_graphs


def test_local_variables_are_saved_when_they_have_values() -> None:
    model = gr.load(case("metrics_local/tf1.4.1-v2").meta)
    local = {variable.name for variable in model.variables if "local_variables" in variable.collections}
    assert local
    saved = {entry.variable for entry in gr.build_saver(_without_saver(model)).savers[0].entries}
    assert saved == set(model.variables.names()) - local
    first = gr.initialize(gr.restore(model))
    given = {variable.name for variable in first.variables if variable.value is not None}
    assert {entry.variable for entry in gr.build_saver(first).savers[0].entries} == given > saved


def test_what_took_its_moving_average_is_saved_under_its_own_key(tmp_path: Path) -> None:
    one = case("mlp/tf1.4.1-v2")
    averaged = gr.restore(gr.load(one.meta), moving_averages=True)
    built = gr.build_saver(averaged)
    assert built.savers[0].keys == gr.load_checkpoint(one.prefix).keys()
    gr.export(built, tmp_path / "averaged", "checkpoint")
    written, values = gr.load_checkpoint(tmp_path / "averaged"), one.oracle["checkpoint"][""]
    assert set(written) == set(values)
    for key in ("logits/biases", "logits/biases/ExponentialMovingAverage"):
        assert (written[key].read() == values["logits/biases/ExponentialMovingAverage"]).all()


def _variables(*keys: tuple[str, str | None]) -> gr.Model:
    nodes = [protos.NodeDef(name=name, op="VariableV2") for name, _ in keys]
    for node in nodes:
        node.attr["dtype"].type = 1
        node.attr["shape"].shape.dim.add(size=2)
    model = gr.load(protos.GraphDef(node=nodes))
    named = Variables(replace(model.variables[name], checkpoint_key=key) for name, key in keys)
    return replace(model, variables=named)


def test_two_variables_of_one_key_are_told_apart_by_name_or_refused() -> None:
    built = gr.build_saver(_variables(("a", "k"), ("b", "k")))
    assert {entry.variable: entry.key for entry in built.savers[0].entries} == {"a": "a", "b": "b"}
    with pytest.raises(gr.RestoreError, match="b and c would both be saved under the key b; rename one"):
        gr.build_saver(_variables(("a", "k"), ("b", "k"), ("c", "b")))


def test_a_graph_without_variables_has_nothing_to_save() -> None:
    with pytest.raises(gr.RestoreError, match="has no variables, so there is nothing for a saver to save"):
        gr.build_saver(gr.load(protos.GraphDef()))


def test_a_scope_that_is_taken_whatever_its_case() -> None:
    model = _variables(("Save/w", None), ("SAVE_1", None))
    built = gr.build_saver(model)
    assert built.saver_def.filename_tensor_name == "save_2/Const:0"
    assert built.variables["Save/w"].checkpoint_key == "Save/w"


def test_unknown_shapes_are_not_tested_when_restored() -> None:
    model = _without_saver(gr.load(case("unknown_shape/tf1.15.5-v2").meta))
    built = gr.build_saver(model)
    found = {
        node.input[0]: node.attr["validate_shape"].b
        for node in built.graph.graph_def.node
        if node.name.startswith("save/Assign")
    }
    assert (
        found
        == {variable.name: variable.shape is not None and None not in variable.shape for variable in model.variables}
        and False in found.values()
    )


def _savable(one: Case, graph: Path) -> gr.Model:
    return gr.initialize(gr.restore(gr.load(graph), one.prefix))


@pytest.mark.tensorflow
@pytest.mark.parametrize("own", [True, False], ids=["own", "new"])
@pytest.mark.parametrize("one", RUNNABLE, ids=lambda one: one.id)
def test_tensorflow_restores_and_saves_by_it(one: Case, own: bool, tmp_path: Path) -> None:
    """Both ways: our checkpoint restored by the saver's nodes, and what they save read by us."""
    import tensorflow.compat.v1 as tf

    model = _savable(one, one.graph_pb)
    built = gr.build_saver(model if own else _without_saver(model))
    gr.export(built, tmp_path / "ours", "checkpoint")
    saved = {node.name: list(node.input)[3:] for node in built.graph.graph_def.node if node.op == "SaveV2"}
    with tf.Graph().as_default(), tf.device("/device:CPU:0"):
        tf.import_graph_def(_prepared(built), name="")
        saver = tf.train.Saver(saver_def=tf.train.SaverDef.FromString(built.saver_def.SerializeToString()))
        with tf.Session(config=tf.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True)) as session:
            saver.restore(session, str(tmp_path / "ours"))
            path = saver.save(session, str(tmp_path / "theirs"), write_meta_graph=False, write_state=False)
    assert saved and path == str(tmp_path / "theirs")
    ours, theirs = gr.load_checkpoint(tmp_path / "ours"), gr.load_checkpoint(path)
    assert _content(theirs) == _content(ours)
    expected = {key: value for key, value in one.oracle["checkpoint"][""].items() if key in theirs}
    assert expected and _content(expected) == _content({key: theirs[key] for key in expected})


def _content(tensors: Any) -> dict[str, Any]:
    """Type and bytes by key; those of a table as a set of entries, since they come out of it in any order."""
    found: dict[str, Any] = {}
    arrays = {key: tensor if isinstance(tensor, np.ndarray) else tensor.read() for key, tensor in tensors.items()}
    for key, array in arrays.items():
        table, _, part = key.rpartition("-")
        if part == "keys":
            found[table] = dict(zip(arrays[key].tolist(), arrays[f"{table}-values"].tolist()))
        elif part != "values":
            found[key] = array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes()
    return found


def _prepared(model: gr.Model) -> Any:
    """The graph as today's TensorFlow imports it."""
    import tensorflow.compat.v1 as tf

    from graph_restore.transforms.prepare import prepare

    return tf.GraphDef.FromString(prepare(model, clear_devices=False).materialize().SerializeToString())
