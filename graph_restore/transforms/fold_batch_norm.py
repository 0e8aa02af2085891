"""Batch norms in inference form folded into the convolution or product before them.

1. A fused batch norm of a convolution becomes a BiasAdd: with k = scale / sqrt(variance + epsilon) the weights are
   multiplied by k along their output channels, and the bias is offset - mean * k (plus the old bias times k). So does
   BatchNormWithGlobalNormalization, the fused form before there was FusedBatchNorm.
2. In the form of nn.batch_normalization the product by k goes into the weights, and what is added stays.
3. The old bias is a BiasAdd or an Add of a constant with one number for each channel.
4. Only where the weights and all that is folded are constant, and nothing else takes what lies between.
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
_OLD_FUSED = "BatchNormWithGlobalNormalization"
_FOLDED = FUSED | {_OLD_FUSED, "Mul"}
_BIASES = ("BiasAdd", "Add", "AddV2")
Weighted = tuple[Any, Any, "Array | None"]  # convolution or product, what adds a bias after it, that bias
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
        self._users = self._draft.consumers()
        for name in [name for name, node in self._draft.nodes.items() if node.op in _FOLDED]:
            node = self._draft.nodes[name]
            if self._fold_product(node) if node.op == "Mul" else self._fold_fused(node):
                done.append(name)
                self._users = self._draft.consumers()
        return done

    def _fold_fused(self, node: Any) -> bool:
        numbers = self._normalisation(node)
        found = None if numbers is None or self._takes_more(node.name) else self._weighted(node.input[0], node.name)
        if numbers is None or found is None or not self._same_layout(found[0], node):
            return False
        factor, shift = numbers
        product, bias, old = found
        if not self._scale_weights(product, factor, node.name):
            return False
        self._forget(bias)
        shift = shift if old is None else shift + np.asarray(old, np.float64).reshape(-1) * factor
        number = node.attr["T"].type
        added = self._draft.add(constant_node(self._draft.free_name(f"{node.name}/bias"), number, shift))
        sum_node = NodeDef(name=node.name, op="BiasAdd", device=node.device)
        sum_node.input.extend([product.name, added.name, *control_inputs(node)])
        sum_node.attr["T"].type = number
        if self._layout(product) == "NCHW":
            sum_node.attr["data_format"].s = b"NCHW"
        self._draft.add(sum_node)
        return True

    def _normalisation(self, node: Any) -> tuple[Array, Array] | None:
        """(k, what is added) of a fused batch norm in inference form, of which both are constant."""
        values = [self._value(item) for item in self._pattern.inputs(node)[1:5]]
        in_use = node.op == _OLD_FUSED or ("is_training" in node.attr and not node.attr["is_training"].b)
        if len(values) < 4 or not in_use:
            return None
        numbers = [np.asarray(value, np.float64) for value in values if value is not None]
        if len(numbers) < 4 or any(number.ndim != 1 or number.shape != numbers[0].shape for number in numbers):
            return None
        if node.op == _OLD_FUSED:
            mean, variance, offset, scale = numbers
            scale = scale if node.attr["scale_after_normalization"].b else np.ones_like(scale)
            factor = scale / np.sqrt(variance + node.attr["variance_epsilon"].f)
        else:
            scale, offset, mean, variance = numbers
            factor = scale / np.sqrt(variance + (node.attr["epsilon"].f if "epsilon" in node.attr else 1e-4))
        return factor, offset - mean * factor

    def _fold_product(self, node: Any) -> bool:
        """Mul(convolution, k), k of one number for each channel."""
        data = self._pattern.inputs(node)
        for item, other in (data, data[::-1]):
            found = self._weighted(item, node.name)
            factor = self._value(other) if found is not None else None
            if found is None or factor is None:
                continue
            product, bias, old = found
            channels = self._channels(product)
            if channels is None or not self._per_channel(factor, product, channels):
                continue
            numbers = np.broadcast_to(np.asarray(factor, np.float64).reshape(-1), [channels])
            if not self._scale_weights(product, numbers, node.name):
                continue
            self._become_sum(node, product, bias, old, numbers)
            self._forget(bias)
            return True
        return False

    def _forget(self, bias: Any) -> None:
        """Drop a bias that went into the one after it, so that it takes nothing any more."""
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
        scaled = (np.asarray(old, np.float64).reshape(-1) * factor).reshape(old.shape)
        added = self._draft.add(constant_node(name, number, scaled))
        copy = NodeDef()
        copy.CopyFrom(bias)
        copy.name = node.name
        copy.input[:] = [product.name, added.name, *control_inputs(node)]
        self._draft.add(copy)

    def _weighted(self, item: str, user: str) -> Weighted | None:
        """The convolution or product an input comes from, past a constant bias; where nothing but `user` takes them."""
        name, index = parse_tensor_name(item)
        node = self._draft.nodes.get(name)
        if node is None or index or not self._only_for(name, user):
            return None
        if node.op in _BIASES:
            return self._biased(node)
        return (node, None, None) if node.op in _WEIGHTS_AXIS and node.attr["T"].type in _FLOATS else None

    def _biased(self, bias: Any) -> Weighted | None:
        data = self._pattern.inputs(bias)
        for item, other in (data, data[::-1]) if bias.op != "BiasAdd" else (data,):
            name, index = parse_tensor_name(item)
            node = self._draft.nodes.get(name)
            if node is None or node.op not in _WEIGHTS_AXIS or index or not self._only_for(name, bias.name):
                continue
            value, channels = self._value(other), self._channels(node)
            if value is None or channels is None or value.size != channels or node.attr["T"].type not in _FLOATS:
                continue
            if bias.op == "BiasAdd" or self._per_channel(value, node, channels):
                return node, bias, value
        return None

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
