"""Genuine files cut short and altered: whatever the bytes, a reader gives a result or one of the errors it promises."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus import case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graph_restore as gr
from graph_restore import protos
from graph_restore.slices import TensorSlice
from graph_restore.storage.source import BytesSource
from graph_restore.tensor_proto import scan_tensor_proto

EXPECTED = (gr.FormatError, gr.CheckpointNotFoundError)
BOUNDED = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FILES = {
    "graph": "while_loop/tf0.12.1-v1/graph.pb",
    "functions": "defun/tf1.15.5-v2/graph.pb",
    "old functions": "defun/tf0.12.1-v1/graph.pb",
    "resources": "resource_partitioned/tf1.15.5-v2/graph.pb",
    "tables": "columns_table/tf1.4.1-v2/graph.pb",
    "meta": "partitioned/tf1.4.1-v2/model.ckpt.meta",
    "text": "linear/tf0.12.1-v1/graph.pbtxt",
    "saved model": "saved_model_assets/tf1.15.5-v2/saved_model/saved_model.pb",
    "saved model text": "saved_model_text/tf0.12.1-v1/saved_model/saved_model.pbtxt",
    "session bundle": "session_bundle/tf0.12.1-v1/bundle/00000007/export.meta",
    "events": "event_start/tf1.4.1-v2/events/events.out.tfevents.1000000000.host",
}


@functools.cache
def _content(name: str) -> bytes:
    identity, release, *rest = FILES[name].split("/")
    return case(f"{identity}/{release}").directory.joinpath(*rest).read_bytes()


def _alterations(length: int) -> st.SearchStrategy[list[tuple[int, int, bytes]]]:
    """(where, how many bytes to take out, what to put there), most often one byte for another: the frame then holds and
    what lies inside is read."""
    place = st.integers(0, length)
    byte = st.tuples(
        place, st.just(1), st.one_of(st.binary(min_size=1, max_size=1), st.sampled_from([b"\x00", b"\x7f"]))
    )
    telling = st.sampled_from([b"", b"\x80", b"\xff" * 9 + b"\x01", b"\x0a\x00", b"\x12\x7f"])
    stretch = st.tuples(place, st.sampled_from([0, 1, 2, 50]), st.one_of(st.binary(max_size=4), telling))
    return st.lists(st.one_of(byte, byte, byte, stretch), min_size=1, max_size=3)


def _altered(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, removed, new in changes:
        data = data[:at] + new + data[at + removed :]
    return data


def _use(model: gr.Model) -> None:
    """What any caller would look at, and every constant."""
    assert len([variable.to_dict() for variable in model.variables]) == len(model.variables) and repr(model)
    for node in model.graph.nodes.values():
        if node.op == "Const":
            model.graph.value(node).read()
    model.graph.materialize()


def _expect(action: Callable[[], Any]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except EXPECTED as error:
        assert str(error)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@BOUNDED
def test_altered_models(name: str, data: Any) -> None:
    content = _content(name)
    altered = _altered(content, data.draw(_alterations(len(content))))
    _expect(lambda: _use(gr.load(altered)))


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(BOUNDED, max_examples=25)
def test_models_cut_short(name: str, data: Any) -> None:
    content = _content(name)
    _expect(lambda: _use(gr.load(content[: data.draw(st.integers(0, len(content)))])))


@given(content=st.binary(max_size=200))
@settings(BOUNDED, max_examples=300)
def test_any_bytes(content: bytes) -> None:
    _expect(lambda: _use(gr.load(content)))


@pytest.mark.parametrize("kind", ["GraphDef", "MetaGraphDef", "SavedModel"])
@given(content=st.binary(max_size=60))
@settings(BOUNDED, max_examples=100)
def test_any_bytes_in_a_message(kind: str, content: bytes) -> None:
    """Past recognition: the message is what it says, its parts are anything."""
    message = getattr(protos, kind)()
    graph = {"GraphDef": lambda: message, "MetaGraphDef": lambda: message.graph_def}.get(
        kind, lambda: message.meta_graphs.add().graph_def
    )()
    node = graph.node.add(name="n", op="Const")
    node.attr["dtype"].type = content[0] if content else 0
    node.attr["value"].tensor.tensor_content = content * 100
    node.attr["value"].tensor.dtype = content[-1] if content else 1
    for size in content[:3]:
        node.attr["value"].tensor.tensor_shape.dim.add(size=size - 1)
    _expect(lambda: _use(gr.load(message)))


TENSORS = [b"\x08\x01\x12\x04\x12\x02\x08\x02\x22\x08" + bytes(8), b"\x08\x03\x12\x04\x12\x02\x08\x02\x3a\x02\x05\x06",
           b"\x08\x07\x12\x04\x12\x02\x08\x02\x42\x01a\x42\x00", b"\x08\x0a\x12\x00\x5a\x01\x01"]  # fmt: skip


@given(data=st.data(), content=st.sampled_from(TENSORS))
@settings(BOUNDED, max_examples=400)
def test_altered_tensors(data: Any, content: bytes) -> None:
    altered = _altered(content, data.draw(_alterations(len(content))))
    _expect(lambda: _read_small(altered))


def _read_small(altered: bytes) -> None:
    tensor = scan_tensor_proto("t", BytesSource(altered), 0, len(altered))
    if tensor.size < 1 << 20:  # a fill may be asked for up to its limit; what is tested here is not patience
        tensor.read()


@given(text=st.text(alphabet="0123456789,:- x", max_size=16))
@settings(BOUNDED, max_examples=300)
def test_any_slice_text(text: str) -> None:
    _expect(lambda: TensorSlice.parse(text))


RESTORED = [
    "linear/tf0.12.1-v1",
    "partitioned/tf1.15.5-v2",
    "scalars_and_empty/tf1.15.5-v1",
    "object_checkpoint/tf1.15.5-v2",
]


@pytest.mark.parametrize("identity", RESTORED)
@given(data=st.data())
@settings(BOUNDED, max_examples=30)
def test_restored_from_altered_checkpoints(identity: str, data: Any, tmp_path_factory: Any) -> None:
    one = case(identity)
    prefix = Path(one.other_prefixes.get("objects", one.prefix))
    folder = tmp_path_factory.mktemp("altered")
    files = sorted(path for path in prefix.parent.glob(f"{prefix.name}*") if path.suffix != ".meta")
    chosen = data.draw(st.sampled_from(files))
    for path in files:
        content = path.read_bytes()
        (folder / path.name).write_bytes(
            _altered(content, data.draw(_alterations(len(content)))) if path == chosen else content
        )  # noqa: E501

    def read() -> None:
        restored = gr.restore(gr.load(one.graph_pb), folder / prefix.name, on_mismatch="skip")
        for variable in restored.variables:
            if variable.value is not None:
                variable.value.read()

    _expect(read)
