"""The models that are measured, made by TensorFlow: `python -m benchmarks.models NAME DIRECTORY`.

A model is a checkpoint with its .meta and a model.json that says what to fetch and feed. It is made once a directory.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import BenchmarkCheckpoint
from benchmarks.measure import python, run


@dataclass(frozen=True)
class BenchmarkModel:
    """A model on disk: the checkpoint's prefix, node names to fetch, and placeholder to the shape of what is fed."""

    prefix: str
    fetches: tuple[str, ...]
    feeds: dict[str, tuple[int, ...]]
    nodes: int
    variables: int
    parameters: int

    @property
    def meta(self) -> str:
        """The path of the MetaGraphDef."""
        return self.prefix + ".meta"

    @property
    def data(self) -> str:
        """The path of the one data file, which is nearly all of the checkpoint."""
        return self.prefix + ".data-00000-of-00001"

    @property
    def files(self) -> tuple[str, ...]:
        """All of its files."""
        return (self.meta, self.prefix + ".index", self.data)

    @property
    def checkpoint(self) -> BenchmarkCheckpoint:
        """The model without its graph."""
        return BenchmarkCheckpoint(self.prefix, self.files[1:])

    @property
    def data_bytes(self) -> int:
        """The size of the data file."""
        return os.path.getsize(self.data)


def ensure(name: str, work: Path) -> BenchmarkModel:
    """The model `name` under `work`, made in another process when it is not there yet."""
    directory = work / name
    if not (directory / "model.json").exists():
        run(python("-m", "benchmarks.models", name, str(directory)))
    facts = json.loads((directory / "model.json").read_text())
    facts["fetches"] = tuple(facts["fetches"])
    return BenchmarkModel(**facts)


def _make(name: str, directory: Path) -> None:
    import tensorflow as tf

    tf.compat.v1.disable_v2_behavior()
    directory.mkdir(parents=True, exist_ok=True)
    tf.compat.v1.set_random_seed(19)
    fetches, feeds = _BUILDERS[name]()
    prefix = str(directory / "model.ckpt")
    saver = tf.compat.v1.train.Saver()
    with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        saver.save(session, prefix)
    variables = tf.compat.v1.global_variables()
    nodes = len(tf.compat.v1.get_default_graph().get_operations())
    parameters = sum(variable.shape.num_elements() for variable in variables)
    model = BenchmarkModel(prefix, fetches, feeds, nodes, len(variables), parameters)
    (directory / "model.json").write_text(json.dumps(asdict(model), indent=1))


def _bert(size_name: str) -> Any:
    from benchmarks import bert

    bert.build(getattr(bert, size_name))
    return bert.FETCHES, {name: (1, 8) for name in bert.FEEDS}


def _digits() -> Any:
    """A convolutional classifier of 28x28 images with its training ops: 0.7 MB of weights."""
    import tensorflow as tf

    v1 = tf.compat.v1
    images = v1.placeholder(tf.float32, [None, 28, 28, 1], name="images")
    labels = v1.placeholder(tf.int64, [None], name="labels")
    states: Any = images
    for index, width in enumerate((16, 32)):
        with v1.variable_scope(f"conv{index + 1}"):
            weights = v1.get_variable("weights", [5, 5, states.shape[-1], width])
            biases = v1.get_variable("biases", [width], initializer=v1.zeros_initializer())
            states = tf.nn.relu(tf.nn.conv2d(states, weights, 1, "SAME") + biases)
            states = tf.nn.max_pool2d(states, 2, 2, "SAME")
    states = tf.reshape(states, [-1, 7 * 7 * 32])
    for name, width in (("hidden", 100), ("logits", 10)):
        with v1.variable_scope(name):
            weights = v1.get_variable("weights", [states.shape[-1], width])
            biases = v1.get_variable("biases", [width], initializer=v1.zeros_initializer())
            states = tf.matmul(states, weights) + biases
            states = tf.nn.relu(states) if name == "hidden" else states
    loss = v1.losses.sparse_softmax_cross_entropy(labels, states)
    v1.train.GradientDescentOptimizer(0.1).minimize(loss)
    tf.nn.softmax(states, name="softmax")
    return ("softmax",), {"images": (2, 28, 28, 1)}


def _units(count: int) -> Any:
    """Many small variables in `count` units, a hundred in a row: sixteen nodes each, with the saver's."""
    import tensorflow as tf

    v1 = tf.compat.v1
    signal = v1.placeholder(tf.float32, [4], name="signal")
    states = []
    for number in range(count):
        if number % 100 == 0:
            states.append(signal)
        with v1.variable_scope(f"block_{number // 100}/unit_{number % 100}"):
            weights = v1.get_variable("weights", [4], initializer=v1.random_normal_initializer())
            states[-1] = tf.tanh(states[-1] * weights + float(number % 3)) * 0.5
    tf.add_n(states, name="total")
    return ("total",), {"signal": (4,)}


def _tables(count: int, rows: int) -> Any:
    """Embedding tables of 64 columns, of each of which a few rows are used: large on disk, and quick to run."""
    import tensorflow as tf

    v1 = tf.compat.v1
    places = v1.placeholder(tf.float32, [None], name="places")
    found = []
    for number in range(count):
        initializer = v1.random_uniform_initializer(-1, 1)
        table = v1.get_variable(f"table_{number}", [rows, 64], initializer=initializer)
        found.append(tf.gather(table, tf.cast(places, tf.int32) * (rows // 4) + number))
    tf.reduce_sum(tf.add_n(found), axis=1, name="total")
    return ("total",), {"places": (4,)}


_BUILDERS: dict[str, Callable[[], Any]] = {
    "bert_large": lambda: _bert("LARGE"),
    "bert_tiny": lambda: _bert("TINY"),
    "digits": _digits,
    "nodes_100000": lambda: _units(6250),
    "nodes_1000": lambda: _units(64),
    "tables_3gb": lambda: _tables(12, 1 << 20),
    "tables_1gb": lambda: _tables(4, 1 << 20),  # of 1.9 GB, near the limit, the C API makes 22 GB before it runs
    "tables_tiny": lambda: _tables(3, 1 << 10),
}

if __name__ == "__main__":
    _make(sys.argv[1], Path(sys.argv[2]))
