"""Every container a model comes in, and every file that is mistaken for one."""

from __future__ import annotations

import functools
import gzip
import io
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tables
from corpus import CORPUS, Case, case, cases, hub_module

import graph_restore as gr
from graph_restore import protos
from graph_restore.formats.event_file import newest_event_file

_load = functools.cache(gr.load)
LINEAR = case("linear/tf1.4.1-v2")


def _nodes(model: gr.Model) -> list[tuple[str, str]]:
    return [(node.name, node.op) for node in model.graph.graph_def.node]


def _signatures(model: gr.Model) -> dict[str, Any]:
    return {
        key: {
            "inputs": {name: info.name for name, info in signature.inputs.items()},
            "outputs": {name: info.name for name, info in signature.outputs.items()},
            "method": signature.method_name,
        }
        for key, signature in model.signatures.items()
    }


@pytest.mark.parametrize("one", cases(), ids=lambda one: one.id)
def test_graph_and_meta_graph_hold_the_same_nodes(one: Case) -> None:
    model = _load(one.graph_pb)
    assert model.source.format == "graph_def" and model.source.checkpoint is None
    if one.meta is not None:
        meta = _load(one.meta)
        assert meta.source.format == "meta_graph" and meta.source.checkpoint == one.prefix
        assert meta.source.tensorflow_version == one.facts["tensorflow"]
        assert _nodes(meta) == _nodes(model)
        named = (meta.saver_def.filename_tensor_name, meta.saver_def.save_tensor_name, meta.saver_def.restore_op_name)
        facts = one.facts["savers"][""]
        assert named == (facts["filename_tensor"], facts["save_tensor"], facts["restore_op"])


TEXTS = [one for one in cases() if (one.directory / "graph.pbtxt").exists()]


@pytest.mark.parametrize("one", TEXTS, ids=lambda one: one.id)
def test_text_and_binary_hold_the_same_graph(one: Case) -> None:
    text = gr.load(one.directory / "graph.pbtxt")
    assert text.source.format == "graph_def_text"
    assert text.graph.graph_def == gr.load(one.graph_pb).graph.materialize() or _complete(text) == _complete(
        gr.load(one.graph_pb)
    )
    assert text.variables.names() == _load(one.graph_pb).variables.names()


def _complete(model: gr.Model) -> bytes:
    return bytes(
        protos.GraphDef.FromString(model.graph.materialize().SerializeToString()).SerializeToString(deterministic=True)
    )  # noqa: E501


SAVED_MODELS = [
    pytest.param(one, number, id=f"{one.id}-{number}")
    for one in cases()
    if "saved_model" in one.facts
    for number in range(len(one.facts["saved_model"]["meta_graphs"]))
]


@pytest.mark.parametrize(("one", "number"), SAVED_MODELS)
def test_saved_models(one: Case, number: int) -> None:
    folder = one.directory / "saved_model"
    facts = one.facts["saved_model"]["meta_graphs"][number]
    several = len(one.facts["saved_model"]["meta_graphs"]) > 1
    model = gr.load(folder, tags=facts["tags"] if several else None)
    assert sorted(model.source.tags) == sorted(facts["tags"])
    assert (model.source.format, model.source.checkpoint) == ("saved_model", str(folder / "variables/variables"))
    assert model.source.tensorflow_version == one.facts["tensorflow"]
    assert _signatures(model) == facts["signatures"]
    (file,) = folder.glob("saved_model.pb*")
    assert _nodes(gr.load(file, tags=facts["tags"])) == _nodes(model)
    assert gr.load(file, tags=facts["tags"]).source.checkpoint == model.source.checkpoint
    if "assets" in one.facts["saved_model"]:
        assert [Path(path) for path in model.assets.values()] == [folder / "assets" / "vocabulary.txt"]
        assert all(name.endswith(":0") and name[:-2] in model.graph.nodes for name in model.assets)
        assert model.init_op in model.graph.nodes


@pytest.mark.parametrize("tags", [None, ["serve"], ["serve", "gpu", "more"], []])
def test_tags_that_choose_nothing(tags: Any) -> None:
    with pytest.raises(gr.FormatError, match="tags=.*one of the tag sets: train; gpu,serve"):
        gr.load(case("saved_model_two_tags/tf1.4.1-v2").directory / "saved_model", tags=tags)


