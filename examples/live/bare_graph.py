"""Brings a bare GraphDef and a checkpoint back to life in a session: variables, saver, the tensors asked for.

    python examples/live/bare_graph.py

The graph has no collections, so TensorFlow itself could neither restore it nor save it again.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from graph_restore import restore_graph

MODEL = Path(__file__).resolve().parents[2] / "legacy_models" / "linear" / "tf0.12.1-v1"

graph_def = tf.compat.v1.GraphDef.FromString((MODEL / "graph.pb").read_bytes())
with tf.Graph().as_default(), tf.compat.v1.Session() as session, tempfile.TemporaryDirectory() as place:
    (x, y), saver = restore_graph(graph_def, str(MODEL / "model.ckpt"), return_elements=["x:0", "y:0"])
    before = session.run(y, {x: np.eye(4)})
    weights = saver.variables["w"]
    session.run(weights.assign(weights * 2))  # a tf.Variable as any other
    path = saver.save(session, os.path.join(place, "doubled"))
    saver.restore(session, str(MODEL / "model.ckpt"))
    assert (session.run(y, {x: np.eye(4)}) == before).all()
    saver.restore(session, path)
    difference = np.abs(session.run(y, {x: np.eye(4)}) - before).max()
    print(f"w is {weights.shape}; with twice the weights y differs by {difference:.3f}")
