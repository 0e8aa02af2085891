"""The flags of TensorFlow's freeze_graph, of every release from 0.12 on, and what is wrong usage of them.

Each flag may be written `--flag=value` or `--flag value`, or abbreviated; booleans also as `--flag` and `--noflag`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from graph_restore.cli import wording

MODELS = {
    "input_graph": ("FILE", "a GraphDef, binary or text"),
    "input_meta_graph": ("FILE", "a MetaGraphDef, such as model.ckpt.meta"),
    "input_saved_model_dir": ("DIR", "a SavedModel; its own variables are the values"),
}
_TEXTS = {
    "input_checkpoint": ("PREFIX", "the checkpoint with the values; not needed with a SavedModel"),
    "output_graph": ("FILE", "file to write, a binary GraphDef"),
    "output_node_names": ("NAMES", "the outputs, separated by commas"),
    "saved_model_tags": ("TAGS", "all tags of the SavedModel's graph, '' for none [serve]"),
    "input_saver": ("FILE", "a SaverDef: the saver of the graph that wrote the checkpoint"),
    "initializer_nodes": ("NAMES", "nodes to run after restoring, as they would have set variables"),
    "variable_names_whitelist": ("NAMES", "make constants of these variables only"),
    "variable_names_denylist": ("NAMES", "leave these variables as they are"),
}
# the same list under other spellings: TensorFlow 1 said blacklist, and `allow` goes with `deny`
_SPELLINGS = {
    "variable_names_allowlist": "variable_names_whitelist",
    "variable_names_blacklist": "variable_names_denylist",
}
_BOOLEANS = {
    "input_binary": (False, "the model is binary, not text; the file's content decides"),
    "clear_devices": (True, "whether to drop device placements [true]"),
}
NOT_NEEDED = {"restore_op_name": "save/restore_all", "filename_tensor_name": "save/Const:0"}
_USAGE_REST = "--input_checkpoint PREFIX --output_node_names NAMES --output_graph FILE"
_EPILOG = """\
also taken: --variable_names_allowlist and --variable_names_blacklist for the lists above; --noinput_binary,
  --noclear_devices; without effect: --restore_op_name, --filename_tensor_name, --checkpoint_version

Example: freeze_graph --input_meta_graph=run/model.ckpt.meta --input_checkpoint=run/model.ckpt \\
           --output_node_names=softmax --output_graph=frozen.pb
"""
_TAGS = re.compile(r"\btags=(\[\])?")
_FALSE = ("false", "0", "no", "f", "")
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags given, with TensorFlow's defaults; ends with status 2 where they are unknown, missing or too many."""
    parser = _parser()
    flags, rest = parser.parse_known_args(arguments)
    end = rest.index("--") if "--" in rest else len(rest)
    unknown = [word for word in rest[:end] if word.startswith("-") and word != "-"]
    if unknown:
        parser.error(f"there is no flag {', '.join(unknown)}; --help lists those there are")
    flags.stray = [word for word in rest if word != "--"]
    flags.odd = _settle(flags)
    given = [name for name in MODELS if getattr(flags, name)]
    if not given or ("input_meta_graph" in given and len(given) > 1):
        found = " and ".join(f"--{name}" for name in given) or "none"
        parser.error(f"pass one of {', '.join(f'--{name}' for name in MODELS)}; found {found}")
    missing = [name for name in ("output_graph", "output_node_names") if not getattr(flags, name)]
    if not flags.input_checkpoint and not flags.input_saved_model_dir:
        missing.insert(0, "input_checkpoint")
    if missing:
        parser.error(f"pass {', '.join(f'--{name}' for name in missing)}")
    return flags


def words(flags: argparse.Namespace) -> list[str]:
    """What to say of flags that were given and change nothing here."""
    given = [name for name, default in NOT_NEEDED.items() if getattr(flags, name) != default]
    given += ["checkpoint_version"] if flags.checkpoint_version is not None else []
    said = [f"--{name} is not needed, and not used" for name in given]
    said += [f"{flag} is taken for false, as TensorFlow has it since 1.0: only `true` is true" for flag in flags.odd]
    said += [f"not used, as of no flag: {', '.join(flags.stray)}"] if flags.stray else []
    return said


def for_shell(text: str) -> str:
    """A message of the library with this tool's flags for its arguments, and where the others are options."""
    text = text.replace("initializer_nodes=", "--initializer_nodes=").replace("fetches=", "--output_node_names")
    text = _TAGS.sub(lambda match: "--saved_model_tags" + ("=''" if match[1] else ""), text)
    text = wording.for_shell(text)
    own = {f"--{name}" for name in (*MODELS, *_TEXTS)}
    others = [option for option in dict.fromkeys(_OPTION.findall(text)) if option not in own]
    return f"{text}\n({', '.join(others)}: of `graph-restore freeze`, not of freeze_graph)" if others else text


def _parser() -> argparse.ArgumentParser:
    models = " | ".join(f"--{name} {kind}" for name, (kind, _) in MODELS.items())
    parser = argparse.ArgumentParser(
        "freeze_graph",
        usage=f"freeze_graph ({models})\n" + " " * 9 + _USAGE_REST,
        description="Write a graph and its checkpoint as one GraphDef file in which variables are constants.",
        epilog=_EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=34),
    )
    for name, (kind, text) in {**MODELS, **_TEXTS}.items():
        parser.add_argument(f"--{name}", metavar=kind, default="serve" if name == "saved_model_tags" else "", help=text)
    for name, list_name in _SPELLINGS.items():
        parser.add_argument(f"--{name}", dest=list_name, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    for name, (default, text) in _BOOLEANS.items():
        parser.add_argument(f"--{name}", metavar="BOOL", nargs="?", const=True, default=default, help=text)
        parser.add_argument(f"--no{name}", dest=name, action="store_false", default=default, help=argparse.SUPPRESS)
    for name, value in NOT_NEEDED.items():
        parser.add_argument(f"--{name}", default=value, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint_version", type=int, choices=(1, 2), help=argparse.SUPPRESS)
    return parser


def _settle(flags: argparse.Namespace) -> list[str]:
    """Make booleans of the words that were given for them; those flags whose word looks like something else."""
    odd = []
    for name in _BOOLEANS:
        text = getattr(flags, name)
        if isinstance(text, str):
            setattr(flags, name, text.lower() == "true")
            odd += [f"--{name}={text}"] if text.lower() not in ("true", *_FALSE) else []
    return odd
