"""Memory-mapped packages: TensorFlow's own file read, ours taken apart by hand, and what must stay in the graph."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import CORPUS, case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graph_restore as gr
from graph_restore import protos
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import FileSource
from graph_restore.tensors import ContentTensor, LazyTensor, lazy

GENUINE = CORPUS / "packages" / "matmul-tf2.21.0.pbmm"
LINEAR = case("linear/tf1.15.5-v2")
BOUNDED = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def _frozen() -> gr.Model:
    return gr.freeze(gr.restore(gr.load(LINEAR.graph_pb), LINEAR.prefix), "y", "x")


def _model(taker: str, position: int = 1, passing: str = "Identity", **payloads: LazyTensor) -> gr.Model:
    """Placeholder x and each constant, through `passing`, into a node `<name>/taken` of op `taker`."""
    graph_def = protos.GraphDef()
    graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    for name, tensor in payloads.items():
        const = graph_def.node.add(name=name, op="Const")
        const.attr["dtype"].type = const.attr["value"].tensor.dtype = tensor.data_type
        graph_def.node.add(name=f"{name}/read", op=passing, input=[name]).attr["T"].type = tensor.data_type
        inputs = ["x"] * position + [f"{name}/read"]
        graph_def.node.add(name=f"{name}/taken", op=taker, input=inputs).attr["T"].type = tensor.data_type
    graph = gr.load(graph_def).graph
    return gr.Model(
        graph.replaced(graph_def.node, {("", name): value for name, value in payloads.items()}),
        gr.load(graph_def).variables,
    )


def _parts(path: Path) -> tuple[dict[str, bytes], Any]:
    """Name to content of each region, every tensor's offset being a multiple of 64; and the GraphDef."""
    data = path.read_bytes()
    (start,) = struct.unpack("<Q", data[-8:])
    directory = protos.MemmappedFileSystemDirectory.FromString(data[start:-8])
    assert all(element.offset % 64 == 0 for element in directory.element)
    regions = {element.name: data[element.offset :][: element.length] for element in directory.element}
    return regions, protos.GraphDef.FromString(regions.pop("memmapped_package://."))


def test_tensorflows_own_package_is_read() -> None:
    model = gr.load(GENUINE)
    assert model.source.format == "memmapped"
    assert {node.name: node.op for node in model.graph.nodes.values()} == {
        "x": "Placeholder",
        "w": "Const",
        "y": "MatMul",
    }
    assert model.graph.value(model.graph.node("w")).read().tolist() == [[1.0], [2.0], [3.0]]
    assert model.graph.materialize().node[1].attr["value"].tensor.tensor_content == struct.pack("<3f", 1, 2, 3)


@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_what_was_frozen_lies_in_regions(tmp_path: Path) -> None:
    gr.export(_frozen(), tmp_path / "linear.pbmm", min_bytes=1)
    regions, graph_def = _parts(tmp_path / "linear.pbmm")
    assert regions == {"memmapped_package://w": LINEAR.oracle["variables"]["w:0"].tobytes()}
    nodes = {node.name: node for node in graph_def.node}
    assert nodes["w"].op == "ImmutableConst" and "value" not in nodes["w"].attr
    assert nodes["w"].attr["memory_region_name"].s == b"memmapped_package://w" and nodes["w"].attr["dtype"].type == 1
    assert [dim.size for dim in nodes["w"].attr["shape"].shape.dim] == [4, 3]
    assert nodes["b"].op == "Const"  # Add may write over it
    assert graph_def.versions == _frozen().graph.graph_def.versions


@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_a_package_is_loaded_as_what_it_was_made_from(tmp_path: Path) -> None:
    frozen = _frozen()
    gr.export(frozen, tmp_path / "no-suffix", "memmapped", min_bytes=1)
    assert gr.load(tmp_path / "no-suffix").graph.materialize() == frozen.graph.materialize()


def test_small_ones_strings_and_empty_ones_stay(tmp_path: Path) -> None:
    values = {"small": np.zeros(1023, np.float32), "large": np.ones(1024, np.float32), "none": np.zeros(0, np.float32)}
    tensors = {name: lazy(name, value) for name, value in values.items()}
    model = _model("MatMul", words=lazy("words", np.array([b"x" * 9999], object)), **tensors)
    gr.export(model, tmp_path / "x.pbmm")
    assert list(_parts(tmp_path / "x.pbmm")[0]) == ["memmapped_package://large"]
    gr.export(model, tmp_path / "x.pbmm", min_bytes=0)
    assert list(_parts(tmp_path / "x.pbmm")[0]) == ["memmapped_package://small", "memmapped_package://large"]


READ = {"MatMul": 1, "Conv2D": 1, "GatherV2": 0, "BiasAdd": 1, "FusedBatchNormV3": 1, "LSTMBlockCell": 3}
WRITTEN = {"Mul": 1, "Rsqrt": 0, "BiasAdd": 0, "FusedBatchNormV3": 3, "LSTMBlockCell": 1, "SomethingElse": 0}