def test_tags_in_any_order_and_form() -> None:
    folder = case("saved_model_two_tags/tf1.4.1-v2").directory / "saved_model"
    assert "softmax" in gr.load(folder, tags=("gpu", "serve")).graph.nodes
    assert "softmax" not in gr.load(folder, tags="train").graph.nodes
    with pytest.raises(gr.FormatError, match="tags choose a MetaGraphDef of a SavedModel"):
        gr.load(LINEAR.graph_pb, tags=["serve"])


def test_no_tags_choose_the_graph_without_tags(tmp_path: Path) -> None:
    folder = hub_module(tmp_path)
    model = gr.load(folder, tags=[])
    assert model.source.tags == () and "softmax" in model.graph.nodes
    for tags in (None, ["serve"], [""]):
        with pytest.raises(gr.FormatError, match=r"pass tags= .*, tags=\[\] for the one without tags.*\(none\)"):
            gr.load(folder, tags=tags)


def test_the_tag_serve_is_meant_among_several() -> None:
    saved = protos.SavedModel()
    for tags, node in ((["train"], "a"), (["serve"], "b"), (["serve", "gpu"], "c")):
        meta_graph = saved.meta_graphs.add()
        meta_graph.meta_info_def.tags.extend(tags)
        meta_graph.graph_def.node.add(name=node, op="NoOp")
    assert list(gr.load(saved).graph.nodes) == ["b"]
    with pytest.raises(gr.FormatError, match="holds no MetaGraphDef"):
        gr.load(protos.SavedModel(saved_model_schema_version=1))


@pytest.mark.parametrize("one", cases("session_bundle"), ids=lambda one: one.id)
def test_session_bundles(one: Case) -> None:
    folder = one.directory / "bundle/00000007"
    model = gr.load(folder)
    assert (model.source.format, model.source.checkpoint) == ("session_bundle", str(folder / "export"))
    predict = {"inputs": {"words": "words:0"}, "outputs": {"scores": "y:0"}, "method": "tensorflow/serving/predict"}
    classify = {"inputs": {"inputs": "words:0"}, "outputs": {"scores": "y:0"}, "method": "tensorflow/serving/classify"}
    assert _signatures(model) == {"serving_default": classify, "predict": predict}
    assert (
        model.signatures["predict"].inputs["words"].dtype == 7
        and model.signatures["predict"].outputs["scores"].dtype == 1
    )  # noqa: E501
    assert [Path(path) for path in model.assets.values()] == [folder / "assets/vocabulary.txt"]
    assert model.init_op in model.graph.nodes


@pytest.mark.parametrize("one", cases("events") + cases("event_start"), ids=lambda one: one.id)
def test_event_files(one: Case) -> None:
    (file,) = (one.directory / "events").iterdir()
    for source in (file, file.parent):
        model = gr.load(source)
        assert model.source.format == "event_file" and model.source.path == str(file)
        assert _nodes(model) == _nodes(_load(one.graph_pb))
    assert newest_event_file(str(file.parent)) == str(file)


def _event(number: int, content: bytes) -> bytes:
    data = tables.field(number, content)
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", tables.masked(head)) + data + struct.pack("<I", tables.masked(data))


def _graph_of(*names: str) -> Any:
    return protos.GraphDef(node=[protos.NodeDef(name=name, op="NoOp") for name in names])


@pytest.mark.parametrize(
    ("graphs", "nodes"),
    [
        ([(4, ["a"]), (4, ["a", "b"])], ["a", "b"]),  # the last graph
        ([(4, ["a"]), (9, ["a"])], ["a"]),
        ([(9, ["a"]), (4, ["a"])], ["a"]),
        ([(9, ["a"]), (4, ["a", "b"])], ["a", "b"]),  # written later, and knows more
        ([(9, ["a"]), (9, ["c"])], ["c"]),
    ],
)
def test_which_graph_of_an_event_file(graphs: list[tuple[int, list[str]]], nodes: list[str]) -> None:
    data = _event(3, b"brain.Event:2")
    for number, names in graphs:
        graph = _graph_of(*names)
        data += _event(number, (graph if number == 4 else protos.MetaGraphDef(graph_def=graph)).SerializeToString())
    model = gr.load(data)
    assert list(model.graph.nodes) == nodes
    with pytest.warns(gr.GraphRestoreWarning, match=f"ends within the record at byte {len(data)}: .* is lost"):
        cut = gr.load(data + _event(4, _graph_of("lost").SerializeToString())[:-3])  # a writer that was killed
    assert list(cut.graph.nodes) == nodes
    last_is_meta = graphs[-1][0] == 9 or (graphs[0][0] == 9 and nodes == ["a"])
    assert (model.meta_info is not None) == last_is_meta


