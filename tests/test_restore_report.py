"""What restore takes as a source, in what order, and what it tells of each variable and of what fitted nothing."""

from __future__ import annotations

import functools
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import case

import graph_restore as gr
from graph_restore.checkpoint import convert, edit, load_checkpoint, save_checkpoint
from graph_restore.dtypes import from_numpy
from graph_restore.errors import near_names
from graph_restore.model import Restoration
from graph_restore.protos import GraphDef
from graph_restore.variables import Variables

_load = functools.cache(gr.load)
MLP = case("mlp/tf1.4.1-v2")
MISMATCH = case("mismatch/tf1.4.1-v2")
OBJECTS = case("object_checkpoint/tf1.15.5-v2")


def graph(shapes: dict[str, tuple[int, ...]]) -> gr.Model:
    """A bare graph of float variables."""
    message = GraphDef()
    for name, shape in shapes.items():
        node = message.node.add(name=name, op="VariableV2")
        node.attr["dtype"].type = 1
        node.attr["shape"].shape.SetInParent()
        for size in shape:
            node.attr["shape"].shape.dim.add(size=size)
    return gr.load(message.SerializeToString())


def told(*arguments: Any, **options: Any) -> Restoration:
    report = gr.restore(*arguments, **options).restoration
    assert report is not None
    return report


def values(*shapes: tuple[str, int]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.full(size, number, np.float32) for number, (name, size) in enumerate(shapes, 1)}


# sources


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".weights"])
def test_weights_files(suffix: str, tmp_path: Path) -> None:
    """Also under a name that says nothing: the content tells."""
    path = tmp_path / f"w{suffix}"
    for kind in [suffix] if suffix != ".weights" else [".npz", ".safetensors"]:
        convert(MLP.prefix, tmp_path / f"o{kind}", overwrite=True)
        (tmp_path / f"o{kind}").rename(path)
        restored = gr.restore(_load(MLP.meta), path, strict=True)
        assert restored.restoration is not None and restored.restoration.checkpoint == str(path)
        for variable in restored.variables:
            assert variable.value is not None
            assert variable.value.read().tobytes() == MLP.oracle["variables"][f"{variable.name}:0"].tobytes()


def test_the_first_source_that_has_a_tensor_gives_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "second", {"new/a": np.float32([7]), "b": np.float32([8]), "c": np.float32([9])})
    first, third = {"old/a": np.float32([1]), "x": np.float32([2])}, {"b": np.float32([3]), "c": np.float32([4])}
    model = graph({"new/a": (1,), "b": (1,), "c": (1,)})
    restored = gr.restore(model, [first, tmp_path / "second", third], rename={"old/": "new/"}, strict=True)
    report = restored.restoration
    assert [variable.value.read().tolist() for variable in restored.variables if variable.value] == [[1], [8], [9]]
    assert report is not None and report.restored == {"new/a": "old/a", "b": "b", "c": "c"}
    second = str(tmp_path / "second")
    assert report.sources == {"new/a": "the values given", "b": second, "c": second}
    assert report.renamed == {"new/a": "old/a"} and report.unused == ("x",)
    assert f"1 keys of {second} are also in an earlier source and taken from there" in report.notes
    assert f"  restored    b from b: in {second}" in str(report)


