"""Fine-tunes a recurrent network of TensorFlow 1.4 in TensorFlow 2: its loop is differentiated by a GradientTape.

python examples/live/fine_tune.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import tensorflow as tf

import graph_restore as gr

MODEL = Path(__file__).resolve().parents[2] / "legacy_models" / "lstm_dynamic" / "tf1.4.1-v2"

tf.random.set_seed(0)
network = gr.as_module(MODEL / "model.ckpt.meta", ["y:0"], ["x:0", "lengths:0"])
head = tf.Variable(tf.random.normal([network(tf.zeros([1, 5, 3]), [5])["y:0"].shape[-1], 1], stddev=0.1))
optimizer = tf.keras.optimizers.Adam(0.01)
trained = [*network.trainable_variables, head]

sequences, lengths = tf.random.normal([32, 5, 3]), tf.fill([32], 5)
targets = tf.reduce_sum(sequences[:, :, 0], axis=1, keepdims=True)


@tf.function
def step() -> tf.Tensor:
    """One step of Adam; the loss before it."""
    with tf.GradientTape() as tape:
        outputs = network(sequences, lengths)["y:0"]
        predicted = tf.reduce_sum(outputs, axis=1) @ head if outputs.shape.rank == 3 else outputs @ head
        loss = tf.reduce_mean(tf.square(predicted - targets))
    gradients = tape.gradient(loss, trained)
    assert all(gradient is not None for gradient in gradients)
    optimizer.apply_gradients(zip(gradients, trained))
    return loss


losses = [float(step()) for _ in range(100)]
print(f"{len(trained)} variables, loss {losses[0]:.3f}, then {losses[-1]:.3f}")
assert losses[-1] < losses[0] / 2

with tempfile.TemporaryDirectory() as place:
    path = tf.train.Checkpoint(network=network, head=head).save(f"{place}/tuned")
    again = gr.as_module(MODEL / "model.ckpt.meta", ["y:0"], ["x:0", "lengths:0"])
    tf.train.Checkpoint(network=again).restore(path).expect_partial()
    same = tf.reduce_all(again(sequences, lengths)["y:0"] == network(sequences, lengths)["y:0"])
    print("restored from its checkpoint:", bool(same))
    assert same
