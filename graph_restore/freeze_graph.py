"""`freeze_graph`: the tool of TensorFlow 1, its flags and its two functions, without TensorFlow.

    from graph_restore import freeze_graph            # was: from tensorflow.python.tools import freeze_graph

Flags and parameters are those of tensorflow/python/tools/freeze_graph.py, in its order, from release 0.12 to 2.21. What
TensorFlow needed some of them for is found in the files here; these are taken and change nothing, with a word. Exit
status of the command: 0 done, 1 the files are bad or disagree, 2 usage. A file at --output_graph is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graph_restore.errors import GraphRestoreError

if TYPE_CHECKING:
    from graph_restore.freeze_request import Request

SERVING = "serve"


def freeze_graph(
    input_graph: str | None,
    input_saver: str | None,
    input_binary: bool,
    input_checkpoint: str | None,
    output_node_names: str,
    restore_op_name: str | None,
    filename_tensor_name: str | None,
    output_graph: str | None,
    clear_devices: bool,
    initializer_nodes: str | None,
    variable_names_whitelist: str | None = "",
    variable_names_denylist: str | None = "",
    input_meta_graph: str | bool | None = None,
    input_saved_model_dir: str | None = None,
    saved_model_tags: str = SERVING,
    checkpoint_version: int = 2,
    *,
    variable_names_allowlist: str | None = "",
    variable_names_blacklist: str | None = "",
) -> Any:
    """Freeze a model given by files; the frozen GraphDef, which is written to `output_graph` as well if that is given,
    in the place of whatever is there, unless it is one of these files.

    The class of the GraphDef is TensorFlow's when TensorFlow is already imported, else `graph_restore.protos.GraphDef`.
    Lists of names are texts with commas. `input_graph`, `input_meta_graph`, `input_saved_model_dir`: the model, one of
    them. `input_binary` may be wrong: the content decides, and a GraphRestoreWarning says so. `input_saver`: a SaverDef
    file, whose saver says which key belongs to which variable. `initializer_nodes`: run after restoring, so that the
    variables they initialise are frozen with their first values. `restore_op_name`, `filename_tensor_name` and
    `checkpoint_version` have no effect.

    Raises ValueError for missing or contradictory arguments and a checkpoint that is not there, FileNotFoundError for
    another file, FreezeError, RestoreError and FormatError as `freeze`, `restore` and `load` do.
    """
    from graph_restore.freeze_request import Request, listed, read_saver

    _check_version(checkpoint_version)
    request = Request(
        {
            "input_graph": input_graph,
            "input_meta_graph": input_meta_graph,
            "input_saved_model_dir": input_saved_model_dir,
        },
        listed(output_node_names),
        checkpoint=input_checkpoint,
        tags=tuple(listed(saved_model_tags)),
        binary=bool(input_binary),
        saver_def=read_saver(input_saver) if input_saver else None,
        initializer_nodes=listed(initializer_nodes),
        allowed=listed(variable_names_whitelist or variable_names_allowlist),
        denied=listed(variable_names_denylist or variable_names_blacklist),
        clear_devices=bool(clear_devices),
    )
    return _returned(request, output_graph, input_saver)


def freeze_graph_with_def_protos(
    input_graph_def: Any,
    input_saver_def: Any,
    input_checkpoint: str | None,
    output_node_names: str,
    restore_op_name: str | None,
    filename_tensor_name: str | None,
    output_graph: str | None,
    clear_devices: bool,
    initializer_nodes: str | None,
    variable_names_whitelist: str | None = "",
    variable_names_denylist: str | None = "",
    input_meta_graph_def: Any = None,
    input_saved_model_dir: str | None = None,
    saved_model_tags: Sequence[str] | None = None,
    checkpoint_version: int = 2,
    *,
    variable_names_allowlist: str | None = "",
    variable_names_blacklist: str | None = "",
) -> Any:
    """`freeze_graph` for messages: a GraphDef or MetaGraphDef and a SaverDef, TensorFlow's or ours, or a SavedModel.

    With both a GraphDef and a SavedModel the graph is the first and its values are those of the second. Messages given
    are not changed. `saved_model_tags`: a list of tags. What is returned and raised is as for `freeze_graph`.
    """
    from graph_restore.freeze_request import Request, listed

    _check_version(checkpoint_version)
    with_both = bool(input_saved_model_dir) and input_graph_def is not None
    request = Request(
        {
            "input_graph_def": None if with_both else input_graph_def,
            "input_meta_graph_def": input_meta_graph_def,
            "input_saved_model_dir": input_saved_model_dir,
        },
        listed(output_node_names),
        checkpoint=input_checkpoint,
        tags=tuple(saved_model_tags or ()),
        graph_def=input_graph_def if with_both else None,
        saver_def=input_saver_def,
        initializer_nodes=listed(initializer_nodes),
        allowed=listed(variable_names_whitelist or variable_names_allowlist),
        denied=listed(variable_names_denylist or variable_names_blacklist),
        clear_devices=bool(clear_devices),
    )
    return _returned(request, output_graph)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, SystemExit 2 for wrong usage."""
    from graph_restore.cli import freeze_graph_flags
    from graph_restore.cli.main import error_text
    from graph_restore.cli.notes import notes

    flags = freeze_graph_flags.parse(arguments)
    try:
        with notes() as note:
            for text in freeze_graph_flags.words(flags):
                note(text)
            _run(flags)
    except (GraphRestoreError, OSError) as error:
        print(f"Error: {freeze_graph_flags.for_shell(error_text(error))}", file=sys.stderr)
        return 1
    return 0


def _run(flags: Any) -> None:
    from graph_restore.cli.freeze_graph_flags import MODELS
    from graph_restore.cli.output import report, write
    from graph_restore.freeze_request import Request, frozen, listed, read_saver
    from graph_restore.overwriting import refuse_inputs

    request = Request(
        {name: getattr(flags, name) for name in MODELS},
        listed(flags.output_node_names),
        checkpoint=flags.input_checkpoint,
        tags=tuple(listed(flags.saved_model_tags)),
        binary=flags.input_binary,
        saver_def=read_saver(flags.input_saver) if flags.input_saver else None,
        initializer_nodes=listed(flags.initializer_nodes),
        allowed=listed(flags.variable_names_whitelist),
        denied=listed(flags.variable_names_denylist),
        clear_devices=flags.clear_devices,
    )
    before, after = frozen(request)
    refuse_inputs(flags.output_graph, before, flags.input_saver)
    write(after, flags.output_graph, "graph_def")
    report(before, after, flags.output_graph)


def _returned(request: Request, path: str | None, saver: str | None = None) -> Any:
    """The GraphDef that is asked for, written to `path` if there is one. `saver`: the file of a SaverDef."""
    from graph_restore.api import export
    from graph_restore.freeze_request import frozen
    from graph_restore.overwriting import refuse_inputs

    before, after = frozen(request)
    if path:
        refuse_inputs(path, before, saver)
        export(after, path, "graph_def")
    return after.graph.materialize()


def _check_version(version: int) -> None:
    if version not in (1, 2):
        raise ValueError(f"checkpoint_version is 1 or 2, not {version!r}; the checkpoint itself says which it is")


if __name__ == "__main__":
    sys.exit(main())
