"""What a frozen graph computes: `python -m benchmarks.outputs FILE.pb JSON` prints shape, dtype and hash of each fetch.

The input is made of fixed numbers, so that two processes feed the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any


def compute(path: str, fetches: list[str], feeds: dict[str, list[int]]) -> dict[str, str]:
    """Fetch name to a text that differs when any bit of its value does."""
    import tensorflow as tf

    tf.compat.v1.disable_eager_execution()
    graph_def = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        graph_def.ParseFromString(file.read())
    tf.import_graph_def(graph_def, name="")
    with tf.compat.v1.Session() as session:
        return fetched(session, fetches, feeds)


def fetched(session: Any, fetches: list[str], feeds: dict[str, list[int]]) -> dict[str, str]:
    """The same of a session that is ready to run; `feeds`: shapes by node name."""
    fed = {}
    for name, shape in feeds.items():
        tensor = session.graph.get_tensor_by_name(name + ":0")
        fed[tensor] = _input(tensor.dtype.as_numpy_dtype, shape)
    values = session.run([fetch + ":0" for fetch in fetches], fed)
    return {fetch: _told(value) for fetch, value in zip(fetches, values)}


def _input(dtype: Any, shape: list[int]) -> Any:
    """0 and 1 by turns for integers (token ids, masks), steps between -1 and 1 for floats."""
    import numpy as np

    count = int(np.prod(shape))
    if np.issubdtype(dtype, np.integer):
        return (np.arange(count) % 2).astype(dtype).reshape(shape)
    return np.linspace(-1, 1, count).astype(dtype).reshape(shape)


def _told(value: Any) -> str:
    digest = hashlib.sha256(value.tobytes()).hexdigest()
    return f"{value.dtype}{list(value.shape)} mean {value.mean():.6g} spread {value.std():.6g} sha256 {digest[:32]}"


if __name__ == "__main__":
    asked = json.loads(sys.argv[2])
    print(json.dumps(compute(sys.argv[1], asked["fetches"], asked["feeds"])))
