"""TensorFlow reads the checkpoints that we write, and writes the same bytes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, all_cases

from graph_restore.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_state
from graph_restore.errors import GraphRestoreWarning
from graph_restore.slices import TensorSlice, join
from graph_restore.tensors import ArrayTensor, LazyTensor, lazy

pytestmark = pytest.mark.tensorflow

NOT_IN_V1 = {"DT_BFLOAT16", "DT_QINT16", "DT_QUINT16", "DT_UINT32", "DT_UINT64"}
QUANTISED = {"qint8": np.int8, "quint8": np.uint8, "qint32": np.int32, "qint16": np.int16, "quint16": np.uint16}


def load(path: str | Path) -> Checkpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphRestoreWarning)
        return load_checkpoint(path)


def restored(prefix: str, key: str, number: int, spec: str = "") -> Any:
    """What TensorFlow's own op gives, quantised types as plain integers."""
    import tensorflow as tf

    dtype = tf.dtypes.as_dtype(number)
    name = key.encode("utf-8", "surrogateescape")
    (value,) = tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=[name], shape_and_slices=[spec], dtypes=[dtype])
    array = np.asarray(value.numpy(), object) if dtype == tf.string else value.numpy()
    return np.ascontiguousarray(array).view(QUANTISED[dtype.name]) if dtype.name in QUANTISED else array


def assert_same(found: Any, expected: Any) -> None:
    if expected.dtype == object:
        assert found.tolist() == expected.tolist()
    else:
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_the_op_restores_what_the_writer_had(one: Case, version: int, tmp_path: Path) -> None:
    """The oracle is the session of the TensorFlow that wrote the original."""
    source = load(one.prefix)
    expected = one.oracle["checkpoint"].get("", {})
    kept = {name: source[name] for name in source if version == 2 or source[name].data_type.name not in NOT_IN_V1}
    saved = save_checkpoint(tmp_path / "m", kept, version=version, shards=2, keep_slices=version == 1)
    for name, tensor in kept.items():
        assert_same(restored(saved, name, tensor.data_type), expected.get(name, tensor.read()))


@pytest.mark.parametrize("identity", ["dtypes", "partitioned", "scalars_and_empty", "odd_names", "linear"])
def test_the_reader_gives_the_same(identity: str, tmp_path: Path) -> None:
    import tensorflow as tf

    for one in all_cases():
        if one.model == identity:
            target = tmp_path / one.directory.name
            saved = save_checkpoint(target / "m", load(one.prefix), keep_slices=True, shard_bytes=100)
            reader = tf.train.load_checkpoint(saved)
            expected = one.oracle["checkpoint"][""]
            assert {name for name, _ in tf.train.list_variables(saved)} == set(expected)
            for name, value in expected.items():
                found = reader.get_tensor(name)
                assert_same(np.asarray(found, value.dtype) if value.dtype == object else np.asarray(found), value)


def test_every_type_of_v2(tmp_path: Path) -> None:
    import tensorflow as tf

    numbers = np.array([[0, 1, 2], [3, 4, 5]])
    names = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128"
    names += " bfloat16 float8_e5m2 float8_e4m3fn int4 uint4"
    arrays = {name: numbers.astype(tf.dtypes.as_dtype(name).as_numpy_dtype) for name in names.split()}
    tensors: dict[str, Any] = dict(arrays)
    for name, dtype in QUANTISED.items():
        arrays[name] = numbers.astype(dtype)
        tensors[name] = ArrayTensor(name, arrays[name], tf.dtypes.as_dtype(name).as_datatype_enum)
    saved = save_checkpoint(tmp_path / "m", tensors)
    for name, array in arrays.items():
        assert_same(restored(saved, name, tf.dtypes.as_dtype(name).as_datatype_enum), array)


def many() -> dict[str, Any]:
    """Tensors past the size of a block, in every way that matters to one."""
    rng = np.random.default_rng(5)
    tensors: dict[str, Any] = {f"{rng.integers(1 << 60):x}" * 9: np.float32([n]) for n in range(2500)}
    tensors["large"] = rng.random(700_000, np.float32)
    tensors["middle"] = rng.random(30_000, np.float32)
    tensors["numbers"] = rng.integers(-(2**62), 2**62, 50_000) >> rng.integers(0, 62, 50_000)
    tensors["small numbers"] = rng.integers(-128, 128, (200, 300)).astype(np.int8)
    tensors["nothing"] = np.zeros((2, 0), np.int32)
    tensors["no text"] = np.zeros((0,), object)
    tensors["text"] = np.array([b"x" * (number % 300) for number in range(3000)], object)
    return dict(sorted(tensors.items()))


def rows() -> tuple[LazyTensor, list[tuple[str, Any]]]:
    """A partitioned tensor, and the same as the `shape_and_slices` and values of a save op."""
    whole = np.arange(40, dtype=np.int64).reshape(10, 4)
    boxes = [TensorSlice((10, 4), (0, 0), (3, 4)), TensorSlice((10, 4), (3, 0), (7, 4))]
    parts = [("10 4 0,3:0,4", whole[:3]), ("10 4 3,7:0,4", whole[3:])]
    return join("rows", 9, (10, 4), [(box, lazy("rows", whole[box.index])) for box in boxes]), parts


