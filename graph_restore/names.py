"""Names in a GraphDef: node `scope/op`, tensor `scope/op:1`, control input `^scope/op`.

A tensor name without an index means output 0. See the comment on NodeDef.input in TensorFlow's node_def.proto.
"""

from __future__ import annotations

from typing import Any


def is_control(name: str) -> bool:
    """Whether an input is a control input, `^node`."""
    return name.startswith("^")


def parse_tensor_name(name: str) -> tuple[str, int]:
    """(node name, output index) of `node`, `node:2` or `^node` (index -1)."""
    if name[:1] == "^":
        return name[1:], -1
    if ":" not in name:
        return name, 0  # nearly all inputs
    node, colon, index = name.rpartition(":")
    if colon and index.isdigit():
        return node, int(index)
    return name, 0


def node_of(name: str) -> str:
    """The node's name in any spelling: `node`, `node:2`, `^node`."""
    return parse_tensor_name(name)[0] if ":" in name else name.removeprefix("^")


def tensor_name(node: str, index: int = 0) -> str:
    """The full name `node:index`, as fetches and signatures spell it."""
    return f"{node}:{index}"


def input_name(node: str, index: int = 0) -> str:
    """The shortest spelling, as NodeDef.input has it: `node` for output 0, `^node` for index -1."""
    if index < 0:
        return "^" + node
    return f"{node}:{index}" if index else node


def tensor_names(info: Any) -> list[str]:
    """The tensors a TensorInfo names: one, the three of a SparseTensor (values, indices, dense shape), or those of a
    composite tensor's components; none where it names nothing."""
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        sparse = info.coo_sparse
        names = [sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
        return [name for name in names if name]
    if kind == "composite_tensor":
        return [name for component in info.composite_tensor.components for name in tensor_names(component)]
    return [info.name] if info.name else []
