"""Checkpoints as TensorFlow reads and writes them today."""

from __future__ import annotations

import io
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, all_cases, case
from tables import block, entry, field, table, varint

from graph_restore.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from graph_restore.errors import GraphRestoreWarning
from graph_restore.storage.source import FileSource
from graph_restore.storage.table import Table, TableWriter

pytestmark = pytest.mark.tensorflow


def same(found: Any, expected: Any) -> bool:
    expected = np.asarray(expected, object) if isinstance(expected, bytes) else np.asarray(expected)
    if found.dtype == object:
        return bool(found.tolist() == expected.tolist())
    return bool(found.shape == expected.shape and found.tobytes() == expected.tobytes())


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_tensorflow_reads_the_same(one: Case) -> None:
    import tensorflow as tf

    for prefix in {**one.prefixes, **one.other_prefixes}.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GraphRestoreWarning)
            checkpoint = load_checkpoint(prefix)
        reader = tf.compat.v1.train.NewCheckpointReader(checkpoint.prefix)
        shapes = reader.get_variable_to_shape_map()
        assert list(checkpoint) == sorted(shapes)
        assert {name: list(tensor.shape) for name, tensor in checkpoint.items()} == shapes
        for name, dtype in reader.get_variable_to_dtype_map().items():
            assert checkpoint[name].data_type == dtype.as_datatype_enum
            try:
                expected = reader.get_tensor(name)
            except Exception:  # V1 slices and seven of its types; the corpus has their values
                assert checkpoint.version == 1
                continue
            assert same(checkpoint[name].read(), expected), name


def save_v1(path: Path, tensors: dict[str, Any], specs: dict[str, str] | None = None) -> Checkpoint:
    import tensorflow as tf

    names = list(tensors)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        values = [tf.constant(tensors[name]) for name in names]
        slices = [(specs or {}).get(name, "") for name in names]
        keys = [name.split("#")[0] for name in names]
        session.run(tf.raw_ops.SaveSlices(filename=str(path), tensor_names=keys, shapes_and_slices=slices, data=values))
    return load_checkpoint(path)


def save_v2(prefix: Path, tensors: dict[str, Any], specs: dict[str, str] | None = None) -> Checkpoint:
    import tensorflow as tf

    names = list(tensors)
    slices = [(specs or {}).get(name, "") for name in names]
    keys = [name.split("#")[0] for name in names]
    values = [tensors[name] for name in names]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=keys, shape_and_slices=slices, tensors=values)
    return load_checkpoint(prefix)


def test_several_blocks(tmp_path: Path) -> None:
    """A V2 index past the size of one block, and a V1 table of many, one of them large."""
    names = [f"{number * 2654435761 % 2**32:08x}" * 20 for number in range(2000)]  # names that share little
    tensors = {name: np.array([number, number], np.float32) for number, name in enumerate(names)}
    tensors["large"] = np.arange(700_000, dtype=np.float32)
    found = save_v2(tmp_path / "two", tensors)
    assert len(Table(FileSource(tmp_path / "two.index"))._handles) > 1
    assert list(found) == sorted(tensors)
    assert all(same(found[name].read(), tensors[name]) for name in tensors)
    one = save_v1(tmp_path / "one", tensors)
    assert len(Table(FileSource(tmp_path / "one"))._handles) > 2
    assert list(one) == sorted(tensors)
    assert all(same(one[name].read(), tensors[name]) for name in tensors)


def test_every_type_of_v2(tmp_path: Path) -> None:
    import tensorflow as tf

    numbers = np.array([[0, 1, 2], [3, 4, 5]])
    plain = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    others = ["bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4", "complex64", "complex128", "bool"]
    arrays = {name: numbers.astype(tf.dtypes.as_dtype(name).as_numpy_dtype) for name in plain + others}
    found = save_v2(tmp_path / "m", arrays)
    for name, array in arrays.items():
        assert found[name].data_type == tf.dtypes.as_dtype(name).as_datatype_enum
        assert found[name].read().dtype == array.dtype
        assert same(found[name].read(), array), name