def test_event_files_without_a_graph_or_with_a_damaged_one() -> None:
    with pytest.raises(gr.FormatError, match="the event file holds no graph"):
        gr.load(_event(3, b"brain.Event:2"))
    data = bytearray(_event(3, b"brain.Event:2") + _event(4, _graph_of("a", "b").SerializeToString()))
    data[-8] ^= 1
    with pytest.raises(gr.CorruptionError):
        gr.load(bytes(data))


def test_a_directory_of_versions_names_the_newest(tmp_path: Path) -> None:
    for number in ("00000122", "00000123"):
        shutil.copytree(CORPUS / "saved_model" / "tf1.4.1-v2" / "saved_model", tmp_path / number)
    with pytest.raises(gr.FormatError, match="no graph in this directory; pass the model in it, .*/00000123"):
        gr.load(tmp_path)


@pytest.mark.parametrize("model", ["session_bundle/tf1.4.1-v2/bundle/00000007", "mlp/tf1.4.1-v2"])
def test_a_directory_of_one_model_names_it(model: str, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    shutil.copytree(CORPUS / model, tmp_path / "00000001")
    with pytest.raises(gr.FormatError, match="no graph in this directory; pass the model in it, .*/00000001"):
        gr.load(tmp_path)


def test_the_newest_event_file_is_taken(tmp_path: Path) -> None:
    for time, name in ((999, "older"), (1000, "newer")):  # by number, not by spelling
        data = _event(3, b"brain.Event:2") + _event(4, _graph_of(name).SerializeToString())
        (tmp_path / f"events.out.tfevents.{time}.host").write_bytes(data)
    assert list(gr.load(tmp_path).graph.nodes) == ["newer"]


@pytest.mark.parametrize("one", cases("monitored"), ids=lambda one: one.id)
def test_run_directories(one: Case, tmp_path: Path) -> None:
    model = gr.load(one.directory / "run")
    assert model.source.path.endswith("model.ckpt-6.meta")
    assert model.source.checkpoint == str(one.directory / "run/model.ckpt-6")
    shutil.copytree(one.directory / "run", tmp_path / "run")
    order = [("model.ckpt-6.meta", "meta_graph"), ("graph.pbtxt", "graph_def_text"), ("events*", "event_file")]
    for pattern, form in order:
        model = gr.load(tmp_path / "run")
        assert model.source.format == form and model.source.checkpoint == str(tmp_path / "run/model.ckpt-6")
        assert _nodes(model)
        for path in (tmp_path / "run").glob(pattern):
            path.unlink()


def test_a_directory_without_a_graph(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(gr.FormatError, match="no graph in this directory.*found notes.md"):
        gr.load(tmp_path)
    (tmp_path / "anything.pb").write_bytes(LINEAR.graph_pb.read_bytes())
    assert gr.load(tmp_path).variables.names() == ["w", "b"]


def test_a_prefix_stands_for_its_meta() -> None:
    assert gr.load(LINEAR.prefix).source.path == f"{LINEAR.prefix}.meta"
    nameless = case("nameless_prefix/tf1.15.5-v2").directory / "export/.meta"
    assert gr.load(nameless).source.checkpoint == str(nameless).removesuffix(".meta")
    with pytest.raises(FileNotFoundError, match="no such file or directory; pass a .meta"):
        gr.load(LINEAR.directory / "model.ckp")


def test_suffixes_say_nothing(tmp_path: Path) -> None:
    shutil.copy(LINEAR.directory / "model.ckpt.meta", tmp_path / "graph.pb")
    shutil.copy(LINEAR.graph_pb, tmp_path / "a.meta")
    shutil.copy(LINEAR.directory / "graph.pbtxt", tmp_path / "b.pb")
    formats = [gr.load(tmp_path / name).source.format for name in ("graph.pb", "a.meta", "b.pb")]
    assert formats == ["meta_graph", "graph_def", "graph_def_text"]


def test_messages_and_bytes() -> None:
    data = LINEAR.graph_pb.read_bytes()
    expected = _nodes(_load(LINEAR.graph_pb))
    for source in (data, bytearray(data), memoryview(data), protos.GraphDef.FromString(data)):
        assert _nodes(gr.load(source)) == expected
    model = gr.load(data)
    assert gr.load(model) is model and model.source.format == "graph_def"
    meta = protos.MetaGraphDef.FromString(Path(f"{LINEAR.prefix}.meta").read_bytes())
    assert _nodes(gr.load(meta)) == expected and gr.load(meta).saver_def == meta.saver_def
    assert gr.load(protos.GraphDef()).graph.nodes == {}  # a message says itself what it is


@pytest.mark.tensorflow
def test_tensorflows_own_messages() -> None:
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

    meta = meta_graph_pb2.MetaGraphDef.FromString(Path(f"{LINEAR.prefix}.meta").read_bytes())
    saved = saved_model_pb2.SavedModel(meta_graphs=[meta])
    for message in (meta, meta.graph_def, saved):
        assert _nodes(gr.load(message)) == _nodes(_load(LINEAR.graph_pb))


SMALL = {  # the shortest files of their kinds
    b'node { name: "x" op: "NoOp" }': ("graph_def_text", ["x"]),
    b'\xef\xbb\xbf# a comment\n\nnode {\n  name: "x" op: "NoOp" }': ("graph_def_text", ["x"]),
    b"versions { producer: 27 }": ("graph_def_text", []),
    b"library { }": ("graph_def_text", []),
    b'graph_def { node { name: "x" op: "NoOp" } }': ("meta_graph_text", ["x"]),
    b'saved_model_schema_version: 1 meta_graphs { graph_def { node { name: "x" op: "NoOp" } } }': (
        "saved_model",
        ["x"],
    ),
    bytes.fromhex("0a09 0a0178 1204 4e6f4f70"): ("graph_def", ["x"]),
    bytes.fromhex("2202 0818"): ("graph_def", []),  # versions alone
    bytes.fromhex("120b 0a09 0a0178 1204 4e6f4f70"): ("meta_graph", ["x"]),
    bytes.fromhex("0801 120d 120b 0a09 0a0178 1204 4e6f4f70"): ("saved_model", ["x"]),
}


@pytest.mark.parametrize("data", SMALL, ids=lambda data: repr(data[:24]))
def test_the_shortest_files(data: bytes) -> None:
    model = gr.load(data)
    assert (model.source.format, list(model.graph.nodes)) == SMALL[data]


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("saved_model.pb", b"x" * 100)
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(LINEAR.graph_pb, "graph.pb")
    return buffer.getvalue()


ONNX = (
    tables.field(1, 8)
    + tables.field(2, b"pytorch")
    + tables.field(7, tables.field(1, b"\x0a\x01x"))
    + tables.field(8, tables.field(2, 13))
)  # noqa: E501
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"  # noqa: E501
FOREIGN: list[tuple[str, bytes, str]] = [
    ("empty", b"", "an empty file; copy or download it again"),
    ("lfs", LFS, "Git LFS pointer, not the file; run `git lfs pull`"),
    ("html", b"\n<!DOCTYPE html>\n<html><head><title>404</title>", "an HTML page.*download the file itself"),
    ("html comment", b"<!-- x --><HTML lang='en'>", "an HTML page"),
    ("xml", b"<?xml version='1.0'?><Error>", "an HTML page"),
    ("gzip", gzip.compress(LINEAR.graph_pb.read_bytes()), "gzip-compressed; unpack it first"),
    ("bzip2", b"BZh91AY&SY" + bytes(20), "bzip2-compressed"),
    ("xz", b"\xfd7zXZ\x00\x00\x04", "xz-compressed"),
    ("zip", _zip(), "a zip archive"),
    ("tar", _tar(), "a tar archive"),
    ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(88), "an HDF5 file.*tf.keras.models.load_model"),
    ("tflite", b"\x1c\x00\x00\x00TFL3" + bytes(20), "a TFLite model; it holds no GraphDef"),
    ("onnx", ONNX, "an ONNX model; it holds no GraphDef"),
    ("npy", b"\x93NUMPY\x01\x00v\x00{'descr'", "a numpy array file"),
    ("elf", b"\x7fELF\x02\x01\x01" + bytes(9), "a program or shared library"),
    ("memmapped", b"\x0a\x17memmapped_package://.\x10\x00\x00" + struct.pack("<Q", 0), "directory is damaged"),
    (
        "v1 checkpoint",
        (case("linear/tf0.12.1-v1").directory / "model.ckpt").read_bytes(),
        "checkpoint's values, without a graph; pass the .meta of that checkpoint",
    ),  # noqa: E501
    ("v2 index", (LINEAR.directory / "model.ckpt.index").read_bytes(), "checkpoint's values, without a graph"),
    ("state file", b'model_checkpoint_path: "model.ckpt-7"\n', "a `checkpoint` state file; pass the directory"),
    ("plain text", b"# My model\n\nTrained for three days.\n", "plain text, but no protobuf text of a model"),
    ("json", b'{"class_name": "Sequential"}', "plain text, but no protobuf text of a model"),
    ("pickle", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c", "a Python pickle, as PyTorch"),
    ("safetensors", b"\x02" + b"\x00" * 7 + b'{"a": 1}', "safetensors file, which holds values and no graph"),
    ("zeros", bytes(4096), "no GraphDef.*cut short or damaged"),
    ("ones", b"\xff" * 100, "no GraphDef.*cut short or damaged"),
]


@pytest.mark.parametrize(("content", "message"), [pytest.param(*rest, id=name) for name, *rest in FOREIGN])
def test_what_is_no_model_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(content)
    with pytest.raises(gr.FormatError, match=message) as caught:
        gr.load(path)
    assert str(caught.value).startswith(str(path)) and caught.value.path == str(path)


def test_a_data_shard_is_told_by_its_name() -> None:
    with pytest.raises(gr.UnsupportedFormatError, match="a data shard of a checkpoint.*pass the .meta beside it"):
        gr.load(LINEAR.directory / "model.ckpt.data-00000-of-00001")


@pytest.mark.parametrize(
    ("identity", "file"),
    [("linear/tf1.4.1-v2", "model.ckpt.index"), ("sharded/tf1.15.5-v1", "model.ckpt-00000-of-00002")],
)
def test_a_checkpoints_file_is_no_model_and_its_meta_is_named(identity: str, file: str) -> None:
    folder = case(identity).directory
    with pytest.raises(gr.UnsupportedFormatError, match=f"without a graph.*{folder}/model.ckpt.meta"):
        gr.load(folder / file)


@pytest.mark.parametrize("identity", ["linear/tf0.12.1-v1", "linear/tf1.4.1-v2", "sharded/tf1.15.5-v1"])
def test_the_prefix_of_a_checkpoint_means_its_meta(identity: str) -> None:
    folder = case(identity).directory
    assert gr.load(folder / "model.ckpt").source.file == str(folder / "model.ckpt.meta")
    assert gr.load(folder / "model.ckpt-?????-of-00002").source.file == str(folder / "model.ckpt.meta")


@pytest.mark.parametrize("file", ["graph.pb", "model.ckpt.meta"])
def test_files_cut_short(file: str, tmp_path: Path) -> None:
    data = (LINEAR.directory / file).read_bytes()
    path = tmp_path / file
    whole = 0
    for length in {*range(1, len(data), 97), len(data) - 1}:
        path.write_bytes(data[:length])
        try:
            whole += len(gr.load(path).graph.nodes) > 0  # cut between two nodes it is a shorter graph
        except gr.FormatError as error:
            assert str(path) in str(error)
    assert whole < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'node { name: "x" op: }', r"not the protobuf text of a GraphDef: 1:\d+"),
        (b'node { name: "x"\n ops: "y" }', r"no field.*named.*ops|2:2"),
        (b'node { name: "\xff" }', "no GraphDef.*found bytes 6e 6f"),
        (b"graph_def { node { " + b"attr { value { func { " * 2000, "not the protobuf text|RecursionError"),
    ],
)
def test_text_that_does_not_parse(text: bytes, message: str) -> None:
    with pytest.raises(gr.FormatError, match=message):
        gr.load(text)


def test_names_that_occur_twice() -> None:
    with pytest.raises(gr.FormatError, match="node names occur twice.*: x"):
        assert gr.load(_graph_of("x", "y", "x").SerializeToString()).graph.nodes


def test_assets_never_lie_outside_their_folder() -> None:
    saved = protos.SavedModel()
    meta_graph = saved.meta_graphs.add()
    meta_graph.graph_def.node.add(name="name", op="Const")
    asset = meta_graph.asset_file_def.add(filename="../../../etc/passwd")
    asset.tensor_info.name = "name:0"
    assert gr.load(saved).assets == {"name:0": "assets/passwd"}
