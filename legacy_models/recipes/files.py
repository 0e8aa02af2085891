"""Checkpoint files of every shape: shards, tables of many blocks, strangers, twins, moved and nameless ones."""
from __future__ import absolute_import, division, print_function

import os

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import gen_io_ops

from model import BOTH, OLD_AND_NEW, ONLY_1_15, Model, recipe
from versions import RELEASE, numbers


def affine():
    """y = x w + b, for recipes that are about files."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    w = tf.Variable(tf.zeros([3, 2]), name="w")
    b = tf.Variable(tf.zeros([2]), name="b")
    return Model([tf.add(tf.matmul(x, w), b, name="y")], [{x: numbers(51, 2, 3)}])


def save_tensors(path, version, tensors):
    """Saves {key: [(slice specification or "", array or tensor)]} with the raw op, no variables needed."""
    names = [key for key, parts in sorted(tensors.items()) for _ in parts]
    slices = [spec for _, parts in sorted(tensors.items()) for spec, _ in parts]
    with tf.Graph().as_default(), tf.Session() as session:
        values = [tf.convert_to_tensor(value() if callable(value) else value)
                  for _, parts in sorted(tensors.items()) for _, value in parts]
        session.run((_save_slices() if version == 1 else gen_io_ops.save_v2)(path, names, slices, values))


def _save_slices():
    return gen_io_ops._save_slices if RELEASE < (1, 15) else gen_io_ops.save_slices


@recipe(BOTH)
def sharded(folder):
    """Variables on two devices, saved with one shard for each."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    with tf.device("/cpu:0"):
        w = tf.Variable(tf.zeros([3, 4]), name="w")
        b = tf.Variable(tf.zeros([4]), name="b")
    with tf.device("/cpu:1"):
        v = tf.Variable(tf.zeros([4, 2]), name="v")
        y = tf.matmul(tf.matmul(x, w) + b, v, name="y")
    model = Model([y], [{x: numbers(52, 2, 3)}])
    model.config = tf.ConfigProto(device_count={"CPU": 2})
    model.savers = lambda version: [("", "model.ckpt", tf.train.Saver(sharded=True, write_version=version))]
    return model


@recipe(BOTH)
def mismatch(folder):
    """One graph and checkpoints that do not fit it: one key too many, one missing, other shapes, another dtype."""
    w, b = numbers(53, 3, 2), numbers(54, 2)
    strangers = {
        "extra": {"w": w, "b": b, "momentum": numbers(55, 2)},
        "missing": {"w": w},
        "shape": {"w": numbers(56, 3, 5), "b": numbers(57, 5)},
        "reshaped": {"w": w.reshape(2, 3), "b": b},
        "dtype": {"w": w, "b": b.astype(np.float64)},
        "renamed": {"tower/w": w, "tower/b": b},
    }

    def after(recording):
        for tag, values in strangers.items():
            os.mkdir(recording.path(tag))
            prefix = tag + "/model.ckpt"
            save_tensors(recording.path(prefix), recording.version, {k: [("", v)] for k, v in values.items()})
            recording.note_other_checkpoint(tag, prefix, values)

    model = affine()
    model.after = after
    return model


@recipe({(0, 12): "v2", (1, 15): "v2"})
def both_versions(folder):
    """A V2 checkpoint and, under the same prefix, a V1 file with other values; TensorFlow takes V2."""
    values = {"w": numbers(58, 3, 2), "b": numbers(59, 2)}

    def after(recording):
        save_tensors(recording.path("model.ckpt"), 1, {k: [("", v)] for k, v in values.items()})
        recording.restored_session().close()      # still the values of the V2 files
        recording.note_other_checkpoint("v1", "model.ckpt", values)

    model = affine()
    model.after = after
    return model


@recipe(OLD_AND_NEW)
def moved(folder):
    """Two checkpoints, and a state file that names them by the absolute path of the machine that trained."""
    def after(recording):
        saver = recording.savers[0][2]
        variables = {v.op.name: v for v in tf.global_variables()}
        for variable in variables.values():
            assign, shape = variable.initializer, variable.get_shape().as_list()
            recording.session.run(assign, {assign.inputs[1]: numbers(60, *shape)})
        saver.save(recording.session, recording.path("model.ckpt"), global_step=20)
        values = {name: recording.session.run(v) for name, v in variables.items()}
        recording.note_other_checkpoint("latest", "model.ckpt-20", values)
        recording.facts["latest_checkpoint"] = "model.ckpt-20"

    model = affine()
    model.global_step = 10
    model.after = after
    return model


