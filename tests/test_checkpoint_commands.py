"""What is done with checkpoints: listing, comparing, converting, editing, verifying, repairing paths.

Expected values are the corpus's oracles, numpy's own readers, or bytes written by hand from a format.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import struct
import tracemalloc
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from corpus import Arrays, Case, all_cases, case

from graph_restore.checkpoint import (
    apply_relocation,
    compare,
    convert,
    edit,
    find_relocation,
    latest_checkpoint,
    list_tensors,
    load_checkpoint,
    load_tensors,
    read_part,
    save_checkpoint,
    verify_checkpoint,
    write_tensors,
)
from graph_restore.checkpoint.npy import file_name
from graph_restore.checkpoint.objects import object_graph
from graph_restore.dtypes import DataType, from_numpy
from graph_restore.errors import (
    CheckpointNotFoundError,
    CorruptionError,
    FormatError,
    GraphRestoreError,
    GraphRestoreWarning,
    TensorNotFoundError,
    UnsupportedFormatError,
)
from graph_restore.slices import JoinedTensor, TensorSlice
from graph_restore.tensors import ArrayTensor, LazyTensor, lazy

MLP = case("mlp/tf1.4.1-v2")
PARTITIONED = case("partitioned/tf1.15.5-v1")
ONE_OF_EACH = [
    case(f"{name}/tf1.15.5-v2") for name in ("dtypes", "scalars_and_empty", "partitioned", "wide_table", "mlp")
]
ONE_OF_EACH += [case("dtypes/tf0.12.1-v1"), case("raw_dtypes/tf1.15.5-v2"), case("sharded/tf0.12.1-v1")]
pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.errors.GraphRestoreWarning")


def stored(one: Case) -> Iterator[tuple[str, Arrays]]:
    """(prefix, values) of the checkpoints of a case, but for V1 files hidden by a V2 checkpoint."""
    known = set(one.prefixes.values())
    for tag, prefix in {**one.other_prefixes, **one.prefixes}.items():
        if tag in one.prefixes or prefix not in known:
            yield prefix, one.oracle["checkpoint"][tag]


def held(values: Mapping[str, Any]) -> dict[str, LazyTensor]:
    return {name: lazy(name, value) for name, value in values.items()}


def of_types(values: Arrays, like: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Oracle values as tensors; arrays do not tell quantised types, so these are taken from `like`."""
    quantised = {name for name, tensor in like.items() if tensor.data_type.name.startswith(("DT_Q",))}
    return {
        name: ArrayTensor(name, value, like[name].data_type) if name in quantised else lazy(name, value)
        for name, value in values.items()
    }


def same_values(found: Any, expected: Any) -> bool:
    if expected.dtype == object:
        return bool(found.shape == expected.shape and found.tolist() == expected.tolist())
    return bool(
        (found.shape, found.dtype) == (expected.shape, expected.dtype) and found.tobytes() == expected.tobytes()
    )


# listing


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_listed_facts_and_statistics(one: Case) -> None:
    for prefix, values in stored(one):
        listed = {found.name: found for found in list_tensors(load_checkpoint(prefix), stats=True)}
        assert values.keys() <= listed.keys()
        for name, value in values.items():
            found = listed[name]
            assert (found.shape, found.size) == (value.shape, value.size)
            if value.dtype == object:
                assert found.statistics is None and found.nbytes == sum(map(len, value.ravel()))
                continue
            assert found.nbytes == value.nbytes and found.statistics is not None
            if value.dtype.kind == "c":
                assert found.statistics.minimum is None and found.statistics.zeros == np.count_nonzero(value == 0)
                continue
            plain = value.astype(np.float64)
            sound = plain[~np.isnan(plain)]
            assert found.statistics.nan == value.size - sound.size
            assert found.statistics.zeros == np.count_nonzero(sound == 0)
            assert found.statistics.infinite == np.count_nonzero(np.isinf(sound))
            if sound.size:
                assert float(found.statistics.minimum or 0) == sound.min()
                assert float(found.statistics.maximum or 0) == sound.max()
                np.testing.assert_allclose(found.statistics.mean, sound.mean(), rtol=1e-9, atol=1e-12)


def test_slots_and_averages_are_those_the_optimizer_made() -> None:
    seen = set()
    for one in all_cases():
        keys = {part["variable"]: key for key, about in one.facts["savers"].get("", {"keys": {}})["keys"].items()
                for part in about["parts"]}  # fmt: skip
        roles = {found.name: found.role for found in list_tensors(load_checkpoint(one.prefix))}
        for variable, facts in one.facts["variables"].items():
            key = keys.get(variable)
            if key is None or one.id.startswith("both_versions"):
                continue
            kind = "slot" if "slot" in facts else "moving average" if "moving_average_of" in facts else None
            if kind is None and key.endswith("/ExponentialMovingAverage"):
                continue  # of a tensor that is no variable, which names alone do not tell
            assert (roles[key].kind == kind) if kind else (roles[key].kind in ("variable", "optimizer")), (one.id, key)
            if kind:
                of = facts["slot"]["of"] if "slot" in facts else facts["moving_average_of"]
                assert roles[key].of == keys[of]
            seen.add(kind)
    assert seen == {"slot", "moving average", None}


ROLES = {
    "OptimizeLoss/w/Adam_1": ("slot", "w"),
    "training/Adam/w/m": ("slot", "w"),
    "w/RMSProp": ("slot", "w"),
    "w/gen_adam": ("slot", "w"),
    "Adam/learning_rate": ("optimizer", None),
    "train/beta1_power_1": ("optimizer", None),
    "moving/w/ExponentialMovingAverage": ("moving average", "w"),
    "net/w/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE": ("slot", "net/w"),
    "net/w/.ATTRIBUTES/VARIABLE_VALUE": ("variable", None),
    "train/w/.OPTIMIZER_SLOT/train/adam/v/.ATTRIBUTES/VARIABLE_VALUE": ("slot", "train/w"),
    "train/adam/beta_1/.ATTRIBUTES/VARIABLE_VALUE": ("optimizer", None),
    "optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE": ("optimizer", None),
    "optimizer/_variables/3/.ATTRIBUTES/VARIABLE_VALUE": ("optimizer", None),
    "optimizer/network/.ATTRIBUTES/VARIABLE_VALUE": ("variable", None),
    "_CHECKPOINTABLE_OBJECT_GRAPH": ("object graph", None),
    "w/Shampoo_2": ("slot", "w"),
    "training/Nadam/momentum_cache": ("optimizer", None),
    "w/m": ("variable", None),
    "momentum/w": ("variable", None),
    "bn/moving_mean": ("variable", None),
    "v/Adam": ("variable", None),  # no tensor is named v
    "w": ("variable", None),
}


