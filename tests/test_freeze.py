"""What freezing leaves of a graph, checked without TensorFlow: names, feeds, tables, errors."""

from __future__ import annotations

import functools
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, Run, case, cases
from google.protobuf import text_format

import graph_restore as gr
from graph_restore import protos
from graph_restore.names import node_of
from graph_restore.transforms.vocabulary import read_vocabulary

_load = functools.cache(gr.load)
VARIABLE_OPS = {"Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable"}
REFUSED = {  # model to what the error must name
    "metrics_local": "accuracy/count",
    "update_in_while": "while/AssignAdd",
    "update_unordered": "raise_gain",
}
FREEZABLE = [one for one in cases() if one.model not in REFUSED]


def _restored(identity: str) -> gr.Model:
    one = case(identity)
    return gr.restore(_load(one.graph_pb), one.prefix)


def _frozen(one: Case, run: Run, **options: Any) -> gr.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gr.GraphRestoreWarning)
        return gr.freeze(
            gr.restore(_load(one.graph_pb), one.prefix), list(run["outputs"]), list(run["feeds"]), **options
        )  # noqa: E501


@pytest.mark.parametrize("one", FREEZABLE, ids=lambda one: one.id)
def test_what_a_frozen_graph_is(one: Case) -> None:
    before = _load(one.graph_pb).graph
    kept = bytes(before.graph_def.SerializeToString(deterministic=True))
    for run in one.oracle["runs"]:
        frozen = _frozen(one, run)
        nodes = frozen.graph.nodes
        assert not frozen.variables and not {node.op for node in nodes.values()} & VARIABLE_OPS
        assert frozen.fetches == tuple(run["outputs"]) and frozen.feeds == tuple(run["feeds"])
        assert {node_of(name) for name in (*frozen.fetches, *frozen.feeds)} <= set(nodes)
        new = set(nodes) - set(before.nodes)
        owners = {
            *map(node_of, frozen.feeds),
            frozen.init_op,
            *(name for name, node in nodes.items() if "Table" in node.op),
        }  # noqa: E501
        assert all(name == frozen.init_op or name.rpartition("/")[0] in owners for name in new)
        assert frozen.graph.graph_def.versions == before.graph_def.versions
        for node in nodes.values():
            assert node.device == "" and "_output_shapes" not in node.attr
            assert all(item.removeprefix(b"loc:@").decode() in nodes for item in node.attr["_class"].list.s)
            assert all(value.type < 100 for value in node.attr.values()) and not node.op.startswith("Ref")
            assert all(node_of(item) in nodes for item in node.input)
    assert before.graph_def.SerializeToString(deterministic=True) == kept, "the graph given was changed"


@pytest.mark.parametrize("one", FREEZABLE, ids=lambda one: one.id)
def test_constants_hold_what_was_restored(one: Case) -> None:
    """Variables become Consts of their name; those that an update overwrites first may be gone."""
    frozen = _frozen(one, one.oracle["runs"][0])
    found = [name for name in one.oracle["variables"] if name.removesuffix(":0") in frozen.graph.nodes]
    assert found or one.model.startswith("update_")
    for name in found:
        value = frozen.graph.value(frozen.graph.node(name)).read()
        expected = one.oracle["variables"][name]
        assert frozen.graph.node(name).op == "Const" and value.dtype == expected.dtype
        assert value.tolist() == expected.tolist() or value.tobytes() == expected.tobytes()


@pytest.mark.parametrize("one", [one for one in cases() if one.model in REFUSED], ids=lambda one: one.id)
def test_refused(one: Case) -> None:
    with pytest.raises(gr.FreezeError, match=re.escape(REFUSED[one.model])) as caught:
        _frozen(one, one.oracle["runs"][0])
    if one.model == "metrics_local":
        assert sorted(caught.value.variables) == ["accuracy/count", "accuracy/total"]
    else:
        assert caught.value.nodes


@pytest.mark.parametrize("one", cases("update_unordered"), ids=lambda one: one.id)
def test_unordered_updates_name_both_nodes_or_take_the_initial_value(one: Case) -> None:
    run = one.oracle["runs"][0]
    with pytest.raises(gr.FreezeError, match=r"raise_gain \(AssignAdd\) updates gain and .*(for y|y uses it)"):
        _frozen(one, run)
    frozen = _frozen(one, run, on_update="initial")
    assert any("raise_gain" in note and "restored value of gain" in note for note in frozen.notes)
    assert not any(node.op.startswith("Assign") for node in frozen.graph.nodes.values())


