"""Messages of the library as the command line says them."""

from __future__ import annotations

import re
import shlex

import pytest

from graph_restore.cli.wording import for_shell

SAID = {
    "pass on_mismatch='skip', cast=True, rename= or exclude=": "pass --on-mismatch skip, --cast, --rename or --exclude",
    'write them with format="meta_graph"': "write them with --format meta_graph",
    "pass rename=[('^a\\\\.b/', 'c/')], or rename='auto'": "pass --rename a.b/=c/, or --rename auto",
    "pass rename=[('^a/(?!(?:w)$)', '')]": "pass --rename 're:^a/(?!(?:w)$)='",
    "pass rename=[{'a/': '', 'b': 'c'}, ('^x', 'y]')]": "pass --rename a/= --rename b=c --rename 're:^x=y]'",
    "with constants= (--set) or inference=True": "with --set or --inference",
    "graph_restore.initialize(model) gives": "--initialize gives",
    "as in restore(model, checkpoint)": "as in graph-restore check MODEL CHECKPOINT",
    "the tensor lr_schedule/rename=1 and xcast=True stay": "the tensor lr_schedule/rename=1 and xcast=True stay",
}


@pytest.mark.parametrize("text", SAID)
def test_messages_name_options(text: str) -> None:
    assert for_shell(text) == SAID[text]


def test_options_of_a_rename_can_be_pasted() -> None:
    guess = [("^" + re.escape("my scope/"), "it's/")]
    advice = for_shell(f"pass rename={guess!r}").removeprefix("pass ")
    assert shlex.split(advice) == ["--rename", "my scope/=it's/"]