@pytest.mark.parametrize(("name", "role"), ROLES.items())
def test_roles_by_name(name: str, role: tuple[str, str | None]) -> None:
    (found,) = [one.role for one in list_tensors(held(dict.fromkeys(ROLES, 0.0))) if one.name == name]
    assert (found.kind, found.of) == role


def test_patterns_take_slashes_and_brackets_of_names() -> None:
    tensors = held({"a/b/c": 1.0, "a[0]": 2.0, "b": 3.0})
    assert [one.name for one in list_tensors(tensors, "a*c")] == ["a/b/c"]
    assert [one.name for one in list_tensors(tensors, "a[0]")] == ["a[0]"]
    with pytest.raises(TensorNotFoundError, match="near names: a/b/c"):
        list(list_tensors(tensors, "a/b/d"))


# parts

PARTS = ["[2]", "[-1]", "[1:3]", "[:]", "[::2]", "[::-1]", "[5:1:-2]", "[7:7]", "[-3:,1]", "[2,:3]", "[2,-1]",
         "[...]", "[...,0]", "[1,...]", "[:2,...,::2]", "[1 : 3, 0]"]  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("key", ["embedding/table", "projection/columns", "strings"])
def test_parts_are_what_numpy_gives(key: str, part: str) -> None:
    value = (PARTITIONED.oracle["checkpoint"][""] | {"strings": np.array([[b"a", b""], [b"c", b"d"]] * 4, object)})[key]
    tensors = {**load_checkpoint(PARTITIONED.prefix), "strings": lazy("strings", value)}
    expected = np.asarray(eval(f"value{part}"), value.dtype)
    assert same_values(read_part(tensors, key + part).read(), expected)


OBJECT_NAMES = ["layers/first/w", "layers/first/w/.ATTRIBUTES/VARIABLE_VALUE", "net/w", "net/w:0"]


@pytest.mark.parametrize("name", OBJECT_NAMES)
def test_objects_are_found_by_path_attribute_and_full_name(name: str) -> None:
    checkpoint = load_checkpoint(case("object_checkpoint/tf1.15.5-v2").other_prefixes["objects"])
    key = "layers/first/w/.ATTRIBUTES/VARIABLE_VALUE"
    assert [one.name for one in list_tensors(checkpoint, name)] == [key]
    assert read_part(checkpoint, f"{name}[1:,0]").read().tolist() == checkpoint[key].read()[1:, 0].tolist()


@pytest.mark.tensorflow
def test_a_full_name_of_two_variables_is_refused_with_their_keys(tmp_path: Path) -> None:
    import tensorflow as tf

    first, second = tf.Variable([1.0], name="v"), tf.Variable([2.0], name="v")
    checkpoint = load_checkpoint(tf.train.Checkpoint(a=first, b=second).write(str(tmp_path / "m")))
    assert (checkpoint["a"].read().tolist(), checkpoint["b"].read().tolist()) == ([1.0], [2.0])
    keys = "a/.ATTRIBUTES/VARIABLE_VALUE, b/.ATTRIBUTES/VARIABLE_VALUE"
    with pytest.raises(TensorNotFoundError, match=f"2 variables have that full name, take one by its key: {keys}"):
        read_part(checkpoint, "v")


@pytest.mark.parametrize("change", [{"cast": "int8"}, {"prefer": "both", "merge": [{}]}])
def test_edits_there_are_none_of(change: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match="prefer is 'first' or 'last', cast one of float16, bfloat16, float32, float64"
    ):
        edit(load_checkpoint(case("linear/tf1.4.1-v2").prefix), **change)


def test_a_name_with_brackets_is_a_name_first() -> None:
    tensors = held({"a[0]": np.arange(3), "a": np.arange(5)})
    assert read_part(tensors, "a[0]").shape == (3,)
    assert read_part(tensors, "a[0][1:]").read().tolist() == [1, 2]


WRONG_PARTS = {
    "aa": "no tensor 'aa'; near names: a",
    "aa[0]": "no tensor 'aa'; near names: a",
    "a[x]": "no index",
    "a[]": "no index",
    "a[...,...]": "no index",
    "a[4]": "4 is outside the shape [4, 2]",
    "a[0,-3]": "-3 is outside the shape [4, 2]",
    "a[0,0,0]": "3 indices, but the shape is [4, 2]",
    "a[::0]": "a step of 0",
}


@pytest.mark.parametrize(("part", "words"), WRONG_PARTS.items())
def test_wrong_parts(part: str, words: str) -> None:
    with pytest.raises(GraphRestoreError) as caught:
        read_part(held({"a": np.zeros((4, 2))}), part)
    assert words in str(caught.value)


# comparing


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_a_checkpoint_equals_its_oracle_and_nothing_else(one: Case) -> None:
    for prefix, values in stored(one):
        checkpoint = {name: tensor for name, tensor in load_checkpoint(prefix).items() if name in values}
        expected = of_types(values, checkpoint)
        assert compare(checkpoint, expected).none and compare(expected, checkpoint).equal == len(values)
        key = next((name for name, value in values.items() if value.size), None)
        if key is not None:
            other = values[key].copy()
            other.reshape(-1)[-1] = b"?" if other.dtype == object else ~other.reshape(-1).view(np.uint8)[-1]
            (changed,) = compare(checkpoint, expected | of_types({key: other}, checkpoint)).changed
            assert (changed.name, changed.kind, changed.differing) == (key, "values", 1)


STRANGERS = {
    "dtype": ("b", "dtype", "float32", "float64"),
    "shape": ("w", "shape", "[3, 2]", "[3, 5]"),
    "reshaped": ("w", "shape", "[3, 2]", "[2, 3]"),
}


@pytest.mark.parametrize("tag", STRANGERS)
def test_dtypes_and_shapes_come_before_values(tag: str) -> None:
    stranger = case("mismatch/tf1.4.1-v2")
    found = compare(load_checkpoint(stranger.prefix), load_checkpoint(stranger.other_prefixes[tag]))
    assert STRANGERS[tag] in [(one.name, one.kind, one.first, one.second) for one in found.changed]