def test_two_object_based_checkpoints(tmp_path: Path) -> None:
    """Each is searched through its own object graph."""
    halves = [["layers/last/*", "save_counter*"], ["layers/first/*"]]
    paths = [tmp_path / str(number) for number in range(2)]
    for path, drop in zip(paths, halves):
        save_checkpoint(path, edit(load_checkpoint(OBJECTS.other_prefixes["objects"]), drop=drop))
    restored = gr.restore(_load(OBJECTS.graph_pb), paths, include="net/*", strict=True)
    assert restored.restoration is not None and restored.restoration.sources["net/b"] == str(paths[1])
    expected = gr.restore(_load(OBJECTS.graph_pb), OBJECTS.other_prefixes["objects"])
    for name in ("net/w", "net/b"):
        found, wanted = restored.variables[name].value, expected.variables[name].value
        assert found is not None and wanted is not None and found.read().tobytes() == wanted.read().tobytes()


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [(3, TypeError, "found 3"), ([], ValueError, "an empty list"), ([["x", 4]], Exception, "no checkpoint at x"),
     ("no.npz", FileNotFoundError, "no.npz"), ("no.safetensors", FileNotFoundError, "no.safetensors")],
)  # fmt: skip
def test_what_is_no_source(source: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        gr.restore(graph({"a": (1,)}), source)


# names


def test_renaming_two_keys_to_one_name_is_an_error() -> None:
    model = graph({"w": (1,)})
    for rename in ({"tower/w": "w"}, {"tower/": ""}, [("^tower/", "")], lambda key: "w"):
        with pytest.raises(gr.GraphRestoreError, match="w and .*w the same name w"):
            gr.restore(model, values(("tower/w", 1), ("w", 1)), rename=rename)


def test_swapped_names_and_a_scope_for_all() -> None:
    report = told(graph({"a": (1,), "b": (2,)}), values(("b", 1), ("a", 2)), rename={"a": "b", "b": "a"}, strict=True)
    assert report.restored == {"a": "b", "b": "a"} == report.renamed
    report = told(graph({"m/a": (1,)}), values(("a", 1)), rename={"": "m/"}, strict=True)
    assert report.restored == {"m/a": "a"}


@pytest.mark.parametrize(
    ("rename", "kind", "words"),
    [({"old/": "new"}, gr.GraphRestoreError, "'old/' cannot become 'new', .* write 'new/'"),
     (lambda key: None, ValueError, "gives None for the key 'old/w'; .*return the key itself .* with exclude"),
     ([lambda key: None, ("a", "b")], ValueError, "gives None for the key 'old/w'"),
     ([("(", "")], ValueError, "no regular expression"), ([("a", r"\9")], ValueError, "no regular expression"),
     (("^old/", ""), ValueError, "pairs"), (["ab"], ValueError, "pairs"), ({"a": None}, ValueError, "names to names"),
     ("scope", ValueError, "'auto', not 'scope'"), (5, ValueError, "not 5")],
)  # fmt: skip
def test_what_is_no_rename(rename: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        gr.restore(graph({"w": (1,)}), values(("old/w", 1)), rename=rename)


@pytest.mark.parametrize(
    ("rename", "restored"),
    [([{"old/": ""}, ("^w$", "v")], "v"), ([("^old/", "x/"), lambda key: key.upper()], "X/W"),
     ([(re.compile("^old/"), ""), {"w": "u"}], "u")],
)  # fmt: skip
def test_tables_pairs_and_functions_one_after_the_other(rename: Any, restored: str) -> None:
    report = told(graph({restored: (1,)}), values(("old/w", 1)), rename=rename, strict=True)
    assert report.restored == {restored: "old/w"}


def _named(key: str) -> str:
    return f"mine/{key}"


def test_the_guess_beside_a_rename_that_was_given() -> None:
    model = graph({"a/w": (1,), "b/w": (2,), "b/v": (3,)})
    saved = values(("x/a/w", 1), ("b/w", 2), ("b/v", 3))
    needless = told(model, values(("a/w", 1), ("b/w", 2), ("b/v", 3)), rename={"": "mine/"})
    assert str(needless.guess) == "all 3 missing names match without rename: leave it out"
    assert needless.to_dict()["rename"] is None and "adding the prefix ``" not in str(needless)
    halfway = told(model, values(("x/a/w", 1), ("y/b/w", 2), ("y/b/v", 3)), rename={"x/": ""})
    assert str(halfway.guess) == (
        "all 2 missing names match after the rename given and then removing the prefix `y/`: "
        "pass rename=[{'x/': ''}, ('^y/', '')]"
    )
    assert halfway.to_dict()["rename"] == [{"x/": ""}, ["^y/", ""]]
    assert len(told(model, values(("x/a/w", 1), ("y/b/w", 2), ("y/b/v", 3)), rename=halfway.guess.rename).restored) == 3
    wrong = told(model, saved, rename=_named)
    assert str(wrong.guess).startswith("2 of 3 missing names match after the rename given and then removing")
    assert json.dumps(wrong.to_dict()["rename"]) == '["_named", ["^mine/", ""]]'
    assert "match without rename" in str(told(model, saved, rename=_named, include="b/").guess)


NOTHING_FITS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a key": ({"rename": {"hidden/weight": "w"}},
              ["rename: 'hidden/weight' fits no key"]),
    "a scope without a slash": ({"rename": {"hidden": "h"}},
                                ["rename: 'hidden' fits no key; it is a scope, write 'hidden/' for all in it"]),
    "a scope": ({"rename": {"bert/": ""}}, ["rename: 'bert/' fits no key"]),
    "one of two expressions": ({"rename": [("^bert/", ""), ("^hidden/", "hidden/")]},
                               ["rename: the expression '^bert/' fits no key"]),
    "a glob": ({"include": ["logits/*", "hiden/*"]}, ["include='hiden/*' fits no variable"]),
    "an expression": ({"exclude": re.compile("^x$")}, ["exclude='^x$' fits no variable"]),
    "a set": ({"include": "local"}, ["include='local' fits no variable"]),
    "a set left out": ({"exclude": "local"}, []),
    "a function": ({"include": lambda variable: False}, ["include=the function <lambda> fits no variable"]),
    "all fit": ({"include": ["hidden/", "slots"], "rename": {"hidden/weights": "hidden/weights"}}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING_FITS)
def test_what_fits_nothing_is_told(name: str) -> None:
    options, expected = NOTHING_FITS[name]
    notes = told(_load(MLP.meta), load_checkpoint(MLP.prefix), **options).notes
    assert [note.partition("; near names: hidden/")[0] for note in notes] == expected


@pytest.mark.parametrize("selection", [3, [3], b"w", [["w"], 4], re.compile(b"w")])
def test_what_is_no_selection(selection: Any) -> None:
    for argument in ("include", "exclude"):
        with pytest.raises(ValueError, match=argument):
            gr.restore(_load(MLP.meta), **{argument: selection})


def test_variables_themselves_are_chosen() -> None:
    model = graph({"a": (1,), "b": (1,), "c": (1,)})
    saved = values(("a", 1), ("b", 1), ("c", 1))
    assert list(told(model, saved, include=[model.variables["a"], "c"]).restored) == ["a", "c"]
    assert list(told(model, saved, exclude=model.variables["a"]).restored) == ["b", "c"]
    other = replace(model.variables["a"], name="x")
    assert told(model, saved, include=other).notes == ("include='x' fits no variable",)


def test_a_scope_is_all_that_is_in_it() -> None:
    restored = told(_load(MLP.meta), include="hidden/", exclude="slots").restored
    assert {name.split("/")[1] for name in restored} == {"weights", "biases"} and len(restored) == 4


OBJECT_RENAMES: list[tuple[dict[str, str], dict[str, tuple[int, ...]]]] = [
    ({"net/": "model/"}, {"model/w": (3, 2), "model/b": (2,)}),  # the variables' full names
    ({"layers/first/": "a/", "layers/last/": "b/"}, {"a/w": (3, 2), "b/bias": (2,)}),  # the paths through the objects
]


@pytest.mark.parametrize(("rename", "shapes"), OBJECT_RENAMES)
def test_names_in_an_object_based_checkpoint_can_be_renamed(rename: Any, shapes: Any) -> None:
    checkpoint = load_checkpoint(OBJECTS.other_prefixes["objects"])
    shapes = {name: checkpoint["net/w" if name.endswith("w") else "net/b"].shape for name in shapes}
    report = told(graph(shapes), checkpoint, rename=rename, strict=True)
    keys = ["layers/first/w/.ATTRIBUTES/VARIABLE_VALUE", "layers/last/bias/.ATTRIBUTES/VARIABLE_VALUE"]
    assert list(report.restored.values()) == keys and report.notes == ()


def test_names_of_all_fashions_fit() -> None:
    checkpoint = load_checkpoint(OBJECTS.other_prefixes["objects"])
    w, b = checkpoint["net/w"].read(), checkpoint["net/b"].read()
    report = told(_load(OBJECTS.graph_pb), {"net/w:0": w, "net/b": b}, include="net/?", strict=True)
    assert report.restored == {"net/w": "net/w:0", "net/b": "net/b"}
    model = graph({"kernel": w.shape, "kernel_1": b.shape})  # as TensorFlow 2's SavedModels have them
    keys = {"kernel": "layers/first/w/.ATTRIBUTES/VARIABLE_VALUE", "kernel_1": "last/.ATTRIBUTES/VARIABLE_VALUE"}
    known = [replace(one, checkpoint_key=keys[one.name], authority={"checkpoint_key": "x"}) for one in model.variables]
    by_path = told(replace(model, variables=Variables(known)), {"layers/first/w": w, "last": b}, strict=True)
    assert by_path.restored == {"kernel": "layers/first/w", "kernel_1": "last"}


def test_a_guess_for_an_object_based_checkpoint() -> None:
    checkpoint = load_checkpoint(OBJECTS.other_prefixes["objects"])
    model = graph({"m/first/w": checkpoint["net/w"].shape, "m/last/bias": checkpoint["net/b"].shape})
    assert told(model, checkpoint).to_dict()["rename"] == [["^layers/", "m/"]]
    assert len(told(model, checkpoint, rename="auto").restored) == 2


# the report


def test_what_was_done_to_each_variable_is_told() -> None:
    saved = {"old/w": np.float64([1.5, 2]), "b": np.float32([0]), "b/ExponentialMovingAverage": np.float32([5]),
             "table": load_checkpoint(case("partitioned/tf1.15.5-v2").prefix)["embedding/table"]}  # fmt: skip
    model = graph({"w": (2,), "b": (1,), "table": (10, 4)})
    report = told(model, saved, rename={"old/": ""}, cast=True, moving_averages=True, strict=True)
    loss = "float64 to float32; precision or range may be lost"
    assert report.restored == {"w": "old/w", "b": "b/ExponentialMovingAverage", "table": "table"}
    assert (report.renamed, report.averaged) == ({"w": "old/w"}, {"b": "b/ExponentialMovingAverage"})
    assert (report.cast, report.joined, report.sources) == ({"w": loss}, {"table": 3}, {})
    assert str(report).splitlines() == [
        "3 restored, 0 missing, 0 mismatched, 1 unused keys in the values given",
        f"  restored    w from old/w: renamed, cast from {loss}",
        "  restored    b from b/ExponentialMovingAverage: its moving average",
        "  restored    table from table: joined from 3 slices",
        "  unused      b float32 [1]",
    ]
    assert report.changes() == ["b takes its moving average, b/ExponentialMovingAverage", f"w is cast from {loss}"]
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["cast"] == {"w": loss} and plain["joined"] == {"table": 3} and plain["unused"] == ["b"]
    assert (plain["guess"], plain["rename"], plain["near"]) == (None, None, {})


def test_parts_of_another_partitioning_are_joined_too() -> None:
    """Of the checkpoint's slices of 4, 3 and 3 rows a part takes those it meets."""
    saved = {"t": load_checkpoint(case("partitioned/tf1.15.5-v2").prefix)["embedding/table"]}
    restored = gr.restore(graph({"t/part_0": (5, 4), "t/part_1": (5, 4)}), saved, strict=True)
    assert restored.restoration is not None and restored.restoration.joined == {"t/part_0": 2, "t/part_1": 2}
    parts = [variable.value.read() for variable in restored.variables if variable.value]
    assert np.array_equal(np.concatenate(parts), saved["t"].read())


LOSSES = {
    "integers": (np.float32([1.9, np.nan, 3e9, -2]), np.int32, "2 of 4 values are NaN, too large"),
    "narrower": (
        np.int64([1, 2**40, -5, 0]),
        np.int32,
        "1 of 4 values are NaN, too large or of the wrong sign for int32",
    ),
    "unsigned": (np.int32([1, -1, 2, 3]), np.uint32, "1 of 4 values are .* of the wrong sign for uint32"),
    "floats": (
        np.float64([1, 1e300, np.inf, np.nan]),
        np.float32,
        "1 of 4 values are too large for float32 and become inf",
    ),
    "complex": (
        np.complex64([1, 1j, 2, 3]),
        np.float32,
        "1 of 4 values are complex, and float32 drops their imaginary part",
    ),
    "nothing": (np.float32([1.5, -2.5, 3, 4]), np.int32, None),
}


@pytest.mark.parametrize("name", LOSSES)
def test_values_that_a_cast_loses_are_counted(name: str) -> None:
    given, wanted, words = LOSSES[name]
    message = GraphDef()
    node = message.node.add(name="w", op="VariableV2")
    node.attr["dtype"].type = from_numpy(np.dtype(wanted))
    node.attr["shape"].shape.dim.add(size=4)
    value = gr.restore(gr.load(message), {"w": given}, cast=True).variables["w"].value
    with warnings.catch_warnings(record=True) as told_of:
        warnings.simplefilter("always")
        found = value.read()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(found, given.astype(wanted))
    assert [one.filename for one in told_of] == ([__file__] if words else [])
    assert words is None or re.search(words, str(told_of[0].message))


def test_a_cast_that_loses_nothing() -> None:
    assert told(graph({"w": (1,)}), {"w": np.float16([1])}, cast=True).cast == {"w": "float16 to float32"}


def test_strict_names_the_guess() -> None:
    with pytest.raises(gr.RestoreError, match="no key w in .*tower/w\n.*\n.*removing the prefix `tower/`"):
        gr.restore(_load(MISMATCH.graph_pb), MISMATCH.other_prefixes["renamed"], strict=True)


def test_thousands_of_missing_names() -> None:
    """Near names are told for the first of them only, and the guess needs no look at every pair."""
    names = [f"l{number // 10}/b{number % 10}/kernel" for number in range(3000)]
    report = told(graph({f"new/{name}": (1,) for name in names}), {f"old/{name}": np.float32([1]) for name in names})
    assert report.guess is not None and report.guess.certain and report.guess.matched == 3000
    near = report.to_dict()["near"]
    assert len(near) == 50 and near["new/l0/b3/kernel"][0] == "old/l0/b3/kernel"


def test_near_names_among_very_many() -> None:
    names = [f"scope_{number}/weights" for number in range(5000)] + ["hidden/weights", "momentum"]
    assert near_names("hidden/wieghts", names)[0] == "hidden/weights"
    assert near_names("momentun", names)[0] == "momentum"
