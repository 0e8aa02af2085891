"""SavedModels and MetaGraphs as they are written: what is in them, what is refused, and what a failure leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case

import graph_restore as gr
from graph_restore import protos
from graph_restore.names import node_of
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import FileSource
from graph_restore.tensors import ContentTensor, lazy

pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
LINEAR = case("linear/tf1.15.5-v2")
MLP = case("mlp/tf1.4.1-v2")
ASSETS = case("saved_model_assets/tf1.4.1-v2")


def _restored(one: Case = LINEAR) -> gr.Model:
    return gr.restore(gr.load(one.graph_pb), one.prefix)


def _saved_model(folder: Path) -> Any:
    message = protos.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    assert message.saved_model_schema_version == 1
    (meta_graph,) = message.meta_graphs
    return meta_graph


def _definitions(meta_graph: Any, collection: str) -> dict[str, Any]:
    items = meta_graph.collection_def[collection].bytes_list.value
    definitions = [protos.VariableDef.FromString(data) for data in items]
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    for one in definitions:
        assert {node_of(name) for name in (one.variable_name, one.initial_value_name, one.snapshot_name)} <= set(nodes)
        assert nodes[one.initializer_name].op == ("AssignVariableOp" if one.is_resource else "Assign")
    return {node_of(one.variable_name): one for one in definitions}


def _signature(meta_graph: Any, name: str = "serving_default") -> tuple[dict[str, str], dict[str, str]]:
    signature = meta_graph.signature_def[name]
    sides = [{key: info.name for key, info in side.items()} for side in (signature.inputs, signature.outputs)]
    return sides[0], sides[1]


# SavedModels


def test_a_saved_model(tmp_path: Path) -> None:
    written: list[int] = []
    gr.export(_restored(), tmp_path / "served", "saved_model", fetches="y", progress=written.append)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    variables = [f"served/variables/variables.{end}" for end in ("data-00000-of-00001", "index")]
    assert files == ["served/saved_model.pb", *variables]
    assert sum(written) == sum((tmp_path / name).stat().st_size for name in files)
    values = gr.load_checkpoint(tmp_path / "served")
    assert {name: values[name].read().tolist() for name in values} == {
        name: value.tolist() for name, value in LINEAR.oracle["checkpoint"][""].items()
    }
    meta_graph = _saved_model(tmp_path / "served")
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    saver = meta_graph.saver_def
    assert {node_of(saver.filename_tensor_name), node_of(saver.save_tensor_name), saver.restore_op_name} <= set(nodes)
    assert list(meta_graph.meta_info_def.tags) == ["serve"] and meta_graph.graph_def.versions.producer == 134
    assert _signature(meta_graph) == ({"x": "x:0"}, {"y": "y:0"})
    assert meta_graph.signature_def["serving_default"].method_name == "tensorflow/serving/predict"
    info = meta_graph.signature_def["serving_default"].inputs["x"]
    assert info.dtype == 1 and [dim.size for dim in info.tensor_shape.dim] == [-1, 4]
    assert nodes["w"].op == "VarHandleOp" and set(_definitions(meta_graph, "variables")) == {"w", "b"}
    assert set(_definitions(meta_graph, "trainable_variables")) == {"w", "b"}
    described = {op.name for op in meta_graph.meta_info_def.stripped_op_list.op}
    assert described == {node.op for node in nodes.values()}


def test_references_are_kept_on_request(tmp_path: Path) -> None:
    gr.export(_restored(), tmp_path / "served", "saved_model", fetches="y", references=True)
    meta_graph = _saved_model(tmp_path / "served")
    assert {node.op for node in meta_graph.graph_def.node if node.name in "wb"} == {"VariableV2"}
    assert not any(one.is_resource for one in _definitions(meta_graph, "variables").values())


def test_only_what_the_signature_needs_unless_all_is_wanted(tmp_path: Path) -> None:
    restored = gr.restore(gr.load(MLP.graph_pb), MLP.prefix)
    gr.export(restored, tmp_path / "small", "saved_model", fetches="softmax")
    gr.export(restored, tmp_path / "whole", "saved_model", fetches="softmax", whole_graph=True)
    small, whole = gr.load(tmp_path / "small"), gr.load(tmp_path / "whole")
    assert len(small.variables) == 4 and len(gr.load_checkpoint(tmp_path / "small")) == 4
    assert whole.variables.names() == restored.variables.names()
    assert set(restored.graph.nodes) <= set(whole.graph.nodes) and len(small.graph.nodes) < 60
    assert set(gr.load_checkpoint(tmp_path / "whole")) == set(MLP.oracle["checkpoint"][""])


def test_assets_and_init_op(tmp_path: Path) -> None:
    folder = ASSETS.directory / ASSETS.facts["saved_model"]["path"]
    gr.export(gr.restore(gr.load(folder)), tmp_path / "served", "saved_model")
    meta_graph = _saved_model(tmp_path / "served")
    (asset,) = meta_graph.asset_file_def
    assert (tmp_path / "served/assets/vocabulary.txt").read_bytes() == (folder / "assets/vocabulary.txt").read_bytes()
    assert asset.filename == "vocabulary.txt"
    (packed,) = meta_graph.collection_def["saved_model_assets"].any_list.value
    assert packed.type_url.endswith("tensorflow.AssetFileDef")
    assert protos.AssetFileDef.FromString(packed.value) == asset
    (init_op,) = meta_graph.collection_def["saved_model_main_op"].node_list.value
    assert meta_graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name == init_op
    (node,) = [node for node in meta_graph.graph_def.node if node.name == node_of(asset.tensor_info.name)]
    assert node.op == "Const" and gr.load(tmp_path / "served").init_op == init_op
    assert _signature(meta_graph) == ({"words": "words:0"}, {"weights": "y:0"})


def test_a_vocabulary_becomes_an_asset(tmp_path: Path) -> None:
    one = case("vocabulary/tf1.15.5-v2")
    gr.export(gr.restore(gr.load(one.meta)), tmp_path / "served", "saved_model", fetches="ids")
    text = (tmp_path / "served" / "assets" / "vocabulary.txt").read_bytes()
    assert text == (one.directory / "vocabulary.txt").read_bytes()


def test_assets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    from graph_restore.formats.meta_graph import asset_names

    assets = {"a:0": "one/words.txt", "b:0": "two/words.txt", "c:0": "one/words.txt"}
    assert asset_names(assets) == {"one/words.txt": "words.txt", "two/words.txt": "words.txt_1"}


SIGNATURES = {
    "tensor names": ({"s": {"inputs": ["x"], "outputs": ["y:0"]}}, ({"x": "x:0"}, {"y": "y:0"})),
    "keys": ({"s": {"inputs": {"rows": "x:0"}, "outputs": {"scores": "y"}}}, ({"rows": "x:0"}, {"scores": "y:0"})),
    "no inputs": ({"s": {"outputs": "w"}}, ({}, {"w": "w/Read/ReadVariableOp:0"})),
}


@pytest.mark.parametrize(("given", "expected"), SIGNATURES.values(), ids=SIGNATURES)
def test_signatures_given(given: Any, expected: Any, tmp_path: Path) -> None:
    gr.export(_restored(), tmp_path / "served", "saved_model", signatures=given, tags="mine")
    meta_graph = _saved_model(tmp_path / "served")
    assert _signature(meta_graph, "s") == expected
    assert list(meta_graph.meta_info_def.tags) == ["mine"] and len(meta_graph.signature_def) == 1


def test_a_graph_without_tags(tmp_path: Path) -> None:
    gr.export(_restored(), tmp_path / "module", "saved_model", fetches="y", tags=[])
    assert list(_saved_model(tmp_path / "module").meta_info_def.tags) == []
    assert gr.load(tmp_path / "module").source.tags == gr.load(tmp_path / "module", tags=[]).source.tags == ()


def test_a_signature_may_be_a_message(tmp_path: Path) -> None:
    gr.export(_restored(), tmp_path / "one", "saved_model", fetches="y")
    signature = _saved_model(tmp_path / "one").signature_def["serving_default"]
    gr.export(_restored(), tmp_path / "two", "saved_model", signatures={"other": signature})
    assert _saved_model(tmp_path / "two").signature_def["other"] == signature


def test_no_signature_at_all(tmp_path: Path) -> None:
    gr.export(_restored(MLP), tmp_path / "served", "saved_model", signatures={}, whole_graph=True)
    assert not _saved_model(tmp_path / "served").signature_def
    assert len(gr.load(tmp_path / "served").variables) == len(_restored(MLP).variables)


def test_signatures_are_kept_and_made(tmp_path: Path) -> None:
    one = case("saved_model/tf1.15.5-v2")
    model = gr.restore(gr.load(one.directory / one.facts["saved_model"]["path"]))
    gr.export(model, tmp_path / "kept", "saved_model")
    assert dict(_saved_model(tmp_path / "kept").signature_def) == dict(model.signatures) and len(model.signatures) == 2
    gr.export(model, tmp_path / "made", "saved_model", fetches="y")
    assert _signature(_saved_model(tmp_path / "made")) == ({"x": "x:0"}, {"y": "y:0"})
    gr.export(gr.freeze(model), tmp_path / "frozen", "saved_model")
    assert _signature(_saved_model(tmp_path / "frozen")) == ({"rows": "x:0"}, {"scores": "y:0"})
    assert not (tmp_path / "frozen" / "variables").exists()


def test_keys_of_outputs_past_the_first(tmp_path: Path) -> None:
    one = case("feed_middle/tf1.4.1-v2")
    gr.export(_restored(one), tmp_path / "served", "saved_model", fetches="y", feeds=["x", "unstack:1"])
    inputs, outputs = _signature(_saved_model(tmp_path / "served"))
    assert inputs["unstack_1"] == "unstack:1" and inputs["x"] == "x:0" and outputs == {"y": "y:0"}


def test_a_queue_becomes_an_input(tmp_path: Path) -> None:
    one = case("queue_input/tf1.15.5-v2")
    gr.export(_restored(one), tmp_path / "served", "saved_model", fetches="y")
    assert _signature(_saved_model(tmp_path / "served"))[0] == {"batch": "batch:0"}


REFUSED = {
    "no value": (lambda: gr.load(LINEAR.graph_pb), {"fetches": "y"}, gr.FreezeError, "2 variables .* no value: w, b"),
    "no outputs": (lambda: _restored(case("defun/tf1.4.1-v2")), {}, gr.FreezeError, "which outputs"),
    "no such node": (_restored, {"fetches": "yy"}, gr.NodeNotFoundError, "near names: y"),
    "no such output": (_restored, {"signatures": {"s": {"outputs": "y:1"}}}, gr.NodeNotFoundError, "there is no y:1"),
    "both": (_restored, {"signatures": {}, "fetches": "y"}, ValueError, "not both"),
    "no signature": (_restored, {"signatures": {"s": 3}}, ValueError, "'s' is a SignatureDef or"),
}


@pytest.mark.parametrize(("model", "options", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(model: Any, options: Any, error: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        gr.export(model(), tmp_path / "served", "saved_model", **options)
    assert not os.listdir(tmp_path)


# what is there already, and failures


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    place = tmp_path / "served"
    gr.export(_restored(), place, "saved_model", fetches="y")
    before = _content(tmp_path)
    with pytest.raises(gr.GraphRestoreError, match="there already.*overwrite=True"):
        gr.export(_restored(), place, "saved_model", fetches="y")
    assert _content(tmp_path) == before
    gr.export(gr.freeze(_restored(), "y"), place, "saved_model", overwrite=True)
    assert sorted(_content(tmp_path)) == ["served/saved_model.pb"] and os.listdir(tmp_path) == ["served"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_a_saved_model_is_overwritten(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("words")
    with pytest.raises(gr.GraphRestoreError, match="there already"):
        gr.export(_restored(), tmp_path / "thesis", "saved_model", fetches="y", overwrite=overwrite)
    assert sorted(_content(tmp_path)) == ["thesis/chapter1"]
    (tmp_path / "empty").mkdir()
    gr.export(_restored(), tmp_path / "empty", "saved_model", fetches="y", overwrite=overwrite)
    assert (tmp_path / "empty" / "saved_model.pb").exists()


def _damaged(folder: Path) -> gr.Model:
    folder.mkdir()
    for path in LINEAR.directory.glob("model.ckpt*"):
        shutil.copy(path, folder)
    (data,) = folder.glob("*.data-*")
    data.write_bytes(data.read_bytes()[:-1] + b"\x55")
    return gr.restore(gr.load(folder / "model.ckpt.meta"))


@pytest.mark.parametrize("form", ["saved_model", "meta_graph"])
def test_a_failure_leaves_what_was_there(form: str, tmp_path: Path) -> None:
    options = {"fetches": "y"} if form == "saved_model" else {}
    damaged = _damaged(tmp_path / "in")
    (tmp_path / "out").mkdir()
    with pytest.raises(gr.CorruptionError):
        gr.export(damaged, tmp_path / "out" / "x", form, **options)
    assert not os.listdir(tmp_path / "out")
    gr.export(_restored(), tmp_path / "out" / "x", form, **options)
    before = _content(tmp_path / "out")
    with pytest.raises(gr.CorruptionError):
        gr.export(damaged, tmp_path / "out" / "x", form, overwrite=True, **options)
    assert _content(tmp_path / "out") == before


@pytest.mark.parametrize("form", ["saved_model", "meta_graph"])
def test_over_two_gibibytes_of_graph(form: str, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 31)
    big = ContentTensor("big", 4, (1 << 31,), [Extent(FileSource(tmp_path / "sparse"), 0, 1 << 31)])
    graph_def = protos.GraphDef()
    const = graph_def.node.add(name="big", op="Const")
    const.attr["dtype"].type = const.attr["value"].tensor.dtype = 4
    model = gr.load(graph_def)
    model = gr.Model(model.graph.replaced(graph_def.node, {("", "big"): big}), model.variables)
    options = {"signatures": {"s": {"outputs": "big"}}} if form == "saved_model" else {}
    with pytest.raises(gr.UnsupportedFormatError, match="limit of 2 GiB.*memmapped.*saved_model.*found 2147"):
        gr.export(model, tmp_path / "x", form, **options)
    assert os.listdir(tmp_path) == ["sparse"]


def test_a_frozen_model_that_is_too_long_is_unfrozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graph_restore.formats import graph_def as writer

    w = lazy("w", np.arange(9000, dtype=np.float32).reshape(3000, 3))
    graph_def = protos.GraphDef()
    for name, op, inputs in (("x", "Placeholder", ()), ("w", "Const", ()), ("y", "MatMul", ("x", "w"))):
        node = graph_def.node.add(name=name, op=op, input=inputs)
        node.attr["T" if inputs else "dtype"].type = 1
    graph_def.node[1].attr["value"].tensor.dtype = 1
    model = gr.load(graph_def)
    model = gr.Model(model.graph.replaced(graph_def.node, {("", "w"): w}), model.variables, fetches=("y:0",))
    monkeypatch.setattr(writer, "PROTOBUF_LIMIT", 30_000)
    gr.export(model, tmp_path / "served", "saved_model")
    (variable,) = gr.restore(gr.load(tmp_path / "served"), strict=True).variables
    assert variable.value is not None and variable.checkpoint_key == "w" and variable.kind == "resource"
    np.testing.assert_array_equal(variable.value.read(), w.read())
    assert (tmp_path / "served" / "saved_model.pb").stat().st_size < 30_000


# MetaGraphs


def test_a_meta_graph_of_a_bare_graph(tmp_path: Path) -> None:
    gr.export(_restored(MLP), tmp_path / "run" / "m", "meta_graph")
    assert sorted(os.listdir(tmp_path / "run")) == ["m.data-00000-of-00001", "m.index", "m.meta"]
    meta_graph = protos.MetaGraphDef.FromString((tmp_path / "run" / "m.meta").read_bytes())
    genuine = protos.MetaGraphDef.FromString(MLP.meta.read_bytes())  # type: ignore[union-attr]
    for collection in ("variables", "trainable_variables"):
        found, expected = _definitions(meta_graph, collection), _definitions(genuine, collection)
        assert set(found) == set(expected)
        for name, definition in expected.items():
            assert found[name].initializer_name == definition.initializer_name
            assert found[name].snapshot_name == definition.snapshot_name
    saver = meta_graph.saver_def
    names = {node_of(saver.filename_tensor_name), node_of(saver.save_tensor_name), saver.restore_op_name}
    assert names <= {node.name for node in meta_graph.graph_def.node} and saver.version == 2
    again = gr.restore(gr.load(tmp_path / "run" / "m.meta"), strict=True)
    for variable in again.variables:
        assert variable.value is not None
        np.testing.assert_array_equal(variable.value.read(), MLP.oracle["variables"][f"{variable.name}:0"])


def test_a_suffix_tells_it(tmp_path: Path) -> None:
    gr.export(_restored(), tmp_path / "m.meta", state=False)
    assert sorted(os.listdir(tmp_path)) == ["m.data-00000-of-00001", "m.index", "m.meta"]
    with pytest.raises(gr.GraphRestoreError, match="there already; pass overwrite=True"):
        gr.export(_restored(), tmp_path / "m.meta")


def test_missing_initializers_are_zeros_and_told(tmp_path: Path) -> None:
    one = case("stripped/tf1.15.5-v2")
    with pytest.warns(gr.GraphRestoreWarning, match="no initializer in the graph and get one of zeros"):
        gr.export(_restored(one), tmp_path / "m.meta")
    definitions = _definitions(protos.MetaGraphDef.FromString((tmp_path / "m.meta").read_bytes()), "variables")
    graph = gr.load(tmp_path / "m.meta").graph
    for definition in definitions.values():
        value = graph.constant(definition.initial_value_name)
        assert value is not None and not value.any()


def test_a_frozen_model_gets_no_checkpoint(tmp_path: Path) -> None:
    gr.export(gr.freeze(_restored(), "y"), tmp_path / "m.meta")
    assert os.listdir(tmp_path) == ["m.meta"]


def test_a_meta_graph_needs_values(tmp_path: Path) -> None:
    with pytest.raises(gr.RestoreError, match="none of its variables has a value"):
        gr.export(gr.load(LINEAR.graph_pb), tmp_path / "m.meta")
    assert not os.listdir(tmp_path)


def test_devices_are_cleared_unless_told(tmp_path: Path) -> None:
    one = case("gpu_devices/tf1.4.1-v2")
    for keep in (False, True):
        gr.export(_restored(one), tmp_path / f"{keep}.meta", keep_devices=keep)
        devices = {
            node.device for node in gr.load(tmp_path / f"{keep}.meta").graph.graph_def.node if "save" not in node.name
        }
        assert any("GPU" in device.upper() for device in devices) == keep


def test_versions_that_are_no_releases_are_left_out(tmp_path: Path) -> None:
    one = case("linear/tf0.12.1-v1")
    assert one.meta is not None
    model = gr.restore(gr.load(one.meta))
    for stated, written in (("0.12.1", "0.12.1"), ("0.12.head", ""), ("1.13.0-rc1", "1.13.0-rc1")):
        model.meta_info.tensorflow_version = stated
        gr.export(model, tmp_path / "m.meta", overwrite=True)
        found = protos.MetaGraphDef.FromString((tmp_path / "m.meta").read_bytes())
        assert found.meta_info_def.tensorflow_version == written


def test_contexts_name_only_what_is_there() -> None:
    from graph_restore.protos import CondContextDef
    from graph_restore.transforms.collections import with_collections

    model = gr.restore(gr.load(case("cond/tf1.4.1-v2").meta))
    rest = [node for node in model.graph.graph_def.node if not node.name.startswith("cond/switch_t")]
    cut = gr.Model(model.graph.replaced(rest, {}), model.variables, collections=model.collections)
    for one in (model, cut):
        contexts = map(CondContextDef.FromString, with_collections(one).collections["cond_context"].bytes_list.value)
        names = {branch.branch: {branch.pivot_name, branch.pred_name, *branch.values_def.values} for branch in contexts}
        assert set(names) == {0, 1}
        assert {name.partition(":")[0] for of_branch in names.values() for name in of_branch} <= set(one.graph.nodes)


FLAT = """
import resource, sys
import graph_restore as gr
folder, form = sys.argv[1:]
model = gr.restore(gr.load(folder + "/graph.pb"), folder + "/model.ckpt")
options = {"fetches": "y"} if form == "saved_model" else {}
if form == "memmapped":
    model = gr.freeze(model, "y")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gr.export(model, folder + "/out", form, **options)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert "tensorflow" not in sys.modules
