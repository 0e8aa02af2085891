"""Models in containers: event files, run directories, SavedModels, session bundles."""
from __future__ import absolute_import, division, print_function

import os

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.saved_model import builder

from files import affine
from model import OLD_AND_NEW, SINCE_1_4, Model, recipe
from tables import strings, vocabulary_file, vocabulary_ids, words_placeholder
from versions import RELEASE, dense, numbers, tables_initializer


@recipe(SINCE_1_4)
def monitored(folder):
    """The run directory of a MonitoredTrainingSession: checkpoints, state file, graph.pbtxt, event file."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    y = tf.identity(dense(x, 2, "layer"), name="y")
    loss = tf.reduce_mean(tf.square(y - 1.0))
    tf.summary.scalar("loss", loss)
    train = tf.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=tf.train.get_or_create_global_step())
    feeds = {x: numbers(71, 2, 3)}

    def savers(version):
        saver = tf.train.Saver(write_version=version)
        with tf.train.MonitoredTrainingSession(
                checkpoint_dir=os.path.join(folder, "run"), scaffold=tf.train.Scaffold(saver=saver),
                save_checkpoint_secs=900, save_summaries_steps=2) as session:
            for _ in range(6):
                session.run(train, feeds)
        return [("", "run/model.ckpt-6", saver)]

    model = Model([y], [feeds])
    model.savers, model.already_saved = savers, True
    model.facts = {"run_directory": "run"}
    return model


@recipe()
def events(folder):
    """An event file whose graph comes after a hundred summaries and before a hundred more."""
    def after(recording):
        writer = tf.summary.FileWriter(recording.path("events"))
        for number in range(200):
            if number == 100:
                writer.add_graph(recording.session.graph)
            value = tf.Summary.Value(tag="loss_%d" % (number % 3), simple_value=1.0 / (number + 1))
            writer.add_summary(tf.Summary(value=[value]), number)
        writer.close()

    model = affine()
    model.after = after
    model.facts = {"events": "events"}
    return model


@recipe()
def event_start(folder):
    """An event file that begins with the graph and its MetaGraph, as FileWriter(graph=...) writes it."""
    def after(recording):
        writer = tf.summary.FileWriter(recording.path("events"), graph=recording.session.graph)
        writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag="loss", simple_value=0.5)]), 1)
        writer.close()

    model = affine()
    model.after = after
    model.facts = {"events": "events"}
    return model


def signature(inputs, outputs, method="tensorflow/serving/predict"):
    """A SignatureDef of {key: tensor} inputs and outputs."""
    made = meta_graph_pb2.SignatureDef(method_name=method)
    for field, tensors in ((made.inputs, inputs), (made.outputs, outputs)):
        for key, tensor in tensors.items():
            field[key].name = tensor.name
            field[key].dtype = tensor.dtype.base_dtype.as_datatype_enum
            field[key].tensor_shape.CopyFrom(tensor.get_shape().as_proto())
    return made


def signature_facts(signatures):
    def names(infos):
        return {key: info.name for key, info in infos.items()}
    return {key: {"inputs": names(s.inputs), "outputs": names(s.outputs), "method": s.method_name}
                for key, s in signatures.items()}


@recipe()
def saved_model(folder):
    """A SavedModel with two signatures."""
    model = affine()
    x, y = next(iter(model.runs[0])), model.fetches[0]
    doubled = tf.multiply(y, 2.0, name="doubled")
    model.fetches.append(doubled)
    signatures = {"serving_default": signature({"rows": x}, {"scores": y}),
                  "double": signature({"rows": x}, {"scores": y, "doubled": doubled})}

    def after(recording):
        writer = builder.SavedModelBuilder(recording.path("saved_model"))
        writer.add_meta_graph_and_variables(recording.session, ["serve"], signature_def_map=signatures)
        writer.save()

    model.after = after
    model.write_meta = False
    model.facts = {"saved_model": {"path": "saved_model", "meta_graphs": [
        {"tags": ["serve"], "signatures": signature_facts(signatures)}]}}
    return model


@recipe()
def saved_model_assets(folder):
    """A SavedModel that carries the vocabulary file of its table."""
    words = words_placeholder()
    ids = vocabulary_ids(words, vocabulary_file(folder))
    weights = tf.Variable(tf.zeros([6]), name="weights")
    y = tf.gather(weights, ids, name="y")
    init_tables = tables_initializer()
    signatures = {"serving_default": signature({"words": words}, {"weights": y})}

    def after(recording):
        writer = builder.SavedModelBuilder(recording.path("saved_model"))
        init = {"main_op" if RELEASE >= (1, 15) else "legacy_init_op": init_tables}
        writer.add_meta_graph_and_variables(
            recording.session, ["serve"], signature_def_map=signatures,
            assets_collection=tf.get_collection(tf.GraphKeys.ASSET_FILEPATHS), **init)
        writer.save()

    model = Model([y], [{words: strings(b"yew", b" ", b"larch")}])
    model.init_ops, model.after, model.write_meta = [init_tables], after, False
    model.facts = {"saved_model": {"path": "saved_model", "assets": ["vocabulary.txt"], "meta_graphs": [
        {"tags": ["serve"], "signatures": signature_facts(signatures)}]}}
    return model


@recipe()
def saved_model_two_tags(folder):
    """A SavedModel with a MetaGraph for training and one, of another graph, for serving on a GPU; variables shared."""
    model = affine()
    x, y = next(iter(model.runs[0])), model.fetches[0]
    tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_sum(y), name="train")
    training = {"train": signature({"rows": x}, {"scores": y})}
    facts = []

    def after(recording):
        writer = builder.SavedModelBuilder(recording.path("saved_model"))
        writer.add_meta_graph_and_variables(recording.session, ["train"], signature_def_map=training)
        with tf.Graph().as_default():
            other = affine()
            rows, scores = next(iter(other.runs[0])), tf.nn.softmax(other.fetches[0], name="softmax")
            serving = {"serving_default": signature({"rows": rows}, {"softmax": scores})}
            writer.add_meta_graph(["serve", "gpu"], signature_def_map=serving)
        writer.save()
        facts.append({"tags": ["train"], "signatures": signature_facts(training)})
        facts.append({"tags": ["serve", "gpu"], "signatures": signature_facts(serving)})

    model.after, model.write_meta = after, False
    model.facts = {"saved_model": {"path": "saved_model", "meta_graphs": facts}}
    return model


@recipe(OLD_AND_NEW)
def saved_model_text(folder):
    """A SavedModel written as text: saved_model.pbtxt."""
    model = affine()
    signatures = {"serving_default": signature({"rows": next(iter(model.runs[0]))}, {"scores": model.fetches[0]})}

    def after(recording):
        writer = builder.SavedModelBuilder(recording.path("saved_model"))
        writer.add_meta_graph_and_variables(recording.session, ["serve"], signature_def_map=signatures)
        writer.save(as_text=True)

    model.after, model.write_meta = after, False
    model.facts = {"saved_model": {"path": "saved_model", "meta_graphs": [
        {"tags": ["serve"], "signatures": signature_facts(signatures)}]}}
    return model


@recipe({(0, 12): "v1", (1, 4): "v2"})
def session_bundle(folder):
    """What came before the SavedModel: an export directory with named signatures and an asset."""
    from tensorflow.contrib.session_bundle import exporter

    words = words_placeholder()
    ids = vocabulary_ids(words, vocabulary_file(folder))
    weights = tf.Variable(tf.zeros([6, 2]), name="weights")
    y = tf.nn.softmax(tf.gather(weights, ids), name="y")
    init_tables = tables_initializer()

    def after(recording):
        export = exporter.Exporter(recording.savers[0][2])
        export.init(tf.get_default_graph().as_graph_def(), init_op=init_tables, clear_devices=True,
                    default_graph_signature=exporter.classification_signature(input_tensor=words, scores_tensor=y),
                    named_graph_signatures={"inputs": exporter.generic_signature({"words": words}),
                                            "outputs": exporter.generic_signature({"scores": y})},
                    assets_collection=tf.get_collection(tf.GraphKeys.ASSET_FILEPATHS))
        export.export(recording.path("bundle"), tf.constant(7), recording.session)

    model = Model([y], [{words: strings(b"oak", b"fir")}])
    model.savers = lambda version: [("", "model.ckpt", tf.train.Saver(sharded=True, write_version=version))]
    model.init_ops, model.after, model.write_meta = [init_tables], after, False
    model.facts = {"session_bundle": {"path": "bundle/00000007", "assets": ["vocabulary.txt"], "signatures": {
        "default": {"input": words.name, "scores": y.name},
        "inputs": {"words": words.name}, "outputs": {"scores": y.name}}}}
    return model
