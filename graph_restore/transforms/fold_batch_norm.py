"""Batch norms in inference form folded into the convolution or product before them.

1. A fused batch norm of a convolution becomes a BiasAdd: with k = scale / sqrt(variance + epsilon) the weights are
   multiplied by k along their output channels, and the bias is offset - mean * k (plus the old bias times k).
2. In the form of nn.batch_normalization the product by k goes into the weights, and what is added stays.
3. Only where the weights and all that is folded are constant, and nothing else takes what lies between.
Both layouts; depthwise and transposed convolutions too. Sums are taken in another order, so the last bits may change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from graph_restore.names import is_control, parse_tensor_name
from graph_restore.protos import NodeDef, TensorProto
from graph_restore.tensor_proto import encode_head
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.constants import constant_node
from graph_restore.transforms.draft import Draft, control_inputs
from graph_restore.transforms.evaluation import LARGEST, Array, evaluate
from graph_restore.transforms.moving_averages import FUSED
from graph_restore.transforms.pattern import PASSING, Pattern
from graph_restore.transforms.scaling import ScaledTensor

_WEIGHTS_AXIS = {"Conv2D": 3, "DepthwiseConv2dNative": 2, "Conv2DBackpropInput": 2, "MatMul": 1}
_FLOATS = (1, 2, 19)  # float32, float64, half
_ROUNDED: dict[str, Callable[[Any], Any]] = {
    "Rsqrt": lambda x: 1 / np.sqrt(x),
    "Sqrt": np.sqrt,
    "Reciprocal": lambda x: 1 / x,
    "Inv": lambda x: 1 / x,
}
_DEPTH = 12


class BatchNormFolding:
    """The foldings of one draft; `kept` are the nodes whose outputs must stay what they are."""

    def __init__(self, draft: Draft, kept: Collection[str]) -> None:
        self._draft = draft
        self._kept = kept
        self._pattern = Pattern(draft.graph, draft.nodes, draft.payloads)
        self._users: dict[str, list[tuple[Any, int]]] = {}

    def fold(self) -> list[str]:
        """Fold what can be folded; gives the names of the batch norms."""
        done = []
        for name in list(self._draft.nodes):
            node = self._draft.nodes[name]
            self._users = self._draft.consumers() if node.op in FUSED or node.op == "Mul" else self._users
            if (node.op in FUSED and self._fold_fused(node)) or (node.op == "Mul" and self._fold_product(node)):
                done.append(name)
        return done

    def _fold_fused(self, node: Any) -> bool:
        if not ("is_training" in node.attr and not node.attr["is_training"].b) or self._takes_more(node.name):
            return False
        found = self._weighted(node.input[0], node.name)
        constants = [self._value(item) for item in node.input[1:5]]
        if found is None or any(value is None for value in constants) or not self._same_layout(found[0], node):
            return False
        product, bias = found
        scale, offset, mean, variance = (np.asarray(value, np.float64) for value in constants)
        epsilon = node.attr["epsilon"].f if "epsilon" in node.attr else 1e-4
        factor = scale / np.sqrt(variance + epsilon)
        old = None if bias is None else self._value(bias.input[1])
        if (bias is not None and old is None) or not self._scale_weights(product, factor, node.name):
            return False
        self._forget(bias)
        shift = offset + ((0.0 if old is None else np.asarray(old, np.float64)) - mean) * factor
        number = node.attr["T"].type
        added = self._draft.add(constant_node(self._draft.free_name(f"{node.name}/bias"), number, shift))
        sum_node = NodeDef(name=node.name, op="BiasAdd", device=node.device)
        sum_node.input.extend([product.name, added.name, *control_inputs(node)])
        sum_node.attr["T"].type = number
        if self._layout(product) == "NCHW":
            sum_node.attr["data_format"].s = b"NCHW"
        self._draft.add(sum_node)
        return True

    def _fold_product(self, node: Any) -> bool:
        """Mul(convolution, k), k of one number for each channel."""
        data = self._pattern.inputs(node)
        for item, other in (data, data[::-1]):
            found = self._weighted(item, node.name)
            factor = self._value(other) if found is not None else None
            if found is None or factor is None:
                continue
            product, bias = found
            channels = self._channels(product)
            old = None if bias is None else self._value(bias.input[1])
            fits = channels is not None and self._per_channel(factor, product, channels)
            if not fits or (bias is not None and old is None):
                continue
            numbers = np.broadcast_to(np.asarray(factor, np.float64).reshape(-1), [channels or 0])
            if not self._scale_weights(product, numbers, node.name):
                continue
            self._become_sum(node, product, bias, old, numbers)
            self._forget(bias)
            return True
        return False

    def _forget(self, bias: Any) -> None:
        """Drop a BiasAdd that went into the one after it, so that it takes nothing any more."""
        if bias is not None:
            del self._draft.nodes[bias.name]

    def _become_sum(self, node: Any, product: Any, bias: Any, old: Array | None, factor: Array) -> None:
        number = node.attr["T"].type
        if bias is None or old is None:
            passer = NodeDef(name=node.name, op="Identity", input=[product.name, *control_inputs(node)])
            passer.attr["T"].type = number
            self._draft.add(passer)
            return
        name = self._draft.free_name(f"{node.name}/bias")
        added = self._draft.add(constant_node(name, number, np.asarray(old, np.float64) * factor))
        copy = NodeDef()
        copy.CopyFrom(bias)
        copy.name = node.name
        copy.input[:] = [product.name, added.name, *control_inputs(node)]
        self._draft.add(copy)

    def _weighted(self, item: str, user: str) -> tuple[Any, Any] | None:
        """(convolution or product, BiasAdd after it or None), where nothing but `user` takes them."""
        name, index = parse_tensor_name(item)
        node = self._draft.nodes.get(name)
        bias = None
        if node is not None and node.op == "BiasAdd" and self._only_for(name, user):
            bias, user = node, name
            name, index = parse_tensor_name(node.input[0])
            node = self._draft.nodes.get(name)
        if node is None or node.op not in _WEIGHTS_AXIS or index or not self._only_for(name, user):
            return None
        return (node, bias) if node.attr["T"].type in _FLOATS else None

    def _only_for(self, name: str, user: str) -> bool:
        users = self._users.get(name, [])
        return name not in self._kept and len(users) == 1 and users[0][0].name == user

    def _takes_more(self, name: str) -> bool:
        """Whether anything takes another output of a fused batch norm than the first."""
        return any(parse_tensor_name(user.input[position])[1] > 0 for user, position in self._users.get(name, []))

    def _layout(self, node: Any) -> str:
        return node.attr["data_format"].s.decode() or "NHWC" if "data_format" in node.attr else "NHWC"

    def _same_layout(self, product: Any, norm: Any) -> bool:
        return product.op != "MatMul" and self._layout(product) == self._layout(norm) in ("NHWC", "NCHW")

    def _weights(self, product: Any) -> tuple[str, LazyTensor] | None:
        """The input that is the weights, and their value."""
        source = self._pattern.source(product.input[1], PASSING)
        if source is None or source.op != "Const" or any(is_control(item) for item in source.input):
            return None
        payload = self._draft.payloads.get(("", source.name))
        return source.name, self._draft.graph.value(source) if payload is None else payload

    def _axis(self, product: Any) -> int:
        turned = product.op == "MatMul" and "transpose_b" in product.attr and product.attr["transpose_b"].b
        return 0 if turned else _WEIGHTS_AXIS[product.op]

    def _channels(self, product: Any) -> int | None:
        weights = self._weights(product)
        if weights is None or self._axis(product) >= len(weights[1].shape):
            return None
        shape = weights[1].shape
        return shape[2] * shape[3] if product.op == "DepthwiseConv2dNative" else shape[self._axis(product)]

    def _per_channel(self, factor: Array, product: Any, channels: int) -> bool:
        """Whether a constant multiplies each output channel by one number."""
        if factor.size == 1:
            return factor.ndim == 0
        shape = factor.shape
        if product.op == "MatMul" or self._layout(product) == "NHWC":
            return shape[-1] == channels == factor.size and len(shape) <= (2 if product.op == "MatMul" else 4)
        return factor.size == channels and shape in ((channels, 1, 1), (1, channels, 1, 1))

    def _scale_weights(self, product: Any, factor: Array, norm: str) -> bool:
        weights, channels = self._weights(product), self._channels(product)
        if weights is None or factor.size != channels or not np.isfinite(factor).all():
            return False
        scaled = ScaledTensor(weights[1], self._axis(product), factor)
        const = NodeDef(name=self._draft.free_name(f"{norm}/weights"), op="Const")
        const.attr["dtype"].type = scaled.data_type
        const.attr["value"].tensor.CopyFrom(TensorProto.FromString(encode_head(scaled)))
        self._draft.add(const)
        self._draft.payloads["", const.name] = scaled
        self._draft.change(product.name).input[1] = const.name
        return True

    def _value(self, item: str, depth: int = _DEPTH) -> Array | None:
        """The value of a constant expression, roots of numbers included."""
        value = self._pattern.constant(item)
        name, index = parse_tensor_name(item)
        node = self._draft.nodes.get(name)
        if value is not None or node is None or not depth or index or is_control(item):
            return value
        operands = [self._value(other, depth - 1) for other in self._pattern.inputs(node)]
        values = [operand for operand in operands if operand is not None and operand.nbytes <= LARGEST]
        if not values or len(values) < len(operands):
            return None
        if node.op in _ROUNDED:
            return np.asarray(_ROUNDED[node.op](values[0].astype(np.float64))).astype(values[0].dtype)
        outputs = evaluate(node, values)
        return outputs[0] if outputs else None
