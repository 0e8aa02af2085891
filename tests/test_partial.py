"""freeze(keep_variables=...): some variables stay, with their values, a saver and a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr
from graph_restore.variables import VARIABLE_OPS

pytestmark = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
RUN = (
    "cond", "control_flow_v2", "defun", "linear", "lstm_dynamic", "mutable_table", "partitioned", "resource",
    "resource_partitioned", "scalars_and_empty", "update_in_cond", "update_in_while", "update_resource", "while_loop",
)  # fmt: skip
PICKS = {"first": slice(1), "last": slice(-1, None), "all": slice(None)}


def _restored(one: Case) -> gr.Model:
    return gr.restore(gr.load(one.graph_pb), one.prefix)


def _left(model: gr.Model) -> set[str]:
    return {node.name for node in model.graph.graph_def.node if node.op in VARIABLE_OPS}


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("logits/weights", {"logits/weights"}),
        ("logits/weights:0", {"logits/weights"}),
        (["*/biases"], {"hidden/biases", "logits/biases"}),
        ("trainable", {"hidden/biases", "hidden/weights", "logits/biases", "logits/weights"}),
        (lambda variable: variable.shape == (3,), {"logits/biases"}),
        (None, set()),
        ([], set()),
    ],
)
def test_which_stay(keep: Any, left: set[str]) -> None:
    one = case("mlp/tf1.4.1-v2")
    frozen = gr.freeze(_restored(one), "softmax", keep_variables=keep)
    assert _left(frozen) == set(frozen.variables.names()) == left
    for variable in frozen.variables:
        assert (variable.value.read() == one.oracle["variables"][f"{variable.name}:0"]).all()
        assert (variable.checkpoint_key, variable.trainable) == (variable.name, True)
    assert (frozen.saver_def is not None) == bool(left)


def test_a_name_of_no_variable() -> None:
    with pytest.raises(gr.NodeNotFoundError, match="keep_variables: the graph has no variable 'w2'"):
        gr.freeze(_restored(case("linear/tf1.4.1-v2")), "y", keep_variables=["b", "w2"])


def test_what_the_fetches_do_not_need_is_not_there() -> None:
    model = _restored(case("mlp/tf1.4.1-v2"))
    frozen = gr.freeze(model, "hidden/relu", keep_variables=["hidden/biases", "logits/*"])
    assert frozen.variables.names() == ["hidden/biases"]
    assert frozen.notes[-1].startswith("logits/weights, ") and "the fetches do not need" in frozen.notes[-1]
    assert gr.freeze(model, "features", keep_variables="hidden/*").saver_def is None


def test_the_handle_of_a_variable_is_no_result() -> None:
    model = _restored(case("resource/tf1.15.5-v2"))
    with pytest.raises(
        gr.FreezeError, match="biases is kept, and a resource variable's tensor is a handle; fetch a read"
    ):
        gr.freeze(model, "resource/layer/biases", keep_variables="resource/layer/biases")


def test_initializers_stay_where_they_stand_alone(tmp_path: Path) -> None:
    model = _restored(case("mlp/tf1.4.1-v2"))
    frozen = gr.freeze(model, "softmax", keep_variables="trainable")
    assert {variable.initializer for variable in frozen.variables} == {
        f"{name}/Assign" for name in frozen.variables.names()
    }
    average = "logits/weights/ExponentialMovingAverage"  # its initializer reads another variable
    frozen = gr.freeze(model, average, keep_variables=average)
    assert frozen.variables[average].initializer is None and _left(frozen) == {average}


def test_a_part_without_the_others_is_saved_by_its_own_name(tmp_path: Path) -> None:
    model = _restored(case("partitioned/tf1.15.5-v2"))
    part = "embedding/table/part_1"
    fetches = list(case("partitioned/tf1.15.5-v2").oracle["outputs"])
    for keep, keys in ((part, {part}), ("embedding/table/part_*", {"embedding/table"})):
        frozen = gr.freeze(model, fetches, keep_variables=keep)
        prefix = tmp_path / keys.copy().pop().replace("/", "_")
        gr.export(frozen, prefix, "checkpoint")
        assert set(gr.load_checkpoint(prefix)) == keys
        gr.export(frozen, tmp_path / "graph.pb")
        again = gr.restore(gr.load(tmp_path / "graph.pb"), prefix, strict=True)
        assert (again.variables[part].value.read() == model.variables[part].value.read()).all()


def test_updates_of_what_is_kept_stay() -> None:
    """Frozen whole, this loop is refused: it adds to a variable that it reads."""
    one = case("update_in_while/tf1.15.5-v2")
    fetches = list(one.oracle["outputs"])
    with pytest.raises(gr.FreezeError):
        gr.freeze(_restored(one), fetches)
    frozen = gr.freeze(_restored(one), fetches, keep_variables="total")
    assert "AssignAdd" in {node.op for node in frozen.graph.graph_def.node} and _left(frozen) == {"total"}


def test_what_was_written_is_frozen_to_the_same(tmp_path: Path) -> None:
    one = case("resource/tf1.15.5-v2")
    fetches = list(one.oracle["outputs"])
    whole = gr.freeze(_restored(one), fetches)
    partial = gr.freeze(_restored(one), fetches, keep_variables=lambda variable: "weights" in variable.name)
    gr.export(partial, tmp_path / "graph.pb")
    gr.export(partial, tmp_path / "kept", "checkpoint")
    again = gr.freeze(gr.restore(gr.load(tmp_path / "graph.pb"), tmp_path / "kept"), fetches)
    assert 0 < len(partial.variables) < len(_left(gr.load(one.graph_pb)))
    found, expected = ({n.name: n for n in model.graph.materialize().node} for model in (again, whole))
    assert found == expected


@pytest.mark.tensorflow
@pytest.mark.parametrize("one", [one for one in cases() if one.model in RUN], ids=lambda one: one.id)
def test_tensorflow_restores_what_was_kept(one: Case, tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    model, run = _restored(one), one.oracle["runs"][0]
    fetches = list(run["outputs"])
    names = [variable.name for variable in model.variables if variable.value is not None]
    for number, pick in enumerate(PICKS.values()):
        try:
            frozen = gr.freeze(model, fetches, list(run["feeds"]), keep_variables=names[pick])
        except gr.FreezeError:
            assert "refuse" in one.facts and number < 2  # never when all stay
            continue
        if not len(frozen.variables):
            continue
        prefix = str(tmp_path / str(number))
        gr.export(frozen, prefix, "checkpoint")
        with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(allow_soft_placement=True)) as session:
            tf.import_graph_def(frozen.graph.materialize(), name="")
            saver_def = tf.train.SaverDef.FromString(frozen.saver_def.SerializeToString())
            tf.train.Saver(saver_def=saver_def).restore(session, prefix)
            found = session.run(fetches, run["feeds"])
        for value, expected in zip(map(np.asarray, found), run["outputs"].values()):
            if expected.dtype.kind in "fc":
                np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
            elif "refuse" not in one.facts:  # TensorFlow's own result is not certain there
                assert value.tolist() == expected.tolist()