def test_names_that_only_one_has() -> None:
    stranger = case("mismatch/tf1.4.1-v2")
    extra, missing = stranger.other_prefixes["extra"], stranger.other_prefixes["missing"]
    found = compare(load_checkpoint(extra), load_checkpoint(missing))
    assert (found.only_first, found.only_second) == (["b", "momentum"], [])


NAN, OTHER_NAN = np.array([0x7FC00000, 0x7FC00001], "<u4").view("<f4")
VALUES: dict[str, tuple[Any, Any, dict[str, float], int, Any]] = {
    "equal NaNs": (np.float32([NAN]), np.float32([NAN]), {}, 0, None),
    "other NaN": (np.array([NAN]), np.array([OTHER_NAN]), {}, 1, None),
    "other NaN, tolerant": (np.array([NAN]), np.array([OTHER_NAN]), {"atol": 1.0}, 0, None),
    "NaN and number": (np.float32([NAN, 1]), np.float32([1, 3]), {}, 2, 2.0),
    "NaN and number, tolerant": (np.float32([NAN, 1]), np.float32([1, 3]), {"atol": 9.0}, 1, None),
    "infinity and number, tolerant": (np.float32([1]), np.float32([np.inf]), {"rtol": 0.1}, 1, np.inf),
    "negative zero": (np.float32([0.0]), np.float32([-0.0]), {}, 1, 0.0),
    "negative zero, tolerant": (np.float32([0.0]), np.float32([-0.0]), {"atol": 1e-9}, 0, None),
    "far": (np.float64([1, 2, 3]), np.float64([1, 2.5, 3]), {}, 1, 0.5),
    "within rtol": (np.float64([100.0]), np.float64([101.0]), {"rtol": 0.01}, 0, None),
    "outside rtol": (np.float64([100.0]), np.float64([101.5]), {"rtol": 0.01}, 1, 1.5),
    "infinities": (np.float32([np.inf]), np.float32([-np.inf]), {"atol": 1.0, "rtol": 0.0}, 1, np.inf),
    "int64 extremes": (np.int64([-(2**63)]), np.int64([2**63 - 1]), {}, 1, 2**64 - 1),
    "uint8": (np.uint8([3, 250]), np.uint8([5, 0]), {"atol": 2.0}, 1, 250),
    "bool": (np.array([True, False]), np.array([True, True]), {}, 1, 1.0),
    "complex": (np.complex64([3 + 4j]), np.complex64([0]), {}, 1, 5.0),
    "complex128": (np.complex128([1, 3 + 4j]), np.complex128([1, 3 + 1j]), {}, 1, 3.0),
    "bfloat16": (np.array([1, 2], ml_dtypes.bfloat16), np.array([1, 4], ml_dtypes.bfloat16), {}, 1, 2.0),
    "strings": (np.array([b"a", b"b"], object), np.array([b"a", b"b\0"], object), {"atol": 1.0}, 1, None),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_differ(name: str) -> None:
    first, second, tolerance, differing, greatest = VALUES[name]
    found = compare(held({"x": first}), held({"x": second}), **tolerance)
    assert found.none is (differing == 0)
    if differing:
        assert (found.changed[0].differing, found.changed[0].max_difference) == (differing, greatest)
        json.loads(json.dumps(found.to_dict(), allow_nan=False))


def sliced(value: Any, rows: int) -> LazyTensor:
    """A tensor that lies in two slices, cut after so many rows."""
    boxes = [TensorSlice(value.shape, (start, 0), (count, value.shape[1])) for start, count in
             ((0, rows), (rows, len(value) - rows))]  # fmt: skip
    return JoinedTensor(
        "x", from_numpy(value.dtype), value.shape, [(box, lazy("x", value[box.index])) for box in boxes]
    )


def test_slices_do_not_count() -> None:
    value = np.arange(12.0).reshape(4, 3)
    assert compare({"x": sliced(value, 1)}, {"x": sliced(value, 3)}).none
    assert compare({"x": sliced(value, 1)}, held({"x": value + 1})).changed[0].differing == 12


def test_partial_tensors_are_compared_by_slice(tmp_path: Path) -> None:
    from graph_restore.checkpoint.partial import OpaqueTensor, PartialTensor

    box, other = TensorSlice((4,), (0,), (2,)), TensorSlice((4,), (2,), (2,))
    part = PartialTensor("x", 1, (4,), [(box, lazy("x", np.ones(2, np.float32)))])
    changed = PartialTensor("x", 1, (4,), [(box, lazy("x", np.zeros(2, np.float32)))])
    elsewhere = PartialTensor("x", 1, (4,), [(other, lazy("x", np.ones(2, np.float32)))])
    assert compare({"x": part}, {"x": part}).none
    assert compare({"x": part}, {"x": changed}).changed[0].kind == "values"
    assert compare({"x": part}, {"x": elsewhere}).changed[0].kind == "incomparable"
    variant = OpaqueTensor("x", DataType.DT_VARIANT, ())
    assert compare({"x": variant}, {"x": variant}).changed[0].kind == "incomparable"


# converting


def as_numpy_has_it(value: Any) -> Any:
    if value.dtype == object:
        return value
    return value.astype(np.float32) if value.dtype == ml_dtypes.bfloat16 else value


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_npz_and_npy_are_what_numpy_reads(one: Case, tmp_path: Path) -> None:
    for prefix, values in stored(one):
        tensors = {name: tensor for name, tensor in load_checkpoint(prefix).items() if name in values}
        write_tensors(tensors, tmp_path / "all.npz", overwrite=True)
        write_tensors(tensors, f"{tmp_path}/{len(os.listdir(tmp_path))}/")
        folder = max(path for path in tmp_path.iterdir() if path.is_dir())
        with np.load(tmp_path / "all.npz", allow_pickle=False) as archive:
            assert sorted(archive.files) == sorted(values)
            for name, value in values.items():
                for found in (archive[name], np.load(folder / file_name(name), allow_pickle=False)):
                    found = found.astype(object) if found.dtype.kind == "S" else found
                    assert same_values(found, as_numpy_has_it(value)), name
        for written in (tmp_path / "all.npz", folder):
            back = load_tensors(written)
            assert compare(back, held({name: as_numpy_has_it(value) for name, value in values.items()})).none


def decode_safetensors(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Name to dtype, shape and bytes, after the description of the format."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    assert data[8 : 8 + length].startswith(b"{") and length % 8 == 0
    header, content = json.loads(data[8 : 8 + length]), data[8 + length :]
    return {
        name: (facts["dtype"], facts["shape"], content[slice(*facts["data_offsets"])]) for name, facts in header.items()
    }


NAMES = {
    "float32": "F32",
    "float64": "F64",
    "float16": "F16",
    "bfloat16": "BF16",
    "bool": "BOOL",
    "complex64": "C64",
    **{f"{sign}int{bits}": f"{'U' if sign else 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_safetensors_hold_the_bytes(one: Case, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    for prefix, values in stored(one):
        wanted = {name: value for name, value in values.items() if value.dtype not in (object, np.complex128)}
        tensors = {name: tensor for name, tensor in load_checkpoint(prefix).items() if name in wanted}
        write_tensors(tensors, output, overwrite=True)
        found = decode_safetensors(output)
        assert found == {
            name: (NAMES[value.dtype.name], list(value.shape), value.tobytes()) for name, value in wanted.items()
        }
        assert compare(load_tensors(output), held(wanted)).none


SAFETENSORS = (  # as the format's own library (0.8.0) writes these three
    b'\xa8\x00\x00\x00\x00\x00\x00\x00{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"e":{"dtype":"F32","shape":'
    b'[0,2],"data_offsets":[8,8]},"b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]}}      '
    b"\x00\x00\x80?\x00\x00\x80?\x00\x00\x00"
)


def test_safetensors_bytes(tmp_path: Path) -> None:
    values = {"b": np.zeros(3, np.int8), "a": np.ones(2, np.float32), "e": np.zeros((0, 2), np.float32)}
    write_tensors(held(values), tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == SAFETENSORS
    assert compare(load_tensors(tmp_path / "out.safetensors"), held(values)).none


def headed(header: object, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def tensor_entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}


BAD_SAFETENSORS = {
    "empty": (b"", "ends too early"),
    "header past the file": (struct.pack("<Q", 1 << 40) + b"{}", "longer than the file"),
    "no JSON": (headed(b"{'a'"), "no JSON"),
    "no UTF-8": (headed(b'{"\xff": 1}'), "no JSON"),
    "deep": (headed(b"[" * 100000), "no JSON"),
    "no object": (headed([1]), "no JSON object"),
    "twice": (headed(b'{"a": 1, "a": 2}'), "occurs twice"),
    "no entry": (headed({"a": 3}), "'a' is none"),
    "negative": (headed({"a": tensor_entry(shape=[-1])}), "'a' is none"),
    "boolean": (headed({"a": tensor_entry(shape=[True])}, b"1234"), "'a' is none"),
    "three offsets": (headed({"a": tensor_entry(data_offsets=[0, 4, 8])}), "'a' is none"),
    "unknown type": (headed({"a": tensor_entry(dtype="F4")}, b"1234"), "F4"),
    "gap": (headed({"a": tensor_entry(data_offsets=[4, 8])}, b"12345678"), "does not follow"),
    "overlap": (headed({"a": tensor_entry(), "b": tensor_entry()}, b"1234"), "does not follow"),
    "past the end": (headed({"a": tensor_entry()}, b"12"), "cover the file"),
    "left over": (headed({"a": tensor_entry()}, b"12345"), "cover the file"),
    "length": (headed({"a": tensor_entry(shape=[2])}, b"1234"), "wrong length"),
    "huge": (headed({"a": tensor_entry(shape=[1 << 62, 4])}, b"1234"), "impossible"),
}


@pytest.mark.parametrize("name", BAD_SAFETENSORS)
def test_bad_safetensors(name: str, tmp_path: Path) -> None:
    data, words = BAD_SAFETENSORS[name]
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(FormatError, match=words):
        load_tensors(tmp_path / "bad.safetensors")


ARRAYS: dict[str, Any] = {
    "c": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)),
    "big_endian": np.arange(5, dtype=">f8"),
    "scope/scalar": np.float16(1.5),
    "empty": np.zeros((0, 3), np.uint64),
    "long": np.arange(600_000, dtype=np.int32),
    "bool": np.array([True, False]),
    "complex": np.complex128([1 + 2j]),
    "bytes": np.array([[b"a", b"bcd"]]),
    "text": np.array(["é", ""]),
    "fortran text": np.asfortranarray(np.array([["a", "b"], ["c", "d"]])),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_numpy(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "in.npz", **ARRAYS)
    found = load_tensors(tmp_path / "in.npz")
    assert found.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        if value.dtype.kind in "SU":
            assert (
                found[name].read().tolist()
                == [item.encode() if isinstance(item, str) else item for item in value.ravel()]
                if value.ndim == 1
                else np.char.encode(value.astype("U"), "utf-8").tolist()
            )
        else:
            assert same_values(found[name].read(), value.astype(value.dtype.newbyteorder("<")))
    saved = save_checkpoint(tmp_path / "out", found)
    assert compare(load_checkpoint(saved), found).none


def test_npz_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", a=np.array([{}, []], dtype=object))
    with pytest.raises(UnsupportedFormatError, match="pickle"):
        load_tensors(tmp_path / "in.npz")


def test_npz_that_claims_too_much(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", a=np.arange(100, dtype=np.int8))
    data = (tmp_path / "in.npz").read_bytes()
    size = (tmp_path / "in.npz").stat().st_size
    place = data.rindex(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    (tmp_path / "in.npz").write_bytes(data[:place] + struct.pack("<I", 1 << 30) + data[place + 4 :])
    with pytest.raises(CorruptionError, match="claims more bytes"):
        load_tensors(tmp_path / "in.npz")
    assert size == len(data)


def read_all(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tensor in load_tensors(path).values():
            tensor.read()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_damaged_files_are_read_or_refused(suffix: str, tmp_path: Path) -> None:
    chance, path = random.Random(7), tmp_path / f"in{suffix}"
    small = {name: value for name, value in ARRAYS.items() if name != "long" and value.dtype.kind not in "SU"}
    if suffix == ".npz":
        np.savez_compressed(path, **{**small, "text": ARRAYS["text"]})
    else:
        write_tensors(held({name: value for name, value in small.items() if name != "complex"}), path)
    whole = path.read_bytes()
    for _ in range(400):
        data = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.2 else whole)
        for _ in range(chance.randrange(1, 4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        with contextlib.suppress(FormatError):
            read_all(path)


@pytest.mark.parametrize("one", ONE_OF_EACH, ids=lambda one: one.id)
@pytest.mark.parametrize(
    "options", [{}, {"shards": 3}, {"keep_slices": True}, {"shard_bytes": 4000}, {"version": 1}], ids=str
)
def test_checkpoints_of_checkpoints(one: Case, options: dict[str, Any], tmp_path: Path) -> None:
    values = one.oracle["checkpoint"][""]
    if options == {"version": 1} and one.model in ("dtypes", "raw_dtypes") and one.id != "dtypes/tf0.12.1-v1":
        return  # of types that V1 has not
    saved = convert(one.prefix, tmp_path / "new" / "model", **options)
    found = load_checkpoint(saved)
    assert compare(found, of_types(values, found)).none
    assert found.version == options.get("version", 2)
    assert not (tmp_path / "new" / "checkpoint").exists()
    slices = {name: len(found.slices(name)) for name in found}
    assert max(slices.values()) == (
        max(map(len, map(load_checkpoint(one.prefix).slices, found))) if "keep_slices" in options else 1
    )


def test_state_is_written_when_asked(tmp_path: Path) -> None:
    convert(MLP.prefix, tmp_path / "model", state=True)
    assert latest_checkpoint(tmp_path) == str(tmp_path / "model")
    assert (tmp_path / "checkpoint").read_text().startswith('model_checkpoint_path: "model"\n')


HOSTILE = ["../x", "/abs", "a/../../b", "..", ".", "", "a//b", "x\0y", "w", "w.npy/b", "w/Adam", "%2E", "a\\b", "C:x",
           "é", "\udcff", "~/x", "-rf"]  # fmt: skip


def test_directories_are_never_left(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    write_tensors(held({name: np.full(1, number) for number, name in enumerate(HOSTILE)}), f"{folder}/")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(HOSTILE) and all(folder in path.parents for path in files)
    back = load_tensors(folder)
    assert sorted(back) == sorted(HOSTILE)
    for number, name in enumerate(HOSTILE):
        assert np.load(folder / file_name(name))[0] == number == back[name].read()[0]
    with pytest.raises(UnsupportedFormatError, match="too long"):
        file_name("x" * 300)


def test_a_directory_of_numpy_files_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "conv").mkdir()
    np.save(tmp_path / "conv" / "kernel.npy", np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)))
    np.save(tmp_path / "words.npy", np.array(["oak", "élm"]))
    (tmp_path / "README.txt").write_text("other files are no tensors")
    convert(tmp_path, tmp_path / "new" / "model.ckpt")
    back = load_checkpoint(tmp_path / "new" / "model.ckpt")
    assert back["conv/kernel"].read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert back["words"].read().tolist() == [b"oak", "élm".encode()]
    with pytest.raises(GraphRestoreError, match="holds the source, .*npy, which is never changed"):
        convert(tmp_path, f"{tmp_path}/", overwrite=True)
    (tmp_path / "conv%2Fkernel.npy").write_bytes((tmp_path / "conv" / "kernel.npy").read_bytes())
    with pytest.raises(FormatError, match="two files are named as tensor 'conv/kernel'"):
        load_tensors(tmp_path)


_NPY = io.BytesIO()
np.save(_NPY, np.arange(3.0))
DAMAGED_NPY = {
    "empty": b"",
    "another file": b"PK\x03\x04 something else altogether",
    "cut in the header": _NPY.getvalue()[:40],
    "cut in the data": _NPY.getvalue()[:-1],
    "one byte more": _NPY.getvalue() + b"x",
    "no dict": _NPY.getvalue()[:10] + b"[" * (len(_NPY.getvalue()) - 10),
    "a pickle": _NPY.getvalue().replace(b"'<f8'", b"'|O' "),
}


@pytest.mark.parametrize("name", DAMAGED_NPY)
def test_damaged_numpy_files_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "fine.npy").write_bytes(_NPY.getvalue())
    assert load_tensors(tmp_path)["fine"].read().tolist() == [0, 1, 2]
    (tmp_path / "damaged.npy").write_bytes(DAMAGED_NPY[name])
    with pytest.raises(FormatError, match="damaged.npy"):
        load_tensors(tmp_path)


def test_links_do_not_lead_out_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GraphRestoreError, match="leads out of"):
        write_tensors(held({"z": 1.0, "a/b": 2.0}), f"{tmp_path}/out/", overwrite=True)
    assert list((tmp_path / "elsewhere").iterdir()) == [] and [p.name for p in (tmp_path / "out").iterdir()] == ["a"]


REFUSED = {
    "strings": ("out.safetensors", np.array([b"a"], object), "'x' (string)"),
    "complex128": ("out.safetensors", np.complex128([1]), "'x' (complex128)"),
    "zero at the end": ("out.npz", np.array([b"a\0"], object), "x: strings that end in a zero byte"),
    "uneven strings": ("out.npz", np.array([b"a" * 70000] + [b""] * 70000, object), "x: strings that padded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_format_cannot_hold_is_named(name: str, tmp_path: Path) -> None:
    file, value, words = REFUSED[name]
    with pytest.raises(UnsupportedFormatError) as caught:
        write_tensors(held({"ok": 1.0, "x": value}), tmp_path / file)
    assert words in str(caught.value) and "ok" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_object_graph_is_no_weight(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(case("object_checkpoint/tf1.15.5-v2").other_prefixes["objects"])
    with pytest.warns(GraphRestoreWarning, match="_CHECKPOINTABLE_OBJECT_GRAPH.* is left out") as told:
        write_tensors(checkpoint, tmp_path / "o.safetensors")
    assert [one.filename for one in told] == [__file__]
    difference = compare(checkpoint, load_tensors(tmp_path / "o.safetensors"))
    assert difference.only_first == ["_CHECKPOINTABLE_OBJECT_GRAPH"] and not difference.changed
    assert difference.equal == len(checkpoint) - 1


@pytest.mark.parametrize("file", ["out.npz", "out.safetensors"])
def test_names_a_format_cannot_hold(file: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="rename"):
        write_tensors(held({"\udcff": 1.0}), tmp_path / file)


@pytest.mark.parametrize("output", ["o.npy", "o.h5", "o.index", "o.data-00000-of-00001", "o.meta", "folder"])
def test_outputs_that_are_not_written(output: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(GraphRestoreError, match="prefix"):
        write_tensors(held({"x": 1.0}), tmp_path / output)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_output_needs_a_name_and_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GraphRestoreError, match="no name"):
        write_tensors(held({"x": 1.0}), "")
    for output in ("memory://a/model", "gs://bucket/o.npz", "s3://bucket/folder/"):
        with pytest.raises(UnsupportedFormatError, match=f"{output}: stores are read and never written to"):
            write_tensors(held({"x": 1.0}), output)
    with pytest.raises(UnsupportedFormatError, match="never written to"):
        save_checkpoint("memory://a/model", {"x": 1.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", ["model", "o.npz", "O.SAFETENSORS", "o/"])
def test_directories_of_an_output_are_made(output: str, tmp_path: Path) -> None:
    path = write_tensors(held({"x": [1.0, 2.0]}), f"{tmp_path}/new/deep/{output}")
    assert output == "o/" or load_tensors(path)["x"].read().tolist() == [1.0, 2.0]
    assert (tmp_path / "new" / "deep").is_dir()


def test_layout_is_for_checkpoints() -> None:
    with pytest.raises(ValueError, match="shards"):
        write_tensors(held({"x": 1.0}), "never.npz", shards=2)


@pytest.mark.parametrize("output", ["model", "o.npz", "o.safetensors", "o/"])
def test_an_output_that_is_there_needs_overwrite(output: str, tmp_path: Path) -> None:
    def write(value: float, **options: Any) -> None:
        write_tensors(held({"x": value}), f"{tmp_path}/{output}", **options)

    write(1.0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(GraphRestoreError, match="(is|are) there already; pass overwrite=True"):
        write(2.0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    write(2.0, overwrite=True)
    assert before.keys() == {path for path in tmp_path.rglob("*") if path.is_file()}
    assert before != {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(("prefix", "version"), [(MLP.prefix, 2), (PARTITIONED.prefix, 1)])
def test_the_source_is_never_replaced(prefix: str, version: int, tmp_path: Path) -> None:
    shutil.copytree(Path(prefix).parent, tmp_path / "run")
    source = str(tmp_path / "run" / Path(prefix).name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for target in (source, str(tmp_path / "run" / ".." / "run" / Path(prefix).name)):
        with pytest.raises(GraphRestoreError, match="source itself"):
            convert(source, target, overwrite=True, version=version)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# editing


def edited(values: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: tensor.read() for name, tensor in edit(held(values), **changes).items()}


NAMED = dict.fromkeys(("net/w", "net/w/Adam", "net/b", "network", "global_step"), 1.0)
RENAMED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "tensor": ({"rename": [("network", "n")]}, ["net/w", "net/w/Adam", "net/b", "n", "global_step"]),
    "scope": ({"rename": [("net", "a/b")]}, ["a/b/w", "a/b/w/Adam", "a/b/b", "network", "global_step"]),
    "slots follow": ({"rename": [("net/w", "v")]}, ["v", "v/Adam", "net/b", "network", "global_step"]),
    "longest": ({"rename": [("net", "a"), ("net/w", "v")]}, ["v", "v/Adam", "a/b", "network", "global_step"]),
    "swap": ({"rename": [("network", "global_step"), ("global_step", "network")]},
             ["net/w", "net/w/Adam", "net/b", "global_step", "network"]),
    "prefix": ({"prefix": "top/"}, ["top/net/w", "top/net/w/Adam", "top/net/b", "top/network", "top/global_step"]),
    "strip": ({"strip_prefix": "net"}, ["w", "w/Adam", "b", "network", "global_step"]),
    "all": ({"strip_prefix": "net/", "rename": [("w", "x")], "prefix": "p"},
            ["p/x", "p/x/Adam", "p/b", "p/network", "p/global_step"]),
}  # fmt: skip


@pytest.mark.parametrize("name", RENAMED)
def test_names_after_an_edit(name: str) -> None:
    changes, names = RENAMED[name]
    values = {old: float(number) for number, old in enumerate(NAMED)}
    found = edited(values, **changes)
    assert {key: float(value) for key, value in found.items()} == dict(zip(names, values.values()))


WRONG_EDITS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no such tensor": ({"rename": [("net/v", "x")]}, TensorNotFoundError, "near names: net/w"),
    "no such scope": ({"strip_prefix": "nets"}, TensorNotFoundError, "'nets/'"),
    "same name": ({"rename": [("net/w", "net/b")]}, GraphRestoreError, "net/w, net/b would all be 'net/b'"),
    "pattern": ({"drop": ["conv*"]}, TensorNotFoundError, "'conv*'"),
    "all gone": ({"drop": ["*"]}, GraphRestoreError, "nothing would be left"),
    "no averages": ({"averages": True}, GraphRestoreError, "ExponentialMovingAverage"),
    "other names": (
        {"average": [held({**NAMED, "x": 1.0})]},
        GraphRestoreError,
        "x is in checkpoint 2 and not in the first",
    ),
    "fewer names": ({"average": [held({"network": 1.0})]}, GraphRestoreError, "net/w is not in checkpoint 2"),
    "other shape": ({"average": [held({**NAMED, "net/b": [1.0]})]}, GraphRestoreError, "float64 [1] in checkpoint 2"),
    "prefer alone": ({"prefer": "last"}, GraphRestoreError, "nothing is merged"),
    "merge": (
        {"merge": [held({"network": 2.0, "net/w": 1.0})]},
        GraphRestoreError,
        "differ: network; pass prefer='first'",
    ),
}


@pytest.mark.parametrize("name", WRONG_EDITS)
def test_wrong_edits(name: str) -> None:
    changes, kind, words = WRONG_EDITS[name]
    with pytest.raises(kind) as caught:
        edited(NAMED, **changes)
    assert words in str(caught.value)


def test_no_slots_to_drop() -> None:
    with pytest.raises(GraphRestoreError, match="name them in drop="):
        edited({"w": 1.0}, drop_slots=True)


def test_slots_are_dropped() -> None:
    kept = set(edit(load_checkpoint(MLP.prefix), drop_slots=True, drop=["*/ExponentialMovingAverage"]))
    assert kept == {"global_step", "hidden/biases", "hidden/weights", "logits/biases", "logits/weights"}


def test_averages_take_their_variables_places() -> None:
    values = MLP.oracle["checkpoint"][""]
    found = edit(load_checkpoint(MLP.prefix), averages=True)
    assert found.keys() == values.keys()
    for name, tensor in found.items():
        assert same_values(tensor.read(), values.get(f"{name}/ExponentialMovingAverage", values[name]))
    with pytest.raises(GraphRestoreError, match="no average of w, float64"):
        edited({"w": 1.0, "w/ExponentialMovingAverage": [1.0]}, averages=True)


def test_the_mean_of_checkpoints() -> None:
    run = case("moved/tf1.15.5-v2")
    paths = [run.prefixes[""], run.other_prefixes["latest"], run.prefixes[""]]
    first, second = run.oracle["checkpoint"][""], run.oracle["checkpoint"]["latest"]
    one, *others = map(load_checkpoint, paths)
    found = edit(one, average=others)
    for name, value in first.items():
        mean = (value.astype(np.float64) * 2 + second[name].astype(np.float64)) / 3
        assert same_values(found[name].read(), mean.astype(value.dtype))
    mixed = edited(
        {"step": np.int64(5), "c": np.complex64(1 + 1j)}, average=[held({"step": np.int64(9), "c": np.complex64(3j)})]
    )
    assert (mixed["step"], mixed["c"]) == (5, 0.5 + 2j)


def test_merging() -> None:
    first, second = {"a": 1.0, "both": 1.0, "x": 1.0}, {"b": 2.0, "both": 1.0, "x": 2.0}
    for prefer, x in (("first", 1.0), ("last", 2.0)):
        found = edited(first, merge=[held(second)], prefer=prefer)
        assert {name: float(value) for name, value in found.items()} == {"a": 1.0, "b": 2.0, "both": 1.0, "x": x}


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_casts(name: str) -> None:
    values = case("dtypes/tf1.15.5-v2").oracle["checkpoint"][""]
    found = edit(load_checkpoint(case("dtypes/tf1.15.5-v2").prefix), cast=name)
    for key, value in values.items():
        if value.dtype.name in ("float16", "float32", "float64", "bfloat16"):
            with np.errstate(over="ignore"):
                value = value.astype(np.dtype(getattr(ml_dtypes, name, name)))
        assert same_values(found[key].read(), value), key


def test_values_too_large_for_a_cast_are_told() -> None:
    found = edit(held({"x": np.float32([1e30, np.inf, np.nan, 1.0])}), cast="float16")["x"]
    with pytest.warns(GraphRestoreWarning, match="1 of 4 values are too large for float16"):
        assert found.read()[:2].tolist() == [np.inf, np.inf]


def test_casts_keep_slices(tmp_path: Path) -> None:
    source = load_checkpoint(PARTITIONED.prefix)
    save_checkpoint(tmp_path / "half", edit(source, cast="float16"), keep_slices=True)
    found = load_checkpoint(tmp_path / "half")
    assert [box for box, _ in found.slices("embedding/table")] == [box for box, _ in source.slices("embedding/table")]
    assert same_values(
        found["embedding/table"].read(), PARTITIONED.oracle["checkpoint"][""]["embedding/table"].astype("f2")
    )


OBJECTS = case("object_checkpoint/tf1.15.5-v2").other_prefixes["objects"]


def test_an_object_graph_follows_the_names() -> None:
    before = load_checkpoint(OBJECTS)
    found = edit(before, rename=[("layers/first", "top")], prefix="new", drop=["save_counter*"])
    assert set(found) == {
        "_CHECKPOINTABLE_OBJECT_GRAPH",
        *("new/" + key.replace("layers/first/", "top/") for key in before if key[0] != "_" and "counter" not in key),
    }
    objects = object_graph(found)
    assert objects is not None and objects.key_of("layers/first/w") == "new/top/w/.ATTRIBUTES/VARIABLE_VALUE"
    assert objects.key_of("save_counter") is None and objects.key_of("net/w") == objects.key_of("layers/first/w")


def test_tensors_that_no_object_has_are_told() -> None:
    with pytest.warns(GraphRestoreWarning, match="_CHECKPOINTABLE_OBJECT_GRAPH does not know other: "):
        edit(load_checkpoint(OBJECTS), merge=[held({"other": 1.0})])


# verifying


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_sound_checkpoints(one: Case) -> None:
    for prefix, values in stored(one):
        found = verify_checkpoint(prefix)
        assert found.ok and found.tensors >= len(values) and found.to_dict()["ok"]


def damaged(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0x40
    path.write_bytes(data)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Three tensors of 40 bytes each, a string, an empty one and two slices of another, in one data file."""
    values = {name: lazy(name, np.full(10, number, np.float32)) for number, name in enumerate("abc")}
    values |= {
        "d": lazy("d", np.array([b"word"], object)),
        "e": lazy("e", np.zeros(0)),
        "f": sliced(np.ones((4, 5)), 3),
    }
    return Path(save_checkpoint(tmp_path / "model", values, keep_slices=True))


def test_all_damaged_tensors_are_named(saved: Path) -> None:
    data = Path(f"{saved}.data-00000-of-00001")
    string = data.read_bytes().index(b"word")
    damaged(data, 5, 85, string)
    found = verify_checkpoint(saved)
    assert list(found.damaged) == ["a", "c", "d"] and found.tensors == 6
    assert all("checksum" in text for texts in found.damaged.values() for text in texts)
    damaged(data, -1)
    assert list(verify_checkpoint(saved).damaged) == ["a", "c", "d", "f"]


def test_a_data_file_cut_short(saved: Path) -> None:
    data = Path(f"{saved}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:100])
    assert list(verify_checkpoint(saved).damaged) == ["c", "d", "f"]


def test_a_data_file_that_is_gone(tmp_path: Path) -> None:
    prefix = save_checkpoint(tmp_path / "model", {name: np.ones(9) for name in "abcd"}, shards=2)
    os.unlink(f"{prefix}.data-00001-of-00002")
    found = verify_checkpoint(prefix)
    assert list(found.damaged) == ["c", "d"] and "missing" in found.damaged["c"][0]


def test_a_damaged_index(saved: Path) -> None:
    damaged(Path(f"{saved}.index"), 20)
    found = verify_checkpoint(saved)
    assert list(found.damaged) == [f"{saved}.index"] and found.tensors == 0


def test_a_damaged_v1_file(tmp_path: Path) -> None:
    values = {name: np.full(100_000, number, np.float32) for number, name in enumerate("abcd")}
    path = Path(save_checkpoint(tmp_path / "model", values, version=1))
    blocks = [path.read_bytes().index(struct.pack("<f", number) * 50_000) for number in (1, 3)]
    damaged(path, *(block + 1000 for block in blocks))
    found = verify_checkpoint(path)
    assert {"b", "d"} <= found.damaged.keys() <= set("abcd") and len(found.damaged) < 4 and found.version == 1
    path.write_bytes(path.read_bytes()[:-9])
    assert list(verify_checkpoint(path).damaged) == [str(path)]


@pytest.mark.parametrize("name", ["o.npz", "o.safetensors"])
def test_files_without_checksums_are_not_verified(name: str, tmp_path: Path) -> None:
    write_tensors(held({"x": 1.0}), tmp_path / name)
    with pytest.raises(UnsupportedFormatError, match=f"{name}: only checkpoints have checksums"):
        verify_checkpoint(tmp_path / name)


def test_verifying_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        verify_checkpoint(tmp_path / "model")


# paths of a moved directory


def written_state(folder: Path, text: str) -> Path:
    for name in ("m-1", "m-2", "sub/m-3"):
        save_checkpoint(folder / name, {"x": 1.0})
    (folder / "checkpoint").write_text(text)
    return folder


def test_a_moved_directory(tmp_path: Path) -> None:
    run = Path(shutil.copytree(case("moved/tf1.15.5-v2").directory, tmp_path / "run"))
    before = (run / "checkpoint").read_bytes()
    found = find_relocation(run)
    assert found.changes and (found.newest.relative, found.newest.found) == ("model.ckpt-20", False)
    assert (run / "checkpoint").read_bytes() == before
    apply_relocation(found)
    assert (run / "checkpoint").read_text() == (
        'model_checkpoint_path: "model.ckpt-20"\n'
        'all_model_checkpoint_paths: "model.ckpt-10"\n'
        'all_model_checkpoint_paths: "model.ckpt-20"\n'
    )
    assert not find_relocation(run / "checkpoint").changes
    assert latest_checkpoint(run) == str(run / "model.ckpt-20")


def test_paths_of_every_kind(tmp_path: Path) -> None:
    elsewhere = save_checkpoint(tmp_path / "elsewhere" / "m", {"x": 1.0})
    run = tmp_path / "run"
    text = (
        f'model_checkpoint_path: "{run}/m-2"\nall_model_checkpoint_paths: "m-1"\n'
        'all_model_checkpoint_paths: "C:\\\\old\\\\run\\\\sub\\\\m-3"\nall_model_checkpoint_paths: "/old/gone"\n'
        f'all_model_checkpoint_paths: "{elsewhere}"\nlast_preserved_timestamp: 1.5\n'
    )
    written_state(run, text)
    apply_relocation(find_relocation(run))
    assert (run / "checkpoint").read_text() == (
        'model_checkpoint_path: "m-2"\nall_model_checkpoint_paths: "m-1"\nall_model_checkpoint_paths: "sub/m-3"\n'
        f'all_model_checkpoint_paths: "/old/gone"\nall_model_checkpoint_paths: "{elsewhere}"\n'
        "last_preserved_timestamp: 1.5\n"
    )


def test_shards_of_v1_move_too(tmp_path: Path) -> None:
    run = Path(shutil.copytree(case("sharded/tf0.12.1-v1").directory, tmp_path / "run"))
    assert find_relocation(run).newest.relative == "model.ckpt-?????-of-00002"


def test_no_state_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no state file"):
        find_relocation(tmp_path)


# memory


def test_memory_stays_flat(tmp_path: Path) -> None:
    size = 48 << 20
    prefix = save_checkpoint(tmp_path / "a", {"x": np.zeros(size // 4, np.float32)})
    tensors = load_checkpoint(prefix)
    work: dict[str, Any] = {
        "ls": lambda: list(list_tensors(tensors, stats=True)),
        "diff": lambda: compare(tensors, tensors, atol=1.0),
        "verify": lambda: verify_checkpoint(prefix),
        "npz": lambda: convert(prefix, tmp_path / "o.npz"),
        "safetensors": lambda: convert(prefix, tmp_path / "o.safetensors"),
        "npz back": lambda: convert(tmp_path / "o.npz", tmp_path / "b"),
        "edit": lambda: write_tensors(edit(tensors, average=[tensors], cast="float16"), tmp_path / "c"),
        "part": lambda: read_part(tensors, "x[5:10]").read(),
    }
    for name, call in work.items():
        tracemalloc.start()
        call()
        assert tracemalloc.get_traced_memory()[1] < size // 1.5, name
        tracemalloc.stop()


@pytest.mark.tensorflow
def test_tensorflow_reads_what_was_edited(tmp_path: Path) -> None:
    import tensorflow as tf

    values = MLP.oracle["checkpoint"][""]
    for version in (1, 2):
        changed = edit(load_checkpoint(MLP.prefix), drop_slots=True, rename=[("hidden", "first")])
        path = write_tensors(changed, tmp_path / f"v{version}", version=version, shards=2)
        reader = tf.train.load_checkpoint(path)
        assert reader.get_variable_to_shape_map().keys() == changed.keys()
        for name in changed:
            assert same_values(np.asarray(reader.get_tensor(name)), values[name.replace("first/", "hidden/")])


@pytest.mark.tensorflow
def test_tensorflow_restores_objects_from_an_edited_checkpoint(tmp_path: Path) -> None:
    """Without slots and under other keys: the object graph follows, so tf.train.Checkpoint finds every variable."""
    import tensorflow as tf

    before = load_checkpoint(OBJECTS)
    saved = save_checkpoint(tmp_path / "m", edit(before, drop_slots=True, rename=[("layers/first", "top")], prefix="p"))
    first, last = tf.Module(), tf.Module()
    first.w = tf.Variable(tf.zeros(before["net/w"].shape))
    last.bias = tf.Variable(tf.zeros(before["net/b"].shape))
    root = tf.train.Checkpoint(layers={"first": first, "last": last})
    root.restore(saved).assert_existing_objects_matched()
    assert same_values(first.w.numpy(), before["net/w"].read())
    assert same_values(last.bias.numpy(), before["net/b"].read())
    assert sorted(name for name, _ in tf.train.list_variables(saved)) == list(load_checkpoint(saved))