def test_updates_are_told() -> None:
    model = _restored("update_droppable/tf1.4.1-v2")
    with pytest.warns(gr.GraphRestoreWarning, match=r"AssignAdd.*is dropped"):
        frozen = gr.freeze(model, "y", "x")
    assert "calls" not in frozen.graph.nodes and len(frozen.notes) == 1
    with pytest.warns(gr.GraphRestoreWarning, match=r"raise_gain \(AssignAdd\) is replaced by the value"):
        frozen = gr.freeze(_restored("update_ordered/tf1.4.1-v2"), "y", "x")
    assert frozen.graph.node("raise_gain").op == "Add"


# feeds of feed_middle: x [3, 2] -> unstack (3 outputs) -> y = a w + (b - c)
def test_feeding_every_output_of_a_node() -> None:
    frozen = gr.freeze(_restored("feed_middle/tf1.4.1-v2"), "y", ["unstack:0", "unstack:1", "unstack:2"])
    whole = frozen.graph.node("unstack")
    assert (whole.op, list(whole.input)) == ("IdentityN", ["unstack/0", "unstack/1", "unstack/2"])
    assert list(whole.attr["T"].list.type) == [1, 1, 1] and "x" not in frozen.graph.nodes
    assert {frozen.graph.node(f"unstack/{index}").op for index in range(3)} == {"Placeholder"}


def test_feeding_one_output_of_a_node() -> None:
    frozen = gr.freeze(_restored("feed_middle/tf1.4.1-v2"), "y:0", ["x", "unstack:1"])
    nodes = frozen.graph.nodes
    whole = nodes["unstack"]
    assert whole.op == "IdentityN" and len(whole.input) == 3 and whole.input[1] == "unstack/1"
    assert nodes["unstack/1"].op == "Placeholder"
    (moved,) = {node_of(whole.input[index]) for index in (0, 2)}
    assert nodes[moved].op == "Unpack" and list(nodes[moved].input) == ["x"]
    assert frozen.feeds == ("x:0", "unstack:1")


def test_feeding_the_only_output_of_a_node() -> None:
    frozen = gr.freeze(_restored("mlp/tf1.4.1-v2"), "softmax", "hidden/relu")
    fed = frozen.graph.node("hidden/relu")
    assert fed.op == "Placeholder" and not fed.input and fed.attr["dtype"].type == 1
    assert "features" not in frozen.graph.nodes and "hidden/weights" not in frozen.graph.nodes


@pytest.mark.parametrize(("identity", "feed", "shape"), [
    ("linear/tf1.15.5-v2", "w:0", [4, 3]),  # a variable: its value is not wanted then
    ("linear/tf0.12.1-v1", "w:0", [4, 3]),
    ("resource/tf1.4.1-v2", "resource/table/read:0", None),
    ("convnet/tf1.15.5-v2", "keep_prob", []),  # a PlaceholderWithDefault
    ("unknown_shape/tf0.12.1-v1", "x", None),
    ("linear/tf1.4.1-v2", "x", [-1, 4]),
])  # fmt: skip
def test_shape_and_type_of_feeds(identity: str, feed: str, shape: list[int] | None) -> None:
    model = _restored(identity)
    if feed not in model.graph.nodes and feed != "w:0" and node_of(feed) not in model.graph.nodes:
        pytest.skip("the release names it otherwise")
    fetch = case(identity).facts["fetches"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gr.GraphRestoreWarning)
        node = gr.freeze(
            model, fetch, feed, constants={"is_training": False} if "conv" in identity else None
        ).graph.node(feed)  # noqa: E501
    found = node.attr["shape"].shape
    assert (node.op, node.attr["dtype"].type) == ("Placeholder", 1)
    assert (None if found.unknown_rank else [dim.size for dim in found.dim]) == shape or "0.12" in identity


def test_shapes_of_feeds_come_from_output_shapes() -> None:
    one = case("mlp/tf1.4.1-v2")
    frozen = gr.freeze(gr.restore(_load(one.meta)), "softmax", "hidden/relu")
    assert [dim.size for dim in frozen.graph.node("hidden/relu").attr["shape"].shape.dim] == [-1, 10]
    bare = gr.freeze(_restored("mlp/tf1.4.1-v2"), "softmax", "hidden/relu")
    assert bare.graph.node("hidden/relu").attr["shape"].shape.unknown_rank


def test_a_feed_that_is_not_needed_stays() -> None:
    with pytest.warns(gr.GraphRestoreWarning, match="feed labels is not needed"):
        frozen = gr.freeze(_restored("mlp/tf1.4.1-v2"), "softmax", ["features", "labels"])
    assert frozen.graph.node("labels").op == "Placeholder"


