"""Graphs of unusual make: functions, queues, odd or missing nodes, unknown shapes, local variables."""
from __future__ import absolute_import, division, print_function

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saver_pb2
from tensorflow.python.framework import function, graph_util
from tensorflow.python.ops import gen_io_ops, gen_resource_variable_ops, gen_state_ops

from model import BOTH, ONLY_0_12, ONLY_1_15, SINCE_1_4, Model, recipe
from versions import BEFORE_1_0, RELEASE, dense, numbers, unstack


@recipe()
def defun(folder):
    """A graph function called twice, once by another function; before 1.0 FunctionDefs had another form."""
    @function.Defun(tf.float32, tf.float32, func_name="scaled")
    def scaled(a, b):
        return tf.nn.relu(a) * b + 0.5

    @function.Defun(tf.float32, tf.float32, func_name="twice")
    def twice(a, b):
        total = scaled(a, b) + b
        return total, tf.reduce_sum(total)

    x = tf.placeholder(tf.float32, [None, 3], name="x")
    w = tf.Variable(tf.ones([3]), name="w")
    rows, total = twice(scaled(x, w.read_value()), w.read_value())
    return Model([tf.identity(rows, name="y"), tf.identity(total, name="total")], [{x: numbers(31, 2, 3)}])


@recipe(ONLY_0_12)
def defun_lists(folder):
    """A graph function with ops that take and give lists, and a control edge: 0.12 turned lists into arrays there."""
    @function.Defun(tf.float32, func_name="swapped")
    def swapped(a):
        left, right = tf.split(0, 2, a)
        with tf.control_dependencies([left]):
            factor = tf.constant(2.0)
        return tf.concat(0, [right, left]) * factor

    x = tf.placeholder(tf.float32, [2, 3], name="x")
    w = tf.Variable(tf.ones([3]), name="w")
    model = Model([tf.identity(swapped(x * w), name="y")], [{x: numbers(33, 2, 3)}])
    model.write_meta = False
    return model


@recipe(ONLY_1_15)
def control_flow_v2(folder):
    """If, While and PartitionedCall whose bodies read resource variables."""
    tf.enable_control_flow_v2()
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    left = tf.placeholder(tf.bool, [], name="left")
    with tf.variable_scope("net", use_resource=True):
        w = tf.get_variable("w", [3, 3], initializer=tf.zeros_initializer())
        b = tf.get_variable("b", [3], initializer=tf.zeros_initializer())
    chosen = tf.cond(left, lambda: tf.matmul(x, w), lambda: x - b)
    _, looped = tf.while_loop(lambda i, h: i < 4, lambda i, h: (i + 1, tf.tanh(tf.matmul(h, w) + b)), [0, chosen])

    @tf.function
    def last(rows):
        return tf.matmul(rows, w) * 2.0

    y = tf.identity(last(looped), name="y")
    rows = numbers(32, 2, 3)
    model = Model([y], [{x: rows, left: True}, {x: rows, left: False}])
    model.text = True
    return model


@recipe()
def queue_input(folder):
    """Training fed by a batch queue; the oracle feeds the tensor that the queue hands out."""
    data = tf.constant(numbers(33, 8, 3), name="data")
    one = tf.train.slice_input_producer([data], shuffle=False, capacity=4)[0]
    batch = tf.train.batch([one], batch_size=2, capacity=4, name="batch")
    y = tf.identity(dense(batch, 2, "layer"), name="y")
    model = Model([y], [{batch: numbers(34, 2, 3)}])
    model.facts = {"feed_at": batch.name}
    return model


@recipe()
def odd_names(folder):
    """Variables made by the raw op, with initializers named after nothing, and no Variable object."""
    def raw(name, shape):
        if BEFORE_1_0:
            return gen_state_ops._variable(shape, tf.float32, name=name)
        make = gen_state_ops._variable_v2 if RELEASE < (1, 15) else gen_state_ops.variable_v2
        return make(shape, tf.float32, name=name)

    x = tf.placeholder(tf.float32, [None, 3], name="x")
    first, second = raw("store/cell_7", [3, 2]), raw("q", [2])
    initial = [tf.constant(numbers(35, 3, 2)), tf.constant(numbers(36, 2))]
    setup = [tf.assign(ref, value, name="setup/%s" % name)
             for ref, value, name in zip((first, second), initial, ("alpha", "beta"))]
    tf.assign(second, tf.identity(second) * 0.5, name="q/Assign")      # looks like the initializer, is an update
    y = tf.add(tf.matmul(x, first), tf.identity(second, name="peek"), name="y")
    model = Model([y], [{x: numbers(37, 2, 3)}])
    model.raw_variables = {first: {"initializer": "setup/alpha"}, second: {"initializer": "setup/beta"}}
    model.init_ops = [op.op for op in setup]
    model.steps = [(setup[0].op, {initial[0]: numbers(38, 3, 2)}), (setup[1].op, {initial[1]: numbers(39, 2)})]
    model.savers = lambda version: [("", "model.ckpt", tf.train.Saver(
        {"weights/main": first, "weights/side": second}, write_version=version))]
    return model


