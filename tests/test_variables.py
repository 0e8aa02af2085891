"""What is found out about variables, compared with what the TensorFlow that made each model said of them."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr
from graph_restore.dtypes import DataType, type_name
from graph_restore.graph import Graph, tensor_attr
from graph_restore.protos import GraphDef, NodeDef
from graph_restore.savers import find_savers
from graph_restore.variables import Variable

_load = functools.cache(gr.load)
SOURCES = [
    pytest.param(one, path, id=f"{one.id}-{path.suffix}")
    for one in cases()
    for path in (one.graph_pb, one.meta)
    if path
]
# an optimizer's own name for a slot, and what its op or the slot's variable is called
SLOT_NAMES = {"m": "Adam", "v": "Adam_1", "momentum": "accum", "accumulator": "accum"}
AUTHORITIES = {"restore op", "save op", "collection", "topology", "optimizer op", "attribute", "name"}


def _found(path: Path) -> dict[str, gr.Variable]:
    return {f"{variable.name}:0": variable for variable in _load(path).variables}


def _saved_as(one: Case, tag: str) -> dict[str, tuple[str, Any]]:
    """Variable to (checkpoint key, (offset, shape) of its slice or None) in one saver."""
    return {
        part["variable"]: (key, (part["offset"], part["shape"]) if "offset" in part else None)
        for key, facts in one.facts["savers"][tag]["keys"].items()
        for part in facts["parts"]
    }


def _key(variable: gr.Variable) -> tuple[str | None, Any]:
    box = variable.slice
    return variable.checkpoint_key, None if box is None else (list(box.starts), list(box.lengths))


@pytest.mark.parametrize(("one", "path"), SOURCES)
def test_kind_type_and_shape(one: Case, path: Path) -> None:
    found = _found(path)
    assert set(found) == set(one.facts["variables"])
    for name, facts in one.facts["variables"].items():
        variable = found[name]
        assert variable.kind == ("resource" if facts["op"] == "VarHandleOp" else "ref"), name
        assert type_name(variable.data_type) == facts["dtype"].replace("half", "float16"), name
        assert (None if variable.shape is None else list(variable.shape)) == facts["shape"], name


@pytest.mark.parametrize(("one", "path"), SOURCES)
def test_checkpoint_key_and_slice(one: Case, path: Path) -> None:
    found = _found(path)
    tags = [""] if path == one.meta or len(one.prefixes) == 1 else list(one.prefixes)  # a bare graph prefers no saver
    for name in found:
        expected = {str(_saved_as(one, tag).get(name, (None, None))) for tag in tags}
        if one.model == "stripped":
            expected = {str((None, None))}
        assert str(_key(found[name])) in expected, name


@pytest.mark.parametrize(("one", "path"), SOURCES)
def test_initializer_and_snapshot(one: Case, path: Path) -> None:
    found = _found(path)
    nodes = _load(path).graph.nodes
    for name, facts in one.facts["variables"].items():
        if "initializer" in facts:
            assert found[name].initializer == (None if one.model == "stripped" else facts["initializer"]), name
            if one.model != "stripped":
                value = found[name].initial_value
                assert value is not None and value.rpartition(":")[0] in nodes
        if facts.get("snapshot"):
            assert found[name].snapshot == facts["snapshot"], name


@pytest.mark.parametrize(("one", "path"), SOURCES)
def test_trainable(one: Case, path: Path) -> None:
    found = _found(path)
    for name, facts in one.facts["variables"].items():
        if "trainable" in facts:
            sure = path == one.meta
            assert found[name].trainable in ([facts["trainable"]] if sure else [facts["trainable"], None]), name


@pytest.mark.parametrize(
    "identity", ["mlp/tf0.12.1-v1", "convnet/tf1.15.5-v2", "partitioned/tf1.4.1-v2", "resource/tf1.4.1-v2"]
)
def test_trainable_from_optimizer_ops_alone(identity: str) -> None:
    one = case(identity)
    found = _found(one.graph_pb)
    facts = one.facts["variables"]
    assert {name: found[name].trainable for name in facts} == {name: facts[name]["trainable"] for name in facts}


@pytest.mark.parametrize(("one", "path"), SOURCES)
def test_slots_and_moving_averages(one: Case, path: Path) -> None:
    found = _found(path)
    for name, facts in one.facts["variables"].items():
        variable, slot = found[name], facts.get("slot")
        assert variable.slot_of == (slot["of"].removesuffix(":0") if slot else None), name
        assert variable.is_slot == bool(slot)
        assert variable.slot in ((slot["name"], SLOT_NAMES[slot["name"]]) if slot else (None,)), name
        average = facts.get("moving_average_of")
        assert variable.moving_average_of == (average.removesuffix(":0") if average else None), name


@pytest.mark.parametrize(("one", "path"), SOURCES)
def test_every_fact_has_an_authority(one: Case, path: Path) -> None:
    for variable in _load(path).variables:
        facts = {"checkpoint_key", "slice", "initializer", "snapshot", "trainable", "slot_of", "moving_average_of"}
        known = {fact for fact in facts if getattr(variable, fact) is not None}
        assert known <= set(variable.authority) and set(variable.authority.values()) <= AUTHORITIES
        json.dumps(variable.to_dict())


@pytest.mark.parametrize("one", [one for one in cases() if one.meta], ids=lambda one: one.id)
def test_savers(one: Case) -> None:
    savers = gr.load(one.meta).savers
    expected = {facts["filename_tensor"]: facts for facts in one.facts["savers"].values()}
    assert {saver.filename_tensor: saver.keys for saver in savers} == {
        name: frozenset(facts["keys"]) for name, facts in expected.items()
    }
    assert [saver.filename_tensor for saver in savers if saver.is_meta_graphs] == [
        one.facts["savers"][""]["filename_tensor"]
    ]


def test_a_mutable_tables_keys_belong_to_no_variable() -> None:
    (saver,) = gr.load(case("mutable_table/tf1.15.5-v2").graph_pb).savers
    owners = {entry.key: entry.variable for entry in saver.entries}
    assert owners == {"factor": "factor", "seen-keys": None, "seen-values": None}


# two networks: `target` copies `online`, and its initializer is known only by the group that runs it
COPIES = b"""
node { name: "online" op: "VariableV2" attr { key: "dtype" value { type: DT_FLOAT } } attr { key: "shape" value { shape { dim { size: 2 } } } } }
node { name: "target" op: "VariableV2" attr { key: "dtype" value { type: DT_FLOAT } } attr { key: "shape" value { shape { dim { size: 2 } } } } }
node { name: "zeros" op: "Const" attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 0 } } } }
node { name: "fed" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
node { name: "first" op: "Assign" input: "online" input: "zeros" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "second" op: "Assign" input: "target" input: "zeros" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "online/read" op: "Identity" input: "online" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "target/Assign" op: "Assign" input: "target" input: "online/read" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "online/Assign" op: "Assign" input: "online" input: "fed" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "init" op: "NoOp" input: "^first" input: "^second" }
"""  # noqa: E501


def test_copies_and_fed_assigns_are_no_initializers() -> None:
    variables = gr.load(COPIES).variables
    assert [variable.initializer for variable in variables] == ["first", "second"]
    assert [variable.initial_value for variable in variables] == ["zeros:0", "zeros:0"]
    assert [variable.snapshot for variable in variables] == ["online/read:0", None]
    assert {variable.trainable for variable in variables} == {None}


def test_variables_are_a_sequence_looked_up_by_name() -> None:
    variables = gr.load(case("linear/tf1.4.1-v2").graph_pb).variables
    assert variables.names() == ["w", "b"] and len(variables) == 2
    assert variables["w"] is variables["w:0"] is variables[0] is variables.get("w")
    assert "b:0" in variables and variables[1] in variables and "x" not in variables
    assert list(variables[:1]) == [variables["w"]] and variables.get("nothing") is None
    assert variables["w"].describe() == "float32 [4, 3]"
    with pytest.raises(gr.NodeNotFoundError, match="'weights'|near names"):
        variables["weights"]


@pytest.mark.tensorflow
def test_sparsely_trained_variables_are_not_said_to_be_untrained() -> None:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        tables = [tf.get_variable(name, [5, 2], use_resource=False) for name in ("plain", "with_slots")]
        weight, step = tf.get_variable("weight", [2]), tf.get_variable("step", [], tf.int32, trainable=False)
        loss = tf.add_n([tf.reduce_sum(tf.gather(table, [1, 3]) * weight) for table in tables])
        tf.train.GradientDescentOptimizer(0.1).minimize(loss, var_list=[tables[0], weight], global_step=step)
        tf.train.AdamOptimizer(0.1).minimize(loss, var_list=[tables[1]])
    found = {variable.name: variable.trainable for variable in gr.load(graph.as_graph_def()).variables}
    assert {name: found[name] for name in ("plain", "with_slots", "weight", "step", "with_slots/Adam")} == {
        "plain": None,
        "with_slots": True,
        "weight": True,
        "step": False,
        "with_slots/Adam": False,
    }


def test_a_variable_is_replaced_as_a_whole() -> None:
    variable = Variable("w", "ref", DataType.DT_FLOAT, (2,), authority={"shape": "attribute"})
    assert variable.replaced(shape=(3,), trainable=True) == replace(variable, shape=(3,), trainable=True)
    assert variable.shape == (2,)
    with pytest.raises(TypeError, match="no shapes"):
        variable.replaced(shapes=(3,))


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 8, 30])
@pytest.mark.parametrize("order", [1, -1], ids=["in order", "backwards"])
def test_a_restored_value_may_pass_through_many_nodes(length: int, order: int) -> None:
    nodes = ["RestoreV2", *["Identity"] * length]
    chain = [
        NodeDef(name="file", op="Const"), NodeDef(name="w", op="VariableV2"),
        NodeDef(name="keys", op="Const"), NodeDef(name="assign", op="Assign", input=["w", f"n{length}"]),
    ]  # fmt: skip
    chain[2].attr["value"].CopyFrom(tensor_attr(np.array([b"saved/w"], object)))
    for number, op in enumerate(nodes):
        inputs = [f"n{number - 1}"] if number else ["file", "keys"]
        chain.append(NodeDef(name=f"n{number}", op=op, input=inputs))
    (saver,) = find_savers(Graph(GraphDef(node=chain[::order])))
    assert [(entry.key, entry.variable, entry.restored_by) for entry in saver.entries] == [("saved/w", "w", "assign")]