@pytest.mark.parametrize("one", [*cases("queue_input"), *cases("dataset_input")], ids=lambda one: one.id)
def test_input_pipelines_are_cut_with_a_word(one: Case) -> None:
    model = gr.restore(_load(one.graph_pb), one.prefix)
    with pytest.warns(gr.GraphRestoreWarning, match=f"is cut: feed {one.facts['feed_at']}"):
        frozen = gr.freeze(model, "y")
    assert frozen.graph.node(one.facts["feed_at"]).op == "Placeholder"
    assert not any(node.op.startswith(("Queue", "FIFO", "Iterator", "OneShot")) for node in frozen.graph.nodes.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gr.freeze(model, "y", one.facts["feed_at"])


@pytest.mark.parametrize("identity", ["linear/tf0.12.1-v1", "odd_resource/tf1.15.5-v2"])
def test_a_variable_itself_is_fetched(identity: str) -> None:
    model = _restored(identity)
    variable = model.variables[0]
    frozen = gr.freeze(model, variable.name)
    assert list(frozen.graph.nodes) == [variable.name] and frozen.fetches == (f"{variable.name}:0",)
    assert variable.value is not None
    assert (frozen.graph.value(frozen.graph.node(variable.name)).read() == variable.value.read()).all()


def test_devices_and_colocations() -> None:
    model = _restored("gpu_devices/tf1.15.5-v2")
    kept = gr.freeze(model, "y", "x", keep_devices=True).graph
    assert {node.device for node in kept.nodes.values()} >= {"/job:localhost/replica:0/task:0/device:GPU:3"}


@pytest.mark.parametrize("one", cases("defun"), ids=lambda one: one.id)
def test_functions_are_kept_in_todays_form(one: Case) -> None:
    library = _frozen(one, one.oracle["runs"][0]).graph.graph_def.library
    assert {function.signature.name for function in library.function} == {"scaled", "twice"}
    assert all(function.node_def and not function.node for function in library.function)
    assert all(
        set(function.ret) == {out.name for out in function.signature.output_arg} for function in library.function
    )


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_the_one_candidate_is_fetched() -> None:
    chosen = {}
    for one in cases("linear") + cases("sharded") + cases("resource_partitioned") + cases("while_loop"):
        frozen = gr.freeze(gr.restore(_load(one.graph_pb), one.prefix))
        chosen[one.id] = frozen.fetches
    assert set(chosen.values()) == {("y:0",)}, chosen


@pytest.mark.parametrize("identity", ["convnet/tf1.4.1-v2", "partitioned/tf0.12.1-v1", "partitioned/tf1.15.5-v2"])
def test_a_loss_is_no_candidate(identity: str) -> None:
    frozen = gr.freeze(_restored(identity))
    assert frozen.fetches == tuple(case(identity).facts["fetches"])


def test_several_candidates_are_listed() -> None:
    with pytest.raises(gr.FreezeError, match="pass fetches=; 2 tensors.*y:0.*ids:0") as caught:
        gr.freeze(_restored("vocabulary/tf1.15.5-v2"))
    assert set(caught.value.nodes) == {"y:0", "ids:0"}
    with pytest.raises(gr.FreezeError, match="fetches is empty"):
        gr.freeze(_restored("linear/tf1.4.1-v2"), [])


SCALED = """
node {{ name: "x" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }} }}
node {{ name: "sum" op: "Sum" input: "x" input: "axes" }}
node {{ name: "scaled" op: "RealDiv" input: "sum" input: "number" }}
node {{ name: "number" op: "Const" attr {{ key: "value" value {{ tensor {{ dtype: DT_FLOAT float_val: 2
  tensor_shape {{ }} }} }} }} }}
{axes}
"""
AXES = """
node {{ name: "axes" op: "Const" attr {{ key: "value" value {{ tensor {{ dtype: DT_INT32 int_val: {axis}
  tensor_shape {{ dim {{ size: 1 }} }} }} }} }} }}
"""


@pytest.mark.parametrize("axes", [AXES.format(axis=0), 'node { name: "axes" op: "Range" }'], ids=["of 0", "of all"])
def test_a_mean_over_the_batch_is_not_taken_for_the_output(axes: str) -> None:
    with pytest.raises(gr.FreezeError, match="only scaled:0 is used by nothing else, and it looks like a loss"):
        gr.freeze(gr.load(SCALED.format(axes=axes).encode()))


def test_a_mean_over_features_is_an_output() -> None:
    assert gr.freeze(gr.load(SCALED.format(axes=AXES.format(axis=1)).encode())).fetches == ("scaled:0",)


def test_a_signatures_tensors_are_in_the_order_of_its_keys() -> None:
    names = [f"key{number}" for number in (7, 3, 9, 1, 8, 2)]  # a map of protobuf has no order of its own
    graph = protos.GraphDef()
    signature = protos.SignatureDef()
    for name in names:
        graph.node.add(name=f"in_{name}", op="Placeholder").attr["dtype"].type = 1
        graph.node.add(name=f"out_{name}", op="Identity", input=[f"in_{name}"]).attr["T"].type = 1
        signature.inputs[name].name, signature.outputs[name].name = f"in_{name}:0", f"out_{name}:0"
    meta = protos.MetaGraphDef(graph_def=graph, signature_def={"serving_default": signature})
    frozen = gr.freeze(gr.load(meta))
    assert frozen.feeds == tuple(f"in_{name}:0" for name in sorted(names))
    assert frozen.fetches == tuple(f"out_{name}:0" for name in sorted(names))


@pytest.mark.parametrize("one", cases("saved_model"), ids=lambda one: one.id)
def test_the_signature_says_what_is_meant(one: Case) -> None:
    model = gr.restore(gr.load(one.directory / "saved_model"))
    frozen = gr.freeze(model)
    assert (frozen.fetches, frozen.feeds) == (("y:0",), ("x:0",))
    assert set(frozen.signatures) == {"serving_default"}  # `double` is about a tensor that is gone
    both = gr.freeze(model, ["y", "doubled"], "x")
    assert set(both.signatures) == {"serving_default", "double"}


@pytest.mark.parametrize(
    ("fetches", "feeds", "message"),
    [
        ("sofmax", None, "no node 'sofmax'; near names: .*softmax"),
        ("softmax:3", None, r"softmax \(Softmax\) has 1 output; there is no softmax:3"),
        ("SoftMax", None, "no node 'SoftMax'; near names: .*softmax"),
        ("!?", None, "no node '!.'; `graph-restore inspect` lists"),
        ("softmax", "feature", "no node 'feature'; near names: features"),
        ("softmax", ["features:1"], "has 1 output; there is no features:1"),
    ],
)
def test_names_that_are_not_there(fetches: str, feeds: Any, message: str) -> None:
    with pytest.raises(gr.NodeNotFoundError, match=message):
        gr.freeze(_restored("mlp/tf1.15.5-v2"), fetches, feeds)


def test_values_that_are_not_there() -> None:
    one = case("linear/tf1.4.1-v2")
    with pytest.raises(gr.FreezeError, match="restore the model first") as caught:
        gr.freeze(_load(one.graph_pb), "y", "x")
    assert caught.value.variables == ["w", "b"]
    with pytest.raises(
        gr.FreezeError, match="^1 variable that the fetches need has no value(?s:.*)b: no value, expec"
    ) as caught:
        gr.freeze(gr.restore(_load(one.graph_pb), {"w": gr.load_checkpoint(one.prefix)["w"].read()}), "y", "x")
    assert caught.value.variables == ["b"]
    half = gr.restore(_load(one.graph_pb), one.prefix, exclude="b")
    with pytest.raises(gr.FreezeError, match="b: left out, by include= or exclude=") as caught:
        gr.freeze(half, "y", "x")
    assert caught.value.variables == ["b"]
    assert gr.freeze(half, "y", ["x", "b"]).feeds == ("x:0", "b:0")


def test_values_under_other_names_are_pointed_out() -> None:
    one = case("mismatch/tf1.4.1-v2")
    restored = gr.restore(gr.load(one.graph_pb), one.other_prefixes["renamed"])
    with pytest.raises(gr.FreezeError) as caught:
        gr.freeze(restored, "y")
    assert "no value in " in str(caught.value) and "renamed/model.ckpt:" in str(caught.value)
    assert "w: no value, expected under key w; near: tower/w" in str(caught.value)
    assert "all 2 missing names match after removing the prefix `tower/`" in str(caught.value)


def test_arguments_of_the_wrong_kind() -> None:
    one = case("linear/tf1.4.1-v2")
    for verb in (gr.freeze, gr.restore):
        with pytest.raises(TypeError, match="a Model is needed, found str; pass what graph_restore.load gives"):
            verb(str(one.graph_pb))
    with pytest.raises(gr.NodeNotFoundError, match=r"\^y is a control edge, not a tensor; pass y:0"):
        gr.freeze(_restored(one.id), "^y")
    with pytest.raises(NotADirectoryError, match="asset_dir is no directory: 'nowhere'"):
        gr.freeze(_restored(one.id), "y", asset_dir="nowhere")


def test_values_stay_on_disk(tmp_path: Path) -> None:
    one = case("linear/tf1.15.5-v2")
    for path in one.directory.glob("model.ckpt*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (data,) = tmp_path.glob("*.data-*")
    data.write_bytes(bytes(data.stat().st_size))
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model.ckpt.meta")), "y", "x")
    with pytest.raises(gr.CorruptionError):
        gr.export(frozen, tmp_path / "frozen.pb")


@pytest.mark.parametrize(("options", "message"), [
    ({"tables": "outside"}, "tables is one of"),
    ({"on_update": "ignore"}, "on_update"),
])  # fmt: skip
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gr.freeze(_restored("linear/tf1.4.1-v2"), "y", **options)


def test_constants() -> None:
    frozen = gr.freeze(_restored("convnet/tf1.15.5-v2"), "scores/out", "images", constants={"is_training:0": 0})
    assert "is_training" not in frozen.graph.nodes, "no branch is left that needs it"
    assert not {"Switch", "Merge"} & {node.op for node in frozen.graph.nodes.values()}
    frozen = gr.freeze(_restored("convnet/tf1.15.5-v2"), ["scores/out", "is_training"], constants={"is_training": 0})
    node = frozen.graph.node("is_training")
    assert node.op == "Const" and frozen.graph.value(node).read().tolist() is False
    words = gr.freeze(_restored("string_mapping/tf1.4.1-v2"), "ids", constants={"words": [b"elm", "yew"]})
    assert words.graph.value(words.graph.node("words")).read().tolist() == [b"elm", b"yew"]
    for name, message in (
        ("x:1", r"takes placeholders; x \(Placeholder\) has one output, and 'x:1' would be another: write 'x'"),
        ("^x", r"takes placeholders; '\^x' is how a control input is written, which has no value: write 'x'"),
    ):
        with pytest.raises(gr.FreezeError, match=message):
            gr.freeze(_restored("linear/tf1.4.1-v2"), "y", constants={name: 1.0})
    with pytest.raises(gr.FreezeError, match="constants= takes placeholders; y is a Add"):
        gr.freeze(_restored("linear/tf1.4.1-v2"), "y", constants={"y": 1})
    with pytest.raises(gr.NodeNotFoundError, match="no node 'z'"):
        gr.freeze(_restored("linear/tf1.4.1-v2"), "y", constants={"z": 1})


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("is_training", "false", False),
    ("is_training", "True", True),
    ("is_training", 1, True),
    ("is_training", "no", "is_training is a placeholder of bool, and cannot be 'no'"),
    ("is_training", 0.5, "cannot be 0.5"),
    ("is_training", [True], r"a value of shape \[\] is expected, and \[1\] is given"),
    ("keep_prob", "0.25", 0.25),
    ("keep_prob", None, "cannot be None"),
])  # fmt: skip
def test_values_of_constants(name: str, value: Any, expected: Any) -> None:
    model = _restored("convnet/tf1.15.5-v2")
    if isinstance(expected, str):
        with pytest.raises(gr.FreezeError, match=expected):
            gr.freeze(model, name, constants={name: value})
    else:
        frozen = gr.freeze(model, name, constants={name: value})
        assert frozen.graph.value(frozen.graph.node(name)).read() == expected