class RawSaver(object):
    """Save and restore ops for resource handles, made by hand; looks like a Saver to the driver."""

    def __init__(self, handles, version):
        prefix = tf.placeholder_with_default("model", [], name="io/prefix")
        keys = sorted(handles)
        reads = [_resource_op("read_variable_op")(handles[key], tf.float32) for key in keys]
        self.save_op = tf.group(gen_io_ops.save_v2(prefix, keys, [""] * len(keys), reads, name="io/write"))
        values = gen_io_ops.restore_v2(prefix, keys, [""] * len(keys), [tf.float32] * len(keys), name="io/read_back")
        loads = [_resource_op("assign_variable_op")(handles[key], value, name="io/put_%d" % number)
                 for number, (key, value) in enumerate(zip(keys, values))]
        self.restore_op, self.prefix, self._var_list = tf.group(*loads, name="io/load"), prefix, handles
        self.saver_def = saver_pb2.SaverDef(filename_tensor_name=prefix.name, save_tensor_name=self.save_op.name,
                                            restore_op_name=self.restore_op.name, version=version)

    def save(self, session, path, **_):
        session.run(self.save_op, {self.prefix: path})
        return path

    def restore(self, session, path):
        session.run(self.restore_op, {self.prefix: path})


def _resource_op(name):
    module = gen_resource_variable_ops
    return getattr(module, name, None) or getattr(module, "_" + name)


@recipe(SINCE_1_4)
def odd_resource(folder):
    """Resource variables made by the raw ops, with hand-made save and restore ops of odd names and no collection."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    handles, raw = {}, {}
    for number, (key, shape) in enumerate([("main/kernel", [3, 2]), ("main/offset", [2])]):
        handle = _resource_op("var_handle_op")(tf.float32, shape, shared_name="cell %d" % number, name="h/%d" % number)
        first = _resource_op("assign_variable_op")(handle, tf.zeros(shape), name="begin/%d" % number)
        read = _resource_op("read_variable_op")(handle, tf.float32, name="look/%d" % number)
        read.set_shape(shape)
        handles[key] = handle
        raw[handle] = {"initializer": first.name, "snapshot": read.name, "dtype": "float32", "shape": shape}
    reads = [tf.get_default_graph().get_tensor_by_name("look/%d:0" % number) for number in range(2)]
    model = Model([tf.add(tf.matmul(x, reads[0]), reads[1], name="y")], [{x: numbers(45, 2, 3)}])
    model.raw_variables = raw
    model.init_ops = [tf.get_default_graph().get_operation_by_name(facts["initializer"]) for facts in raw.values()]
    model.steps = [(op, {op.inputs[1]: numbers(46, *op.inputs[1].get_shape().as_list())}) for op in model.init_ops]
    model.savers = lambda version: [("", "model.ckpt", RawSaver(handles, version))]
    return model


@recipe(SINCE_1_4)
def dataset_input(folder):
    """Training fed by a tf.data iterator; the oracle feeds what the iterator hands out."""
    source = tf.data.Dataset.from_tensor_slices(numbers(47, 6, 3)).batch(2).repeat()
    rows = source.make_one_shot_iterator().get_next()
    y = tf.identity(dense(rows, 2, "layer"), name="y")
    model = Model([y], [{rows: numbers(48, 2, 3)}])
    model.facts = {"feed_at": rows.name}
    return model


@recipe()
def feed_middle(folder):
    """Feeds that cut the graph in its middle: one output, and all outputs, of a node with three."""
    x = tf.placeholder(tf.float32, [3, 2], name="x")
    a, b, c = unstack(x, 0)
    w = tf.Variable(tf.zeros([2]), name="w")
    y = tf.add(a * w, b - c, name="y")
    rows = numbers(49, 3, 2)
    return Model([y], [{x: rows}, {x: rows, b: numbers(50, 2)}, {a: rows[1], b: rows[2], c: rows[0]}])


@recipe()
def gpu_devices(folder):
    """Nodes pinned to GPUs that the reader's machine does not have."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    with tf.device("/job:localhost/replica:0/task:0/gpu:3"):
        y = tf.identity(dense(x, 2, "layer"), name="y")
    model = Model([y], [{x: numbers(30, 2, 3)}])
    model.config = tf.ConfigProto(allow_soft_placement=True)
    return model


