"""`graph-restore`: finds the verb, and turns errors into short messages.

Exit status: 0 done, 1 the files are bad or disagree, 2 usage. A verb's module is imported when it is called.
"""

from __future__ import annotations

import atexit
import errno
import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from graph_restore import __version__
from graph_restore.cli.verbs import Verbs
from graph_restore.cli.wording import for_shell
from graph_restore.errors import GraphRestoreError

VERBS = ("inspect", "check", "freeze", "export", "verify", "checkpoint", "tensorboard", "script")


_NEXT = {
    errno.EACCES: "; look at the permissions (`ls -ld`) of it and its directory, or take another place",
    errno.EROFS: "; take another place",
    errno.ENOSPC: "; make room, or write to another disk",
}


def error_text(error: Exception) -> str:
    """What to print for an error: its message; for one of the operating system, the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}{_NEXT.get(error.errno or 0, '')}"
    return str(error) or type(error).__name__


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Within the block SIGTERM unwinds the stack, as an interrupt does, so that no half-written files stay behind."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # where handlers cannot be set
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Verbs(Verbs):
    package, verbs = "graph_restore.cli", VERBS

    def invoke(self, ctx: click.Context) -> Any:
        gc.set_threshold(1_000_000)  # what a command makes lives to its end; the search for it is a tenth of all
        atexit.register(gc.freeze)  # nor is it searched for then
        try:
            with _ended_in_order():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader went away, which click answers by ending quietly
        except (GraphRestoreError, OSError) as error:
            raise click.ClickException(for_shell(error_text(error))) from error


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="graph-restore")
def main() -> None:
    """Brings TensorFlow 1 models back: looks at them, fits checkpoints, freezes them, compares them, shows them.

    MODEL is a .pb, .pbtxt, .meta, event file, SavedModel, session bundle or run directory; CHECKPOINT a prefix,
    any of its files, or its directory; also inside an archive (run.zip/model.ckpt) or in a store (s3://...).
    Only what runs a model needs TensorFlow: verify, freeze --verify, and the programs that script writes.

    \b
    Example: graph-restore freeze run/model.ckpt-1000.meta --fetches softmax -o frozen.pb
    """