@pytest.mark.parametrize("one", [one for one in cases("convnet")], ids=lambda one: one.id)
def test_only_the_branch_taken_needs_values(one: Case) -> None:
    model = gr.restore(_load(one.graph_pb), one.prefix, exclude=["norm/moving_variance"])
    options: dict[str, Any] = {"constants": {"is_training": True}, "on_update": "initial"}
    assert gr.freeze(model, "scores/out", **options).graph.nodes
    with pytest.raises(gr.FreezeError, match="norm/moving_variance"):
        gr.freeze(model, "scores/out", constants={"is_training": False})


def test_a_fetch_in_the_other_branch_has_no_value() -> None:
    with pytest.raises(gr.FreezeError, match=r"cond/mul:0 never has a value.* given left") as caught:
        gr.freeze(_restored("cond/tf1.4.1-v2"), ["y", "cond/mul"], constants={"left": True})
    assert list(caught.value.nodes) == ["cond/mul"]


@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
@pytest.mark.parametrize("one", cases("mlp"), ids=lambda one: one.id)
def test_fetches_that_train_save_or_report_are_left_away(one: Case) -> None:
    model = gr.restore(_load(one.graph_pb), one.prefix)
    update = next(name for name, node in model.graph.nodes.items() if node.op == "ApplyAdam")
    wanted = {  # Adam counts steps once the gradients are applied
        "Adam": "part of an optimizer (AssignAdd)", update: "part of an optimizer (ApplyAdam)",
        "Adam/Assign": "part of an optimizer (Assign)", "Adam/update": "part of an optimizer (NoOp)",
        "save/control_dependency": "part of a saver (Identity)", "save/Assign": "part of a saver (Assign)",
        "save/restore_all": "an op without outputs (NoOp)", "hidden/weights/Assign": "an initializer",
    }  # fmt: skip
    frozen = gr.freeze(model, [*wanted, "softmax"])
    assert frozen.fetches == ("softmax:0",)
    said = [f"fetch {name}:0 is left away: it is {kind}, not an output of the model" for name, kind in wanted.items()]
    assert list(frozen.notes) == said
    assert gr.freeze(model, "hidden/weights/Assign", on_update="initial").fetches == ("hidden/weights/Assign:0",)
    with pytest.raises(gr.FreezeError, match="none of the fetches is an output of the model") as caught:
        gr.freeze(model, ["Adam", "save/restore_all"])
    assert list(caught.value.nodes) == ["Adam", "save/restore_all"]