@pytest.mark.parametrize("passing", ["Identity", "Reshape", "Transpose", "Enter"])
@pytest.mark.parametrize("op", READ)
def test_what_is_only_read_is_mapped(op: str, passing: str, tmp_path: Path) -> None:
    model = _model(op, READ[op], passing, w=lazy("w", np.ones(2000, np.float32)))
    gr.export(model, tmp_path / "x.pbmm")
    assert list(_parts(tmp_path / "x.pbmm")[0]) == ["memmapped_package://w"]


@pytest.mark.parametrize("op", WRITTEN)
def test_what_may_be_written_over_is_not_mapped(op: str, tmp_path: Path) -> None:
    model = _model(op, WRITTEN[op], w=lazy("w", np.ones(2000, np.float32)))
    with pytest.warns(gr.GraphRestoreWarning, match="1 constants stay in the graph, 8,000 bytes.*: w"):
        gr.export(model, tmp_path / "x.pbmm")
    assert _parts(tmp_path / "x.pbmm")[0] == {}


@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_what_is_fetched_is_not_mapped(tmp_path: Path) -> None:
    gr.export(_model("Identity", 0, w=lazy("w", np.ones(2000, np.float32))), tmp_path / "x.pbmm")
    assert _parts(tmp_path / "x.pbmm")[0] == {}


def test_names_of_regions_are_valid_and_differ(tmp_path: Path) -> None:
    large = np.ones(2000, np.float32)
    model = _model("MatMul", **{name: lazy(name, large) for name in ("a/b", "a_b", "a-b")})
    gr.export(model, tmp_path / "x.pbmm")
    names = list(_parts(tmp_path / "x.pbmm")[0])
    assert names == [f"memmapped_package://a_b{ending}" for ending in ("", ".1", ".2")]


def _sparse(folder: Path, size: int) -> ContentTensor:
    path = folder / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
    return ContentTensor("big", 4, (size,), [Extent(FileSource(path), 0, size)])


@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_over_two_gibibytes_only_outside_the_graph(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(gr.UnsupportedFormatError, match="limit of 2 GiB.*found 2147"):
        gr.export(_model("Mul", big=_sparse(tmp_path, 1 << 31)), tmp_path / "out" / "x.pbmm")
    assert not list((tmp_path / "out").iterdir())


class _Failing(ContentTensor):
    def parts(self) -> Any:
        yield bytes(self.nbytes // 2)
        raise OSError("the disk went away")


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "x.pbmm").write_bytes(b"what was there")
    source = FileSource(__file__)
    with pytest.raises(OSError, match="went away"):
        gr.export(_model("MatMul", w=_Failing("w", 4, (5000,), [Extent(source, 0, 5000)])), tmp_path / "x.pbmm")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.pbmm", b"what was there")]


def _package(*elements: tuple[str, int, int], graph: Any = None, content: bytes = bytes(64)) -> bytes:
    data = content + (graph or protos.GraphDef()).SerializeToString()
    directory = protos.MemmappedFileSystemDirectory()
    for name, offset, length in elements:
        directory.element.add(name=f"memmapped_package://{name}", offset=offset, length=length)
    return data + directory.SerializeToString() + struct.pack("<Q", len(data))


def _constant(region: str) -> Any:
    graph = protos.GraphDef()
    node = graph.node.add(name="w", op="ImmutableConst")
    node.attr["dtype"].type = 1
    node.attr["shape"].shape.dim.add(size=4)
    node.attr["memory_region_name"].s = region.encode()
    return graph


CONSTANT = _constant("memmapped_package://w")
SIZE = len(CONSTANT.SerializeToString())
BAD = {
    "no graph": (_package(("w", 0, 16)), "the package has no graph"),
    "no such region": (_package((".", 64, SIZE), graph=CONSTANT), "region that the package does not have"),
    "a short region": (_package(("w", 0, 15), (".", 64, SIZE), graph=CONSTANT), "too short for node w"),
    "regions that overlap": (_package(("w", 0, 65), (".", 64, SIZE), graph=CONSTANT), "does not lie before the next"),
    "past the end": (_package(("w", 0, 16), (".", 64, 1 << 40), graph=CONSTANT), "does not lie before the next"),
}


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD)
def test_bad_packages(data: bytes, words: str) -> None:
    with pytest.raises(gr.FormatError, match=words):
        gr.load(data)


def test_lengths_were_not_written_once() -> None:
    model = gr.load(_package(("w", 0, 0), (".", 64, 0), graph=CONSTANT))
    assert model.graph.value(model.graph.node("w")).read().tolist() == [0.0] * 4


@BOUNDED
@given(st.integers(0, 242), st.integers(0, 255), st.integers(0, 243))
def test_whatever_the_bytes(at: int, byte: int, end: int) -> None:
    data = bytearray(GENUINE.read_bytes())
    data[at] = byte
    for altered in (bytes(data), bytes(data[:end])):
        with contextlib.suppress(gr.FormatError):
            gr.load(altered)