def save_with_tensorflow(path: Path, version: int) -> None:
    import tensorflow as tf

    named = [(name, "", value) for name, value in many().items()]
    named += [("rows", spec, value) for spec, value in rows()[1]]
    names, specs, values = zip(*sorted(named, key=lambda one: one[0]))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        data = [tf.constant(value, tf.string if value.dtype == object else None) for value in values]
        if version == 1:
            op = tf.raw_ops.SaveSlices(filename=str(path), tensor_names=names, shapes_and_slices=specs, data=data)
        else:
            op = tf.raw_ops.SaveV2(prefix=str(path), tensor_names=names, shape_and_slices=specs, tensors=data)
        session.run(op)


@pytest.mark.parametrize("version", [1, 2])
def test_the_bytes_are_tensorflows(tmp_path: Path, version: int) -> None:
    (tmp_path / "theirs").mkdir()
    save_with_tensorflow(tmp_path / "theirs" / "m", version)
    save_checkpoint(tmp_path / "ours" / "m", {**many(), "rows": rows()[0]}, version=version, keep_slices=True)
    save_checkpoint(tmp_path / "again" / "m", load(tmp_path / "theirs" / "m"), version=version, keep_slices=True)
    theirs = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    assert len(theirs) == version
    for directory in ("ours", "again"):
        assert {path.name: path.read_bytes() for path in (tmp_path / directory).iterdir()} == theirs


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("keep_slices", [False, True])
def test_slices_restore_in_any_cut(tmp_path: Path, version: int, keep_slices: bool) -> None:
    whole, _ = rows()
    saved = save_checkpoint(tmp_path / "m", {"rows": whole}, version=version, keep_slices=keep_slices, shards=2)
    values = np.arange(40, dtype=np.int64).reshape(10, 4)
    assert_same(restored(saved, "rows", 9), values)
    assert_same(restored(saved, "rows", 9, "10 4 3,7:-"), values[3:])
    assert_same(restored(saved, "rows", 9, "10 4 2,4:1,2"), values[2:6, 1:3])


@pytest.mark.parametrize("version", [1, 2])
def test_a_saver_restores(tmp_path: Path, version: int) -> None:
    import tensorflow as tf

    tensors = {"v": np.arange(6, dtype=np.float32).reshape(2, 3), "p": rows()[0], "n": np.int64(7)}
    saved = save_checkpoint(tmp_path / "model.ckpt", tensors, version=version, shards=2, state=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        v = tf.compat.v1.get_variable("v", [2, 3], use_resource=False)
        n = tf.compat.v1.get_variable("n", [], tf.int64, initializer=tf.compat.v1.zeros_initializer())
        partitioner = tf.compat.v1.fixed_size_partitioner(2)
        p = tf.compat.v1.get_variable(
            "p", [10, 4], tf.int64, initializer=tf.compat.v1.zeros_initializer(), partitioner=partitioner
        )
        saver = tf.compat.v1.train.Saver()
        assert tf.train.latest_checkpoint(str(tmp_path)) == saved
        saver.restore(session, saved)
        assert session.run(v).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert session.run(tf.convert_to_tensor(p)).tolist() == np.arange(40).reshape(10, 4).tolist()
        assert session.run(n) == 7


@pytest.mark.parametrize("op", ["Restore", "RestoreSlice"])
def test_the_first_restore_ops(tmp_path: Path, op: str) -> None:
    """Those of graphs older than any RestoreV2."""
    import tensorflow as tf

    saved = save_checkpoint(tmp_path / "m", {"w": np.arange(5.0)}, version=1)
    more = {"shape_and_slice": "5 1,3"} if op == "RestoreSlice" else {}
    found = getattr(tf.raw_ops, op)(file_pattern=saved, tensor_name="w", dt=tf.float64, **more)
    assert found.numpy().tolist() == ([1, 2, 3] if more else [0, 1, 2, 3, 4])


def test_empty_checkpoints(tmp_path: Path) -> None:
    import tensorflow as tf

    for version in (1, 2):
        saved = save_checkpoint(tmp_path / str(version), {}, version=version, shards=2)
        assert tf.compat.v1.train.NewCheckpointReader(saved).get_variable_to_shape_map() == {}


def test_state_file(tmp_path: Path) -> None:
    import tensorflow as tf

    names = ["m-1", 'odd "\u00e9\\\n', "m-3"]
    for name in names:
        save_checkpoint(tmp_path / name, {"a": 1.0})
    write_state(tmp_path, tmp_path / names[-1], [tmp_path / name for name in names])
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert state.model_checkpoint_path == str(tmp_path / "m-3") == tf.train.latest_checkpoint(str(tmp_path))
    assert list(state.all_model_checkpoint_paths) == [str(tmp_path / name) for name in names]