@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_summaries_are_left_away() -> None:
    model = _restored("linear/tf1.4.1-v2")
    graph_def = model.graph.materialize()
    graph_def.node.add(name="tag", op="Const").attr["dtype"].type = 7
    graph_def.node[-1].attr["value"].tensor.dtype = 7
    graph_def.node[-1].attr["value"].tensor.string_val.append(b"mean")
    graph_def.node.add(name="mean", op="ScalarSummary", input=["tag", "y"]).attr["T"].type = 1
    graph_def.node.add(name="merged", op="MergeSummary", input=["mean"]).attr["N"].i = 1
    model = gr.restore(gr.load(graph_def), case("linear/tf1.4.1-v2").prefix)
    assert gr.freeze(model, ["merged", "y", "mean:0"]).fetches == ("y:0",)


# -- tables -----------------------------------------------------------------------------------------------------------

WORDS, FILLED = [b"oak", b"elm", b" ", b"ash tree", b"yew"], re.compile("InitializeTable(V2)?|LookupTableImport(V2)?")
TABLES = {  # of each table's initializer: its keys and values
    "vocabulary": [(WORDS, [0, 1, 2, 3, 4])],
    "saved_model_assets": [(WORDS, [0, 1, 2, 3, 4])],
    "session_bundle": [(WORDS, [0, 1, 2, 3, 4])],
    "columns_table": [([7, -2, 900], [b"seven", b"minus two", b" "]), ([b"seven", b"minus two", b" "], [7, -2, 900])],
    "key_value_table": [([b"low", b"high"], [3, 8]), ([3, 8], [b"low", b"high"])],
}
TABLE_CASES = [one for one in cases() if one.model in TABLES]


