"""Contexts of conds and loops: those that genuine releases listed, and gradients through them in graph mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from corpus import Case, cases
from test_functionalize import BUILDS, Build, X, built
from test_module import old_control_flow

import graph_restore as gr
from graph_restore.protos import CondContextDef, WhileContextDef
from graph_restore.transforms.flow_contexts import flow_contexts

MODELS = {"cond", "convnet", "lstm_dynamic", "update_in_cond", "update_in_while", "while_loop"}
WITH_CONTEXTS = [one for one in cases() if one.model in MODELS and one.meta is not None]
__all__ = ["old_control_flow"]


def listed(contexts: list[Any]) -> list[Any]:
    """These and all that are in them."""
    found = list(contexts)
    for context in found:  # grows while it is walked
        found += [one.while_ctxt if one.HasField("while_ctxt") else one.cond_ctxt for one in context.nested_contexts]
    return found


def genuine(one: Case) -> list[Any]:
    collections = gr.load(one.meta).collections
    found: list[Any] = []
    for name, kind in (("cond_context", CondContextDef), ("while_context", WhileContextDef)):
        found += [kind.FromString(data) for data in collections[name].bytes_list.value] if name in collections else []
    return listed(found)


def predicate(graph: Any, context: Any) -> tuple[str, int]:
    """What decides on a cond, and the branch; an Identity passes it on to the Switches of each cond."""
    node = graph.nodes[context.pred_name.rpartition(":")[0]]
    return (node.input[0] if node.op == "Identity" else node.name).removesuffix(":0"), context.branch


def nodes_of(context: Any) -> set[str]:
    """The nodes of a context: what it knows but does not take from outside."""
    outside = set(context.values_def.external_values)
    return {name.rpartition(":")[0] for name in context.values_def.values if name not in outside}


@pytest.mark.parametrize("one", WITH_CONTEXTS, ids=lambda one: one.id)
def test_they_are_those_of_a_genuine_release(one: Case) -> None:
    graph = gr.load(one.graph_pb).graph
    found = listed([context for several in flow_contexts(graph).values() for context in several])
    conds = {predicate(graph, context): context for context in found if isinstance(context, CondContextDef)}
    loops = {context.context_name: context for context in found if isinstance(context, WhileContextDef)}
    compared = 0
    for context in genuine(one):
        if isinstance(context, CondContextDef):
            ours = conds[predicate(graph, context)]
            assert ours.pivot_name in {each.pivot_name for each in genuine(one) if isinstance(each, CondContextDef)}
            passed_on = {node.name for node in graph.nodes.values() if node.op == "Identity"}  # pred_id is outside
            assert nodes_of(context) - nodes_of(ours) <= passed_on
        else:
            ours = loops[context.context_name]
            for name in ("pivot_name", "pivot_for_pred_name", "pivot_for_body_name", "parallel_iterations"):
                assert getattr(ours, name) == getattr(context, name)
            assert sorted(ours.loop_exit_names) == sorted(context.loop_exit_names)
            if context.loop_enter_names:  # not before 1.2
                assert sorted(ours.loop_enter_names) == sorted(context.loop_enter_names)
        compared += 1
    assert compared


def test_a_graph_without_any() -> None:
    assert flow_contexts(gr.load(next(iter(cases("linear"))).graph_pb).graph) == {}


def gradients_of(y: Any, variables: list[Any]) -> dict[str, Any]:
    import tensorflow as tf

    found = tf.gradients(tf.reduce_sum(tf.square(y)), variables)
    return {v.op.name.rpartition("/")[2]: tf.convert_to_tensor(g) for v, g in zip(variables, found)}


@pytest.mark.tensorflow
@pytest.mark.usefixtures("old_control_flow")
@pytest.mark.parametrize("scopes", [[""], ["one", "two"]], ids=["once", "twice"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_gradients_of_a_bare_graph(build: Build, scopes: list[str]) -> None:
    import tensorflow as tf

    model, expected = built(build, "ref")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for scope in scopes:
            before = set(tf.compat.v1.trainable_variables())
            (x, y), _ = gr.restore_graph(model, return_elements=["x:0", "y:0"], import_scope=scope)
            variables = [v for v in tf.compat.v1.trainable_variables() if v not in before]
            found = session.run({"y": y, **gradients_of(y, variables)}, {x: X})
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.tensorflow
@pytest.mark.usefixtures("old_control_flow")
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_gradients_of_an_exported_meta_graph(build: Build, tmp_path: Any) -> None:
    import tensorflow as tf

    model, expected = built(build, "resource")
    gr.export(model, tmp_path / "model.ckpt.meta")
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(str(tmp_path / "model.ckpt.meta"), import_scope="again")
        saver.restore(session, str(tmp_path / "model.ckpt"))
        y = graph.get_tensor_by_name("again/y:0")
        wanted = {"y": y, **gradients_of(y, tf.compat.v1.trainable_variables())}
        found = session.run(wanted, {"again/x:0": X})
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
