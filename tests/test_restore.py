"""Restored values, bit for bit those of the sessions that saved them, and the report of what fitted."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr

_load = functools.cache(gr.load)
SOURCES = [
    pytest.param(one, path, tag, id=f"{one.id}-{path.suffix}-{tag or 'main'}")
    for one in cases()
    for path in (one.graph_pb, one.meta)
    if path
    for tag in one.prefixes
]
MISMATCH = [one.id for one in cases("mismatch")]


def _expect_same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if expected.dtype == object:
        assert found.tolist() == expected.tolist()
    else:
        assert found.tobytes() == expected.tobytes()


def _names(tensors: Any) -> set[str]:
    return {name.removesuffix(":0") for name in tensors}


@pytest.mark.filterwarnings("ignore:.*took V2, as TensorFlow does")
@pytest.mark.parametrize(("one", "path", "tag"), SOURCES)
def test_values_are_those_that_were_saved(one: Case, path: Path, tag: str) -> None:
    restored = gr.restore(_load(path), one.prefixes[tag])
    keys = one.facts["savers"][tag]["keys"]
    saved = {part["variable"]: key for key, facts in keys.items() for part in facts["parts"]}
    for name, expected in one.oracle["variables"].items():
        value = restored.variables[name].value
        assert (value is not None) == (name in saved), name
        if value is not None:
            _expect_same(value.read(), expected)
    report = restored.restoration
    assert report is not None and report.checkpoint.startswith(one.prefixes[tag]) and not report.mismatched
    assert report.restored == {name.removesuffix(":0"): key for name, key in saved.items()}
    assert set(report.missing) == _names(one.facts["variables"]) - _names(saved)
    assert report.unused == ()  # what is in no variable is a table's
    assert json.loads(json.dumps(report.to_dict()))["restored"] == report.restored
    assert str(report).startswith(f"{len(saved)} restored, {len(report.missing)} missing, 0 mismatched")


def test_the_model_given_stays_as_it_was() -> None:
    one = case("linear/tf1.4.1-v2")
    model = _load(one.graph_pb)
    gr.restore(model, one.prefix)
    assert model.restoration is None and all(variable.value is None for variable in model.variables)


# what belongs to a model without being named: the prefix of a .meta, a SavedModel's variables, a directory's newest
OWN = {
    "linear/tf0.12.1-v1": "model.ckpt.meta",
    "nameless_prefix/tf1.15.5-v2": "export/.meta",
    "moved/tf1.15.5-v2": "model.ckpt-10.meta",
    "monitored/tf1.4.1-v2": "run",
    "saved_model/tf0.12.1-v1": "saved_model",
    "saved_model_text/tf1.15.5-v2": "saved_model",
    "session_bundle/tf0.12.1-v1": "bundle/00000007",
    "session_bundle/tf1.4.1-v2": "bundle/00000007",
}


@pytest.mark.parametrize("identity", OWN)
def test_own_checkpoint(identity: str) -> None:
    one = case(identity)
    restored = gr.restore(gr.load(one.directory / OWN[identity]))
    assert restored.variables
    for variable in restored.variables:
        assert variable.value is not None
        _expect_same(variable.value.read(), one.oracle["variables"][f"{variable.name}:0"])


def test_directory_takes_the_newest_checkpoint() -> None:
    one = case("moved/tf1.15.5-v2")
    restored = gr.restore(gr.load(one.directory))
    for variable in restored.variables:
        assert variable.value is not None
        _expect_same(variable.value.read(), one.oracle["checkpoint"]["latest"][variable.name])


def test_a_bare_graph_has_no_checkpoint() -> None:
    path = case("linear/tf1.4.1-v2").graph_pb
    with pytest.raises(gr.CheckpointNotFoundError, match=re.escape(f"{path}: a bare graph")):
        gr.restore(gr.load(path))


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    shutil.copy(case("linear/tf1.4.1-v2").directory / "model.ckpt.meta", tmp_path)
    with pytest.raises(gr.CheckpointNotFoundError, match=re.escape(str(tmp_path / "model.ckpt"))):
        gr.restore(gr.load(tmp_path / "model.ckpt.meta"))


def test_nothing_is_read_until_it_is_wanted(tmp_path: Path) -> None:
    one = case("linear/tf1.15.5-v2")
    for path in one.directory.glob("model.ckpt*"):
        shutil.copy(path, tmp_path)
    (data,) = tmp_path.glob("*.data-*")
    data.write_bytes(bytes(data.stat().st_size))
    value = gr.restore(gr.load(tmp_path / "model.ckpt.meta")).variables["w"].value
    assert value is not None
    with pytest.raises(gr.CorruptionError, match="checksum|crc|CRC"):
        value.read()


@pytest.mark.parametrize("identity", MISMATCH)
@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("shape", {"w": "graph float32 [3, 2], checkpoint w float32 [3, 5]", "b": "graph float32 [2]"}),
        ("reshaped", {"w": "graph float32 [3, 2], checkpoint w float32 [2, 3]"}),
        ("dtype", {"b": "graph float32 [2], checkpoint b float64 [2]"}),
    ],
)
def test_mismatches_are_told_all_at_once(identity: str, tag: str, expected: dict[str, str]) -> None:
    one = case(identity)
    model, prefix = _load(one.graph_pb), one.other_prefixes[tag]
    with pytest.raises(gr.RestoreError) as caught:
        gr.restore(model, prefix)
    assert set(caught.value.mismatched) == set(expected) and not caught.value.missing
    for name, text in expected.items():
        assert caught.value.mismatched[name].startswith(text) and text in str(caught.value)
    assert prefix in str(caught.value)
    skipped = gr.restore(model, prefix, on_mismatch="skip")
    assert skipped.restoration is not None and set(skipped.restoration.mismatched) == set(expected)
    assert {variable.name for variable in skipped.variables if variable.value is None} == set(expected)
    assert set(skipped.restoration.restored) == {"w", "b"} - set(expected)


@pytest.mark.parametrize("identity", MISMATCH)
def test_cast(identity: str) -> None:
    one = case(identity)
    restored = gr.restore(_load(one.graph_pb), one.other_prefixes["dtype"], cast=True)
    value = restored.variables["b"].value
    assert value is not None and restored.restoration is not None
    _expect_same(value.read(), one.oracle["checkpoint"]["dtype"]["b"].astype(np.float32))
    report = restored.restoration
    assert report.cast == {"b": "float64 to float32; precision or range may be lost"}
    assert report.changes() == ["b is cast from float64 to float32; precision or range may be lost"]
    assert "restored    b from b: cast from float64 to float32; precision" in str(report)


@pytest.mark.parametrize("identity", MISMATCH)
def test_extra_missing_and_renamed(identity: str) -> None:
    one = case(identity)
    model = _load(one.graph_pb)
    extra = gr.restore(model, one.other_prefixes["extra"], strict=True).restoration
    assert extra is not None and extra.unused == ("momentum",) and extra.details["momentum"] == "float32 [2]"
    missing = gr.restore(model, one.other_prefixes["missing"]).restoration
    assert missing is not None and missing.missing == {"b": "b"} and missing.restored == {"w": "w"}
    with pytest.raises(gr.RestoreError, match="no key b in the checkpoint") as caught:
        gr.restore(model, one.other_prefixes["missing"], strict=True)
    assert caught.value.missing == ["b"]
    with pytest.raises(gr.RestoreError, match=r"no key w in the checkpoint; near names: tower/w"):
        gr.restore(model, one.other_prefixes["renamed"], strict=True)


@pytest.mark.parametrize(
    "rename",
    [
        {"tower/w": "w", "tower/b": "b"},
        {"tower/": ""},
        lambda key: key.removeprefix("tower/"),
        [(r"^tower/", "")],
        [(re.compile("tower/(.)"), r"\1")],
    ],
)
def test_rename(rename: Any) -> None:
    one = case("mismatch/tf1.15.5-v2")
    restored = gr.restore(_load(one.graph_pb), one.other_prefixes["renamed"], rename=rename, strict=True)
    for name in ("w", "b"):
        value = restored.variables[name].value
        assert value is not None
        _expect_same(value.read(), one.oracle["checkpoint"]["renamed"][f"tower/{name}"])
    assert restored.restoration is not None
    assert restored.restoration.restored == {"w": "tower/w", "b": "tower/b"} and not restored.restoration.unused


def test_rename_to_one_name_twice() -> None:
    with pytest.raises(gr.GraphRestoreError, match="the same name same"):
        gr.restore(_load(case("linear/tf1.4.1-v2").graph_pb), {"a": 1, "b": 2}, rename=lambda key: "same")


MLP = {"hidden/weights", "hidden/biases", "logits/weights", "logits/biases"}
AVERAGES = {f"{name}/ExponentialMovingAverage" for name in MLP}
OTHERS = {"global_step", "beta1_power", "beta2_power"}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ("hidden/weights", None, {"hidden/weights"}),
        ("hidden/weights:0", None, {"hidden/weights"}),
        ("trainable", None, MLP),
        (None, "slots", MLP | AVERAGES | OTHERS),
        ("moving_averages", "hidden/*", {name for name in AVERAGES if name.startswith("logits")}),
        ("*/weights", None, {"hidden/weights", "logits/weights"}),
        (re.compile("step$"), None, {"global_step"}),
        (lambda variable: variable.shape == (3,), "slots", {"logits/biases", "logits/biases/ExponentialMovingAverage"}),
        (
            ["trainable", re.compile("power")],
            ["logits/*", "beta1_power"],
            {"hidden/weights", "hidden/biases", "beta2_power"},
        ),
        ("local", None, set()),
        ([], None, set()),
    ],
)  # fmt: skip
def test_include_and_exclude(include: Any, exclude: Any, expected: set[str]) -> None:
    one = case("mlp/tf1.4.1-v2")
    restored = gr.restore(_load(one.meta), include=include, exclude=exclude, strict=True)
    assert {variable.name for variable in restored.variables if variable.value is not None} == expected
    assert restored.restoration is not None and set(restored.restoration.restored) == expected


def test_moving_averages() -> None:
    model = _load(case("mlp/tf1.15.5-v2").meta)
    values = {
        variable.name: np.full(variable.shape, number, variable.dtype)
        for number, variable in enumerate(model.variables)
    }
    restored = gr.restore(model, values, moving_averages=True)
    for name in MLP:
        value = restored.variables[name].value
        assert value is not None
        _expect_same(value.read(), values[f"{name}/ExponentialMovingAverage"])
        assert restored.variables[name].checkpoint_key == f"{name}/ExponentialMovingAverage"
    assert restored.variables["global_step"].checkpoint_key == "global_step"
    without = {key: value for key, value in values.items() if "logits" not in key or "Exp" not in key}
    plain = gr.restore(model, without, moving_averages=True).variables["logits/weights"]
    assert plain.checkpoint_key == "logits/weights" and plain.value is not None


def test_moving_averages_of_an_inference_graph() -> None:
    """Its checkpoint has the averages, and the graph no longer says of what."""
    one = case("stripped/tf1.4.1-v2")
    averaged = {f"{name}/ExponentialMovingAverage": np.full(shape, 7, np.float32) for name, shape in _shapes(one)}
    restored = gr.restore(_load(one.graph_pb), averaged, moving_averages=True, strict=True)
    assert all(variable.value is not None and variable.value.read().min() == 7 for variable in restored.variables)


def _shapes(one: Case) -> list[tuple[str, list[int]]]:
    return [(name.removesuffix(":0"), facts["shape"]) for name, facts in one.facts["variables"].items()]


@pytest.mark.parametrize("one", cases("partitioned"), ids=lambda one: one.id)
@pytest.mark.parametrize("with_saver", [True, False])
def test_partitions_take_their_part(one: Case, with_saver: bool) -> None:
    model = _load(one.graph_pb)
    if not with_saver:
        kept = [node for node in model.graph.graph_def.node if not node.name.startswith("save/")]
        model = gr.load(model.graph.replaced(kept, model.graph.payloads).materialize().SerializeToString())
        assert not model.savers
    keys = one.facts["savers"][""]["keys"]
    whole = {
        key: np.arange(np.prod(facts["shape"]), dtype=np.float32).reshape(facts["shape"]) for key, facts in keys.items()
    }  # noqa: E501
    if not with_saver:
        whole = {key: value for key, value in whole.items() if not key.endswith("Adagrad")}
    restored = gr.restore(model, whole)
    for key in whole:
        for part in keys[key]["parts"]:
            value = restored.variables[part["variable"]].value
            box = tuple(slice(o, o + n) for o, n in zip(part["offset"], part["shape"]))
            assert value is not None
            _expect_same(value.read(), whole[key][box])


def test_a_mapping_of_arrays() -> None:
    model = _load(case("linear/tf0.12.1-v1").graph_pb)
    w, b = np.arange(12, dtype=np.float32).reshape(4, 3)[::-1], [0.5, 1, 2]
    with pytest.raises(gr.RestoreError, match="float64"):
        gr.restore(model, {"w": w, "b": b})
    restored = gr.restore(model, {"w": w, "b": b}, cast=True, strict=True)
    assert [variable.value.read().tolist() for variable in restored.variables if variable.value] == [w.tolist(), b]
    assert restored.restoration is not None and restored.restoration.checkpoint == "the values given"


def test_a_checkpoint_object_and_its_own_path() -> None:
    one = case("linear/tf1.4.1-v2")
    for source in (gr.load_checkpoint(one.prefix), Path(one.prefix), one.prefix + ".index", one.directory):
        report = gr.restore(_load(one.graph_pb), source, strict=True).restoration
        assert report is not None and report.checkpoint == one.prefix


def test_quantised_variables_take_plain_integers() -> None:
    one = case("dtypes/tf1.4.1-v2")
    values = {name.removesuffix(":0"): value for name, value in one.oracle["variables"].items()}
    restored = gr.restore(_load(one.graph_pb), values, strict=True)
    for name in ("of_qint8", "of_quint8", "of_qint32"):
        value = restored.variables[name].value
        assert value is not None
        _expect_same(value.read(), values[name])


def test_object_based_checkpoint() -> None:
    one = case("object_checkpoint/tf1.15.5-v2")
    restored = gr.restore(_load(one.graph_pb), one.other_prefixes["objects"], strict=True)
    assert len(restored.variables) == len(one.facts["variables"])
    for variable in restored.variables:
        assert variable.value is not None and variable.checkpoint_key is not None
        assert variable.checkpoint_key.endswith("/.ATTRIBUTES/VARIABLE_VALUE")
        _expect_same(variable.value.read(), one.oracle["checkpoint"]["objects"][variable.checkpoint_key])
    assert restored.restoration is not None and restored.restoration.unused == ()


def test_the_saver_that_fits_is_chosen_and_told() -> None:
    one = case("custom_savers/tf1.15.5-v2")
    for tag in ("renamed", ""):
        filename = one.facts["savers"][tag]["filename_tensor"]
        report = gr.restore(_load(one.graph_pb), one.prefixes[tag], strict=True).restoration
        assert report is not None
        (note,) = [note for note in report.notes if "savers" in note]
        assert "of 4 savers" in note and (filename in note or tag == "")  # two of them have the same keys


PREFIXED = b"""
node { name: "import/w" op: "VariableV2" attr { key: "dtype" value { type: DT_FLOAT } } attr { key: "shape" value { shape { dim { size: 2 } } } } }
node { name: "import/b" op: "VarHandleOp" attr { key: "dtype" value { type: DT_INT32 } } attr { key: "shape" value { shape { unknown_rank: true } } } }
"""  # noqa: E501


def test_import_prefix_without_a_saver() -> None:
    model = gr.load(PREFIXED)
    values = {"w": np.float32([1, 2]), "b": np.int32([[3]])}
    report = gr.restore(model, values, strict=True).restoration
    assert report is not None and report.restored == {"import/w": "w", "import/b": "b"}
    assert report.notes == ("the graph has no saver; names are looked for without their scope import/",)
    with pytest.raises(gr.RestoreError) as caught:  # one is not there: then the rest may be another model's too
        gr.restore(model, {"w": values["w"]}, strict=True)
    assert caught.value.missing == ["import/w", "import/b"]


@pytest.mark.parametrize("on_mismatch", ["ignore", ""])
def test_on_mismatch_is_checked(on_mismatch: str) -> None:
    with pytest.raises(ValueError, match="on_mismatch"):
        gr.restore(gr.load(PREFIXED), {}, on_mismatch=on_mismatch)


def test_averages_that_are_not_there_are_missed() -> None:
    one = case("linear/tf1.4.1-v2")
    report = gr.restore(gr.load(one.graph_pb), one.prefix, moving_averages=True).restoration
    assert report is not None and "moving_averages=True changed nothing" in report.notes[-1]


EXPORTED = """
node { name: "layer/kernel" op: "VarHandleOp" attr { key: "dtype" value { type: DT_FLOAT } }
       attr { key: "shape" value { shape { dim { size: 2 } } } } }