@pytest.mark.parametrize("one", TABLE_CASES, ids=lambda one: one.id)
@pytest.mark.parametrize("tables", ["inline", "init_op"])
def test_tables_are_filled_from_constants(one: Case, tables: str) -> None:
    frozen = _frozen(one, one.oracle["runs"][0], tables=tables)
    graph = frozen.graph
    fillers = {node.name: node for node in graph.nodes.values() if FILLED.fullmatch(node.op)}
    contents = [tuple(graph.constant(name).tolist() for name in node.input[1:3]) for node in fillers.values()]
    assert sorted(contents, key=str) == sorted(TABLES[one.model], key=str)
    lookups = [node for node in graph.nodes.values() if node.op.startswith("LookupTableFind")]
    assert lookups and all(
        any(f"^{name}" in node.input for name in fillers) == (tables == "inline") for node in lookups
    )
    assert frozen.init_op is not None and ":" not in frozen.init_op
    init = graph.node(frozen.init_op)
    assert init.op == "NoOp" and sorted(init.input) == sorted(f"^{name}" for name in fillers)


@pytest.mark.parametrize("one", cases("mutable_table"), ids=lambda one: one.id)
def test_mutable_tables_hold_what_was_saved(one: Case) -> None:
    frozen = _frozen(one, one.oracle["runs"][0])
    (filler,) = [node for node in frozen.graph.nodes.values() if FILLED.fullmatch(node.op)]
    keys, values = (frozen.graph.constant(name).tolist() for name in filler.input[1:3])
    assert dict(zip(keys, values)) == {b"a": 1, b"b": 2, b"longer word": 30}
    without = gr.restore(_load(one.graph_pb), {"factor": np.int64(7)})
    with pytest.raises(gr.FreezeError, match=r"seen \(MutableHashTable(V2)?\).*feed what is looked up") as caught:
        gr.freeze(without, "y", "words")
    assert set(caught.value.nodes) == {"seen"}