def test_strings(tmp_path: Path) -> None:
    tensors = {
        "scalar": np.array(b"text", object),
        "empty text": np.array(b"", object),
        "many": np.array([b"x" * (number % 300) for number in range(5000)], object),
        "grid": np.array([[b"\x00", b"\xff\xfe"], [b"", "\u00e9".encode()]], object),
        "none": np.zeros((0, 3), object),
    }
    for found in (save_v1(tmp_path / "one", tensors), save_v2(tmp_path / "two", tensors)):
        for name, value in tensors.items():
            assert found[name].shape == value.shape
            assert found[name].read().tolist() == value.tolist()


@pytest.mark.parametrize("save", [save_v1, save_v2])
def test_slices(tmp_path: Path, save: Any) -> None:
    rows = np.arange(40, dtype=np.int64).reshape(10, 4)
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensors = {"rows": rows[:3], "rows#2": rows[3:], "cube": cube[:, :1], "cube#2": cube[:, 1:], "part": rows[:3]}
    specs = {
        "rows": "10 4 0,3:-",
        "rows#2": "10 4 3,7:0,4",
        "cube": "2 3 4 -:0,1:-",
        "cube#2": "2 3 4 -:1,2:-",
        "part": "10 4 0,3:-",
    }
    found = save(tmp_path / "m", tensors, specs)
    assert list(found) == ["cube", "part", "rows"]
    assert same(found["rows"].read(), rows)
    assert same(found["cube"].read(), cube)
    assert found["part"].shape == (10, 4)
    ((box, part),) = found.slices("part")
    assert (box.starts, box.lengths) == ((0, 0), (3, 4))
    assert same(part.read(), rows[:3])


@pytest.mark.parametrize("identity", ["dtypes/tf1.15.5-v2", "partitioned/tf0.12.1-v2", "sharded/tf1.4.1-v2"])
def test_tensorflow_reads_a_rewritten_index(tmp_path: Path, identity: str) -> None:
    import tensorflow as tf

    prefix = Path(case(identity).prefix)
    for path in prefix.parent.glob(prefix.name + ".*"):
        shutil.copyfile(path, tmp_path / path.name)
    file = io.BytesIO()
    writer = TableWriter(file, block_size=60)
    for key, value in Table(FileSource(f"{prefix}.index")).entries():
        assert isinstance(value, bytes)
        writer.add(key, value)
    writer.finish()
    target = tmp_path / f"{prefix.name}.index"
    assert target.read_bytes() != file.getvalue()
    target.write_bytes(file.getvalue())
    theirs, ours = tf.train.load_checkpoint(str(tmp_path / prefix.name)), load_checkpoint(prefix)
    assert sorted(theirs.get_variable_to_shape_map()) == list(ours)
    assert all(same(ours[name].read(), theirs.get_tensor(name)) for name in ours)


def test_tensorflow_reads_the_same_packed_index(tmp_path: Path) -> None:
    """The wheels never pack, but they unpack; one literal and one copy."""
    import tensorflow as tf

    data = struct.pack("<f", 2.5)
    names = [b"aaaaaaaaaaaaaaaaaaaa", b"b"]
    entries = [(b"", field(1, 1) + field(3, field(1, 1))), *((name, entry(1, [], data)) for name in names)]
    content = block(entries)
    start = content.index(names[0]) + 1
    literal = content[start + 19 :]
    head = content[:start]
    packed = varint(len(content)) + bytes([(len(head) - 1) << 2]) + head + bytes([(19 - 1) << 2 | 2, 1, 0])
    packed += bytes([60 << 2, len(literal) - 1]) + literal
    (tmp_path / "m.index").write_bytes(table([(b"b", packed)], kind=1))
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    theirs, ours = tf.train.load_checkpoint(str(tmp_path / "m")), load_checkpoint(tmp_path / "m")
    assert sorted(theirs.get_variable_to_shape_map()) == list(ours) == [name.decode() for name in names]
    assert all(same(ours[name].read(), theirs.get_tensor(name)) for name in ours)


def test_latest_checkpoint_is_tensorflows(tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("v", [2])
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        absolute = tf.compat.v1.train.Saver()
        session.run(variable.initializer)
        for step in (5, 40, 7):
            saver.save(session, str(tmp_path / "relative" / "model.ckpt"), global_step=step)
            absolute.save(session, str(tmp_path / "absolute" / "model.ckpt"), global_step=step)
    for name in ("relative", "absolute"):
        directory = str(tmp_path / name)
        assert latest_checkpoint(directory) == tf.train.latest_checkpoint(directory)
        assert load_checkpoint(directory).prefix == str(tmp_path / name / "model.ckpt-7")