node { name: "layer/kernel/Read/ReadVariableOp" op: "ReadVariableOp" input: "layer/kernel" }
node { name: "layer/kernel_1" op: "VarHandleOp" attr { key: "dtype" value { type: DT_FLOAT } }
       attr { key: "shape" value { shape { dim { size: 2 } } } } }
node { name: "layer/kernel_1/Read/ReadVariableOp" op: "ReadVariableOp" input: "layer/kernel_1"
       attr { key: "dtype" value { type: DT_FLOAT } } }
node { name: "y" op: "Identity" input: "layer/kernel_1/Read/ReadVariableOp" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "file" op: "Placeholder" attr { key: "dtype" value { type: DT_STRING } } }
node { name: "names" op: "Const" attr { key: "dtype" value { type: DT_STRING } } attr { key: "value" value { tensor {
       dtype: DT_STRING tensor_shape { dim { size: 1 } } string_val: "a/w/.ATTRIBUTES/VARIABLE_VALUE" } } } }
node { name: "specs" op: "Const" attr { key: "dtype" value { type: DT_STRING } } attr { key: "value" value { tensor {
       dtype: DT_STRING tensor_shape { dim { size: 1 } } string_val: "" } } } }
node { name: "restore" op: "RestoreV2" input: "file" input: "names" input: "specs"
       attr { key: "dtypes" value { list { type: DT_FLOAT } } } }
