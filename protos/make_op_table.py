"""Merge the op registries of several TensorFlow releases into graph_restore/ops.binpb.

    python protos/make_op_table.py DIRECTORY [OUTPUT]

DIRECTORY holds what `dump_ops.py` wrote, one run a release; OUTPUT is graph_restore/ops.binpb unless given. The same
dumps give the same bytes. The shipped table comes from these, each in an environment of its own:

    python 2.7   pip install tensorflow==0.12.1           python protos/dump_ops.py dumps
    python 2.7   pip install tensorflow==1.0.1            python protos/dump_ops.py dumps
    python 3.6   pip install tensorflow==1.4.1            python protos/dump_ops.py dumps
    python 3.6   pip install tensorflow==1.8.0            python protos/dump_ops.py dumps
    python 3.7   pip install tensorflow==1.15.5           python protos/dump_ops.py dumps
    python 3.11  pip install tensorflow-cpu==2.21.0       python protos/dump_ops.py dumps

(the releases before 1.15 want `protobuf<3.18` and `numpy<1.17` beside them, 1.15.5 `protobuf<3.21`). This script needs
no TensorFlow, only Python 3.10+ and this package (`pip install -e .`). A later TensorFlow is added by dumping it into
the same directory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from graph_restore import protos

OUTPUT = Path(__file__).resolve().parent.parent / "graph_restore" / "ops.binpb"


def version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def dumped_versions(directory: Path) -> list[str]:
    """The releases dumped in a directory, oldest first."""
    versions = [path.name.removesuffix(".core.pb") for path in directory.glob("*.core.pb")]
    if not versions:
        raise SystemExit(f"{directory}: no *.core.pb here; run dump_ops.py under each TensorFlow first")
    return sorted(versions, key=version_key)


def without_texts(op_def: Any) -> Any:
    """The same OpDef less summaries, descriptions, explanations and full types, which nothing here reads."""
    op_def.ClearField("summary")
    op_def.ClearField("description")
    if op_def.HasField("deprecation"):
        op_def.deprecation.ClearField("explanation")
    for arg in [*op_def.input_arg, *op_def.output_arg]:
        arg.ClearField("description")
        arg.ClearField("experimental_full_type")
    for attr in op_def.attr:
        attr.ClearField("description")
    return op_def


def op_defs(directory: Path, version: str) -> dict[str, bytes]:
    """{op name: serialized OpDef without texts} of one release, tf.contrib included."""
    found: dict[str, bytes] = {}
    for kind in ("core", "contrib"):
        op_list = protos.OpList.FromString((directory / f"{version}.{kind}.pb").read_bytes())
        for op_def in op_list.op:
            found[op_def.name] = without_texts(op_def).SerializeToString(deterministic=True)
    return found


def make_table(directory: Path) -> Any:
    """The OpTable message of all dumps in a directory."""
    versions = dumped_versions(directory)
    entries: dict[str, Any] = {}
    for index, version in enumerate(versions):
        modules = json.loads((directory / f"{version}.contrib.json").read_text())
        for name, op_def in op_defs(directory, version).items():
            entry = entries.setdefault(name, protos.OpEntry(name=name))
            if not entry.revision or entry.revision[-1].op_def != op_def:
                entry.revision.add(since=index, op_def=op_def)
            entry.until = index
            if name in modules:
                entry.contrib_module, entry.contrib_until = modules[name], index
    return protos.OpTable(version=versions, op=[entries[name] for name in sorted(entries)])


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        raise SystemExit(__doc__)
    target = Path(arguments[1]) if len(arguments) == 2 else OUTPUT
    table = make_table(Path(arguments[0]))
    target.write_bytes(table.SerializeToString(deterministic=True))
    print(f"{target.name}: {len(table.op)} ops of TensorFlow {', '.join(table.version)}, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
