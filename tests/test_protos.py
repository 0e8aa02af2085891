"""The message classes: they are what our .proto files say, these say what TensorFlow says, both fit in one process."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet

from graph_restore import protos

ROOT = Path(__file__).resolve().parent.parent
BINPB = Path(protos.__file__).with_name("protos.binpb")
FILES = [
    file for file in FileDescriptorSet.FromString(BINPB.read_bytes()).file if not file.package.startswith("google.")
]


# The shipped file


def load_compile_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compile_protos", ROOT / "protos" / "compile.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shipped_set_is_what_the_sources_give() -> None:
    pytest.importorskip("grpc_tools")
    assert load_compile_script().descriptor_set() == BINPB.read_bytes()


def test_check_tells_a_stale_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_compile_script()
    monkeypatch.setattr(script, "descriptor_set", lambda: b"fresh")
    monkeypatch.setattr(script, "OUTPUT", tmp_path / "protos.binpb")
    assert script.main(["--check"]) == 1  # none yet
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    script.OUTPUT.write_bytes(b"stale")
    assert script.main(["--check"]) == 1
    assert script.OUTPUT.read_bytes() == b"stale"


def test_no_two_packages_share_a_name() -> None:
    """Messages are attributes of one module by their short names, so these must differ."""
    names = [message.name for file in FILES for message in file.message_type]
    assert sorted(set(names)) == sorted(names)
    assert set(names) <= set(dir(protos))


# The classes

# Bytes and text, both written by hand: the bytes from the field numbers in TensorFlow's own .proto files.
GOLDEN = {
    "NodeDef": (
        "0a0161 1203416464 1a0178 1a025e79 22062f6370753a30 2a070a015412023001",
        "name: 'a' op: 'Add' input: 'x' input: '^y' device: '/cpu:0' attr { key: 'T' value { type: DT_FLOAT } }",
    ),
    "AttrValue": ("0a04 32020103", "list { type: DT_FLOAT type: DT_INT32 }"),
    "FunctionDef": (  # the body as TensorFlow 0.12 wrote it
        "0a030a0166 121a 0a0172 12034d756c 1a0178 1a0178 220164 2a070a015412023001",
        "signature { name: 'f' } "
        "node { ret: 'r' op: 'Mul' arg: 'x' arg: 'x' dep: 'd' attr { key: 'T' value { type: DT_FLOAT } } }",
    ),
    "BundleHeaderProto": ("0803 1001 1a020801", "num_shards: 3 endianness: BIG version { producer: 1 }"),
    "BundleEntryProto": (
        "0801 1208 12020802 12020803 1801 208001 2818 3578563412 3a08 0a0408011001 0a00",
        "dtype: DT_FLOAT shape { dim { size: 2 } dim { size: 3 } } shard_id: 1 offset: 128 size: 24 crc32c: 0x12345678 "
        "slices { extent { start: 1 length: 1 } extent { } }",
    ),
    "SavedTensorSlices": (
        "120f 0a0177 12020a00 1a062a040000803f",
        "data { name: 'w' slice { extent { } } data { float_val: 1 } }",
    ),
    "SaverDef": (
        "0a03633a30 1203733a30 1a0172 2005 2801 350000c03f 3802",
        "filename_tensor_name: 'c:0' save_tensor_name: 's:0' restore_op_name: 'r' max_to_keep: 5 sharded: true "
        "keep_checkpoint_every_n_hours: 1.5 version: V2",
    ),
    "VariableDef": (
        "0a03763a30 120169 1a03723a30 220c 0a0176 120104 1a0102 220102 2801 3203783a30 3801 4003 4802",
        "variable_name: 'v:0' initializer_name: 'i' snapshot_name: 'r:0' is_resource: true initial_value_name: 'x:0' "
        "save_slice_info_def { full_name: 'v' full_shape: 4 var_offset: 2 var_shape: 2 } trainable: true "
        "synchronization: VARIABLE_SYNCHRONIZATION_ON_READ aggregation: VARIABLE_AGGREGATION_MEAN",
    ),
    "CollectionDef": ("1a05 0a0305c801", "int64_list { value: 5 value: 200 }"),
    "TrackableObjectGraph": (
        "0a1f 0a050801120161 1209 0a0156 12016e 1a016b 1a07 0801 12016d 1802 2a020801",
        "nodes { children { node_id: 1 local_name: 'a' } attributes { name: 'V' full_name: 'n' checkpoint_key: 'k' } "
        "slot_variables { original_variable_node_id: 1 slot_name: 'm' slot_variable_node_id: 2 }"
        "has_checkpoint_values { value: true } }",
    ),
    "StructuredValue": ("9a0304 0a026005", "list_value { values { int64_value: -3 } }"),
    "Signatures": (
        "1213 0a0173 120e 1a0c 0a0a 0a0178 1205 0a03783a30",
        "named_signatures { key: 's' value {  generic_signature { map { key: 'x' value { tensor_name: 'x:0' } } } } }",
    ),
    "Event": ("09000000000000f03f 1007 22020a00", "wall_time: 1 step: 7 graph_def: '\\n\\000'"),
    "MemmappedFileSystemDirectory": ("0a07 0840 120178 1804", "element { offset: 64 name: 'x' length: 4 }"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_bytes_and_text_agree(name: str) -> None:
    wire, text = bytes.fromhex(GOLDEN[name][0]), GOLDEN[name][1]
    message_class = getattr(protos, name)
    from_text = text_format.Parse(text, message_class())
    assert message_class.FromString(wire) == from_text
    assert from_text.SerializeToString(deterministic=True) == wire


def test_values_are_read_unpacked_too() -> None:
    """Writers in other languages may do without packing."""
    assert list(protos.TensorProto.FromString(bytes.fromhex("2d0000803f 2d00000040")).float_val) == [1.0, 2.0]


def test_graph_in_text_format() -> None:
    graph = text_format.Parse(
        r"""
        node {
          name: "v" op: "Variable"
          attr { key: "dtype" value { type: DT_FLOAT } }
          attr { key: "shape" value { shape { unknown_rank: true } } }
          attr { key: "container" value { s: "\377\000" } }
          experimental_type { type_id: TFT_PRODUCT args { type_id: TFT_TENSOR } }
        }
        node {
          name: "call" op: "f" input: "v:0"
          attr { key: "g" value { func { name: "g" attr { key: "T" value { type: DT_FLOAT_REF } } } } }
        }
        versions { producer: 21 bad_consumers: 7 }
        library {
          function { signature { name: "f" is_stateful: true } ret { key: "y" value: "id:output:0" } }
          gradient { function_name: "f" gradient_func: "g" }
        }
        """,
        protos.GraphDef(),
    )
    variable, call = graph.node
    assert variable.attr["dtype"].type == 1
    assert variable.attr["shape"].shape.unknown_rank
    assert variable.attr["container"].s == b"\xff\0"
    assert variable.experimental_type.args[0].type_id == 1000
    assert call.attr["g"].func.attr["T"].type == 101
    assert graph.versions.producer == 21
    assert graph.library.function[0].ret["y"] == "id:output:0"


def test_any_unpacks_and_prints() -> None:
    """Session bundles hold their signatures as Any; its type is known to our pool only."""
    wanted = protos.Signatures()
    wanted.default_signature.regression_signature.input.tensor_name = "x:0"
    meta = protos.MetaGraphDef()
    meta.collection_def["serving_signatures"].any_list.value.add().Pack(wanted)

    text = text_format.MessageToString(meta, descriptor_pool=protos.POOL)
    assert 'tensor_name: "x:0"' in text
    parsed = text_format.Parse(text, protos.MetaGraphDef(), descriptor_pool=protos.POOL)
    found = protos.Signatures()
    assert parsed.collection_def["serving_signatures"].any_list.value[0].Unpack(found)
    assert found == wanted


def test_summaries_are_kept_as_they_are() -> None:
    wire = bytes.fromhex("1003 2a05 0a030a0161")
    event = protos.Event.FromString(wire)
    assert event.WhichOneof("what") == "summary"
    assert event.SerializeToString() == wire


def test_nested_messages_and_enum_values_are_attributes() -> None:
    assert protos.FunctionDef.Node(op="Mul").op == "Mul"
    assert protos.TrackableObjectGraph.TrackableObject.ObjectReference(node_id=3).node_id == 3
    assert protos.SaverDef.V2 == protos.SaverDef.CheckpointFormatVersion.Value("V2") == 2


def test_messages_can_be_copied_and_pickled() -> None:
    node = protos.NodeDef(name="a")
    assert copy.deepcopy(node) == pickle.loads(pickle.dumps(node)) == node


def test_a_class_is_made_once() -> None:
    assert protos.GraphDef is protos.GraphDef
    assert type(protos.GraphDef().node.add()) is protos.NodeDef


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'graph_restore.protos' has no attribute 'GraphDeff'"):
        protos.GraphDeff  # noqa: B018


def test_default_pool_stays_empty() -> None:
    run_python("""
        from graph_restore import protos
        from google.protobuf.descriptor_pool import Default
        assert protos.GraphDef.DESCRIPTOR.full_name == "tensorflow.GraphDef"
        for search, name in ((Default().FindMessageTypeByName, "tensorflow.GraphDef"),
                             (Default().FindFileByName, "graph.proto")):
            try:
                search(name)
            except KeyError:
                continue
            raise SystemExit(f"{name} is in the default pool")
    """)


def run_python(script: str) -> None:
    """Run the script in a fresh interpreter; the test fails with what it printed when it fails."""
    lines = script.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    source = "\n".join([f"import sys; sys.path.insert(0, {str(ROOT)!r})", *(line[indent:] for line in lines)])
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


# Against TensorFlow

TENSORFLOW_MODULES = [
    "framework.graph_debug_info",
    "framework.graph",
    "framework.variable",
    "protobuf.control_flow",
    "protobuf.meta_graph",
    "protobuf.queue_runner",
    "protobuf.saved_model",
    "protobuf.saved_object_graph",
    "protobuf.saver",
    "protobuf.struct",
    "protobuf.tensor_bundle",
    "protobuf.trackable_object_graph",
    "util.event",
    "util.memmapped_file_system",
    "util.saved_tensor_slice",
]

# Where we differ on purpose, with the reason in the .proto file. None: TensorFlow has no such message.
EXTRA_FIELDS = {"tensorflow.FunctionDef": {"node"}}
EXTRA_NESTED = {"tensorflow.FunctionDef": {"Node"}}
NOT_COMPARED = {"tensorflow.Summary"}
NOT_IN_TENSORFLOW = {"session_bundle.proto", "op_table.proto"}

MESSAGES = [
    f"{file.package}.{message.name}"
    for file in FILES
    for message in file.message_type
    if file.name not in NOT_IN_TENSORFLOW and f"{file.package}.{message.name}" not in NOT_COMPARED
]
ENUMS = [f"{file.package}.{enum.name}" for file in FILES for enum in file.enum_type]


@pytest.fixture(scope="module")
def tensorflow_pool() -> Any:
    """The default pool with all of TensorFlow's files that ours stand for."""
    pytest.importorskip("tensorflow")
    for name in TENSORFLOW_MODULES:
        importlib.import_module(f"tensorflow.core.{name}_pb2")
    return descriptor_pool.Default()


