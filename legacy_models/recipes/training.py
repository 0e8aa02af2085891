"""Layers as training builds them beside the same layers as they are used; the oracle is the outputs in use."""
from __future__ import absolute_import, division, print_function

import numpy as np
import tensorflow as tf

from model import Model, recipe
from versions import BEFORE_1_0, RELEASE, numbers

DECAY = 0.8


def _contrib(net, training, name, reuse, **options):
    return tf.contrib.layers.batch_norm(
        net, is_training=training, decay=DECAY, scale=True, scope=name, reuse=reuse, updates_collections=None, **options)


def _layers(net, training, name, reuse, **options):
    if BEFORE_1_0:
        return _contrib(net, training, name, reuse)
    return tf.layers.batch_normalization(net, training=training, momentum=DECAY, name=name, reuse=reuse, **options)


def _pieces(net, training, name, reuse, averages):
    """Moments, a moving average kept by hand and by ExponentialMovingAverage, and nn.batch_normalization."""
    with tf.variable_scope(name, reuse=reuse):
        kept = tf.get_variable("kept", [3], initializer=tf.constant_initializer(0.1), trainable=False)
        beta = tf.get_variable("beta", [3], initializer=tf.constant_initializer(0.2))
    if not training:
        return tf.nn.batch_normalization(net, kept, averages["average"].average(averages["variance"]), beta, None, 1e-3)
    mean, averages["variance"] = tf.nn.moments(net, [0, 1, 2])
    averages["average"] = tf.train.ExponentialMovingAverage(DECAY, name="kept_average")
    updates = [tf.assign(kept, kept * DECAY + mean * (1 - DECAY)), averages["average"].apply([averages["variance"]])]
    with tf.control_dependencies(updates):
        return tf.nn.batch_normalization(net, mean, averages["variance"], beta, None, 1e-3)


def _network(images, training, reuse, averages):
    share = tf.placeholder_with_default(np.float32(0.5), [], name="share") if training else None
    plain = {} if BEFORE_1_0 else {"fused": False}
    net = _contrib(images, training, "contrib", reuse, **plain)
    net = tf.nn.dropout(net, share) if training else net
    net = net + _layers(net, training, "layers", reuse, **plain)
    if RELEASE >= (1, 4):
        net = tf.nn.relu(_layers(net, training, "fused", reuse, fused=True))
    net = _pieces(net, training, "pieces", reuse, averages)
    net = tf.contrib.layers.dropout(net, 0.7, is_training=training)
    return net + tf.contrib.layers.batch_norm(
        net, is_training=training, decay=DECAY, scope="last", reuse=reuse, updates_collections=None, scale=True)


@recipe()
def training_forms(folder):
    """Batch norm and dropout in training form (`trained`) and as the model uses them (`used`)."""
    images = tf.placeholder(tf.float32, [None, 2, 2, 3], name="images")
    averages = {}
    trained = tf.identity(_network(images, True, None, averages), name="trained")
    with tf.name_scope("use"):
        used = _network(images, False, True, averages)
    used = tf.identity(used, name="used")
    model = Model([used], [{images: numbers(61, 3, 2, 2, 3)}])
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    model.steps = [(tf.group(trained, *updates), {images: 2 * numbers(62, 6, 2, 2, 3) + 1})] * 3
    model.scramble = False
    model.write_meta = False
    return model
