"""Variables of every kind, and how Savers name them: dtypes, partitions, resources, scopes, shards."""
from __future__ import absolute_import, division, print_function

import numpy as np
import tensorflow as tf

from model import BOTH, SINCE_1_4_BOTH, Model, recipe
from versions import RELEASE, concat, dense, numbers, split_axis


@recipe(BOTH)
def partitioned(folder):
    """An embedding cut in three along axis 0 (unevenly) and a matrix cut in two along axis 1, with Adagrad slots."""
    ids = tf.placeholder(tf.int64, [None], name="ids")
    with tf.variable_scope("embedding", partitioner=split_axis(0, 3)):
        table = tf.get_variable("table", [10, 4], initializer=tf.random_normal_initializer())
    with tf.variable_scope("projection", partitioner=split_axis(1, 2)):
        columns = tf.get_variable("columns", [4, 6], initializer=tf.random_normal_initializer())
    rows = tf.nn.embedding_lookup(list(table), ids, partition_strategy="div")
    y = tf.matmul(rows, tf.convert_to_tensor(columns), name="y")
    optimizer = tf.train.AdagradOptimizer(0.1)
    train = optimizer.minimize(tf.reduce_sum(tf.square(y)))
    feeds = {ids: np.array([0, 3, 4, 9], np.int64)}
    model = Model([y], [feeds])
    model.steps = [(train, feeds)] * 2
    model.optimizers = [optimizer]
    return model


@recipe(SINCE_1_4_BOTH)
def resource(folder):
    """Resource variables beside a reference one, a gather, Adam on all, and a counter outside the training."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    with tf.variable_scope("resource", use_resource=True):
        hidden = tf.tanh(dense(x, 4, "layer"))
        table = tf.get_variable("table", [5, 4], initializer=tf.random_normal_initializer())
        seen = tf.get_variable("seen", [], tf.int64, tf.zeros_initializer(), trainable=False)
    gain = tf.Variable(tf.ones([4]), name="gain")
    y = tf.add(hidden * gain, tf.gather(table, [1, 4]), name="y")
    optimizer = tf.train.AdamOptimizer(0.02)
    train = optimizer.minimize(tf.reduce_sum(tf.square(y)))
    feeds = {x: numbers(11, 2, 3)}
    model = Model([y], [feeds])
    model.steps = [(train, feeds), (seen.assign_add(2).op, {}), (train, feeds)]
    model.optimizers = [optimizer]
    return model


@recipe(SINCE_1_4_BOTH)
def resource_partitioned(folder):
    """A partitioned resource embedding; the look-ups are ResourceGather nodes."""
    ids = tf.placeholder(tf.int32, [None], name="ids")
    with tf.variable_scope("embedding", use_resource=True, partitioner=split_axis(0, 2)):
        table = tf.get_variable("table", [7, 3], initializer=tf.random_normal_initializer())
    y = tf.identity(tf.nn.embedding_lookup(table, ids, partition_strategy="div"), name="y")
    return Model([y], [{ids: np.array([6, 0, 3, 4], np.int32)}])


VALUES = {
    "float32": [[0.1, -2.5], [3e38, 1e-45]],
    "float64": [1e300, -0.1, 5e-324],
    "half": [[0.5, -3.25, 65504.0, 6e-8]],
    "bfloat16": [0.5, -3.0, 1e38, 3.140625],
    "int8": [-128, -1, 0, 127],
    "int16": [-32768, -1, 0, 32767],
    "int32": [-2 ** 31, -1, 0, 300, 2 ** 31 - 1],
    "int64": [-2 ** 63, -1, 0, 2 ** 40, 2 ** 63 - 1],
    "uint8": [0, 128, 255],
    "uint16": [0, 256, 65535],
    "bool": [[True], [False], [True]],
    "string": [b"", b"plain", b"\x00\xff\xfe", u"h\u00f6he".encode("utf-8"), b"long " * 40],
    "complex64": [1.5 - 2j, -0.25j],
    "complex128": [[1e200 + 1e-200j], [-1j]],
    "qint8": [-128, 5, 127],
    "quint8": [0, 5, 255],
    "qint32": [-70000, 5, 70000],
}
BITS = {"qint8": np.int8, "quint8": np.uint8, "qint32": np.int32}


@recipe(BOTH)
def dtypes(folder):
    """One variable of every dtype that this TensorFlow can save (bfloat16: in 1.15, V2 only)."""
    names = [name for name in sorted(VALUES) if name != "bfloat16" or RELEASE >= (1, 15)]
    made = {name: _variable(name) for name in names}
    factor = tf.placeholder(tf.float64, [], name="factor")
    fetches = [tf.identity(factor * made["float64"], name="y")]
    fetches += [tf.identity(made[name], name="read_" + name) for name in names if name not in BITS
                and name != "bfloat16"]
    model = Model(fetches, [{factor: 2.0}])
    model.savers = lambda version: [("", "model.ckpt", tf.train.Saver(
        [made[name] for name in names if (version, name) != (1, "bfloat16")], write_version=version))]
    model.scramble = False
    return model


def _variable(name):
    if name in BITS:
        value = tf.bitcast(tf.constant(np.array(VALUES[name], BITS[name])), getattr(tf, name))
    elif name == "bfloat16":
        value = tf.cast(tf.constant(VALUES[name], tf.float32), tf.bfloat16)
    else:
        value = tf.constant(VALUES[name], getattr(tf, name))
    return tf.Variable(value, name="of_" + name, trainable=False)


@recipe(BOTH)
def scalars_and_empty(folder):
    """Scalars (a string among them) and tensors without elements."""
    x = tf.placeholder(tf.float32, [None, 2], name="x")
    scale = tf.Variable(1.5, name="scale")
    count = tf.Variable(np.int32(3), name="count", trainable=False)
    word = tf.Variable(b"a word", name="word", trainable=False)
    none = tf.Variable(np.zeros([0], np.float32), name="none")
    no_rows = tf.Variable(np.zeros([0, 2], np.float32), name="no_rows")
    no_middle = tf.Variable(np.zeros([2, 0, 3], np.int32), name="no_middle", trainable=False)
    no_words = tf.Variable(tf.constant([], tf.string), name="no_words", trainable=False)
    total = tf.reduce_sum(none) + tf.to_float(tf.size(no_middle) + tf.size(no_words) + count)
    y = tf.add(concat([x, no_rows], 0) * scale, total, name="y")
    return Model([y, tf.identity(word, name="said")], [{x: numbers(12, 3, 2)}])


@recipe(BOTH)
def custom_savers(folder):
    """Four Savers on one graph: renamed keys, a scoped one, a partial one, and all of it."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    w = tf.Variable(tf.random_normal([3, 2]), name="net/w")
    b = tf.Variable(tf.zeros([2]), name="net/b")
    y = tf.add(tf.matmul(x, w), b, name="y")

    def savers(version):
        made = [("renamed", "renamed/model.ckpt", tf.train.Saver({"old/kernel": w, "bias": b}, write_version=version))]
        with tf.name_scope("inner"):
            made.append(("scoped", "scoped/model.ckpt", tf.train.Saver([w, b], write_version=version)))
        made.append(("partial", "partial/bias.ckpt", tf.train.Saver([b], write_version=version, name="only_bias")))
        made.append(("", "model.ckpt", tf.train.Saver(write_version=version)))
        return made

    model = Model([y], [{x: numbers(13, 2, 3)}])
    model.savers = savers
    return model
