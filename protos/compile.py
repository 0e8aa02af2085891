"""Compile protos/*.proto into graph_restore/protos.binpb, one serialized FileDescriptorSet.

    python protos/compile.py            writes the file
    python protos/compile.py --check    writes nothing; exit status 1 when the file is not what the sources give

It takes protoc from grpcio-tools, else from PATH. The set is brought into one form whatever the version of protoc:
imported files first, no source positions, no json_name, no file options (these steer generated code only).
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

SOURCES = Path(__file__).resolve().parent
OUTPUT = SOURCES.parent / "graph_restore" / "protos.binpb"


def protoc_command() -> list[str]:
    """The command that starts protoc, with the folder of google/protobuf/*.proto where protoc has to be told."""
    spec = importlib.util.find_spec("grpc_tools")
    if spec is not None and spec.submodule_search_locations:
        included = Path(spec.submodule_search_locations[0]) / "_proto"
        return [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={included}"]
    protoc = shutil.which("protoc")
    if protoc is None:
        raise SystemExit("compile.py needs protoc: run `pip install grpcio-tools`, or put protoc on PATH")
    return [protoc]


def descriptor_set(sources: Path = SOURCES) -> bytes:
    """The serialized FileDescriptorSet of all .proto files in `sources` and of what they import, imports first."""
    names = sorted(path.name for path in sources.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set.binpb"
        options = [f"--proto_path={sources}", "--include_imports", f"--descriptor_set_out={target}"]
        subprocess.run([*protoc_command(), *options, *names], check=True)
        files = FileDescriptorSet.FromString(target.read_bytes())
    for file in files.file:
        file.ClearField("options")
        _drop_json_names(file.message_type)
    return files.SerializeToString(deterministic=True)


def _drop_json_names(messages: Iterable[DescriptorProto]) -> None:
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        _drop_json_names(message.nested_type)


def main(arguments: list[str] | None = None) -> int:
    """Write the set, or with --check only compare it. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Compile protos/*.proto into graph_restore/protos.binpb.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is stale")
    check = parser.parse_args(arguments).check
    wanted = descriptor_set()
    if not check:
        OUTPUT.write_bytes(wanted)
    elif not OUTPUT.is_file() or OUTPUT.read_bytes() != wanted:
        print(f"{OUTPUT} is stale: run `python protos/compile.py`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
