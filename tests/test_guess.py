"""The guess at renamed scopes, and rename='auto': right when there is one answer, silent or careful when not."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from corpus import case

import graph_restore as gr
from graph_restore.transforms.guess import Guess

Shapes = dict[str, tuple[int, ...]]
NET: Shapes = {"dense/kernel": (4, 3), "dense/bias": (3,), "out/kernel": (3, 2), "out/bias": (2,)}


def _graph(shapes: Shapes, extra: str = "") -> gr.Model:
    dims = {name: " ".join(f"dim {{ size: {size} }}" for size in shape) for name, shape in shapes.items()}
    nodes = [
        f'node {{ name: "{name}" op: "VariableV2" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }} '
        f'attr {{ key: "shape" value {{ shape {{ {dims[name]} }} }} }} }}'
        for name in shapes
    ]
    return gr.load("\n".join([*nodes, extra]).encode())


def _values(shapes: Shapes) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.full(shape, number, np.float32) for number, (name, shape) in enumerate(shapes.items())}


def _under(prefix: str, shapes: Shapes = NET) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("graph", "checkpoint", "words"),
    [
        ("", "model/", "removing the prefix `model/`"),
        ("", "a/b.c/", "removing the prefix `a/b.c/`"),
        ("model/", "", "adding the prefix `model/`"),
        ("tower_0/", "net/", "replacing the prefix `net/` by `tower_0/`"),
        ("a/b/", "a/c/d/", "replacing the prefix `a/c/d/` by `a/b/`"),
        ("x/x/", "x/", "adding the prefix `x/`"),
        ("x/", "x/x/", "removing the prefix `x/`"),
    ],
)
def test_a_prefix(graph: str, checkpoint: str, words: str) -> None:
    # one variable has no scope at all, so that the graph is no import under a prefix
    model = _graph({**_under(graph), "step": (7,)})
    shapes = _under(checkpoint)
    values = {**_values(shapes), "step": np.zeros(7, np.float32)}
    report = gr.restore(model, values).restoration
    assert report is not None and isinstance(report.guess, Guess)
    assert report.guess.certain and (report.guess.matched, report.guess.wanted) == (4, 4)
    assert str(report.guess).startswith(f"all 4 missing names match after {words}: pass rename=[")
    assert str(report.guess).endswith("or rename='auto'")
    for rename in ("auto", report.guess.rename):
        restored = gr.restore(model, values, rename=rename, strict=True)
        assert restored.restoration is not None and not restored.restoration.unused
        assert restored.restoration.restored == {"step": "step", **{graph + name: checkpoint + name for name in NET}}
        for name in NET:
            value = restored.variables[graph + name].value
            assert value is not None and value.read().tolist() == values[checkpoint + name].tolist()
        if rename == "auto":
            assert any(note.startswith("rename='auto': all 4") for note in restored.restoration.notes)


def test_the_report() -> None:
    model = _graph({**_under("model/"), "step": ()})  # one name without a scope: the graph is no import under a prefix
    report = gr.restore(model, _values({**NET, "other": (1,), "step": ()})).restoration
    assert report is not None
    found = json.loads(json.dumps(report.to_dict()))
    assert "dense/kernel" in found["near"]["model/dense/kernel"]
    assert set(found["near"]) == set(report.missing) == set(_under("model/"))
    assert found["guess"] == str(report.guess) and "adding the prefix `model/`" in found["guess"]
    lines = str(report).splitlines()
    assert lines[0] == "1 restored, 4 missing, 0 mismatched, 5 unused keys in the values given"
    assert "  missing     model/out/bias (no key model/out/bias; near: out/bias" in str(report)
    assert f"  guess: {report.guess}" in lines and "  unused      other float32 [1]" in lines
    fits = gr.restore(_graph(NET), _values(NET)).restoration
    assert fits is not None and fits.guess is None and fits.to_dict()["guess"] is None and "guess" not in str(fits)


def test_the_keys_that_fit_already_stay() -> None:
    """A step counter that needs no prefix must not get one, and a key with the new name must not be overwritten."""
    model = _graph({**_under("model/"), "global_step": (), "model/extra": (5,)})
    shapes: Shapes = {**NET, "global_step": (), "model/extra": (5,), "extra": (5,)}
    restored = gr.restore(model, _values(shapes), rename="auto", strict=True)
    assert restored.restoration is not None
    assert restored.restoration.restored == {
        **{f"model/{name}": name for name in NET}, "global_step": "global_step", "model/extra": "model/extra",
    }  # fmt: skip
    assert restored.restoration.unused == ("extra",)
    report = gr.restore(model, _values(shapes)).restoration
    assert report is not None and report.guess is not None
    assert set(report.guess.kept) == {"global_step", "model/extra", "extra"}
    assert gr.restore(model, _values(shapes), rename=report.guess.rename, strict=True).restoration is not None


@pytest.mark.parametrize("scopes", [("a/", "b/"), ("a/", "a/copy/")])
def test_two_scopes_that_fit_are_not_certain(scopes: tuple[str, str]) -> None:
    values = _values({**_under(scopes[0]), **_under(scopes[1])})
    report = gr.restore(_graph(NET), values).restoration
    assert report is not None and report.guess is not None and not report.guess.certain
    assert report.guess.matched == 4 and "rename='auto'" not in str(report.guess)
    with pytest.raises(gr.RestoreError, match="no one change of names fits; the nearest: all 4 missing") as caught:
        gr.restore(_graph(NET), values, rename="auto")
    assert set(caught.value.missing) == set(NET) and len(caught.value.unused) == 8


def test_one_scope_fits_better() -> None:
    """The other one lacks a tensor, or has one of another shape."""
    lacking = {name: shape for name, shape in _under("b/").items() if name != "b/out/bias"}
    for other in (lacking, {**_under("b/"), "b/out/bias": (9,)}):
        restored = gr.restore(_graph(NET), _values({**_under("a/"), **other}), rename="auto", strict=True)
        assert restored.restoration is not None
        assert set(restored.restoration.restored.values()) == set(_under("a/"))


def test_a_part_of_the_names() -> None:
    values = _values({name: shape for name, shape in _under("m/").items() if "bias" not in name})
    report = gr.restore(_graph(NET), values).restoration
    assert report is not None and report.guess is not None and not report.guess.certain
    assert str(report.guess) == ("2 of 4 missing names match after removing the prefix `m/`: pass rename=[('^m/', '')]")
    with pytest.raises(gr.RestoreError, match="the nearest: 2 of 4 missing names"):
        gr.restore(_graph(NET), values, rename="auto")


@pytest.mark.parametrize(
    "checkpoint",
    [
        {f"m/{name}": (*shape, 1) for name, shape in NET.items()},
        {"m/other": (4, 3), "m/kernel_1": (4, 3)},
        {},
    ],
    ids=["other shapes", "other names", "nothing"],
)
def test_no_false_guess(checkpoint: Shapes) -> None:
    report = gr.restore(_graph(NET), _values(checkpoint)).restoration
    assert report is not None and report.guess is None and report.to_dict()["guess"] is None
    with pytest.raises(gr.RestoreError, match="the nearest: none"):
        gr.restore(_graph(NET), _values(checkpoint), rename="auto")


def test_auto_changes_nothing_where_nothing_is_missing() -> None:
    restored = gr.restore(_graph(NET), _values({**NET, **_under("copy/")}), rename="auto", strict=True)
    assert restored.restoration is not None
    assert restored.restoration.notes == ("rename='auto' changed nothing: no name is missing",)


def test_auto_looks_at_the_chosen_variables_only() -> None:
    """A new head that no checkpoint can have does not make the body uncertain."""
    model = _graph({**NET, "head/kernel": (2, 9)})
    values = _values(_under("old/"))
    with pytest.raises(gr.RestoreError, match="4 of 5"):
        gr.restore(model, values, rename="auto")
    for chosen in ({"exclude": "head/*"}, {"include": ["dense/*", "out/*"]}):
        restored = gr.restore(model, values, rename="auto", strict=True, **chosen)
        assert restored.restoration is not None and set(restored.restoration.restored) == set(NET)
        assert restored.variables["head/kernel"].value is None


def test_slots_are_set_aside() -> None:
    """A checkpoint without the optimizer's slots: the guess is about the rest."""
    slots = {f"{name}/{slot}": shape for name, shape in NET.items() for slot in ("Adam", "Adam_1")}
    model = _graph({**NET, **slots})
    assert sum(variable.is_slot for variable in model.variables) == 8
    values = _values(_under("m/"))
    report = gr.restore(model, values).restoration
    assert report is not None and report.guess is not None
    assert report.guess.certain and report.guess.slots_aside and report.guess.wanted == 4
    assert "all 4 missing names (optimizer slots aside) match" in str(report.guess)
    restored = gr.restore(model, values, rename="auto")
    assert restored.restoration is not None
    assert set(restored.restoration.restored) == set(NET) and set(restored.restoration.missing) == set(slots)
    # and where only slots are missing, they are what is guessed for
    only = gr.restore(model, {**_values(NET), **_values(_under("m/", slots))}).restoration
    assert only is not None and only.guess is not None and only.guess.wanted == 8 and not only.guess.slots_aside


