"""Queue runners of a model: the threads that fill its queues, as its collection says or as its graph shows.

A bare graph has no collections; its enqueue ops are those that need nothing fed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graph_restore.model import Model
from graph_restore.names import node_of
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.importing import Imported

_COLLECTION = "queue_runners"


def queue_runners(model: Model, imported: Imported) -> list[Any]:
    """A tf.compat.v1.train.QueueRunner for each queue that the graph fills by itself; called with its graph default."""
    tf = tensorflow()
    runner = tf.compat.v1.train.QueueRunner
    if _COLLECTION in model.collections:
        definition = type(next(iter(_throw_away_runner().values())).to_proto())
        return [
            runner.from_proto(definition.FromString(data)) for data in model.collections[_COLLECTION].bytes_list.value
        ]
    found: dict[str, list[Any]] = {}
    for name in _enqueues(model):
        operation = imported.operation(name)
        found.setdefault(operation.inputs[0].name, []).append(operation)
    return [_runner(operations) for operations in found.values()]


def _throw_away_runner() -> dict[str, Any]:
    """A queue runner of no use but for its classes."""
    tf = tensorflow()
    with tf.Graph().as_default():
        queue = tf.queue.FIFOQueue(1, tf.float32)
        return {"runner": tf.compat.v1.train.QueueRunner(queue, [queue.enqueue(0.0)])}


def _runner(operations: list[Any]) -> Any:
    tf = tensorflow()
    handle = operations[0].inputs[0]
    types = [tensor.dtype.base_dtype for tensor in operations[0].inputs[1:]]
    queue = tf.queue.QueueBase(dtypes=types, shapes=None, names=None, queue_ref=handle)
    return tf.compat.v1.train.QueueRunner(queue, operations)


def _enqueues(model: Model) -> Iterator[str]:
    """The enqueue nodes that need no placeholder."""
    nodes = model.graph.nodes
    for node in model.graph.graph_def.node:
        if node.op.startswith("QueueEnqueue"):
            seen, waiting = {node.name}, [node.name]
            while waiting:
                for item in nodes[waiting.pop()].input:
                    if node_of(item) not in seen and node_of(item) in nodes:
                        seen.add(node_of(item))
                        waiting.append(node_of(item))
            if not any(nodes[name].op.startswith("Placeholder") for name in seen):
                yield node.name
