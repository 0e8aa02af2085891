"""Where TensorFlow's releases differ: one function for each difference a recipe meets."""
from __future__ import absolute_import, division, print_function

import numpy as np
import tensorflow as tf

RELEASE = tuple(int(part) for part in tf.__version__.split(".")[:2])
BEFORE_1_0 = RELEASE < (1, 0)


def concat(values, axis):
    """Argument order turned around in 1.0."""
    return tf.concat(axis, values) if BEFORE_1_0 else tf.concat(values, axis)


def unstack(value, axis):
    return tf.unpack(value, axis=axis) if BEFORE_1_0 else tf.unstack(value, axis=axis)


def stack(values, axis):
    return tf.pack(values, axis=axis) if BEFORE_1_0 else tf.stack(values, axis=axis)


def lstm_cell(size, **options):
    if RELEASE < (1, 4):
        return tf.nn.rnn_cell.LSTMCell(size, state_is_tuple=True, **options)
    return tf.nn.rnn_cell.LSTMCell(size, **options)


def static_rnn(cell, steps, **options):
    return (tf.nn.rnn if BEFORE_1_0 else tf.nn.static_rnn)(cell, steps, **options)


def tables_initializer():
    return tf.initialize_all_tables() if BEFORE_1_0 else tf.tables_initializer()


def split_axis(axis, parts):
    """A partitioner that cuts `axis` into `parts`; tf.fixed_size_partitioner came later than 0.12."""
    def partition(shape, dtype, **_):
        cut = [1] * len(shape.as_list())
        cut[axis] = parts
        return cut
    return partition


def numbers(seed, *shape):
    """The recipes' input values: normal, float32, the same under every numpy."""
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


def dense(x, size, name):
    """y = x w + b in variables `<name>/weights`, `<name>/biases`."""
    with tf.variable_scope(name):
        weights = tf.get_variable("weights", [x.get_shape()[-1].value, size],
                                  initializer=tf.random_normal_initializer(stddev=0.4))
        biases = tf.get_variable("biases", [size], initializer=tf.constant_initializer(0.0))
        return tf.nn.bias_add(tf.matmul(x, weights), biases, name="sum")