@recipe(SINCE_1_4)
def contrib_op(folder):
    """An op of tf.contrib that later TensorFlows do not know, on a branch that the output does not need."""
    x = tf.placeholder(tf.float32, [1, 4, 4, 1], name="x")
    kernel = tf.Variable(tf.zeros([2, 2, 1, 1]), name="kernel")
    y = tf.nn.conv2d(x, kernel, [1, 2, 2, 1], "SAME", name="y")
    tf.contrib.resampler.resampler(y, tf.constant([[[0.5, 0.5]]]), name="resampled")
    model = Model([y], [{x: numbers(29, 1, 4, 4, 1)}])
    model.facts = {"unknown_ops": ["Resampler"]}
    return model


@recipe(BOTH)
def stripped(folder):
    """graph.pb holds the inference subgraph alone: no Assign, no initializers, no Saver."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    y = tf.identity(dense(tf.nn.relu(dense(x, 4, "first")), 2, "second"), name="y")
    model = Model([y], [{x: numbers(40, 2, 3)}])
    model.graph_def = graph_util.extract_sub_graph(tf.get_default_graph().as_graph_def(), ["y"])
    model.write_meta = False
    model.text = True
    return model


@recipe()
def imported_prefix(folder):
    """A graph imported under "import/"; its Saver still uses the old key."""
    inner = tf.Graph()
    with inner.as_default():
        w = tf.Variable(tf.zeros([3, 2]), name="w")
        tf.matmul(tf.placeholder(tf.float32, [None, 3], name="x"), w, name="y")
    names = ["x:0", "w:0", "w/Assign", "y:0"]
    x, ref, initializer, y = tf.import_graph_def(inner.as_graph_def(), return_elements=names, name="import")
    scale = tf.Variable(1.0, name="scale")
    z = tf.multiply(y, scale, name="z")
    model = Model([z], [{x: numbers(41, 2, 3)}])
    model.raw_variables = {ref: {"initializer": initializer.name}}
    model.init_ops = [initializer]
    model.steps = [(initializer, {initializer.inputs[1]: numbers(42, 3, 2)})]
    model.savers = lambda version: [("", "model.ckpt", tf.train.Saver({"w": ref, "scale": scale},
                                                                      write_version=version))]
    return model


@recipe()
def unknown_shape(folder):
    """A placeholder of any shape, and variables of unknown shape (validate_shape=False), one of which grew."""
    x = tf.placeholder(tf.float32, name="x")
    start = tf.placeholder_with_default(np.zeros([3, 2], np.float32), [None, 2], name="start")
    w = tf.Variable(start, validate_shape=False, name="w")
    b = tf.Variable(tf.placeholder_with_default(np.zeros([1], np.float32), None, name="any"), validate_shape=False,
                    name="b")
    grow = tf.assign(b, [0.25, -0.75], validate_shape=False, name="grow")
    model = Model([tf.add(tf.matmul(x, w), b, name="y")], [{x: numbers(43, 2, 3)}])
    model.steps = [(grow.op, {})]
    return model


@recipe()
def metrics_local(folder):
    """Streaming metrics: their counts are local variables, which no Saver saves."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    labels = tf.placeholder(tf.int64, [None], name="labels")
    y = tf.identity(dense(x, 3, "layer"), name="y")
    guess = tf.argmax(y, 1)
    if BEFORE_1_0:
        value, update = tf.contrib.metrics.streaming_accuracy(guess, labels)
    else:
        value, update = tf.metrics.accuracy(labels, guess)
    rows = numbers(44, 3, 3)
    model = Model([y, tf.identity(value, name="accuracy_now")], [{x: rows}])
    model.steps = [(update, {x: rows, labels: np.array([0, 1, 2])})]
    return model