def test_the_models_own_init_op_keeps_its_name() -> None:
    one = case("saved_model_assets/tf1.15.5-v2")
    model = gr.restore(gr.load(one.directory / "saved_model"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gr.GraphRestoreWarning)
        assert model.init_op is not None and gr.freeze(model).init_op == model.init_op
    assert gr.freeze(_restored("linear/tf1.4.1-v2"), "y").init_op is None


def test_where_asset_files_are_looked_for(tmp_path: Path) -> None:
    one = case("vocabulary/tf1.4.1-v2")
    graph, prefix = gr.load(one.graph_pb.read_bytes()), one.prefix
    frozen = gr.freeze(gr.restore(graph, prefix), "y", "words")  # beside the checkpoint
    assert any("vocabulary.txt" in note and "5 entries" in note for note in frozen.notes)
    apart = gr.restore(graph, {"embedding": one.oracle["variables"]["embedding:0"]})
    with pytest.raises(gr.FreezeError, match=r"vocabulary\.txt, which is not there; pass asset_dir="):
        gr.freeze(apart, "y", "words")
    (tmp_path / "vocabulary.txt").write_bytes(b"a\nb")
    frozen = gr.freeze(apart, "y", "words", asset_dir=str(tmp_path))
    assert any("2 entries" in note for note in frozen.notes)


pytestmark = pytest.mark.filterwarnings("ignore:.*entries of .* are put into the graph")
STRING, INT64, INT32, FLOAT = 7, 9, 3, 1
NUMBERED = (-1, INT64)


@pytest.mark.parametrize(
    ("content", "key", "value", "size", "expected"),
    [
        (b"a\nb\n", (-2, STRING), (-1, INT64), -1, ([b"a", b"b"], [0, 1])),
        (b"a\nb", (-2, STRING), (-1, INT64), -1, ([b"a", b"b"], [0, 1])),  # no end of the last line
        (b"a\r\nb\r\n", (-2, STRING), (-1, INT64), -1, ([b"a", b"b"], [0, 1])),
        (b"a\nb\nc\n", (-2, STRING), (-1, INT64), 2, ([b"a", b"b"], [0, 1])),
        (b" a\tx \nb\t y\n", (0, STRING), (1, STRING), -1, ([b" a", b"b"], [b"x ", b" y"])),
        (b"3,x,0.5\n-4,y,1e3\n", (0, INT64), (2, FLOAT), -1, ([3, -4], [0.5, 1000.0])),
        (b"\xff\n\x00\n", (-2, STRING), (-1, INT64), -1, ([b"\xff", b"\x00"], [0, 1])),
        (b"a\n", (-1, INT64), (-2, STRING), 1, ([0], [b"a"])),
        (b"a,1\na,1\n", (0, STRING), (1, INT64), -1, ([b"a", b"a"], [1, 1])),  # the same twice
        (b"a, 07 \nb,+2\nc,5\x00x\n", (0, STRING), (1, INT64), -1, ([b"a", b"b", b"c"], [7, 2, 5])),
        (b"a,0x10\nb,1e39\nc,-Inf\n", (0, STRING), (1, FLOAT), -1, ([b"a", b"b", b"c"], [16, math.inf, -math.inf])),
        (f"a,{2**63 - 1}\nb,{-(2**63)}\n".encode(), (0, STRING), (1, INT64), -1, ([b"a", b"b"], [2**63 - 1, -(2**63)])),
    ],
)
def test_vocabulary(tmp_path: Path, content: bytes, key: Any, value: Any, size: int, expected: Any) -> None:
    path = tmp_path / "words"
    path.write_bytes(content)
    found = read_vocabulary(str(path), key=key, value=value, size=size, delimiter="," if b"," in content else "\t")
    assert tuple(tensor.read().tolist() for tensor in found) == expected
    assert [int(tensor.data_type) for tensor in found] == [key[1], value[1]]


@pytest.mark.parametrize(
    ("content", "key", "value", "message"),
    [
        (b"a\n\nb\n", (-2, STRING), NUMBERED, "line 2 is empty"),
        (b"", (-2, STRING), NUMBERED, "words is empty, and TensorFlow fills no table from an empty file"),
        (b"a\tb\nc\n", (1, STRING), NUMBERED, "line 2 has 1 column; the graph asks for column 1, counted from 0"),
        (b"1\nx\n", (0, INT64), NUMBERED, "line 2, column 0 (counted from 0) is no int64: 'x'"),
        (b"1\n1.5\n", (-2, INT64), NUMBERED, "line 2 is no int64: '1.5'"),
        (b"a\t9223372036854775808\n", (0, STRING), (1, INT64), "is no int64: '9223372036854775808'"),
        (b"a\t2147483648\n", (0, STRING), (1, INT32), "is no int32: '2147483648'"),
        (b"a\t1_0\n", (0, STRING), (1, INT64), "is no int64: '1_0'"),
        (b"a\t1_0\n", (0, STRING), (1, FLOAT), "is no float32: '1_0'"),
        (b"a\t1\nb\t2\na\t2\n", (0, STRING), (1, INT64), "line 3 gives key 'a' the value 2, and line 1 gives it 1;"),
        (b"a\nb\na\n", (-2, STRING), NUMBERED, "line 3 gives key 'a' the value 2, and line 1 gives it 0;"),
    ],
)
def test_vocabularies_that_tensorflow_refuses(
    tmp_path: Path, content: bytes, key: Any, value: Any, message: str
) -> None:
    path = tmp_path / "words"
    path.write_bytes(content)
    with pytest.raises(gr.FreezeError, match=re.escape(message)) as caught:
        read_vocabulary(str(path), key=key, value=value, size=-1, delimiter="\t")
    assert str(path) in str(caught.value)


def test_a_vocabulary_with_fewer_lines_than_the_graph_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_bytes(b"a\n")
    with pytest.raises(gr.FreezeError, match="has 1 lines where the graph asks for 2; correct it, or pass asset_dir="):
        read_vocabulary(str(path), key=(-2, STRING), value=NUMBERED, size=2, delimiter="\t")


def test_a_large_constant_of_the_graph_survives() -> None:
    """Above a few kilobytes a Const's value is no longer in its node."""
    values = np.arange(3000, dtype=np.int32)
    node = b'node { name: "%s" op: "%s" %s attr { key: "%s" value { type: DT_INT32 } } %s }\n'
    text = node % (
        b"big",
        b"Const",
        b"",
        b"dtype",
        b'attr { key: "value" value { tensor { dtype: DT_INT32 tensor_shape { dim { size: 3000 } } %s } } }'
        % b" ".join(b"int_val: %d" % n for n in values),
    )  # noqa: E501
    text += node % (b"y", b"Neg", b'input: "big"', b"T", b"")
    frozen = gr.freeze(gr.load(gr.load(text).graph.materialize().SerializeToString()), "y")
    assert ("", "big") in frozen.graph.payloads
    (const,) = [node for node in frozen.graph.materialize().node if node.name == "big"]
    assert (
        len(const.attr["value"].tensor.int_val) == 3000 or const.attr["value"].tensor.tensor_content == values.tobytes()
    )  # noqa: E501


def test_an_ensemble_of_trees_is_refused() -> None:
    """It is filled from the checkpoint by an op of its own, and a file that says nothing of it would not run."""
    node = protos.NodeDef
    graph_def = protos.GraphDef()
    graph_def.node.extend(
        [
            node(name="trees", op="BoostedTreesEnsembleResourceHandleOp"),
            node(name="x", op="Placeholder", attr={"dtype": protos.AttrValue(type=3)}),
            node(name="y", op="BoostedTreesPredict", input=["trees", "x"]),
        ]
    )
    graph_def.node[2].attr["num_bucketized_features"].i = 1
    graph_def.node[2].attr["logits_dimension"].i = 1
    with pytest.raises(gr.FreezeError, match="trees .BoostedTrees.* holds what was trained") as caught:
        gr.freeze(gr.load(graph_def), "y", "x")
    assert list(caught.value.nodes) == ["trees"]


def test_a_handle_without_shared_name_stays_as_it_is_in_the_model() -> None:
    """As graphs have it that leave out attrs with their defaults; a NodeDef's map grows when it is indexed."""
    graph_def = gr.load(case("resource_partitioned/tf1.4.1-v2").graph_pb).graph.materialize()
    for node in graph_def.node:
        if node.op == "VarHandleOp":
            del node.attr["shared_name"], node.attr["container"]
    model = gr.restore(gr.load(graph_def), case("resource_partitioned/tf1.4.1-v2").prefix)
    before = model.graph.materialize().SerializeToString(deterministic=True)
    gr.freeze(model, case("resource_partitioned/tf1.4.1-v2").oracle["runs"][0]["outputs"])
    assert model.graph.materialize().SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("default", ["scale", "gone"])
def test_a_default_that_leads_nowhere_is_no_default(default: str) -> None:
    """A placeholder whose default is itself, or no node at all."""
    text = """node { name: "scale" op: "PlaceholderWithDefault" input: "%s"
                     attr { key: "dtype" value { type: DT_FLOAT } } attr { key: "shape" value { shape {} } } }
              node { name: "y" op: "Identity" input: "scale" attr { key: "T" value { type: DT_FLOAT } } }"""
    graph_def = text_format.Parse(text % default, protos.GraphDef())
    frozen = gr.freeze(replace(gr.load(graph_def), fetches=("y:0",), feeds=("scale:0",)))
    assert frozen.graph.node("scale").op == "Placeholder"
