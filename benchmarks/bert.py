"""A BERT in the shape of a TF1 program, with the variable names and ops of the models that went round in 2018.

Imported only by the process that makes a model: it needs TensorFlow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

v1: Any = tf.compat.v1

FETCHES = ("cls/predictions/logits", "cls/seq_relationship/probabilities")
FEEDS = ("input_ids", "input_mask", "segment_ids")


@dataclass(frozen=True)
class Size:
    """How large a BERT is; `LARGE` has 336 million parameters."""

    layers: int
    hidden: int
    heads: int
    vocabulary: int = 30522
    positions: int = 512


LARGE = Size(layers=24, hidden=1024, heads=16)
TINY = Size(layers=1, hidden=16, heads=2, vocabulary=64, positions=16)


def build(size: Size) -> None:
    """The inference graph with both pre-training heads, into the default graph."""
    ids, mask, segments = (v1.placeholder(tf.int32, [None, None], name=name) for name in FEEDS)
    with v1.variable_scope("bert"):
        states, table = _embeddings(ids, segments, size)
        with v1.variable_scope("encoder"):
            penalty = (1.0 - tf.cast(mask[:, tf.newaxis, tf.newaxis, :], tf.float32)) * -10000.0
            for layer in range(size.layers):
                with v1.variable_scope(f"layer_{layer}"):
                    states = _layer(states, penalty, size)
        with v1.variable_scope("pooler"):
            first = tf.reshape(states, [-1, tf.shape(ids)[1], size.hidden])[:, 0]
            pooled = _dense(first, size.hidden, "dense", tf.tanh)
    with v1.variable_scope("cls/predictions"):
        with v1.variable_scope("transform"):
            hidden = _normalized(_dense(states, size.hidden, "dense", _gelu))
        bias = v1.get_variable("output_bias", [size.vocabulary], initializer=v1.zeros_initializer())
        tf.add(tf.matmul(hidden, table, transpose_b=True), bias, name="logits")
    with v1.variable_scope("cls/seq_relationship"):
        weights = v1.get_variable("output_weights", [2, size.hidden], initializer=_normal())
        bias = v1.get_variable("output_bias", [2], initializer=v1.zeros_initializer())
        tf.nn.softmax(tf.matmul(pooled, weights, transpose_b=True) + bias, name="probabilities")


def _normal() -> Any:
    return v1.truncated_normal_initializer(stddev=0.02)


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1.0 + tf.math.erf(x / math.sqrt(2.0)))


def _embeddings(ids: Any, segments: Any, size: Size) -> tuple[Any, Any]:
    with v1.variable_scope("embeddings"):
        words = v1.get_variable("word_embeddings", [size.vocabulary, size.hidden], initializer=_normal())
        types = v1.get_variable("token_type_embeddings", [2, size.hidden], initializer=_normal())
        positions = v1.get_variable("position_embeddings", [size.positions, size.hidden], initializer=_normal())
        states = tf.gather(words, ids) + tf.gather(types, segments) + positions[: tf.shape(ids)[1]]
        return _normalized(tf.reshape(states, [-1, size.hidden])), words


def _normalized(x: Any) -> Any:
    with v1.variable_scope("LayerNorm"):
        beta = v1.get_variable("beta", x.shape[-1:], initializer=v1.zeros_initializer())
        gamma = v1.get_variable("gamma", x.shape[-1:], initializer=v1.ones_initializer())
        mean, variance = v1.nn.moments(x, axes=[-1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-12)


def _dense(x: Any, width: int, name: str, activation: Any = None) -> Any:
    with v1.variable_scope(name):
        kernel = v1.get_variable("kernel", [x.shape[-1], width], initializer=_normal())
        bias = v1.get_variable("bias", [width], initializer=v1.zeros_initializer())
        result = tf.nn.bias_add(tf.matmul(x, kernel), bias)
        return result if activation is None else activation(result)


def _attention(states: Any, penalty: Any, size: Size) -> Any:
    """`states` is [batch * length, hidden] throughout, as in the original; only the heads are taken apart."""
    width, length = size.hidden // size.heads, tf.shape(penalty)[3]
    with v1.variable_scope("attention"):
        with v1.variable_scope("self"):
            query, key, value = (
                tf.transpose(
                    tf.reshape(_dense(states, size.hidden, name), [-1, length, size.heads, width]), [0, 2, 1, 3]
                )
                for name in ("query", "key", "value")
            )
            scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(width)
            context = tf.transpose(tf.matmul(tf.nn.softmax(scores + penalty), value), [0, 2, 1, 3])
            joined = tf.reshape(context, [-1, size.hidden])
        with v1.variable_scope("output"):
            return _normalized(_dense(joined, size.hidden, "dense") + states)


def _layer(states: Any, penalty: Any, size: Size) -> Any:
    attended = _attention(states, penalty, size)
    with v1.variable_scope("intermediate"):
        wide = _dense(attended, 4 * size.hidden, "dense", _gelu)
    with v1.variable_scope("output"):
        return _normalized(_dense(wide, size.hidden, "dense") + attended)
