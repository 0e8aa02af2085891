"""`freeze_graph`: the command of TensorFlow 1 with its flags, without TensorFlow.

Flags are those of tensorflow/python/tools/freeze_graph.py. What TensorFlow needed them for is found in the files here,
so some are taken and change nothing, with a word; what is not supported yet is refused. Exit status: 0 done, 1 the
files are bad or disagree, 2 usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from graph_restore.errors import GraphRestoreError

_INPUTS = {
    "input_graph": ("FILE", "a GraphDef, binary or text"),
    "input_meta_graph": ("FILE", "a MetaGraphDef, such as model.ckpt.meta"),
    "input_saved_model_dir": ("DIR", "a SavedModel"),
}
_TEXTS = {
    "input_checkpoint": ("PREFIX", "the checkpoint with the values"),
    "output_graph": ("FILE", "file to write; a plain file there is replaced"),
    "output_node_names": ("NAMES", "the outputs, separated by commas"),
    "saved_model_tags": ("TAGS", "tags of the SavedModel's graph [serve]"),
    "initializer_nodes": ("NAMES", "accepted when they fill tables only"),
}
_NOT_NEEDED = ("input_saver", "restore_op_name", "filename_tensor_name", "checkpoint_version")
_NOT_SUPPORTED = tuple(f"variable_names_{kind}" for kind in ("whitelist", "allowlist", "blacklist", "denylist"))
_USAGE_REST = "--input_checkpoint PREFIX --output_node_names NAMES --output_graph FILE"
_EPILOG = f"""\
accepted, and not needed: {", ".join(f"--{name}" for name in _NOT_NEEDED[:3])},
  --{_NOT_NEEDED[3]}; not supported yet: --variable_names_whitelist, --variable_names_denylist

Example: freeze_graph --input_meta_graph=run/model.ckpt.meta --input_checkpoint=run/model.ckpt \\
           --output_node_names=softmax --output_graph=frozen.pb
"""
_BOOLEANS = {"true": True, "1": True, "yes": True, "t": True, "false": False, "0": False, "no": False, "f": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, SystemExit 2 for wrong usage."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    source = _checked(parser, flags)
    from graph_restore.cli.main import error_text
    from graph_restore.cli.notes import notes

    try:
        with notes() as note:
            _run(flags, source, note)
    except (GraphRestoreError, OSError) as error:
        print(f"Error: {error_text(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    given = " | ".join(f"--{name} {kind}" for name, (kind, _) in _INPUTS.items())
    parser = argparse.ArgumentParser(
        "freeze_graph",
        usage=f"freeze_graph ({given})\n" + " " * 9 + _USAGE_REST,
        description="Write a graph and its checkpoint as one GraphDef file in which variables are constants.",
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32),
    )
    for name, (kind, text) in {**_INPUTS, **_TEXTS}.items():
        parser.add_argument(f"--{name}", metavar=kind, default="serve" if name == "saved_model_tags" else "", help=text)
    for name, default, text in (
        ("input_binary", False, "accepted; the file's content decides"),
        ("clear_devices", True, "whether to drop device placements [true]"),
    ):
        parser.add_argument(
            f"--{name}", metavar="BOOL", nargs="?", const=True, default=default, type=_boolean, help=text
        )
    for name in (*_NOT_NEEDED, *_NOT_SUPPORTED):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    return parser


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")
    return _BOOLEANS[text.lower()]


def _checked(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> str:
    """The one model given; ends with status 2 where flags are missing or too many."""
    given = [name for name in _INPUTS if getattr(flags, name)]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none"
        parser.error(f"pass one of {', '.join(f'--{name}' for name in _INPUTS)}; found {found}")
    missing = [name for name in ("output_graph", "output_node_names") if not getattr(flags, name)]
    if not flags.input_checkpoint and given[0] != "input_saved_model_dir":
        missing.insert(0, "input_checkpoint")
    if missing:
        parser.error(f"pass {', '.join(f'--{name}' for name in missing)}")
    for name in _NOT_SUPPORTED:
        if getattr(flags, name):
            parser.error(f"--{name} is not supported yet; leave it out to freeze every variable the outputs need")
    return str(getattr(flags, given[0]))


def _run(flags: argparse.Namespace, source: str, note: Callable[[str], None]) -> None:
    from graph_restore.api import load
    from graph_restore.cli.output import refuse_to_overwrite, report, write
    from graph_restore.transforms.freeze import freeze
    from graph_restore.transforms.restore import restore

    model = load(source, tags=_listed(flags.saved_model_tags) if flags.input_saved_model_dir else None)
    refuse_to_overwrite(flags.output_graph, model, "; write somewhere else, or remove it first")
    for text in (*_words(flags, model), *_initializers(flags, model)):
        note(text)
    checkpoint = flags.input_checkpoint or None
    before = restore(model, checkpoint) if checkpoint or len(model.variables) else model
    frozen = freeze(before, _listed(flags.output_node_names), keep_devices=not flags.clear_devices)
    for text in frozen.notes:
        note(text)
    write(frozen, flags.output_graph)
    report(before, frozen, flags.output_graph)


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _words(flags: argparse.Namespace, model: Any) -> list[str]:
    """What to say of flags that change nothing here."""
    said = [f"--{name} is not needed, and not used" for name in _NOT_NEEDED if getattr(flags, name)]
    is_text = model.source.format.endswith("_text")
    if flags.input_graph and flags.input_binary == is_text:
        found = "text" if is_text else "binary"
        said.append(f"{os.path.basename(flags.input_graph)} is {found}, whatever --input_binary says; read as {found}")
    return said


def _initializers(flags: argparse.Namespace, model: Any) -> list[str]:
    """A word on initializer nodes; GraphRestoreError when running them would have changed a variable."""
    from graph_restore.names import node_of
    from graph_restore.savers import variable_of

    names = _listed(flags.initializer_nodes)
    waiting, seen = [model.graph.node(name).name for name in names], set()
    while waiting:
        node = model.graph.nodes.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op.startswith("Assign") and node.input:
            raise GraphRestoreError(
                f"--initializer_nodes runs {node.name}, which sets variable {variable_of(model.graph, node.input[0])} "
                "after restoring; that is not supported yet: leave it out to freeze the checkpoint's value"
            )
        waiting.extend(node_of(item) for item in node.input)
    return [f"--initializer_nodes {name} is not run: tables fill themselves at the first look-up" for name in names]


if __name__ == "__main__":
    sys.exit(main())
