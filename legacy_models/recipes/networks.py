"""Models named after what they compute: linear, MLP, convolutions, LSTMs, branches, loops."""
from __future__ import absolute_import, division, print_function

import numpy as np
import tensorflow as tf

from model import BOTH, OLDEST_BOTH, Model, recipe
from versions import BEFORE_1_0, concat, dense, lstm_cell, numbers, stack, static_rnn, unstack


@recipe(BOTH)
def linear(folder):
    """y = x w + b; the smallest model there is."""
    x = tf.placeholder(tf.float32, [None, 4], name="x")
    w = tf.Variable(tf.random_normal([4, 3]), name="w")
    b = tf.Variable(tf.zeros([3]), name="b")
    y = tf.add(tf.matmul(x, w), b, name="y")
    model = Model([y], [{x: numbers(1, 2, 4)}])
    model.text = True
    return model


@recipe(OLDEST_BOTH)
def mlp(folder):
    """A classifier with Adam, a decaying learning rate, moving averages of its weights, and summaries."""
    x = tf.placeholder(tf.float32, [None, 6], name="features")
    labels = tf.placeholder(tf.int32, [None], name="labels")
    step = tf.Variable(0, name="global_step", trainable=False)
    hidden = tf.nn.relu(dense(x, 10, "hidden"), name="hidden/relu")
    logits = dense(hidden, 3, "logits")
    softmax = tf.nn.softmax(logits, name="softmax")
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
    loss = tf.reduce_mean(losses, name="loss")
    tf.summary.scalar("loss", loss)
    optimizer = tf.train.AdamOptimizer(tf.train.exponential_decay(0.05, step, 8, 0.5))
    average = tf.train.ExponentialMovingAverage(0.8)
    apply_gradients = optimizer.minimize(loss, global_step=step)
    with tf.control_dependencies([apply_gradients]):
        train = average.apply(tf.trainable_variables())
    feeds = {x: numbers(2, 5, 6), labels: np.array([0, 2, 1, 1, 0], np.int32)}
    model = Model([softmax, loss], [feeds])
    model.steps = [(step.assign(988), {})] + [(train, feeds)] * 12
    model.global_step = 1000
    model.optimizers, model.averages = [optimizer], [average]
    return model


@recipe()
def convnet(folder):
    """Convolutions with batch norm and dropout; `is_training` is a placeholder."""
    images = tf.placeholder(tf.float32, [None, 6, 6, 1], name="images")
    training = tf.placeholder(tf.bool, [], name="is_training")
    keep_prob = tf.placeholder_with_default(np.float32(1), [], name="keep_prob")
    kernel = tf.get_variable("conv/kernel", [3, 3, 1, 4], initializer=tf.random_normal_initializer())
    net = tf.nn.conv2d(images, kernel, [1, 1, 1, 1], "SAME", name="conv/out")
    net = tf.nn.relu(_batch_norm(net, training))
    net = tf.nn.max_pool(net, [1, 2, 2, 1], [1, 2, 2, 1], "SAME", name="pool")
    net = tf.nn.dropout(tf.reshape(net, [-1, 36]), keep_prob)
    scores = tf.identity(dense(net, 5, "scores"), name="scores/out")
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        optimizer = tf.train.MomentumOptimizer(0.01, 0.9)
        train = optimizer.minimize(tf.reduce_mean(tf.square(scores)))
    pictures = numbers(3, 2, 6, 6, 1)
    model = Model([scores], [{images: pictures, training: False}])
    model.steps = [(train, {images: pictures, training: True, keep_prob: 0.7})] * 3
    model.optimizers = [optimizer]
    return model


def _batch_norm(net, training):
    if BEFORE_1_0:
        return tf.contrib.layers.batch_norm(net, is_training=training, scale=True, decay=0.8, scope="norm")
    return tf.layers.batch_normalization(net, training=training, momentum=0.8, fused=True, name="norm")


@recipe()
def lstm_dynamic(folder):
    """dynamic_rnn: a while loop with TensorArrays, peephole weights and sequence lengths."""
    x = tf.placeholder(tf.float32, [None, None, 3], name="x")
    lengths = tf.placeholder(tf.int32, [None], name="lengths")
    outputs, state = tf.nn.dynamic_rnn(lstm_cell(4, use_peepholes=True), x, sequence_length=lengths, dtype=tf.float32)
    y = tf.identity(outputs, name="y")
    last = tf.identity(state.c, name="last_c")
    feeds = {x: numbers(4, 2, 5, 3), lengths: np.array([5, 3], np.int32)}
    return Model([y, last], [feeds])


@recipe()
def lstm_static(folder):
    """An unrolled LSTM: one variable read at every step."""
    x = tf.placeholder(tf.float32, [2, 3, 3], name="x")
    outputs, _ = static_rnn(lstm_cell(3), unstack(x, 1), dtype=tf.float32)
    return Model([tf.identity(stack(outputs, 1), name="y")], [{x: numbers(5, 2, 3, 3)}])


@recipe()
def cond(folder):
    """Variables on both sides of a tf.cond; one side counts its uses."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    left = tf.placeholder(tf.bool, [], name="left")
    a = tf.Variable(tf.random_normal([3, 3]), name="a")
    scale = tf.Variable(tf.ones([3]), name="scale")
    uses = tf.Variable(4.0, name="uses", trainable=False)

    def counted():
        with tf.control_dependencies([tf.assign_add(uses, 1.0)]):
            return tf.matmul(x, a)

    chosen = tf.cond(left, counted, lambda: x * scale)
    y = tf.identity(chosen, name="y")
    rows = numbers(6, 2, 3)
    model = Model([y], [{x: rows, left: True}, {x: rows, left: False}])
    model.text = True
    return model


@recipe()
def while_loop(folder):
    """A loop that reads a weight and a bias at every turn; the number of turns is fed."""
    x = tf.placeholder(tf.float32, [2, 3], name="x")
    turns = tf.placeholder(tf.int32, [], name="turns")
    w = tf.Variable(tf.random_normal([3, 3]), name="w")
    b = tf.Variable(tf.zeros([3]), name="b")
    _, y = tf.while_loop(lambda i, h: i < turns, lambda i, h: (i + 1, tf.tanh(tf.matmul(h, w) + b)), [0, x])
    rows = numbers(7, 2, 3)
    y = tf.identity(y, name="y")
    return Model([y], [{x: rows, turns: 3}, {x: rows, turns: 0}])


@recipe()
def shared_scopes(folder):
    """One network used twice, and the ways in which name scopes and variable scopes make names differ."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    with tf.variable_scope("net") as scope:
        first = dense(x, 3, "layer")
    with tf.variable_scope(scope, reuse=True):
        second = dense(first, 3, "layer")
    with tf.name_scope("outer"):
        plain = tf.Variable(2.0, name="v")                       # outer/v
        shared = tf.get_variable("v", [], initializer=tf.constant_initializer(3.0))   # v
    with tf.name_scope("outer"):
        again = tf.Variable(4.0, name="v")                       # outer_1/v
    y = tf.identity(concat([second * plain, second * shared, second * again], 1), name="y")
    return Model([y], [{x: numbers(8, 2, 3)}])
