"""Ops that are worked out with numpy, each against TensorFlow's kernel, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graph_restore.protos import NodeDef
from graph_restore.transforms.evaluation import evaluate

F = np.float32([[0.1, -2.5, 3e7], [1e-3, 0.7, -0.0]])
G = np.float32([[3, 0.3, -7], [1e3, -0.7, 2]])
INTS, OTHERS = np.int32([[7, -8, 9], [0, 5, -1]]), np.int32([[2, 3, -4], [5, -5, 3]])
TESTS = np.array([[True, False, True], [False, False, True]])
WORDS = np.array([b"elm", b"oak"], object)
AXES = np.int32([1])

CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    *((op, [F, G], {}) for op in ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Equal", "Less", "GreaterEqual")),
    *((op, [INTS, OTHERS], {}) for op in ("Add", "Sub", "Mul", "FloorDiv", "FloorMod", "Maximum", "Minimum")),
    *((op, [INTS, np.int32(3)], {}) for op in ("NotEqual", "LessEqual", "Greater", "AddV2")),
    *((op, [TESTS, ~TESTS[:1]], {}) for op in ("LogicalAnd", "LogicalOr")),
    ("LogicalNot", [TESTS], {}), ("Equal", [WORDS, WORDS[::-1]], {}),
    *((op, [F], {}) for op in ("Neg", "Abs", "Square", "Identity", "StopGradient", "ZerosLike", "OnesLike", "Rank")),
    *((op, [F], {"out_type": out_type}) for op in ("Shape", "Size") for out_type in ("int32", "int64")),
    *(("Cast", [value], {"DstT": to}) for value in (F[:, :2], INTS, TESTS) for to in ("float32", "int32", "float64")),
    ("Cast", [INTS], {"DstT": "bool"}), ("Cast", [np.float64([0.1, 1e30])], {"DstT": "float32"}),
    ("Reshape", [F, np.int32([3, -1])], {}), ("ExpandDims", [F, np.int32(-1)], {}),
    ("Squeeze", [F[:1, None]], {}), ("Squeeze", [F[:1, None]], {"squeeze_dims": [1]}),
    ("Fill", [np.int32([2, 2]), np.float32(0.3)], {}), ("Fill", [np.int32([2]), np.array(b"elm", object)], {}),
    ("Range", [np.int32(2), np.int32(11), np.int32(3)], {}), ("Tile", [INTS, np.int32([2, 1])], {}),
    ("Slice", [F, np.int32([0, 1]), np.int32([2, -1])], {}), ("Transpose", [F, np.int32([1, 0])], {}),
    ("StridedSlice", [F, np.int32([1, 0]), np.int32([2, 3]), np.int32([1, 2])], {"shrink_axis_mask": 1}),
    ("StridedSlice", [F, np.int32([0, 2]), np.int32([0, 0]), np.int32([1, -1])], {"begin_mask": 1, "end_mask": 3}),
    ("StridedSlice", [F, np.int32([0, 0, 1]), np.int32([0, 0, 2]), np.int32([1, 1, 1])],
     {"ellipsis_mask": 1, "new_axis_mask": 2}),
    ("Gather", [F, np.int32([[1, 0]])], {}), ("GatherV2", [F, np.int32([2, 0]), np.int32(1)], {}),
    ("Concat", [np.int32(1), F, G], {}), ("ConcatV2", [F, G, np.int32(0)], {}), ("Pack", [F, G], {"axis": 1}),
    *((op, [INTS, AXES], {"keep_dims": keep}) for op in ("Prod", "Sum", "Max", "Min") for keep in (False, True)),
    *((op, [TESTS, AXES], {}) for op in ("All", "Any")),
]  # fmt: skip
LEFT: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Sum", [F, AXES], {}),  # kernels add in another order
    ("Rsqrt", [np.float32([2])], {}),
    ("Mul", [np.float32([1e-30]), np.float32([1e-10])], {}),  # denormal: flushed to zero
    ("RealDiv", [np.float32([0]), np.float32([0])], {}),
    ("FloorDiv", [INTS, np.int32(0)], {}),
    ("Cast", [np.float32([1e10])], {"DstT": "int32"}),
    ("Gather", [F, np.int32([-1])], {}),
    ("Slice", [F, np.int32([0, 1]), np.int32([2, 9])], {}),
    ("Fill", [np.int32([1 << 20]), np.float32(1)], {}),
    ("Add", [WORDS, WORDS], {}),
    ("Reshape", [F, np.int32([4, 4])], {}),
]


def _node(op: str, attrs: dict[str, Any]) -> Any:
    import graph_restore.dtypes as dtypes

    node = NodeDef(name="n", op=op)
    for name, value in attrs.items():
        if isinstance(value, str):
            node.attr[name].type = dtypes.from_numpy(np.dtype(value))
        elif isinstance(value, list):
            node.attr[name].list.i.extend(value)
        elif isinstance(value, bool):
            node.attr[name].b = value
        else:
            node.attr[name].i = value
    return node


@pytest.mark.tensorflow
@pytest.mark.parametrize(("op", "inputs", "attrs"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_values_are_tensorflows(op: str, inputs: list[Any], attrs: dict[str, Any]) -> None:
    import tensorflow.compat.v1 as tf

    found = evaluate(_node(op, attrs), inputs)
    assert found is not None and len(found) == 1
    with tf.Graph().as_default() as graph:
        placeholders = [tf.placeholder(tf.as_dtype(value.dtype), value.shape) for value in inputs]
        node = _node(op, attrs)
        types = {key: tf.as_dtype(value.type) for key, value in node.attr.items() if value.type}
        given = {**attrs, **types}
        if "GatherV2" not in op and op.startswith("Gather"):
            given["validate_indices"] = True
        output = getattr(tf.raw_ops, op)(**_named(tf, op, placeholders), **_renamed(given))
        with tf.Session(graph=graph) as session:
            expected = np.asarray(session.run(output, dict(zip(placeholders, inputs))))
    assert found[0].shape == expected.shape
    if expected.dtype == object:
        assert found[0].tolist() == expected.tolist()
    else:
        assert found[0].dtype == expected.dtype and found[0].tobytes() == expected.tobytes()


def _named(tf: Any, op: str, values: list[Any]) -> dict[str, Any]:
    """The inputs by the names that tf.raw_ops has for them; lists are given as lists."""
    from tensorflow.python.framework import op_def_registry

    names, left = {}, list(values)
    arguments = op_def_registry.get(op).input_arg
    for position, argument in enumerate(arguments):
        is_list = bool(argument.number_attr)
        count = len(left) - (len(arguments) - position - 1) if is_list else 1
        name = {"reduction_indices": "axis", "dim": "axis"}.get(argument.name, argument.name)
        names[name] = left[:count] if is_list else left[0]
        left = left[count:]
    if op == "Reshape":
        return {"tensor": values[0], "shape": values[1]}
    return names


def _renamed(attrs: dict[str, Any]) -> dict[str, Any]:
    return {{"squeeze_dims": "axis"}.get(name, name): value for name, value in attrs.items()}


@pytest.mark.parametrize(("op", "inputs", "attrs"), LEFT, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_certain_is_left(op: str, inputs: list[Any], attrs: dict[str, Any]) -> None:
    node = _node(op, attrs)
    before = node.SerializeToString(deterministic=True)
    assert evaluate(node, inputs) is None
    assert node.SerializeToString(deterministic=True) == before, "the node was changed by asking it"
