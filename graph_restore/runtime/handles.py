"""What is known of the handles that functional loops and conds take and give, which an import does not tell.

TensorFlow makes zeros like every tensor whose gradient a function is asked for, and needs dtype and shape of the
variable for those of a handle. A loop or cond that is built keeps its bodies as graphs, where this is written; for an
imported one they are read from the library, anew for every gradient, and once one was taken they say nothing of
handles any more: a second one, in a tf.function after an eager one, would be an error. So imported ones get such
graphs too. There is no public way to do either; without the private one only such gradients fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graph_restore.runtime.guard import tensorflow

_LOOPS = ("While", "StatelessWhile")
_CONDS = ("If", "StatelessIf")
_LOOP_BODIES = (("cond", "_cond_graph"), ("body", "_body_graph"))
_BRANCHES = (("then_branch", "_true_graph"), ("else_branch", "_false_graph"))


def tell_handles(graph: Any) -> None:
    """Give the handles in loops and conds of a live graph, and those that loops pass on, what is known of those they
    are given."""
    if not any(operation.type in _LOOPS for operation in graph.get_operations()):
        return
    tensorflow()
    try:
        from tensorflow.python.ops.control_flow_util_v2 import get_func_graph
        from tensorflow.python.ops.handle_data_util import copy_handle_data
    except ImportError:
        return
    waiting = [graph]
    while waiting:
        for operation in waiting.pop().get_operations():
            given = _handles(operation)
            if not given:
                continue
            is_loop = operation.type in _LOOPS
            for attr, place in _LOOP_BODIES if is_loop else _BRANCHES:
                if hasattr(operation, place):  # it was built here, or told before
                    continue
                body = get_func_graph(operation, [tensor.shape for tensor in given], operation.get_attr(attr).name)
                _copy(copy_handle_data, given, body.inputs)
                setattr(operation, place, body)
                waiting.append(body)
            _copy(copy_handle_data, given, operation.outputs if is_loop else ())


def _handles(operation: Any) -> Sequence[Any]:
    """What an operation gives its bodies, if there are handles of variables among it."""
    if operation.type not in _LOOPS + _CONDS:
        return ()
    given = list(operation.inputs)[operation.type in _CONDS :]
    return given if any(tensor.dtype == tensorflow().resource for tensor in given) else ()


def _copy(copy: Any, given: Sequence[Any], passed: Sequence[Any]) -> None:
    for source, target in zip(given, passed):
        if source.dtype == target.dtype == tensorflow().resource:
            copy(source, target)