@recipe({(0, 12): "v2", (1, 15): "v2"})
def nameless_prefix(folder):
    """The prefix ends in a slash: the files are `.index`, `.data-00000-of-00001` and `.meta`."""
    model = affine()
    model.savers = lambda version: [("", "export/", tf.train.Saver(write_version=version))]
    return model


@recipe(ONLY_1_15)
def object_checkpoint(folder):
    """Beside the Saver's checkpoint one of tf.train.Checkpoint, whose keys are paths through Python objects."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    with tf.variable_scope("net", use_resource=True):
        w = tf.get_variable("w", [3, 2], initializer=tf.zeros_initializer())
        b = tf.get_variable("b", [2], initializer=tf.zeros_initializer())
    y = tf.add(tf.matmul(x, w), b, name="y")
    optimizer = tf.train.MomentumOptimizer(0.1, 0.5)
    feeds = {x: numbers(61, 2, 3)}
    train = optimizer.minimize(tf.reduce_sum(tf.square(y)))
    layers = tf.train.Checkpoint(first=tf.train.Checkpoint(w=w), last=tf.train.Checkpoint(bias=b))
    objects = tf.train.Checkpoint(layers=layers, optimizer=optimizer)
    assert objects.save_counter is not None    # makes that variable before the initializers are collected

    def after(recording):
        path = objects.save(recording.path("objects/ckpt"), session=recording.session)
        reader = tf.train.load_checkpoint(path)
        values = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
        recording.note_other_checkpoint("objects", path[len(recording.folder) + 1:], values)

    model = Model([y], [feeds])
    model.steps, model.optimizers, model.after = [(train, feeds)] * 2, [optimizer], after
    return model


def _rows(count, columns, shift):
    """Values that zip well, so that the oracle is small."""
    return (((np.arange(count * columns) + shift) % 97) / 8.0).reshape(count, columns).astype(np.float32)


def _cut(array, axis, lengths):
    start, parts = 0, []
    for length in lengths:
        where = ["0,%d" % n for n in array.shape]
        where[axis] = "%d,%d" % (start, length)
        spec = " ".join(str(n) for n in array.shape) + " " + ":".join(where)
        parts.append((spec, np.take(array, range(start, start + length), axis)))
        start += length
    return parts


@recipe(OLD_AND_NEW)
def wide_table(folder):
    """Checkpoint alone, no graph: hundreds of long keys that share their beginnings, several blocks, slices that
    start past 63 and past 8191, long strings."""
    rows, columns = _rows(20001, 1, 3), _rows(2, 700, 5)
    whole = {"partitioned/rows": rows, "partitioned/columns": columns,
             "int64/both_signs": np.tile(np.arange(-500, 500, dtype=np.int64) * 10 ** 12, 8),
             "float64/wide": (np.arange(9000) % 61 / 7.0).reshape(90, 100),
             "uint8/image": (np.arange(64 * 64 * 3) % 251).astype(np.uint8).reshape(64, 64, 3),
             "strings": np.array([b"w" * (n * 7 % 400) for n in range(120)], dtype=object)}
    for number in range(400):
        key = "tower_%d/inception/mixed_%03d/branch_1x1/batch_normalization/beta" % (number % 2, number)
        whole[key] = _rows(1, 7, number % 32)[0]
    tensors = {key: [("", value)] for key, value in whole.items()}
    tensors["partitioned/rows"] = _cut(rows, 0, [6667, 6667, 6667])
    tensors["partitioned/columns"] = _cut(columns, 1, [100, 150, 200, 250])

    return _alone(lambda recording: _save_alone(recording, tensors, whole))


def _save_alone(recording, tensors, whole):
    save_tensors(recording.path("model.ckpt"), recording.version, tensors)
    os.remove(recording.path("graph.pb"))
    recording.note_other_checkpoint("", "model.ckpt", whole)


@recipe(ONLY_1_15)
def raw_dtypes(folder):
    """Checkpoint alone, no graph: dtypes that can be saved, though no variable can have them."""
    bits = {"qint16": np.array([-32768, -3, 32767], np.int16), "quint16": np.array([0, 3, 65535], np.uint16)}
    plain = {"uint32": np.array([[0, 2 ** 32 - 1]], np.uint32), "uint64": np.array([2 ** 64 - 1, 5], np.uint64)}
    tensors = {name: [("", lambda name=name, value=value: tf.bitcast(value, getattr(tf, name)))]
                   for name, value in bits.items()}
    tensors.update((name, [("", value)]) for name, value in plain.items())

    def after(recording):
        _save_alone(recording, tensors, dict(bits, **plain))
        for name in bits:
            recording.facts["other_checkpoints"][""]["keys"][name]["dtype"] = name

    return _alone(after)


def _alone(after):
    model = Model([])
    model.savers, model.after = lambda version: [], after
    return model
