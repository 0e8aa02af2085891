"""What is known of the handles that come out of functional loops, which an import does not tell.

TensorFlow makes zeros like every tensor whose gradient a function is asked for, and needs dtype and shape of the
variable for those of a handle. There is no public way to tell it; without the private one only such gradients fail.
"""

from __future__ import annotations

from typing import Any

from graph_restore.runtime.guard import tensorflow

_LOOPS = ("While", "StatelessWhile")


def tell_handles(graph: Any) -> None:
    """Give the handles that loops of a live graph pass on what is known of those they were given."""
    loops = [operation for operation in graph.get_operations() if operation.type in _LOOPS]
    if not loops:
        return
    tensorflow()
    try:
        from tensorflow.python.ops.handle_data_util import copy_handle_data
    except ImportError:
        return
    for operation in loops:
        for given, passed in zip(operation.inputs, operation.outputs):
            copy_handle_data(given, passed)
