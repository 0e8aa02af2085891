"""Gradients of ops that TensorFlow still has, but whose gradients were in tf.contrib and went with it.

The formulas are those of the ops' own gradient kernels (tensorflow/core/ops/rnn_ops.cc), which are still there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from graph_restore.graph import Graph
from graph_restore.runtime.guard import tensorflow


@cache
def register_gradients() -> None:
    """Make the gradients of LSTMBlockCell and GRUBlockCell known, unless the program did so itself."""
    for op, gradient in (("LSTMBlockCell", _lstm_block_cell), ("GRUBlockCell", _gru_block_cell)):
        try:
            tensorflow().RegisterGradient(op)(gradient)
        except KeyError:  # registered already
            continue


def forget_numbered_gradients(graph: Graph) -> None:
    """Change the names of gradients that tf.custom_gradient made up in another program, in a graph that is one's own.

    They are numbers that today's TensorFlow gives to gradients of its own, of other functions; under a name that
    nothing has, such a gradient is an error.
    """
    if graph.versions.producer >= tensorflow().version.GRAPH_DEF_VERSION:
        return  # this program's, perhaps
    for nodes in (graph.graph_def.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            if "_gradient_op_type" in node.attr and node.attr["_gradient_op_type"].s.startswith(_NUMBERED):
                node.attr["_gradient_op_type"].s += b" of the original program"


_NUMBERED = b"CustomGradient-"


def _lstm_block_cell(op: Any, *gradients: Any) -> tuple[Any, ...]:
    tf = tensorflow()
    x, cs_prev, h_prev, w, wci, wcf, wco, b = op.inputs
    i, cs, f, o, ci, co, _ = op.outputs
    found = tf.raw_ops.LSTMBlockCellGrad(
        x=x, cs_prev=cs_prev, h_prev=h_prev, w=w, wci=wci, wcf=wcf, wco=wco, b=b, i=i, cs=cs, f=f, o=o, ci=ci, co=co,
        cs_grad=gradients[1], h_grad=gradients[6], use_peephole=op.get_attr("use_peephole"),
    )  # fmt: skip
    xh = tf.concat([x, h_prev], 1)
    xh_grad = tf.matmul(found.dicfo, w, transpose_b=True)
    x_grad, h_prev_grad = xh_grad[:, : tf.shape(x)[1]], xh_grad[:, tf.shape(x)[1] :]
    w_grad = tf.matmul(xh, found.dicfo, transpose_a=True)
    peepholes = (found.wci_grad, found.wcf_grad, found.wco_grad)
    return x_grad, found.cs_prev_grad, h_prev_grad, w_grad, *peepholes, tf.reduce_sum(found.dicfo, 0)


def _gru_block_cell(op: Any, *gradients: Any) -> tuple[Any, ...]:
    tf = tensorflow()
    x, h_prev, w_ru, w_c, b_ru, b_c = op.inputs
    r, u, c, _ = op.outputs
    found = tf.raw_ops.GRUBlockCellGrad(
        x=x, h_prev=h_prev, w_ru=w_ru, w_c=w_c, b_ru=b_ru, b_c=b_c, r=r, u=u, c=c, d_h=gradients[3]
    )
    w_ru_grad = tf.matmul(tf.concat([x, h_prev], 1), found.d_r_bar_u_bar, transpose_a=True)
    w_c_grad = tf.matmul(tf.concat([x, h_prev * r], 1), found.d_c_bar, transpose_a=True)
    b_ru_grad, b_c_grad = tf.reduce_sum(found.d_r_bar_u_bar, 0), tf.reduce_sum(found.d_c_bar, 0)
    return found.d_x, found.d_h_prev, w_ru_grad, w_c_grad, b_ru_grad, b_c_grad