def test_unknown_shapes_agree_with_any() -> None:
    unknown = """node { name: "free" op: "VarHandleOp" attr { key: "dtype" value { type: DT_FLOAT } }
                 attr { key: "shape" value { shape { unknown_rank: true } } } }"""
    model = _graph(NET, unknown)
    restored = gr.restore(model, _values({**_under("m/"), "m/free": (3, 3, 3)}), rename="auto", strict=True)
    assert restored.variables["free"].value is not None


@pytest.mark.parametrize("identity", ["mismatch/tf0.12.1-v1", "mismatch/tf1.4.1-v2", "mismatch/tf1.15.5-v2"])
def test_auto_on_a_renamed_checkpoint(identity: str) -> None:
    """Saved under `tower/` by TensorFlow; the saver in the graph names the keys without it."""
    one = case(identity)
    restored = gr.restore(gr.load(one.graph_pb), one.other_prefixes["renamed"], rename="auto", strict=True)
    for name in ("w", "b"):
        value = restored.variables[name].value
        assert value is not None
        assert value.read().tobytes() == one.oracle["checkpoint"]["renamed"][f"tower/{name}"].tobytes()


@pytest.mark.parametrize("rename", ["automatic", "tower/", ""])
def test_other_texts_are_no_rename(rename: str) -> None:
    with pytest.raises(ValueError, match="rename is a mapping, a function, pairs or 'auto'"):
        gr.restore(_graph(NET), _values(NET), rename=rename)


def test_thousands_of_names() -> None:
    """Every key ends alike and has the same shape, so that each may be any other."""
    shapes: Shapes = {f"layer_{number}/kernel": (2,) for number in range(3000)}
    model, values = _graph(shapes), _values(_under("m/", shapes))
    start = time.perf_counter()
    restored = gr.restore(model, values, rename="auto", strict=True)
    assert time.perf_counter() - start < 20
    assert restored.restoration is not None and restored.restoration.restored["layer_7/kernel"] == "m/layer_7/kernel"
