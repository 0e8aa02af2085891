"""Session: every model of the corpus by the names of its tensors, in the middle of an eager program."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases
from test_runtime import assert_same

import graph_restore as gr

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")]


@pytest.mark.parametrize("one", cases(), ids=lambda one: one.id)
def test_every_model_gives_what_it_gave(one: Case) -> None:
    names = list(one.oracle["outputs"])
    with gr.Session(gr.restore(gr.load(one.graph_pb), one.prefix)) as session:
        found = session.run(names, one.oracle["feeds"])
    for name, value in zip(names, found):
        assert_same(value, one.oracle["outputs"][name], name)


@pytest.mark.parametrize("identity", ["convnet/tf0.12.1-v1", "vocabulary/tf1.4.1-v2", "lstm_dynamic/tf1.15.5-v2"])
def test_a_frozen_model(identity: str) -> None:
    one = case(identity)
    names, feeds = list(one.oracle["outputs"]), list(one.oracle["feeds"])
    frozen = gr.freeze(gr.restore(gr.load(one.graph_pb), one.prefix), names, feeds, tables="init_op")
    with gr.Session(frozen) as session:
        found = session.run({name: name for name in names}, one.oracle["feeds"])
    for name in names:
        assert_same(found[name], one.oracle["outputs"][name], name)


def test_structures_bare_names_nodes_without_outputs_and_variables() -> None:
    one = case("resource/tf1.15.5-v1")
    model = gr.restore(gr.load(one.graph_pb), one.prefix)
    variable = next(v for v in model.variables if v.kind == "resource" and v.value is not None)
    with gr.Session(model) as session:
        value, same = session.run((variable.name, [f"{variable.name}:0"]))
        assert session.run("init") is None
        np.testing.assert_array_equal(value, variable.value.read())
        np.testing.assert_array_equal(same[0], value)


def test_a_model_with_a_checkpoint_of_its_own_needs_no_restore() -> None:
    one = case("linear/tf0.12.1-v1")
    with gr.Session(one.meta) as session:
        assert_same(session.run("y", one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")


def test_without_values_the_error_says_what_to_do_and_the_models_own_init_runs() -> None:
    one = case("linear/tf1.4.1-v2")
    graph = gr.load(one.graph_pb.read_bytes())
    with gr.Session(graph) as session:
        with pytest.raises(gr.GraphRestoreError, match="has not been restored.*checkpoint="):
            session.run("y:0", one.oracle["feeds"])
        session.run("init")
        session.run("y:0", one.oracle["feeds"])
    with gr.Session(graph, checkpoint=one.prefix) as session:
        assert_same(session.run("y:0", one.oracle["feeds"]), one.oracle["outputs"]["y:0"], "y")


def test_names_that_are_not_there() -> None:
    one = case("linear/tf1.4.1-v2")
    with gr.Session(one.graph_pb, checkpoint=one.prefix) as session:
        with pytest.raises(gr.NodeNotFoundError, match="no node 'yy'; near names: y"):
            session.run("yy:0")
        with pytest.raises(gr.NodeNotFoundError, match="1 outputs, not y:3"):
            session.run("y:3", one.oracle["feeds"])


def test_signatures() -> None:
    one = case("saved_model/tf1.4.1-v2")
    with gr.Session(one.directory / "saved_model") as session:
        name = "serving_default"
        assert name in session.signatures
        signature = session.model.signatures[name]
        feeds = {key: one.oracle["feeds"][info.name] for key, info in signature.inputs.items()}
        found = session.signatures[name](**feeds)
        for key, info in signature.outputs.items():
            assert_same(found[key], one.oracle["outputs"][info.name], key)
        with pytest.raises(gr.NodeNotFoundError, match="has no input 'nonsense'"):
            session.signatures[name](nonsense=1)


@pytest.mark.parametrize("source", ["graph_pb", "meta"])
@pytest.mark.parametrize("identity", ["queue_input/tf0.12.1-v1", "queue_input/tf1.15.5-v2"])
def test_queue_runners(identity: str, source: str) -> None:
    one = case(identity)
    with gr.Session(getattr(one, source), checkpoint=one.prefix, queue_runners=True) as session:
        dequeue = next(
            name for name, node in session.model.graph.nodes.items() if node.op.startswith("QueueDequeueMany")
        )
        first, second = session.run(dequeue), session.run(dequeue)
    assert first.shape == second.shape and first.size


def test_several_at_a_time_and_the_program_around_stays_eager() -> None:
    import tensorflow as tf

    identities = ["linear/tf0.12.1-v1", "convnet/tf1.4.1-v2", "cond/tf1.15.5-v2", "vocabulary/tf1.4.1-v2"]
    failures: list[Any] = []

    def work(one: Case) -> None:
        try:
            with gr.Session(gr.restore(gr.load(one.graph_pb), one.prefix), threads=(1, 1)) as session:
                for name, value in one.oracle["outputs"].items():
                    feeds = {key: tf.constant(value) for key, value in one.oracle["feeds"].items()}
                    assert_same(session.run(name, feeds), value, name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(case(identity),)) for identity in identities]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and tf.executing_eagerly()


def test_settings_reach_tensorflow() -> None:
    import tensorflow as tf

    one = case("linear/tf1.15.5-v2")
    given = tf.compat.v1.ConfigProto(operation_timeout_in_ms=60000)
    with gr.Session(one.graph_pb, checkpoint=one.prefix, threads=(2, 3), device="/CPU:0", config=given) as session:
        config = session.session._config
        assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (2, 3)
        assert config.allow_soft_placement and config.gpu_options.allow_growth
        assert config.operation_timeout_in_ms == 60000 and not given.allow_soft_placement
        assert session.graph.get_operation_by_name("y").device == "/device:CPU:0"
