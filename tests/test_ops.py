"""The op table: known facts about ops, dtype resolution, and every op against TensorFlow's own registry.

Facts were read off op registrations of the releases named (documentation and REGISTER_OP calls), not off our table.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from graph_restore import protos
from graph_restore.errors import UnsupportedFormatError
from graph_restore.ops import OpTable, op_table

FLOAT, DOUBLE, INT32, STRING, INT64, BOOL, RESOURCE, REF = 1, 2, 3, 7, 9, 10, 20, 100


def node(op: str, inputs: str = "", attrs: str = "") -> Any:
    """A NodeDef "n": inputs separated by blanks, attrs as "T=type: DT_FLOAT; N=i: 2"."""
    result = protos.NodeDef(name="n", op=op, input=inputs.split())
    for item in filter(None, attrs.split(";")):
        name, value = item.strip().split("=", 1)
        text_format.Parse(value, result.attr[name])
    return result


def op_def(text: str) -> Any:
    return text_format.Parse(text, protos.OpDef())


def test_shipped_file_is_small_and_covers_six_releases() -> None:
    path = Path(sys.modules[OpTable.__module__].__file__ or "").with_name("ops.binpb")
    assert path.stat().st_size < 700_000
    assert op_table().versions == ("0.12.1", "1.0.1", "1.4.1", "1.8.0", "1.15.5", "2.21.0")
    assert op_table() is op_table()


def test_reading_the_table_is_quick_and_needs_no_tensorflow() -> None:
    code = (
        "import sys, time; from graph_restore import ops, protos; protos.OpDef\n"
        "def seconds():\n"
        "    ops.op_table.cache_clear(); start = time.perf_counter(); ops.op_table()['MatMul']\n"
        "    return time.perf_counter() - start\n"
        "print(min(seconds() for _ in range(3)), 'tensorflow' in sys.modules)"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    seconds, has_tensorflow = done.stdout.split()
    assert has_tensorflow == "False"
    assert float(seconds) < 0.03


@pytest.mark.parametrize(
    ("name", "since", "until", "contrib_module", "contrib_until"),
    [
        ("Variable", "0.12.1", "", "", ""),
        ("MatMul", "0.12.1", "", "", ""),
        ("_Send", "0.12.1", "", "", ""),
        ("RestoreSlice", "0.12.1", "", "", ""),
        ("VariableV2", "1.0.1", "", "", ""),
        ("IteratorGetNext", "1.4.1", "", "", ""),
        ("StatelessIf", "1.15.5", "", "", ""),
        ("CreateVariableOp", "0.12.1", "0.12.1", "", ""),
        ("GatherTree", "1.4.1", "1.15.5", "tensorflow.contrib.seq2seq", "1.15.5"),
        ("Resampler", "1.4.1", "1.15.5", "tensorflow.contrib.resampler", "1.15.5"),
        ("ZeroInitializer", "0.12.1", "1.15.5", "tensorflow.contrib.framework", "1.15.5"),
        ("LSTMBlockCell", "0.12.1", "", "tensorflow.contrib.rnn", "1.8.0"),
        ("Batch", "1.4.1", "", "tensorflow.contrib.batching", "1.4.1"),
    ],
)
def test_when_ops_came_and_went(name: str, since: str, until: str, contrib_module: str, contrib_until: str) -> None:
    op = op_table()[name]
    assert (op.name, op.since, op.until) == (name, since, until)
    assert (op.contrib_module, op.contrib_until) == (contrib_module, contrib_until)


def test_arguments_attrs_and_defaults() -> None:
    matmul = op_table()["MatMul"]
    assert [(arg.name, arg.type_attr, arg.is_ref) for arg in matmul.inputs] == [("a", "T", False), ("b", "T", False)]
    assert [arg.name for arg in matmul.outputs] == ["product"]
    assert matmul.attrs["transpose_a"].type == "bool"
    assert matmul.attrs["transpose_a"].default == protos.AttrValue(b=False)
    assert matmul.attrs["transpose_a"].since == "0.12.1"
    assert matmul.attrs["T"].default is None
    allowed = matmul.attrs["T"].allowed
    assert allowed is not None and FLOAT in allowed.list.type and STRING not in allowed.list.type
    assert not matmul.is_stateful
    pack = op_table()["Pack"]
    assert (pack.inputs[0].number_attr, pack.attrs["N"].minimum, pack.attrs["axis"].minimum) == ("N", 1, None)


def test_references_state_and_deprecation() -> None:
    table = op_table()
    assign = table["Assign"]
    assert [arg.is_ref for arg in assign.inputs + assign.outputs] == [True, False, True]
    assert table["VariableV2"].is_stateful and table["VarHandleOp"].is_stateful
    assert not table["ReadVariableOp"].inputs[0].is_ref and table["ReadVariableOp"].inputs[0].type == RESOURCE
    assert table["BatchNormWithGlobalNormalization"].deprecated_in == 9
    assert table["MatMul"].deprecated_in is None


def test_attr_added_later_says_when() -> None:
    attrs = op_table()["FusedBatchNorm"].attrs
    assert attrs["epsilon"].since == "0.12.1"
    assert attrs["exponential_avg_factor"].since == "2.21.0"  # came in 2.2
    assert attrs["exponential_avg_factor"].default == protos.AttrValue(f=1.0)


@pytest.mark.parametrize(
    ("version", "attrs"),
    [
        ("0.11.0", ["T", "Tidx"]),
        ("0.12.1", ["T", "Tidx"]),
        ("1.3.0", ["T", "Tidx"]),
        ("v1.4.0-19-ga52c8d9", ["T", "Tidx", "output_type"]),
        ("1.15.0", ["T", "Tidx", "output_type"]),
        (None, ["T", "Tidx", "output_type"]),
    ],
)
def test_op_def_as_a_release_knew_it(version: str | None, attrs: list[str]) -> None:
    found = op_table().op_def("ArgMax", version)
    assert found is not None
    assert [attr.name for attr in found.attr] == attrs
    assert not found.summary and not found.description


@pytest.mark.parametrize(
    ("name", "version", "known"),
    [
        ("VariableV2", "0.12.1", False),
        ("VariableV2", "1.0.0-rc2", True),
        ("VariableV2", "0.9.0", False),
        ("VariableV2", "1.0.1", True),
        ("CreateVariableOp", "1.0.1", False),
        ("GatherTree", "1.15.2", True),
        ("GatherTree", "2.0.0", False),
        ("LSTMBlockCell", "2.0.0", True),
        ("NoSuchOp", "2.0.0", False),
        ("NoSuchOp", None, False),
    ],
)
def test_op_def_is_none_where_a_release_lacks_the_op(name: str, version: str | None, known: bool) -> None:
    assert (op_table().op_def(name, version) is not None) is known


def test_op_def_of_a_version_that_is_none() -> None:
    with pytest.raises(UnsupportedFormatError, match="latest"):
        op_table().op_def("MatMul", "latest")


def test_looking_up_unknown_names() -> None:
    table = op_table()
    assert table.get("MatMull") is None and "MatMull" not in table and "MatMul" in table
    with pytest.raises(KeyError, match="near names: .*MatMul"):
        table["MatMull"]
    assert len(table) == len(list(table)) > 2000


@pytest.mark.parametrize(
    ("node", "outputs"),
    [
        (node("MatMul", "a b", "T=type: DT_DOUBLE"), [DOUBLE]),
        (node("VariableV2", "", "dtype=type: DT_FLOAT"), [FLOAT + REF]),
        (node("VarHandleOp", "", "dtype=type: DT_FLOAT"), [RESOURCE]),
        (node("Assign", "v x", "T=type: DT_INT64"), [INT64 + REF]),
        (node("Shape", "x", "T=type: DT_FLOAT"), [INT32]),  # out_type by default
        (node("Shape", "x", "T=type: DT_FLOAT; out_type=type: DT_INT64"), [INT64]),
        (node("Split", "axis x", "T=type: DT_FLOAT; num_split=i: 3"), [FLOAT] * 3),
        (node("SplitV", "x sizes axis", "T=type: DT_STRING; num_split=i: 2"), [STRING] * 2),
        (node("IdentityN", "a b", "T=list { type: [DT_FLOAT, DT_STRING] }"), [FLOAT, STRING]),
        (node("IteratorGetNext", "it", "output_types=list { type: [DT_INT64, DT_BOOL] }"), [INT64, BOOL]),
        (node("Switch", "x p", "T=type: DT_FLOAT"), [FLOAT, FLOAT]),
        (node("RefSwitch", "x p", "T=type: DT_FLOAT"), [FLOAT + REF] * 2),
        (node("Merge", "a b", "T=type: DT_FLOAT; N=i: 2"), [FLOAT, INT32]),
        (node("Unique", "x", "T=type: DT_STRING"), [STRING, INT32]),
        (node("NoOp", "^a"), []),
        (node("PartitionedCall", "a", "Tin=list { type: DT_FLOAT }; Tout=list {}"), []),
        (node("GatherTree", "a b c", "T=type: DT_INT32"), [INT32]),
    ],
    ids=lambda value: value.op if hasattr(value, "op") else "",
)
def test_output_types(node: Any, outputs: list[int]) -> None:
    assert op_table().output_types(node) == outputs


def test_input_types_and_references() -> None:
    table = op_table()
    assign = node("Assign", "v x", "T=type: DT_FLOAT")
    assert table.input_types(assign) == [FLOAT + REF, FLOAT]
    assert [table.is_ref_input(assign, index) for index in range(3)] == [True, False, False]
    save = node("SaveV2", "p n s a b", "dtypes=list { type: [DT_FLOAT, DT_INT64] }")
    assert table.input_types(save) == [STRING, STRING, STRING, FLOAT, INT64]
    concat = node("ConcatV2", "a b axis", "T=type: DT_FLOAT; N=i: 2")
    assert table.input_types(concat) == [FLOAT, FLOAT, INT32]


def test_output_names_translate_function_outputs() -> None:
    table = op_table()
    merge = node("Merge", "a b", "T=type: DT_FLOAT; N=i: 2")
    assert table.output_names(merge) == [("output", 0, 1), ("value_index", 1, 1)]
    split = node("Split", "axis x", "num_split=i: 3")  # without T: names need no dtype
    assert table.output_names(split) == [("output", 0, 3)]
    parse = node(
        "ParseExample",
        "s n k1 d1 d2",
        "Nsparse=i: 1; Ndense=i: 2; sparse_types=list { type: DT_INT64 }; Tdense=list { type: [DT_FLOAT, DT_STRING] }",
    )
    spans = [("sparse_indices", 0, 1), ("sparse_values", 1, 1), ("sparse_shapes", 2, 1), ("dense_values", 3, 2)]
    assert table.output_names(parse) == spans
    assert table.output_types(parse) == [INT64, INT64, INT64, FLOAT, STRING]
    assert table.input_names(parse)[-2:] == [("dense_keys", 3, 2), ("dense_defaults", 5, 2)]


def test_older_signature_where_the_newest_does_not_fit() -> None:
    table = op_table()
    old = node("CudnnRNNParamsToCanonical", "l u i p", "T=type: DT_FLOAT; N=i: 2")  # 0.12: one weight, one bias
    assert table.output_names(old) == [("canonical_weights", 0, 1), ("canonical_biases", 1, 1)]
    new = node("CudnnRNNParamsToCanonical", "l u i p", "T=type: DT_FLOAT; num_params=i: 3")
    assert table.output_names(new) == [("weights", 0, 3), ("biases", 3, 3)]
    # 1.4 had no end_token; both kinds of node have the same attrs
    names = ["step_ids", "parent_ids", "max_sequence_lengths", "end_token"]
    four = node("GatherTree", "s p l e ^c", "T=type: DT_INT32")
    assert [span[0] for span in table.input_names(four)] == names
    three = node("GatherTree", "s p l ^c", "T=type: DT_INT32")
    assert [span[0] for span in table.input_names(three)] == [names[0], names[1], "sequence_length"]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (node("MyCustomOp"), "node 'n' is of op 'MyCustomOp'.*MetaGraph"),
        (node("MatMull"), "near names: .*MatMul"),
        (node("MatMul", "a b"), "node 'n' of op 'MatMul': attr 'T'.*expected type, found nothing"),
        (node("MatMul", "a b", "T=i: 1"), "expected type, found i"),
        (node("MatMul", "a b", 'T=placeholder: "T"'), "expected type, found placeholder"),
        (node("IdentityN", "a", "T=type: DT_FLOAT"), "expected list, found type"),
        (node("Split", "axis x", "T=type: DT_FLOAT; num_split=i: -1"), "attr 'num_split'.*found -1"),
        (node("Split", "axis x", "T=type: DT_FLOAT; num_split=i: 4611686018427387904"), "found 4611686018427387904"),
    ],
)
def test_what_cannot_be_resolved_names_the_node(node: Any, message: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=message):
        op_table().output_types(node)


def test_op_list_goes_before_the_table() -> None:
    custom = op_def('name: "MyCustomOp" output_arg { name: "y" type: DT_INT64 } is_stateful: true')
    changed = op_def('name: "MatMul" input_arg { name: "a" type: DT_FLOAT } output_arg { name: "p" type: DT_BOOL }')
    table = op_table().with_op_list(protos.OpList(op=[custom, changed]))
    assert table.output_types(node("MyCustomOp")) == [INT64]
    assert table["MyCustomOp"].is_stateful and (table["MyCustomOp"].since, table["MyCustomOp"].until) == ("", "")
    assert table.output_types(node("MatMul", "a")) == [BOOL]
    assert table["MatMul"].since == "0.12.1"
    two_inputs = node("MatMul", "a b", "T=type: DT_FLOAT")
    assert table.output_types(two_inputs) == [FLOAT]  # fits our signature, not the one given
    assert "MyCustomOp" in list(table) and len(table) == len(op_table()) + 1
    assert "MyCustomOp" not in op_table() and len(op_table()["MatMul"].inputs) == 2


def test_op_lists_add_up_and_take_function_signatures() -> None:
    first = op_def('name: "F" output_arg { name: "y" type: DT_INT64 }')
    second = op_def('name: "G" output_arg { name: "z" type: DT_FLOAT }')
    table = op_table().with_op_list([first]).with_op_list(iter([second]))
    assert [table.output_names(node(name))[0][0] for name in "FG"] == ["y", "z"]


@pytest.mark.tensorflow
def test_every_op_agrees_with_the_installed_tensorflow() -> None:
    registry = tensorflow_registry()
    table = op_table()
    newest = ".".join(table.versions[-1].split(".")[:2])
    import tensorflow as tf

    if not tf.__version__.startswith(newest + "."):
        pytest.skip(f"the table's newest release is {newest}, installed is {tf.__version__}")
    assert {name for name in table if not table[name].until} == set(registry)
    for name, theirs in registry.items():
        assert described(table[name].op_def) == described(theirs), name
        op = table[name]
        assert op.is_stateful == theirs.is_stateful, name
        assert [arg.name for arg in op.inputs + op.outputs] == [
            arg.name for arg in [*theirs.input_arg, *theirs.output_arg]
        ], name
        assert op.deprecated_in == (theirs.deprecation.version if theirs.HasField("deprecation") else None), name


def tensorflow_registry() -> dict[str, Any]:
    """{op name: OpDef} from TensorFlow's C API, with TensorFlow's own message class."""
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    data = pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    return {op.name: op for op in op_def_pb2.OpList.FromString(data).op}


def described(op: Any) -> dict[str, Any]:
    """All that an OpDef says, less texts and full types, in plain Python values."""

    def arg(item: Any) -> tuple[Any, ...]:
        return (item.name, item.type, item.type_attr, item.number_attr, item.type_list_attr, item.is_ref)

    def value(item: Any) -> str:
        return text_format.MessageToString(item)

    return {
        "inputs": [arg(item) for item in op.input_arg],
        "outputs": [arg(item) for item in op.output_arg],
        "control": list(op.control_output),
        "attrs": [
            (item.name, item.type, item.HasField("default_value"), value(item.default_value))
            + (item.has_minimum, item.minimum, value(item.allowed_values))
            for item in op.attr
        ],
        "flags": (op.is_commutative, op.is_aggregate, op.is_stateful, op.allows_uninitialized_input),
        "distributed": op.is_distributed_communication,
        "deprecated": op.deprecation.version,
    }


@pytest.mark.tensorflow
def test_types_of_a_live_graph() -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        w = v1.get_variable("w", [4, 2], use_resource=False)
        r = v1.get_variable("r", [2], use_resource=True)
        y = tf.matmul(x, w) + r
        tf.split(y, 2, axis=1)
        tf.unique(tf.reshape(y, [-1]), out_idx=tf.int64)
        v1.assign_add(w, tf.ones([4, 2]))
        v1.while_loop(lambda i: i < 3, lambda i: i + 1, [tf.constant(0)])
        v1.data.make_one_shot_iterator(tf.data.Dataset.range(3)).get_next()
        v1.train.Saver()
        graph_def = protos.GraphDef.FromString(graph.as_graph_def().SerializeToString())
        assert len(graph_def.node) > 50
        for found in graph_def.node:
            operation = graph.get_operation_by_name(found.name)
            wanted = [tensor.dtype.as_datatype_enum for tensor in operation.outputs]
            assert op_table().output_types(found) == wanted, found.name
            wanted = [number - REF if number > REF else number for number in op_table().input_types(found)]
            assert wanted == [tensor.dtype.base_dtype.as_datatype_enum for tensor in operation.inputs], found.name
