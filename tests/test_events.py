"""Event files written for TensorBoard, TensorBoard's own objects as sources, and event directories."""

from __future__ import annotations

import bisect
import json
import math
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from corpus import case

import graph_restore as gr
from graph_restore.cli.main import main
from graph_restore.formats.event_file import EventWriter
from graph_restore.formats.summaries import Histogram, bucket_limits
from graph_restore.protos import GraphDef
from graph_restore.storage.output import AtomicFile
from graph_restore.tensors import LazyTensor

MLP = case("mlp/tf1.4.1-v2")
quiet = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")

# --- histograms ------------------------------------------------------------------------------------------------------


def test_the_limits_are_those_of_the_formula() -> None:
    limits = bucket_limits().tolist()
    assert len(limits) == 1551 and limits[775] == 0.0 and limits[-1] == sys.float_info.max == -limits[0]
    assert limits[776:779] == [1e-12, 1e-12 * 1.1, 1e-12 * 1.1 * 1.1] and limits[-2] < 1e20 <= limits[-2] * 1.1
    assert limits == [-limit for limit in reversed(limits)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_value_is_in_its_bucket(dtype: str) -> None:
    """Values at the limits, right beside them, and of all magnitudes."""
    with np.errstate(over="ignore"):
        limits = bucket_limits().astype(dtype)
        beside = [np.nextafter(limits, np.array(way, dtype)) for way in (-np.inf, np.inf)]
    random = np.random.default_rng(0).integers(0, 1 << 64, 20_000, np.uint64).view(dtype)
    values = np.concatenate([limits, *beside, random, np.array([0.0, -0.0, 5e-324, -1e-45, 1, -1], dtype)])
    values = values[np.isfinite(values)]
    values = values[np.abs(values.astype("float64")) < sys.float_info.max]
    found = Histogram()
    found.add(values)
    expected = np.zeros(1551, int)
    for value in values.tolist():
        expected[bisect.bisect_right(LIMITS, value)] += 1
    np.testing.assert_array_equal(found.counts, expected)


LIMITS = bucket_limits().tolist()


def test_what_is_no_number_is_left_out() -> None:
    found = Histogram()
    found.add(np.array([1, np.nan, np.inf, -np.inf, 3], "float32"))
    assert (found.count, found.left_out, found.minimum, found.maximum, found.sum) == (2, 3, 1.0, 3.0, 4.0)


VALUES = {
    "float32": np.random.default_rng(1).normal(0, 1, 5000).astype("float32"),
    "float64": np.random.default_rng(2).normal(0, 1e-6, 500),
    "float16": np.random.default_rng(3).normal(0, 10, 500).astype("float16"),
    "bfloat16": np.random.default_rng(4).normal(0, 10, 500).astype(ml_dtypes.bfloat16),
    "int32": np.array([-5, 0, 0, 7, 1 << 30], "int32"),
    "int64": np.array([-(1 << 60), 3, 3, 1 << 40], "int64"),
    "uint8": np.arange(256, dtype="uint8"),
    "one": np.array([2.5], "float32"),
    "zeros": np.zeros(10, "float32"),
    "huge": np.array([1e30, -1e30, 1e-30], "float32"),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", VALUES)
def test_histograms_are_those_of_tensorflow(name: str) -> None:
    import tensorflow as tf

    values = VALUES[name]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        summary = session.run(tf.compat.v1.summary.histogram("x", tf.constant(values)))
    expected = tf.compat.v1.Summary.FromString(summary).value[0].histo
    ours = Histogram()
    for part in np.array_split(values, 3):
        ours.add(part)
    found = tf.compat.v1.HistogramProto.FromString(ours.encode())
    assert list(found.bucket_limit) == list(expected.bucket_limit)
    assert list(found.bucket) == list(expected.bucket)
    assert (found.min, found.max, found.num) == (expected.min, expected.max, expected.num)
    assert math.isclose(found.sum, expected.sum, rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(found.sum_squares, expected.sum_squares, rel_tol=1e-9)


# --- what is written -------------------------------------------------------------------------------------------------


@quiet
@pytest.mark.tensorflow
def test_tensorboard_reads_it(tmp_path: Path) -> None:
    accumulating = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    path = gr.write_events(str(MLP.meta), tmp_path / "logs")
    assert Path(path).parent == tmp_path / "logs"
    accumulator = accumulating.EventAccumulator(str(tmp_path / "logs"), {accumulating.HISTOGRAMS: 0})
    accumulator.Reload()
    values = {name.removesuffix(":0"): value for name, value in MLP.oracle["variables"].items()}
    assert set(accumulator.Tags()["histograms"]) == {name for name, value in values.items() if value.shape}
    assert set(accumulator.Tags()["scalars"]) == {name for name, value in values.items() if not value.shape}
    for tag in accumulator.Tags()["histograms"]:
        (event,) = accumulator.Histograms(tag)
        assert event.step == int(values["global_step"])
        assert event.histogram_value.num == values[tag].size
        assert event.histogram_value.min == values[tag].min() and event.histogram_value.max == values[tag].max()
        assert math.isclose(event.histogram_value.sum, values[tag].sum(dtype="float64"), abs_tol=1e-6)
    assert accumulator.Scalars("beta1_power")[0].value == values["beta1_power"]
    graph = accumulator.Graph()
    original = GraphDef.FromString(MLP.graph_pb.read_bytes())
    assert [node.name for node in graph.node] == [node.name for node in original.node]
    shapes = {node.name: [d.size for d in node.attr["_output_shapes"].list.shape[0].dim] for node in graph.node
              if "_output_shapes" in node.attr}  # fmt: skip
    assert {name: shapes[name] for name in values} == {name: list(value.shape) for name, value in values.items()}
    assert shapes["hidden/weights/read"] == list(values["hidden/weights"].shape)
    assert accumulator.MetaGraph().collection_def.keys() == gr.load(MLP.meta).collections.keys()


def test_shapes_that_only_the_values_tell_and_those_of_placeholders(tmp_path: Path) -> None:
    one = case("resource/tf1.15.5-v2")
    graph = GraphDef.FromString(one.graph_pb.read_bytes())
    for node in graph.node:
        node.attr.pop("_output_shapes", None)
    gr.write_events(gr.restore(gr.load(graph), one.prefix), tmp_path)
    nodes = gr.load(tmp_path).graph.nodes
    stated = {name: node.attr["_output_shapes"].list.shape for name, node in nodes.items()}
    variables = {name.removesuffix(":0"): list(value.shape) for name, value in one.oracle["variables"].items()}
    reads = {node.name: variables[node.input[0]] for node in nodes.values() if node.op == "ReadVariableOp"}
    assert reads and {name: [d.size for d in stated[name][0].dim] for name in reads} == reads
    assert not any(stated[name] for name in variables if nodes[name].op == "VarHandleOp")
    x = next(node for node in nodes.values() if node.op == "Placeholder")
    assert [d.size for d in stated[x.name][0].dim] == [d.size for d in x.attr["shape"].shape.dim]


def test_large_constants_are_left_out_and_never_taken_for_values(tmp_path: Path) -> None:
    graph = GraphDef()
    values = {"big": np.ones([300], "float32"), "small": np.ones([10], "float32")}
    values |= {"words": np.array([b"x" * 99] * 99, object), "more": np.array([b"x" * 999] * 1999, object)}
    for name, value in values.items():
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = 7 if value.dtype == object else 1
        node.attr["value"].tensor.dtype = node.attr["dtype"].type
        node.attr["value"].tensor.tensor_shape.dim.add(size=value.size)
        if value.dtype == object:
            node.attr["value"].tensor.string_val.extend(value.tolist())
        else:
            node.attr["value"].tensor.tensor_content = value.tobytes()
        graph.node.add(name=f"{name}_out", op="Identity", input=[name]).attr["T"].type = node.attr["dtype"].type
    with pytest.warns(gr.GraphRestoreWarning, match=r"2 constants, 1,998,201 bytes, are left out"):
        path = gr.write_events(gr.load(graph), tmp_path)
    assert Path(path).stat().st_size < 12_000
    viewed = gr.load(path)
    tensor = viewed.graph.nodes["big"].attr["value"].tensor
    assert tensor.tensor_content == b"<stripped 1200 bytes>" and tensor.tensor_shape.dim[0].size == 300
    gr.freeze(viewed, ["small_out", "words_out"])
    assert viewed.graph.value(viewed.graph.nodes["words"]).read().tolist() == [b"x" * 99] * 99
    for name in ("big", "more"):
        with pytest.raises(gr.CorruptionError, match="its value was left out"):
            viewed.graph.value(viewed.graph.nodes[name]).read()


@quiet
def test_what_is_chosen_and_what_is_replaced(tmp_path: Path) -> None:
    model = gr.restore(gr.load(MLP.meta))
    large = Path(gr.write_events(model, tmp_path)).stat().st_size
    assert Path(gr.write_events(model, tmp_path, exclude=["slots"])).stat().st_size < large
    bare = Path(gr.write_events(model, tmp_path, histograms=False))
    assert [path.name for path in tmp_path.iterdir()] == [bare.name] and b"beta1_power\x15" not in bare.read_bytes()
    shutil.copy(bare, tmp_path / "events.out.tfevents.1700000000.host")
    with pytest.raises(gr.GraphRestoreError, match=r"events\.out\.tfevents\.1700000000\.host.*restored"):
        gr.write_events(model, tmp_path)


def test_values_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    model = gr.restore(gr.load(case("linear/tf1.15.5-v2").graph_pb),
                       {"w": np.full([4, 3], np.nan, "float32"), "b": np.array([1, np.inf, 2], "float32")})  # fmt: skip
    with pytest.warns(gr.GraphRestoreWarning, match=r"NaN and infinities .* w \(12\), b \(1\)"):
        data = Path(gr.write_events(model, tmp_path)).read_bytes()
    assert b"\x0a\x01b\x2a" in data and b"\x0a\x01w\x2a" not in data  # no histogram of nothing


def test_a_graph_without_values_is_told(tmp_path: Path) -> None:
    one = case("linear/tf1.15.5-v2")
    with pytest.warns(gr.GraphRestoreWarning, match="no variable has a value.*pass a checkpoint"):
        gr.write_events(one.graph_pb, tmp_path)
    path = gr.write_events(one.graph_pb, tmp_path, checkpoint=one.prefix)
    assert b"\x0a\x01w\x2a" in Path(path).read_bytes()


def test_values_are_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: LazyTensor, verify: bool = True) -> Any:
        raise AssertionError("read whole")

    model = gr.restore(gr.load(case("linear/tf1.15.5-v2").graph_pb), case("linear/tf1.15.5-v2").prefix)
    monkeypatch.setattr(LazyTensor, "read", refuse)
    assert b"\x0a\x01w\x2a" in Path(gr.write_events(model, tmp_path)).read_bytes()


# --- TensorBoard's objects and directories as sources ----------------------------------------------------------------


class FakeAccumulator:
    """As much of an EventAccumulator as tells one, without TensorBoard."""

    def __init__(self, path: Path, graph: Any) -> None:
        self.path, self.graph = str(path), graph

    def Reload(self) -> None:
        pass

    def Graph(self) -> Any:
        return self.graph

    def MetaGraph(self) -> Any:
        raise ValueError("There is no metagraph in this EventAccumulator")


def test_an_accumulator_is_taken_where_a_path_is(tmp_path: Path) -> None:
    one = case("linear/tf0.12.1-v2")
    for path in one.directory.glob("model.ckpt*"):
        shutil.copy(path, tmp_path)
    accumulator = FakeAccumulator(tmp_path, GraphDef.FromString(one.graph_pb.read_bytes()))
    model = gr.load(accumulator)
    assert str(model) and sorted(v.name for v in model.variables) == ["b", "w"]
    wanted = one.oracle["variables"]["w:0"]
    for restored in (gr.restore(model), gr.restore(gr.load(one.graph_pb), accumulator)):
        np.testing.assert_array_equal(restored.variables["w"].value.read(), wanted)  # type: ignore[union-attr]
    np.testing.assert_array_equal(gr.load_checkpoint(accumulator)["w"].read(), wanted)  # type: ignore[arg-type]


@pytest.mark.tensorflow
@quiet
def test_a_live_model_from_an_accumulator() -> None:
    accumulating = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    one = case("events/tf1.15.5-v2")
    accumulator = accumulating.EventAccumulator(str(one.directory / "events"))
    accumulator.Reload()
    outputs, feeds = one.oracle["outputs"], one.oracle["feeds"]
    with gr.Session(accumulator, checkpoint=one.prefix) as session:
        for name, value in outputs.items():
            np.testing.assert_allclose(session.run(name, feeds), value, rtol=1e-5)
    module = gr.as_module(accumulator, list(outputs), list(feeds), checkpoint=one.prefix)
    for name, value in module(*feeds.values()).items():
        np.testing.assert_allclose(value, outputs[name], rtol=1e-5)


def event_file(path: Path, graph: bytes | None) -> None:
    with AtomicFile(path) as file:
        writer = EventWriter(file)
        if graph is not None:
            writer.add(graph_def=graph)


def test_the_newest_event_file_with_a_graph(tmp_path: Path) -> None:
    one = case("linear/tf1.15.5-v2").graph_pb.read_bytes()
    event_file(tmp_path / "events.out.tfevents.1000000001.a", MLP.graph_pb.read_bytes())
    event_file(tmp_path / "events.out.tfevents.1000000002.a", one)
    event_file(tmp_path / "events.out.tfevents.1000000003.a", None)
    assert sorted(v.name for v in gr.load(tmp_path).variables) == ["b", "w"]


def test_runs_in_a_log_directory_are_named(tmp_path: Path) -> None:
    for run in ("train", "eval"):
        (tmp_path / run).mkdir()
        event_file(tmp_path / run / "events.out.tfevents.1000000001.a", None)
    with pytest.raises(gr.FormatError, match="pass a run in it, .*eval or .*train"):
        gr.load(tmp_path)


# --- the command -----------------------------------------------------------------------------------------------------


def call(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["tensorboard", *arguments])


def test_no_start_writes_only(tmp_path: Path) -> None:
    done = call(str(MLP.meta), "--logdir", str(tmp_path), "--no-start", "--include", "hidden/weights")
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.iterdir()
    assert f"wrote {path}\n" in done.output
    data = path.read_bytes()
    assert b"\x0a\x0ehidden/weights\x2a" in data and b"\x0a\x0dhidden/biases\x2a" not in data


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([str(MLP.meta), "--no-start"], 2, "--no-start goes with --logdir"),
        ([str(MLP.meta), "--logdir", "x", "--no-start", "--include", "hiden/weights"], 0, "near names"),
        (["nowhere.meta", "--logdir", "x"], 1, "nowhere.meta: no such file"),
    ],
)
def test_what_the_command_says(
    arguments: list[str], status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == status and words in done.output


def test_a_missing_tensorboard_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = call(str(case("linear/tf1.15.5-v2").meta))
    assert done.exit_code == 1 and "pip install tensorboard" in done.output


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a TensorBoard that the command has started; it must end with the command."""
    pytest.importorskip("tensorboard")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "graph_restore", "tensorboard", str(MLP.meta), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}/data/plugin"
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and not answers(f"{address}/histograms/tags"):
            time.sleep(0.5)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert not answers(f"{address}/histograms/tags")


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        data: bytes = answer.read()
    return data


def answers(address: str) -> bool:
    try:
        return bool(json.loads(get(address)))
    except (OSError, ValueError):
        return False


@pytest.mark.tensorflow
def test_tensorboard_shows_graph_and_histograms(served: str) -> None:
    (run,) = json.loads(get(f"{served}/histograms/tags"))
    query = urllib.parse.urlencode({"run": run, "conceptual": "false"})
    graph = get(f"{served}/graphs/graph?{query}").decode()
    assert 'name: "hidden/weights"' in graph and "_output_shapes" in graph
    query = urllib.parse.urlencode({"run": run, "tag": "hidden/weights"})
    ((_, step, buckets),) = json.loads(get(f"{served}/histograms/histograms?{query}"))
    assert step == 1000
    assert sum(count for _, _, count in buckets) == MLP.oracle["variables"]["hidden/weights:0"].size