node { name: "assign" op: "AssignVariableOp" input: "layer/kernel_1" input: "restore"
       attr { key: "dtype" value { type: DT_FLOAT } } }
"""


@pytest.mark.parametrize("key", ["a/w/.ATTRIBUTES/VARIABLE_VALUE", "a/w", "layer/kernel_1", "layer/kernel"])
def test_what_an_export_leaves_behind_is_not_missed(key: str, tmp_path: Path) -> None:
    (tmp_path / "graph.pbtxt").write_text(EXPORTED, encoding="utf-8")
    model = gr.load(tmp_path / "graph.pbtxt")
    restored = gr.restore(model, {key: np.float32([1, 2])}, strict=True)
    assert restored.restoration.restored["layer/kernel_1"] == key and not restored.restoration.missing
    assert restored.variables["layer/kernel_1"].value.read().tolist() == [1, 2]
    untold = "layer/kernel" in restored.restoration.restored
    assert (
        untold or "1 variables without a value that nothing uses or saves: layer/kernel" in restored.restoration.notes
    )


@pytest.mark.tensorflow
def test_keras_exports_are_restored_whole_and_by_the_names_users_know(tmp_path: Path) -> None:
    import tensorflow as tf

    layers = [
        tf.keras.layers.Input((3,)),
        tf.keras.layers.Dense(4, name="first"),
        tf.keras.layers.Dense(2, name="last"),
    ]
    keras = tf.keras.Sequential(layers, name="net")
    keras.export(str(tmp_path / "model"), verbose=False)
    model = gr.load(tmp_path / "model")
    assert gr.restore(model, strict=True).restoration.missing == {}
    path = tf.train.Checkpoint(net=keras).write(str(tmp_path / "objects"))
    restored = gr.restore(model, path)
    frozen = gr.freeze(restored)
    graph_def = tf.compat.v1.GraphDef.FromString(frozen.graph.materialize().SerializeToString())
    x = np.float32([[1, 2, 3], [-1, 0, 4]])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        (y,) = tf.import_graph_def(graph_def, name="", return_elements=[frozen.fetches[0]])
        found = session.run(y, {frozen.feeds[0]: x})
    np.testing.assert_allclose(found, keras.predict(x, verbose=0), rtol=1e-6)
