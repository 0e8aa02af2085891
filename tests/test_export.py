"""Exported files: whole or not at all, never over protobuf's limit, and never held in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import case, cases

import graph_restore as gr
from graph_restore import protos
from graph_restore.storage import output
from graph_restore.storage.extent import Checksum, Extent
from graph_restore.storage.source import FileSource
from graph_restore.tensors import ContentTensor, lazy

LINEAR = case("linear/tf1.15.5-v2")


def _model(**payloads: gr.LazyTensor) -> gr.Model:
    nodes = []
    for name, tensor in payloads.items():
        node = protos.NodeDef(name=name, op="Const")
        node.attr["dtype"].type = tensor.data_type
        node.attr["value"].tensor.dtype = tensor.data_type
        nodes.append(node)
    graph = gr.load(protos.GraphDef()).graph.replaced(nodes, {("", name): tensor for name, tensor in payloads.items()})
    return gr.Model(graph, gr.load(protos.GraphDef()).variables)


def _frozen() -> gr.Model:
    return gr.freeze(gr.restore(gr.load(LINEAR.graph_pb), LINEAR.prefix), "y", "x")


@pytest.mark.parametrize(("name", "form"), [("a.pb", None), ("a.bin", None), ("a.pbtxt", "graph_def")])
def test_binary(name: str, form: str | None, tmp_path: Path) -> None:
    frozen = _frozen()
    written: list[int] = []
    gr.export(frozen, tmp_path / name, form, progress=written.append)
    data = (tmp_path / name).read_bytes()
    graph_def = protos.GraphDef.FromString(data)
    assert [node.name for node in graph_def.node] == list(frozen.graph.nodes) and sum(written) == len(data)
    (w,) = [node.attr["value"].tensor for node in graph_def.node if node.name == "w"]
    assert w.tensor_content == LINEAR.oracle["variables"]["w:0"].tobytes() and w.dtype == 1
    assert [dim.size for dim in w.tensor_shape.dim] == [4, 3]
    assert graph_def.versions == frozen.graph.graph_def.versions
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(("name", "form"), [("a.pbtxt", None), ("a.prototxt", None), ("a.pb", "graph_def_text")])
def test_text(name: str, form: str | None, tmp_path: Path) -> None:
    frozen = _frozen()
    gr.export(frozen, str(tmp_path / name), form)
    gr.export(frozen, tmp_path / "binary")
    text = (tmp_path / name).read_text()
    assert text.startswith('node {\n  name: "') and gr.load(tmp_path / name).source.format == "graph_def_text"
    binary = protos.GraphDef.FromString((tmp_path / "binary").read_bytes())
    assert protos.GraphDef.FromString(gr.load(tmp_path / name).graph.materialize().SerializeToString()) == binary


def test_no_such_format(tmp_path: Path) -> None:
    with pytest.raises(gr.UnsupportedFormatError, match="no such output format.*graph_def.*found onnx"):
        gr.export(_frozen(), tmp_path / "a.onnx", "onnx")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("one", cases("dtypes") + cases("partitioned"), ids=lambda one: one.id)
def test_what_was_exported_is_loaded_again(one: Any, tmp_path: Path) -> None:
    """Every dtype; V1 values, which are no stretches of a file; slices along both axes."""
    restored = gr.restore(gr.load(one.graph_pb), one.prefix)
    saved = [variable.name for variable in restored.variables if variable.value is not None]  # V1 has no bfloat16
    assert len(saved) > 9
    frozen = gr.freeze(restored, saved)
    gr.export(frozen, tmp_path / "frozen.pb")
    graph = gr.load(tmp_path / "frozen.pb").graph
    for name in frozen.fetches:
        value, expected = graph.value(graph.node(name)).read(), one.oracle["variables"][name]
        assert value.dtype == expected.dtype and value.shape == expected.shape
        assert value.tolist() == expected.tolist() or value.tobytes() == expected.tobytes()


def test_a_model_is_exported_over_its_own_file(tmp_path: Path) -> None:
    big = lazy("big", np.arange(100_000, dtype=np.int32))
    path = tmp_path / "graph.pb"
    gr.export(_model(big=big), path)
    before = path.read_bytes()
    gr.export(gr.load(path), path)  # its constant lies in the file that is replaced
    assert path.read_bytes() == before


class _Failing(ContentTensor):
    def parts(self) -> Any:
        yield bytes(self.nbytes // 2)
        raise OSError("the disk went away")


def _corrupt(folder: Path, size: int) -> ContentTensor:
    path = folder / "values"
    path.write_bytes(bytes(size))
    source = FileSource(path)
    return ContentTensor("big", 4, (size,), [Extent(source, 0, size, Checksum(0, size, 12345, "values"))])


@pytest.mark.parametrize("size", [100, 1 << 17, 5 << 20])
def test_what_fails_leaves_what_was_there(size: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = FileSource(_file(tmp_path / "in" / "half", bytes(size)))
    failing = _Failing("big", 4, (size,), [Extent(source, 0, size)])
    for existing in (None, b"what was there"):
        path = tmp_path / "out" / "graph.pb"
        if existing is not None:
            path.write_bytes(existing)
        for tensor, error in ((failing, OSError), (_corrupt(tmp_path / "in", size), gr.CorruptionError)):
            with pytest.raises(error):
                gr.export(_model(big=tensor), path)
            assert (path.read_bytes() if path.exists() else None) == existing
            assert os.listdir(tmp_path / "out") == (["graph.pb"] if existing else [])


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_damaged_checkpoint_is_found_while_it_is_copied(tmp_path: Path) -> None:
    for path in LINEAR.directory.glob("model.ckpt*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (data,) = tmp_path.glob("*.data-*")
    data.write_bytes(data.read_bytes()[:-1] + b"\x55")
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model.ckpt.meta")), "y")
    with pytest.raises(gr.CorruptionError, match="data-00000-of-00001"):
        gr.export(frozen, tmp_path / "frozen.pb")
    assert not list(tmp_path.glob("*frozen*"))


def test_a_file_that_changed_meanwhile_is_not_copied(tmp_path: Path) -> None:
    """A Const of a GraphDef has no checksum, so that only the time of its file tells of another content."""
    const = protos.NodeDef(name="w", op="Const")
    const.attr["dtype"].type = 1
    const.attr["value"].tensor.CopyFrom(protos.TensorProto(dtype=1, tensor_content=bytes(range(256)) * 1024))
    const.attr["value"].tensor.tensor_shape.dim.add(size=65536)
    source = _file(tmp_path / "graph.pb", protos.GraphDef(node=[const]).SerializeToString())
    os.utime(source, ns=(10**18, 10**18))
    model = gr.load(source)
    source.write_bytes(bytes(source.stat().st_size))
    with pytest.raises(gr.CorruptionError, match="graph.pb: the file was changed while it was in use; load it again"):
        gr.export(model, tmp_path / "out.pb")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.pb"]


def test_an_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gr.export(_frozen(), tmp_path / "no" / "such" / "folder.pb")


def _sparse(folder: Path, size: int) -> ContentTensor:
    path = folder / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
    return ContentTensor("big", 4, (size,), [Extent(FileSource(path), 0, size)])


def test_over_two_gibibytes_is_refused_before_writing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    one = _sparse(tmp_path, 1 << 30)
    for payloads in ({"big": _sparse(tmp_path, 1 << 31)}, {"a": one, "b": one}):
        with pytest.raises(gr.UnsupportedFormatError, match="limit of 2 GiB.*at most 2147483647 bytes, found 21474"):
            gr.export(_model(**payloads), tmp_path / "out" / "graph.pb")
    assert not os.listdir(tmp_path / "out")


def test_large_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(gr.UnsupportedFormatError, match="too large for protobuf text; write a .pb"):
        gr.export(_model(big=_sparse(tmp_path, 65 << 20)), tmp_path / "out" / "graph.pbtxt")
    assert not os.listdir(tmp_path / "out")


def test_permissions_are_those_of_a_new_file_or_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    mask = os.umask(0o027)
    try:
        gr.export(_frozen(), path)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o600)
    gr.export(_frozen(), path)
    assert path.stat().st_mode & 0o777 == 0o600


FLAT = """
import resource, sys
import graph_restore as gr
from graph_restore.storage.extent import Extent
folder, size = sys.argv[1], 300 << 20
model = gr.load(folder + "/graph.pb")
node = model.graph.node("big")
assert model.graph.value(node).nbytes == size
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gr.export(gr.freeze(model, "big"), folder + "/out.pb")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert "tensorflow" not in sys.modules
print((after - before) // 1024)
"""


def test_memory_stays_flat(tmp_path: Path) -> None:
    size = 300 << 20
    gr.export(_model(big=_sparse(tmp_path, size)), tmp_path / "graph.pb")
    home = Path(gr.__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", FLAT, tmp_path], capture_output=True, text=True, cwd=home)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 30, "MiB grown while 300 were copied"
    assert (tmp_path / "out.pb").stat().st_size > size
    for path in tmp_path.iterdir():
        path.unlink()  # tmp_path is kept for a while


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".h5", ".keras", ".pt", ".pth", ".npz", ".SAFETENSORS"])
def test_suffixes_of_other_formats_are_refused(suffix: str, tmp_path: Path) -> None:
    model = gr.restore(gr.load(case("linear/tf1.4.1-v2").meta))
    with pytest.raises(
        gr.UnsupportedFormatError, match=f"no {suffix.lower()} files are written here; .*(freeze|values)"
    ):
        gr.export(model, tmp_path / f"model{suffix}")
    assert list(tmp_path.iterdir()) == []
    gr.export(gr.freeze(model, ["y"]), tmp_path / f"model{suffix}", "graph_def")  # who says so means it
    assert gr.load(tmp_path / f"model{suffix}").source.format == "graph_def"


@pytest.mark.parametrize("name", ["a.pb", "a.pbtxt", "a.pbmm", "a"])
def test_a_graph_without_its_values_is_told_at_the_callers_line(name: str, tmp_path: Path) -> None:
    model = gr.load(case("linear/tf1.4.1-v2").meta)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gr.export(model, tmp_path / name)  # there are no values that could be lost
        gr.export(gr.freeze(gr.restore(model), ["y"]), tmp_path / name)
    with pytest.warns(
        gr.GraphRestoreWarning, match="without the values of its 2 variables; freeze the model first"
    ) as told:
        gr.export(gr.restore(model), tmp_path / name)
    assert [one.filename for one in told] == [__file__]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no advice on files")
def test_a_large_file_is_given_up_behind_what_was_just_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stretch is declared not needed twice: as it was written, which starts the disk, and a good while later."""
    step, kept = 1 << 16, 1 << 18
    monkeypatch.setattr(output, "_WRITE_BACK", step)
    monkeypatch.setattr(output, "_KEPT", kept)
    advised: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, start, length, advice: advised.append((start, length)))
    content = os.urandom(20 * step)
    with output.AtomicFile(tmp_path / "large") as file:
        for start in range(0, len(content), step):
            file.write(content[start : start + step])
    assert (tmp_path / "large").read_bytes() == content
    assert {length for _, length in advised} == {step}
    starts = [start for start, _ in advised]
    for start in range(0, len(content), step):
        times = [number for number, other in enumerate(starts) if other == start]
        assert len(times) == (2 if start < len(content) - kept else 1)
        assert max(starts[: times[-1]]) - start == (kept if len(times) == 2 else -step)
