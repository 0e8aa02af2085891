"""Two models in one process: of two releases, with the same names, in one graph and in sessions of their own.

python examples/live/two_models.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

import graph_restore as gr

MODELS = Path(__file__).resolve().parents[2] / "legacy_models" / "linear"
OLD, NEW = MODELS / "tf0.12.1-v1", MODELS / "tf1.15.5-v2"
x = np.ones([2, 4], "float32")

with gr.Session(OLD / "model.ckpt.meta") as old, gr.Session(NEW / "model.ckpt.meta") as new:
    apart = [old.run("y:0", {"x:0": x}), new.run("y:0", {"x:0": x})]

with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    (old_x, old_y), old_saver = gr.restore_graph(
        OLD / "graph.pb", OLD, return_elements=["x:0", "y:0"], import_scope="old"
    )
    (new_x, new_y), new_saver = gr.restore_graph(
        NEW / "graph.pb", NEW, return_elements=["x:0", "y:0"], import_scope="new"
    )
    both = tf.concat([old_y, new_y], axis=0)
    together = session.run(both, {old_x: x, new_x: x})
    print(f"variables: {', '.join([*old_saver.variables, *new_saver.variables])}")

np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-6)
print("one graph with both gives what each gives alone")
