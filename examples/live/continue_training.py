"""Goes on training a model of TensorFlow 1.15 in graph mode: its own train op, its optimizer's state, its step counter.

    python examples/live/continue_training.py

Then a new optimizer trains the last layer alone, in the same session.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

import graph_restore as gr

MODEL = Path(__file__).resolve().parents[2] / "legacy_models" / "mlp" / "tf1.15.5-v2"

random = np.random.RandomState(0)
features = random.normal(size=[64, 6]).astype("float32")
labels = (features[:, 0] > 0).astype("int64")

with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    (loss,), saver = gr.restore_graph(MODEL / "graph.pb", MODEL, return_elements=["loss:0"])
    feeds = {"features:0": features, "labels:0": labels}
    step = saver.variables["global_step"]
    first, began = session.run([loss, step], feeds)
    for _ in range(50):
        session.run("Adam", {**feeds, "ExponentialDecay:0": 0.01})  # its own learning rate is down to zero
    second, now = session.run([loss, step], feeds)
    print(f"its own optimizer: loss {first:.3f} at step {began}, {second:.3f} at step {now}")
    assert second < first and now == began + 50

    head = [saver.variables["logits/weights"], saver.variables["logits/biases"]]
    train = tf.compat.v1.train.GradientDescentOptimizer(0.1).minimize(loss, var_list=head)
    for _ in range(50):
        session.run(train, feeds)
    third = session.run(loss, feeds)
    print(f"a new one, on the last layer: loss {third:.3f}")
    assert third < second