print((after - before) // 1024)
"""


@pytest.mark.parametrize("form", ["saved_model", "meta_graph", "memmapped"])
def test_memory_stays_flat(form: str, tmp_path: Path) -> None:
    size = 200 << 20
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(size)
    value = ContentTensor("w", 1, (size // 4,), [Extent(FileSource(tmp_path / "sparse"), 0, size)])
    from graph_restore.checkpoint import save_checkpoint

    save_checkpoint(str(tmp_path / "model.ckpt"), {"w": value})
    graph_def = protos.GraphDef()
    variable = graph_def.node.add(name="w", op="VariableV2")
    variable.attr["dtype"].type = 1
    variable.attr["shape"].shape.dim.add(size=size // 4)
    graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = 3
    taken = graph_def.node.add(name="y", op="Gather", input=["w", "x"])
    taken.attr["Tparams"].type, taken.attr["Tindices"].type = 1, 3
    (tmp_path / "graph.pb").write_bytes(graph_def.SerializeToString())
    home = Path(gr.__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", FLAT, tmp_path, form], capture_output=True, text=True, cwd=home)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 30, "MiB grown while 200 were copied"
    shutil.rmtree(tmp_path)  # it is kept for a while otherwise


def test_a_given_signature_must_feed_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(gr.FreezeError, match=r"signature 'plain' does not feed x, which its outputs need"):
        gr.export(_restored(), tmp_path / "served", format="saved_model", signatures={"plain": {"outputs": ["y"]}})
    assert not (tmp_path / "served").exists()


def test_a_given_signature_names_tensors(tmp_path: Path) -> None:
    signatures = {"plain": {"inputs": ["x"], "outputs": ["y", "init"]}}
    with pytest.raises(gr.NodeNotFoundError, match=r"node init \(NoOp\) has 0 outputs; there is no init"):
        gr.export(_restored(), tmp_path / "served", format="saved_model", signatures=signatures)