def message_facts(message: DescriptorProto) -> dict[str, Any]:
    """What text format and wire format depend on, nested messages and enums included."""
    oneofs = [oneof.name for oneof in message.oneof_decl]
    return {
        "fields": {field.name: field_facts(field, oneofs) for field in message.field},
        "nested": {nested.name: message_facts(nested) for nested in message.nested_type},
        "enums": {enum.name: enum_facts(enum) for enum in message.enum_type},
        "map entry": message.options.map_entry,
    }


def field_facts(field: FieldDescriptorProto, oneofs: list[str]) -> dict[str, Any]:
    return {
        "number": field.number,
        "type": FieldDescriptorProto.Type.Name(field.type),
        "label": FieldDescriptorProto.Label.Name(field.label),
        "type name": field.type_name,
        "oneof": oneofs[field.oneof_index] if field.HasField("oneof_index") else None,
        "optional": field.proto3_optional,
        "packed": field.options.packed if field.options.HasField("packed") else True,  # the default of proto3
    }


def enum_facts(enum: EnumDescriptorProto) -> dict[str, int]:
    return {value.name: value.number for value in enum.value}


def as_proto(descriptor: Any, proto: Any) -> Any:
    descriptor.CopyToProto(proto)
    return proto


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", MESSAGES)
def test_message_equals_tensorflows(name: str, tensorflow_pool: Any) -> None:
    ours = message_facts(as_proto(protos.POOL.FindMessageTypeByName(name), DescriptorProto()))
    theirs = message_facts(as_proto(tensorflow_pool.FindMessageTypeByName(name), DescriptorProto()))
    for kind, extra in (("fields", EXTRA_FIELDS), ("nested", EXTRA_NESTED)):
        for known in extra.get(name, ()):
            assert known not in theirs[kind]
            del ours[kind][known]
    assert ours == theirs


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ENUMS)
def test_enum_equals_tensorflows(name: str, tensorflow_pool: Any) -> None:
    ours = enum_facts(as_proto(protos.POOL.FindEnumTypeByName(name), EnumDescriptorProto()))
    assert ours == enum_facts(as_proto(tensorflow_pool.FindEnumTypeByName(name), EnumDescriptorProto()))


