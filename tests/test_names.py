"""Names: which tensors a TensorInfo names, whatever its encoding."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from graph_restore.names import tensor_names
from graph_restore.protos import SignatureDef

SPARSE = 'values_tensor_name: "v:0" indices_tensor_name: "i:0" dense_shape_tensor_name: "d:0"'


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('name: "x:1"', ["x:1"]),
        ("", []),
        ('name: ""', []),
        (f"coo_sparse {{ {SPARSE} }}", ["v:0", "i:0", "d:0"]),
        ('coo_sparse { values_tensor_name: "v:0" }', ["v:0"]),
        (
            f'composite_tensor {{ components {{ name: "a:0" }} components {{ coo_sparse {{ {SPARSE} }} }} }}',
            ["a:0", "v:0", "i:0", "d:0"],
        ),
    ],
)
def test_the_tensors_of_a_tensor_info(text: str, names: list[str]) -> None:
    signature = SignatureDef()
    text_format.Parse(text, signature.inputs["x"])
    assert tensor_names(signature.inputs["x"]) == names
