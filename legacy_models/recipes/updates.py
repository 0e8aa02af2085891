"""Graphs whose outputs change variables: what the first run gives is the oracle."""
from __future__ import absolute_import, division, print_function

import tensorflow as tf

from model import SINCE_1_4, Model, recipe
from versions import numbers


def _inputs():
    return tf.placeholder(tf.float32, [None, 3], name="x"), numbers(21, 2, 3)


@recipe()
def update_droppable(folder):
    """The output waits for a counter that nothing needed reads."""
    x, rows = _inputs()
    w = tf.Variable(tf.ones([3]), name="w")
    calls = tf.Variable(0, name="calls", trainable=False)
    with tf.control_dependencies([tf.assign_add(calls, 1)]):
        y = tf.multiply(x, w, name="y")
    return Model([y], [{x: rows}])


@recipe()
def update_ordered(folder):
    """The read is ordered after the update by a control edge: it sees the updated value."""
    x, rows = _inputs()
    gain = tf.Variable(1.0, name="gain")
    with tf.control_dependencies([tf.assign_add(gain, 2.0, name="raise_gain")]):
        y = tf.multiply(x, gain.read_value(), name="y")
    return Model([y], [{x: rows}])


@recipe()
def update_value(folder):
    """The value that the update returns is used, of three updates in a row."""
    x, rows = _inputs()
    gain = tf.Variable(1.0, name="gain")
    raised = tf.assign_add(gain, 2.0)
    with tf.control_dependencies([raised]):
        lowered = tf.assign_sub(gain, 0.5)
    with tf.control_dependencies([lowered]):
        last = tf.assign(gain, tf.identity(lowered) * 3.0)
    y = tf.multiply(x, last, name="y")
    return Model([y], [{x: rows}])


@recipe()
def update_in_cond(folder):
    """Batch norm as it was written by hand: moving averages assigned in the branch that training takes."""
    x, rows = _inputs()
    training = tf.placeholder(tf.bool, [], name="training")
    mean = tf.Variable(tf.zeros([3]), name="moving_mean", trainable=False)
    variance = tf.Variable(tf.ones([3]), name="moving_variance", trainable=False)
    batch_mean, batch_variance = tf.nn.moments(x, [0])

    def update():
        move_mean = tf.assign(mean, mean * 0.9 + batch_mean * 0.1)
        move_variance = tf.assign_sub(variance, (variance - batch_variance) * 0.1)
        with tf.control_dependencies([move_mean, move_variance]):
            return tf.identity(batch_mean), tf.identity(batch_variance)

    used_mean, used_variance = tf.cond(training, update, lambda: (mean.read_value(), variance.read_value()))
    y = tf.nn.batch_normalization(x, used_mean, used_variance, None, None, 0.001)
    y = tf.identity(y, name="y")
    return Model([y], [{x: rows, training: False}, {x: rows, training: True}])


@recipe()
def update_in_while(folder):
    """Every turn of a loop adds to a variable and reads it: 3 turns are not 1."""
    total = tf.Variable(0.0, name="total", trainable=False)

    def turn(i, seen):
        with tf.control_dependencies([tf.assign_add(total, 1.0)]):
            return i + 1, seen + total.read_value()

    _, seen = tf.while_loop(lambda i, seen: i < 3, turn, [0, 0.0], parallel_iterations=1)
    model = Model([tf.identity(seen, name="y")])
    model.facts = {"refuse": True, "reason": "an update inside a loop whose variable is read there"}
    return model


@recipe()
def update_unordered(folder):
    """Read and update of one variable with no order between them: either value may come out."""
    x, rows = _inputs()
    gain = tf.Variable(1.0, name="gain")
    read = tf.identity(gain, name="unordered_read")
    with tf.control_dependencies([tf.assign_add(gain, 2.0, name="raise_gain")]):
        y = tf.multiply(x, read, name="y")
    model = Model([y], [{x: rows}])
    model.facts = {"refuse": True, "reason": "unordered_read is not ordered against raise_gain"}
    return model


@recipe(SINCE_1_4)
def update_resource(folder):
    """A resource variable read before and after its update, and a counter that only a control edge reaches."""
    x, rows = _inputs()
    with tf.variable_scope("state", use_resource=True):
        gain = tf.get_variable("gain", [], initializer=tf.ones_initializer())
        calls = tf.get_variable("calls", [], initializer=tf.zeros_initializer(), trainable=False)
    before = gain.read_value()
    with tf.control_dependencies([before]):
        raised = gain.assign_add(2.0)
        counted = calls.assign_add(1.0)
    with tf.control_dependencies([raised.op if hasattr(raised, "op") else raised, counted.op]):
        y = tf.add(x * gain.read_value(), before, name="y")
    return Model([y], [{x: rows}])
