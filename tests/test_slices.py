"""Slices of tensors: their text, joining them and cutting them out; expected values by numpy's own indexing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import graph_restore as gr
from graph_restore.slices import CutTensor, JoinedTensor, TensorSlice, cut, join
from graph_restore.storage.extent import Extent
from graph_restore.storage.source import BytesSource
from graph_restore.tensors import ContentTensor, LazyTensor, lazy

INT64, STRING = 9, 7


@pytest.mark.parametrize(
    ("text", "shape", "starts", "lengths"),
    [
        ("10 4 4,3:0,4", (10, 4), (4, 0), (3, 4)),
        ("10 4 4,3:-", (10, 4), (4, 0), (3, 4)),
        ("10 4 -:-", (10, 4), (0, 0), (10, 4)),
        ("7 0,7", (7,), (0,), (7,)),
        ("0 3 -:1,2", (0, 3), (0, 1), (0, 2)),
        ("20001 8191,1", (20001,), (8191,), (1,)),
    ],
)
def test_texts(text: str, shape: Any, starts: Any, lengths: Any) -> None:
    box = TensorSlice.parse(text)
    assert box == TensorSlice(shape, starts, lengths)
    assert box.whole == (shape == lengths) and TensorSlice.parse(str(box)) == box
    assert TensorSlice.parse("") is None


@pytest.mark.parametrize(
    "text", ["4", "4 5", "4 x", "4 3,2", "4 -1,2", "4 4 0,2", "a 0,1", "4 0,2:0,1", " ", "-4 -", "4 0,-1"]
)  # noqa: E501
def test_texts_that_are_no_slices(text: str) -> None:
    with pytest.raises(gr.FormatError, match="tensor slice"):
        TensorSlice.parse(text)


@pytest.mark.tensorflow
@pytest.mark.parametrize("text", ["10 4 4,3:0,4", "10 4 -:1,2", "10 4 -:-"])
def test_tensorflow_writes_what_these_texts_say(text: str, tmp_path: Any) -> None:
    import tensorflow as tf

    box = TensorSlice.parse(text)
    assert box is not None
    whole = np.arange(40, dtype=np.int64).reshape(10, 4)
    part = tf.constant(whole[box.index])
    tf.raw_ops.SaveV2(prefix=str(tmp_path / "c"), tensor_names=["t"], shape_and_slices=[str(box)], tensors=[part])
    read = tf.raw_ops.RestoreV2(
        prefix=str(tmp_path / "c"), tensor_names=["t"], shape_and_slices=[text], dtypes=[tf.int64]
    )
    assert read[0].numpy().tolist() == whole[box.index].tolist()


def _whole(shape: tuple[int, ...], strings: bool) -> np.ndarray[Any, Any]:
    numbers = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return np.array([b"%d" % n for n in numbers.ravel()], object).reshape(shape) if strings else numbers


def _tensor(values: np.ndarray[Any, Any]) -> LazyTensor:
    if values.dtype == object:
        return lazy("t", values)
    data = values.tobytes()
    return ContentTensor("t", INT64, values.shape, [Extent(BytesSource(data), 0, len(data))])


def _boxes(shape: tuple[int, ...], cuts: list[list[int]]) -> list[TensorSlice]:
    """Every box of the grid that cuts axis n into the lengths cuts[n]."""
    axes = [[(sum(lengths[:n]), length) for n, length in enumerate(lengths)] for lengths in cuts]
    return [TensorSlice(shape, tuple(s for s, _ in one), tuple(n for _, n in one)) for one in itertools.product(*axes)]


GRIDS = [
    ((7,), [[3, 4]]),
    ((7, 3), [[4, 2, 1], [3]]),
    ((3, 7), [[3], [4, 2, 1]]),
    ((2, 3, 4), [[2], [1, 2], [4]]),
    ((2, 3, 4), [[2], [3], [1, 3]]),
    ((4, 4), [[1, 3], [2, 2]]),  # along two axes
    ((5, 2), [[5, 0], [2]]),  # a part without elements
    ((5, 2), [[5], [2]]),  # one part that is all
    ((0, 2), [[0], [1, 1]]),
]


@pytest.mark.parametrize(("shape", "cuts"), GRIDS)
@pytest.mark.parametrize("strings", [False, True], ids=["numbers", "strings"])
def test_joined_and_cut(shape: tuple[int, ...], cuts: list[list[int]], strings: bool) -> None:
    whole = _whole(shape, strings)
    boxes = _boxes(shape, cuts)
    for order in (boxes, boxes[::-1]):
        joined = join(
            "t", STRING if strings else INT64, shape, [(box, _tensor(whole[box.index].copy())) for box in order]
        )
        assert joined.shape == shape and joined.read().tolist() == whole.tolist()
        if not strings:
            assert b"".join(joined.chunks()) == whole.tobytes()
        others = _boxes(shape, [[n // 2, n - n // 2] for n in shape])
        for source, box in itertools.product((joined, _tensor(whole)), [*boxes, *others]):
            assert cut(source, box).read().tolist() == whole[box.index].tolist()


def test_parts_that_are_stored_so_are_taken_as_they_are() -> None:
    whole = _whole((7, 3), False)
    boxes = _boxes((7, 3), [[4, 3], [3]])
    parts = [_tensor(whole[box.index].copy()) for box in boxes]
    joined = join("t", INT64, (7, 3), list(zip(boxes, parts)))
    assert isinstance(joined, JoinedTensor) and cut(joined, boxes[1]) is parts[1]
    assert all(isinstance(part, Extent) for part in joined.parts())
    stored = _tensor(whole)
    assert cut(stored, TensorSlice((7, 3), (0, 0), (7, 3))) is stored
    rows = cut(stored, boxes[1])
    assert isinstance(rows, CutTensor) and [type(part) for part in rows.parts()] == [Extent]


@pytest.mark.parametrize(
    "boxes",
    [
        [((0, 0), (4, 3))],  # too few
        [((0, 0), (4, 3)), ((3, 0), (3, 3))],  # as many elements as there are, some twice
        [((0, 0), (7, 2)), ((0, 0), (7, 1))],
        [((0, 0), (4, 3)), ((0, 0), (3, 3))],
        [((0, 0), (7, 3)), ((0, 0), (7, 3))],
        [],
    ],
)
def test_slices_that_do_not_cover_the_tensor_once(boxes: Any) -> None:
    parts = [(TensorSlice((7, 3), *box), _tensor(np.zeros(box[1], np.int64))) for box in boxes]
    with pytest.raises(gr.CorruptionError, match=r"slices of tensor t do not cover its shape \[7, 3\] exactly once"):
        join("t", INT64, (7, 3), parts)


def test_a_slice_of_another_shape() -> None:
    with pytest.raises(gr.CorruptionError, match=r"a slice of tensor t \(expected \(7, 3\), found \(7, 4\)"):
        cut(_tensor(_whole((7, 3), False)), TensorSlice((7, 4), (0, 0), (7, 1)))


def test_long_interleaved_parts_come_in_bounded_pieces() -> None:
    whole = _whole((3, 300_000), False)
    boxes = _boxes(whole.shape, [[3], [100_000, 200_000]])
    joined = join("t", INT64, whole.shape, [(box, _tensor(whole[box.index].copy())) for box in boxes])
    assert max(map(len, joined.chunks())) < whole.nbytes // 2
    assert (joined.read() == whole).all()