@pytest.mark.tensorflow
def test_tensorflow_lacks_what_we_say_it_lacks(tensorflow_pool: Any) -> None:
    """If it comes back one day, it has to be compared."""
    for file in FILES:
        if file.name in NOT_IN_TENSORFLOW:
            for message in file.message_type:
                with pytest.raises(KeyError):
                    tensorflow_pool.FindMessageTypeByName(f"{file.package}.{message.name}")


IMPORT_OURS = "from graph_restore import protos; ours = protos.GraphDef; protos.SavedModel, protos.Event"
IMPORT_THEIRS = (
    "import tensorflow as tf; from tensorboard.backend.event_processing import event_accumulator; "
    "from tensorboard.compat.proto.graph_pb2 import GraphDef as BoardGraphDef"
)


@pytest.mark.tensorflow
@pytest.mark.parametrize("imports", [(IMPORT_OURS, IMPORT_THEIRS), (IMPORT_THEIRS, IMPORT_OURS)], ids=["first", "last"])
def test_lives_beside_tensorflow_and_tensorboard(imports: tuple[str, str]) -> None:
    """In both orders; a graph goes from TensorFlow through our classes and TensorBoard's and back, and runs."""
    pytest.importorskip("tensorflow")
    body = """
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
            tf.identity(tf.matmul(x, tf.constant([[1.0], [10.0]])), name="y")
        theirs = graph.as_graph_def()
        ours_of_it = protos.GraphDef.FromString(theirs.SerializeToString())
        assert [node.name for node in ours_of_it.node] == [node.name for node in theirs.node]
        board = BoardGraphDef.FromString(ours_of_it.SerializeToString())
        back = tf.compat.v1.GraphDef.FromString(board.SerializeToString())
        assert back == theirs
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            (y,) = tf.import_graph_def(back, return_elements=["y:0"], name="")
            assert session.run(y, {"x:0": [[2, 3]]}).tolist() == [[32.0]]
    """
    run_python("\n".join([f"        {line}" for line in imports]) + body)
